//! What must hold after every step, and of the whole record.

use std::collections::{BTreeMap, BTreeSet};

use ssh_proto::raw::transport::Unimplemented;
use ssh_proto::raw::{Message, State, Verdict, admit, number};
use ssh_proto::{CloseReason, Connection, Limits, MAX_PACKET, PeerMisbehaved, Role, Side};
use ssh_tests::null::TAG;

use crate::subject::Told;

/// What a message or a packet may add on top of a bound.
const SLACK: usize = MAX_PACKET + 64 * 1024;

/// What was seen of a connection so far.
#[derive(Debug, Default)]
pub struct Oracle {
    /// `Closed` was told.
    pub closed: bool,
    /// `Authenticated` was told.
    pub logged_in: bool,
    /// The embedder said the yes without which nobody logs in.
    pub granted: bool,
    session_id: Option<Vec<u8>>,
    /// Every byte it sent.
    pub sent: Vec<u8>,
    /// Every byte its peer sealed for it.
    pub given: Vec<u8>,
    /// The peer sent key exchange messages of its own: it may lose track of the keys.
    pub hostile_keys: bool,
    /// The peer sent other messages behind its own back.
    pub hostile: bool,
    /// Bytes reached the wire that `given` does not have.
    pub dirty: bool,
    /// How much of `given` was there when the peer knew of the login: what follows arrives behind it.
    pub given_at_login: Option<usize>,
}

impl Oracle {
    /// An event was told.
    pub fn told(&mut self, told: &Told) {
        assert!(!self.closed, "L5: {told:?} after Closed");
        match told {
            Told::Early | Told::AskedEarly(_) => assert!(!self.logged_in, "I1: {told:?} after Authenticated"),
            Told::LoggedIn => {
                assert!(!self.logged_in, "I2: a second Authenticated");
                assert!(self.granted, "Authenticated without the embedder's yes");
                self.logged_in = true;
            }
            Told::Sign(_) => {}
            Told::Late | Told::Channel(_) | Told::Readable(..) | Told::AskedLate(_) => {
                assert!(self.logged_in, "I1: {told:?} before Authenticated");
            }
            Told::Closed(reason) => {
                assert!(!matches!(reason, CloseReason::Internal(_)), "{reason:?}");
                self.closed = true;
            }
        }
    }

    /// After every step.
    pub fn check<R: Role>(&mut self, conn: &Connection<R>, limits: &Limits) {
        assert_eq!(conn.is_closed(), self.closed, "is_closed is whether Closed was returned");
        assert!(!conn.wants_input() || !(conn.awaits_answer() || conn.is_closed()));
        assert!(conn.input_hint() >= 1);
        assert_eq!(conn.poll_timeout().is_some(), conn.timeout_reason().is_some());

        let usage = conn.memory_usage();
        let window = limits.recv_budget + if limits.lenient_window { limits.recv_budget / 10 } else { 0 };
        assert!(usage.output <= limits.output + SLACK, "I9, L4: {usage:?}");
        assert!(usage.output >= conn.output().len());
        assert!(usage.parked + usage.granted <= window, "L4: {usage:?}");
        assert!(usage.outbox <= limits.outbox_bytes, "L4: {usage:?}");
        // Every ticket that is out may still be answered at length.
        let answers = limits.pending_global_tickets * 32 * 1024;
        let asked = limits.max_channels * limits.pending_requests * 32;
        assert!(usage.owed <= limits.owed_replies + asked + answers + SLACK, "L4: {usage:?}");
        assert!(usage.events <= 64 * 1024 + SLACK, "L4: {usage:?}");
        assert!(usage.channels <= limits.max_channels, "I11: {usage:?}");
        assert!(usage.borrowed <= limits.max_borrowed, "L4: {usage:?}");
        if !self.granted {
            assert_eq!(
                (usage.channels, usage.parked, usage.granted),
                (0, 0, 0),
                "a mux before authentication"
            );
        }

        let session_id = conn.session_id().map(|id| id.as_bytes().to_vec());
        assert!(self.session_id.is_none() || self.session_id == session_id, "I7");
        self.session_id = session_id;
    }

    /// Why the peer ended, if it did: what the connection sent must have been right.
    pub fn judge_peer(&self, closed: Option<&CloseReason>) {
        let Some(CloseReason::PeerMisbehaved { rule, message }) = closed else { return };
        let framing = matches!(
            rule,
            PeerMisbehaved::BadMac
                | PeerMisbehaved::BadPadding
                | PeerMisbehaved::EmptyPayload
                | PeerMisbehaved::MalformedMessage
                | PeerMisbehaved::PacketMisaligned
                | PeerMisbehaved::PacketTooLong
                | PeerMisbehaved::PacketTooShort
        );
        assert!(self.hostile_keys || !framing, "the peer says: {rule} ({message:?})");
        let flood = matches!(rule, PeerMisbehaved::NoiseFlood | PeerMisbehaved::RekeyFlood);
        let innocent = self.hostile || self.hostile_keys || self.dirty;
        assert!(innocent || flood, "the peer says: {rule} ({message:?})");
    }

