//! Clients that mean ill, from many addresses, until there were enough of them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use bytes::BytesMut;
use ssh_io_std::OsEntropy;
use ssh_io_std::ssh_proto::crypto::PROVIDER;
use ssh_io_std::ssh_proto::{ClientConfig, ClientConnection, Instant};
use ssh_io_tokio::{Client, Error, HostKeys};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::{Outcome, PATIENCE, USER};

/// How many attack at a time. Less than what a server admits in all, so that there is a place for others.
const AT_A_TIME: u64 = 16;
/// How many addresses they come from.
const ADDRESSES: u64 = 4000;
/// One of so many logs in as far as to be refused; the others are cheaper, for both sides.
const LOGIN_EVERY: u64 = 64;

const SSH_MSG_DISCONNECT: u8 = 1;
const SSH_MSG_KEXINIT: u8 = 20;

/// What they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Connects, and leaves.
    Scan,
    /// Speaks another protocol.
    OtherProtocol,
    /// Announces a packet of 4 GiB.
    LongPacket,
    /// A proper beginning, then a key share of zeros.
    BadShare,
    /// A proper beginning with one bit of it turned.
    BitFlip,
    /// Leaves in the middle of its first packet.
    HalfPacket,
    /// Says nothing, and leaves when another of its kind has come.
    Silent,
    /// Guesses a password.
    Guess,
}

const CHEAP: [Kind; 7] = [
    Kind::Scan,
    Kind::OtherProtocol,
    Kind::LongPacket,
    Kind::BadShare,
    Kind::BitFlip,
    Kind::HalfPacket,
    Kind::Silent,
];
const KINDS: usize = CHEAP.len() + 1;

/// Those the server has to end itself.
const ENDED: [Kind; 5] = [Kind::OtherProtocol, Kind::LongPacket, Kind::BadShare, Kind::BitFlip, Kind::Guess];

/// How a connection ended, if it ended as it should.
enum End {
    /// The attacker left.
    Left,
    /// The server was full of others, and hung up without a word.
    TurnedAway,
    /// The server answered, and ended it or refused the login as it should.
    Refused,
}

/// How many of each kind there were, how many of those the server turned away, and how many it refused.
#[derive(Default)]
pub(crate) struct Attempts {
    made: [AtomicU64; KINDS],
    turned_away: [AtomicU64; KINDS],
    refused: [AtomicU64; KINDS],
}

impl Attempts {
    pub(crate) fn made(&self) -> u64 {
        sum(&self.made)
    }

    fn count(&self, kind: Kind, end: &End) {
        self.made[kind as usize].fetch_add(1, Ordering::Relaxed);
        match end {
            End::Left => 0,
            End::TurnedAway => self.turned_away[kind as usize].fetch_add(1, Ordering::Relaxed),
            End::Refused => self.refused[kind as usize].fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Whether there were all kinds, and most of those to be refused came far enough for it.
    pub(crate) fn check(&self) -> Outcome<()> {
        let get = |counts: &[AtomicU64; KINDS], kind: Kind| counts[kind as usize].load(Ordering::Relaxed);
        for kind in CHEAP.into_iter().chain([Kind::Guess]) {
            let (made, refused) = (get(&self.made, kind), get(&self.refused, kind));
            if made == 0 || ENDED.contains(&kind) && refused <= made / 2 {
                return Err(format!("{kind:?}: {made} came, {refused} were refused").into());
            }
        }
        Ok(())
    }
}

fn sum(counts: &[AtomicU64; KINDS]) -> u64 {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Kind::Scan, "scans"),
            (Kind::OtherProtocol, "of another protocol"),
            (Kind::LongPacket, "long packets"),
            (Kind::BadShare, "bad shares"),
            (Kind::BitFlip, "turned bits"),
            (Kind::HalfPacket, "half packets"),
            (Kind::Silent, "silent"),
            (Kind::Guess, "guessed passwords"),
        ];
        for (n, (kind, name)) in names.into_iter().enumerate() {
            let made = self.made[kind as usize].load(Ordering::Relaxed);
            write!(f, "{}{made} {name}", if n == 0 { "" } else { ", " })?;
        }
        write!(f, "; {} turned away", sum(&self.turned_away))
    }
}

/// The attack, under way on a thread of its own.
pub(crate) struct Attack {
    attempts: Arc<Attempts>,
    thread: JoinHandle<Result<(), String>>,
}

impl Attack {
    pub(crate) fn begin(port: u16, quota: u64) -> Outcome<Self> {
        let attempts = Arc::new(Attempts::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let attacker = Arc::new(Attacker {
            port,
            opening: opening()?,
            config: ClientConfig::builder(&PROVIDER).build()?,
            attempts: attempts.clone(),
        });
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let workers = (0..AT_A_TIME).map(|first| {
                    let attacker = attacker.clone();
                    tokio::spawn(async move { attacker.work(first, quota).await })
                });
                for worker in workers.collect::<Vec<_>>() {
                    worker.await.map_err(|error| error.to_string())??;
                }
                Ok(())
            })
        });
        Ok(Self { attempts, thread })
    }

    pub(crate) fn made(&self) -> u64 {
        self.attempts.made()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    pub(crate) fn end(self) -> Outcome<Arc<Attempts>> {
        self.thread.join().map_err(|_| "the attackers panicked")??;
        Ok(self.attempts)
    }
}

