//! Every reason there is for a deadline, at either side: at its time, and not a millisecond before.

use std::collections::HashSet;
use std::time::Duration;

use ssh_proto::raw::number;
use ssh_proto::{
    ChannelConfig, ChannelKind, ChannelRequestKind, CloseReason, Connection, Credential, Disconnect,
    DisconnectCode, Limits, Role, Side, TimeoutReason,
};
use ssh_tests::{Answer, Pair, Policy, Wire, null_client, null_server, record};

use super::{secs, timed_out};

const MS: Duration = Duration::from_millis(1);

/// Waits for everything as long as it takes.
fn patient(limits: &mut Limits) {
    let ever = secs(1_000_000);
    (limits.ident_timeout, limits.kex_timeout, limits.rekey_timeout) = (ever, ever, ever);
    (limits.login_timeout, limits.write_stall, limits.linger) = (ever, ever, ever);
    (limits.open_timeout, limits.request_timeout) = (None, None);
}

/// A pair of which only `side` has deadlines.
fn pair(side: Side, change: impl Fn(&mut Limits) + Copy, interval: Option<Duration>) -> Pair {
    let (mut client, mut server) = (null_client(), null_server());
    client = client.with_rekey(|rekey| rekey.interval = interval.filter(|_| side == Side::Client));
    server = server.with_rekey(|rekey| rekey.interval = interval.filter(|_| side == Side::Server));
    match side {
        Side::Client => (client, server) = (client.with_limits(change), server.with_limits(patient)),
        Side::Server => (client, server) = (client.with_limits(patient), server.with_limits(change)),
    }
    Pair::new(client.build().unwrap(), server.build().unwrap(), 1)
}

fn fresh(side: Side) -> Pair {
    pair(side, |_| {}, None)
}

fn logged_in(side: Side, change: impl Fn(&mut Limits) + Copy) -> Pair {
    let mut pair = pair(side, change, None);
    pair.login();
    pair
}

/// The wire to this side.
fn to(pair: &mut Pair, side: Side) -> &mut Wire {
    if side == Side::Client { &mut pair.s2c } else { &mut pair.c2s }
}

/// The wire from this side.
fn from(pair: &mut Pair, side: Side) -> &mut Wire {
    if side == Side::Client { &mut pair.c2s } else { &mut pair.s2c }
}

/// Does the same with the connection of this side.
macro_rules! at {
    ($pair:expr, $side:expr, $conn:ident => $value:expr) => {
        match $side {
            Side::Client => {
                let $conn = &mut $pair.client.conn;
                $value
            }
            Side::Server => {
                let $conn = &mut $pair.server.conn;
                $value
            }
        }
    };
}

fn open<R: Role>(conn: &mut Connection<R>) {
    // A server opens no sessions.
    let kind = ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    conn.open_channel(&kind, ChannelConfig::default()).unwrap();
}

/// Nothing reaches this side.
fn mute(side: Side) -> Pair {
    let mut pair = fresh(side);
    to(&mut pair, side).stalled = true;
    pair
}

/// Only the identification line reaches this side.
fn only_greeted(side: Side) -> Pair {
    let mut pair = fresh(side);
    to(&mut pair, side).edit(|at, bytes| {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
        bytes.truncate(if at == 0 { line } else { 0 });
    });
    pair
}

fn rekeying(side: Side) -> Pair {
    let mut pair = logged_in(side, |_| {});
    to(&mut pair, side).stalled = true;
    at!(pair, side, conn => conn.rekey());
    pair
}

fn logging_in(side: Side) -> Pair {
    let mut pair = fresh(side);
    pair.server.policy.auth = Answer::Keep;
    pair.client.conn.authenticate("user", Credential::None).unwrap();
    pair
}

fn refused(side: Side) -> Pair {
    let mut pair = fresh(side);
    pair.server.policy.auth = Answer::No;
    pair.client.conn.authenticate("user", Credential::Password("x".into())).unwrap();
    pair
}

fn opening(side: Side) -> Pair {
    let mut pair = logged_in(side, |_| {});
    (pair.client.policy, pair.server.policy) = (Policy::keep(), Policy::keep());
    at!(pair, side, conn => open(conn));
    pair
}