    /// At the end, over the whole record.
    pub fn judge_record(&self) {
        let sent = payloads(&self.sent);
        let mut in_exchange = true;
        let mut over = false;
        for payload in &sent {
            let number = payload.first().copied().unwrap_or(0);
            assert!(!over, "I16: {number} after DISCONNECT");
            assert!(!in_exchange || matches!(number, 1..=4 | 20..=49), "I3, I4: {number} during an exchange");
            match number {
                number::KEXINIT => in_exchange = true,
                number::NEWKEYS => in_exchange = false,
                number::DISCONNECT => over = true,
                _ => {}
            }
        }
        if self.dirty || self.hostile_keys {
            return;
        }
        let given = payloads(&self.given);
        self.judge_sequence(&sent, &given);
        let (sent, given) = (count(&sent), count(&given));
        const ASKED: u16 = 0x100;
        let (global, request) = (u16::from(number::GLOBAL_REQUEST), u16::from(number::CHANNEL_REQUEST));
        for (answers, questions, law) in [
            (&[81, 82][..], &[global | ASKED][..], "I13"),
            (&[99, 100], &[request | ASKED], "I13"),
            (&[91, 92], &[90], "I14"),
            (&[193], &[192], "one PONG per PING"),
        ] {
            let (have, most) = (of(&sent, answers), of(&given, questions));
            assert!(have <= most, "{law}: {have} answers {answers:?} to {most}");
        }
        let opened = of(&sent, &[91]) + of(&given, &[91]);
        assert!(of(&sent, &[96]) <= opened && of(&sent, &[97]) <= opened, "I15: {sent:?} {given:?}");
    }

    /// I5: what is not implemented is named by the number of its packet, which begins again with every key.
    fn judge_sequence(&self, sent: &[&[u8]], given: &[&[u8]]) {
        let mut unknown = numbered(given).into_iter();
        for named in unimplemented(sent) {
            let found = unknown.any(|(seq, payload)| {
                // A client implements no PING either.
                seq == named && (is_unknown(payload) || payload.first() == Some(&number::PING))
            });
            assert!(found, "I5: UNIMPLEMENTED names {named}");
        }
    }

    /// Both sides are quiet and no question is with the embedder: nothing is owed any more.
    pub fn judge_quiet(&self, side: Side, state: State) {
        let (sent, given) = (payloads(&self.sent), payloads(&self.given));
        let settled = |payloads: &[&[u8]]| {
            let of = |number| payloads.iter().filter(|payload| payload.first() == Some(&number)).count();
            of(number::KEXINIT) == of(number::NEWKEYS)
        };
        if self.dirty || self.hostile_keys || !settled(&sent) || !settled(&given) {
            return;
        }
        let late = self.given_at_login.map(|at| payloads_from(&self.given, at)).unwrap_or_default();
        let (late, pinged) =
            (count(&late), given.iter().any(|payload| payload.first() == Some(&number::PING)));
        if side == Side::Server || !pinged {
            let owed = numbered(&given).into_iter().filter(|(_, payload)| is_unknown(payload));
            assert!(
                owed.map(|(seq, _)| seq).eq(unimplemented(&sent)),
                "every unknown message has its answer"
            );
        }
        judge_requests(&sent, &given);
        let (sent, given) = (count(&sent), count(&given));
        assert_eq!(of(&sent, &[81, 82]), of(&given, &[0x100 | 80]), "I13: {given:?} {sent:?}");
        assert_eq!(of(&sent, &[91, 92]), of(&given, &[90]), "I14: {given:?} {sent:?}");
        if side == Side::Server {
            assert!(of(&sent, &[193]) >= of(&late, &[192]), "one PONG per PING: {late:?} {sent:?}");
            assert_eq!(of(&sent, &[6]), of(&given, &[5]), "one SERVICE_ACCEPT per SERVICE_REQUEST");
            let answers = of(&sent, &[51, 52, 60]);
            let all = of(&sent, &[52]) == 0 && matches!(state, State::Service | State::AuthIdle);
            assert!(!all || answers == of(&given, &[50]), "P12: {given:?} {sent:?}");
        }
    }
}

