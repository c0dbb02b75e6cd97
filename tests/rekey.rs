//! Key re-exchange: at every point of a session, from either side and both, with data on its way.

use std::time::Duration;

use bytes::BytesMut;
use ssh_proto::raw::number;
use ssh_proto::{
    AuthMethods, AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind,
    ClientEvent, CloseReason, ExitStatus, GlobalRequestKind, Instant, Limits, PeerMisbehaved, ReadError,
    RekeyPolicy, ServerEvent, Side, Stream, TimeoutReason, WriteError,
};
use ssh_tests::{Answer, End, Pair, Peer, Policy, Scene, Wire, hand, null_configs_with, record, take};

fn pair_with(limits: impl Fn(&mut Limits) + Copy, rekey: impl Fn(&mut RekeyPolicy) + Copy) -> Pair {
    let (client, server) = null_configs_with(limits, rekey);
    let mut pair = Pair::new(client, server, 7);
    pair.login();
    pair
}

fn no_flood_limit(limits: &mut Limits) {
    limits.small_rekeys_per_minute = None;
}

fn rekeyed(pair: &Pair) -> (usize, usize) {
    (pair.client.count("Rekeyed"), pair.server.count("Rekeyed"))
}

fn assert_clean(pair: &Pair) {
    record::assert_clean_exchanges(&pair.c2s.sent);
    record::assert_clean_exchanges(&pair.s2c.sent);
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    assert!(pair.is_idle());
}

/// A session that uses everything: a request, data both ways, stderr, EOF, exit status, close. `before` is
/// called before each step of the wires with the number of the step.
fn session(pair: &mut Pair, mut before: impl FnMut(&mut Pair, usize)) -> usize {
    let mut steps = 0;
    session_by(pair, |pair| {
        before(pair, steps);
        steps += 1;
        pair.step()
    });
    steps
}

/// The same, moved on by `step`, which says whether anything happened.
fn session_by(pair: &mut Pair, mut step: impl FnMut(&mut Pair) -> bool) {
    pair.server.policy.channel = ChannelConfig::default().with_window(50_000);
    let config = ChannelConfig::default().with_window(50_000);
    let ours = pair.client.conn.open_channel(&ChannelKind::Session, config).unwrap();
    let mut channel = pair.client.conn.channel(ours).unwrap();
    channel.request(&ChannelRequestKind::env("A", "b"), false).unwrap();
    channel.request(&ChannelRequestKind::exec("cat"), true).unwrap();
    let (mut to_server, mut to_client) = (vec![1u8; 120_000], vec![2u8; 120_000]);
    let (mut eof, mut exit) = (false, false);
    let mut idle = 0;
    while idle < 2 {
        idle = if step(pair) { 0 } else { idle + 1 };
        if let Ok(mut channel) = pair.client.conn.channel(ours) {
            if let Ok(n) = channel.write(Stream::Data, &to_server[..to_server.len().min(9000)]) {
                to_server.drain(..n);
            }
            if to_server.is_empty() && !eof {
                eof = channel.eof().is_ok();
            }
        }
        let Some(&theirs) = pair.server.accepted.first() else { continue };
        let received = pair.server.bytes(theirs, Stream::Data).len();
        let mut channel = pair.server.conn.channel(theirs).unwrap();
        let n = to_client.len().min(7000);
        let stream = if to_client.len() > 60_000 { Stream::Data } else { Stream::Stderr };
        if let Ok(n) = channel.write(stream, &to_client[..n]) {
            to_client.drain(..n);
        }
        if to_client.is_empty() && received == 120_000 && !exit {
            exit = true;
            channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(3)), false).unwrap();
            channel.close();
        }
    }
    let theirs = pair.server.accepted[0];
    assert!(pair.server.bytes(theirs, Stream::Data) == vec![1; 120_000]);
    let got = Stream::Data;
    assert_eq!(pair.client.bytes(ours, got).len() + pair.client.bytes(ours, Stream::Stderr).len(), 120_000);
    assert_eq!(pair.client.received[&(ours, Stream::Data)].end, Some(ReadError::Eof));
    let words = ["Opened", "Reply(true)", "Eof", "Exit(Code(3))", ": 0 } Closed"];
    let at =
        words.map(|words| pair.client.trace.iter().position(|event| event.contains(words)).expect(words));
    assert!(at[0] < at[1] && at[2] < at[4] && at[3] < at[4], "{:?}", pair.client.trace);
    assert_clean(pair);
}

