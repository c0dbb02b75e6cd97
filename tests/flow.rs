//! Channels: windows, order, ends; and in modules of their own, the capacity of writers, requests and floods.

#[path = "flow/capacity.rs"]
mod capacity;
#[path = "flow/closing.rs"]
mod closing;
#[path = "flow/many.rs"]
mod many;
#[path = "flow/requests.rs"]
mod requests;
#[path = "flow/stderr.rs"]
mod stderr;
#[path = "flow/windows.rs"]
mod windows;

use ssh_proto::raw::number;
use ssh_proto::{
    Channel, ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind, Client, ClientEvent,
    CloseReason, Connection, ExitStatus, OpenError, ReadError, RequestError, StderrMode, Stream, WriteError,
};
use ssh_tests::{Pair, Policy, Scene, hand, record, take};

fn reads(read: bool) -> Policy {
    Policy { read, ..Policy::default() }
}

fn client(pair: &mut Pair, id: ChannelId) -> Channel<'_> {
    pair.client.conn.channel(id).unwrap()
}

fn server(pair: &mut Pair, id: ChannelId) -> Channel<'_> {
    pair.server.conn.channel(id).unwrap()
}

/// Writes until nothing more is taken, and says how much was.
fn fill(channel: &mut Channel<'_>, stream: Stream) -> usize {
    let mut total = 0;
    loop {
        match channel.write(stream, &[b'f'; 100_000]) {
            Ok(n) => total += n,
            Err(WriteError::Blocked) => return total,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn windows_of_one_byte_and_of_200_bytes_carry_everything() {
    for (window, total) in [(1, 2_000), (200, 50_000)] {
        let mut pair = Pair::logged_in();
        pair.server.policy.channel = ChannelConfig::default().with_window(window);
        let (ours, theirs) = pair.open_session();
        let mut left = vec![b'x'; total];
        while !left.is_empty() {
            if let Ok(n) = client(&mut pair, ours).write(Stream::Data, &left) {
                assert!(n <= window as usize);
                left.drain(..n);
            }
            pair.drive();
        }
        assert_eq!(pair.server.bytes(theirs, Stream::Data).len(), total);
    }
}

#[test]
fn nothing_is_sent_beyond_the_window_and_reading_is_what_opens_it() {
    let mut pair = Pair::logged_in();
    pair.server.policy = reads(false);
    pair.server.policy.channel = ChannelConfig::default().with_window(100_000);
    let (ours, theirs) = pair.open_session();
    assert_eq!(fill(&mut client(&mut pair, ours), Stream::Data), 100_000);
    pair.drive();
    assert_eq!(client(&mut pair, ours).write(Stream::Data, b"x"), Err(WriteError::Blocked));
    assert_eq!(record::count(&pair.s2c.sent, number::CHANNEL_WINDOW_ADJUST), 0);
    assert_eq!(server(&mut pair, theirs).read(Stream::Data, 10).unwrap().len(), 10);
    pair.drive();
    assert_eq!(record::count(&pair.s2c.sent, number::CHANNEL_WINDOW_ADJUST), 1, "the window was empty");
    take!(pair.client, ClientEvent::Channel(_, ChannelEvent::Writable) => ());
    assert_eq!(fill(&mut client(&mut pair, ours), Stream::Data), 10);
}

#[test]
fn adjusts_are_worth_a_message() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    for _ in 0..4_000 {
        let data = [0; 1000];
        let mut rest = &data[..];
        while let Ok(n) = client(&mut pair, ours).write(Stream::Data, rest) {
            rest = &rest[n..];
            if rest.is_empty() {
                break;
            }
        }
        pair.drive();
    }
    assert_eq!(pair.server.bytes(theirs, Stream::Data).len(), 4_000_000);
    let adjusts = record::count(&pair.s2c.sent, number::CHANNEL_WINDOW_ADJUST);
    assert!((2..60).contains(&adjusts), "{adjusts} adjusts for 4 MB");
}

#[test]
fn one_stalled_channel_never_affects_another() {
    let mut pair = Pair::logged_in();
    let (stalled, unread) = pair.open_session();
    let (ours, theirs) = pair.open_session();
    pair.server.policy = reads(false);
    while fill(&mut client(&mut pair, stalled), Stream::Data) > 0 {
        pair.drive();
    }
    let mut got = 0;
    for _ in 0..100 {
        client(&mut pair, ours).write(Stream::Data, &[1; 30_000]).unwrap();
        pair.drive();
        while let Ok(bytes) = server(&mut pair, theirs).read(Stream::Data, usize::MAX) {
            got += bytes.len();
        }
        assert_eq!(fill(&mut client(&mut pair, stalled), Stream::Data), 0);
    }
    assert_eq!(got, 3_000_000);
    assert!(!server(&mut pair, unread).peek(Stream::Data).is_empty());
    client(&mut pair, stalled).close();
    pair.drive();
    assert!(pair.server.saw("Eof"));
}

#[test]
fn unread_stderr_stalls_its_channel_only_and_combined_or_discarded_it_does_not() {
    for (stderr, stalls) in
        [(StderrMode::Separate, true), (StderrMode::Combined, false), (StderrMode::Discard, false)]
    {
        let mut pair = Pair::logged_in();
        let (ours, theirs) = pair.open_session_with(ChannelConfig::default().with_stderr(stderr));
        let (other, others) = pair.open_session();
        pair.client.policy = reads(false);
        let (mut out, mut total) = (0, 0);
        for _ in 0..400 {
            for stream in [Stream::Stderr, Stream::Data] {
                out += server(&mut pair, theirs).write(stream, &[2; 20_000]).unwrap_or(0);
            }
            pair.drive();
            while let Ok(bytes) = client(&mut pair, ours).read(Stream::Data, usize::MAX) {
                total += bytes.len();
            }
        }
        assert_eq!(out < 400 * 40_000, stalls, "{stderr:?}: {out} written, {total} read");
        server(&mut pair, others).write(Stream::Data, b"still here").unwrap();
        pair.drive();
        assert_eq!(client(&mut pair, other).peek(Stream::Data), b"still here");
    }
}

#[test]
fn readable_and_writable_are_told_once_for_each_edge() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    pair.server.policy = reads(false);
    for _ in 0..5 {
        client(&mut pair, ours).write(Stream::Data, b"more").unwrap();
        pair.drive();
    }
    assert_eq!(pair.server.count("Readable(Data)"), 1);
    pair.server.read(theirs, Stream::Data);
    assert_eq!(pair.server.bytes(theirs, Stream::Data), b"moremoremoremoremore");
    client(&mut pair, ours).write(Stream::Data, b"more").unwrap();
    pair.drive();
    assert_eq!(pair.server.count("Readable(Data)"), 2);

    while fill(&mut client(&mut pair, ours), Stream::Data) > 0 {
        pair.drive();
    }
    let writables = pair.client.count("Writable");
    while server(&mut pair, theirs).read(Stream::Data, 50_000).is_ok() {
        pair.drive();
    }
    let told = pair.client.count("Writable") - writables;
    assert!((1..=2).contains(&told), "told {told} times without a write in between");
}

#[test]
fn a_write_that_is_taken_in_part_is_followed_by_writable_as_one_that_is_refused() {
    // The window, what is written, what of it is taken, and how often there is something to wait for.
    for (window, written, taken, told) in [
        (10, 11, Ok(10), 1),
        (10, 10, Ok(10), 0),
        (10, 0, Ok(0), 0),
        (0, 1, Err(WriteError::Blocked), 1),
        (0, 0, Ok(0), 0),
    ] {
        for stream in [Stream::Data, Stream::Stderr] {
            let mut scene = Scene::client().authenticated();
            let id = scene.open_session(window);
            let write = scene.as_client().channel(id).unwrap().write(stream, &vec![b'x'; written]);
            assert_eq!(write, taken, "{written} into {window}");
            assert!(scene.take_events().is_empty(), "not before there is room");
            for expected in [told, 0] {
                scene.say(&hand::adjust(0, 100));
                let events = scene.take_events();
                let writable = events.iter().filter(|event| format!("{event:?}").contains("Writable"));
                assert_eq!((events.len(), writable.count()), (expected, expected), "{written} into {window}");
            }
        }
    }
}

#[test]
fn writable_goes_to_every_waiting_channel_in_turn() {
    let mut pair = Pair::logged_in();
    let ids: Vec<_> = (0..20).map(|_| pair.open_session().0).collect();
    for id in &ids {
        let _ = client(&mut pair, *id).write(Stream::Data, &[0; 200_000]);
    }
    for id in &ids {
        assert_eq!(client(&mut pair, *id).write(Stream::Data, b"x"), Err(WriteError::Blocked));
    }
    pair.drive();
    for id in &ids {
        take!(pair.client, ClientEvent::Channel(of, ChannelEvent::Writable) if of == *id => ());
    }
}

#[test]
fn writable_goes_on_to_the_next_when_those_told_first_have_nothing_to_write_any_more() {
    let mut pair = Pair::logged_in();
    let ids: Vec<_> = (0..20).map(|_| pair.open_session().0).collect();
    for id in &ids {
        fill(&mut client(&mut pair, *id), Stream::Data);
    }
    let conn = &mut pair.client.conn;
    let told = |conn: &mut Connection<Client>| {
        let events = std::iter::from_fn(|| conn.poll_event());
        let told = events.map(|event| match event {
            ClientEvent::Channel(id, ChannelEvent::Writable) => id,
            event => panic!("{event:?}"),
        });
        told.collect::<Vec<_>>()
    };
    // Room of two quanta, then everything in one go; no input comes.
    conn.consume_output(50_000);
    assert_eq!(told(conn), ids[..2]);
    assert_eq!(told(conn), []);
    conn.consume_output(usize::MAX);
    assert_eq!(told(conn), ids[2..]);
    conn.consume_output(usize::MAX);
    assert_eq!(told(conn), [], "once for each refused write");
}

#[test]
fn data_eof_exit_status_and_close_arrive_in_the_order_they_were_made() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    let mut channel = server(&mut pair, theirs);
    channel.write(Stream::Data, b"output").unwrap();
    channel.write(Stream::Stderr, b"errors").unwrap();
    channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(7)), false).unwrap();
    channel.close();
    assert_eq!(channel.write(Stream::Data, b"late"), Err(WriteError::Closed));
    assert_eq!(channel.eof(), Err(WriteError::Closed));
    assert_eq!(channel.request(&ChannelRequestKind::Shell, true), Err(RequestError::Closed));
    pair.drive();
    let numbers = record::numbers(&pair.s2c.sent);
    let tail: Vec<u8> = numbers.into_iter().filter(|number| (94..=98).contains(number)).collect();
    assert_eq!(tail, [94, 95, 98, 96, 97]);
    let at = |words: &str| pair.client.trace.iter().position(|event| event.contains(words)).expect(words);
    assert!(at("Readable(Data)") < at("Exit(Code(7))") && at("Exit(Code(7))") < at(" Eof"));
    assert!(at(" Eof") < at("0 } Closed"));
    for (stream, bytes) in [(Stream::Data, b"output"), (Stream::Stderr, b"errors")] {
        assert_eq!(pair.client.bytes(ours, stream), bytes);
        assert_eq!(pair.client.received[&(ours, stream)].end, Some(ReadError::Eof));
    }
}

