//! A client and a server, the wires between them, and the clock.

use std::sync::Arc;
use std::time::Duration;

use ssh_proto::{
    ChannelConfig, ChannelId, ChannelKind, Client, ClientConfig, Credential, Entropy, Instant, Server,
    ServerConfig,
};

use crate::end::{End, Peer};
use crate::entropy::Seeded;
use crate::null::null_key;
use crate::wire::{Delivery, Wire};

/// How many rounds `drive` makes before it calls the sides busy forever.
const ROUNDS: usize = 1_000_000;

/// Two sides and what is between them.
#[derive(Debug)]
pub struct Pair {
    /// The time, the same for both.
    pub now: Instant,
    /// The client.
    pub client: End<Client>,
    /// The server.
    pub server: End<Server>,
    /// From the client to the server.
    pub c2s: Wire,
    /// From the server to the client.
    pub s2c: Wire,
}

impl Pair {
    /// Two sides that have just connected; nothing is delivered yet.
    pub fn new(client: Arc<ClientConfig>, server: Arc<ServerConfig>, seed: u64) -> Self {
        Self::with_entropy(client, server, Seeded::new(seed), Seeded::new(!seed))
    }

    /// Two sides with these random sources.
    pub fn with_entropy(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
        client_entropy: impl Entropy + Send + 'static,
        server_entropy: impl Entropy + Send + 'static,
    ) -> Self {
        Self {
            now: Instant::ORIGIN,
            client: End::new(client, client_entropy),
            server: End::new(server, server_entropy),
            c2s: Wire::default(),
            s2c: Wire::default(),
        }
    }

    /// Two sides on the null provider.
    pub fn null() -> Self {
        let (client, server) = crate::null_configs();
        Self::new(client, server, 1)
    }

    /// Two sides on the null provider that are logged in.
    pub fn logged_in() -> Self {
        let mut pair = Self::null();
        pair.login();
        pair
    }

    /// Drives until the first key exchange is complete on both sides.
    pub fn handshake(&mut self) {
        self.drive();
        let complete = self.client.conn.session_id().is_some() && self.server.conn.session_id().is_some();
        assert!(complete, "no handshake: {:?} {:?}", self.client.trace, self.server.trace);
        assert_eq!(self.client.conn.session_id(), self.server.conn.session_id());
    }

    /// Logs in as `user` with a key.
    pub fn login(&mut self) {
        self.login_with(Credential::PublicKey { key: null_key(2), probe: false });
    }

    /// Logs in as `user` with this credential.
    pub fn login_with(&mut self, credential: Credential) {
        self.client.conn.authenticate("user", credential).expect("a first attempt");
        self.drive();
        let done = self.client.authenticated && self.server.authenticated;
        assert!(done, "no login: {:?} {:?}", self.client.trace, self.server.trace);
        self.client.events.clear();
        self.server.events.clear();
    }

    /// Opens a session channel from the client; the server accepts it. Gives both sides' ids.
    pub fn open_session(&mut self) -> (ChannelId, ChannelId) {
        self.open_session_with(ChannelConfig::default())
    }

    /// As [`open_session`](Self::open_session), with this at the client.
    pub fn open_session_with(&mut self, config: ChannelConfig) -> (ChannelId, ChannelId) {
        let ours = self.client.conn.open_channel(&ChannelKind::Session, config).expect("a channel");
        self.drive();
        let theirs = *self.server.accepted.last().expect("the server accepts");
        crate::take!(self.client, ssh_proto::ClientEvent::Opened(id) if id == ours => id);
        (ours, theirs)
    }

    /// One round: both sides write what the wires take, and take what is due. Says whether anything
    /// happened.
    pub fn step(&mut self) -> bool {
        let Self { now, client, server, c2s, s2c } = self;
        let mut busy = client.turn(*now) | server.turn(*now);
        busy |= flush(*now, client, c2s) | flush(*now, server, s2c);
        busy |= deliver(*now, c2s, server) | deliver(*now, s2c, client);
        busy
    }

    /// Steps until both sides are idle and nothing is under way. Time passes only for bytes under way, not
    /// for deadlines.
    pub fn drive(&mut self) {
        for _ in 0..ROUNDS {
            if self.step() {
                continue;
            }
            match self.next_delivery() {
                Some(at) if at > self.now => self.now = at,
                _ => return,
            }
        }
        panic!("busy forever: {:?} {:?}", self.client.trace.last(), self.server.trace.last());
    }

    /// When the next bytes arrive that somebody waits for.
    fn next_delivery(&self) -> Option<Instant> {
        let to_server = self.c2s.next_delivery().filter(|_| self.server.conn.wants_input());
        let to_client = self.s2c.next_delivery().filter(|_| self.client.conn.wants_input());
        [to_server, to_client].into_iter().flatten().min()
    }

    /// The earliest deadline of both sides.
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.client.conn.poll_timeout(), self.server.conn.poll_timeout()].into_iter().flatten().min()
    }

    /// Lets time pass, meeting every deadline on the way.
    pub fn advance(&mut self, by: Duration) {
        let target = self.now + by;
        self.drive();
        for _ in 0..ROUNDS {
            self.drive();
            match self.next_timeout() {
                Some(at) if at <= target => {
                    self.now = self.now.max(at);
                    self.client.conn.handle_timeout(self.now);
                    self.server.conn.handle_timeout(self.now);
                }
                _ => {
                    self.now = self.now.max(target);
                    self.client.conn.handle_timeout(self.now);
                    self.server.conn.handle_timeout(self.now);
                    return self.drive();
                }
            }
        }
        panic!("a deadline stays due: {:?}", self.client.conn.timeout_reason());
    }

    /// Drives and lets the shortest delays of the server pass, such as that of a refusal.
    pub fn settle(&mut self) {
        self.advance(Duration::from_millis(10));
    }

    /// Whether neither side has anything to send or to read.
    pub fn is_idle(&self) -> bool {
        self.client.conn.output().is_empty()
            && self.server.conn.output().is_empty()
            && self.c2s.under_way() == 0
            && self.s2c.under_way() == 0
            && self.client.input.is_empty()
            && self.server.input.is_empty()
    }
}

/// Writes what the wire takes.
pub fn flush<R: Peer>(now: Instant, end: &mut End<R>, wire: &mut Wire) -> bool {
    let mut busy = false;
    while !end.conn.output().is_empty() {
        let n = wire.write(now, end.conn.output());
        if n == 0 {
            break;
        }
        end.conn.consume_output(n);
        busy = true;
    }
    busy
}

/// Delivers what is due while the side wants it, in the pieces the wire makes of it.
pub fn deliver<R: Peer>(now: Instant, wire: &mut Wire, end: &mut End<R>) -> bool {
    let mut busy = false;
    while end.conn.wants_input() || end.closed.is_some() {
        match wire.read(now) {
            Some(Delivery::Bytes(bytes)) => end.input.extend_from_slice(&bytes),
            Some(Delivery::End) => end.conn.handle_eof(now),
            None => break,
        }
        end.turn(now);
        busy = true;
    }
    busy
}
