//! Every deadline: when it is due, what it ends, what the peer is told.

#[path = "timers/keepalive.rs"]
mod keepalive;
#[path = "timers/reasons.rs"]
mod reasons;
#[path = "timers/requests.rs"]
mod requests;
#[path = "timers/unheard.rs"]
mod unheard;

use std::time::Duration;

use ssh_proto::{
    ChannelConfig, ChannelEvent, ChannelKind, ChannelRequestKind, ClientEvent, CloseReason, Credential,
    Disconnect, DisconnectCode, GlobalRequestKind, Instant, Limits, Stream, TimeoutReason,
};
use ssh_tests::{Answer, FailsAt, Pair, Policy, Seeded, null_configs, null_configs_with, null_key, record};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn pair_with(limits: impl Fn(&mut Limits) + Copy) -> Pair {
    let (client, server) = null_configs_with(limits, |_| {});
    Pair::new(client, server, 1)
}

fn logged_in(limits: impl Fn(&mut Limits) + Copy) -> Pair {
    let mut pair = pair_with(limits);
    pair.login();
    pair
}

fn timed_out(reason: TimeoutReason) -> Option<CloseReason> {
    Some(CloseReason::TimedOut(reason))
}

fn assert_told(reason: &Option<CloseReason>, expected: DisconnectCode) {
    let Some(CloseReason::PeerDisconnected { code, .. }) = reason else { panic!("{reason:?}") };
    assert_eq!(*code, expected);
}

#[test]
fn a_peer_that_says_nothing_has_ten_seconds() {
    let mut pair = Pair::null();
    (pair.c2s.stalled, pair.s2c.stalled) = (true, true);
    assert_eq!(pair.client.conn.timeout_reason(), Some(TimeoutReason::Ident));
    assert_eq!(pair.client.conn.poll_timeout(), Some(Instant::ORIGIN + secs(10)));
    pair.advance(Duration::from_millis(9_999));
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    let sent = (pair.client.conn.output().len(), pair.server.conn.output().len());
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.client.closed, timed_out(TimeoutReason::Ident));
    assert_eq!(pair.server.closed, timed_out(TimeoutReason::Ident));
    let now = (pair.client.conn.output().len(), pair.server.conn.output().len());
    assert_eq!(now, sent, "there is nobody to tell");
}

#[test]
fn a_peer_that_only_says_who_it_is_has_thirty_seconds_for_the_exchange() {
    let client = ssh_tests::null_client().with_limits(|limits| limits.kex_timeout = secs(100));
    let mut pair = Pair::new(client.build().unwrap(), null_configs().1, 1);
    // The identification goes through, the rest does not.
    pair.c2s.edit(|_, bytes| {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(line);
    });
    pair.advance(secs(29));
    assert_eq!(pair.server.closed, None);
    assert_eq!(pair.server.conn.timeout_reason(), Some(TimeoutReason::Kex));
    pair.advance(secs(1));
    assert_eq!(pair.server.closed, timed_out(TimeoutReason::Kex));
    assert_told(&pair.client.closed, DisconnectCode::KEY_EXCHANGE_FAILED);
}

#[test]
fn a_client_that_does_not_log_in_has_two_minutes() {
    let mut pair = Pair::null();
    pair.handshake();
    pair.advance(Duration::from_millis(119_999));
    assert_eq!(pair.server.closed, None);
    assert_eq!(pair.server.conn.timeout_reason(), Some(TimeoutReason::Login));
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.server.closed, timed_out(TimeoutReason::Login));
    assert_told(&pair.client.closed, DisconnectCode::PROTOCOL_ERROR);
}

#[test]
fn a_client_that_keeps_talking_does_not_outlive_the_login_grace() {
    let mut pair = pair_with(|limits| {
        limits.client_auth_requests = 10_000;
        limits.auth_requests = 10_000;
        limits.auth_failures = 10_000;
        limits.auth_failure_delay = secs(1);
    });
    pair.server.policy.auth = Answer::No;
    for _ in 0..200 {
        let _ = pair.client.conn.authenticate("user", Credential::Password("x".into()));
        pair.advance(secs(1));
    }
    assert_eq!(pair.server.closed, timed_out(TimeoutReason::Login));
    assert!(pair.client.count("AuthFailed") > 50);
}