/// What a client of ours says first: its identification line and its KEXINIT.
fn opening() -> Outcome<Vec<u8>> {
    let config = ClientConfig::builder(&PROVIDER).build()?;
    let mut conn = ClientConnection::new(config, Box::new(OsEntropy), Instant::ORIGIN);
    conn.handle_input(Instant::ORIGIN, &mut BytesMut::from(&b"SSH-2.0-soak\r\n"[..]));
    let opening = conn.output().to_vec();
    match opening.len() > 200 {
        true => Ok(opening),
        false => Err("a client begins without a KEXINIT".into()),
    }
}

struct Attacker {
    port: u16,
    opening: Vec<u8>,
    config: Arc<ClientConfig>,
    attempts: Arc<Attempts>,
}

impl Attacker {
    async fn work(&self, first: u64, quota: u64) -> Result<(), String> {
        let mut silent = Vec::new();
        for number in (first..quota).step_by(AT_A_TIME as usize) {
            let turn = number / AT_A_TIME + first;
            let kind = match turn % LOGIN_EVERY {
                0 => Kind::Guess,
                _ => CHEAP[turn as usize % CHEAP.len()],
            };
            let end = timeout(PATIENCE, self.attempt(kind, number, &mut silent)).await;
            let end = end.map_err(|_| format!("{kind:?}: the server does not end it"))?;
            let end = end.map_err(|error| format!("{kind:?}: {error}"))?;
            self.attempts.count(kind, &end);
        }
        Ok(())
    }

    /// One connection from an address of its own. An error says what the server did wrong.
    async fn attempt(&self, kind: Kind, number: u64, silent: &mut Vec<TcpStream>) -> Result<End, String> {
        let mut stream = self.connect(number).await.map_err(|error| error.to_string())?;
        let opening = &self.opening;
        let said = match kind {
            Kind::Scan => return Ok(End::Left),
            Kind::OtherProtocol => b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            Kind::LongPacket => b"SSH-2.0-soak\r\n\xff\xff\xff\xff".to_vec(),
            // A packet of 44 bytes with 4 of padding: SSH_MSG_KEX_ECDH_INIT and a string that is too short.
            Kind::BadShare => [&opening[..], &[0, 0, 0, 44, 4, 30, 0, 0, 0, 34], &[0; 38]].concat(),
            Kind::BitFlip => {
                let line = opening.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let mut opening = opening.clone();
                // The number of the message, so that each of them is an offence.
                opening[line + 5] ^= 1 << (number / AT_A_TIME % 8);
                opening
            }
            Kind::HalfPacket => opening[..opening.len() / 2].to_vec(),
            Kind::Silent => {
                silent.push(stream);
                if silent.len() > 1 {
                    drop(silent.remove(0));
                }
                return Ok(End::Left);
            }
            Kind::Guess => {
                // The server speaks first.
                if !matches!(stream.peek(&mut [0]).await, Ok(1)) {
                    return Ok(End::TurnedAway);
                }
                let guessing = Client::with_config(self.config.clone())
                    .host_keys(HostKeys::DangerousAcceptAny)
                    .connect_over("127.0.0.1", self.port, stream);
                let client = guessing.await.map_err(|error| error.to_string())?;
                let answer = client.auth_password(USER, "123456").await;
                client.close();
                return match answer {
                    Err(Error::AuthFailed { .. }) => Ok(End::Refused),
                    other => Err(format!("a guess was answered with {other:?}")),
                };
            }
        };
        // The server may have hung up before it is all said.
        let _ = stream.write_all(&said).await;
        if kind == Kind::HalfPacket {
            return Ok(End::Left);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        // Those who do not speak SSH are told nothing.
        let last = if kind == Kind::OtherProtocol { SSH_MSG_KEXINIT } else { SSH_MSG_DISCONNECT };
        match answer.is_empty() {
            true => Ok(End::TurnedAway),
            false if last_message(&answer) == Some(last) => Ok(End::Refused),
            false => Err(format!("the server ended it with {}", answer.escape_ascii())),
        }
    }

    async fn connect(&self, number: u64) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        let [.., high, low] = (number % ADDRESSES).to_be_bytes();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 0)))?;
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await
    }
}

/// The number of the last message of a server's side, from its identification line on and without keys.
fn last_message(answer: &[u8]) -> Option<u8> {
    let line = answer.iter().position(|byte| *byte == b'\n')? + 1;
    let (mut rest, mut last) = (&answer[line..], None);
    while let Some((length, packet)) = rest.split_first_chunk() {
        let (packet, behind) = packet.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        (last, rest) = (packet.get(1).copied(), behind);
    }
    last.filter(|_| answer.starts_with(b"SSH-2.0-") && rest.is_empty())
}
