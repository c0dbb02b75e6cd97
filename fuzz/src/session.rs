//! One connection and everything that may happen to it.
//!
//! The first byte of an input chooses how the rest is read: as bytes from the wire, or as a program for a
//! connection that was first brought to some stage with a real peer. A program is a list of steps of one byte
//! and its operands, see [`Step`]; what it does not say is zero. Every step is followed by the checks of
//! [`Oracle`], and at the end every connection must be able to close.

use core::time::Duration;
use std::alloc::System;

use bytes::BytesMut;
use ssh_proto::{ChannelId, Client, Connection, Instant, Limits, Server, Stream};
use ssh_tests::{End, Seeded};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::hostile;
use crate::input::Input;
use crate::oracle::Oracle;
use crate::subject::{Setup, Subject, Ticket, Told, answer, command};

/// Runs an input against a client.
pub fn run_client(data: &[u8]) {
    run::<Client>(data);
}

/// Runs an input against a server.
pub fn run_server(data: &[u8]) {
    run::<Server>(data);
}

/// The most steps of a program.
const MAX_STEPS: usize = 400;
/// The most bytes under way; a peer that is not read stops there.
const MAX_WIRE: usize = 2 << 20;

/// How far a connection is brought before the program begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing was delivered.
    New,
    /// The identifications went by.
    Idents,
    /// The first key exchange is complete.
    Keys,
    /// Authentication began, and waits for an answer of the embedder where there is one.
    Asked,
    /// Logged in.
    LoggedIn,
    /// Two channels of either side are open.
    Channels,
}

/// All stages.
pub const STAGES: [Stage; 6] =
    [Stage::New, Stage::Idents, Stage::Keys, Stage::Asked, Stage::LoggedIn, Stage::Channels];

/// A step of a program; its byte is its place here, modulo [`STEPS`].
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Step {
    /// The peer seals a payload given as it is.
    Raw,
    /// The peer seals a well-formed message.
    Message,
    /// The peer seals a broken one.
    Mutated,
    /// The peer's embedder gives a command.
    PeerCommand,
    /// The peer's embedder gives a command only its role has.
    PeerOwn,
    /// The embedder gives a command.
    Command,
    /// The embedder gives a command only its role has.
    Own,
    /// A ticket is answered or dropped.
    Answer,
    /// Time passes.
    Time,
    /// The deadline comes.
    Deadline,
    /// Some bytes arrive.
    Deliver,
    /// All bytes arrive, in pieces of one size.
    DeliverAll,
    /// The transport takes some output.
    Flush,
    /// The transport takes all output.
    FlushAll,
    /// Both sides talk until they are quiet, and tickets are answered yes.
    Settle,
    /// Some events are polled, and tickets kept.
    Poll,
    /// The transport trades the output.
    Swap,
    /// A byte on the wire changes.
    Corrupt,
    /// Bytes appear on the wire.
    Inject,
    /// The transport ends.
    Eof,
    /// A ticket of the peer is answered here.
    Foreign,
    /// A message of the peer, many times.
    Flood,
}

/// How many steps there are.
pub const STEPS: usize = 22;

const ALL: [Step; STEPS] = [
    Step::Raw,
    Step::Message,
    Step::Mutated,
    Step::PeerCommand,
    Step::PeerOwn,
    Step::Command,
    Step::Own,
    Step::Answer,
    Step::Time,
    Step::Deadline,
    Step::Deliver,
    Step::DeliverAll,
    Step::Flush,
    Step::FlushAll,
    Step::Settle,
    Step::Poll,
    Step::Swap,
    Step::Corrupt,
    Step::Inject,
    Step::Eof,
    Step::Foreign,
    Step::Flood,
];

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes on the heap.
fn live() -> usize {
    let stats = GLOBAL.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated)
}

fn run<S: Subject>(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.byte();
    let mut session = Session::<S>::new(Setup(input.byte()), mode & 64 != 0);
    if mode & 128 != 0 {
        session.raw(&mut input, mode & 1 != 0);
    } else {
        session.bring(STAGES[usize::from(mode & 31) % STAGES.len()]);
        let mut steps = 0;
        while !input.is_empty() && steps < MAX_STEPS {
            session.step(&mut input);
            steps += 1;
        }
        if mode & 32 != 0 {
            return session.weigh();
        }
        if mode & 64 != 0 {
            session.settle();
        }
    }
    session.end();
}

struct Session<S: Subject> {
    now: Instant,
    conn: Connection<S>,
    limits: Limits,
    legible: bool,
    /// Events are polled after every step.
    eager: bool,
    /// Sealed by the peer, not arrived.
    wire: BytesMut,
    /// Arrived, not taken.
    buf: BytesMut,
    /// The bytes of the last trade.
    swapped: BytesMut,
    tickets: Vec<Ticket>,
    channels: Vec<ChannelId>,
    ended: bool,
    oracle: Oracle,
    peer: End<S::Other>,
    peer_channels: Vec<ChannelId>,
}

