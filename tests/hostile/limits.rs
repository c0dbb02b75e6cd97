//! Floods of things that are legal one by one, and deadlines.

use std::time::Duration;

use ssh_proto::raw::channel::{ChannelOpen, ChannelOpenFailure, GlobalRequest, RequestSuccess};
use ssh_proto::raw::{Message, number};
use ssh_proto::{
    AuthMethods, AuthVerdict, ChannelConfig, ChannelEvent, ChannelKind, ChannelRequestKind, ClientEvent,
    CloseReason, GlobalRequestKind, Limits, MAX_TERMINAL_MODES, OpenFailureCode, PeerMisbehaved, ServerEvent,
    Side, TerminalModes, TimeoutReason, WindowSize,
};
use ssh_tests::scene::{Event, Subject, encoded};
use ssh_tests::{Answer, Pair, Policy, Scene, either, hand, null_configs_with, null_server, take};

use crate::stage::{greeted, keyed, password_request, rule, serviced};

/// Takes one event, and no input.
fn poll(scene: &mut Scene) -> Option<Event> {
    match &mut scene.subject {
        Subject::Client(conn) => conn.poll_event().map(Event::Client),
        Subject::Server(conn) => conn.poll_event().map(Event::Server),
    }
}

/// Feeds packets to a connection whose output nobody reads and whose questions are all let go of, until it takes
/// no more. Says how many bytes of input it took.
fn flood(scene: &mut Scene, payload: &[u8], packets: usize) -> usize {
    let mut taken = 0;
    for _ in 0..packets {
        let packet = scene.puppet.seal(payload);
        scene.input.extend_from_slice(&packet);
        let before = scene.input.len();
        let (now, input) = (scene.now, &mut scene.input);
        either!(&mut scene.subject, conn => conn.handle_input(now, input));
        taken += before - scene.input.len();
        let event = poll(scene).filter(|event| event.closed().is_some());
        scene.events.extend(event);
        if scene.is_over() || scene.input.len() > 1 << 20 {
            break;
        }
    }
    taken
}

#[test]
fn ch_20_pings_of_a_peer_that_does_not_read() {
    let mut scene = Scene::server().authenticated();
    flood(&mut scene, &hand::ping(30_000), 1000);
    let held = scene.memory();
    assert!(held.output <= 256 * 1024 + 31_000, "{held:?}");
    assert!(held.owed <= 64 * 1024 + 31_000, "{held:?}");
    assert!(!either!(&scene.subject, conn => conn.wants_input()));
    assert!(!scene.input.is_empty());
    assert!(!scene.is_over());
    // It goes on when the peer reads again, to the end of the noise it is allowed.
    scene.settle();
    let pongs = scene.heard.iter().filter(|heard| heard.number() == number::PONG).count();
    assert!(pongs > 20, "{pongs}");
}

#[test]
fn ch_20_whatever_provokes_an_answer_of_a_peer_that_does_not_read() {
    for payload in [
        hand::global("keepalive@openssh.com", true),
        hand::global("x@ssh-tests.invalid", true),
        hand::open(1, 100, 1),
        hand::open(1, 100, 100),
        hand::request(0, "x@ssh-tests.invalid", true, b""),
        hand::request(0, "exec", true, b""),
    ] {
        let mut scene = Scene::server().authenticated();
        scene.open_session(100);
        flood(&mut scene, &payload, 200_000);
        let held = scene.memory();
        assert!(!scene.is_over(), "{payload:?}: {:?}", scene.closed());
        assert!(scene.input.len() > 1 << 20, "{payload:?}: input stops");
        assert!(held.output + held.owed <= (256 + 64 + 16 + 4) * 1024, "{payload:?}: {held:?}");
        // All is answered and forgotten once the peer reads and the embedder has let go.
        scene.input.clear();
        scene.settle();
        scene.forget();
        scene.forget();
        let left = scene.memory();
        assert_eq!((left.output, left.owed), (0, 0), "{payload:?}: {left:?}");
    }
}

#[test]
fn ch_20_what_is_refused_without_an_answer_is_noise() {
    for payload in [
        hand::global("keepalive@openssh.com", false),
        hand::request(0, "keepalive@openssh.com", false, b""),
        hand::request(0, "exec", false, b""),
    ] {
        let mut scene = Scene::server().authenticated();
        scene.open_session(100);
        flood(&mut scene, &payload, 10_000);
        assert_eq!(rule(&mut scene), PeerMisbehaved::NoiseFlood, "{payload:?}");
    }
}