#[derive(Debug, Clone, Copy)]
enum From {
    Client,
    Server,
    Both,
}

impl From {
    fn rekey(self, pair: &mut Pair) {
        if !matches!(self, Self::Server) {
            pair.client.conn.rekey();
        }
        if !matches!(self, Self::Client) {
            pair.server.conn.rekey();
        }
    }
}

fn rekey_at_every_step(from: From) {
    // Small deliveries, so that a step is about a message.
    let split = |pair: &mut Pair| {
        (pair.c2s.capacity, pair.s2c.capacity) = (Some(1500), Some(1500));
    };
    let mut pair = pair_with(no_flood_limit, |_| {});
    split(&mut pair);
    let steps = session(&mut pair, |_, _| {});
    let messages = record::packets(&pair.c2s.sent).len() + record::packets(&pair.s2c.sent).len();
    assert!(steps > 40 && messages > 60, "{steps} steps, {messages} messages");
    for at in 0..steps {
        let mut pair = pair_with(no_flood_limit, |_| {});
        split(&mut pair);
        session(&mut pair, |pair, step| {
            if step == at {
                from.rekey(pair);
            }
        });
        assert_eq!(rekeyed(&pair), (1, 1), "rekey {from:?} at {at}");
    }
}

#[test]
fn sm_13_a_rekey_by_the_client_at_every_step_of_a_session_loses_nothing() {
    rekey_at_every_step(From::Client);
}

#[test]
fn sm_13_a_rekey_by_the_server_at_every_step_of_a_session_loses_nothing() {
    rekey_at_every_step(From::Server);
}

#[test]
fn sm_13_two_rekeys_that_cross_at_every_step_of_a_session_are_one_and_lose_nothing() {
    rekey_at_every_step(From::Both);
}

/// The packets on the way to a side that is logged in.
#[derive(Default)]
struct Packets {
    under_way: BytesMut,
    delivered: usize,
}

impl Packets {
    fn send<R: Peer>(&mut self, from: &mut End<R>, record: &mut Wire) {
        let output = from.conn.output();
        record.sent.extend_from_slice(output);
        self.under_way.extend_from_slice(output);
        let n = output.len();
        from.conn.consume_output(n);
    }

    /// The next one, and nothing else.
    fn deliver<R: Peer>(&mut self, to: &mut End<R>, now: Instant) -> bool {
        let Some((length, _)) = self.under_way.split_first_chunk::<4>() else { return false };
        let length = u32::from_be_bytes(*length) as usize;
        to.input.extend_from_slice(&self.under_way.split_to(4 + length + ssh_tests::null::TAG));
        to.turn(now);
        self.delivered += 1;
        true
    }
}

/// The session, packet by packet: `behind` is called behind each that was taken, with the side that took it and how
/// many that side took before. Whoever sent it may have sent more by then, which is on its way.
fn session_by_packets(pair: &mut Pair, mut behind: impl FnMut(&mut Pair, Side, usize)) {
    let (mut to_server, mut to_client) = (Packets::default(), Packets::default());
    session_by(pair, |pair| {
        let now = pair.now;
        let mut busy = pair.client.turn(now) | pair.server.turn(now);
        to_server.send(&mut pair.client, &mut pair.c2s);
        if to_server.deliver(&mut pair.server, now) {
            behind(pair, Side::Server, to_server.delivered - 1);
            busy = true;
        }
        to_client.send(&mut pair.server, &mut pair.s2c);
        if to_client.deliver(&mut pair.client, now) {
            behind(pair, Side::Client, to_client.delivered - 1);
            busy = true;
        }
        busy
    });
}

