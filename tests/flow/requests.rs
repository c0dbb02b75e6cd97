//! Requests and their replies, and what a peer gets that asks too much.

use std::time::Duration;

use ssh_proto::raw::number;
use ssh_proto::{
    Channel, ChannelConfig, ChannelEvent, ChannelKind, ChannelRequestKind, ClientEvent, GlobalRequestKind,
    Limits, OpenError, RequestError, ServerEvent, Stream, WriteError,
};
use ssh_tests::{Answer, Pair, Policy, hand, null_configs_with, record, take};

use super::{client, fill, server};

#[test]
fn ch_08_replies_come_in_the_order_of_the_requests_whatever_the_order_of_the_answers() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.server.policy.request = Answer::Keep;
    for name in ["A", "B", "C"] {
        client(&mut pair, ours).request(&ChannelRequestKind::env(name, ""), true).unwrap();
    }
    pair.drive();
    let mut tickets = Vec::new();
    for _ in 0..3 {
        tickets.push(take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(ticket)) => ticket));
    }
    for (ticket, ok) in tickets.into_iter().rev().zip([true, false, true]) {
        assert_eq!(pair.client.count(" Reply("), 0);
        pair.server.conn.reply_request(ticket, ok).unwrap();
        pair.step();
    }
    pair.drive();
    let replies = pair.client.trace.iter().filter(|event| event.contains(" Reply("));
    let replies: Vec<bool> = replies.map(|event| event.contains("true")).collect();
    assert_eq!(replies, [true, false, true]);
}

#[test]
fn a_request_says_how_many_bytes_of_each_stream_came_before_it() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    let policy = Policy { request: Answer::Keep, ..Policy::default() };
    (pair.client.policy, pair.server.policy) = (policy.clone(), policy);
    let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    let (mut data, mut stderr) = (0, 0);
    for (more_data, more_stderr) in [(0, 0), (3, 0), (0, 5), (1000, 40_000), (0, 0)] {
        let say = |mut channel: Channel<'_>| {
            for (stream, n) in [(Stream::Data, more_data), (Stream::Stderr, more_stderr)] {
                assert!(n == 0 || channel.write(stream, &vec![0; n]) == Ok(n));
            }
            channel.request(&kind, true).unwrap();
        };
        say(client(&mut pair, ours));
        say(server(&mut pair, theirs));
        (data, stderr) = (data + more_data as u64, stderr + more_stderr as u64);
        pair.drive();
        let asked = [
            take!(pair.client, ClientEvent::Channel(_, ChannelEvent::Request(asked)) => asked),
            take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(asked)) => asked),
        ];
        for asked in asked {
            assert_eq!((asked.after(Stream::Data), asked.after(Stream::Stderr)), (data, stderr));
        }
    }
}

#[test]
fn nothing_is_told_of_an_open_that_was_given_up_whatever_becomes_of_it() {
    for answer in [Answer::No, Answer::Drop, Answer::Yes] {
        let mut pair = Pair::logged_in();
        pair.server.policy.open = Answer::Keep;
        let given_up =
            pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
        let other = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
        client(&mut pair, given_up).release();
        pair.drive();
        pair.server.answer(&Policy { open: answer, ..Policy::default() });
        pair.drive();
        assert!(!pair.client.saw(&format!("{given_up:?}")), "{answer:?}: {:?}", pair.client.trace);
        assert!(pair.client.saw(&format!("{other:?}")), "{answer:?}: {:?}", pair.client.trace);
        let left = if answer == Answer::Yes { 1 } else { 0 };
        assert_eq!(pair.client.conn.memory_usage().channels, left, "{answer:?}");
        assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    }
}

