//! Whatever comes in, the connection holds no more than the formula says.

use proptest::prelude::*;
use ssh_proto::raw::number;
use ssh_proto::{ChannelId, CloseReason, Limits, MemoryUsage, PeerMisbehaved, Stream};
use ssh_tests::{End, Pair, Peer, Policy, Seeded, hand, null_configs_with};

use super::ops::{Op, cases, op, perform};

/// The largest packet, with its length and a tag.
const PACKET: usize = ssh_proto::MAX_PACKET + 64;

fn limits(limits: &mut Limits) {
    limits.max_channels = 6;
    limits.recv_budget = 2 << 20;
    limits.min_window = 16 * 1024;
    limits.output = 64 * 1024;
    limits.owed_replies = 8 * 1024;
    limits.outbox_bytes = 40 * 1024;
    limits.outbox_messages = 16;
    limits.max_borrowed = 4;
    limits.noise_burst = 100_000;
    limits.unimplemented_replies = 100_000;
    limits.small_rekeys_per_minute = None;
}

/// What any reply counts as at most, its data apart: a PONG has some, and a refused open a text of ours.
const REPLY: usize = 128;
/// What a reply to a request counts as.
const ANSWER: usize = 32;
/// So many times the cap on owed replies may be owed while an exchange keeps them from leaving.
const OWED_IN_EXCHANGE: usize = 4;

/// The cap on what the peer provoked.
fn owed_cap(limits: &Limits) -> usize {
    limits.owed_replies + limits.max_channels * limits.pending_requests * ANSWER
}

/// What can be owed at most: the cap, the one reply that goes beyond it, and what the embedder has not answered,
/// each question with a row of refusals behind it.
fn owed_bound(limits: &Limits, evils: &[(bool, Evil)], withheld: bool) -> usize {
    let payloads = || {
        evils.iter().filter_map(|(_, evil)| match evil {
            Evil::Raw(payload) => Some(payload.clone()),
            Evil::Flood(what, _) => Some(flood(*what)),
            _ => None,
        })
    };
    let sent = |number| payloads().filter(move |payload| payload.first() == Some(&number));
    let longest_ping = sent(number::PING).map(|payload| payload.len()).max().unwrap_or(0);
    let rekeys = evils.iter().any(|(_, evil)| matches!(evil, Evil::Op(Op::Rekey)));
    let exchange = withheld || rekeys || sent(number::KEXINIT).next().is_some();
    let times = if exchange { OWED_IN_EXCHANGE } else { 1 };
    let asked = limits.max_channels * limits.pending_requests + limits.pending_global_tickets;
    times * owed_cap(limits) + longest_ping + REPLY + 2 * asked * ANSWER
}

/// The formula, part by part. One packet may go over each limit, because limits are looked at before it.
fn assert_bounded(usage: &MemoryUsage, limits: &Limits, owed: usize) {
    // Key exchange messages and a DISCONNECT are not held back by application data.
    assert!(usage.output <= limits.output + 2 * PACKET, "{usage:?}");
    assert!(usage.parked + usage.granted <= limits.recv_budget, "{usage:?}");
    assert!(usage.outbox <= limits.outbox_bytes, "{usage:?}");
    assert!(usage.owed <= owed, "{usage:?}, {owed}");
    assert!(usage.events <= 64 * 1024 + PACKET, "{usage:?}");
    assert!(usage.channels <= limits.max_channels, "{usage:?}");
    assert!(usage.borrowed <= limits.max_borrowed, "{usage:?}");
}

/// What a peer leaves undone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fails {
    Nothing,
    /// It does not read.
    ToRead,
    /// It goes on as if we had not asked for new keys, and so what is owed to it may not leave.
    ToRekey,
}

/// What a peer can come up with.
#[derive(Debug, Clone)]
enum Evil {
    Op(Op),
    Raw(Vec<u8>),
    Flood(u8, u16),
    Garbage(Vec<u8>),
}

fn raw() -> impl Strategy<Value = Vec<u8>> {
    let id = 0u32..8;
    prop_oneof![
        (id.clone(), 0u32..100_000, 0u32..100_000).prop_map(|(id, window, max)| hand::open(id, window, max)),
        (id.clone(), id.clone(), any::<u32>(), any::<u32>())
            .prop_map(|(a, b, c, d)| hand::confirmation(a, b, c, d)),
        (id.clone(), 0usize..33_000).prop_map(|(id, n)| hand::data(id, &vec![1; n])),
        (id.clone(), 0u32..3, 0usize..2000).prop_map(|(id, code, n)| hand::extended(id, code, &vec![1; n])),
        (id.clone(), any::<u32>()).prop_map(|(id, n)| hand::adjust(id, n)),
        id.clone().prop_map(hand::eof),
        id.clone().prop_map(hand::close),
        (id.clone(), any::<bool>()).prop_map(|(id, reply)| hand::request(id, "x@y", reply, &[0; 300])),
        (id, 0u32..9).prop_map(|(id, code)| hand::exit_status(id, code)),
        any::<bool>().prop_map(|reply| hand::global("x@y", reply)),
        (0usize..200_000).prop_map(hand::ping),
        (100u8..128, 0usize..40).prop_map(|(number, n)| hand::filled(number, n)),
        proptest::collection::vec(any::<u8>(), 1..300),
    ]
}

fn evil() -> impl Strategy<Value = Evil> {
    prop_oneof![
        6 => op().prop_map(Evil::Op),
        4 => raw().prop_map(Evil::Raw),
        2 => (0u8..8, 1u16..600).prop_map(|(what, times)| Evil::Flood(what, times)),
        1 => proptest::collection::vec(any::<u8>(), 1..60).prop_map(Evil::Garbage),
    ]
}