impl<S: Subject> Session<S> {
    fn new(setup: Setup, eager: bool) -> Self {
        let config = S::config(setup, true);
        let limits = S::limits(&config);
        Self {
            now: Instant::ORIGIN,
            conn: S::connect(config, setup.entropy()),
            limits,
            legible: setup.is_legible(),
            eager,
            wire: BytesMut::new(),
            buf: BytesMut::new(),
            swapped: BytesMut::new(),
            tickets: Vec::new(),
            channels: Vec::new(),
            ended: false,
            oracle: Oracle::default(),
            peer: End::new(<S::Other as Subject>::config(setup, false), Seeded::new(2)),
            peer_channels: Vec::new(),
        }
    }

    // ----- Ways to begin.

    /// Bytes from the wire, in pieces.
    fn raw(&mut self, input: &mut Input<'_>, ident: bool) {
        self.oracle.dirty = true;
        if ident {
            self.buf.extend_from_slice(b"SSH-2.0-x\r\n");
        }
        let piece = usize::from(input.byte()) + 1;
        for piece in input.0.chunks(piece) {
            self.buf.extend_from_slice(piece);
            self.take_input();
            self.poll(usize::MAX);
            self.check();
        }
    }

    fn bring(&mut self, stage: Stage) {
        if stage == Stage::New {
            return;
        }
        if stage == Stage::Idents {
            let line = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.pump_peer();
            self.deliver(line(&self.wire));
            return self.flush(line(self.conn.output()));
        }
        self.settle();
        if stage >= Stage::Asked {
            S::own_command(&mut self.conn, &mut Input(&[5]));
            <S::Other as Subject>::own_command(&mut self.peer.conn, &mut Input(&[5]));
        }
        if stage == Stage::Asked {
            for _ in 0..4 {
                self.flush(usize::MAX);
                self.deliver(usize::MAX);
            }
            return self.poll(usize::MAX);
        }
        self.settle();
        if stage == Stage::Channels {
            for _ in 0..2 {
                command(&mut self.conn, &mut self.channels, &mut Input(&[0, 5, 0, 2]));
                command(&mut self.peer.conn, &mut self.peer_channels, &mut Input(&[0, 5, 0, 2]));
            }
            self.settle();
        }
        let arrived = self.oracle.logged_in == (stage > Stage::Asked);
        assert!(arrived || self.oracle.closed, "{:?}", self.peer.trace);
        self.check();
    }

    // ----- Steps.

    fn step(&mut self, input: &mut Input<'_>) {
        match ALL[input.below(STEPS)] {
            Step::Raw => self.seal(input.short()),
            Step::Message => {
                let payload = self.message(input);
                self.seal(&payload);
            }
            Step::Mutated => {
                let mut payload = self.message(input);
                hostile::mutate(&mut payload, input);
                self.seal(&payload);
            }
            Step::Flood => {
                let payload = self.message(input);
                for _ in 0..=input.byte() {
                    self.seal(&payload);
                }
            }
            Step::PeerCommand => {
                let mut channels: Vec<_> = self.peer_channels.clone();
                channels.extend(&self.peer.accepted);
                command(&mut self.peer.conn, &mut channels, input);
                self.peer_channels = channels;
                self.peer.accepted.clear();
            }
            Step::PeerOwn => <S::Other as Subject>::own_command(&mut self.peer.conn, input),
            Step::Command => command(&mut self.conn, &mut self.channels, input),
            Step::Own => S::own_command(&mut self.conn, input),
            Step::Answer => {
                let how = input.byte();
                if !self.tickets.is_empty() {
                    let ticket = self.tickets.remove(input.below(self.tickets.len()));
                    self.answer(ticket, how % 4);
                }
            }
            Step::Time => {
                let after = [0, 1, 10, 1000, 5000, 10_000, 60_000, 120_000, 3_600_000][input.below(9)];
                self.pass(self.now + Duration::from_millis(after));
            }
            Step::Deadline => {
                if let Some(at) = self.conn.poll_timeout() {
                    self.pass(self.now.max(at));
                }
            }
            Step::Deliver => {
                let n = input.size();
                self.deliver(n);
            }
            Step::DeliverAll => {
                let piece = input.size().max(1);
                for _ in 0..1000 {
                    if self.wire.is_empty() {
                        break;
                    }
                    self.deliver(piece);
                }
                self.deliver(usize::MAX);
            }
            Step::Flush => {
                let n = input.size();
                self.flush(n);
            }
            Step::FlushAll => self.flush(usize::MAX),
            Step::Settle => self.settle(),
            Step::Poll => {
                let n = input.below(8);
                self.poll(n);
            }
            Step::Swap => {
                if self.swapped.is_empty() {
                    self.conn.swap_output(&mut self.swapped);
                }
            }
            Step::Corrupt => {
                let at = input.size();
                if let Some(byte) = self.wire.get_mut(at) {
                    *byte ^= input.byte() | 1;
                    self.oracle.dirty = true;
                }
            }
            Step::Inject => {
                self.wire.extend_from_slice(input.short());
                self.oracle.dirty = true;
            }
            Step::Eof => {
                self.ended = true;
                self.conn.handle_eof(self.now);
            }
            Step::Foreign => self.foreign(input),
        }
        self.pump_peer();
        if self.eager {
            self.poll(usize::MAX);
        }
        self.check();
    }