#[test]
fn requests_made_before_the_confirmation_leave_behind_it_and_before_data() {
    let mut pair = Pair::logged_in();
    let ours = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    let mut channel = client(&mut pair, ours);
    channel.request(&ChannelRequestKind::env("A", "b"), false).unwrap();
    channel.request(&ChannelRequestKind::exec("cat"), true).unwrap();
    assert_eq!(channel.write(Stream::Data, b"input"), Err(WriteError::Blocked));
    pair.drive();
    take!(pair.client, ClientEvent::Channel(id, ChannelEvent::Writable) if id == ours => ());
    client(&mut pair, ours).write(Stream::Data, b"input").unwrap();
    pair.drive();
    let numbers = record::numbers(&pair.c2s.sent);
    let mine: Vec<u8> = numbers.into_iter().filter(|number| *number >= 90).collect();
    assert_eq!(mine, [90, 98, 98, 94]);
    assert_eq!(pair.client.count("Reply(true)"), 1);
}

#[test]
fn too_many_requests_are_full_and_ready_says_when_there_is_room() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.c2s.stalled = true;
    let (big, mut sent) = (vec![0; 8_000], 0);
    fill(&mut client(&mut pair, ours), Stream::Data);
    let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: big };
    let error = loop {
        match client(&mut pair, ours).request(&kind, false) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, RequestError::Full);
    assert!((7..=8).contains(&sent), "64 KiB are {sent} of them");
    assert_eq!(pair.client.count("Ready"), 0);
    pair.c2s.stalled = false;
    pair.drive();
    assert_eq!(pair.client.trace.iter().filter(|event| *event == "Ready").count(), 1);
    client(&mut pair, ours).request(&kind, false).unwrap();
    let long = ChannelRequestKind::exec(vec![b'x'; 33_000]);
    assert_eq!(client(&mut pair, ours).request(&long, false), Err(RequestError::TooLong));
}

#[test]
fn unanswered_requests_are_bounded_and_ready_follows_a_reply() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.server.policy.request = Answer::Keep;
    let kind = ChannelRequestKind::env("A", "");
    for _ in 0..16 {
        client(&mut pair, ours).request(&kind, true).unwrap();
    }
    pair.drive();
    assert_eq!(client(&mut pair, ours).request(&kind, true), Err(RequestError::Full));
    let ready = |pair: &Pair| pair.client.trace.iter().filter(|event| *event == "Ready").count();
    assert_eq!(ready(&pair), 0);
    for _ in 0..16 {
        let ticket = take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(ticket)) => ticket);
        pair.server.conn.reply_request(ticket, true).unwrap();
    }
    pair.drive();
    assert_eq!(ready(&pair), 1, "a refused request is owed a Ready");
    client(&mut pair, ours).request(&kind, true).unwrap();

    let global = GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() };
    pair.server.policy.global = Answer::Keep;
    let made = std::iter::from_fn(|| pair.client.conn.global_request(&global).ok()).count();
    assert_eq!(made, 64);
    pair.drive();
    assert_eq!(pair.client.count("GlobalReply"), 0, "refused ones wait behind undecided ones");
    while let Some(ticket) = pair.server.take(|event| match event {
        ServerEvent::Global(ticket) => Ok(ticket),
        other => Err(other),
    }) {
        pair.server.conn.reply_global(ticket, ssh_proto::GlobalReply::Success(b"")).unwrap();
    }
    pair.drive();
    assert_eq!(pair.client.count("GlobalReply"), 64);
    assert_eq!(pair.client.count("Some("), 16, "the others were over the cap");
    assert_eq!(ready(&pair), 2);
}

#[test]
fn opens_over_the_cap_are_refused_and_the_others_wait() {
    let mut pair = Pair::logged_in();
    pair.server.policy.open = Answer::Keep;
    for _ in 0..10 {
        pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    }
    pair.drive();
    assert_eq!(pair.client.count("OpenFailed"), 2);
    assert!(pair.server.conn.wants_input());
    for _ in 0..8 {
        let ticket = take!(pair.server, ServerEvent::Open(ticket) => ticket);
        pair.server.conn.accept_channel(ticket, ChannelConfig::default()).unwrap();
    }
    pair.drive();
    assert_eq!(pair.client.count("Opened"), 8);
}

