//! One side of a pair: a connection, its input, and an embedder made of policies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use ssh_proto::{
    AnswerError, AuthIdentity, AuthMethods, AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, Client,
    ClientEvent, CloseReason, Connection, Entropy, GlobalReply, Instant, OpenFailure, OpenFailureCode,
    ReadError, Role, Server, ServerEvent, SignRefused, Stream,
};

use crate::null;

/// What becomes of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Answered with yes.
    Yes,
    /// Answered with no.
    No,
    /// Dropped.
    Drop,
    /// Left to the test, among [`End::events`].
    Keep,
}

/// How a side answers, and whether it reads.
#[derive(Debug, Clone)]
pub struct Policy {
    /// `HostKey`.
    pub host_key: Answer,
    /// `Sign`, with [`null::sign`].
    pub sign: Answer,
    /// `Auth`.
    pub auth: Answer,
    /// `Probe`.
    pub probe: Answer,
    /// `Open`.
    pub open: Answer,
    /// A channel's `Request`.
    pub request: Answer,
    /// `Global`.
    pub global: Answer,
    /// How many bytes of data a yes to it has.
    pub global_data: usize,
    /// Whether readable streams are read until they are empty, into [`End::received`].
    pub read: bool,
    /// What accepted channels start with.
    pub channel: ChannelConfig,
}

impl Policy {
    /// Leaves everything to the test.
    pub fn keep() -> Self {
        let keep = Answer::Keep;
        Self {
            host_key: keep,
            sign: keep,
            auth: keep,
            probe: keep,
            open: keep,
            request: keep,
            global: keep,
            global_data: 0,
            read: false,
            channel: ChannelConfig::default(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        let yes = Answer::Yes;
        Self {
            host_key: yes,
            sign: yes,
            auth: yes,
            probe: yes,
            open: yes,
            request: yes,
            global: yes,
            global_data: 0,
            read: true,
            channel: ChannelConfig::default(),
        }
    }
}

/// What was read of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What came behind them, when something did.
    pub end: Option<ReadError>,
}

/// One side.
#[derive(Debug)]
pub struct End<R: Role> {
    /// The connection.
    pub conn: Connection<R>,
    /// Bytes that arrived and were not taken yet.
    pub input: BytesMut,
    /// How tickets are answered.
    pub policy: Policy,
    /// Every event that the policy did not deal with, oldest first.
    pub events: VecDeque<R::Event>,
    /// Every event, in words.
    pub trace: Vec<String>,
    /// Channels of the peer that were accepted, in order.
    pub accepted: Vec<ChannelId>,
    /// What was read.
    pub received: BTreeMap<(ChannelId, Stream), Received>,
    /// Who logged in here.
    pub identity: Option<AuthIdentity>,
    /// Logged in.
    pub authenticated: bool,
    /// Why it ended.
    pub closed: Option<CloseReason>,
    /// The policy is asleep: `turn` takes input and leaves the events where they are.
    pub frozen: bool,
    readable: Vec<(ChannelId, Stream)>,
}

/// A role whose events the simulator knows.
pub trait Peer: Role + Sized {
    /// A new connection.
    fn connect(config: Arc<Self::Config>, entropy: Box<dyn Entropy + Send>) -> Connection<Self>;
    /// The next event.
    fn poll(conn: &mut Connection<Self>) -> Option<Self::Event>;
    /// Answers an event by the policy; what is left of it goes to the test.
    fn react(end: &mut End<Self>, event: Self::Event) -> Option<Self::Event>;
    /// The channel an event is about, and what it says.
    fn channel_event(event: &Self::Event) -> Option<(ChannelId, &ChannelEvent)>;
    /// An event in words that do not depend on addresses.
    fn describe(event: &Self::Event) -> String;
}

impl<R: Peer> End<R> {
    /// A side that has just connected.
    pub fn new(config: Arc<R::Config>, entropy: impl Entropy + Send + 'static) -> Self {
        Self {
            conn: R::connect(config, Box::new(entropy)),
            input: BytesMut::new(),
            policy: Policy::default(),
            events: VecDeque::new(),
            trace: Vec::new(),
            accepted: Vec::new(),
            received: BTreeMap::new(),
            identity: None,
            authenticated: false,
            closed: None,
            frozen: false,
            readable: Vec::new(),
        }
    }

    /// Takes input and answers events until nothing is left to do without the world. Says whether anything
    /// was done.
    pub fn turn(&mut self, now: Instant) -> bool {
        let mut busy = false;
        loop {
            let before = self.input.len();
            self.conn.handle_input(now, &mut self.input);
            busy |= self.input.len() != before;
            let told = !self.frozen && self.poll(usize::MAX) > 0;
            busy |= told;
            let read = !self.frozen && self.read_all();
            if !told && !read {
                return busy;
            }
        }
    }