fn asking(side: Side) -> Pair {
    let mut pair = logged_in(side, |_| {});
    let (ours, theirs) = pair.open_session();
    (pair.client.policy, pair.server.policy) = (Policy::keep(), Policy::keep());
    let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    let id = if side == Side::Client { ours } else { theirs };
    at!(pair, side, conn => conn.channel(id).unwrap().request(&kind, true).unwrap());
    pair
}

/// As many requests came to nothing as may, and as many again are asked.
fn asking_in_vain(side: Side) -> Pair {
    let mut pair = logged_in(side, |_| {});
    let (ours, theirs) = pair.open_session();
    (pair.client.policy, pair.server.policy) = (Policy::keep(), Policy::keep());
    let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    let id = if side == Side::Client { ours } else { theirs };
    for round in 0..4 {
        at!(pair, side, conn => while conn.channel(id).unwrap().request(&kind, true).is_ok() {});
        if round < 3 {
            pair.advance(secs(120));
        }
    }
    pair
}

/// Nothing was ever taken: what was before would only show at the end of a deadline, which then goes on.
fn stuck(side: Side) -> Pair {
    let limits = |limits: &mut Limits| {
        patient(limits);
        limits.write_stall = secs(120);
    };
    let mut pair = pair(side, limits, None);
    from(&mut pair, side).stalled = true;
    pair
}

fn silent(side: Side) -> Pair {
    let mut pair = logged_in(side, |limits| limits.keepalive_interval = Some(secs(10)));
    to(&mut pair, side).stalled = true;
    pair
}

fn idle(side: Side) -> Pair {
    logged_in(side, |limits| limits.idle_timeout = Some(secs(100)))
}

fn renewing(side: Side) -> Pair {
    let mut pair = pair(side, |_| {}, Some(secs(100)));
    pair.login();
    pair
}

fn closing(side: Side) -> Pair {
    let mut pair = logged_in(side, |_| {});
    from(&mut pair, side).stalled = true;
    at!(pair, side, conn => conn.close(Disconnect::by_application()));
    pair
}