#[test]
fn as_many_channels_as_allowed_can_be_open_each_with_a_window() {
    let mut pair = Pair::logged_in();
    for _ in 0..32 {
        pair.open_session();
    }
    let more = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default());
    assert_eq!(more, Err(OpenError::TooMany));
    for usage in [pair.client.conn.memory_usage(), pair.server.conn.memory_usage()] {
        assert!(usage.granted >= 32 * 32 * 1024 && usage.granted <= 24 << 20, "{usage:?}");
    }
}

#[test]
fn ch_20_a_ping_flood_by_a_peer_that_does_not_read_is_bounded_and_pauses_its_reading() {
    // The client's machine did not ask, so the answers are noise to it.
    let (client, server) = null_configs_with(|limits| limits.noise_burst = 1_000_000, |_| {});
    let mut pair = Pair::new(client, server, 1);
    pair.login();
    pair.s2c.stalled = true;
    pair.c2s.split = ssh_tests::Split::Fixed(10_000);
    for _ in 0..2_000 {
        pair.client.conn.send_raw(&hand::ping(1000));
    }
    pair.drive();
    let usage = pair.server.conn.memory_usage();
    assert!(!pair.server.conn.wants_input());
    // The cap, what honest requests may add to it, and a packet.
    assert!(usage.output <= 260 * 1024 && usage.owed <= (64 + 16 + 6) * 1024, "{usage:?}");
    assert!(pair.c2s.under_way() > 1_000_000);
    pair.s2c.stalled = false;
    pair.drive();
    assert_eq!(record::count(&pair.s2c.sent, number::PONG), 2_000);
    assert_eq!(pair.server.closed, None);
}

#[test]
fn chaff_around_keystrokes_is_answered_however_long_it_goes_on() {
    // The client's machine did not ask, so the answers are noise to it.
    let (client, server) = null_configs_with(|limits| limits.noise_burst = 1_000_000, |_| {});
    let mut pair = Pair::new(client, server, 1);
    pair.login();
    for _ in 0..1_000 {
        pair.client.conn.send_raw(&hand::ping(5));
        pair.drive();
    }
    assert_eq!(record::count(&pair.s2c.sent, number::PONG), 1_000);
    assert_eq!(pair.server.closed, None);
}

#[test]
fn a_keepalive_between_two_idle_sides_is_answered_and_nothing_else_is_sent() {
    let (client, server) =
        null_configs_with(|limits| limits.keepalive_interval = Some(Duration::from_secs(30)), |_| {});
    let mut pair = Pair::new(client, server, 1);
    pair.login();
    let before = (pair.c2s.sent.len(), pair.s2c.sent.len());
    pair.advance(Duration::from_secs(3000));
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    let globals = record::count(&pair.c2s.sent, 80) + record::count(&pair.s2c.sent, 80);
    assert!((100..=210).contains(&globals), "{globals}");
    let replies = record::count(&pair.c2s.sent, 82) + record::count(&pair.s2c.sent, 82);
    assert_eq!(replies, globals);
    assert!(pair.c2s.sent.len() > before.0 && pair.s2c.sent.len() > before.1);
}

#[test]
fn how_a_program_ended_is_told_to_whoever_closed_on_it() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    let exit = ChannelRequestKind::Exit(ssh_proto::ExitStatus::Code(7));
    pair.server.conn.channel(theirs).unwrap().request(&exit, false).unwrap();
    client(&mut pair, ours).close();
    pair.drive();
    assert_eq!(pair.client.count("Exit("), 1, "{:?}", pair.client.trace);
}

