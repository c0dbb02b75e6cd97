//! What differs between the roles: events, tickets and their answers, configurations.

use std::sync::Arc;

use ssh_proto::{
    AuthMethods, AuthRequest, AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelRequest, Client,
    ClientConfig, ClientEvent, CloseReason, Connection, Credential, Entropy, GlobalReply, GlobalRequest,
    HostKeyCheck, KeyProbe, Limits, OpenFailure, OpenFailureCode, OpenRequest, RekeyPolicy, Role, Secret,
    Server, ServerConfig, ServerEvent, SignRefused, SignRequest, Signature, Stream,
};
use ssh_tests::config::HOST_KEY;
use ssh_tests::{FailsAt, Peer, Seeded, external_key, null, null_client, null_key};

use crate::input::Input;

/// A question of a connection.
#[derive(Debug)]
pub enum Ticket {
    /// Of a client.
    HostKey(HostKeyCheck),
    /// Of a server about its host key, of a client about a user's.
    Sign(SignRequest),
    /// Of a server.
    Probe(KeyProbe),
    /// Of a server.
    Auth(AuthRequest),
    /// Of both.
    Open(OpenRequest),
    /// Of both.
    Request(ChannelRequest),
    /// Of both.
    Global(GlobalRequest),
}

/// An event, as far as the oracles care.
#[derive(Debug)]
pub enum Told {
    /// One that comes before authentication is complete.
    Early,
    /// `Authenticated`.
    LoggedIn,
    /// One that comes only after authentication.
    Late,
    /// A channel is there.
    Channel(ChannelId),
    /// A channel's stream has something.
    Readable(ChannelId, Stream),
    /// A question before authentication.
    AskedEarly(Ticket),
    /// A question after it.
    AskedLate(Ticket),
    /// A signature is wanted; by a server at any time.
    Sign(SignRequest),
    /// The end.
    Closed(CloseReason),
}

/// How a connection is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup(pub u8);

impl Setup {
    fn limits(self, limits: &mut Limits) {
        if self.0 & 1 != 0 {
            limits.events = 4;
            limits.max_channels = 3;
            limits.pending_opens = 2;
            limits.pending_requests = 2;
            limits.pending_globals = 2;
            limits.pending_global_tickets = 2;
            limits.env_requests = 2;
            limits.owed_replies = 512;
            limits.noise_burst = 8;
            limits.max_borrowed = 2;
            limits.min_window = 1000;
            limits.recv_budget = 100_000;
            limits.output = 64 * 1024;
            limits.outbox_bytes = 40 * 1024;
            limits.outbox_messages = 4;
            limits.small_rekeys_per_minute = None;
        }
        if self.0 & 2 != 0 {
            limits.keepalive_interval = Some(core::time::Duration::from_secs(5));
            limits.idle_timeout = Some(core::time::Duration::from_secs(60));
        }
        limits.lenient_window = self.0 & 4 != 0;
    }

    fn rekey(self, rekey: &mut RekeyPolicy) {
        if self.0 & 8 != 0 {
            rekey.bytes = 8 * 1024;
            rekey.packets = 64;
            rekey.interval = Some(core::time::Duration::from_secs(20));
        }
    }

    /// A random source, which may fail sooner or later.
    pub fn entropy(self) -> Box<dyn Entropy + Send> {
        match self.0 & 64 {
            0 => Box::new(Seeded::new(1)),
            _ => Box::new(FailsAt::call(usize::from(self.0 & 31))),
        }
    }

    /// Whether payloads stay readable on the wire.
    pub fn is_legible(self) -> bool {
        self.0 & 32 == 0
    }

    fn cipher(self) -> &'static str {
        if self.is_legible() { null::CIPHER } else { null::STREAM }
    }

    fn client(self, tuned: bool) -> Arc<ClientConfig> {
        let guess = tuned && self.0 & 16 != 0;
        let mut builder = null_client().ciphers(&[self.cipher()]).guess_kex(guess);
        if tuned {
            builder = builder.with_limits(|limits| self.limits(limits)).with_rekey(|rekey| self.rekey(rekey));
        }
        builder.build().expect("a client")
    }

    fn server(self, tuned: bool) -> Arc<ServerConfig> {
        let key = if tuned && self.0 & 16 != 0 { external_key(HOST_KEY) } else { null_key(HOST_KEY) };
        let mut builder = ServerConfig::builder(&null::PROVIDER).ciphers(&[self.cipher()]).host_key(key);
        if tuned {
            builder = builder.with_limits(|limits| self.limits(limits)).with_rekey(|rekey| self.rekey(rekey));
        }
        builder.build().expect("a server")
    }
}

