//! One connection and a hand-moved peer.

use std::time::Duration;

use bytes::BytesMut;
use ssh_proto::raw::{Message, State, channel, number, transport};
use ssh_proto::{
    AuthVerdict, ChannelConfig, ChannelId, ClientConnection, ClientEvent, CloseReason, Disconnect, Instant,
    MemoryUsage, PeerMisbehaved, ReadError, ServerConnection, ServerEvent, Side, Stream,
};

use crate::config::{null_client, null_server};
use crate::entropy::Seeded;
use crate::puppet::{Heard, Offer, Puppet};

/// An event of either role.
#[derive(Debug)]
pub enum Event {
    /// Of a client.
    Client(ClientEvent),
    /// Of a server.
    Server(ServerEvent),
}

impl Event {
    /// The reason, when this is the end.
    pub fn closed(&self) -> Option<&CloseReason> {
        match self {
            Self::Client(ClientEvent::Closed(reason)) | Self::Server(ServerEvent::Closed(reason)) => {
                Some(reason)
            }
            _ => None,
        }
    }
}

/// A connection of either role.
pub enum Subject {
    /// A client.
    Client(Box<ClientConnection>),
    /// A server.
    Server(Box<ServerConnection>),
}

/// Does the same with a connection of either role.
#[macro_export]
macro_rules! either {
    ($subject:expr, $conn:ident => $value:expr) => {
        match $subject {
            $crate::scene::Subject::Client($conn) => $value,
            $crate::scene::Subject::Server($conn) => $value,
        }
    };
}

/// A connection and the peer that a test moves.
pub struct Scene {
    /// The connection.
    pub subject: Subject,
    /// Its peer.
    pub puppet: Puppet,
    /// What the clock shows.
    pub now: Instant,
    /// Bytes the connection has not taken.
    pub input: BytesMut,
    /// Events since they were last taken.
    pub events: Vec<Event>,
    /// Packets of the connection since they were last taken.
    pub heard: Vec<Heard>,
}

impl Scene {
    /// A client on the null provider.
    pub fn client() -> Self {
        Self::of_client(null_client().build().expect("a client"))
    }

    /// A server on the null provider.
    pub fn server() -> Self {
        Self::of_server(null_server().build().expect("a server"))
    }

    /// A subject of this side on the null provider.
    pub fn of(side: Side) -> Self {
        if side == Side::Client { Self::client() } else { Self::server() }
    }

    /// A client with this configuration, and a null peer.
    pub fn of_client(config: std::sync::Arc<ssh_proto::ClientConfig>) -> Self {
        let conn = ClientConnection::new(config, Box::new(Seeded::new(1)), Instant::ORIGIN);
        Self::new(Subject::Client(Box::new(conn)), Puppet::null(Side::Server))
    }

    /// A server with this configuration, and a null peer.
    pub fn of_server(config: std::sync::Arc<ssh_proto::ServerConfig>) -> Self {
        let conn = ServerConnection::new(config, Box::new(Seeded::new(2)), Instant::ORIGIN);
        Self::new(Subject::Server(Box::new(conn)), Puppet::null(Side::Client))
    }