#[test]
fn every_request_on_a_channel_of_a_type_of_its_own_is_told_however_many() {
    let mut pair = Pair::logged_in();
    let kind = ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    let ours = pair.client.conn.open_channel(&kind, ChannelConfig::default()).unwrap();
    pair.drive();
    let many = Limits::default().env_requests as usize + 10;
    for _ in 0..many {
        client(&mut pair, ours).request(&ChannelRequestKind::env("A", "b"), true).unwrap();
        pair.drive();
    }
    assert_eq!((pair.server.count("Request Env"), pair.client.count("Reply(true)")), (many, many));
    // How something ended is told, and no question whoever makes one of it.
    let exit = ChannelRequestKind::Exit(ssh_proto::ExitStatus::Code(7));
    client(&mut pair, ours).request(&exit, true).unwrap();
    pair.drive();
    assert_eq!((pair.server.count("Exit("), pair.client.count("Reply(false)")), (1, 1));
}

#[test]
fn a_channel_whose_open_is_unanswered_leaves_room_for_the_requests_of_others() {
    for len in [0, 4_000, 30_000] {
        for answer in [Answer::Yes, Answer::No, Answer::Keep] {
            let mut pair = Pair::logged_in();
            let (ours, _) = pair.open_session();
            pair.server.policy.open = Answer::Keep;
            let open = |pair: &mut Pair| {
                pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap()
            };
            let (slow, other) = (open(&mut pair), open(&mut pair));
            pair.drive();
            let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![0; len] };
            let ask = |pair: &mut Pair, id| client(pair, id).request(&kind, false);
            while ask(&mut pair, slow).is_ok() {}
            assert_eq!(ask(&mut pair, slow), Err(RequestError::Full));
            assert_eq!(ask(&mut pair, other), Err(RequestError::Full), "they have one share");
            assert_eq!(ask(&mut pair, ours), Ok(()), "{len}");
            open(&mut pair);
            let ready = |pair: &Pair| pair.client.trace.iter().filter(|event| *event == "Ready").count();
            pair.drive();
            assert_eq!(ready(&pair), 0);
            // The first one comes to something, comes to nothing, or is given up.
            pair.server.policy.request = Answer::Yes;
            let ticket = take!(pair.server, ServerEvent::Open(ticket) => ticket);
            match answer {
                Answer::Yes => drop(pair.server.conn.accept_channel(ticket, ChannelConfig::default())),
                Answer::No => drop(ticket),
                _ => client(&mut pair, slow).release(),
            }
            pair.drive();
            assert_eq!(ready(&pair), 1, "{len} {answer:?}");
            assert_eq!(ask(&mut pair, other), Ok(()));
        }
    }
}

#[test]
fn an_answer_that_has_not_left_is_still_to_be_drained() {
    let mut pair = Pair::logged_in();
    let (policy, accepting) =
        (Policy { request: Answer::Keep, ..Policy::default() }, ChannelConfig::default());
    pair.server.policy = Policy { open: Answer::Keep, ..policy };
    let ours = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    pair.drive();
    let ticket = take!(pair.server, ServerEvent::Open(ticket) => ticket);
    pair.server.conn.rekey();
    let theirs = pair.server.conn.accept_channel(ticket, accepting).unwrap();
    assert!(!server(&mut pair, theirs).is_drained(), "the confirmation waits for the exchange");
    pair.drive();
    assert!(server(&mut pair, theirs).is_drained());
    for name in ["A", "B"] {
        client(&mut pair, ours).request(&ChannelRequestKind::env(name, ""), true).unwrap();
    }
    pair.drive();
    let mut take = || take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(ticket)) => ticket);
    let (first, second) = (take(), take());
    pair.server.conn.rekey();
    pair.server.conn.reply_request(second, true).unwrap();
    assert!(server(&mut pair, theirs).is_drained(), "it is another answer that this one waits for");
    pair.server.conn.reply_request(first, true).unwrap();
    assert!(!server(&mut pair, theirs).is_drained());
    pair.drive();
    assert!(server(&mut pair, theirs).is_drained());
    assert_eq!(pair.client.count("Reply(true)"), 2);
}