#[test]
fn what_was_received_stays_readable_after_close_and_until_release() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    pair.client.policy = reads(false);
    server(&mut pair, theirs).write(Stream::Data, &[3; 50_000]).unwrap();
    server(&mut pair, theirs).close();
    pair.drive();
    assert!(pair.client.saw("Closed"));
    let mut got = 0;
    while let Ok(bytes) = client(&mut pair, ours).read(Stream::Data, 7_000) {
        got += bytes.len();
    }
    assert_eq!(got, 50_000);
    assert_eq!(client(&mut pair, ours).read(Stream::Data, 1), Err(ReadError::Eof));
    client(&mut pair, ours).release();
    assert!(pair.client.conn.channel(ours).is_err());
}

#[test]
fn a_channel_closed_without_eof_is_reset() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    server(&mut pair, theirs).write(Stream::Data, b"half").unwrap();
    assert_eq!(server(&mut pair, theirs).abort(), 0);
    pair.drive();
    assert_eq!(pair.client.bytes(ours, Stream::Data), b"half");
    assert_eq!(pair.client.received[&(ours, Stream::Data)].end, Some(ReadError::Reset));
}

#[test]
fn an_abort_says_how_many_bytes_of_requests_and_data_it_dropped() {
    // A number, the recipient, the name's length, the wish for a reply.
    const HEAD: usize = 1 + 4 + 4 + 1;
    let mut pair = Pair::logged_in();
    pair.client.policy = reads(false);
    let (ours, theirs) = pair.open_session();
    let (other, _) = pair.open_session();
    server(&mut pair, theirs).write(Stream::Data, &[0; 1000]).unwrap();
    server(&mut pair, theirs).write(Stream::Stderr, &[0; 200]).unwrap();
    pair.drive();
    assert_eq!(client(&mut pair, ours).read(Stream::Data, 300).unwrap().len(), 300);
    // The output is full: requests wait.
    pair.c2s.stalled = true;
    fill(&mut client(&mut pair, other), Stream::Data);
    let kind = |len| ChannelRequestKind::Other { name: "x@y".into(), data: vec![0; len] };
    for (id, len) in [(ours, 10), (other, 5), (ours, 4000)] {
        client(&mut pair, id).request(&kind(len), false).unwrap();
    }
    let requests = 2 * (HEAD + 3) + 10 + 4000;
    assert_eq!(client(&mut pair, ours).abort(), requests + 700 + 200);
    assert_eq!(client(&mut pair, ours).abort(), 0, "once is enough");
    pair.c2s.stalled = false;
    pair.drive();
    assert_eq!(record::count(&pair.c2s.sent, number::CHANNEL_REQUEST), 1, "only the other channel's");
    assert!(pair.client.saw("0 } Closed"));
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn a_lost_connection_leaves_what_arrived_and_then_says_lost() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    pair.client.policy = reads(false);
    server(&mut pair, theirs).write(Stream::Data, b"last words").unwrap();
    pair.drive();
    pair.s2c.cut();
    pair.drive();
    assert_eq!(pair.client.closed, Some(CloseReason::Eof));
    let mut channel = client(&mut pair, ours);
    assert_eq!(channel.read(Stream::Data, 100).unwrap(), "last words");
    assert_eq!(channel.read(Stream::Data, 100), Err(ReadError::Lost));
    assert_eq!(channel.write(Stream::Data, b"x"), Err(WriteError::Closed));
    channel.release();
    let opened = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default());
    assert_eq!(opened, Err(OpenError::Closed));
}