/// How a deadline shows.
#[derive(Debug, Clone, Copy)]
enum Shows {
    /// The connection ends, and the peer is told this.
    Ends(Option<DisconnectCode>),
    /// There is an event with these words.
    Event(&'static str),
    /// The other side has an event with these words.
    Told(&'static str),
    /// So many messages of this number were sent by this side.
    Sent(u8, usize),
    /// The output is gone.
    Dropped,
}

impl Shows {
    fn holds(self, pair: &Pair, side: Side, reason: TimeoutReason) -> bool {
        let (ends, other) = match side {
            Side::Client => (&pair.client.closed, &pair.server.trace),
            Side::Server => (&pair.server.closed, &pair.client.trace),
        };
        let own = if side == Side::Client { &pair.client.trace } else { &pair.server.trace };
        let wire = if side == Side::Client { &pair.c2s } else { &pair.s2c };
        let says = |trace: &[String], words| trace.iter().any(|event: &String| event.contains(words));
        match self {
            Self::Ends(_) => {
                assert!(ends.is_none() || *ends == timed_out(reason), "{side:?} {reason:?}: {ends:?}");
                ends.is_some()
            }
            Self::Event(words) => says(own, words),
            Self::Told(words) => says(other, words),
            Self::Sent(number, times) => record::count(&wire.sent, number) == times,
            Self::Dropped => match side {
                Side::Client => pair.client.conn.output().is_empty(),
                Side::Server => pair.server.conn.output().is_empty(),
            },
        }
    }
}

type Case = (TimeoutReason, &'static [Side], fn(Side) -> Pair, Duration, Shows);

const BOTH: &[Side] = &[Side::Client, Side::Server];
const SERVER: &[Side] = &[Side::Server];

/// Every reason: the sides it is for, what leads to it, when it is due, and how that shows.
const CASES: &[Case] = &[
    (TimeoutReason::Ident, BOTH, mute, secs(10), Shows::Ends(None)),
    (
        TimeoutReason::Kex,
        BOTH,
        only_greeted,
        secs(30),
        Shows::Ends(Some(DisconnectCode::KEY_EXCHANGE_FAILED)),
    ),
    (TimeoutReason::Kex, BOTH, rekeying, secs(60), Shows::Ends(Some(DisconnectCode::KEY_EXCHANGE_FAILED))),
    (TimeoutReason::Login, BOTH, logging_in, secs(120), Shows::Ends(Some(DisconnectCode::PROTOCOL_ERROR))),
    (TimeoutReason::AuthDelay, SERVER, refused, Duration::from_millis(10), Shows::Told("AuthFailed")),
    (TimeoutReason::OpenReply, BOTH, opening, secs(120), Shows::Event("OpenFailed")),
    (TimeoutReason::RequestReply, BOTH, asking, secs(120), Shows::Event("Reply(false)")),
    (
        TimeoutReason::RequestReply,
        BOTH,
        asking_in_vain,
        secs(120),
        Shows::Ends(Some(DisconnectCode::PROTOCOL_ERROR)),
    ),
    (TimeoutReason::WriteStall, BOTH, stuck, secs(120), Shows::Ends(Some(DisconnectCode::CONNECTION_LOST))),
    (TimeoutReason::Keepalive, BOTH, silent, secs(40), Shows::Ends(Some(DisconnectCode::CONNECTION_LOST))),
    (TimeoutReason::Idle, BOTH, idle, secs(100), Shows::Ends(Some(DisconnectCode::BY_APPLICATION))),
    (TimeoutReason::Rekey, BOTH, renewing, secs(100), Shows::Sent(number::KEXINIT, 2)),
    (TimeoutReason::Linger, BOTH, closing, secs(2), Shows::Dropped),
];

fn check((reason, sides, make, after, shows): Case) {
    for &side in sides {
        let mut pair = make(side);
        pair.advance(after - MS);
        assert!(!shows.holds(&pair, side, reason), "{side:?} {reason:?}: not before its time");
        let next = at!(pair, side, conn => (conn.timeout_reason(), conn.poll_timeout()));
        assert_eq!(next, (Some(reason), Some(pair.now + MS)), "{side:?} {reason:?}");
        pair.advance(MS);
        assert!(shows.holds(&pair, side, reason), "{side:?} {reason:?}: at its time");
        let Shows::Ends(code) = shows else { continue };
        for wire in [&mut pair.c2s, &mut pair.s2c] {
            wire.stalled = false;
            wire.pass();
        }
        // The question that was not answered in time does not keep the peer from reading any more.
        pair.server.answer(&Policy::default());
        pair.drive();
        let other = if side == Side::Client { &pair.server.closed } else { &pair.client.closed };
        let told = match other {
            Some(CloseReason::PeerDisconnected { code, .. }) => Some(*code),
            _ => None,
        };
        assert_eq!(told, code, "{side:?} {reason:?}: {other:?}");
    }
}

#[test]
fn every_deadline_is_met_at_its_time_and_not_a_millisecond_before() {
    CASES.iter().copied().for_each(check);
}

#[test]
fn there_is_a_case_for_every_reason() {
    let provoked: HashSet<TimeoutReason> = CASES.iter().map(|(reason, ..)| *reason).collect();
    assert_eq!(provoked, TimeoutReason::ALL.iter().copied().collect());
}

#[test]
fn of_several_deadlines_that_are_over_the_first_in_time_counts() {
    for (login, first) in [(29, TimeoutReason::Login), (31, TimeoutReason::Kex)] {
        let mut pair = pair(Side::Server, |limits| limits.login_timeout = secs(login), None);
        pair.c2s.edit(|at, bytes| {
            if at > 0 {
                bytes.clear();
            }
        });
        pair.drive();
        assert_eq!(pair.server.conn.timeout_reason(), Some(first));
        pair.now = pair.now + secs(100);
        pair.server.conn.handle_timeout(pair.now);
        pair.drive();
        assert_eq!(pair.server.closed, timed_out(first));
    }
}