#[test]
fn an_impossible_open_costs_only_its_channel() {
    let mut pair = Pair::logged_in();
    pair.s2c.stalled = true;
    let mut open = vec![number::CHANNEL_OPEN];
    for field in [&b"direct-tcpip"[..], &[], &b"host"[..]] {
        if field.is_empty() {
            for value in [7u32, 1 << 20, 32 * 1024] {
                open.extend(value.to_be_bytes());
            }
        } else {
            open.extend((field.len() as u32).to_be_bytes());
            open.extend(field);
        }
    }
    // A port that does not exist, and an empty originator.
    for value in [70_000u32, 0, 0] {
        open.extend(value.to_be_bytes());
    }
    pair.client.conn.send_raw(&open);
    pair.drive();
    assert_eq!(pair.server.closed, None);
    assert_eq!(pair.server.count("Open("), 0);
}

#[test]
fn ready_waits_until_what_was_refused_fits() {
    let (config, server) = null_configs_with(|limits| limits.outbox_bytes = 40 * 1024, |_| {});
    let mut pair = Pair::new(config, server, 1);
    pair.login();
    pair.server.policy.open = Answer::Keep;
    let ours = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    let sized = |len| ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![0; len] };
    client(&mut pair, ours).request(&sized(20_000), false).unwrap();
    assert_eq!(client(&mut pair, ours).request(&sized(21_000), false), Err(RequestError::Full));
    pair.drive();
    let ready = |pair: &Pair| pair.client.trace.iter().filter(|event| *event == "Ready").count();
    assert_eq!(ready(&pair), 0, "half is free, but not enough");
    let ticket = take!(pair.server, ServerEvent::Open(ticket) => ticket);
    pair.server.conn.accept_channel(ticket, ChannelConfig::default()).unwrap();
    pair.drive();
    assert_eq!(ready(&pair), 1);
    client(&mut pair, ours).request(&sized(21_000), false).unwrap();
}

#[test]
fn l7_as_many_answers_as_may_be_asked_for_do_not_stop_the_input_of_two_ends_with_full_outputs() {
    let (channels, requests) = (32, 100);
    let limits = |limits: &mut Limits| {
        (limits.pending_opens, limits.pending_requests) = (channels, requests);
        limits.recv_budget = 64 << 20;
    };
    let configs = null_configs_with(limits, |_| {});
    let mut pair = Pair::new(configs.0, configs.1, 1);
    pair.login();
    let kind = ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    let ours: Vec<_> = (0..channels)
        .map(|_| pair.client.conn.open_channel(&kind, ChannelConfig::default()).unwrap())
        .collect();
    pair.drive();
    let ids: Vec<_> = ours.into_iter().zip(pair.server.accepted.clone()).collect();
    assert_eq!(ids.len(), channels);
    (pair.client.policy.request, pair.server.policy.request) = (Answer::Keep, Answer::Keep);
    let asked = ChannelRequestKind::Other { name: "r@ssh-tests.invalid".into(), data: Vec::new() };
    for (ours, theirs) in &ids {
        for _ in 0..requests {
            client(&mut pair, *ours).request(&asked, true).unwrap();
            server(&mut pair, *theirs).request(&asked, true).unwrap();
            pair.drive();
        }
    }
    (pair.c2s.capacity, pair.s2c.capacity) = (Some(1000), Some(1000));
    (pair.c2s.stalled, pair.s2c.stalled) = (true, true);
    for (ours, theirs) in &ids {
        fill(&mut client(&mut pair, *ours), Stream::Data);
        fill(&mut server(&mut pair, *theirs), Stream::Data);
    }
    pair.client.answer(&Policy::default());
    pair.server.answer(&Policy::default());
    for usage in [pair.client.conn.memory_usage(), pair.server.conn.memory_usage()] {
        assert!(usage.owed >= channels * requests * 32 && usage.output >= 256 * 1024, "{usage:?}");
    }
    (pair.c2s.stalled, pair.s2c.stalled) = (false, false);
    pair.drive();
    assert!(pair.client.closed.is_none() && pair.server.closed.is_none());
    for replies in [pair.client.count(" Reply(true)"), pair.server.count(" Reply(true)")] {
        assert_eq!(replies, channels * requests);
    }
}