#[test]
fn ch_20_the_habits_of_honest_peers_are_no_noise() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        scene.say(&hand::global("hostkeys-00@openssh.com", false));
        for _ in 0..3000 {
            let id = scene.open_session(100);
            scene.say(&hand::request(0, "simple@putty.projects.tartarus.org", false, b""));
            // This one is refused.
            scene.say(&hand::request(0, "keepalive@openssh.com", false, b""));
            scene.say(&hand::request(0, "eow@openssh.com", false, b""));
            scene.say(&hand::global("keepalive@openssh.com", true));
            scene.say(&hand::close(0));
            either!(&mut scene.subject, conn => conn.channel(id).expect("known").release());
            scene.forget();
        }
        assert!(!scene.is_over(), "{side:?}");
    }
}

#[test]
fn ch_20_an_environment_of_any_size_is_no_noise() {
    let mut scene = Scene::server().authenticated();
    scene.open_session(100);
    let variable = hand::request(0, "env", false, b"\0\0\0\x04NAME\0\0\0\x05value");
    let mut told = 0;
    for _ in 0..3000 {
        scene.say(&variable);
        told += scene.take_events().iter().filter(|event| format!("{event:?}").contains("Env")).count();
    }
    assert!(!scene.is_over());
    assert_eq!(told, 128, "the rest is neither told nor a reason to end");
}

#[test]
fn globals_that_want_no_answer_are_told_also_behind_as_many_as_may_wait_for_one() {
    let mut scene = Scene::server().authenticated();
    (0..20).for_each(|_| scene.say(&hand::global("g@ssh-tests.invalid", true)));
    (0..20).for_each(|_| scene.say(&hand::global("g@ssh-tests.invalid", false)));
    let told = scene.take_events().iter().filter(|event| format!("{event:?}").contains("Global")).count();
    assert_eq!(told, 16 + 20);
}

#[test]
fn ch_06_answers_owed_on_a_channel_are_forgotten_with_it() {
    let mut scene = Scene::server().authenticated();
    for _ in 0..100 {
        let id = scene.open_session(100);
        (0..20).for_each(|_| scene.say(&hand::request(0, "x@ssh-tests.invalid", true, b"")));
        assert!(scene.memory().owed > 0);
        scene.say(&hand::close(0));
        assert_eq!(scene.memory().owed, 0);
        either!(&mut scene.subject, conn => conn.channel(id).expect("known").release());
        scene.forget();
    }
}

#[test]
fn ad_07_a_peer_that_never_reads_is_left() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        let mut now = scene.now;
        let asked = hand::global("keepalive@openssh.com", true);
        let reason = either!(&mut scene.subject, conn => {
            let mut input = bytes::BytesMut::from(&scene.puppet.seal(&asked)[..]);
            conn.handle_input(now, &mut input);
            assert!(!conn.output().is_empty());
            now = now + Duration::from_millis(119_999);
            conn.handle_timeout(now);
            assert!(conn.poll_event().is_none());
            // It read what led up to the login, which counts for as long again.
            now = now + Duration::from_millis(1);
            conn.handle_timeout(now);
            assert!(conn.poll_event().is_none());
            now = now + Duration::from_secs(120);
            conn.handle_timeout(now);
            // What is left goes when the linger time has passed.
            let event = format!("{:?}", conn.poll_event());
            assert!(conn.is_closed() && !conn.output().is_empty());
            now = now + Duration::from_secs(2);
            conn.handle_timeout(now);
            assert!(conn.output().is_empty() && conn.poll_timeout().is_none());
            event
        });
        assert!(reason.contains("TimedOut(WriteStall)"), "{reason}");
    }
}

#[test]
fn ch_20_no_answer_to_a_ping_before_authentication() {
    for stage in [keyed, serviced] {
        let mut scene = stage(Scene::server());
        scene.heard.clear();
        (0..256).for_each(|_| scene.say(&hand::ping(8)));
        assert_eq!((scene.heard.len(), scene.is_over()), (0, false));
        scene.say(&hand::ping(8));
        assert_eq!(rule(&mut scene), PeerMisbehaved::NoiseFlood);
    }
}

