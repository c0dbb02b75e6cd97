//! Answers that came in time to a side that does not listen, and who is to blame for it.

use std::time::Duration;

use ssh_proto::{
    ChannelConfig, ChannelKind, ChannelRequestKind, Credential, GlobalRequestKind, Instant, TimeoutReason,
};
use ssh_tests::config::null_server_external;
use ssh_tests::{Answer, Pair, Policy, hand, null_client, null_server};

use super::{logged_in, secs, timed_out};

fn global() -> GlobalRequestKind {
    GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() }
}

/// What the client waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Owed {
    Open,
    Reply,
    GlobalReply,
    Exchange,
}

const ALL: [Owed; 4] = [Owed::Open, Owed::Reply, Owed::GlobalReply, Owed::Exchange];

impl Owed {
    fn ask(self, pair: &mut Pair, id: ssh_proto::ChannelId) {
        let client = &mut pair.client.conn;
        match self {
            Self::Open => {
                client.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
            }
            Self::Reply => client.channel(id).unwrap().request(&ChannelRequestKind::Shell, true).unwrap(),
            Self::GlobalReply => _ = client.global_request(&global()).unwrap(),
            Self::Exchange => client.rekey(),
        }
    }

    /// How the answer shows, and how it does that there is none.
    fn shows(self) -> [&'static str; 2] {
        match self {
            Self::Open => ["Opened(", "OpenFailed("],
            Self::Reply => ["Reply(true)", "Reply(false)"],
            Self::GlobalReply => ["Some(b\"\")", "None)"],
            Self::Exchange => ["Rekeyed", "TimedOut(Kex)"],
        }
    }
}

/// A client that takes nothing, because of events that are not polled, and its channel.
fn behind_events() -> (Pair, ssh_proto::ChannelId) {
    let client = null_client().with_limits(|limits| limits.events = 4);
    let server = null_server().with_limits(|limits| limits.rekey_timeout = secs(100_000));
    let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
    pair.login();
    let (ours, _) = pair.open_session();
    pair.client.trace.clear();
    pair.client.frozen = true;
    (0..6).for_each(|_| _ = pair.server.conn.global_request(&global()).unwrap());
    pair.drive();
    assert!(!pair.client.conn.wants_input());
    (pair, ours)
}

/// A server with a question about the key exchange, behind which lies the answer to a request of its own.
fn behind_a_question() -> Pair {
    let client = null_client().with_limits(|limits| limits.rekey_timeout = secs(100_000));
    let server = null_server_external();
    let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
    pair.login();
    pair.server.policy.sign = Answer::Keep;
    pair.client.conn.rekey();
    pair.server.conn.global_request(&global()).unwrap();
    pair.drive();
    assert!(pair.server.conn.awaits_answer());
    pair
}

#[test]
fn an_answer_that_lies_unread_behind_unpolled_events_is_not_missed() {
    for owed in ALL {
        let (mut pair, ours) = behind_events();
        owed.ask(&mut pair, ours);
        pair.advance(secs(1_005));
        assert!(!pair.client.conn.is_closed(), "{owed:?}");

        pair.client.frozen = false;
        pair.drive();
        let shown = owed.shows().map(|words| pair.client.count(words));
        assert_eq!(shown, [1, 0], "{owed:?}: {:?}", pair.client.trace);

        // Who listens misses it again.
        pair.s2c.stalled = true;
        owed.ask(&mut pair, ours);
        pair.drive();
        pair.advance(secs(if owed == Owed::Exchange { 59 } else { 119 }));
        assert_eq!(owed.shows().map(|words| pair.client.count(words)), [1, 0], "{owed:?}");
        pair.advance(secs(1));
        assert_eq!(owed.shows().map(|words| pair.client.count(words)), [1, 1], "{owed:?}");
    }
}

#[test]
fn an_answer_that_lies_unread_behind_an_unanswered_question_is_not_missed() {
    let mut pair = behind_a_question();
    pair.advance(secs(1_005));
    pair.server.answer(&Policy::default());
    pair.drive();
    assert_eq!((pair.server.count("Some(b\"\")"), pair.server.count("None)")), (1, 0));
}

