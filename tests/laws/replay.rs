//! How input is cut, and how often one looks, changes nothing.
//!
//! A session is recorded flight by flight: what one side sent between two points at which both were idle.
//! Then each side is run alone over the same flights, cut differently and looked at differently, with the
//! same commands at the same points.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ssh_proto::{ChannelId, Client, Credential, Instant, Server};
use ssh_tests::{End, Peer, Policy, Seeded, Split, null_configs, null_key};

use super::ops::{Op, cases, op, perform};

const NOW: Instant = Instant::ORIGIN;

/// When events are polled.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Polls {
    /// Behind every delivery.
    Always,
    /// Behind the last delivery of a flight, and what else there is to look at all the time.
    Late,
}

/// One side under a script.
struct Solo<R: Peer> {
    end: End<R>,
    channels: Vec<ChannelId>,
    ops: Vec<Op>,
    next_op: usize,
    /// What happened in each flight: events and results, then output.
    flights: Vec<(Vec<String>, Vec<u8>)>,
}

impl<R: Peer> Solo<R> {
    fn new(mut end: End<R>, ops: &[Op]) -> Self {
        end.policy = Policy::keep();
        Self { end, channels: Vec::new(), ops: ops.to_vec(), next_op: 0, flights: Vec::new() }
    }

    /// Takes a flight and gives the answer.
    fn fly(&mut self, flight: &[u8], split: &mut Split, polls: Polls) -> Vec<u8> {
        let mut rest = flight;
        self.end.frozen = polls == Polls::Late;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(split.next(rest.len()));
            self.end.input.extend_from_slice(now);
            rest = later;
            self.end.turn(NOW);
            if polls == Polls::Late {
                look(&self.end);
                self.end.turn(NOW);
            }
        }
        self.end.frozen = false;
        self.end.turn(NOW);
        while self.end.answer(&Policy::default()) {
            self.end.turn(NOW);
        }
        let burst = if self.end.authenticated { 4 } else { 0 };
        for op in self.ops.iter().skip(self.next_op).take(burst) {
            perform(&mut self.end, op, &mut self.channels);
        }
        self.next_op += burst;
        let output = self.end.conn.output().to_vec();
        self.end.conn.consume_output(output.len());
        self.flights.push((merged(std::mem::take(&mut self.end.trace)), output.clone()));
        output
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

fn ends() -> (End<Client>, End<Server>) {
    let (client, server) = null_configs();
    let mut client: End<Client> = End::new(client, Seeded::new(5));
    let credential = Credential::PublicKey { key: null_key(4), probe: true };
    client.conn.authenticate("user", credential).unwrap();
    (client, End::new(server, Seeded::new(6)))
}

type Flights = Vec<Vec<u8>>;

/// Records a session: the flights to the client, and to the server, and what both did.
fn record(client_ops: &[Op], server_ops: &[Op]) -> (Flights, Flights, Solo<Client>, Solo<Server>) {
    let (client, server) = ends();
    let (mut client, mut server) = (Solo::new(client, client_ops), Solo::new(server, server_ops));
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let (whole, mut flight) = (&mut Split::Whole, Vec::new());
    for _ in 0..client_ops.len() + server_ops.len() + 12 {
        to_client.push(flight.clone());
        flight = client.fly(&flight, whole, Polls::Always);
        to_server.push(flight.clone());
        flight = server.fly(&flight, whole, Polls::Always);
    }
    assert!(client.end.authenticated && server.end.authenticated);
    (to_client, to_server, client, server)
}

fn replay<R: Peer>(end: End<R>, ops: &[Op], flights: &Flights, split: &mut Split, polls: Polls) -> Solo<R> {
    let mut solo = Solo::new(end, ops);
    for flight in flights {
        solo.fly(flight, split, polls);
    }
    solo
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

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let last = prop_oneof![2 => Just(None), 1 => Just(Some(Op::Disconnect))];
    (proptest::collection::vec(op(), 0..24), last)
        .prop_map(|(ops, last)| ops.into_iter().chain(last).collect())
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn l1_and_l2_neither_the_split_of_the_input_nor_extra_polls_change_anything(
        client_ops in ops(), server_ops in ops(), mut split in split(), late: bool
    ) {
        let polls = if late { Polls::Late } else { Polls::Always };
        let (to_client, to_server, client, server) = record(&client_ops, &server_ops);
        let (client_end, server_end) = ends();
        let again = replay(client_end, &client_ops, &to_client, &mut split, polls);
        for (flight, (before, after)) in client.flights.iter().zip(&again.flights).enumerate() {
            prop_assert_eq!(&before.0, &after.0, "client, flight {}", flight);
            prop_assert!(before.1 == after.1, "client, output of flight {}", flight);
        }
        let again = replay(server_end, &server_ops, &to_server, &mut split, polls);
        for (flight, (before, after)) in server.flights.iter().zip(&again.flights).enumerate() {
            prop_assert_eq!(&before.0, &after.0, "server, flight {}", flight);
            prop_assert!(before.1 == after.1, "server, output of flight {}", flight);
        }
    }
}