    /// Both of them.
    pub fn new(subject: Subject, puppet: Puppet) -> Self {
        Self {
            subject,
            puppet,
            now: Instant::ORIGIN,
            input: BytesMut::new(),
            events: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// Makes the peer one without strict key exchange.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.puppet.strict = strict;
        self
    }

    // ----- The connection.

    /// Its role.
    pub fn side(&self) -> Side {
        match &self.subject {
            Subject::Client(_) => Side::Client,
            Subject::Server(_) => Side::Server,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        either!(&self.subject, conn => conn.gate_state())
    }

    /// What it holds.
    pub fn memory(&self) -> MemoryUsage {
        either!(&self.subject, conn => conn.memory_usage())
    }

    /// The client.
    pub fn as_client(&mut self) -> &mut ClientConnection {
        match &mut self.subject {
            Subject::Client(conn) => conn,
            Subject::Server(_) => panic!("the subject is a server"),
        }
    }

    /// The server.
    pub fn as_server(&mut self) -> &mut ServerConnection {
        match &mut self.subject {
            Subject::Server(conn) => conn,
            Subject::Client(_) => panic!("the subject is a client"),
        }
    }

    /// Lets it do everything it can: take input, raise events, send.
    pub fn settle(&mut self) {
        loop {
            let before = (self.input.len(), self.events.len(), self.heard.len());
            let (input, now) = (&mut self.input, self.now);
            let events = &mut self.events;
            match &mut self.subject {
                Subject::Client(conn) => {
                    conn.handle_input(now, input);
                    events.extend(core::iter::from_fn(|| conn.poll_event()).map(Event::Client));
                }
                Subject::Server(conn) => {
                    conn.handle_input(now, input);
                    events.extend(core::iter::from_fn(|| conn.poll_event()).map(Event::Server));
                }
            }
            self.flush();
            if before == (self.input.len(), self.events.len(), self.heard.len()) {
                break;
            }
        }
    }

    /// Lets the peer read what is there.
    pub fn flush(&mut self) {
        let output = either!(&self.subject, conn => conn.output().to_vec());
        either!(&mut self.subject, conn => conn.consume_output(output.len()));
        self.heard.extend(self.puppet.hear(&output));
    }

    /// The clock moves on.
    pub fn wait(&mut self, by: Duration) {
        self.now = self.now + by;
        let now = self.now;
        either!(&mut self.subject, conn => conn.handle_timeout(now));
        self.settle();
    }

    /// Takes the events that are there.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.settle();
        core::mem::take(&mut self.events)
    }

    /// Takes the packets that are there.
    pub fn take_heard(&mut self) -> Vec<Heard> {
        self.settle();
        core::mem::take(&mut self.heard)
    }

    /// Takes the first event that `pick` takes.
    pub fn take<T>(&mut self, pick: impl Fn(Event) -> Result<T, Event>) -> T {
        self.settle();
        for at in 0..self.events.len() {
            let event = self.events.remove(at);
            match pick(event) {
                Ok(value) => return value,
                Err(event) => self.events.insert(at, event),
            }
        }
        panic!("no such event among {:?}", self.events);
    }

    /// Asserts that the last event is the end, the only one, and gives its reason.
    pub fn closed(&mut self) -> CloseReason {
        self.settle();
        let ends = self.events.iter().filter(|event| event.closed().is_some()).count();
        assert_eq!(ends, 1, "one Closed among {:?}", self.events);
        let last = self.events.last().and_then(Event::closed);
        last.unwrap_or_else(|| panic!("Closed is last in {:?}", self.events)).clone()
    }

    /// Whether the connection told its end.
    pub fn is_over(&self) -> bool {
        self.events.iter().any(|event| event.closed().is_some())
    }

    /// The reason codes of the DISCONNECTs the peer read.
    pub fn disconnects(&mut self) -> Vec<u32> {
        self.settle();
        let packets = self.heard.iter().filter(|heard| heard.number() == number::DISCONNECT);
        packets
            .map(|heard| transport::Disconnect::decode(&heard.payload).expect("well-formed").code)
            .collect()
    }

    /// Asserts that the connection ended over this rule, broken by this message, and that the peer read the
    /// DISCONNECT that goes with it.
    #[track_caller]
    pub fn assert_broken(&mut self, rule: PeerMisbehaved, message: Option<u8>) {
        assert_eq!(self.closed(), CloseReason::PeerMisbehaved { rule, message });
        let code = rule.disconnect_code().map(|code| code.0);
        assert_eq!(self.disconnects(), Vec::from_iter(code), "{rule:?}");
    }

    /// Whatever is still to come: bytes, time, the end of bytes. Nothing may come of it.
    #[track_caller]
    pub fn assert_silent_after_the_end(&mut self) {
        assert!(self.is_over());
        let counts = (self.events.len(), self.heard.len());
        self.say_bytes(&[0; 64]);
        let now = self.now;
        either!(&mut self.subject, conn => conn.handle_eof(now));
        self.wait(Duration::from_secs(600));
        assert_eq!(counts, (self.events.len(), self.heard.len()), "silence after the end");
    }

    // ----- The peer.

    /// Raw bytes of the peer.
    pub fn say_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.settle();
    }

    /// A packet of the peer, under the keys of the moment.
    pub fn say(&mut self, payload: &[u8]) {
        let packet = self.puppet.seal(payload);
        self.say_bytes(&packet);
    }

