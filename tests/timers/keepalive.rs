//! Keepalives: who asks, which silence counts against the peer, and what it comes to.

use std::time::Duration;

use ssh_proto::raw::number;
use ssh_proto::raw::transport::Unimplemented;
use ssh_proto::{
    ChannelConfig, ChannelKind, ChannelRequestKind, ClientEvent, DisconnectCode, GlobalRequestKind, Limits,
    RequestError, ServerEvent, Side, TimeoutReason,
};
use ssh_tests::config::null_server_external;
use ssh_tests::scene::Event;
use ssh_tests::{Answer, Pair, Policy, Scene, either, hand, null_client, null_server, record, take};

use super::{assert_told, secs, timed_out};

const INTERVAL: Duration = Duration::from_secs(10);
const MISSES: u32 = 3;
const MS: Duration = Duration::from_millis(1);

fn asks(limits: &mut Limits) {
    limits.keepalive_interval = Some(INTERVAL);
    limits.keepalive_misses = MISSES;
}

/// How many keepalives a side sent.
fn asked(pair: &Pair, side: Side) -> usize {
    let wire = if side == Side::Client { &pair.c2s } else { &pair.s2c };
    record::count(&wire.sent, number::GLOBAL_REQUEST)
}

/// The peer of `side` has said its last word just now, an answer to all questions: one more, three intervals
/// behind it, and the end.
fn assert_left_after_three_intervals(pair: &mut Pair, side: Side) {
    let before = asked(pair, side);
    // What the peer says from now on does not arrive.
    if side == Side::Client {
        pair.s2c.stalled = true
    } else {
        pair.c2s.stalled = true
    }
    pair.advance(INTERVAL - MS);
    assert_eq!(asked(pair, side), before, "not before its time");
    pair.advance(MS);
    assert_eq!(asked(pair, side), before + 1);
    pair.advance(MISSES * INTERVAL - MS);
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    pair.advance(MS);
    assert_eq!(asked(pair, side), before + 1, "one question is enough");
    let (left, told) = match side {
        Side::Client => (&pair.client.closed, &pair.server.closed),
        Side::Server => (&pair.server.closed, &pair.client.closed),
    };
    assert_eq!(*left, timed_out(TimeoutReason::Keepalive));
    assert_told(told, DisconnectCode::CONNECTION_LOST);
}

#[test]
fn a_silent_peer_of_either_side_is_asked_once_and_left_three_intervals_later() {
    for side in [Side::Client, Side::Server] {
        let (mut client, mut server) = (null_client(), null_server());
        match side {
            Side::Client => client = client.with_limits(asks),
            Side::Server => server = server.with_limits(asks),
        }
        let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
        pair.login();
        assert_left_after_three_intervals(&mut pair, side);
    }
}

#[test]
fn a_peer_that_may_miss_one_interval_has_that_one_to_answer_in() {
    let client = null_client().with_limits(|limits| {
        limits.keepalive_interval = Some(INTERVAL);
        limits.keepalive_misses = 1;
    });
    let mut pair = Pair::new(client.build().unwrap(), null_server().build().unwrap(), 1);
    pair.login();
    pair.advance(20 * INTERVAL);
    assert_eq!((asked(&pair, Side::Client), &pair.client.closed), (20, &None), "it answers each");
    pair.s2c.stalled = true;
    pair.advance(2 * INTERVAL - MS);
    assert_eq!((asked(&pair, Side::Client), &pair.client.closed), (21, &None));
    pair.advance(MS);
    assert_eq!(pair.client.closed, timed_out(TimeoutReason::Keepalive));
}

#[test]
fn any_answer_starts_the_count_again() {
    let (client, server) = (null_client().with_limits(asks), null_server());
    let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
    pair.login();
    for _ in 0..5 {
        pair.s2c.stalled = true;
        pair.advance(secs(39));
        pair.s2c.stalled = false;
        pair.drive();
    }
    assert_eq!(asked(&pair, Side::Client), 5);
    assert_left_after_three_intervals(&mut pair, Side::Client);
}

/// What keeps a server from listening.
#[derive(Debug, Clone, Copy)]
enum Gate {
    HostSign,
    Events,
    Owed,
}