/// The role under test.
pub trait Subject: Peer {
    /// The role of its peer.
    type Other: Subject;
    /// Its configuration; the one under test is tuned by the fuzz input, its peer is as by default.
    fn config(setup: Setup, tuned: bool) -> Arc<Self::Config>;
    /// The bounds in force.
    fn limits(config: &Self::Config) -> Limits;
    /// What an event is about.
    fn told(event: Self::Event) -> Told;
    /// The commands only this role has.
    fn own_command(conn: &mut Connection<Self>, input: &mut Input<'_>);
    /// Answers a ticket only this role has, or drops it. Whether that lets the connection go on to log in.
    fn answer_own(conn: &mut Connection<Self>, ticket: Ticket, how: u8) -> bool;
}

macro_rules! told {
    ($event:ident, $Event:ident, { $($own:tt)* }) => {
        match $event {
            $($own)*
            $Event::Sign(ticket) => Told::Sign(ticket),
            $Event::Opened(id) => Told::Channel(id),
            $Event::Open(ticket) => Told::AskedLate(Ticket::Open(ticket)),
            $Event::Global(ticket) => Told::AskedLate(Ticket::Global(ticket)),
            $Event::Channel(_, ChannelEvent::Request(ticket)) => Told::AskedLate(Ticket::Request(ticket)),
            $Event::Channel(id, ChannelEvent::Readable(stream)) => Told::Readable(id, stream),
            $Event::Channel(..) | $Event::OpenFailed(..) | $Event::GlobalReply(..) => Told::Late,
            $Event::Ready | $Event::Rekeyed => Told::Late,
            $Event::Closed(reason) => Told::Closed(reason),
        }
    };
}

impl Subject for Client {
    type Other = Server;

    fn config(setup: Setup, tuned: bool) -> Arc<ClientConfig> {
        setup.client(tuned)
    }

    fn limits(config: &ClientConfig) -> Limits {
        config.limits().clone()
    }

    fn told(event: ClientEvent) -> Told {
        told!(event, ClientEvent, {
            ClientEvent::HostKey(ticket) => Told::AskedEarly(Ticket::HostKey(ticket)),
            ClientEvent::Banner(_) | ClientEvent::AuthFailed { .. } => Told::Early,
            ClientEvent::Authenticated => Told::LoggedIn,
        })
    }

    fn own_command(conn: &mut Connection<Self>, input: &mut Input<'_>) {
        let credential = match input.below(6) {
            0 => Credential::None,
            1 => Credential::Password(Secret::from("secret")),
            2 => Credential::PublicKey { key: null_key(2), probe: true },
            3 => Credential::PublicKey { key: external_key(3), probe: true },
            4 => Credential::PublicKey { key: external_key(4), probe: false },
            _ => Credential::PublicKey { key: null_key(5), probe: false },
        };
        let _ = conn.authenticate("user", credential);
    }

    fn answer_own(conn: &mut Connection<Self>, ticket: Ticket, how: u8) -> bool {
        match (ticket, how) {
            (Ticket::HostKey(ticket), 0) => conn.accept_host_key(ticket).is_ok(),
            (Ticket::HostKey(ticket), 1) => {
                let _ = conn.reject_host_key(ticket);
                false
            }
            _ => false,
        }
    }
}

impl Subject for Server {
    type Other = Client;

    fn config(setup: Setup, tuned: bool) -> Arc<ServerConfig> {
        setup.server(tuned)
    }

    fn limits(config: &ServerConfig) -> Limits {
        config.limits().clone()
    }

    fn told(event: ServerEvent) -> Told {
        told!(event, ServerEvent, {
            ServerEvent::Probe(ticket) => Told::AskedEarly(Ticket::Probe(ticket)),
            ServerEvent::Auth(ticket) => Told::AskedEarly(Ticket::Auth(ticket)),
            ServerEvent::Authenticated(_) => Told::LoggedIn,
        })
    }

    fn own_command(conn: &mut Connection<Self>, input: &mut Input<'_>) {
        let _ = conn.banner(&"b".repeat(input.size()));
    }

