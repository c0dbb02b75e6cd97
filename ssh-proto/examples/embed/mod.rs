//! What the two examples share: a client and a server that decide, and do no I/O.
//!
//! The client logs in with a key and runs one command; the server's "program" sends its input back in capitals.
//! Each is told of events and uses the connection it belongs to; who moves the bytes is not its business.

use std::error::Error;
use std::sync::OnceLock;
use std::time::Instant as StdInstant;

use bytes::{Buf, Bytes};
use ssh_proto::crypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{
    AuthMethods, AuthProof, AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelKind,
    ChannelRequestKind, Client, ClientConfig, ClientEvent, CloseReason, Connection, Credential, Disconnect,
    Entropy, EntropyError, ExitStatus, Instant, PublicKey, ReadError, Role, Server, ServerConfig,
    ServerEvent, Stream, WriteError,
};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

pub(crate) type Outcome = Result<(), Failure>;

/// How much the client sends: enough to fill every buffer on the way several times.
const SENT: usize = 8 << 20;

/// One end: a connection and what to do about its events.
pub(crate) trait End {
    type Role: Role;

    fn conn(&mut self) -> &mut Connection<Self::Role>;

    fn on(&mut self, event: <Self::Role as Role>::Event) -> Result<(), Failure>;
}

/// The operating system's random generator.
struct Os;

impl Entropy for Os {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|_| EntropyError)
    }
}

/// The time since the first call.
pub(crate) fn now() -> Instant {
    static ORIGIN: OnceLock<StdInstant> = OnceLock::new();
    Instant::from_duration(ORIGIN.get_or_init(StdInstant::now).elapsed())
}

/// A server and a client who know each other's keys.
pub(crate) fn ends() -> Result<(ServerEnd, ClientEnd), Failure> {
    let host = Ed25519Signer::generate(&mut Os)?.key_pair();
    let user = Ed25519Signer::generate(&mut Os)?.key_pair();
    let (host_key, user_key) = (host.public.clone(), user.public.clone());

    let config = ServerConfig::builder(&PROVIDER).host_key(host).build()?;
    let server = Connection::<Server>::new(config, Box::new(Os), now());
    let config = ClientConfig::builder(&PROVIDER).build()?;
    let mut client = Connection::<Client>::new(config, Box::new(Os), now());
    // It leaves when the handshake is done.
    client.authenticate("demo", Credential::PublicKey { key: user, probe: false })?;
    Ok((
        ServerEnd { conn: server, user_key, unsent: Bytes::new() },
        ClientEnd {
            conn: client,
            host_key,
            text: b"sixteen letters\n".repeat(1024),
            sent: 0,
            received: 0,
            exit: None,
        },
    ))
}

pub(crate) struct ServerEnd {
    conn: Connection<Server>,
    user_key: PublicKey,
    /// The program's output that the channel would not take yet.
    unsent: Bytes,
}

impl ServerEnd {
    /// The program: as much input as there is, as far as the output goes.
    fn shout(&mut self, id: ChannelId) -> Result<(), Failure> {
        let mut channel = self.conn.channel(id)?;
        loop {
            while !self.unsent.is_empty() {
                match channel.write(Stream::Data, &self.unsent) {
                    Ok(n) => self.unsent.advance(n),
                    // `Writable` follows.
                    Err(WriteError::Blocked) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            match channel.read(Stream::Data, 32 * 1024) {
                Ok(input) => self.unsent = input.to_ascii_uppercase().into(),
                // `Readable` follows.
                Err(ReadError::Blocked) => return Ok(()),
                Err(_) => break,
            }
        }
        channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(0)), false)?;
        channel.close();
        Ok(())
    }
}

impl End for ServerEnd {
    type Role = Server;

    fn conn(&mut self) -> &mut Connection<Server> {
        &mut self.conn
    }

