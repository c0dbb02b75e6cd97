//! How input is cut, and how often one looks, changes nothing.
//!
//! A session is recorded flight by flight: what one side sent between two points at which both were idle.
//! Then each side is run alone over the same flights, cut differently and looked at differently, with the
//! same commands at the same points.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use ssh_proto::crypto::rustcrypto::{self, Ed25519Signer};
use ssh_proto::{ChannelId, Client, ClientConfig, Credential, Instant, KeyPair, Server, ServerConfig};
use ssh_tests::{
    Answer, End, Peer, Policy, Seeded, Split, null, null_client, null_key, null_server, rustcrypto_client,
    rustcrypto_server,
};

use super::ops::{Op, cases, op, perform};

const NOW: Instant = Instant::ORIGIN;

/// Output with room for every writer of a case: each counts for 32 KiB.
const WIDE: usize = 2 << 20;

/// When events are polled.
#[derive(Debug, Clone)]
enum Polls {
    /// Behind every delivery.
    Always,
    /// Behind the last delivery of a flight, and what else there is to look at all the time.
    Late,
    /// Some of them, at any point there is, also between commands.
    Now(Seeded),
}

/// What both sides agree on and how much they take.
#[derive(Debug, Clone)]
struct Setup {
    /// A cipher and a MAC of the real provider, or one of the null provider's.
    cipher: (&'static str, &'static str),
    /// Bytes and packets under one key.
    rekey: (u64, u64),
    events: usize,
    /// The limit of the output: room for all writers of a case at once, or for two.
    output: usize,
    /// How questions are answered.
    answers: [Answer; 3],
}

/// One side under a script.
struct Solo<R: Peer> {
    end: End<R>,
    channels: Vec<ChannelId>,
    ops: Vec<Op>,
    next_op: usize,
    answers: Policy,
    flights: Vec<Flight>,
}

/// What happened in a flight.
#[derive(Debug, PartialEq)]
struct Flight {
    /// What was told, in order.
    events: Vec<String>,
    /// What came of the commands.
    results: Vec<String>,
    output: Vec<u8>,
}

impl<R: Peer> Solo<R> {
    fn new(mut end: End<R>, ops: &[Op], setup: &Setup) -> Self {
        end.policy = Policy::keep();
        let [open, request, global] = setup.answers;
        let answers = Policy { open, request, global, ..Policy::default() };
        Self { end, channels: Vec::new(), ops: ops.to_vec(), next_op: 0, answers, flights: Vec::new() }
    }

    /// Takes a flight and gives the answer.
    fn fly(&mut self, flight: &[u8], split: &mut Split, polls: &mut Polls) -> Vec<u8> {
        let mut rest = flight;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(split.next(rest.len()));
            self.end.input.extend_from_slice(now);
            rest = later;
            self.end.frozen = !matches!(polls, Polls::Always);
            self.end.turn(NOW);
            self.look(polls);
            self.end.turn(NOW);
            self.end.frozen = false;
        }
        self.end.turn(NOW);
        while self.end.answer(&self.answers) {
            self.look(polls);
            self.end.turn(NOW);
        }
        let mut known = self.known();
        let opened = self.channels.len();
        let burst = if self.end.authenticated { 4 } else { 0 };
        for at in self.next_op..self.ops.len().min(self.next_op + burst) {
            perform(&mut self.end, &self.ops[at], &mut self.channels);
            self.look(polls);
        }
        self.next_op += burst;
        // One may be opened and released in one flight.
        known.extend(&self.channels[opened..]);
        self.end.turn(NOW);
        let released: Vec<_> = known.difference(&self.known()).map(|id| format!("{id:?}")).collect();
        let output = self.end.conn.output().to_vec();
        self.end.conn.consume_output(output.len());
        self.look(polls);
        self.end.turn(NOW);
        let trace = std::mem::take(&mut self.end.trace);
        let (results, events) = trace.into_iter().partition(|line| line.contains(" gave "));
        // Whether something of a channel is still told before its release depends on who looks first.
        let mut events = merged(events);
        events.retain(|event| !released.iter().any(|id| event.contains(id)));
        self.flights.push(Flight { events, results, output: output.clone() });
        output
    }

    /// The channels there are handles of.
    fn known(&mut self) -> BTreeSet<ChannelId> {
        let Self { end: End { conn, accepted, .. }, channels, .. } = self;
        channels.iter().chain(&*accepted).copied().filter(|id| conn.channel(*id).is_ok()).collect()
    }

    /// Looks at whatever there is to look at, as far as these polls go.
    fn look(&mut self, polls: &mut Polls) {
        match polls {
            Polls::Always => {}
            Polls::Late => look(&self.end),
            Polls::Now(random) => {
                for _ in 0..random.below(3) {
                    look(&self.end);
                    self.end.poll(random.below(3));
                }
            }
        }
    }
}

