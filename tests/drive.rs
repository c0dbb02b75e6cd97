//! The two drive loops of the crate's documentation, over pipes in memory: a blocking one, and one as it is
//! written over an async runtime. Each meets input of one packet at a time and of a thousand, the end of the
//! transport, questions that stop the input, and a close whose DISCONNECT is still to be sent. In modules of
//! their own: the end of the transport, how much to read, and output that is traded away.

#[path = "drive/eof.rs"]
mod eof;
#[path = "drive/hint.rs"]
mod hint;
#[path = "drive/swap.rs"]
mod swap;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ssh_proto::{
    AuthMethods, AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind,
    Client, ClientConfig, ClientEvent, CloseReason, Connection, Credential, Disconnect, DisconnectCode,
    ExitStatus, HostKeyCheck, Instant, Server, ServerConfig, ServerEvent, Stream,
};
use ssh_tests::{Peer, Seeded, null_configs, record};

// ----- Pipes.

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reads {
    OnePacket,
    Bytes(usize),
    Everything,
}

/// One direction.
#[derive(Debug)]
struct Pipe {
    record: Vec<u8>,
    at: usize,
    closed: bool,
    /// The reader learns of the end together with the last bytes, and not from the next read.
    abrupt: bool,
    reads: Reads,
    writes: usize,
    ends: Vec<usize>,
}

impl Pipe {
    fn new(reads: Reads, writes: usize) -> Self {
        Self { record: Vec::new(), at: 0, closed: false, abrupt: false, reads, writes, ends: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.writes);
        self.record.extend_from_slice(&bytes[..n]);
        self.ends.clear();
        n
    }

    fn is_readable(&self) -> bool {
        self.at < self.record.len() || self.closed
    }

    /// Whether the end is known already, behind bytes.
    fn is_over(&self) -> bool {
        self.abrupt && self.closed && self.at == self.record.len()
    }

    /// Nothing at the end.
    fn read(&mut self) -> &[u8] {
        let rest = self.record.len() - self.at;
        let n = match self.reads {
            Reads::Everything => rest,
            Reads::Bytes(n) => n.min(rest),
            Reads::OnePacket => {
                if self.ends.is_empty() {
                    self.ends = record::packets(&self.record).iter().map(|sent| sent.at + sent.len).collect();
                }
                let next = self.ends.iter().find(|end| **end > self.at);
                next.map_or(rest, |end| end - self.at)
            }
        };
        self.at += n;
        &self.record[self.at - n..self.at]
    }
}

// ----- What both sides do.

trait App<R: Peer> {
    fn on(&mut self, conn: &mut Connection<R>, event: R::Event);

    /// Whether it vanishes now: nothing more is read or sent, and nothing was said.
    fn vanishes(&self) -> bool {
        false
    }
}

/// Logs in, runs a command, reads everything, and closes.
#[derive(Debug, Default)]
struct Runner {
    received: Vec<u8>,
    exit: Option<ExitStatus>,
    closed: Option<CloseReason>,
    failed: usize,
    /// Keeps the question instead of answering it.
    hesitates: bool,
    question: Option<HostKeyCheck>,
    stays: bool,
    channel: Option<ChannelId>,
}

impl App<Client> for Runner {
    fn on(&mut self, conn: &mut Connection<Client>, event: ClientEvent) {
        match event {
            ClientEvent::HostKey(check) if self.hesitates => self.question = Some(check),
            ClientEvent::HostKey(check) => conn.accept_host_key(check).unwrap(),
            ClientEvent::AuthFailed { .. } => {
                self.failed += 1;
                conn.authenticate("user", Credential::Password("right".into())).unwrap();
            }
            ClientEvent::Authenticated => {
                let id = conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
                conn.channel(id).unwrap().request(&ChannelRequestKind::exec("run"), true).unwrap();
                self.channel = Some(id);
            }
            ClientEvent::Channel(id, ChannelEvent::Readable(stream)) => {
                let mut channel = conn.channel(id).unwrap();
                while let Ok(bytes) = channel.read(stream, usize::MAX) {
                    self.received.extend_from_slice(&bytes);
                }
            }
            ClientEvent::Channel(_, ChannelEvent::Exit(status)) => self.exit = Some(status),
            ClientEvent::Channel(id, ChannelEvent::Closed) => {
                conn.channel(id).unwrap().release();
                if !self.stays {
                    conn.close(Disconnect::by_application());
                }
            }
            ClientEvent::Closed(reason) => assert_eq!(self.closed.replace(reason), None),
            _ => {}
        }
    }
}