#[test]
fn what_arrives_together_with_a_disconnect_is_told_before_it() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    let mut channel = server(&mut pair, theirs);
    channel.write(Stream::Data, b"all of it").unwrap();
    channel.close();
    pair.server.conn.close(ssh_proto::Disconnect::by_application());
    pair.drive();
    assert_eq!(pair.client.bytes(ours, Stream::Data), b"all of it");
    assert_eq!(pair.client.received[&(ours, Stream::Data)].end, Some(ReadError::Eof));
    let words = ["Readable(Data)", " Eof", "0 } Closed", "Closed(PeerDisconnected"];
    let at =
        words.map(|words| pair.client.trace.iter().position(|event| event.contains(words)).expect(words));
    assert!(at.is_sorted(), "{:?}", pair.client.trace);
}

#[test]
fn ch_04_every_legal_order_of_the_last_messages_is_delivered() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Last {
        Data,
        Ext,
        Eof,
        Status,
        Signal,
        Close,
    }
    use Last::*;
    let all = [Data, Ext, Eof, Status, Signal, Close];
    let mut orders: Vec<Vec<Last>> = vec![Vec::new()];
    for length in 0..all.len() {
        let longer = orders.iter().filter(|order| order.len() == length);
        let longer: Vec<_> = longer
            .flat_map(|order| {
                all.iter().filter(|one| !order.contains(one)).map(|one| [&order[..], &[*one]].concat())
            })
            .collect();
        orders.extend(longer);
    }
    let mut tried = 0;
    for order in orders {
        let at = |one| order.iter().position(|other| *other == one);
        // Data behind EOF, and anything behind CLOSE, is another matter.
        let data_late =
            [Data, Ext].iter().any(|one| at(*one).zip(at(Eof)).is_some_and(|(data, eof)| data > eof));
        if data_late || at(Close).is_some_and(|at| at + 1 != order.len()) || order.is_empty() {
            continue;
        }
        tried += 1;
        let mut pair = Pair::logged_in();
        let (ours, _) = pair.open_session();
        for one in &order {
            let message = match one {
                Data => hand::data(0, b"data"),
                Ext => hand::extended(0, 1, b"ext"),
                Eof => hand::eof(0),
                Status => hand::exit_status(0, 9),
                Signal => hand::exit_signal(0),
                Close => hand::close(0),
            };
            pair.server.conn.send_raw(&message);
        }
        pair.drive();
        assert_eq!(pair.client.closed, None, "{order:?}");
        for (one, words) in
            [(Status, "Exit(Code(9))"), (Signal, "Exit(Signal"), (Eof, " Eof"), (Close, "0 } Closed")]
        {
            assert_eq!(pair.client.count(words), usize::from(at(one).is_some()), "{order:?}: {words}");
        }
        assert_eq!(
            pair.client.bytes(ours, Stream::Data),
            if at(Data).is_some() { &b"data"[..] } else { b"" }
        );
        assert_eq!(
            pair.client.bytes(ours, Stream::Stderr),
            if at(Ext).is_some() { &b"ext"[..] } else { b"" }
        );
        let end = match (at(Eof), at(Close)) {
            (Some(_), _) => Some(ReadError::Eof),
            (None, Some(_)) => Some(ReadError::Reset),
            _ => None,
        };
        let received = pair.client.received.get(&(ours, Stream::Data));
        assert_eq!(received.and_then(|received| received.end), end, "{order:?}");
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn ten_thousand_channels_one_after_another_leave_nothing_behind() {
    let mut pair = Pair::logged_in();
    let mut seen = std::collections::HashSet::new();
    for round in 0..10_000 {
        let (ours, theirs) = pair.open_session();
        assert!(seen.insert(ours), "an id came twice");
        client(&mut pair, ours).write(Stream::Data, b"x").unwrap();
        client(&mut pair, ours).close();
        pair.drive();
        client(&mut pair, ours).release();
        server(&mut pair, theirs).release();
        assert!(pair.client.conn.channel(ours).is_err());
        if round % 1000 == 0 {
            for usage in [pair.client.conn.memory_usage(), pair.server.conn.memory_usage()] {
                assert_eq!(usage, ssh_proto::MemoryUsage::default());
            }
        }
        pair.client.trace.clear();
        pair.client.events.clear();
        pair.server.trace.clear();
        pair.server.events.clear();
        (pair.client.received, pair.server.received) = Default::default();
        pair.server.accepted.clear();
    }
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn a_released_channel_gives_its_window_back_and_its_number_only_after_both_closes() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    pair.server.policy = reads(false);
    server(&mut pair, theirs).write(Stream::Data, &[0; 100_000]).unwrap();
    client(&mut pair, ours).release();
    assert_eq!(pair.client.conn.memory_usage().channels, 1);
    let again = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    assert_ne!(again, ours);
    pair.drive();
    assert_eq!(pair.client.conn.memory_usage().channels, 1, "only the new one");
    assert!(!pair.client.saw(&format!("{ours:?} ")), "{:?}", pair.client.trace);
}

#[test]
fn no_event_of_a_channel_follows_its_release() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    let (other, others) = pair.open_session();
    client(&mut pair, ours).request(&ChannelRequestKind::Shell, true).unwrap();
    client(&mut pair, other).request(&ChannelRequestKind::Shell, true).unwrap();
    let opening = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    pair.drive();
    pair.client.trace.clear();
    // Everything there is to tell waits.
    pair.client.frozen = true;
    for id in [theirs, others] {
        let mut channel = server(&mut pair, id);
        channel.write(Stream::Data, b"data").unwrap();
        channel
            .request(&ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![] }, true)
            .unwrap();
        channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(7)), false).unwrap();
        channel.close();
    }
    pair.drive();
    client(&mut pair, ours).release();
    client(&mut pair, opening).release();
    pair.client.frozen = false;
    pair.drive();
    for released in [ours, opening] {
        assert!(!pair.client.saw(&format!("{released:?}")), "{:#?}", pair.client.trace);
    }
    for words in ["Readable(Data)", "Request", "Exit(Code(7))", "Eof", "Closed"] {
        assert_eq!(pair.client.count(words), 1, "{words}: {:#?}", pair.client.trace);
    }
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn what_was_asked_on_a_released_channel_is_answered_by_its_close_alone() {
    // Whether the question is kept, dropped at once, or never even looked at.
    for (polled, dropped) in [(true, true), (true, false), (false, true)] {
        let mut pair = Pair::logged_in();
        let (ours, theirs) = pair.open_session();
        pair.server.policy = Policy { request: ssh_tests::Answer::Keep, ..Policy::default() };
        pair.server.frozen = !polled;
        client(&mut pair, ours).request(&ChannelRequestKind::Shell, true).unwrap();
        client(&mut pair, ours).request(&ChannelRequestKind::env("A", "b"), true).unwrap();
        pair.drive();
        let kept: Vec<_> = pair.server.events.drain(..).collect();
        // The CLOSE waits for the exchange; what is dropped is noticed before that.
        pair.server.conn.rekey();
        server(&mut pair, theirs).release();
        let kept = if dropped { Vec::new() } else { kept };
        pair.server.frozen = false;
        pair.drive();
        assert_eq!(record::count(&pair.s2c.sent, number::CHANNEL_FAILURE), 0);
        assert_eq!(record::count(&pair.s2c.sent, number::CHANNEL_CLOSE), 1);
        assert_eq!(pair.client.count("Reply(false)"), 2);
        assert_eq!(pair.server.conn.memory_usage().owed, 0);
        assert_eq!(pair.server.count("Request "), if polled { 2 } else { 0 });
        drop(kept);
        pair.drive();
        assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    }
}