/// Everything there is to look at.
fn look<R: Peer>(end: &End<R>) {
    let conn = &end.conn;
    let _ = (conn.output().len(), conn.poll_timeout(), conn.timeout_reason(), conn.wants_input());
    let _ = (conn.input_hint(), conn.awaits_answer(), conn.is_closed(), conn.memory_usage());
    let _ = (conn.negotiated(), conn.session_id(), conn.peer_ident(), format!("{conn:?}"));
}

/// The first `Readable` and `Writable` of each channel stand for all of a flight.
fn merged(trace: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let edge = |event: &str| event.ends_with("Writable") || event.contains("Readable");
    trace.into_iter().filter(|event| !edge(event) || seen.insert(event.clone())).collect()
}

impl Setup {
    fn configs(&self) -> (Arc<ClientConfig>, Arc<ServerConfig>, KeyPair) {
        let (client, server, key) = match self.cipher.0 {
            null::CIPHER | null::STREAM => (null_client(), null_server(), null_key(4)),
            _ => {
                let key = Ed25519Signer::from_seed(&[4; 32]).expect("any seed is a key");
                (rustcrypto_client(), rustcrypto_server(), key.key_pair())
            }
        };
        let (ciphers, macs, events, output) = ([self.cipher.0], [self.cipher.1], self.events, self.output);
        let limits = |limits: &mut ssh_proto::Limits| {
            limits.events = events;
            limits.output = output;
            limits.small_rekeys_per_minute = None;
        };
        let rekey = |policy: &mut ssh_proto::RekeyPolicy| (policy.bytes, policy.packets) = self.rekey;
        let client = client.ciphers(&ciphers).macs(&macs).with_limits(limits).with_rekey(rekey);
        let server = server.ciphers(&ciphers).macs(&macs).with_limits(limits).with_rekey(rekey);
        (client.build().expect("a client"), server.build().expect("a server"), key)
    }

    fn ends(&self) -> (End<Client>, End<Server>) {
        let (client, server, key) = self.configs();
        let mut client: End<Client> = End::new(client, Seeded::new(5));
        client.conn.authenticate("user", Credential::PublicKey { key, probe: true }).unwrap();
        (client, End::new(server, Seeded::new(6)))
    }
}

type Flights = Vec<Vec<u8>>;

/// Records a session: the flights to the client, and to the server, and what both did.
fn record(setup: &Setup, ops: &[Vec<Op>; 2]) -> (Flights, Flights, Solo<Client>, Solo<Server>) {
    let (client, server) = setup.ends();
    let (mut client, mut server) = (Solo::new(client, &ops[0], setup), Solo::new(server, &ops[1], setup));
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let (whole, always, mut flight) = (&mut Split::Whole, &mut Polls::Always, Vec::new());
    for _ in 0..ops[0].len() + ops[1].len() + 12 {
        to_client.push(flight.clone());
        flight = client.fly(&flight, whole, always);
        to_server.push(flight.clone());
        flight = server.fly(&flight, whole, always);
    }
    assert!(client.end.authenticated && server.end.authenticated);
    (to_client, to_server, client, server)
}

