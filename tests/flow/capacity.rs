//! How much a write would take, and what it takes.

use proptest::prelude::*;
use ssh_proto::raw::number;
use ssh_proto::{
    ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind, ClientEvent, Disconnect, Stream,
    WriteError,
};
use ssh_tests::{Pair, Policy, hand, null_configs_with, record, take};

use super::{client, fill, reads, server};

const BOTH: [Stream; 2] = [Stream::Data, Stream::Stderr];

/// The capacity for both streams.
fn capacity(pair: &mut Pair, id: ChannelId) -> [usize; 2] {
    BOTH.map(|stream| client(pair, id).capacity(stream))
}

fn kind() -> ChannelRequestKind {
    ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![0; 20] }
}

/// What the window of a channel that nothing was written to lets through.
fn window(pair: &mut Pair, id: ChannelId) -> usize {
    let [data, stderr] = capacity(pair, id);
    assert_eq!(data, stderr);
    data
}

/// A channel whose capacity is what a write takes, more of it being there to write.
fn assert_exact(pair: &mut Pair, id: ChannelId, stream: Stream) {
    let mut channel = client(pair, id);
    let capacity = channel.capacity(stream);
    let taken = channel.write(stream, &vec![0; capacity + 100_000]);
    match capacity {
        0 => assert_eq!(taken, Err(WriteError::Blocked)),
        _ => assert_eq!(taken, Ok(capacity)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_capacity_is_what_a_write_takes(
        window in prop_oneof![0u32..2000, 0u32..600_000],
        max_packet in prop_oneof![16u32..200, 16u32..40_000],
        before in 0usize..300_000, stderr: bool, consumed in proptest::collection::vec(0usize..200_000, 0..4),
    ) {
        let mut pair = Pair::logged_in();
        pair.server.policy = Policy::keep();
        let id = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
        pair.drive();
        pair.server.conn.send_raw(&hand::confirmation(0, 7, window, max_packet));
        pair.drive();
        pair.c2s.stalled = true;
        let stream = BOTH[usize::from(stderr)];
        let _ = client(&mut pair, id).write(stream, &vec![0; before]);
        assert_exact(&mut pair, id, stream);
        for n in consumed {
            pair.client.conn.consume_output(n);
            pair.server.conn.send_raw(&hand::adjust(0, n as u32));
            pair.drive();
            let _ = client(&mut pair, id).write(stream, &vec![0; n / 2]);
            assert_exact(&mut pair, id, stream);
        }
    }
}

#[test]
fn nothing_can_be_written_in_an_exchange_and_as_much_as_before_behind_it() {
    for by_client in [true, false] {
        let mut pair = Pair::logged_in();
        pair.server.policy = Policy { channel: ChannelConfig::default().with_window(10_000), ..reads(false) };
        let (ours, _) = pair.open_session();
        assert_eq!(window(&mut pair, ours), 10_000);
        client(&mut pair, ours).write(Stream::Data, &[0; 1_000]).unwrap();
        pair.drive();
        let before = capacity(&mut pair, ours);
        assert_eq!(before, [9_000; 2]);

        // The exchange stops half-way: our KEXINIT is out, our NEWKEYS is not.
        pair.s2c.stalled = true;
        if by_client {
            pair.client.conn.rekey();
        } else {
            pair.server.conn.rekey();
            pair.s2c.stalled = false;
            while !record::numbers(&pair.c2s.sent).ends_with(&[number::KEXINIT, number::KEX_ECDH_INIT]) {
                pair.step();
            }
            pair.s2c.stalled = true;
        }
        for stream in BOTH {
            assert_eq!(capacity(&mut pair, ours), [0; 2]);
            assert_eq!(client(&mut pair, ours).write(stream, b"x"), Err(WriteError::Blocked));
        }
        pair.drive();
        assert_eq!(pair.client.count("Writable"), 0, "by the client: {by_client}");
        pair.s2c.stalled = false;
        pair.drive();
        assert_eq!(pair.client.count("Rekeyed"), 1);
        take!(pair.client, ClientEvent::Channel(id, ChannelEvent::Writable) if id == ours => ());
        assert_eq!(capacity(&mut pair, ours), before);
        assert_eq!(client(&mut pair, ours).write(Stream::Stderr, &[0; 20_000]), Ok(9_000));
        assert_eq!(client(&mut pair, ours).write(Stream::Data, b"x"), Err(WriteError::Blocked));
    }
}

#[test]
fn a_window_that_opens_in_an_exchange_is_there_behind_it() {
    let mut pair = Pair::logged_in();
    pair.server.policy = Policy { channel: ChannelConfig::default().with_window(10_000), ..reads(false) };
    let (ours, theirs) = pair.open_session();
    assert_eq!(fill(&mut client(&mut pair, ours), Stream::Data), 10_000);
    pair.drive();
    pair.client.conn.rekey();
    // Legal: the server has not seen the KEXINIT.
    assert_eq!(server(&mut pair, theirs).read(Stream::Data, 4_000).unwrap().len(), 4_000);
    assert_eq!(capacity(&mut pair, ours), [0; 2]);
    pair.drive();
    assert_eq!(pair.client.count("Writable"), 1);
    assert_eq!(capacity(&mut pair, ours), [4_000; 2]);
}

#[test]
fn nothing_can_be_written_past_a_request_that_waits() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    let (other, _) = pair.open_session();
    pair.c2s.stalled = true;
    let before = fill(&mut client(&mut pair, other), Stream::Data);
    assert!(before >= 256 * 1024);
    client(&mut pair, ours).request(&kind(), false).unwrap();
    assert_eq!(capacity(&mut pair, ours), [0; 2]);
    assert_eq!(client(&mut pair, ours).write(Stream::Data, b"behind it"), Err(WriteError::Blocked));
    // With room again the request leaves first, and only then is there a capacity.
    pair.c2s.stalled = false;
    pair.drive();
    take!(pair.client, ClientEvent::Channel(id, ChannelEvent::Writable) if id == ours => ());
    assert!(capacity(&mut pair, ours)[0] > 0);
    assert_eq!(client(&mut pair, ours).write(Stream::Data, b"behind it"), Ok(9));
    pair.drive();
    let last = record::numbers(&pair.c2s.sent);
    assert!(last.ends_with(&[number::CHANNEL_REQUEST, number::CHANNEL_DATA]), "{last:?}");
    assert_eq!(pair.server.bytes(theirs, Stream::Data), b"behind it");
}

#[test]
fn nothing_can_be_written_before_the_confirmation_whichever_side_opens() {
    let mut pair = Pair::logged_in();
    pair.server.policy = Policy::keep();
    let ours = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    assert_eq!(capacity(&mut pair, ours), [0; 2]);
    client(&mut pair, ours).request(&kind(), true).unwrap();
    pair.drive();
    assert_eq!(capacity(&mut pair, ours), [0; 2]);

    // Accepted in an exchange: nothing may go before the confirmation, which waits.
    pair.server.conn.rekey();
    let open = take!(pair.server, ssh_proto::ServerEvent::Open(open) => open);
    let theirs = pair.server.conn.accept_channel(open, ChannelConfig::default()).unwrap();
    assert_eq!(server(&mut pair, theirs).capacity(Stream::Data), 0);
    pair.drive();
    assert!(server(&mut pair, theirs).capacity(Stream::Data) > 0);
    assert!(capacity(&mut pair, ours)[0] > 0);
}

#[test]
fn nothing_can_be_written_behind_an_end() {
    type End = fn(&mut Pair, ChannelId, ChannelId);
    let ends: [(&str, End); 6] = [
        ("eof", |pair, ours, _| client(pair, ours).eof().unwrap()),
        ("close", |pair, ours, _| client(pair, ours).close()),
        ("abort", |pair, ours, _| _ = client(pair, ours).abort()),
        ("their close", |pair, _, theirs| {
            server(pair, theirs).close();
            pair.drive();
        }),
        ("our disconnect", |pair, _, _| pair.client.conn.close(Disconnect::by_application())),
        ("a lost connection", |pair, _, _| {
            pair.s2c.cut();
            pair.drive();
        }),
    ];
    for (name, end) in ends {
        for in_exchange in [false, true] {
            let mut pair = Pair::logged_in();
            let (ours, theirs) = pair.open_session();
            assert!(capacity(&mut pair, ours)[0] > 0);
            if in_exchange {
                pair.client.conn.rekey();
            }
            end(&mut pair, ours, theirs);
            for when in ["at once", "behind everything"] {
                assert_eq!(capacity(&mut pair, ours), [0; 2], "{name}, {when}");
                for stream in BOTH {
                    let written = client(&mut pair, ours).write(stream, b"x");
                    assert_eq!(written, Err(WriteError::Closed), "{name}, {when}");
                }
                pair.drive();
            }
            assert_eq!(pair.client.count("Writable"), 0, "{name}");
        }
    }
    // Their EOF is no end of ours.
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    let before = capacity(&mut pair, ours);
    server(&mut pair, theirs).eof().unwrap();
    pair.drive();
    assert_eq!(capacity(&mut pair, ours), before);
    assert_eq!(client(&mut pair, ours).write(Stream::Data, b"x"), Ok(1));
}

#[test]
fn as_many_writers_are_told_of_room_as_it_has_quanta_however_often_there_is_a_look() {
    let (client, server) = null_configs_with(|limits| limits.output = 96 * 1024, |_| {});
    let mut pair = Pair::new(client, server, 1);
    pair.login();
    let ids: Vec<_> = (0..8).map(|_| pair.open_session().0).collect();
    pair.client.trace.clear();
    for id in &ids {
        fill(&mut pair.client.conn.channel(*id).unwrap(), Stream::Data);
    }
    let now = pair.now;
    let mut told = |consumed: usize, looks: usize| {
        pair.client.conn.consume_output(consumed);
        for _ in 0..looks {
            pair.client.conn.handle_timeout(now);
            pair.client.conn.consume_output(0);
            pair.client.poll(usize::MAX);
        }
        pair.client.count("Writable")
    };
    let first = told(40 * 1024, 1);
    assert!((1..=2).contains(&first), "{first}");
    assert_eq!(told(0, 20), first);
    let second = told(30 * 1024, 1);
    assert!((first + 1..ids.len()).contains(&second), "{second}");
    assert_eq!(told(0, 20), second);
    assert_eq!(told(usize::MAX, 1), ids.len(), "nothing is left to be sent");
}

#[test]
fn one_write_stops_where_new_keys_are_due_and_what_is_left_goes_behind_the_exchange() {
    /// What one key may carry; more than two packets, and no multiple of one.
    const KEY: u64 = 100_000;
    let src = vec![b'x'; 2 << 20];
    for (bytes, packets) in [(KEY, 1 << 20), (1 << 30, KEY >> 15)] {
        let (client_config, server_config) = null_configs_with(
            |limits| {
                limits.output = 512 << 20;
                limits.small_rekeys_per_minute = None;
            },
            |policy| (policy.bytes, policy.packets) = (bytes, packets),
        );
        let mut pair = Pair::new(client_config, server_config, 1);
        pair.login();
        let (ours, theirs) = pair.open_session();
        let mut sent = 0;
        while sent < src.len() {
            let capacity = client(&mut pair, ours).capacity(Stream::Data);
            match client(&mut pair, ours).write(Stream::Data, &src[sent..]) {
                Ok(n) => {
                    assert!(n <= KEY as usize + 32 * 1024, "{n} at once");
                    assert_eq!(n, capacity.min(src.len() - sent));
                    sent += n;
                }
                Err(error) => {
                    assert_eq!((error, capacity), (WriteError::Blocked, 0));
                    let told = pair.client.count("Writable");
                    pair.drive();
                    assert_eq!(pair.client.count("Writable"), told + 1, "after {sent}");
                }
            }
        }
        pair.drive();
        assert_eq!(pair.server.bytes(theirs, Stream::Data), src);
        assert!(pair.client.count("Rekeyed") >= 15, "{}", pair.client.count("Rekeyed"));
        assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    }
}