#[test]
fn ch_05_opens_that_nobody_answers_are_refused_beyond_their_cap() {
    let mut scene = Scene::server().authenticated();
    for sender in 0..10_000 {
        let packet = scene.puppet.seal(&hand::open(sender, 100, 100));
        scene.input.extend_from_slice(&packet);
        if sender % 100 == 0 {
            scene.settle();
        }
    }
    scene.settle();
    assert!(!scene.is_over());
    assert_eq!(scene.events.len(), 8);
    assert_eq!(scene.heard.len(), 10_000 - 8);
    for heard in &scene.heard {
        let failure = ChannelOpenFailure::decode(&heard.payload).expect("a refusal");
        assert_eq!(failure.code, 4);
    }
    let held = scene.memory();
    assert!(held.output + held.owed + held.outbox < 4096, "{held:?}");
}

#[test]
fn ch_05_a_burst_of_opens_beyond_the_cap_of_the_other_side_loses_no_answer() {
    // What the server asks its embedder about at once: by default, and as its embedder chose.
    for (pending, asked) in [(None, 8), (Some(3), 3), (Some(32), 20)] {
        let (client, _) = null_configs_with(|_| {}, |_| {});
        let server = null_server().with_limits(|limits| {
            limits.pending_opens = pending.unwrap_or(limits.pending_opens);
        });
        let mut pair = Pair::new(client, server.build().expect("a server"), 1);
        pair.login();
        pair.server.policy.open = Answer::Keep;
        let open =
            |pair: &mut Pair| pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default());
        let ids: Vec<_> = (0..20).map(|_| open(&mut pair).expect("there is room")).collect();
        pair.drive();
        assert_eq!(pair.server.events.len(), asked, "{pending:?}");
        // Each of the others is told which it was and why, in order, and its place is free again.
        for id in &ids[asked..] {
            let why = take!(pair.client, ClientEvent::OpenFailed(of, why) if of == *id => why);
            assert_eq!(why.code, OpenFailureCode::RESOURCE_SHORTAGE);
            assert_eq!(why.description.to_string(), "too many channels");
            assert!(pair.client.conn.channel(*id).is_err());
        }
        assert_eq!(pair.client.conn.memory_usage().channels, asked);
        pair.server.answer(&Policy::default());
        pair.drive();
        for id in &ids[..asked] {
            take!(pair.client, ClientEvent::Opened(of) if of == *id => ());
        }
        // Those that were refused may be tried again.
        pair.server.policy = Policy::default();
        for _ in asked..20 {
            let again = open(&mut pair).expect("there is room");
            pair.drive();
            take!(pair.client, ClientEvent::Opened(of) if of == again => ());
        }
        assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    }
}

#[test]
fn ch_05_channels_are_capped_and_a_dropped_question_is_a_refusal() {
    let config = null_server().with_limits(|limits| limits.max_channels = 4);
    let mut scene = Scene::of_server(config.build().expect("a server")).authenticated();
    for _ in 0..4 {
        scene.open_session(100);
    }
    scene.say(&hand::open(9, 100, 100));
    assert_eq!(ChannelOpenFailure::decode(&scene.heard[0].payload).map(|failure| failure.code), Ok(4));
    let mut scene = Scene::server().authenticated();
    for round in 0..100 {
        scene.say(&hand::open(round, 100, 100));
        scene.forget();
        assert_eq!(scene.memory().channels, 0);
    }
}

#[test]
fn events_that_nobody_takes_stop_the_input() {
    let mut scene = Scene::server().authenticated();
    let now = scene.now;
    for at in 0..1000 {
        let packet = scene.puppet.seal(&hand::global(&format!("x-{at}"), false));
        scene.input.extend_from_slice(&packet);
    }
    let input = &mut scene.input;
    either!(&mut scene.subject, conn => conn.handle_input(now, input));
    let left = scene.input.len();
    assert!(left > 0 && !either!(&scene.subject, conn => conn.wants_input()));
    assert!(scene.memory().events <= 64 * 1024 + 64);
    assert_eq!(scene.take_events().len(), 1000);
    assert!(!scene.is_over());
}

/// Bytes of events that stop the input.
const EVENT_BYTES: usize = 64 * 1024;

