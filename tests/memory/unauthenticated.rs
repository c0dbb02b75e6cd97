//! What a client that has not logged in costs with all of its adapter.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant as StdInstant;

use bytes::BytesMut;
use ssh_io_std::{Handler, Question, ServerConnection};
use ssh_io_tokio::Asked;
use ssh_proto::raw::State;
use ssh_proto::{AuthRequest, Client, ClientEvent, CloseReason, Credential, ServerConfig};
use ssh_tests::{Peer, Seeded, hand, null_server, rustcrypto_client, rustcrypto_server};
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{LIMIT, PATIENCE, live, plain, since, turn};

const CONNECTIONS: usize = 16;

/// The least that a connection with keys holds.
const KEYED: usize = 4 * 1024;

/// A packet that never ends takes as much room as one may.
const ENDLESS: usize = 34_000;

fn send_endless(socket: &mut UnixStream) {
    socket.write_all(b"SSH-2.0-endless\r\n").unwrap();
    socket.write_all(&plain(&hand::ignore(34_900))[..ENDLESS]).unwrap();
}

/// Brings a server to where it decides about a login, and says more behind it than it takes by then.
fn knock(socket: &mut UnixStream) {
    let mut conn = Client::connect(rustcrypto_client().build().unwrap(), Box::new(Seeded::new(5)));
    conn.authenticate("user", Credential::Password("x".into())).unwrap();
    let (mut input, mut chunk) = (BytesMut::new(), [0; 4096]);
    while !matches!(conn.gate_state(), State::AuthSent(_)) {
        let sent = socket.write(conn.output()).unwrap();
        conn.consume_output(sent);
        if !conn.output().is_empty() {
            continue;
        }
        let n = socket.read(&mut chunk).unwrap();
        assert!(n > 0, "it hung up");
        input.extend_from_slice(&chunk[..n]);
        conn.handle_input(super::NOW, &mut input);
        while let Some(event) = conn.poll_event() {
            if let ClientEvent::HostKey(check) = event {
                conn.accept_host_key(check).unwrap();
            }
            conn.handle_input(super::NOW, &mut input);
        }
    }
    (0..3).for_each(|_| conn.send_raw(&hand::ignore(30_000)));
    socket.write_all(conn.output()).unwrap();
}

/// Keeps what it is to decide.
struct Undecided(Sender<Question<AuthRequest>>);

impl Handler for Undecided {
    fn auth(&mut self, request: Question<AuthRequest>) {
        self.0.send(request).unwrap();
    }
}

/// What the connections hold, and what they hold at least once all that was sent is taken in.
struct Count {
    before: usize,
    least: usize,
    patience: StdInstant,
}

impl Count {
    fn begin(knocks: bool) -> Self {
        let least = if knocks { KEYED } else { ENDLESS };
        Self { before: live(), least, patience: StdInstant::now() + PATIENCE }
    }

    fn each(&self) -> usize {
        since(self.before) / CONNECTIONS
    }

    fn is_to_come(&self) -> bool {
        self.each() < self.least && StdInstant::now() < self.patience
    }

    fn check(&self, what: &str) {
        let each = self.each();
        println!("unauthenticated, {what}, bookkeeping included: {each} bytes each");
        assert!((self.least..=LIMIT).contains(&each), "{what}: {each}");
    }
}

fn over_std(what: &str, config: &Arc<ServerConfig>, knocks: bool) {
    let (undecided, questions) = channel();
    let visit = || {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = ServerConnection::start(config.clone(), theirs, Undecided(undecided.clone())).unwrap();
        if !knocks {
            send_endless(&mut ours);
            return (ours, server, None);
        }
        knock(&mut ours);
        (ours, server, Some(questions.recv_timeout(PATIENCE).unwrap()))
    };
    // Apart from the end: a refusal takes as long as its decision took, and again.
    let let_go = |(ours, server, question): (UnixStream, ServerConnection, Option<_>)| {
        drop((ours, question));
        server
    };
    let end = |server: ServerConnection| {
        server.join(PATIENCE);
        assert!(server.is_finished());
    };
    // What the process sets up once is none of a connection's.
    end(let_go(visit()));
    let count = Count::begin(knocks);
    let visits: Vec<_> = (0..CONNECTIONS).map(|_| visit()).collect();
    while count.is_to_come() {
        std::thread::yield_now();
    }
    count.check(what);
    visits.into_iter().map(let_go).collect::<Vec<_>>().into_iter().for_each(end);
}

type TokioVisit = (
    UnixStream,
    ssh_io_tokio::ServerConnection,
    JoinHandle<CloseReason>,
    Option<ssh_io_tokio::Question<AuthRequest>>,
);

fn over_tokio(what: &str, config: &Arc<ServerConfig>, knocks: bool) {
    let visit = async || {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        let (server, driver) = ssh_io_tokio::ServerConnection::start(config.clone(), theirs);
        let driving = tokio::spawn(driver.run());
        let ours = spawn_blocking(move || {
            if knocks {
                knock(&mut ours)
            } else {
                send_endless(&mut ours)
            }
            ours
        });
        let question = match knocks {
            false => None,
            true => match server.asked().await {
                Some(Asked::Auth(question)) => Some(question),
                other => panic!("{other:?}"),
            },
        };
        (ours.await.unwrap(), server, driving, question)
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let let_go = |(ours, server, driving, question): TokioVisit| {
            drop((ours, question));
            (server, driving)
        };
        let end = async |(server, driving): (_, JoinHandle<CloseReason>)| {
            driving.await.unwrap();
            drop(server);
        };
        end(let_go(visit().await)).await;
        let count = Count::begin(knocks);
        let mut visits = Vec::new();
        for _ in 0..CONNECTIONS {
            visits.push(visit().await);
        }
        while count.is_to_come() {
            tokio::task::yield_now().await;
        }
        count.check(what);
        for ending in visits.into_iter().map(let_go).collect::<Vec<_>>() {
            end(ending).await;
        }
    });
}

#[test]
fn an_unauthenticated_connection_costs_at_most_128_kib_with_all_of_its_adapter() {
    let _turn = turn();
    let config = null_server().build().unwrap();
    over_std("an endless packet over ssh-io-std", &config, false);
    over_tokio("an endless packet over ssh-io-tokio", &config, false);
}

#[test]
fn a_connection_whose_login_is_not_decided_costs_at_most_128_kib_with_all_of_its_adapter() {
    let _turn = turn();
    let config = rustcrypto_server().build().unwrap();
    over_std("a login to decide about over ssh-io-std", &config, true);
    over_tokio("a login to decide about over ssh-io-tokio", &config, true);
}