#[test]
fn an_answer_that_lay_unread_while_the_embedder_was_away_is_not_missed() {
    for owed in ALL {
        for polled in [1, usize::MAX] {
            for hurried in [false, true] {
                let (mut pair, ours) = behind_events();
                owed.ask(&mut pair, ours);
                pair.drive();
                // No call at all meanwhile, and what makes room comes before the first that knows the time.
                pair.now = pair.now + secs(1_005);
                pair.client.poll(polled);
                if hurried {
                    pair.client.conn.handle_timeout(pair.now);
                }
                pair.client.frozen = false;
                pair.drive();
                let shown = owed.shows().map(|words| pair.client.count(words));
                assert_eq!(shown, [1, 0], "{owed:?} {polled}: {:?}", pair.client.trace);
            }
        }
    }

    let mut pair = behind_a_question();
    pair.now = pair.now + secs(130);
    pair.server.answer(&Policy::default());
    pair.drive();
    assert_eq!((pair.server.count("Some(b\"\")"), pair.server.count("None)")), (1, 0));
}

#[test]
fn an_embedder_that_was_away_excuses_its_peer_once() {
    for owed in ALL {
        let (mut pair, ours) = behind_events();
        pair.s2c.stalled = true;
        owed.ask(&mut pair, ours);
        pair.drive();
        pair.now = pair.now + secs(1_005);
        pair.client.frozen = false;
        pair.drive();
        pair.advance(secs(if owed == Owed::Exchange { 59 } else { 119 }));
        assert_eq!(owed.shows().map(|words| pair.client.count(words)), [0, 0], "{owed:?}");
        pair.advance(secs(1));
        assert_eq!(owed.shows().map(|words| pair.client.count(words)), [0, 1], "{owed:?}");
    }
}

#[test]
fn a_peer_that_does_not_read_what_it_provoked_is_not_excused_for_its_silence() {
    let client = null_client().with_limits(|limits| limits.noise_burst = 100_000);
    let server = null_server().with_limits(|limits| limits.write_stall = secs(100_000));
    let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
    pair.login();
    pair.s2c.stalled = true;
    pair.server.conn.global_request(&global()).unwrap();
    (0..2000).for_each(|_| pair.client.conn.send_raw(&hand::ping(1000)));
    pair.drive();
    assert!(!pair.server.conn.wants_input());
    pair.advance(secs(119));
    assert_eq!(pair.server.count("None)"), 0);
    pair.advance(secs(1));
    assert_eq!(pair.server.count("None)"), 1);
}

#[test]
fn nothing_excuses_a_client_before_it_is_logged_in() {
    let server = null_server().with_limits(|limits| limits.events = 1);
    let mut pair = Pair::new(null_client().build().unwrap(), server.build().unwrap(), 1);
    pair.handshake();
    pair.server.frozen = true;
    pair.client.conn.authenticate("user", Credential::Password("x".into())).unwrap();
    pair.advance(secs(119));
    assert!(pair.server.conn.output().is_empty());
    assert_eq!(pair.server.conn.timeout_reason(), Some(TimeoutReason::Login));
    pair.advance(secs(1));
    pair.server.frozen = false;
    pair.drive();
    assert_eq!(pair.server.closed, timed_out(TimeoutReason::Login));
}

#[test]
fn nothing_turns_in_circles_at_the_last_point_of_the_clock() {
    let last = Instant::from_duration(Duration::MAX);
    for owed in ALL {
        let (mut pair, ours) = behind_events();
        owed.ask(&mut pair, ours);
        pair.drive();
        pair.client.conn.handle_timeout(last);
        pair.client.poll(usize::MAX);
        assert_eq!(pair.client.closed, None, "{owed:?}");
    }
    // A keepalive went out, and nobody can have missed its answer yet.
    let mut pair = logged_in(|limits| limits.keepalive_interval = Some(secs(1)));
    pair.client.conn.handle_timeout(last);
    pair.client.poll(usize::MAX);
    assert_eq!(pair.client.closed, None);
}
