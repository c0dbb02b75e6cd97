//! Ours in memory: a client's and a server's connection in one thread, driven as an adapter drives them.

use std::time::Instant as StdInstant;

use ssh_io_std::OsEntropy;
use ssh_proto::adapter::append;
use ssh_proto::{
    AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequest, ChannelRequestKind,
    Client, ClientConnection, ClientEvent, Connection, Credential, Disconnect, ExitStatus, InputPool,
    Instant, Role, Server, ServerConnection, ServerEvent, Stream,
};

use crate::Failure;
use crate::commands::{Command, Configs};
use crate::work::{CHUNK, Cipher, Direction, ECHO, Kex, Library, OUTPUT, USER, WINDOW, gigabytes, repeat};

/// One side, with what an adapter holds for it.
struct Side<R: Role> {
    conn: Connection<R>,
    pool: InputPool,
}

impl<R: Role> Side<R> {
    fn new(conn: Connection<R>) -> Self {
        Self { conn, pool: InputPool::new() }
    }

    /// Takes what the other side has to send, as much as one read gives. Says whether that was anything.
    fn take_from<O: Role>(&mut self, other: &mut Side<O>) -> bool {
        let output = other.conn.output();
        if output.is_empty() {
            return false;
        }
        let room = self.pool.reserve();
        let n = output.len().min(room);
        append(self.pool.buffer(), &output[..n]);
        other.conn.consume_output(n);
        self.pool.filled(n, room);
        true
    }

    /// Hears what was taken.
    fn turn(&mut self, now: Instant, mut on: impl FnMut(&mut Connection<R>, R::Event)) {
        loop {
            self.conn.handle_input(now, self.pool.buffer());
            let Some(event) = self.conn.poll_event() else { return };
            on(&mut self.conn, event);
        }
    }

    /// Reads what there is, and says how much that was.
    fn read(&mut self, id: ChannelId) -> u64 {
        let Ok(mut channel) = self.conn.channel(id) else { return 0 };
        let mut n = 0;
        while let Ok(bytes) = channel.read(Stream::Data, usize::MAX) {
            n += bytes.len() as u64;
        }
        n
    }
}

/// Both sides.
struct Pair {
    client: Side<Client>,
    server: Side<Server>,
    clock: StdInstant,
}

impl Pair {
    fn new(configs: &Configs) -> Result<Self, Failure> {
        let now = Instant::ORIGIN;
        let server = ServerConnection::new(configs.server.clone(), Box::new(OsEntropy), now);
        let mut client = ClientConnection::new(configs.client.clone(), Box::new(OsEntropy), now);
        client.authenticate(USER, Credential::PublicKey { key: configs.user_key.clone(), probe: false })?;
        Ok(Self { client: Side::new(client), server: Side::new(server), clock: StdInstant::now() })
    }

    /// Two sides that are logged in.
    fn logged_in(configs: &Configs) -> Result<Self, Failure> {
        let mut pair = Self::new(configs)?;
        let (mut told, mut answers) = (Told::default(), Answers::default());
        pair.drive(&mut told, &mut answers);
        if told.authenticated { Ok(pair) } else { Err("no login".into()) }
    }

    fn now(&self) -> Instant {
        Instant::from_duration(self.clock.elapsed())
    }

    /// Passes bytes until neither side has any left.
    fn drive(&mut self, told: &mut Told, answers: &mut Answers) {
        loop {
            let now = self.now();
            let up = self.server.take_from(&mut self.client);
            if up {
                self.server.turn(now, |conn, event| answers.answer(conn, event));
            }
            let down = self.client.take_from(&mut self.server);
            if down {
                self.client.turn(now, |conn, event| told.tell(conn, event));
            }
            if !up && !down {
                return;
            }
        }
    }

    /// Opens a session; gives both sides' ids.
    fn open(&mut self, told: &mut Told, answers: &mut Answers) -> Result<(ChannelId, ChannelId), Failure> {
        let config = ChannelConfig::default().with_window(WINDOW);
        let ours = self.client.conn.open_channel(&ChannelKind::Session, config)?;
        self.drive(told, answers);
        Ok((ours, answers.opened.ok_or("no channel")?))
    }
}

/// What the client is told, and its answers.
#[derive(Default)]
struct Told {
    authenticated: bool,
    /// Bytes read.
    read: usize,
    exit: bool,
    closed: bool,
}

impl Told {
    fn tell(&mut self, conn: &mut ClientConnection, event: ClientEvent) {
        match event {
            ClientEvent::HostKey(check) => {
                let _ = conn.accept_host_key(check);
            }
            ClientEvent::Authenticated => self.authenticated = true,
            ClientEvent::Channel(id, ChannelEvent::Readable(stream)) => {
                let Ok(mut channel) = conn.channel(id) else { return };
                while let Ok(bytes) = channel.read(stream, usize::MAX) {
                    self.read += bytes.len();
                }
            }
            ClientEvent::Channel(_, ChannelEvent::Exit(ExitStatus::Code(0))) => self.exit = true,
            ClientEvent::Channel(id, ChannelEvent::Closed) => {
                self.closed = true;
                if let Ok(channel) = conn.channel(id) {
                    channel.release();
                }
            }
            _ => {}
        }
    }
}

/// The server's answers: those of a program that lets everybody in, echoes, and runs one command.
#[derive(Default)]
struct Answers {
    opened: Option<ChannelId>,
    ended: bool,
}