    fn message(&self, input: &mut Input<'_>) -> Vec<u8> {
        let session_id = self.peer.conn.session_id().map(|id| id.as_bytes()).unwrap_or_default();
        hostile::message(input, session_id)
    }

    /// The peer sends a payload behind its own back.
    fn seal(&mut self, payload: &[u8]) {
        if self.wire.len() > MAX_WIRE {
            return;
        }
        match payload.first() {
            Some(20..=49) | None => self.oracle.hostile_keys = true,
            _ => self.oracle.hostile = true,
        }
        self.peer.conn.send_raw(payload);
        self.pump_peer();
    }

    fn answer(&mut self, ticket: Ticket, how: u8) {
        // A wrong signature is sent as it is; the peer is right to complain.
        self.oracle.hostile |= matches!(ticket, Ticket::Sign(_)) && how == 2;
        self.oracle.granted |= answer(&mut self.conn, ticket, how, &mut self.channels);
    }

    /// A ticket of another connection is refused here, and answered with a refusal there.
    fn foreign(&mut self, input: &mut Input<'_>) {
        let config = S::config(Setup(if self.legible { 0 } else { 32 }), true);
        let mut other = S::connect(config, Box::new(Seeded::new(3)));
        if !self.tickets.is_empty() {
            let ticket = self.tickets.remove(input.below(self.tickets.len()));
            assert!(!answer(&mut other, ticket, input.byte() % 4, &mut Vec::new()));
        }
    }

    fn pass(&mut self, to: Instant) {
        self.now = to;
        self.conn.handle_timeout(to);
        let next = self.conn.poll_timeout();
        assert!(next.is_none_or(|at| at > to), "I19: {:?} stays due", self.conn.timeout_reason());
        self.peer.conn.handle_timeout(to);
    }

    // ----- The transport.

    /// Lets the peer take its input and puts what it sends on the wire.
    fn pump_peer(&mut self) {
        self.peer.turn(self.now);
        self.peer.events.clear();
        if self.peer.authenticated && self.oracle.given_at_login.is_none() {
            self.oracle.given_at_login = Some(self.oracle.given.len());
        }
        if self.wire.len() <= MAX_WIRE {
            let output = self.peer.conn.output();
            let n = output.len();
            self.wire.extend_from_slice(output);
            self.oracle.given.extend_from_slice(output);
            self.peer.conn.consume_output(n);
        }
    }

    fn deliver(&mut self, n: usize) {
        if self.buf.len() < MAX_WIRE {
            let n = n.min(self.wire.len());
            self.buf.extend_from_slice(&self.wire.split_to(n));
        }
        self.take_input();
    }

    /// Offers the input twice: what the first call leaves, the second leaves too.
    fn take_input(&mut self) {
        self.conn.handle_input(self.now, &mut self.buf);
        let left = (self.buf.len(), self.conn.memory_usage().output, self.conn.poll_timeout());
        self.conn.handle_input(self.now, &mut self.buf);
        let again = (self.buf.len(), self.conn.memory_usage().output, self.conn.poll_timeout());
        assert_eq!(left, again, "a second handle_input went on");
    }

    fn flush(&mut self, n: usize) {
        let mut n = n;
        let traded = self.swapped.split_to(n.min(self.swapped.len()));
        let mut bytes = traded.to_vec();
        n -= traded.len();
        if self.swapped.is_empty() {
            let output = self.conn.output();
            bytes.extend_from_slice(&output[..n.min(output.len())]);
        }
        self.oracle.sent.extend_from_slice(&bytes);
        self.peer.input.extend_from_slice(&bytes);
        // The core counts the traded bytes first, as was done here.
        self.conn.consume_output(bytes.len());
        self.pump_peer();
    }