    fn on(&mut self, event: ServerEvent) -> Result<(), Failure> {
        match event {
            ServerEvent::Auth(request) => {
                let known =
                    matches!(request.proof(), AuthProof::PublicKey { key, .. } if *key == self.user_key);
                let verdict = match known {
                    true => AuthVerdict::Accept,
                    false => AuthVerdict::Reject { next: AuthMethods::PUBLICKEY },
                };
                self.conn.reply_auth(request, verdict)?;
            }
            ServerEvent::Authenticated(who) => println!("server: {} logged in", who.user),
            ServerEvent::Open(request) => {
                self.conn.accept_channel(request, ChannelConfig::default())?;
            }
            ServerEvent::Channel(_, ChannelEvent::Request(request)) => {
                let exec = matches!(request.kind(), ChannelRequestKind::Exec(_));
                self.conn.reply_request(request, exec)?;
            }
            ServerEvent::Channel(id, ChannelEvent::Readable(Stream::Data) | ChannelEvent::Writable) => {
                self.shout(id)?;
            }
            ServerEvent::Channel(id, ChannelEvent::Closed) => self.conn.channel(id)?.release(),
            ServerEvent::Closed(reason) => println!("server: {reason}"),
            // A question that is dropped is refused.
            _ => {}
        }
        Ok(())
    }
}

pub(crate) struct ClientEnd {
    conn: Connection<Client>,
    host_key: PublicKey,
    /// Sent again and again; its length divides [`SENT`].
    text: Vec<u8>,
    sent: usize,
    received: usize,
    exit: Option<ExitStatus>,
}

impl ClientEnd {
    fn send(&mut self, id: ChannelId) -> Result<(), Failure> {
        let mut channel = self.conn.channel(id)?;
        while self.sent < SENT {
            let rest = &self.text[self.sent % self.text.len()..];
            match channel.write(Stream::Data, rest) {
                Ok(n) => self.sent += n,
                Err(WriteError::Blocked) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(channel.eof()?)
    }

    fn receive(&mut self, id: ChannelId) -> Result<(), Failure> {
        let mut channel = self.conn.channel(id)?;
        while let Ok(output) = channel.read(Stream::Data, usize::MAX) {
            if output.iter().any(u8::is_ascii_lowercase) {
                return Err("that is not in capitals".into());
            }
            self.received += output.len();
        }
        Ok(())
    }
}

impl End for ClientEnd {
    type Role = Client;

    fn conn(&mut self) -> &mut Connection<Client> {
        &mut self.conn
    }

    fn on(&mut self, event: ClientEvent) -> Result<(), Failure> {
        match event {
            ClientEvent::HostKey(check) if *check.key() == self.host_key => {
                self.conn.accept_host_key(check)?;
            }
            ClientEvent::Authenticated => {
                let id = self.conn.open_channel(&ChannelKind::Session, ChannelConfig::default())?;
                // It leaves with the channel's confirmation.
                self.conn.channel(id)?.request(&ChannelRequestKind::exec("shout"), true)?;
            }
            ClientEvent::Channel(id, ChannelEvent::Reply(true) | ChannelEvent::Writable) => self.send(id)?,
            ClientEvent::Channel(id, ChannelEvent::Readable(Stream::Data)) => self.receive(id)?,
            ClientEvent::Channel(_, ChannelEvent::Exit(status)) => self.exit = Some(status),
            ClientEvent::Channel(_, ChannelEvent::Closed) => {
                println!("client: {} bytes sent, {} received, {:?}", self.sent, self.received, self.exit);
                if self.received != SENT || self.exit != Some(ExitStatus::Code(0)) {
                    return Err("the command did not run as expected".into());
                }
                self.conn.close(Disconnect::by_application());
            }
            ClientEvent::Closed(CloseReason::Local(_)) => {}
            ClientEvent::Closed(reason) => return Err(reason.into()),
            ClientEvent::HostKey(_)
            | ClientEvent::AuthFailed { .. }
            | ClientEvent::OpenFailed(..)
            | ClientEvent::Channel(_, ChannelEvent::Reply(false)) => return Err("refused".into()),
            _ => {}
        }
        Ok(())
    }
}