/// Accepts the right password, and answers a command with so many small packets.
#[derive(Debug, Default)]
struct Replier {
    packets: usize,
    hangs_up: bool,
    /// Is gone when it has answered, without a word.
    vanishes: bool,
    /// Its peer then learns of the end together with the last bytes.
    abrupt: bool,
    closed: Option<CloseReason>,
    answered: bool,
    left: usize,
    channel: Option<ChannelId>,
}

impl Replier {
    fn go_on(&mut self, conn: &mut Connection<Server>) {
        let Some(mut channel) = self.channel.and_then(|id| conn.channel(id).ok()) else { return };
        while self.left > 0 {
            match channel.write(Stream::Data, b"0123456789") {
                Ok(10) => self.left -= 1,
                Ok(n) => panic!("{n} of ten bytes"),
                Err(_) => return,
            }
        }
        self.channel = None;
        channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(5)), false).unwrap();
        channel.close();
        self.answered = true;
        if self.hangs_up {
            conn.close(Disconnect::new(DisconnectCode::BY_APPLICATION, "good bye"));
        }
    }
}

impl App<Server> for Replier {
    fn on(&mut self, conn: &mut Connection<Server>, event: ServerEvent) {
        match event {
            ServerEvent::Auth(request) => {
                let right =
                    matches!(request.proof(), ssh_proto::AuthProof::Password(p) if p.matches("right"));
                let reject = AuthVerdict::Reject { next: AuthMethods::default() };
                conn.reply_auth(request, if right { AuthVerdict::Accept } else { reject }).unwrap();
            }
            ServerEvent::Open(request) => {
                conn.accept_channel(request, ChannelConfig::default()).unwrap();
            }
            ServerEvent::Channel(id, ChannelEvent::Request(request)) => {
                conn.reply_request(request, true).unwrap();
                self.channel = Some(id);
                self.left = self.packets;
                self.go_on(conn);
            }
            ServerEvent::Channel(_, ChannelEvent::Writable) => self.go_on(conn),
            ServerEvent::Channel(id, ChannelEvent::Closed) => conn.channel(id).unwrap().release(),
            ServerEvent::Closed(reason) => assert_eq!(self.closed.replace(reason), None),
            _ => {}
        }
    }

    fn vanishes(&self) -> bool {
        self.vanishes && self.answered
    }
}

// ----- The loop over a runtime.

/// A connection and the loop that drives it. `poll` is what a runtime does: it goes on as far as it can.
struct Task<R: Peer, A> {
    conn: Connection<R>,
    inbuf: BytesMut,
    app: A,
    finished: bool,
    random: Seeded,
}

impl<R: Peer, A: App<R>> Task<R, A> {
    fn new(config: Arc<R::Config>, app: A, seed: u64) -> Self {
        let conn = R::connect(config, Box::new(Seeded::new(seed)));
        Self { conn, inbuf: BytesMut::new(), app, finished: false, random: Seeded::new(seed) }
    }

    fn poll(&mut self, now: Instant, rd: &mut Pipe, wr: &mut Pipe) -> bool {
        let Self { conn, inbuf, app, random, .. } = self;
        let mut busy = false;
        if self.finished {
            return false;
        }
        'turn: loop {
            loop {
                conn.handle_input(now, inbuf);
                let Some(event) = R::poll(conn) else { break };
                busy = true;
                app.on(conn, event);
            }
            if (conn.is_closed() || app.vanishes()) && conn.output().is_empty() {
                self.finished = true;
                wr.closed = true;
                return true;
            }
            let armed = conn.poll_timeout();
            // `select!` begins anywhere.
            let first = random.below(3);
            for branch in (0..3).map(|branch| (first + branch) % 3) {
                match branch {
                    0 if !conn.output().is_empty() => {
                        let n = wr.write(conn.output());
                        conn.consume_output(n);
                    }
                    1 if conn.wants_input() && rd.is_readable() => {
                        let bytes = rd.read();
                        inbuf.extend_from_slice(bytes);
                        if bytes.is_empty() || rd.is_over() {
                            conn.handle_eof(now);
                        }
                    }
                    2 if armed.is_some_and(|at| at <= now) => conn.handle_timeout(now),
                    _ => continue,
                }
                busy = true;
                continue 'turn;
            }
            return busy;
        }
    }
}