#[test]
fn sm_13_a_rekey_behind_every_single_message_of_a_side_loses_nothing() {
    let start = || {
        let pair = pair_with(no_flood_limit, |_| {});
        let before = [&pair.c2s, &pair.s2c].map(|wire| record::packets(&wire.sent).len());
        (pair, before)
    };
    let mut points = Vec::new();
    let (mut pair, before) = start();
    session_by_packets(&mut pair, |_, to, index| points.push((to, index)));
    // Each message behind authentication, of either side, is a point.
    for (to, wire, before) in [(Side::Server, &pair.c2s, before[0]), (Side::Client, &pair.s2c, before[1])] {
        let numbers = record::numbers(&wire.sent).split_off(before);
        let tried: Vec<_> = points.iter().filter(|point| point.0 == to).map(|point| point.1).collect();
        assert_eq!(tried, Vec::from_iter(0..numbers.len()), "{numbers:?}");
        assert!(numbers.len() > 20, "{numbers:?}");
        // Those that leave together with others are among them.
        let (request, eof, close) = (number::CHANNEL_REQUEST, number::CHANNEL_EOF, number::CHANNEL_CLOSE);
        let together: [&[u8]; 2] = match to {
            Side::Server => [&[request, request], &[eof, close]],
            Side::Client => [&[request, eof], &[eof, close]],
        };
        let of_channel: Vec<_> =
            numbers.into_iter().filter(|number| [request, eof, close].contains(number)).collect();
        for part in together {
            assert!(of_channel.windows(2).any(|two| two == part), "{part:?} in {of_channel:?}");
        }
    }
    for from in [From::Client, From::Server, From::Both] {
        for &point in &points {
            let (mut pair, _) = start();
            session_by_packets(&mut pair, |pair, to, index| {
                if (to, index) == point {
                    from.rekey(pair);
                }
            });
            assert_eq!(rekeyed(&pair), (1, 1), "rekey {from:?} behind {point:?}");
        }
    }
}

#[test]
fn sm_13_rekeys_by_every_small_number_of_packets_lose_nothing() {
    for packets in 1..30 {
        let mut pair = pair_with(no_flood_limit, move |rekey| rekey.packets = packets);
        session(&mut pair, |_, _| {});
        let (client, server) = rekeyed(&pair);
        assert!(client == server && client >= 1, "every {packets} packets: {client}, {server}");
    }
}

#[test]
fn rekeys_by_tiny_byte_limits_make_progress() {
    for bytes in [1, 100, 5000, 60_000] {
        let mut pair = pair_with(no_flood_limit, move |rekey| rekey.bytes = bytes);
        session(&mut pair, |_, _| {});
        let (client, server) = rekeyed(&pair);
        assert!(client == server && client >= 2, "every {bytes} bytes: {client}, {server}");
    }
}

#[test]
fn a_rekey_at_one_packet_goes_on_forever_only_while_there_is_something_to_send() {
    let mut pair = pair_with(no_flood_limit, |rekey| rekey.packets = 1);
    pair.drive();
    let before = rekeyed(&pair);
    pair.advance(Duration::from_secs(1));
    assert_eq!(rekeyed(&pair), before);
    assert_clean(&pair);
}

/// One byte of data each way.
fn one_byte_each_way(pair: &mut Pair, (ours, theirs): (ChannelId, ChannelId)) {
    pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"x").unwrap();
    pair.server.conn.channel(theirs).unwrap().write(Stream::Data, b"x").unwrap();
    pair.drive();
}

#[test]
fn keys_are_renewed_at_their_packets_and_bytes_sent_and_received() {
    for (packets, bytes) in [((1 << 28) - 1, 0), (0, (1 << 30) - 1)] {
        for (side, sent) in
            [(Side::Client, true), (Side::Client, false), (Side::Server, true), (Side::Server, false)]
        {
            let mut pair = Pair::logged_in();
            let ids = pair.open_session();
            match (side, sent) {
                (Side::Client, true) => pair.client.conn.set_sent(packets, bytes),
                (Side::Client, false) => pair.client.conn.set_received(packets, bytes),
                (Side::Server, true) => pair.server.conn.set_sent(packets, bytes),
                (Side::Server, false) => pair.server.conn.set_received(packets, bytes),
            }
            pair.drive();
            assert_eq!(rekeyed(&pair), (0, 0), "not yet");
            one_byte_each_way(&mut pair, ids);
            assert_eq!(rekeyed(&pair), (1, 1), "{side:?}, sent {sent}");
            one_byte_each_way(&mut pair, ids);
            assert_eq!(rekeyed(&pair), (1, 1), "the new keys are fresh");
            assert_eq!(pair.client.bytes(ids.0, Stream::Data), b"xx");
            assert_eq!(pair.server.bytes(ids.1, Stream::Data), b"xx");
            assert_clean(&pair);
        }
    }
}