#[test]
fn a_server_that_does_not_answer_a_login_has_the_clients_deadline() {
    let client =
        ssh_tests::null_client().with_limits(|limits| limits.login_timeout = secs(20)).build().unwrap();
    let (_, server) = null_configs();
    let mut pair = Pair::new(client, server, 1);
    pair.server.policy.auth = Answer::Keep;
    pair.client.conn.authenticate("user", Credential::Password("x".into())).unwrap();
    pair.advance(secs(19));
    assert_eq!(pair.client.closed, None);
    assert_eq!(pair.client.conn.timeout_reason(), Some(TimeoutReason::Login));
    pair.advance(secs(1));
    assert_eq!(pair.client.closed, timed_out(TimeoutReason::Login));
}

#[test]
fn a_client_may_take_as_long_as_it_likes_between_attempts() {
    let mut pair = pair_with(|limits| limits.login_timeout = secs(600));
    pair.server.policy.auth = Answer::No;
    pair.client.conn.authenticate("user", Credential::Password("x".into())).unwrap();
    pair.settle();
    assert_eq!(pair.client.count("AuthFailed"), 1);
    pair.advance(secs(500));
    assert_eq!(pair.client.closed, None);
}

#[test]
fn tm_01_a_refusal_takes_equally_long_whether_it_was_decided_at_once_or_late() {
    let delay = Duration::from_millis(300);
    for decided_after in [0, 100, 299] {
        let mut pair = pair_with(|limits| limits.auth_failure_delay = delay);
        pair.handshake();
        pair.server.policy.auth = Answer::Keep;
        let start = pair.now;
        pair.client.conn.authenticate("user", Credential::Password("x".into())).unwrap();
        pair.drive();
        pair.advance(Duration::from_millis(decided_after));
        pair.server.answer(&Policy { auth: Answer::No, ..Policy::default() });
        pair.advance(Duration::ZERO);
        assert!(!pair.server.conn.wants_input() && !pair.server.conn.awaits_answer());
        assert_eq!(pair.server.conn.timeout_reason(), Some(TimeoutReason::AuthDelay));
        assert_eq!(pair.server.conn.poll_timeout(), Some(start + delay));
        pair.advance(delay - Duration::from_millis(decided_after + 1));
        assert_eq!(pair.client.count("AuthFailed"), 0);
        pair.advance(Duration::from_millis(1));
        assert_eq!(pair.client.count("AuthFailed"), 1);
    }
}

#[test]
fn tm_01_a_refusal_that_was_decided_after_the_delay_waits_for_the_next_doubling_of_it() {
    let ms = Duration::from_millis;
    for (decided_after, leaves_after) in [(0, 10), (10, 10), (11, 20), (19, 20), (21, 40), (65, 80), (79, 80)]
    {
        // Answered, or let go of.
        for dropped in [false, true] {
            let mut pair = pair_with(|limits| limits.auth_failure_delay = ms(10));
            pair.handshake();
            pair.server.policy.auth = Answer::Keep;
            let start = pair.now;
            pair.client.conn.authenticate("user", Credential::Password("x".into())).unwrap();
            pair.drive();
            pair.advance(ms(decided_after));
            match dropped {
                true => pair.server.events.clear(),
                false => _ = pair.server.answer(&Policy { auth: Answer::No, ..Policy::default() }),
            }
            // Whoever drives it learns when it is to come back.
            pair.server.conn.handle_timeout(pair.now);
            let leaves = start + ms(leaves_after);
            if leaves > pair.now {
                assert_eq!(pair.server.conn.poll_timeout(), Some(leaves), "{decided_after}");
                pair.advance(ms(leaves_after - decided_after - 1));
                assert_eq!(pair.client.count("AuthFailed"), 0, "{decided_after}");
            }
            pair.advance(leaves.saturating_since(pair.now));
            assert_eq!(pair.client.count("AuthFailed"), 1, "{decided_after}");
        }
    }
}