/// I13, for the channels that nobody closed: every request that wants a reply has it.
fn judge_requests(sent: &[&[u8]], given: &[&[u8]]) {
    let field = |payload: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().expect("four bytes")))
    };
    // Our number of a channel, and the peer's; the peer may give one of its own twice.
    let mut theirs = BTreeMap::new();
    let mut over = BTreeSet::new();
    for (payloads, ours_at, theirs_at) in [(sent, 5, 1), (given, 1, 5)] {
        for payload in payloads.iter().filter(|payload| payload.first() == Some(&91)) {
            let (Some(ours), Some(other)) = (field(payload, ours_at), field(payload, theirs_at)) else {
                continue;
            };
            if let Some(before) = theirs.insert(ours, other) {
                over.extend([before, other]);
            }
        }
    }
    let of = |payloads: &[&[u8]], number: u8| -> Vec<u32> {
        let named = payloads.iter().filter(|payload| payload.first() == Some(&number));
        named.filter_map(|payload| field(payload, 1)).collect()
    };
    over.extend(of(sent, number::CHANNEL_CLOSE));
    over.extend(of(given, number::CHANNEL_CLOSE).iter().filter_map(|ours| theirs.get(ours)));
    let mut owed: BTreeMap<u32, isize> = BTreeMap::new();
    let requests = given.iter().filter(|payload| payload.first() == Some(&number::CHANNEL_REQUEST));
    for ours in requests.filter(|payload| wants_reply(payload)).filter_map(|payload| field(payload, 1)) {
        if let Some(other) = theirs.get(&ours) {
            *owed.entry(*other).or_default() += 1;
        }
    }
    for answer in [number::CHANNEL_SUCCESS, number::CHANNEL_FAILURE] {
        for other in of(sent, answer) {
            *owed.entry(other).or_default() -= 1;
        }
    }
    owed.retain(|other, left| *left != 0 && !over.contains(other));
    assert!(owed.is_empty(), "I13: replies left on channels of the peer: {owed:?}");
}

/// The packets with their sequence numbers, under strict key exchange.
fn numbered<'a>(payloads: &[&'a [u8]]) -> Vec<(u32, &'a [u8])> {
    let mut next = 0;
    let number = |payload: &&'a [u8]| {
        let seq = next;
        next = if payload.first() == Some(&number::NEWKEYS) { 0 } else { next + 1 };
        (seq, *payload)
    };
    payloads.iter().map(number).collect()
}

/// The packets that UNIMPLEMENTED names.
fn unimplemented<'a>(sent: &'a [&[u8]]) -> impl Iterator<Item = u32> + 'a {
    sent.iter().filter_map(|payload| Some(Unimplemented::decode(payload).ok()?.sequence))
}

/// Whether a message is one that neither role has, in any state that survives it.
fn is_unknown(payload: &[u8]) -> bool {
    let verdict = |number| admit(Side::Server, State::Authed, true, number);
    payload.first().is_some_and(|number| verdict(*number) == Verdict::Unimplemented)
}

fn of(counts: &BTreeMap<u16, usize>, numbers: &[u16]) -> usize {
    numbers.iter().filter_map(|number| counts.get(number)).sum()
}

/// Whether a request wants a reply.
fn wants_reply(payload: &[u8]) -> bool {
    let name = if payload.first() == Some(&number::GLOBAL_REQUEST) { 1 } else { 5 };
    let len = payload.get(name..name + 4).map(|len| u32::from_be_bytes(len.try_into().expect("four bytes")));
    len.and_then(|len| payload.get(name + 4 + len as usize)).is_some_and(|flag| *flag != 0)
}

/// How often each number occurs; requests that want a reply also under their number and 0x100.
fn count(payloads: &[&[u8]]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for payload in payloads {
        let Some(&number) = payload.first() else { continue };
        *counts.entry(u16::from(number)).or_default() += 1;
        if matches!(number, number::GLOBAL_REQUEST | number::CHANNEL_REQUEST) && wants_reply(payload) {
            *counts.entry(u16::from(number) | 0x100).or_default() += 1;
        }
    }
    counts
}

/// The payloads of a record under the null provider's AEAD.
fn payloads(record: &[u8]) -> Vec<&[u8]> {
    payloads_from(record, 0)
}

/// The payloads of the packets that begin at `from` or behind it.
fn payloads_from(record: &[u8], from: usize) -> Vec<&[u8]> {
    let Some(line) = record.iter().position(|byte| *byte == b'\n') else { return Vec::new() };
    let (mut rest, mut tag, mut payloads) = (&record[line + 1..], 0, Vec::new());
    while let Some((head, _)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let whole = 4 + length + tag;
        let Some(packet) = rest.get(..whole) else { break };
        let payload = &packet[5..4 + length - usize::from(head[4])];
        if record.len() - rest.len() >= from {
            payloads.push(payload);
        }
        if payload.first() == Some(&number::NEWKEYS) {
            tag = TAG;
        }
        rest = &rest[whole..];
    }
    payloads
}