#[test]
fn a_rekey_begins_right_behind_the_packet_that_makes_it_due_however_the_input_is_cut() {
    let sent = |pings: usize, at_once: bool| {
        let config = ssh_tests::null_server().with_rekey(|rekey| rekey.packets = 20);
        let mut scene = Scene::of_server(config.build().unwrap()).authenticated();
        for payload in (0..pings).map(|_| hand::ping(5)).chain([hand::disconnect(11, b"bye")]) {
            let packet = scene.puppet.seal(&payload);
            if at_once {
                scene.input.extend_from_slice(&packet);
            } else {
                scene.say_bytes(&packet);
            }
        }
        scene.settle();
        scene.heard.iter().map(ssh_tests::puppet::Heard::number).collect::<Vec<_>>()
    };
    let mut begun = 0;
    for pings in 0..30 {
        let numbers = sent(pings, true);
        assert_eq!(numbers, sent(pings, false), "behind {pings} packets");
        begun += usize::from(numbers.last() == Some(&number::KEXINIT));
    }
    assert!((5..25).contains(&begun), "{begun}");
}

#[test]
fn new_keys_asked_for_before_authentication_come_behind_it() {
    for side in [Side::Client, Side::Server] {
        let mut pair = Pair::null();
        match side {
            Side::Client => pair.client.conn.rekey(),
            Side::Server => pair.server.conn.rekey(),
        }
        pair.login();
        pair.drive();
        assert_eq!(rekeyed(&pair), (1, 1), "{side:?}");
        assert_clean(&pair);
    }
}

#[test]
fn replies_owed_over_their_cap_do_not_keep_the_peers_kexinit_out() {
    let mut pair = pair_with(|limits| limits.noise_burst = 10_000, |_| {});
    pair.server.conn.rekey();
    // Legal: the client has not seen the KEXINIT. The answers cannot leave before its own came.
    (0..1_500).for_each(|_| pair.client.conn.send_raw(&hand::ping(100)));
    pair.drive();
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    assert_eq!(rekeyed(&pair), (1, 1));
    assert_eq!(record::count(&pair.s2c.sent, number::PONG), 1_500);
    assert_clean(&pair);
}

#[test]
fn data_sent_before_their_kexinit_is_still_delivered_and_the_adjust_waits_for_newkeys() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    // On its way while our KEXINIT is out and theirs is not in.
    pair.server.conn.channel(theirs).unwrap().write(Stream::Data, &[5; 1 << 20]).unwrap();
    pair.client.conn.rekey();
    assert_eq!(pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"x"), Err(WriteError::Blocked));
    pair.drive();
    assert!(pair.client.bytes(ours, Stream::Data).len() >= 200_000);
    take!(pair.client, ClientEvent::Channel(id, ChannelEvent::Writable) if id == ours => ());
    let last = record::numbers(&pair.c2s.sent);
    let newkeys = last.iter().rposition(|number| *number == number::NEWKEYS).unwrap();
    assert!(last[newkeys..].contains(&number::CHANNEL_WINDOW_ADJUST));
    assert_eq!(pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"x"), Ok(1));
    pair.drive();
    assert_clean(&pair);
}