#[test]
fn opens_and_requests_without_an_answer_fail_after_two_minutes_and_the_connection_lives_on() {
    let mut pair = logged_in(|_| {});
    let (ours, _) = pair.open_session();
    pair.server.policy = Policy::keep();
    let opening = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    pair.client.conn.channel(ours).unwrap().request(&ChannelRequestKind::Shell, true).unwrap();
    let global = GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() };
    pair.client.conn.global_request(&global).unwrap();
    pair.drive();
    let reasons = [Some(TimeoutReason::OpenReply), Some(TimeoutReason::RequestReply)];
    assert!(reasons.contains(&pair.client.conn.timeout_reason()));
    pair.advance(secs(119));
    assert_eq!(
        pair.client.count("OpenFailed") + pair.client.count("Reply(") + pair.client.count("GlobalReply"),
        0
    );
    pair.advance(secs(1));
    assert_eq!(pair.client.count(&format!("OpenFailed({opening:?}")), 1);
    assert_eq!(pair.client.count(" Reply(false)"), 1);
    assert_eq!(pair.client.count("GlobalReply(RequestId(0), None)"), 1);
    assert!(pair.client.conn.channel(opening).is_err());
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn output_that_the_transport_does_not_take_ends_the_connection() {
    let mut pair = logged_in(|_| {});
    let (ours, _) = pair.open_session();
    pair.c2s.stalled = true;
    pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"stuck").unwrap();
    pair.advance(secs(119));
    assert_eq!(pair.client.closed, None);
    pair.advance(secs(122));
    assert_eq!(pair.client.closed, timed_out(TimeoutReason::WriteStall));
}

#[test]
fn output_that_goes_out_slowly_does_not_end_the_connection() {
    let mut pair = logged_in(|_| {});
    let (ours, _) = pair.open_session();
    let _ = pair.client.conn.channel(ours).unwrap().write(Stream::Data, &[0; 200_000]);
    pair.c2s.stalled = true;
    for _ in 0..50 {
        pair.client.conn.consume_output(1);
        pair.advance(secs(60));
    }
    assert_eq!(pair.client.closed, None);
}

#[test]
fn a_peer_that_sends_anything_is_asked_for_no_keepalive() {
    let mut pair = logged_in(|limits| limits.keepalive_interval = Some(secs(10)));
    let (_, theirs) = pair.open_session();
    let (ours, _) = pair.open_session();
    for _ in 0..20 {
        pair.advance(secs(9));
        pair.server.conn.channel(theirs).unwrap().write(Stream::Data, b"x").unwrap();
        pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"x").unwrap();
    }
    pair.drive();
    assert_eq!(record::count(&pair.c2s.sent, 80) + record::count(&pair.s2c.sent, 80), 0);
}

#[test]
fn a_connection_without_channel_traffic_ends_when_it_was_idle_for_so_long_and_no_later() {
    let mut pair = logged_in(|limits| limits.keepalive_interval = Some(secs(7)));
    let server = ssh_tests::null_server().with_limits(|limits| limits.idle_timeout = Some(secs(100)));
    pair.server = ssh_tests::End::new(server.build().unwrap(), Seeded::new(1));
    let (client, _) = null_configs_with(|limits| limits.keepalive_interval = Some(secs(7)), |_| {});
    pair.client = ssh_tests::End::new(client, Seeded::new(2));
    (pair.c2s, pair.s2c) = Default::default();
    pair.login();
    let (ours, theirs) = pair.open_session();
    // Traffic of either direction counts from when it happened, not from the next look at the clock.
    for side in [true, false] {
        pair.advance(secs(60));
        match side {
            true => pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"x").unwrap(),
            false => pair.server.conn.channel(theirs).unwrap().write(Stream::Data, b"x").unwrap(),
        };
        pair.drive();
    }
    let last = pair.now;
    pair.advance(secs(99));
    assert_eq!(pair.server.closed, None);
    pair.advance(secs(1));
    assert_eq!(pair.server.closed, timed_out(TimeoutReason::Idle), "{last:?} {:?}", pair.now);
    assert_told(&pair.client.closed, DisconnectCode::BY_APPLICATION);
    assert!(record::count(&pair.c2s.sent, 80) > 10, "keepalives are no traffic");
}