    /// A message of the peer.
    pub fn tell<'a>(&mut self, message: &impl Message<'a>) {
        self.say(&encoded(message));
    }

    /// The identification line, both ways.
    pub fn hello(&mut self) {
        let line = [&self.puppet.ident[..], b"\r\n"].concat();
        self.say_bytes(&line);
    }

    /// A KEXINIT of the peer.
    pub fn kexinit(&mut self, edit: impl FnOnce(&mut Offer)) {
        let mut offer = self.puppet.offer();
        edit(&mut offer);
        self.puppet.our_init = offer.payload();
        let payload = self.puppet.our_init.clone();
        self.say(&payload);
    }

    /// The peer's method message: 30 of a client, 31 of a server.
    pub fn method(&mut self) {
        let payload = match self.puppet.side() {
            Side::Client => self.puppet.init(),
            Side::Server => self.puppet.reply(),
        };
        self.say(&payload);
    }

    /// The client accepts the host key it asked about.
    pub fn accept_host_key(&mut self) {
        let check = self.take(|event| match event {
            Event::Client(ClientEvent::HostKey(check)) => Ok(check),
            event => Err(event),
        });
        self.as_client().accept_host_key(check).expect("the question is open");
        self.settle();
    }

    /// The peer's NEWKEYS.
    pub fn new_keys(&mut self) {
        let packet = self.puppet.new_keys();
        self.say_bytes(&packet);
    }

    /// A whole exchange, from the peer's KEXINIT on.
    pub fn exchange(&mut self) {
        let first = self.puppet.session_id.is_empty();
        self.kexinit(|_| {});
        self.method();
        if first && self.side() == Side::Client {
            self.accept_host_key();
        }
        self.new_keys();
    }

    /// The service of authentication, asked for and granted.
    pub fn service(&mut self) {
        match self.puppet.side() {
            Side::Client => self.tell(&transport::ServiceRequest { service: "ssh-userauth" }),
            Side::Server => self.tell(&transport::ServiceAccept { service: "ssh-userauth" }),
        }
    }

    /// Logs in with the method `none`.
    pub fn login(&mut self) {
        use ssh_proto::raw::auth::{Method, UserauthRequest, UserauthSuccess};
        match self.side() {
            Side::Client => {
                self.as_client().authenticate("user", ssh_proto::Credential::None).expect("idle");
                self.settle();
                self.tell(&UserauthSuccess {});
            }
            Side::Server => {
                self.tell(&UserauthRequest { user: "user", service: "ssh-connection", method: Method::None });
                self.answer_auth(AuthVerdict::Accept);
            }
        }
    }

    /// The server decides on the request it asked about.
    pub fn answer_auth(&mut self, verdict: AuthVerdict) {
        let request = self.take(|event| match event {
            Event::Server(ServerEvent::Auth(request)) => Ok(request),
            event => Err(event),
        });
        self.as_server().reply_auth(request, verdict).expect("the question is open");
        self.settle();
    }

    /// Everything up to a login; what was raised and sent on the way is dropped.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        self.hello();
        self.exchange();
        self.service();
        self.login();
        assert_eq!(self.state(), State::Authed);
        self.forget();
        self
    }

    /// Drops what was raised and sent so far.
    pub fn forget(&mut self) {
        self.settle();
        self.events.clear();
        self.heard.clear();
    }

    /// Opens a session: the client's number 0, the server's number 0. Gives the subject's id.
    pub fn open_session(&mut self, window: u32) -> ChannelId {
        let id = match self.side() {
            Side::Client => {
                let conn = self.as_client();
                let id = conn.open_channel(&ssh_proto::ChannelKind::Session, ChannelConfig::default());
                self.settle();
                self.tell(&channel::ChannelOpenConfirmation {
                    recipient: 0,
                    sender: 7,
                    window,
                    max_packet: 32768,
                    data: b"",
                });
                id.expect("there is room")
            }
            Side::Server => {
                self.open_from_peer(7, window);
                let request = self.take(|event| match event {
                    Event::Server(ServerEvent::Open(request)) => Ok(request),
                    event => Err(event),
                });
                self.as_server().accept_channel(request, ChannelConfig::default()).expect("there is room")
            }
        };
        self.forget();
        id
    }

    /// The peer opens a channel with its number `sender`: at a server a session.
    pub fn open_from_peer(&mut self, sender: u32, window: u32) {
        let kind: &[u8] = if self.side() == Side::Server { b"session" } else { b"x@ssh-tests.invalid" };
        self.tell(&channel::ChannelOpen { kind, sender, window, max_packet: 32768, data: b"" });
    }

    /// Reads what has arrived on a channel, to its end.
    pub fn read_all(&mut self, id: ChannelId, stream: Stream) -> (Vec<u8>, ReadError) {
        let mut all = Vec::new();
        loop {
            match either!(&mut self.subject, conn => conn.channel(id).expect("known").read(stream, 1 << 20)) {
                Ok(data) => all.extend_from_slice(&data),
                Err(end) => return (all, end),
            }
        }
    }

    /// The subject asks for new keys.
    pub fn rekey(&mut self) {
        either!(&mut self.subject, conn => conn.rekey());
        self.settle();
    }

    /// The subject ends the connection.
    pub fn close(&mut self) {
        either!(&mut self.subject, conn => conn.close(Disconnect::by_application()));
        self.settle();
    }
}

/// A message as a payload.
pub fn encoded<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut payload = Vec::new();
    message.encode(&mut payload);
    payload
}