// ----- The blocking loop.

/// What a blocking socket is: reading waits for the other side, which is a task.
struct Io<'a, R: Peer, A> {
    other: &'a mut Task<R, A>,
    rd: Pipe,
    wr: Pipe,
    now: Instant,
}

#[derive(Debug, PartialEq)]
struct Unanswered;

impl<R: Peer, A: App<R>> Io<'_, R, A> {
    /// Reads, or gives `None` when the timeout is over.
    fn read(&mut self, timeout: Option<Duration>) -> Option<&[u8]> {
        let until = timeout.map(|timeout| self.now + timeout);
        for _ in 0..1000 {
            while self.other.poll(self.now, &mut self.wr, &mut self.rd) {}
            if self.rd.is_readable() {
                return Some(self.rd.read());
            }
            let theirs = self.other.conn.poll_timeout().filter(|_| !self.other.finished);
            let next = [until, theirs].into_iter().flatten().min().expect("both wait forever");
            self.now = self.now.max(next);
            if until == Some(next) {
                return None;
            }
        }
        panic!("the other side spins");
    }

    fn sleep_until(&mut self, at: Option<Instant>) {
        self.now = self.now.max(at.expect("a reason not to want input"));
    }
}

fn next_event<R: Peer, O: Peer, A: App<O>>(
    conn: &mut Connection<R>,
    io: &mut Io<'_, O, A>,
    inbuf: &mut BytesMut,
) -> Result<Option<R::Event>, Unanswered> {
    loop {
        conn.handle_input(io.now, inbuf);
        let mut wrote = false;
        while !conn.output().is_empty() {
            let n = io.wr.write(conn.output());
            conn.consume_output(n);
            wrote = true;
        }
        if let Some(event) = R::poll(conn) {
            return Ok(Some(event));
        }
        if conn.is_closed() {
            return Ok(None);
        }
        if wrote {
            continue;
        }
        if conn.awaits_answer() {
            return Err(Unanswered);
        }
        if !conn.wants_input() {
            io.sleep_until(conn.poll_timeout());
            conn.handle_timeout(io.now);
            continue;
        }
        let now = io.now;
        let timeout = conn.poll_timeout().map(|at| at.saturating_since(now).max(Duration::from_millis(1)));
        match io.read(timeout) {
            Some(bytes) => {
                inbuf.extend_from_slice(bytes);
                if bytes.is_empty() || io.rd.is_over() {
                    conn.handle_eof(io.now);
                }
            }
            None => conn.handle_timeout(io.now),
        }
    }
}

// ----- The cases.

const READS: [Reads; 4] = [Reads::OnePacket, Reads::Everything, Reads::Bytes(1), Reads::Bytes(1000)];

fn client(config: &Arc<ClientConfig>, app: Runner, password: &str) -> Task<Client, Runner> {
    let mut task = Task::new(config.clone(), app, 1);
    task.conn.authenticate("user", Credential::Password(password.into())).unwrap();
    task
}

fn server(config: &Arc<ServerConfig>, app: Replier) -> Task<Server, Replier> {
    Task::new(config.clone(), app, 2)
}

fn assert_ran(app: &Runner, packets: usize) {
    assert!(app.received == b"0123456789".repeat(packets), "{} bytes", app.received.len());
    assert_eq!(app.exit, Some(ExitStatus::Code(5)));
}

fn assert_told(reason: &Option<CloseReason>) {
    let Some(CloseReason::PeerDisconnected { code, .. }) = reason else { panic!("{reason:?}") };
    assert_eq!(*code, DisconnectCode::BY_APPLICATION);
}