    fn answer_own(conn: &mut Connection<Self>, ticket: Ticket, how: u8) -> bool {
        let next = AuthMethods::default();
        match (ticket, how) {
            (Ticket::Probe(ticket), 0 | 1) => {
                let _ = conn.reply_probe(ticket, how == 0);
                false
            }
            (Ticket::Auth(ticket), 0) => conn.reply_auth(ticket, AuthVerdict::Accept).is_ok(),
            (Ticket::Auth(ticket), 1) => {
                let _ = conn.reply_auth(ticket, AuthVerdict::Reject { next });
                false
            }
            (Ticket::Auth(ticket), 2) => {
                let _ = conn.reply_auth(ticket, AuthVerdict::Partial { next: AuthMethods::PASSWORD });
                false
            }
            _ => false,
        }
    }
}

/// Answers a ticket: 0 is yes, 1 no, 2 something else, anything else drops it. Whether that lets the
/// connection go on to log in.
pub fn answer<S: Subject>(
    conn: &mut Connection<S>,
    ticket: Ticket,
    how: u8,
    channels: &mut Vec<ChannelId>,
) -> bool {
    match (ticket, how) {
        (Ticket::Sign(ticket), 0..=2) => {
            let to_sign = ticket.to_sign();
            let signature = match how {
                0 => Ok(null::sign(to_sign.key(), to_sign.message())),
                1 => Err(SignRefused),
                _ => Ok(Signature::new(null::NAME, [0; 32])),
            };
            let _ = conn.provide_signature(ticket, signature);
        }
        (Ticket::Open(ticket), 0 | 2) => {
            let window = if how == 0 { 2 << 20 } else { 100 };
            let config = ChannelConfig::default().with_window(window);
            channels.extend(conn.accept_channel(ticket, config));
        }
        (Ticket::Open(ticket), 1) => {
            let _ = conn.reject_channel(ticket, OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "no"));
        }
        (Ticket::Request(ticket), 0 | 1) => {
            let _ = conn.reply_request(ticket, how == 0);
        }
        (Ticket::Global(ticket), 0..=2) => {
            let long = [0; 30_000];
            let reply = match how {
                0 => GlobalReply::Success(b"port"),
                1 => GlobalReply::Failure,
                _ => GlobalReply::Success(&long),
            };
            let _ = conn.reply_global(ticket, reply);
        }
        (ticket @ (Ticket::HostKey(_) | Ticket::Probe(_) | Ticket::Auth(_)), _) => {
            return S::answer_own(conn, ticket, how);
        }
        _ => {}
    }
    false
}

/// A command both roles have, on a channel of `channels` where one is meant.
pub fn command<R: Role>(conn: &mut Connection<R>, channels: &mut Vec<ChannelId>, input: &mut Input<'_>) {
    use ssh_proto::{ChannelKind, ChannelRequestKind, Disconnect, ExitStatus, GlobalRequestKind, StderrMode};
    let what = input.byte();
    let stream = if what & 128 == 0 { Stream::Data } else { Stream::Stderr };
    let what = what & 127;
    match what % 24 {
        0 => {
            let windows = [0, 1, 100, 32_768, 40_000, 2 << 20, u32::MAX];
            let stderr = [StderrMode::Separate, StderrMode::Combined, StderrMode::Discard];
            let config = ChannelConfig::default()
                .with_window(windows[input.below(windows.len())])
                .with_stderr(stderr[input.below(3)]);
            let kind = match input.below(3) {
                0 => ChannelKind::Session,
                1 => ChannelKind::DirectTcpip {
                    host: "host".into(),
                    port: 22,
                    originator: "o".into(),
                    originator_port: 1,
                },
                _ => ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![0; input.size()] },
            };
            return channels.extend(conn.open_channel(&kind, config));
        }
        1 => {
            let data = vec![0; input.size()];
            let _ = conn.global_request(&GlobalRequestKind { name: "x@ssh-tests.invalid".into(), data });
            return;
        }
        2 => return conn.rekey(),
        3 if what == 3 => return conn.close(Disconnect::by_application()),
        _ => {}
    }
    let Some(&id) = channels.get(input.below(channels.len())) else { return };
    let Ok(mut channel) = conn.channel(id) else { return };
    match what % 24 {
        4..=7 => {
            let size = input.size();
            let capacity = channel.capacity(stream);
            let sent = channel.write(stream, &vec![b'd'; size]);
            assert!(sent.is_err() || capacity > 0 || size == 0, "a write went beyond the capacity");
        }
        8 | 9 => {
            let _ = channel.read(stream, input.size());
        }
        10 => while channel.read(stream, usize::MAX).is_ok_and(|bytes| !bytes.is_empty()) {},
        11 => {
            let mut into = vec![0; input.size()];
            let _ = channel.read_into(stream, &mut into);
        }
        12 => {
            let have = channel.peek(stream).len();
            channel.consume(stream, input.size().min(have));
        }
        13 => channel.consume(stream, input.size()),
        14 => {
            let how = [StderrMode::Separate, StderrMode::Combined, StderrMode::Discard];
            channel.set_stderr(how[input.below(3)]);
        }
        15 => {
            let _ = channel.eof();
        }
        16 | 17 => channel.close(),
        18 => {
            channel.abort();
        }
        19 => channel.release(),
        _ => {
            let want_reply = input.byte() & 1 == 0;
            let kind = match input.below(5) {
                0 => ChannelRequestKind::Shell,
                1 => ChannelRequestKind::exec(vec![b'e'; input.size()]),
                2 => ChannelRequestKind::env("A", "b"),
                3 => ChannelRequestKind::Exit(ExitStatus::Code(1)),
                _ => ChannelRequestKind::Other {
                    name: "x@ssh-tests.invalid".into(),
                    data: vec![0; input.size()],
                },
            };
            let _ = channel.request(&kind, want_reply);
        }
    }
}