impl Answers {
    fn answer(&mut self, conn: &mut ServerConnection, event: ServerEvent) {
        match event {
            ServerEvent::Auth(request) => {
                let _ = conn.reply_auth(request, AuthVerdict::Accept);
            }
            ServerEvent::Open(request) => {
                self.opened = conn.accept_channel(request, ChannelConfig::default().with_window(WINDOW)).ok();
            }
            ServerEvent::Channel(id, ChannelEvent::Request(request)) => run(conn, id, request),
            ServerEvent::Channel(id, ChannelEvent::Readable(stream)) => {
                let Ok(mut channel) = conn.channel(id) else { return };
                while let Ok(bytes) = channel.read(stream, usize::MAX) {
                    let _ = channel.write(stream, &bytes);
                }
            }
            ServerEvent::Channel(id, ChannelEvent::Closed) => {
                if let Ok(channel) = conn.channel(id) {
                    channel.release();
                }
            }
            ServerEvent::Closed(_) => self.ended = true,
            _ => {}
        }
    }
}

/// Answers a request; the only command says something, and ends.
fn run(conn: &mut ServerConnection, id: ChannelId, request: ChannelRequest) {
    let ok = matches!(request.kind(), ChannelRequestKind::Exec(line) if Command::parse(line).is_some());
    if conn.reply_request(request, ok).is_err() || !ok {
        return;
    }
    let Ok(mut channel) = conn.channel(id) else { return };
    let _ = channel.write(Stream::Data, &OUTPUT);
    let _ = channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(0)), false);
    channel.close();
}

/// Channel data from one side to the other, in GB/s.
pub(crate) fn bulk(
    library: Library,
    cipher: Cipher,
    direction: Direction,
    seconds: f64,
) -> Result<f64, Failure> {
    let mut pair = Pair::logged_in(&Configs::new(library, cipher, Kex::Curve25519, 1)?)?;
    let (client, server) = pair.open(&mut Told::default(), &mut Answers::default())?;
    let clock = pair.clock;
    let Pair { client: near, server: far, .. } = pair;
    match direction {
        Direction::Down => flow(far, near, (server, client), clock, seconds),
        Direction::Up => flow(near, far, (client, server), clock, seconds),
    }
}

fn flow<S: Role, D: Role>(
    mut from: Side<S>,
    mut to: Side<D>,
    (source, sink): (ChannelId, ChannelId),
    clock: StdInstant,
    seconds: f64,
) -> Result<f64, Failure> {
    let data = vec![7; CHUNK];
    // As many bytes each time, so that a mean time is a rate; what was moved beyond counts for the next.
    let once = u64::from(WINDOW);
    let (mut moved, mut until) = (0, 0);
    let mean = repeat(seconds, || {
        until += once;
        while moved < until {
            let before = moved;
            let mut channel = from.conn.channel(source)?;
            while channel.write(Stream::Data, &data).is_ok_and(|n| n == data.len()) {}
            let now = Instant::from_duration(clock.elapsed());
            while to.take_from(&mut from) {
                to.turn(now, |_, _| ());
                moved += to.read(sink);
            }
            while from.take_from(&mut to) {
                from.turn(now, |_, _| ());
            }
            if moved == before {
                return Err("nothing moves".into());
            }
        }
        Ok(())
    })?;
    Ok(gigabytes(once) / mean)
}

/// Handshakes per second.
pub(crate) fn handshakes(library: Library, kex: Kex, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(library, Cipher::Aes128Gcm, kex, 1)?;
    let mean = repeat(seconds, || {
        let mut pair = Pair::logged_in(&configs)?;
        pair.client.conn.close(Disconnect::by_application());
        let mut answers = Answers::default();
        pair.drive(&mut Told::default(), &mut answers);
        if answers.ended { Ok(()) } else { Err("no end".into()) }
    })?;
    Ok(1.0 / mean)
}

/// A command, in microseconds.
pub(crate) fn execs(library: Library, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(library, Cipher::Aes128Gcm, Kex::Curve25519, 1)?;
    let mut pair = Pair::logged_in(&configs)?;
    let exec = ChannelRequestKind::exec(Command::Say.line());
    let mean = repeat(seconds, || {
        let (mut told, mut answers) = (Told::default(), Answers::default());
        let (id, _) = pair.open(&mut told, &mut answers)?;
        pair.client.conn.channel(id)?.request(&exec, true)?;
        pair.drive(&mut told, &mut answers);
        if told.read == OUTPUT.len() && told.exit && told.closed { Ok(()) } else { Err("no output".into()) }
    })?;
    Ok(mean * 1e6)
}

/// An echo, in microseconds, over one channel after the other of so many.
pub(crate) fn echoes(library: Library, channels: usize, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(library, Cipher::Aes128Gcm, Kex::Curve25519, channels)?;
    let mut pair = Pair::logged_in(&configs)?;
    let (mut told, mut answers) = (Told::default(), Answers::default());
    let mut ids = Vec::new();
    for _ in 0..channels {
        ids.push(pair.open(&mut told, &mut answers)?.0);
    }
    let mut turns = ids.iter().cycle();
    let mean = repeat(seconds, || {
        let id = *turns.next().ok_or("no channel")?;
        told.read = 0;
        pair.client.conn.channel(id)?.write(Stream::Data, &ECHO)?;
        pair.drive(&mut told, &mut answers);
        if told.read == ECHO.len() { Ok(()) } else { Err("no echo".into()) }
    })?;
    Ok(mean * 1e6)
}