/// As much as comes in one message, with its number in front.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut data = number.to_be_bytes().to_vec();
    data.resize(len, b'x');
    data
}

/// The number in an event about such a message.
fn number_in(event: &Event) -> u32 {
    let first = |data: &[u8]| u32::from_be_bytes(data[..4].try_into().expect("four bytes"));
    match event {
        Event::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) => match request.kind() {
            ChannelRequestKind::Pty { size, .. } => size.columns,
            ChannelRequestKind::Env { value: data, .. }
            | ChannelRequestKind::Exec(data)
            | ChannelRequestKind::Other { data, .. } => first(data),
            other => panic!("{other:?}"),
        },
        Event::Server(ServerEvent::Open(request)) => match request.kind() {
            ChannelKind::Other { data, .. } => first(data),
            other => panic!("{other:?}"),
        },
        Event::Server(ServerEvent::Global(request)) => first(&request.kind().data),
        Event::Client(ClientEvent::GlobalReply(_, Some(data))) => first(data),
        other => panic!("{other:?}"),
    }
}

/// A channel request without a wish for a reply.
fn request(recipient: u32, kind: &ChannelRequestKind) -> Vec<u8> {
    let mut data = Vec::new();
    kind.encode_data(&mut data);
    hand::request(recipient, kind.name().as_str(), false, &data)
}