    /// Takes at most so many events, and says how many there were.
    pub fn poll(&mut self, most: usize) -> usize {
        let mut told = 0;
        while told < most
            && let Some(event) = R::poll(&mut self.conn)
        {
            told += 1;
            assert!(self.closed.is_none(), "an event after Closed: {}", R::describe(&event));
            self.trace.push(R::describe(&event));
            if let Some(event) = R::react(self, event) {
                self.events.push_back(event);
            }
        }
        told
    }

    /// Answers what was kept, by this policy. Says whether there was anything.
    pub fn answer(&mut self, policy: &Policy) -> bool {
        let kept = std::mem::replace(&mut self.policy, policy.clone());
        let events = std::mem::take(&mut self.events);
        let any = !events.is_empty();
        for event in events {
            let _ = R::react(self, event);
        }
        self.read_all();
        self.policy = kept;
        any
    }

    /// Reads every stream that became readable until it is empty.
    fn read_all(&mut self) -> bool {
        if !self.policy.read {
            return false;
        }
        let streams = std::mem::take(&mut self.readable);
        streams.iter().for_each(|(id, stream)| self.read(*id, *stream));
        !streams.is_empty()
    }

    /// Reads a stream until it has nothing more.
    pub fn read(&mut self, id: ChannelId, stream: Stream) {
        let received = self.received.entry((id, stream)).or_default();
        let Ok(mut channel) = self.conn.channel(id) else { return };
        loop {
            match channel.read(stream, usize::MAX) {
                Ok(bytes) => received.bytes.extend_from_slice(&bytes),
                Err(ReadError::Blocked) => return,
                Err(end) => return received.end = Some(end),
            }
        }
    }

    /// The bytes read of a stream so far.
    pub fn bytes(&self, id: ChannelId, stream: Stream) -> &[u8] {
        self.received.get(&(id, stream)).map(|received| &received.bytes[..]).unwrap_or_default()
    }

    /// Takes the first waiting event that fits.
    pub fn take<T>(&mut self, mut fits: impl FnMut(R::Event) -> Result<T, R::Event>) -> Option<T> {
        let mut found = None;
        for event in std::mem::take(&mut self.events) {
            match found {
                Some(_) => self.events.push_back(event),
                None => match fits(event) {
                    Ok(value) => found = Some(value),
                    Err(event) => self.events.push_back(event),
                },
            }
        }
        found
    }

    /// Whether an event was raised whose words contain this.
    pub fn saw(&self, words: &str) -> bool {
        self.trace.iter().any(|event| event.contains(words))
    }

    /// How many events were raised whose words contain this.
    pub fn count(&self, words: &str) -> usize {
        self.trace.iter().filter(|event| event.contains(words)).count()
    }
}

/// A ticket of this side is answered, or gone because the connection is.
fn answered(result: Result<(), AnswerError>) {
    assert!(matches!(result, Ok(()) | Err(AnswerError::Gone)), "{result:?}");
}

/// Takes the first waiting event of a shape: `take!(end, ClientEvent::HostKey(check) => check)`.
#[macro_export]
macro_rules! take {
    ($end:expr, $pattern:pat $(if $guard:expr)? => $value:expr) => {
        $end.take(|event| match event {
            $pattern $(if $guard)? => Ok($value),
            other => Err(other),
        })
        .unwrap_or_else(|| panic!("no event {}; there were {:#?}", stringify!($pattern), $end.trace))
    };
}

/// The events both roles have.
macro_rules! react {
    ($end:ident, $event:ident, $Event:ident, { $($own:tt)* }) => {
        match $event {
            $($own)*
            $Event::Sign(ticket) => match $end.policy.sign {
                Answer::Keep => Some($Event::Sign(ticket)),
                Answer::Drop => None,
                answer => {
                    let to_sign = ticket.to_sign();
                    let signature = match answer {
                        Answer::Yes => Ok(null::sign(to_sign.key(), to_sign.message())),
                        _ => Err(SignRefused),
                    };
                    answered($end.conn.provide_signature(ticket, signature));
                    None
                }
            },
            $Event::Open(ticket) => match $end.policy.open {
                Answer::Keep => Some($Event::Open(ticket)),
                Answer::Drop => None,
                Answer::Yes => {
                    if let Ok(id) = $end.conn.accept_channel(ticket, $end.policy.channel) {
                        $end.accepted.push(id);
                    }
                    None
                }
                Answer::No => {
                    let why = OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "no");
                    answered($end.conn.reject_channel(ticket, why));
                    None
                }
            },
            $Event::Global(ticket) => {
                let data = vec![0; $end.policy.global_data];
                let reply = match $end.policy.global {
                    Answer::Keep => return Some($Event::Global(ticket)),
                    Answer::Drop => return None,
                    Answer::Yes => GlobalReply::Success(&data),
                    Answer::No => GlobalReply::Failure,
                };
                    answered($end.conn.reply_global(ticket, reply));
                None
            }
            $Event::Channel(id, ChannelEvent::Request(ticket)) => match $end.policy.request {
                Answer::Keep => Some($Event::Channel(id, ChannelEvent::Request(ticket))),
                Answer::Drop => None,
                answer => {
                    let _ = $end.conn.reply_request(ticket, answer == Answer::Yes);
                    None
                }
            },
            $Event::Channel(id, ChannelEvent::Readable(stream)) if $end.policy.read => {
                $end.readable.push((id, stream));
                None
            }
            $Event::Closed(reason) => {
                $end.closed = Some(reason.clone());
                Some($Event::Closed(reason))
            }
            other => Some(other),
        }
    };
}