fn flood(what: u8) -> Vec<u8> {
    match what {
        0 => hand::ping(60),
        1 => hand::global("keepalive@openssh.com", true),
        2 => hand::global("x@y", true),
        3 => hand::open(3, 1000, 1000),
        4 => hand::request(0, "x@y", true, b""),
        5 => hand::data(0, b"x"),
        6 => hand::filled(120, 3),
        _ => hand::open(3, 1000, 1),
    }
}

fn misbehave<R: Peer>(end: &mut End<R>, evil: &Evil, channels: &mut Vec<ChannelId>) {
    match evil {
        Evil::Op(op) => perform(end, op, channels),
        Evil::Raw(payload) => end.conn.send_raw(payload),
        Evil::Flood(what, times) => (0..*times).for_each(|_| end.conn.send_raw(&flood(*what))),
        Evil::Garbage(_) => {}
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn l4_memory_stays_within_the_formula_whatever_comes_in(
        evils in proptest::collection::vec((any::<bool>(), evil()), 0..60),
        evil_client: bool, keeps: bool, reads: bool,
        fails in prop_oneof![Just(Fails::Nothing), Just(Fails::ToRead), Just(Fails::ToRekey)],
    ) {
        let (client, server) = null_configs_with(limits, |_| {});
        let bounds = server.limits().clone();
        let owed = owed_bound(&bounds, &evils, fails == Fails::ToRekey);
        let mut pair = Pair::new(client, server, 9);
        pair.login();
        let policy = if keeps { Policy::keep() } else { Policy { read: reads, ..Policy::default() } };
        pair.client.policy = policy.clone();
        pair.server.policy = policy;
        let deaf = fails != Fails::Nothing;
        if evil_client { pair.s2c.stalled = deaf } else { pair.c2s.stalled = deaf }
        match fails {
            Fails::ToRekey if evil_client => pair.server.conn.rekey(),
            Fails::ToRekey => pair.client.conn.rekey(),
            _ => {}
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (at_evil, evil) in &evils {
            match (at_evil, evil) {
                (true, Evil::Garbage(bytes)) if evil_client => pair.c2s.inject(pair.now, bytes),
                (true, Evil::Garbage(bytes)) => pair.s2c.inject(pair.now, bytes),
                (true, evil) if evil_client => misbehave(&mut pair.client, evil, &mut ours),
                (true, evil) => misbehave(&mut pair.server, evil, &mut theirs),
                (false, Evil::Op(op)) if evil_client => perform(&mut pair.server, op, &mut theirs),
                (false, Evil::Op(op)) => perform(&mut pair.client, op, &mut ours),
                _ => {}
            }
            while pair.step() {
                let honest = match evil_client {
                    true => pair.server.conn.memory_usage(),
                    false => pair.client.conn.memory_usage(),
                };
                assert_bounded(&honest, &bounds, owed);
            }
        }
    }

    #[test]
    fn l4_and_l5_garbage_from_the_first_byte_is_survived(
        pieces in proptest::collection::vec((any::<u64>(), 0usize..3000), 0..20), after in 0usize..2000
    ) {
        let mut pair = Pair::null();
        pair.c2s.cut_at = Some(after);
        pair.drive();
        for (seed, len) in pieces {
            let bytes = Seeded::new(seed).bytes(len);
            pair.server.input.extend_from_slice(&bytes);
            pair.server.turn(pair.now);
            let usage = pair.server.conn.memory_usage();
            prop_assert!(usage.output + usage.events + usage.owed <= 2 * ssh_proto::MAX_PACKET_PRE_AUTH);
            prop_assert_eq!(usage.parked + usage.granted + usage.channels, 0);
        }
        prop_assert!(pair.server.count("Closed(") <= 1);
    }
}

#[test]
fn l4_a_peer_that_never_reads_and_is_written_to_costs_the_output_limit() {
    let (client, server) = null_configs_with(limits, |_| {});
    let mut pair = Pair::new(client, server, 9);
    pair.login();
    let (_, theirs) = pair.open_session();
    pair.s2c.stalled = true;
    while pair.server.conn.channel(theirs).unwrap().write(Stream::Data, &[0; 70_000]).is_ok() {}
    let output = pair.server.conn.memory_usage().output;
    assert!((64 * 1024..64 * 1024 + PACKET).contains(&output), "{output}");
}

#[test]
fn l4_a_peer_that_withholds_its_kexinit_is_owed_four_times_the_cap_and_not_a_reply_more() {
    let (client, server) = null_configs_with(limits, |_| {});
    let most = OWED_IN_EXCHANGE * owed_cap(server.limits());
    let mut pair = Pair::new(client, server, 9);
    pair.login();
    pair.s2c.stalled = true;
    pair.server.conn.rekey();
    let mut owed = 0;
    while pair.server.closed.is_none() {
        let before = pair.server.conn.memory_usage().owed;
        assert!(owed <= before && before <= most, "{before}");
        owed = before;
        pair.client.conn.send_raw(&hand::ping(60));
        pair.drive();
    }
    assert!(owed > most - REPLY, "{owed}");
    let flood = PeerMisbehaved::ReplyFlood;
    let Some(CloseReason::PeerMisbehaved { rule, .. }) = &pair.server.closed else {
        panic!("{:?}", pair.server.closed)
    };
    assert_eq!((*rule, pair.server.conn.memory_usage().owed), (flood, 0));
}