#[test]
fn events_that_hold_much_stop_the_input_before_there_are_many() {
    let pty = |at| {
        let size = WindowSize { columns: at, ..WindowSize::default() };
        let modes = TerminalModes::new((0..MAX_TERMINAL_MODES as u32).map(|mode| (1, mode)));
        request(0, &ChannelRequestKind::Pty { term: "xterm".into(), size, modes })
    };
    let env = |at| request(0, &ChannelRequestKind::env("NAME", numbered(at, 3000)));
    // One program for each session.
    let exec = |at| request(at, &ChannelRequestKind::exec(numbered(at, 30_000)));
    let other = |at| {
        let name = "x@ssh-tests.invalid".into();
        request(0, &ChannelRequestKind::Other { name, data: numbered(at, 30_000) })
    };
    let open = |at| {
        let (kind, data) = (&b"x@ssh-tests.invalid"[..], &numbered(at, 30_000)[..]);
        encoded(&ChannelOpen { kind, sender: at, window: 100, max_packet: 100, data })
    };
    let global = |at| {
        let (name, data) = (&b"x@ssh-tests.invalid"[..], &numbered(at, 250_000)[..]);
        encoded(&GlobalRequest { name, want_reply: false, data })
    };
    let reply = |at| encoded(&RequestSuccess { data: &numbered(at, 30_000) });
    type Make<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let cases: [(&str, Side, u32, Make<'_>); 7] = [
        ("terminal modes", Side::Server, 64, &pty),
        ("variables", Side::Server, 100, &env),
        ("programs", Side::Server, 16, &exec),
        ("other requests", Side::Server, 64, &other),
        ("opens", Side::Server, 8, &open),
        ("global requests", Side::Server, 10, &global),
        ("replies", Side::Client, 64, &reply),
    ];
    for (name, side, count, make) in cases {
        let mut scene = Scene::of(side).authenticated();
        let kind = GlobalRequestKind { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
        for _ in 0..count {
            match side {
                Side::Client => scene.as_client().global_request(&kind).map(drop).expect("room"),
                Side::Server if scene.memory().channels < 16 => _ = scene.open_session(100),
                Side::Server => {}
            }
        }
        scene.forget();
        let mut largest = 0;
        for at in 0..count {
            let payload = make(at);
            // As many bytes as it has, or for a mode of five bytes its eight in memory.
            largest = largest.max(2 * payload.len());
            let packet = scene.puppet.seal(&payload);
            scene.input.extend_from_slice(&packet);
        }
        let (mut told, mut stops) = (Vec::new(), 0);
        while !scene.input.is_empty() {
            let (now, input) = (scene.now, &mut scene.input);
            either!(&mut scene.subject, conn => conn.handle_input(now, input));
            let held = scene.memory().events;
            assert!(held < EVENT_BYTES + largest, "{name}: {held}");
            let wants_input = either!(&scene.subject, conn => conn.wants_input());
            assert!(!wants_input || scene.input.is_empty(), "{name}");
            let before = told.len();
            told.extend(std::iter::from_fn(|| poll(&mut scene)).map(|event| number_in(&event)));
            if !wants_input {
                stops += 1;
                assert!(held >= EVENT_BYTES && told.len() - before < 64, "{name}: {held}");
            }
            assert!(either!(&scene.subject, conn => conn.wants_input()), "{name}");
            assert_eq!(scene.memory().events, 0, "{name}");
            scene.flush();
        }
        assert!(stops > 0, "{name}");
        assert_eq!(told, (0..count).collect::<Vec<_>>(), "{name}");
        assert!(!scene.is_over(), "{name}");
    }
}

/// How a stage is reached, how many seconds it may last, what it is called, and what the peer is told.
type Stage = (fn(Scene) -> Scene, u64, TimeoutReason, &'static [u32]);

#[test]
fn ad_01_every_stage_before_authentication_has_an_end() {
    let stages: [Stage; 3] = [
        (|scene| scene, 10, TimeoutReason::Ident, &[]),
        (greeted, 30, TimeoutReason::Kex, &[3]),
        (serviced, 120, TimeoutReason::Login, &[2]),
    ];
    for (stage, seconds, reason, codes) in stages {
        let mut scene = stage(Scene::server());
        scene.wait(Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(!scene.is_over(), "{reason:?}");
        scene.wait(Duration::from_millis(1));
        assert_eq!(scene.closed(), CloseReason::TimedOut(reason));
        assert_eq!(scene.disconnects(), codes);
    }
}

#[test]
fn ad_01_a_client_waits_for_its_server_so_long_and_for_its_user_without_end() {
    let asking = |scene| {
        let mut scene = serviced(scene);
        scene.as_client().authenticate("user", ssh_proto::Credential::None).expect("idle");
        scene.settle();
        scene
    };
    let stages: [Stage; 4] = [
        (|scene| scene, 10, TimeoutReason::Ident, &[]),
        (greeted, 30, TimeoutReason::Kex, &[3]),
        (keyed, 120, TimeoutReason::Login, &[2]),
        (asking, 120, TimeoutReason::Login, &[2]),
    ];
    for (stage, seconds, reason, codes) in stages {
        let mut scene = stage(Scene::client());
        scene.wait(Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(!scene.is_over(), "{reason:?}");
        scene.wait(Duration::from_millis(1));
        assert_eq!(scene.closed(), CloseReason::TimedOut(reason));
        assert_eq!(scene.disconnects(), codes);
    }
    // A host key to judge, a password to type.
    let mut judging = greeted(Scene::client());
    judging.kexinit(|_| {});
    judging.method();
    for mut scene in [judging, serviced(Scene::client())] {
        scene.wait(Duration::from_secs(100_000));
        assert!(!scene.is_over(), "{:?}", scene.events);
    }
}

#[test]
fn ad_01_talking_slowly_does_not_move_the_deadline() {
    let mut scene = serviced(Scene::server());
    for _ in 0..119 {
        scene.wait(Duration::from_secs(1));
        scene.say(&hand::ignore(0));
    }
    assert!(!scene.is_over());
    scene.wait(Duration::from_secs(1));
    assert_eq!(scene.closed(), CloseReason::TimedOut(TimeoutReason::Login));
}

#[test]
fn tm_01_a_refusal_leaves_no_sooner_than_its_delay_whatever_refused_it() {
    let refusals: [fn(&mut Scene); 3] = [
        |scene| {
            scene.say(&password_request("user"));
            scene.answer_auth(AuthVerdict::Reject { next: AuthMethods::PASSWORD });
        },
        // A user name nobody has, and a method nobody has.
        |scene| scene.say(&password_request("-user")),
        |scene| {
            let name = "gssapi-with-mic";
            let method = ssh_proto::raw::auth::Method::Other { name, fields: b"" };
            scene.tell(&ssh_proto::raw::auth::UserauthRequest {
                user: "user",
                service: "ssh-connection",
                method,
            });
        },
    ];
    for refusal in refusals {
        let mut scene = serviced(Scene::server());
        scene.heard.clear();
        refusal(&mut scene);
        scene.wait(Duration::from_millis(9));
        assert_eq!(scene.heard, []);
        scene.wait(Duration::from_millis(1));
        let numbers: Vec<u8> = scene.heard.iter().map(|heard| heard.number()).collect();
        assert_eq!(numbers, [number::USERAUTH_FAILURE]);
    }
}

#[test]
fn limits_without_an_end_overflow_nothing() {
    let endless = |limits: &mut Limits| {
        (limits.pre_auth_bytes, limits.pre_auth_packets) = (u64::MAX, u64::MAX);
        let never = Duration::MAX;
        (limits.ident_timeout, limits.kex_timeout, limits.rekey_timeout) = (never, never, never);
        (limits.login_timeout, limits.write_stall, limits.linger) = (never, never, never);
        (limits.open_timeout, limits.request_timeout) = (Some(never), Some(never));
        (limits.keepalive_interval, limits.idle_timeout) = (Some(never), Some(never));
        (limits.auth_failures, limits.auth_requests, limits.client_auth_requests) =
            (u32::MAX, u32::MAX, u32::MAX);
        (limits.banners, limits.banner_bytes) = (u32::MAX, usize::MAX);
        (limits.noise_burst, limits.unimplemented_replies) = (u32::MAX, u32::MAX);
        (limits.pending_opens, limits.pending_globals) = (usize::MAX, usize::MAX);
        (limits.pending_global_tickets, limits.pending_requests) = (usize::MAX, usize::MAX);
        (limits.env_requests, limits.small_rekeys_per_minute) = (u32::MAX, Some(u32::MAX));
        (limits.output, limits.owed_replies) = (usize::MAX, usize::MAX);
        (limits.outbox_bytes, limits.outbox_messages) = (usize::MAX, usize::MAX);
        (limits.events, limits.max_borrowed, limits.keepalive_misses) = (usize::MAX, usize::MAX, u32::MAX);
    };
    let (client, server) = null_configs_with(endless, |_| {});
    let mut pair = Pair::new(client, server, 1);
    pair.login_with(ssh_proto::Credential::Password("x".into()));
    let (ours, theirs) = pair.open_session();
    for round in 0..3 {
        pair.server.conn.rekey();
        for payload in [hand::ping(100), hand::global("x@ssh-tests.invalid", true), hand::bare(199)] {
            pair.client.conn.send_raw(&payload);
        }
        let mut channel = pair.client.conn.channel(ours).expect("open");
        channel.request(&ChannelRequestKind::env("A", "b"), true).expect("there is room");
        channel.write(ssh_proto::Stream::Data, b"data").expect("there is room");
        pair.drive();
        pair.advance(Duration::from_secs(1_000_000));
        let bytes = pair.server.bytes(theirs, ssh_proto::Stream::Data);
        assert_eq!((bytes.len(), &pair.client.closed, &pair.server.closed), (4 * (round + 1), &None, &None));
    }
}

#[test]
fn the_volume_before_authentication_is_bounded_in_bytes_and_packets() {
    for bytes in [true, false] {
        let config = null_server().with_limits(|limits| {
            limits.noise_burst = 100_000;
            if bytes {
                limits.pre_auth_bytes = 1 << 20;
            }
        });
        let mut scene = serviced(Scene::of_server(config.build().expect("a server")));
        let mut sent = 0;
        while !scene.is_over() {
            scene.say(&hand::ignore(if bytes { 30_000 } else { 0 }));
            sent += 1;
        }
        assert_eq!(rule(&mut scene), PeerMisbehaved::PreAuthVolume);
        let expected = if bytes { 34..=35 } else { 4090..=4093 };
        assert!(expected.contains(&sent), "{sent}");
    }
}

#[test]
fn noise_is_earned_back_by_time_and_by_traffic() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        let id = scene.open_session(100);
        (0..256).for_each(|_| scene.say(&hand::ignore(0)));
        scene.say(&hand::data(0, &[0; 8192]));
        (0..2).for_each(|_| scene.say(&hand::ignore(0)));
        scene.wait(Duration::from_secs(3));
        (0..3).for_each(|_| scene.say(&hand::ignore(0)));
        assert!(!scene.is_over());
        scene.say(&hand::ignore(0));
        assert_eq!(rule(&mut scene), PeerMisbehaved::NoiseFlood);
        let (read, _) = scene.read_all(id, ssh_proto::Stream::Data);
        assert_eq!(read.len(), 8192);
    }
}