#[test]
fn silence_is_not_counted_while_we_do_not_listen_and_counted_again_afterwards() {
    for gate in [Gate::HostSign, Gate::Events, Gate::Owed] {
        // The client waits as long as it takes.
        let client = null_client().with_limits(|limits| {
            limits.rekey_timeout = secs(100_000);
            limits.noise_burst = 100_000;
        });
        let server = null_server_external().with_limits(|limits| {
            asks(limits);
            limits.events = 4;
            limits.write_stall = secs(100_000);
        });
        let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
        pair.login();
        // More stays behind than what shuts the gate.
        match gate {
            Gate::HostSign => {
                pair.server.policy.sign = Answer::Keep;
                pair.client.conn.rekey();
            }
            Gate::Events => {
                pair.server.frozen = true;
                let kind = GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() };
                (0..6).for_each(|_| _ = pair.client.conn.global_request(&kind).unwrap());
            }
            Gate::Owed => {
                pair.s2c.stalled = true;
                (0..2000).for_each(|_| pair.client.conn.send_raw(&hand::ping(1000)));
            }
        }
        pair.drive();
        assert!(!pair.server.conn.wants_input(), "{gate:?}");
        let before = asked(&pair, Side::Server);
        pair.advance(secs(1_005));
        assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None), "{gate:?}");
        assert_eq!(asked(&pair, Side::Server), before, "{gate:?}: who does not listen does not ask");

        match gate {
            Gate::HostSign => drop(pair.server.answer(&Policy::default())),
            Gate::Events => pair.server.frozen = false,
            Gate::Owed => pair.s2c.stalled = false,
        }
        pair.drive();
        assert!(pair.server.conn.wants_input(), "{gate:?}");
        assert_left_after_three_intervals(&mut pair, Side::Server);
    }
}

#[test]
fn what_was_missed_before_we_stopped_listening_is_forgotten() {
    let server = null_server().with_limits(|limits| {
        asks(limits);
        limits.events = 4;
        limits.request_timeout = Some(secs(25));
    });
    let mut pair = Pair::new(null_client().build().unwrap(), server.build().unwrap(), 1);
    pair.login();
    pair.c2s.stalled = true;
    pair.server.frozen = true;
    let kind = GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() };
    (0..4).for_each(|_| _ = pair.server.conn.global_request(&kind).unwrap());
    pair.drive();
    let before = asked(&pair, Side::Server);
    pair.advance(secs(24));
    assert!(pair.server.conn.wants_input());
    assert_eq!(asked(&pair, Side::Server), before + 1);
    // That those requests came to nothing fills the queue, and nobody empties it.
    pair.advance(secs(1));
    assert!(!pair.server.conn.wants_input());
    pair.advance(secs(1_000));
    pair.server.frozen = false;
    pair.drive();
    assert!(pair.server.conn.wants_input());
    pair.advance(secs(35) - MS);
    assert_eq!((asked(&pair, Side::Server), &pair.server.closed), (before + 1, &None));
    pair.advance(MS);
    assert_eq!(pair.server.closed, timed_out(TimeoutReason::Keepalive));
}

#[test]
fn nothing_is_asked_before_authentication_however_long_its_questions_wait() {
    let patient = |limits: &mut Limits| {
        asks(limits);
        (limits.kex_timeout, limits.login_timeout) = (secs(10_000), secs(10_000));
    };
    let (client, server) = (null_client().with_limits(patient), null_server().with_limits(patient));
    let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
    pair.client.policy.host_key = Answer::Keep;
    pair.server.policy.auth = Answer::Keep;
    pair.client.conn.authenticate("user", ssh_proto::Credential::None).unwrap();
    pair.advance(secs(1_000));
    assert!(pair.client.conn.awaits_answer());
    pair.client.answer(&Policy::default());
    pair.advance(secs(1_000));
    assert!(pair.server.conn.awaits_answer());
    assert_eq!((asked(&pair, Side::Client), asked(&pair, Side::Server)), (0, 0));
    let request = take!(pair.server, ServerEvent::Auth(request) => request);
    pair.server.conn.reply_auth(request, ssh_proto::AuthVerdict::Accept).unwrap();
    pair.drive();
    assert!(pair.client.authenticated);
    assert_left_after_three_intervals(&mut pair, Side::Client);
}

fn asking_scene(side: Side) -> Scene {
    match side {
        Side::Client => Scene::of_client(null_client().with_limits(asks).build().unwrap()),
        Side::Server => Scene::of_server(null_server().with_limits(asks).build().unwrap()),
    }
    .authenticated()
}

/// RFC 4253 §11.4: who does not know a message says so, and is there.
#[test]
fn r30_a_peer_that_knows_no_global_requests_says_so_and_is_alive() {
    for side in [Side::Client, Side::Server] {
        let mut scene = asking_scene(side);
        for interval in 0..10 {
            scene.wait(INTERVAL);
            let heard = scene.take_heard();
            let [keepalive] = &heard[..] else { panic!("{side:?} {interval}: {heard:?}") };
            assert_eq!(keepalive.number(), number::GLOBAL_REQUEST);
            scene.say(&hand::encode(&Unimplemented { sequence: keepalive.seq }));
        }
        assert!(!scene.is_over());
        // Another number is no answer.
        scene.wait(INTERVAL);
        let sequence = scene.take_heard()[0].seq.wrapping_add(1);
        scene.say(&hand::encode(&Unimplemented { sequence }));
        (0..=MISSES).for_each(|_| scene.wait(INTERVAL));
        assert_eq!(Some(scene.closed()), timed_out(TimeoutReason::Keepalive));
    }
}