#[test]
fn requests_eof_and_close_made_during_an_exchange_leave_behind_it_in_their_order() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    pair.server.policy = Policy { request: Answer::Keep, ..Policy::default() };
    pair.c2s.latency = Duration::from_millis(5);
    pair.client.conn.rekey();
    let mut channel = pair.client.conn.channel(ours).unwrap();
    for name in ["A", "B", "C"] {
        channel.request(&ChannelRequestKind::env(name, ""), name == "B").unwrap();
    }
    channel.close();
    let more = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    let global = GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() };
    pair.client.conn.global_request(&global).unwrap();
    let sent = pair.c2s.sent.len();
    pair.drive();
    let numbers = record::numbers(&pair.c2s.sent);
    let exchange = numbers.iter().rposition(|number| *number == number::KEXINIT).unwrap();
    assert!(sent > 0 && numbers[exchange..].starts_with(&[20, 30, 21]), "{:?}", &numbers[exchange..]);
    let of = |wanted: &[u8]| {
        let sent = numbers[exchange..].iter().copied();
        sent.filter(|number| wanted.contains(number)).collect::<Vec<_>>()
    };
    assert_eq!(of(&[96, 97, 98]), [98, 98, 98, 96, 97]);
    assert_eq!(of(&[80, 90]), [90, 80]);
    let names: Vec<_> = pair.server.trace.iter().filter(|event| event.contains("Request Env")).collect();
    assert!(
        ["[65]", "[66]", "[67]"].iter().zip(&names).all(|(name, event)| event.contains(name)),
        "{names:?}"
    );
    assert!(pair.server.saw(&format!("{theirs:?} Eof")) && pair.server.saw(&format!("{theirs:?} Closed")));
    assert!(pair.client.saw(&format!("Opened({more:?})")));
}

#[test]
fn replies_decided_during_an_exchange_leave_behind_it_in_their_order() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.server.policy = Policy { request: Answer::Keep, global: Answer::Keep, ..Policy::default() };
    let mut channel = pair.client.conn.channel(ours).unwrap();
    for name in ["A", "B", "C"] {
        channel.request(&ChannelRequestKind::env(name, ""), true).unwrap();
    }
    let global = GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() };
    pair.client.conn.global_request(&global).unwrap();
    pair.drive();
    pair.server.conn.rekey();
    for ok in [true, false, true] {
        let ticket = take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(ticket)) => ticket);
        pair.server.conn.reply_request(ticket, ok).unwrap();
    }
    let ticket = take!(pair.server, ServerEvent::Global(ticket) => ticket);
    pair.server.conn.reply_global(ticket, ssh_proto::GlobalReply::Success(b"d")).unwrap();
    pair.drive();
    let replies: Vec<_> = pair.client.trace.iter().filter(|event| event.contains(" Reply(")).collect();
    assert!(
        ["true", "false", "true"].iter().zip(&replies).all(|(ok, event)| event.contains(ok)),
        "{replies:?}"
    );
    assert!(pair.client.saw("GlobalReply"));
    assert_clean(&pair);
}

#[test]
fn a_channel_accepted_during_an_exchange_is_confirmed_behind_it_and_its_writer_is_woken() {
    let mut pair = Pair::logged_in();
    pair.server.policy.open = Answer::Keep;
    let ours = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    pair.drive();
    pair.server.conn.rekey();
    let ticket = take!(pair.server, ServerEvent::Open(ticket) => ticket);
    let theirs = pair.server.conn.accept_channel(ticket, ChannelConfig::default()).unwrap();
    let mut channel = pair.server.conn.channel(theirs).unwrap();
    assert_eq!(channel.write(Stream::Data, b"early"), Err(WriteError::Blocked));
    pair.drive();
    take!(pair.server, ServerEvent::Channel(id, ChannelEvent::Writable) if id == theirs => ());
    assert_eq!(pair.server.conn.channel(theirs).unwrap().write(Stream::Data, b"early"), Ok(5));
    pair.drive();
    assert_eq!(pair.client.bytes(ours, Stream::Data), b"early");
    assert_clean(&pair);
}

#[test]
fn keys_are_renewed_by_time_by_request_and_by_the_peer() {
    let mut pair = pair_with(|_| {}, |rekey| rekey.interval = Some(Duration::from_secs(100)));
    assert_eq!(rekeyed(&pair), (0, 0));
    pair.advance(Duration::from_secs(99));
    assert_eq!(rekeyed(&pair), (0, 0));
    pair.advance(Duration::from_secs(2));
    assert_eq!(rekeyed(&pair), (1, 1));
    pair.advance(Duration::from_secs(100));
    assert_eq!(rekeyed(&pair), (2, 2));
    pair.client.conn.rekey();
    pair.drive();
    assert_eq!(rekeyed(&pair), (3, 3));
    pair.server.conn.rekey();
    pair.drive();
    assert_eq!(rekeyed(&pair), (4, 4));
    let id = pair.client.conn.session_id().cloned();
    assert_eq!(pair.server.conn.session_id(), id.as_ref());
    assert_eq!(pair.client.count("HostKey"), 1, "the same host key is accepted silently");
    assert_clean(&pair);
}