    /// Talks until both are quiet, with every ticket answered yes and every stream read.
    fn settle(&mut self) {
        for _ in 0..200 {
            let before =
                (self.oracle.sent.len(), self.oracle.given.len(), self.buf.len(), self.tickets.len());
            self.flush(usize::MAX);
            self.deliver(usize::MAX);
            self.poll(usize::MAX);
            for ticket in core::mem::take(&mut self.tickets) {
                self.answer(ticket, 0);
            }
            self.read_all();
            let after = (self.oracle.sent.len(), self.oracle.given.len(), self.buf.len(), self.tickets.len());
            if before == after {
                return self.quiet();
            }
        }
    }

    /// Nothing moved any more: what must be answered was.
    fn quiet(&mut self) {
        let under_way = !self.wire.is_empty() || !self.buf.is_empty() || !self.swapped.is_empty();
        let unsent = !self.conn.output().is_empty() || !self.peer.conn.output().is_empty();
        let over = self.oracle.closed || self.ended || self.peer.closed.is_some();
        if self.legible && !under_way && !unsent && !over && self.tickets.is_empty() {
            self.oracle.judge_quiet(S::SIDE, self.conn.gate_state());
        }
    }

    fn read_all(&mut self) {
        for id in self.channels.clone() {
            let Ok(mut channel) = self.conn.channel(id) else { continue };
            for stream in [Stream::Data, Stream::Stderr] {
                while channel.read(stream, usize::MAX).is_ok() {}
            }
        }
    }

    // ----- Events and checks.

    fn poll(&mut self, most: usize) {
        for _ in 0..most {
            let Some(event) = S::poll(&mut self.conn) else { break };
            let told = S::told(event);
            self.oracle.told(&told);
            match told {
                Told::AskedEarly(ticket) | Told::AskedLate(ticket) => self.tickets.push(ticket),
                Told::Sign(ticket) => self.tickets.push(Ticket::Sign(ticket)),
                Told::Channel(id) if !self.channels.contains(&id) => self.channels.push(id),
                Told::Readable(id, stream) => {
                    let channel = self.conn.channel(id).expect("a channel with an event is there");
                    let _ = channel.peek(stream);
                }
                _ => {}
            }
        }
    }

    fn check(&mut self) {
        self.oracle.check(&self.conn, &self.limits);
        self.oracle.judge_peer(self.peer.closed.as_ref());
    }

    /// What it frees is what it told of, but for room to grow and what every connection has.
    fn weigh(mut self) {
        const FIXED: usize = 64 * 1024;
        self.read_all();
        self.wire.clear();
        self.buf = BytesMut::new();
        let usage = self.conn.memory_usage();
        let told = usage.outbox + usage.owed + usage.events + usage.channels * 4096;
        let most = 2 * told + self.conn.output_capacity() + FIXED;
        let before = live();
        drop(self.conn);
        let freed = before.saturating_sub(live());
        assert!(freed <= most, "I10: {freed} bytes were held, not {most}: {usage:?}");
    }

    /// Whatever happened: once the transport ended, the tickets are dropped and time passes, it closes.
    fn end(&mut self) {
        self.deliver(usize::MAX);
        self.conn.handle_eof(self.now);
        for round in 0.. {
            let before = self.buf.len();
            self.flush(usize::MAX);
            self.take_input();
            let events = self.conn.memory_usage().events;
            self.poll(usize::MAX);
            self.tickets.clear();
            self.check();
            if self.conn.is_closed() {
                break;
            }
            if before == self.buf.len() && events == 0 {
                self.pass(self.now + Duration::from_secs(200));
            }
            assert!(round < 200_000, "L5: it never closes: {:?}, {} bytes left", self.conn, self.buf.len());
        }
        self.after_the_end();
        if self.legible {
            self.oracle.judge_record();
        }
    }

    /// Nothing comes to life again.
    fn after_the_end(&mut self) {
        self.take_input();
        assert!(self.buf.is_empty() && !self.conn.wants_input());
        let pending = self.conn.memory_usage().output;
        for what in 0..24 {
            command(&mut self.conn, &mut self.channels, &mut Input(&[what, 0, 1, 1]));
        }
        S::own_command(&mut self.conn, &mut Input(&[1, 1]));
        self.poll(usize::MAX);
        assert_eq!(self.conn.memory_usage().output, pending, "I16: it speaks after the end");
        self.read_all();
        for id in self.channels.clone() {
            if let Ok(channel) = self.conn.channel(id) {
                channel.release();
            }
        }
        let usage = self.conn.memory_usage();
        let held = (usage.parked, usage.outbox, usage.owed, usage.borrowed, usage.channels);
        assert_eq!(held, (0, 0, 0, 0, 0), "{usage:?}");
        self.pass(self.now + Duration::from_secs(200));
        assert!(self.conn.output().is_empty() && self.conn.poll_timeout().is_none());
        self.check();
    }
}