/// What both roles say in the same words.
macro_rules! describe {
    ($event:ident, $Event:ident, { $($own:tt)* }) => {
        match $event {
            $($own)*
            $Event::Sign(ticket) => format!("Sign {:?}", ticket.to_sign().purpose()),
            $Event::Open(ticket) => format!("Open {:?}", ticket.kind()),
            $Event::Global(ticket) => format!("Global {:?} {}", ticket.kind(), ticket.wants_reply()),
            $Event::Channel(id, ChannelEvent::Request(ticket)) => {
                let after = Stream::Data;
                format!("{id:?} Request {:?} {} {}", ticket.kind(), ticket.wants_reply(), ticket.after(after))
            }
            $Event::Channel(id, event) => format!("{id:?} {event:?}"),
            other => format!("{other:?}"),
        }
    };
}

impl Peer for Client {
    fn connect(config: Arc<Self::Config>, entropy: Box<dyn Entropy + Send>) -> Connection<Self> {
        Connection::<Self>::new(config, entropy, Instant::ORIGIN)
    }

    fn poll(conn: &mut Connection<Self>) -> Option<ClientEvent> {
        conn.poll_event()
    }

    fn react(end: &mut End<Self>, event: ClientEvent) -> Option<ClientEvent> {
        react!(end, event, ClientEvent, {
            ClientEvent::HostKey(check) => {
                match end.policy.host_key {
                    Answer::Yes => answered(end.conn.accept_host_key(check)),
                    Answer::No => answered(end.conn.reject_host_key(check)),
                    Answer::Drop => drop(check),
                    Answer::Keep => return Some(ClientEvent::HostKey(check)),
                }
                None
            }
            ClientEvent::Authenticated => {
                end.authenticated = true;
                Some(ClientEvent::Authenticated)
            }
        })
    }

    fn channel_event(event: &ClientEvent) -> Option<(ChannelId, &ChannelEvent)> {
        match event {
            ClientEvent::Channel(id, event) => Some((*id, event)),
            _ => None,
        }
    }

    fn describe(event: &ClientEvent) -> String {
        describe!(event, ClientEvent, {
            ClientEvent::HostKey(check) => format!("HostKey {}", check.key().fingerprint()),
        })
    }
}

impl Peer for Server {
    fn connect(config: Arc<Self::Config>, entropy: Box<dyn Entropy + Send>) -> Connection<Self> {
        Connection::<Self>::new(config, entropy, Instant::ORIGIN)
    }

    fn poll(conn: &mut Connection<Self>) -> Option<ServerEvent> {
        conn.poll_event()
    }

    fn react(end: &mut End<Self>, event: ServerEvent) -> Option<ServerEvent> {
        react!(end, event, ServerEvent, {
            ServerEvent::Auth(request) => {
                let verdict = match end.policy.auth {
                    Answer::Keep => return Some(ServerEvent::Auth(request)),
                    Answer::Drop => return None,
                    Answer::Yes => AuthVerdict::Accept,
                    Answer::No => AuthVerdict::Reject { next: AuthMethods::default() },
                };
                answered(end.conn.reply_auth(request, verdict));
                None
            }
            ServerEvent::Probe(probe) => {
                match end.policy.probe {
                    Answer::Keep => return Some(ServerEvent::Probe(probe)),
                    Answer::Drop => drop(probe),
                    answer => answered(end.conn.reply_probe(probe, answer == Answer::Yes)),
                }
                None
            }
            ServerEvent::Authenticated(identity) => {
                end.authenticated = true;
                end.identity = Some(identity.clone());
                Some(ServerEvent::Authenticated(identity))
            }
        })
    }

    fn channel_event(event: &ServerEvent) -> Option<(ChannelId, &ChannelEvent)> {
        match event {
            ServerEvent::Channel(id, event) => Some((*id, event)),
            _ => None,
        }
    }

    fn describe(event: &ServerEvent) -> String {
        describe!(event, ServerEvent, {
            ServerEvent::Probe(probe) => format!("Probe {} {:?}", probe.user(), probe.key()),
            ServerEvent::Auth(request) => format!("Auth {} {:?}", request.user(), request.proof()),
        })
    }
}