/// Both sides over a runtime, until both are done.
fn run(
    client: &mut Task<Client, Runner>,
    server: &mut Task<Server, Replier>,
    c2s: &mut Pipe,
    s2c: &mut Pipe,
    mut now: Instant,
) -> Instant {
    for _ in 0..10_000 {
        let busy = client.poll(now, s2c, c2s) | server.poll(now, c2s, s2c);
        if client.finished && server.finished {
            return now;
        }
        if busy {
            continue;
        }
        let at = [client.conn.poll_timeout(), server.conn.poll_timeout()];
        let next = at.into_iter().flatten().min().expect("both wait forever");
        now = now.max(next);
    }
    panic!("never done: {:?} {:?}", client.app, server.app);
}

#[test]
fn the_loop_over_a_runtime_takes_one_packet_and_a_thousand_at_a_time() {
    for reads in READS {
        for (packets, writes, password) in [(3, 7, "right"), (1000, 100_000, "right"), (1000, 4096, "wrong")]
        {
            let (client_config, server_config) = null_configs();
            let mut client = client(&client_config, Runner::default(), password);
            let mut server = server(&server_config, Replier { packets, ..Replier::default() });
            let (mut c2s, mut s2c) = (Pipe::new(reads, writes), Pipe::new(reads, writes));
            let end = run(&mut client, &mut server, &mut c2s, &mut s2c, Instant::ORIGIN);
            assert_ran(&client.app, packets);
            assert_eq!(client.app.failed, usize::from(password == "wrong"));
            assert_eq!(client.app.closed, Some(CloseReason::Local(DisconnectCode::BY_APPLICATION)));
            assert_told(&server.app.closed);
            assert!(end < Instant::ORIGIN + Duration::from_secs(1), "nobody waited for a deadline: {end:?}");
        }
    }
}

#[test]
fn the_loop_over_a_runtime_reads_what_came_with_the_disconnect() {
    for reads in READS {
        let (client_config, server_config) = null_configs();
        let mut client = client(&client_config, Runner::default(), "right");
        let app = Replier { packets: 1000, hangs_up: true, ..Replier::default() };
        let mut server = server(&server_config, app);
        let (mut c2s, mut s2c) = (Pipe::new(reads, 100_000), Pipe::new(reads, 100_000));
        run(&mut client, &mut server, &mut c2s, &mut s2c, Instant::ORIGIN);
        assert_ran(&client.app, 1000);
        assert!(client.app.closed.is_some() && server.app.closed.is_some());
    }
}

#[test]
fn the_loop_over_a_runtime_ends_with_the_transport() {
    for reads in READS {
        let (client_config, server_config) = null_configs();
        let mut client = client(&client_config, Runner { stays: true, ..Runner::default() }, "right");
        let mut server = server(&server_config, Replier { packets: 10, ..Replier::default() });
        let (mut c2s, mut s2c) = (Pipe::new(reads, 100_000), Pipe::new(reads, 100_000));
        while client.poll(Instant::ORIGIN, &mut s2c, &mut c2s)
            | server.poll(Instant::ORIGIN, &mut c2s, &mut s2c)
        {}
        assert_ran(&client.app, 10);
        (c2s.closed, s2c.closed) = (true, true);
        run(&mut client, &mut server, &mut c2s, &mut s2c, Instant::ORIGIN);
        assert_eq!(client.app.closed, Some(CloseReason::Eof));
        assert_eq!(server.app.closed, Some(CloseReason::Eof));
    }
}

#[test]
fn the_loop_over_a_runtime_waits_for_an_answer_and_goes_on() {
    let (client_config, server_config) = null_configs();
    let mut client = client(&client_config, Runner { hesitates: true, ..Runner::default() }, "right");
    let mut server = server(&server_config, Replier { packets: 10, ..Replier::default() });
    let (mut c2s, mut s2c) = (Pipe::new(Reads::Everything, 100_000), Pipe::new(Reads::Everything, 100_000));
    let mut now = Instant::ORIGIN;
    while client.poll(now, &mut s2c, &mut c2s) | server.poll(now, &mut c2s, &mut s2c) {}
    assert!(client.conn.awaits_answer() && !client.conn.wants_input());
    now = now + Duration::from_secs(20);
    let question = client.app.question.take().expect("a question");
    client.conn.accept_host_key(question).unwrap();
    run(&mut client, &mut server, &mut c2s, &mut s2c, now);
    assert_ran(&client.app, 10);
}

