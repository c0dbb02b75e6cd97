//! How many flights a session takes: what a side can say, it says together with what it has to say anyway.
//!
//! A flight is one way, so that two are a round trip; both sides begin at once.

use std::time::Duration;

use ssh_proto::{
    ChannelConfig, ChannelKind, ChannelRequestKind, ClientEvent, Credential, Instant, Stream, TerminalModes,
    WindowSize,
};
use ssh_tests::{Pair, null_key, rustcrypto_client, rustcrypto_server, take};

/// How long a flight takes.
const FLIGHT: Duration = Duration::from_secs(1);

/// After how many flights what happened.
#[derive(Debug, PartialEq, Eq)]
struct Flights {
    logged_in: u64,
    opened: u64,
    output: u64,
}

/// Over a long line.
fn apart(mut pair: Pair) -> Pair {
    (pair.c2s.latency, pair.s2c.latency) = (FLIGHT, FLIGHT);
    pair
}

fn flights(pair: &Pair) -> u64 {
    pair.now.saturating_since(Instant::ORIGIN).as_secs()
}

/// The main job: a login, and a program with its environment and a terminal, until it says something.
fn exec(pair: &mut Pair, credential: Credential) -> Flights {
    pair.client.conn.authenticate("user", credential).expect("the first attempt");
    pair.drive();
    assert!(pair.client.authenticated, "{:?}", pair.client.trace);
    let logged_in = flights(pair);
    let id = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    pair.drive();
    take!(pair.client, ClientEvent::Opened(opened) if opened == id => ());
    let opened = flights(pair);
    let (term, size, modes) = ("xterm".into(), WindowSize::default(), TerminalModes::default());
    for kind in [
        ChannelRequestKind::env("LANG", "C"),
        ChannelRequestKind::Pty { term, size, modes },
        ChannelRequestKind::exec("program"),
    ] {
        pair.client.conn.channel(id).unwrap().request(&kind, true).unwrap();
    }
    // The program runs as soon as it is asked for.
    let begun = pair.now + FLIGHT;
    while !pair.server.saw("Exec") {
        if !pair.step() {
            assert!(pair.now < begun, "{:?}", pair.server.trace);
            pair.now = begun;
        }
    }
    let mut program = pair.server.conn.channel(*pair.server.accepted.last().unwrap()).unwrap();
    program.write(Stream::Data, b"output").unwrap();
    while pair.client.bytes(id, Stream::Data).is_empty() {
        if !pair.step() {
            pair.now = pair.now + FLIGHT;
            assert!(flights(pair) < 100, "{:?}", pair.client.trace);
        }
    }
    Flights { logged_in, opened, output: flights(pair) }
}

/// KEXINITs, the client's share, the server's, the login behind NEWKEYS and the service request, and its answer.
const LOGIN: u64 = 5;

#[test]
fn a_program_says_its_first_word_four_flights_behind_the_login() {
    for credential in [
        Credential::PublicKey { key: null_key(2), probe: false },
        Credential::Password("x".into()),
        Credential::None,
    ] {
        let expected = Flights { logged_in: LOGIN, opened: LOGIN + 2, output: LOGIN + 4 };
        assert_eq!(exec(&mut apart(Pair::null()), credential), expected);
    }
}

#[test]
fn a_right_guess_saves_a_flight_and_a_wrong_one_costs_none() {
    let (first, other) = ("curve25519-sha256", "ecdh-sha2-nistp256");
    for (of_server, login) in [([other, first], LOGIN - 1), ([other, other], LOGIN)] {
        let client = rustcrypto_client().kex(&[first, other]).guess_kex(true).build().unwrap();
        let server = rustcrypto_server().kex(&of_server).build().unwrap();
        let flights = exec(&mut apart(Pair::new(client, server, 1)), Credential::Password("x".into()));
        assert_eq!(
            flights,
            Flights { logged_in: login, opened: login + 2, output: login + 4 },
            "{of_server:?}"
        );
    }
}

#[test]
fn a_question_for_a_key_takes_a_round_trip_more() {
    let flights = exec(&mut apart(Pair::null()), Credential::PublicKey { key: null_key(2), probe: true });
    assert_eq!(flights.logged_in, LOGIN + 2);
}