#[test]
fn idleness_counts_from_the_last_traffic_and_not_from_the_next_call() {
    let mut pair = logged_in(|limits| limits.idle_timeout = Some(secs(100)));
    let (ours, _) = pair.open_session();
    let at = |s: u64| Instant::ORIGIN + secs(s);
    pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"x").unwrap();
    let mut input = bytes::BytesMut::from(pair.client.conn.output());
    pair.server.conn.handle_input(at(50), &mut input);
    while pair.server.conn.poll_event().is_some() {}
    pair.server.conn.handle_timeout(at(100));
    assert!(pair.server.conn.poll_event().is_none());
    pair.server.conn.handle_timeout(at(150));
    let closed = pair.server.conn.poll_event();
    assert!(
        matches!(closed, Some(ssh_proto::ServerEvent::Closed(CloseReason::TimedOut(TimeoutReason::Idle)))),
        "{closed:?}"
    );
}

#[test]
fn a_disconnect_that_cannot_leave_is_dropped_after_two_seconds() {
    let mut pair = logged_in(|_| {});
    pair.c2s.stalled = true;
    pair.client.conn.close(Disconnect::by_application());
    pair.drive();
    assert!(pair.client.conn.is_closed() && !pair.client.conn.output().is_empty());
    assert_eq!(pair.client.conn.timeout_reason(), Some(TimeoutReason::Linger));
    pair.advance(Duration::from_millis(1_999));
    assert!(!pair.client.conn.output().is_empty());
    pair.advance(Duration::from_millis(1));
    assert!(pair.client.conn.output().is_empty());
    assert_eq!(pair.client.conn.poll_timeout(), None);
}

#[test]
fn a_clock_that_runs_backwards_stands_still() {
    let mut pair = logged_in(|_| {});
    pair.advance(secs(50));
    let before = pair.client.conn.poll_timeout();
    pair.client.conn.handle_timeout(Instant::ORIGIN);
    pair.client.conn.handle_input(Instant::ORIGIN, &mut bytes::BytesMut::new());
    assert_eq!(pair.client.conn.poll_timeout(), before);
    assert!(!pair.client.conn.is_closed());
}

#[test]
fn timeouts_at_any_time_do_no_harm() {
    let mut pair = Pair::null();
    for _ in 0..100 {
        pair.client.conn.handle_timeout(pair.now);
        pair.server.conn.handle_timeout(pair.now);
        pair.step();
    }
    pair.login();
    pair.client.take(|event| match event {
        ClientEvent::Channel(_, ChannelEvent::Closed) => Ok(()),
        other => Err(other),
    });
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn a_random_source_that_fails_at_any_call_ends_the_connection_with_entropy() {
    let (client, server) = null_configs();
    let mut failures = 0;
    for call in 0..40 {
        let failing = FailsAt::call(call);
        let mut pair = Pair::with_entropy(client.clone(), server.clone(), failing.clone(), Seeded::new(1));
        let key = Credential::PublicKey { key: null_key(2), probe: true };
        let _ = pair.client.conn.authenticate("user", key);
        pair.drive();
        if pair.client.closed.is_some() {
            assert_eq!(pair.client.closed, Some(CloseReason::Entropy), "call {call}");
            failures += 1;
        }
        let mut pair = Pair::with_entropy(client.clone(), server.clone(), Seeded::new(1), failing);
        let _ = pair.client.conn.authenticate("user", Credential::Password("x".into()));
        pair.drive();
        if pair.server.closed.is_some() {
            assert_eq!(pair.server.closed, Some(CloseReason::Entropy), "call {call}");
            failures += 1;
        }
    }
    assert!(failures >= 4, "{failures}");
}