/// Runs one side over the flights of a record, and holds it to what it did then.
fn assert_same<R: Peer>(
    (end, ops, setup): (End<R>, &[Op], &Setup),
    flights: &Flights,
    before: &Solo<R>,
    (split, polls): (&mut Split, &mut Polls),
) {
    let mut again = Solo::new(end, ops, setup);
    for (at, flight) in flights.iter().enumerate() {
        again.fly(flight, split, polls);
        let (before, after) = (&before.flights[at], &again.flights[at]);
        assert_eq!(before.events, after.events, "{:?}, flight {at}", R::SIDE);
        assert_eq!(before.results, after.results, "{:?}, flight {at}", R::SIDE);
        assert!(before.output == after.output, "{:?}, output of flight {at}", R::SIDE);
    }
}

fn check(setup: &Setup, ops: &[Vec<Op>; 2], mut split: Split, mut polls: Polls) {
    let (to_client, to_server, client, server) = record(setup, ops);
    let (client_end, server_end) = setup.ends();
    assert_same((client_end, &ops[0], setup), &to_client, &client, (&mut split, &mut polls));
    assert_same((server_end, &ops[1], setup), &to_server, &server, (&mut split, &mut polls));
}

fn split() -> impl Strategy<Value = Split> {
    prop_oneof![
        1 => Just(Split::Whole),
        1 => Just(Split::Fixed(1)),
        2 => (1usize..40).prop_map(Split::Fixed),
        2 => proptest::collection::vec(1usize..2000, 1..8).prop_map(|sizes| Split::List(sizes, 0)),
        4 => (any::<u64>(), 1usize..5000).prop_map(|(seed, max)| Split::random(seed, max)),
    ]
}

fn polls() -> impl Strategy<Value = Polls> {
    prop_oneof![
        1 => Just(Polls::Always),
        1 => Just(Polls::Late),
        2 => any::<u64>().prop_map(|seed| Polls::Now(Seeded::new(seed))),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let last = prop_oneof![2 => Just(None), 1 => Just(Some(Op::Disconnect))];
    (proptest::collection::vec(op(), 0..24), last)
        .prop_map(|(ops, last)| ops.into_iter().chain(last).collect())
}

fn setup(ciphers: Vec<(&'static str, &'static str)>) -> impl Strategy<Value = Setup> {
    let rekey = prop_oneof![
        2 => Just((1u64 << 30, 1u64 << 28)),
        1 => (1u64..50_000, Just(1u64 << 28)),
        1 => (Just(1u64 << 30), 1u64..20),
    ];
    let answer = || prop_oneof![3 => Just(Answer::Yes), 1 => Just(Answer::No), 1 => Just(Answer::Drop)];
    let events = prop_oneof![1 => 1usize..6, 1 => Just(64)];
    let output = prop_oneof![2 => Just(WIDE), 1 => Just(64 * 1024)];
    (proptest::sample::select(ciphers), rekey, events, output, [answer(), answer(), answer()])
        .prop_map(|(cipher, rekey, events, output, answers)| Setup { cipher, rekey, events, output, answers })
}

/// Every cipher of the real provider, those without a tag of their own with every MAC.
fn real() -> Vec<(&'static str, &'static str)> {
    let provider = &rustcrypto::PROVIDER;
    let macs = || provider.macs.iter().map(|mac| mac.name());
    let all = provider.ciphers.iter().flat_map(|cipher| {
        macs().take(if cipher.is_aead() { 1 } else { usize::MAX }).map(|mac| (cipher.name(), mac))
    });
    all.collect()
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn pk_16_l1_and_l2_neither_the_split_of_the_input_nor_extra_polls_change_anything(
        setup in setup(vec![(null::CIPHER, null::MAC), (null::STREAM, null::MAC)]),
        ops in [ops(), ops()], split in split(), polls in polls(),
    ) {
        check(&setup, &ops, split, polls);
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn l1_and_l2_hold_under_every_real_cipher(
        setup in setup(real()), ops in [ops(), ops()], split in split(), polls in polls(),
    ) {
        check(&setup, &ops, split, polls);
    }
}