#[test]
fn a_rekey_asked_for_before_authentication_waits_for_it() {
    let mut pair = Pair::null();
    pair.handshake();
    pair.client.conn.rekey();
    pair.server.conn.rekey();
    pair.drive();
    assert_eq!(record::count(&pair.c2s.sent, number::KEXINIT), 1);
    assert_eq!(record::count(&pair.s2c.sent, number::KEXINIT), 1);
    pair.login();
    assert_eq!(record::count(&pair.c2s.sent, number::KEXINIT), 2);
    assert_eq!(rekeyed(&pair), (1, 1));
    assert_clean(&pair);
}

/// What a peer says up to its login, message by message.
fn before_login(subject: Side) -> Vec<fn(&mut Scene)> {
    use ssh_proto::raw::auth::{Method, UserauthBanner, UserauthRequest};
    let refused: fn(&mut Scene) = |scene| {
        scene.tell(&UserauthRequest { user: "user", service: "ssh-connection", method: Method::None });
        scene.answer_auth(AuthVerdict::Reject { next: AuthMethods::NONE });
        scene.wait(Duration::from_secs(10));
    };
    let exchange: [fn(&mut Scene); 2] = match subject {
        Side::Client => [
            |scene| {
                scene.method();
                scene.accept_host_key();
            },
            Scene::new_keys,
        ],
        Side::Server => [Scene::method, Scene::new_keys],
    };
    let login: [fn(&mut Scene); 3] = match subject {
        Side::Client => [
            Scene::service,
            |scene| scene.tell(&UserauthBanner { message: b"welcome", language: b"" }),
            |scene| {
                scene.as_client().authenticate("user", ssh_proto::Credential::None).unwrap();
                scene.settle();
                // USERAUTH_FAILURE.
                scene.say(b"\x33\0\0\0\x08password\0");
            },
        ],
        Side::Server => [Scene::service, refused, refused],
    };
    let first: [fn(&mut Scene); 1] = [|scene| scene.kexinit(|_| {})];
    [&first[..], &exchange, &login].concat()
}

#[test]
fn sm_10_a_kexinit_before_authentication_ends_the_connection_wherever_it_comes() {
    for side in [Side::Client, Side::Server] {
        let steps = before_login(side);
        for at in 1..=steps.len() {
            let mut scene = Scene::of(side);
            scene.hello();
            for step in &steps[..at] {
                step(&mut scene);
            }
            assert!(!scene.is_over(), "{side:?}, {at}: {:?}", scene.events);
            scene.say(&hand::kexinit(ssh_tests::null::NAME));
            assert!(scene.is_over(), "{side:?}, {at}");
            scene.assert_broken(PeerMisbehaved::UnexpectedMessage, Some(number::KEXINIT));
        }
        // They do lead to a login, and behind it new keys are the peer's right.
        let mut scene = Scene::of(side);
        scene.hello();
        steps.iter().for_each(|step| step(&mut scene));
        scene.login();
        scene.exchange();
        assert!(!scene.is_over() && scene.state() == ssh_proto::raw::State::Authed, "{:?}", scene.events);
    }
}

#[test]
fn sm_10_a_second_kexinit_in_an_exchange_ends_the_connection() {
    let mut pair = Pair::logged_in();
    let kexinit = hand::kexinit(ssh_tests::null::NAME);
    pair.client.conn.send_raw(&kexinit);
    pair.client.conn.send_raw(&kexinit);
    pair.drive();
    let rule = PeerMisbehaved::UnexpectedMessage;
    assert_eq!(pair.server.closed, Some(CloseReason::PeerMisbehaved { rule, message: Some(20) }));
}

#[test]
fn sm_11_data_behind_their_own_kexinit_ends_the_connection() {
    let mut pair = Pair::logged_in();
    let _ = pair.open_session();
    pair.client.conn.send_raw(&hand::kexinit(ssh_tests::null::NAME));
    pair.client.conn.send_raw(&hand::data(0, b"late"));
    pair.drive();
    let rule = PeerMisbehaved::UnexpectedMessage;
    assert_eq!(pair.server.closed, Some(CloseReason::PeerMisbehaved { rule, message: Some(94) }));
}