#[test]
fn a_global_request_that_the_peer_does_not_know_is_answered_no_and_its_neighbours_by_their_own_replies() {
    let mut scene = asking_scene(Side::Client);
    let ids = [(); 3].map(|()| scene.as_client().global_request(&global()).unwrap());
    scene.settle();
    let heard = scene.take_heard();
    scene.say(&hand::encode(&Unimplemented { sequence: heard[1].seq }));
    scene.say(&hand::bare(number::REQUEST_SUCCESS));
    scene.say(&hand::bare(number::REQUEST_FAILURE));
    let replies = scene.take_events().into_iter().map(|event| match event {
        Event::Client(ClientEvent::GlobalReply(id, data)) => (id, data.is_some()),
        other => panic!("{other:?}"),
    });
    let replies: Vec<_> = replies.collect();
    assert_eq!(replies, [(ids[1], false), (ids[0], true), (ids[2], false)]);
}

fn global() -> GlobalRequestKind {
    GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() }
}

/// Makes as many global requests as may be made, and says how many those are.
fn ask_all(scene: &mut Scene) -> usize {
    let made = either!(&mut scene.subject, conn => {
        std::iter::from_fn(|| conn.global_request(&global()).ok()).count()
    });
    let refused = either!(&mut scene.subject, conn => conn.global_request(&global()));
    assert_eq!(refused, Err(RequestError::Full));
    made
}

#[test]
fn a_peer_that_talks_and_answers_no_keepalive_stays_and_is_left_once_it_is_silent() {
    for side in [Side::Client, Side::Server] {
        let mut scene = asking_scene(side);
        // It says something each time, but never an answer.
        for _ in 0..200 {
            scene.wait(INTERVAL);
            scene.say(&hand::ignore(1));
        }
        assert!(!scene.is_over());
        assert_eq!(scene.take_heard().len(), 1, "one question at a time");
        assert_eq!(ask_all(&mut scene), Limits::default().pending_globals);
        // What it answers now is the question it was asked first, and then the others.
        (0..3).for_each(|_| scene.say(&hand::bare(number::REQUEST_SUCCESS)));
        assert_eq!(scene.take_events().len(), 2);
        scene.heard.clear();
        for _ in 0..MISSES {
            scene.wait(INTERVAL);
            assert!(!scene.is_over());
        }
        assert_eq!(scene.take_heard().len(), 1);
        scene.wait(INTERVAL - MS);
        assert!(!scene.is_over());
        scene.wait(MS);
        assert_eq!(Some(scene.closed()), timed_out(TimeoutReason::Keepalive));
        assert_eq!(scene.disconnects(), [DisconnectCode::CONNECTION_LOST.0]);
    }
}

#[test]
fn a_peer_that_answers_no_request_at_all_is_asked_for_a_keepalive_all_the_same() {
    for side in [Side::Client, Side::Server] {
        let mut scene = asking_scene(side);
        assert_eq!(ask_all(&mut scene), Limits::default().pending_globals);
        scene.forget();
        for _ in 0..=MISSES {
            assert!(!scene.is_over());
            scene.wait(INTERVAL);
        }
        assert_eq!(Some(scene.closed()), timed_out(TimeoutReason::Keepalive));
        let numbers: Vec<u8> = scene.heard.iter().map(|heard| heard.number()).collect();
        assert_eq!(numbers, [number::GLOBAL_REQUEST, number::DISCONNECT]);
    }
}

#[test]
fn a_peer_that_keeps_the_outbox_full_is_asked_and_left_all_the_same() {
    for side in [Side::Client, Side::Server] {
        let mut scene = asking_scene(side);
        // Requests on a channel that it does not confirm wait for it, until there is no room for more.
        either!(&mut scene.subject, conn => {
            let id = conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
            let mut channel = conn.channel(id).unwrap();
            let env = ChannelRequestKind::env("NAME", "x".repeat(1000).as_str());
            let short = ChannelRequestKind::env("A", "");
            while channel.request(&env, false).is_ok() || channel.request(&short, false).is_ok() {}
            assert_eq!(channel.request(&short, false), Err(RequestError::Full));
        });
        scene.wait(Duration::ZERO);
        scene.forget();
        scene.wait(INTERVAL);
        let asked = scene.take_heard();
        assert_eq!(asked.iter().map(|heard| heard.number()).collect::<Vec<_>>(), [number::GLOBAL_REQUEST]);
        for _ in 0..MISSES {
            assert!(!scene.is_over());
            scene.wait(INTERVAL);
        }
        assert_eq!(Some(scene.closed()), timed_out(TimeoutReason::Keepalive));
    }
}
