//! However and whenever a connection ends, it says so once, and nothing after it.

use std::time::Duration;

use proptest::prelude::*;
use ssh_proto::{
    AuthError, ChannelConfig, ChannelKind, CloseReason, Credential, Disconnect, GlobalRequestKind, Instant,
    OpenError, RequestError, Stream,
};
use ssh_tests::{Answer, End, FailsAt, Pair, Peer, Policy, Wire, null_configs_with, null_key};

use super::ops::{Op, cases, op, perform};

/// What ends it.
#[derive(Debug, Clone)]
enum Way {
    /// The transport, behind what is on its way, or at once.
    Cut {
        lost: bool,
    },
    /// A damaged byte among the next ones.
    Damage(usize),
    /// A message out of place.
    Raw(Vec<u8>),
    Close,
    CloseBoth,
    /// Neither hears the other any more.
    Silence,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        any::<bool>().prop_map(|lost| Way::Cut { lost }),
        (0usize..600).prop_map(Way::Damage),
        proptest::collection::vec(any::<u8>(), 1..80).prop_map(Way::Raw),
        Just(Way::Close),
        Just(Way::CloseBoth),
        Just(Way::Silence),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let others = prop_oneof![Just(Answer::No), Just(Answer::Drop), Just(Answer::Keep), Just(Answer::Keep)];
    prop_oneof![3 => Just(Answer::Yes), 1 => others]
}

fn damage(wire: &mut Wire, behind: usize) {
    let end = wire.sent.len() + behind;
    wire.edit(move |at, bytes| {
        if let Some(byte) = end.checked_sub(at).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 0x10;
        }
    });
}

/// Whatever still comes or is asked for: nothing is told, and nothing is said.
fn assert_over<R: Peer>(end: &mut End<R>, since: Instant, ops: &[Op]) -> Result<(), TestCaseError> {
    let (mut now, mut channels) = (since, Vec::new());
    prop_assert!(end.conn.is_closed() && !end.conn.wants_input() && !end.conn.awaits_answer());
    for round in 0..3u64 {
        end.input.extend_from_slice(&[round as u8; 100]);
        end.conn.handle_input(now, &mut end.input);
        prop_assert!(end.input.is_empty(), "bytes of nobody are not kept");
        end.conn.handle_eof(now);
        now = now + Duration::from_secs(600 * round);
        end.conn.handle_timeout(now);
        end.conn.rekey();
        end.conn.close(Disconnect::by_application());
        ops.iter().for_each(|op| perform(end, op, &mut channels));
        let open = end.conn.open_channel(&ChannelKind::Session, ChannelConfig::default());
        prop_assert_eq!(open, Err(OpenError::Closed));
        let kind = GlobalRequestKind { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
        prop_assert_eq!(end.conn.global_request(&kind), Err(RequestError::Closed));
        // Questions that were kept go now.
        end.events.clear();
        prop_assert_eq!(end.poll(1), 0);
        prop_assert!(end.conn.output().is_empty() && end.conn.poll_timeout().is_none());
    }
    let usage = end.conn.memory_usage();
    prop_assert_eq!((usage.output, usage.outbox, usage.owed, usage.events), (0, 0, 0, 0));
    Ok(())
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn l5_there_is_one_closed_and_nothing_after_it_whatever_ends_it_and_when(
        ops in proptest::collection::vec((any::<bool>(), op()), 0..12),
        steps in 0usize..40, way in way(), at_client: bool,
        entropy in prop_oneof![3 => Just(usize::MAX), 1 => 0usize..12],
        answers in [answer(), answer(), answer(), answer()],
        packets in prop_oneof![Just(1u64 << 28), 1u64..30],
        capacity in prop_oneof![Just(None), (1usize..3000).prop_map(Some)],
    ) {
        let (client, server) = null_configs_with(
            |limits| limits.small_rekeys_per_minute = None,
            |rekey| rekey.packets = packets,
        );
        let (ours, theirs) = if at_client { (entropy, usize::MAX) } else { (usize::MAX, entropy) };
        let mut pair = Pair::with_entropy(client, server, FailsAt::call(ours), FailsAt::call(theirs));
        let [host_key, probe, auth, request] = answers;
        pair.client.policy = Policy { host_key, request, ..Policy::default() };
        pair.server.policy = Policy { probe, auth, request, ..Policy::default() };
        (pair.c2s.capacity, pair.s2c.capacity) = (capacity, capacity);
        let credential = Credential::PublicKey { key: null_key(2), probe: true };
        let _ = pair.client.conn.authenticate("user", credential);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut ops = ops.iter();
        for _ in 0..steps {
            pair.step();
            match ops.next().filter(|_| pair.client.authenticated) {
                Some((true, op)) => perform(&mut pair.client, op, &mut ours),
                Some((false, op)) => perform(&mut pair.server, op, &mut theirs),
                None => {}
            }
        }

        match &way {
            Way::Cut { lost } => {
                let wire = if at_client { &mut pair.s2c } else { &mut pair.c2s };
                if *lost {
                    wire.lose();
                }
                wire.cut();
            }
            Way::Damage(behind) => damage(if at_client { &mut pair.s2c } else { &mut pair.c2s }, *behind),
            Way::Raw(payload) if at_client => pair.client.conn.send_raw(payload),
            Way::Raw(payload) => pair.server.conn.send_raw(payload),
            Way::Close if at_client => pair.client.conn.close(Disconnect::by_application()),
            Way::Close => pair.server.conn.close(Disconnect::by_application()),
            Way::CloseBoth => {
                pair.client.conn.close(Disconnect::by_application());
                pair.server.conn.close(Disconnect::by_application());
            }
            Way::Silence => (pair.c2s.stalled, pair.s2c.stalled) = (true, true),
        }
        let wait = if matches!(way, Way::Silence) { 1_000 } else { 1 };
        pair.advance(Duration::from_secs(wait));
        // What did not end by itself ends with the transport, and what waits for an answer gets a no.
        (pair.c2s.stalled, pair.s2c.stalled) = (false, false);
        (pair.c2s.capacity, pair.s2c.capacity) = (None, None);
        pair.drive();
        pair.c2s.cut();
        pair.s2c.cut();
        let no = Policy { host_key: Answer::No, probe: Answer::No, auth: Answer::No, ..Policy::default() };
        for _ in 0..8 {
            pair.client.answer(&no);
            pair.server.answer(&no);
            pair.advance(Duration::from_secs(300));
        }
        prop_assert_eq!(pair.client.count("Closed("), 1, "{:?}", pair.client.trace);
        prop_assert_eq!(pair.server.count("Closed("), 1, "{:?}", pair.server.trace);
        for reason in [&pair.client.closed, &pair.server.closed] {
            prop_assert!(!matches!(reason, Some(CloseReason::Internal(_))), "{reason:?}");
        }
        let on = |at| [
            Op::Open(1), Op::Write(at, 10, Stream::Data), Op::Eof(at), Op::Request(at, true), Op::Close(at),
            Op::Abort(at), Op::Release(at),
        ];
        let ops: Vec<Op> = (0..4).flat_map(on).collect();
        let again = pair.client.conn.authenticate("user", Credential::None);
        prop_assert!(matches!(again, Err(AuthError::Closed)));
        assert_over(&mut pair.client, pair.now, &ops)?;
        assert_over(&mut pair.server, pair.now, &ops)?;
    }
}