#[test]
fn sm_11_an_exchange_that_is_not_completed_runs_into_its_deadline() {
    let mut pair = Pair::logged_in();
    pair.server.conn.rekey();
    pair.c2s.stalled = true;
    pair.advance(Duration::from_secs(59));
    assert_eq!(pair.server.closed, None);
    pair.advance(Duration::from_secs(2));
    assert_eq!(pair.server.closed, Some(CloseReason::TimedOut(TimeoutReason::Kex)));
}

#[test]
fn sm_12_a_writer_is_blocked_while_the_peer_stalls_an_exchange_and_nothing_is_queued() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.c2s.stalled = true;
    pair.client.conn.rekey();
    let before = pair.client.conn.memory_usage();
    for _ in 0..10_000 {
        let mut channel = pair.client.conn.channel(ours).unwrap();
        assert_eq!(channel.write(Stream::Data, &[0; 1000]), Err(WriteError::Blocked));
    }
    assert_eq!(pair.client.conn.memory_usage(), before);
}

#[test]
fn small_rekeys_beyond_their_budget_are_a_flood() {
    let mut pair = Pair::logged_in();
    for round in 0..8 {
        pair.client.conn.rekey();
        pair.drive();
        assert_eq!(rekeyed(&pair), (round + 1, round + 1));
    }
    pair.client.conn.rekey();
    pair.drive();
    let rule = PeerMisbehaved::RekeyFlood;
    assert_eq!(pair.server.closed, Some(CloseReason::PeerMisbehaved { rule, message: Some(20) }));
}

#[test]
fn small_rekeys_of_our_own_and_over_minutes_are_no_flood() {
    let mut pair = Pair::logged_in();
    for _ in 0..30 {
        pair.client.conn.rekey();
        pair.drive();
        pair.advance(Duration::from_secs(8));
    }
    assert_eq!(rekeyed(&pair), (30, 30));
    let mut pair = Pair::logged_in();
    for _ in 0..6 {
        pair.client.conn.rekey();
        pair.drive();
        pair.server.conn.rekey();
        pair.drive();
    }
    assert_eq!(rekeyed(&pair), (12, 12));
    assert_clean(&pair);
}

#[test]
fn the_host_key_may_not_change_in_a_later_exchange() {
    let mut pair = Pair::logged_in();
    pair.client.conn.rekey();
    let other = ssh_tests::null::public_key(99);
    let mine = ssh_tests::null::public_key(ssh_tests::config::HOST_KEY);
    // Forged on the wire: under the null provider everybody can sign and seal, but not seal blindly.
    pair.s2c.edit(move |_, bytes| {
        let find = mine.as_blob();
        let at = bytes.windows(find.len()).position(|window| window == find);
        if let Some(at) = at {
            bytes[at..at + find.len()].copy_from_slice(other.as_blob());
        }
    });
    pair.drive();
    let reason = pair.client.closed.expect("closed");
    assert!(
        matches!(reason, CloseReason::PeerMisbehaved { rule: PeerMisbehaved::BadMac, .. }),
        "the packet's tag covers the key: {reason:?}"
    );
}

#[test]
fn a_host_key_signature_by_ticket_pauses_a_later_exchange_and_no_timer_runs() {
    let server = ssh_tests::config::null_server_external().build().unwrap();
    let client = ssh_tests::null_client().build().unwrap();
    let mut pair = Pair::new(client, server, 3);
    pair.login();
    pair.server.policy.sign = Answer::Keep;
    pair.client.conn.rekey();
    pair.drive();
    assert!(pair.server.conn.awaits_answer() && !pair.server.conn.wants_input());
    let sign = take!(pair.server, ServerEvent::Sign(sign) => sign);
    assert_ne!(pair.server.conn.timeout_reason(), Some(TimeoutReason::Kex));
    let signature = ssh_tests::null::sign(sign.to_sign().key(), sign.to_sign().message());
    pair.server.conn.provide_signature(sign, Ok(signature)).unwrap();
    pair.drive();
    assert_eq!(rekeyed(&pair), (1, 1));
    assert_clean(&pair);
}