/// A blocking client against a server over a runtime.
fn blocking_client(mut app: Runner, replier: Replier, reads: Reads, password: &str) -> (Runner, Replier) {
    let (client_config, server_config) = null_configs();
    let mut server = server(&server_config, replier);
    let mut conn = Client::connect(client_config, Box::new(Seeded::new(1)));
    conn.authenticate("user", Credential::Password(password.into())).unwrap();
    let (mut rd, wr) = (Pipe::new(reads, 5000), Pipe::new(reads, 5000));
    rd.abrupt = server.app.abrupt;
    let mut io = Io { other: &mut server, rd, wr, now: Instant::ORIGIN };
    let mut inbuf = BytesMut::new();
    loop {
        match next_event(&mut conn, &mut io, &mut inbuf) {
            Ok(Some(event)) => app.on(&mut conn, event),
            Ok(None) => break,
            Err(Unanswered) => {
                io.now = io.now + Duration::from_secs(20);
                let question = app.question.take().expect("that is what it waits for");
                conn.accept_host_key(question).unwrap();
            }
        }
    }
    assert!(conn.output().is_empty());
    io.wr.closed = true;
    while io.other.poll(io.now, &mut io.wr, &mut io.rd) {}
    assert!(io.now < Instant::ORIGIN + Duration::from_secs(25), "nobody waited for a deadline");
    (app, server.app)
}

#[test]
fn the_blocking_loop_takes_one_packet_and_a_thousand_at_a_time() {
    for reads in READS {
        for (packets, password) in [(3, "right"), (1000, "right"), (1000, "wrong")] {
            let replier = Replier { packets, ..Replier::default() };
            let (app, server) = blocking_client(Runner::default(), replier, reads, password);
            assert_ran(&app, packets);
            assert_eq!(app.closed, Some(CloseReason::Local(DisconnectCode::BY_APPLICATION)));
            assert_told(&server.closed);
        }
    }
}

#[test]
fn the_blocking_loop_says_when_a_question_is_unanswered_and_goes_on_when_it_is() {
    let app = Runner { hesitates: true, ..Runner::default() };
    let (app, _) =
        blocking_client(app, Replier { packets: 9, ..Replier::default() }, Reads::Everything, "right");
    assert_ran(&app, 9);
}

#[test]
fn the_blocking_loop_reads_what_came_before_the_end_of_the_transport() {
    for reads in READS {
        let app = Runner { stays: true, ..Runner::default() };
        let replier = Replier { packets: 100, hangs_up: true, ..Replier::default() };
        let (app, _) = blocking_client(app, replier, reads, "right");
        assert_ran(&app, 100);
        assert_told(&app.closed);
    }
}

#[test]
fn the_blocking_loop_sleeps_through_the_delay_of_a_refusal_at_the_server() {
    for reads in READS {
        let (client_config, server_config) = null_configs();
        let mut client = client(&client_config, Runner::default(), "wrong");
        let mut conn = Server::connect(server_config, Box::new(Seeded::new(2)));
        let mut app = Replier { packets: 1000, ..Replier::default() };
        let (rd, wr) = (Pipe::new(reads, 5000), Pipe::new(reads, 5000));
        let mut io = Io { other: &mut client, rd, wr, now: Instant::ORIGIN };
        let mut inbuf = BytesMut::new();
        while let Some(event) = next_event(&mut conn, &mut io, &mut inbuf).expect("answered at once") {
            app.on(&mut conn, event);
        }
        assert_eq!(io.now, Instant::ORIGIN + Duration::from_millis(10), "the delay, and nothing else");
        assert_ran(&client.app, 1000);
        assert_eq!(client.app.failed, 1);
        assert_told(&app.closed);
    }
}
