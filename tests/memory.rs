//! What connections allocate: nothing for a data packet in the steady state, little before authentication.
//!
//! The allocator counts for the whole process, so the tests take turns, and a count is the least of a few
//! tries: the test harness allocates when it likes.

#[path = "memory/floods.rs"]
mod floods;
#[path = "memory/handshake.rs"]
mod handshake;
#[path = "memory/over_std.rs"]
mod over_std;
#[path = "memory/over_tokio.rs"]
mod over_tokio;
#[path = "memory/providers.rs"]
mod providers;
#[path = "memory/reads.rs"]
mod reads;
#[path = "memory/unauthenticated.rs"]
mod unauthenticated;

use std::alloc::System;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use handshake::logged_in;
use providers::Real;
use ssh_proto::{
    AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind, Client,
    ClientEvent, Connection, Credential, InputPool, Instant, ReadError, Server, ServerEvent, Stream,
    TerminalModes, WindowSize, WriteError,
};
use ssh_tests::{
    Adapter, Answer, Pair, Peer, Seeded, hand, null_client, null_server, rustcrypto_client,
    rustcrypto_server, take,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static TURN: Mutex<()> = Mutex::new(());

const NOW: Instant = Instant::ORIGIN;

/// How long anything may take before a test gives up: a bound on failure, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn allocations() -> usize {
    let stats = GLOBAL.stats();
    stats.allocations + stats.reallocations
}

fn live() -> usize {
    let stats = GLOBAL.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes more than there were. The test harness may have given back some of its own meanwhile.
fn since(before: usize) -> usize {
    live().saturating_sub(before)
}

// ----- Steady state.

/// Takes events, and what waits behind them, until there are none.
fn drain_events<R: Peer>(end: &mut Adapter<R>) {
    while R::poll(&mut end.conn).is_some() {
        end.conn.handle_input(NOW, end.pool.buffer());
    }
}

/// How a reader is behind.
#[derive(Debug, Clone, Copy)]
enum Behind {
    /// So many packets are not read yet.
    Unread(usize),
    /// So many packets were read, and their bytes are still held.
    Held(usize),
}

/// One direction of a transfer.
struct Transfer<S: Peer, D: Peer> {
    from: Adapter<S>,
    to: Adapter<D>,
    ids: (ChannelId, ChannelId),
    data: Vec<u8>,
    held: VecDeque<Bytes>,
    unread: usize,
}

impl<S: Peer, D: Peer> Transfer<S, D> {
    fn new(from: Connection<S>, to: Connection<D>, ids: (ChannelId, ChannelId), size: usize) -> Self {
        Self {
            from: Adapter::of(from),
            to: Adapter::of(to),
            ids,
            data: vec![7; size],
            held: VecDeque::with_capacity(64),
            unread: 0,
        }
    }

    /// One packet goes over; the reader is so much behind.
    fn packet(&mut self, behind: Behind) {
        let mut sent = 0;
        while sent < self.data.len() {
            match self.from.conn.channel(self.ids.0).unwrap().write(Stream::Data, &self.data[sent..]) {
                Ok(n) => sent += n,
                Err(WriteError::Blocked) => self.go_on(),
                Err(error) => panic!("{error}"),
            }
        }
        self.unread += sent;
        self.go_on();
        let packet = self.data.len();
        let (unread, held) = match behind {
            Behind::Unread(packets) => (packets * packet, 0),
            Behind::Held(packets) => (0, packets),
        };
        while self.unread > unread {
            match self.to.conn.channel(self.ids.1).unwrap().read(Stream::Data, self.unread - unread) {
                Ok(bytes) => {
                    self.unread -= bytes.len();
                    self.held.push_back(bytes);
                }
                Err(ReadError::Blocked) => self.go_on(),
                Err(error) => panic!("{error}"),
            }
            while self.held.len() > held {
                self.held.pop_front();
            }
        }
        self.go_on();
    }

    /// A whole window goes over, and only then all of it is read.
    fn window(&mut self) {
        let mut blocked = 0;
        while blocked < 2 {
            match self.from.conn.channel(self.ids.0).unwrap().write(Stream::Data, &self.data) {
                Ok(n) => (self.unread, blocked) = (self.unread + n, 0),
                Err(WriteError::Blocked) => {
                    self.go_on();
                    blocked += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        // The reader does not give back every byte at once.
        let window = ChannelConfig::default().window as usize;
        assert!(self.unread > window - window / 4, "{} of {window}", self.unread);
        while self.unread > 0 {
            self.unread -=
                self.to.conn.channel(self.ids.1).unwrap().read(Stream::Data, usize::MAX).unwrap().len();
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        let Self { from, to, .. } = self;
        while to.take(NOW, &mut from.conn) | from.take(NOW, &mut to.conn) {
            drain_events(from);
            drain_events(to);
        }
    }

    /// Allocations of 100 packets, when everything is warm, also behind a silence.
    fn count(&mut self, behind: Behind) -> usize {
        let at_once = self.count_now(behind);
        self.from.pool.idle();
        self.to.pool.idle();
        at_once.max(self.count_now(behind))
    }

    fn count_now(&mut self, behind: Behind) -> usize {
        (0..100).for_each(|_| self.packet(behind));
        let mut least = usize::MAX;
        for _ in 0..4 {
            let before = allocations();
            (0..100).for_each(|_| self.packet(behind));
            least = least.min(allocations() - before);
            if least == 0 {
                break;
            }
        }
        least
    }
}

fn connected(
    real: &Real,
    (cipher, mac): (&'static str, &'static str),
) -> (Connection<Client>, Connection<Server>, (ChannelId, ChannelId)) {
    let client = real.client().ciphers(&[cipher]).macs(&[mac]).build().unwrap();
    let server = real.server().ciphers(&[cipher]).macs(&[mac]).build().unwrap();
    let mut pair = Pair::new(client, server, 3);
    pair.login_with(Credential::Password("x".into()));
    let ids = pair.open_session();
    assert_eq!(pair.client.conn.negotiated().unwrap().cipher_client_to_server, cipher);
    (pair.client.conn, pair.server.conn, ids)
}

const BEHIND: [Behind; 5] =
    [Behind::Unread(0), Behind::Unread(1), Behind::Unread(8), Behind::Held(1), Behind::Held(8)];

#[test]
fn a_data_packet_allocates_nothing_also_with_a_reader_up_to_eight_packets_behind() {
    let _turn = turn();
    for real in Real::both() {
        for cipher in real.ciphers() {
            for size in [50, 400, 1000, 32 * 1024] {
                for behind in BEHIND {
                    let (client, server, (ours, theirs)) = connected(&real, cipher);
                    let up = Transfer::new(client, server, (ours, theirs), size).count(behind);
                    let (client, server, (ours, theirs)) = connected(&real, cipher);
                    let down = Transfer::new(server, client, (theirs, ours), size).count(behind);
                    let context = format!("{}, {cipher:?}, {size} bytes, {behind:?}", real.provider.name);
                    println!("{context}: up {up}, down {down}");
                    assert_eq!((up, down), (0, 0), "{context}");
                }
            }
        }
    }
}

#[test]
fn a_reader_a_whole_window_behind_costs_no_allocation() {
    let _turn = turn();
    for real in Real::both() {
        for cipher in real.ciphers() {
            let (client, server, (ours, theirs)) = connected(&real, cipher);
            let mut transfer = Transfer::new(client, server, (ours, theirs), 32 * 1024);
            (0..16).for_each(|_| transfer.window());
            let mut least = usize::MAX;
            for _ in 0..4 {
                let before = allocations();
                (0..16).for_each(|_| transfer.window());
                least = least.min(allocations() - before);
                if least == 0 {
                    break;
                }
            }
            assert_eq!(least, 0, "{}, {cipher:?}", real.provider.name);
            // Also when each packet comes with a call of its own.
            assert_eq!(transfer.count(Behind::Unread(40)), 0, "{}, {cipher:?}", real.provider.name);
        }
    }
}

// ----- Before authentication.

/// What one side costs at most while this is fed to it, this much at a time: the connection and its buffers.
/// Its tickets are answered by `answer`.
fn cost<R: Peer>(
    make: impl FnOnce() -> Connection<R>,
    flight: &[u8],
    reads: usize,
    mut answer: impl FnMut(&mut Connection<R>, R::Event),
) -> (usize, Connection<R>) {
    let before = live();
    let mut conn = make();
    let mut pool = InputPool::new();
    pool.set_max(16 * 1024);
    let mut most = since(before);
    let mut rest = flight;
    while !rest.is_empty() {
        let room = pool.reserve();
        let n = rest.len().min(room).min(reads);
        pool.buffer().extend_from_slice(&rest[..n]);
        rest = &rest[n..];
        pool.filled(n, room);
        loop {
            conn.handle_input(NOW, pool.buffer());
            most = most.max(since(before));
            // A refusal waits for its time, and no one is in a hurry here.
            conn.handle_timeout(NOW);
            let Some(event) = R::poll(&mut conn) else { break };
            answer(&mut conn, event);
            most = most.max(since(before));
        }
    }
    (most, conn)
}

const LIMIT: usize = 128 * 1024;

fn flights() -> (Vec<u8>, Vec<u8>, Pair) {
    let (client, server) = (rustcrypto_client().build().unwrap(), rustcrypto_server().build().unwrap());
    let mut pair = Pair::new(client, server, 5);
    pair.login_with(Credential::Password("x".into()));
    (pair.c2s.sent.clone(), pair.s2c.sent.clone(), pair)
}

#[test]
fn an_unauthenticated_connection_costs_at_most_128_kib_at_every_stage() {
    let _turn = turn();
    let (to_server, to_client, _pair) = flights();
    let (client, server) = (rustcrypto_client().build().unwrap(), rustcrypto_server().build().unwrap());
    for reads in [1, 100, 100_000] {
        let connect = || Server::connect(server.clone(), Box::new(Seeded::new(!5)));
        let (most, conn) = cost(connect, &to_server, reads, |conn, event| match event {
            ServerEvent::Auth(request) => {
                conn.reply_auth(request, AuthVerdict::Accept).unwrap();
            }
            ServerEvent::Closed(reason) => panic!("{reason}"),
            _ => {}
        });
        println!("server, {reads} bytes a read: {most} bytes at most");
        assert!(most <= LIMIT, "{most}");
        assert_eq!(conn.gate_state(), ssh_proto::raw::State::Authed);
        let connect = || {
            let mut conn = Client::connect(client.clone(), Box::new(Seeded::new(5)));
            conn.authenticate("user", Credential::Password("x".into())).unwrap();
            conn
        };
        let (most, conn) = cost(connect, &to_client, reads, |conn, event| match event {
            ClientEvent::HostKey(check) => conn.accept_host_key(check).unwrap(),
            ClientEvent::Closed(reason) => panic!("{reason}"),
            _ => {}
        });
        println!("client, {reads} bytes a read: {most} bytes at most");
        assert!(most <= LIMIT, "{most}");
        assert_eq!(conn.gate_state(), ssh_proto::raw::State::Authed);
    }
}

/// A plain packet of this payload.
fn plain(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let mut packet = ((1 + payload.len() + padding) as u32).to_be_bytes().to_vec();
    packet.push(padding as u8);
    packet.extend_from_slice(payload);
    packet.extend(std::iter::repeat_n(0, padding));
    packet
}

#[test]
fn dos_an_unauthenticated_peer_that_sends_all_it_may_costs_at_most_128_kib() {
    let _turn = turn();
    let server = null_server().build().unwrap();
    // As much as fits before the exchange begins, in the largest packets, as fast as they can be read.
    let mut noise = b"SSH-2.0-noise\r\n".to_vec();
    (0..250).for_each(|_| noise.extend(plain(&hand::ignore(34_900))));
    // A packet that never ends.
    let mut endless = b"SSH-2.0-endless\r\n".to_vec();
    endless.extend(&plain(&hand::ignore(34_900))[..34_000]);
    // A flood of unread answers once keys are there.
    let client = null_client().build().unwrap();
    let mut pair = Pair::new(client, server.clone(), 5);
    pair.handshake();
    (0..200).for_each(|_| pair.client.conn.send_raw(&hand::ping(30_000)));
    pair.drive();
    let pings = pair.c2s.sent.clone();
    for (name, flight) in [("noise", noise), ("endless", endless), ("pings", pings)] {
        for reads in [1000, 1 << 20] {
            let connect = || Server::connect(server.clone(), Box::new(Seeded::new(!5)));
            let (most, _) = cost(connect, &flight, reads, |_, _| {});
            println!("{name}, {reads} bytes a read: {most} bytes at most");
            assert!(most <= LIMIT, "{name}: {most}");
        }
    }
}

/// What an idle authenticated end holds at most, its adapter's buffers among it.
const IDLE: usize = 16 * 1024;

/// What the entries of a full event queue take themselves, in bytes, and the questions behind them.
const QUEUE: usize = 8 * 1024;

/// A channel request that wants no reply.
fn request(kind: &ChannelRequestKind) -> Vec<u8> {
    let mut data = Vec::new();
    kind.encode_data(&mut data);
    hand::request(0, kind.name().as_str(), false, &data)
}

#[test]
fn dos_events_that_nobody_takes_hold_no_more_than_they_are_counted_for() {
    let _turn = turn();
    let pty = |modes: u32| {
        let modes = TerminalModes::new((0..modes).map(|mode| (1, mode)));
        request(&ChannelRequestKind::Pty { term: "xterm".into(), size: WindowSize::default(), modes })
    };
    let other =
        |len| request(&ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![0; len] });
    for (name, payload) in [
        ("no modes", pty(0)),
        ("as many modes as make a list grow", pty(129)),
        ("as many modes as there may be", pty(256)),
        ("short variables", request(&ChannelRequestKind::env("A", "b"))),
        ("long variables", request(&ChannelRequestKind::env("A", vec![b'x'; 30_000]))),
        ("a long program", request(&ChannelRequestKind::exec(vec![b'x'; 30_000]))),
        ("short requests", other(0)),
        ("long requests", other(30_000)),
        ("long global requests", hand::global(&"x".repeat(64), false)),
        ("signals that ended programs", hand::exit_signal(0)),
        ("opens", hand::open(7, 100, 100)),
    ] {
        let mut pair = Pair::logged_in();
        pair.open_session();
        (0..64).for_each(|_| pair.client.conn.send_raw(&payload));
        let mut input = bytes::BytesMut::from(pair.client.conn.output());
        let before = live();
        pair.server.conn.handle_input(NOW, &mut input);
        let (held, counted) = (since(before), pair.server.conn.memory_usage().events);
        println!("{name}: {held} bytes held, {counted} counted");
        assert!(held <= counted + QUEUE, "{name}: {held} bytes held, {counted} counted");
        assert!(counted < 64 * 1024 + payload.len() * 2, "{name}: {counted}");
    }
}

/// Nothing comes for a while, and something is waited for.
fn rest<R: Peer>(end: &mut Adapter<R>) {
    end.conn.handle_timeout(NOW);
    end.pool.idle();
    end.pool.reserve();
}

/// What a server and a client hold when they are logged in and idle: what it was twice in a row, since threads of other
/// tests may still be ending.
fn idle_heaps(real: &Real, (cipher, mac): (&'static str, &'static str)) -> [usize; 2] {
    let client = real.client().ciphers(&[cipher]).macs(&[mac]).build().unwrap();
    let server = real.server().ciphers(&[cipher]).macs(&[mac]).build().unwrap();
    let heaps = || {
        let before = live();
        let (mut ours, mut theirs) = logged_in(&client, &server, &real.key);
        rest(&mut ours);
        rest(&mut theirs);
        let both = since(before);
        drop(theirs);
        let client = since(before);
        drop(ours);
        [both.saturating_sub(client), client]
    };
    let mut last = heaps();
    for _ in 0..1000 {
        let now = heaps();
        if now == last && !now.contains(&0) {
            return now;
        }
        last = now;
    }
    panic!("it is another amount each time, {last:?} in the end");
}

#[test]
fn an_idle_authenticated_connection_is_small() {
    let _turn = turn();
    for real in Real::both() {
        let name = real.provider.name;
        for cipher in real.ciphers() {
            let [server, client] = idle_heaps(&real, cipher);
            println!("{name}, {cipher:?}, an idle end's heap: server {server} bytes, client {client}");
            assert!(server <= IDLE && client <= IDLE, "{name}, {cipher:?}: {server} {client}");
        }
    }
    println!("size of Connection: {} bytes", size_of::<Connection<Server>>());
    assert!(size_of::<Connection<Server>>() < 8 * 1024);
}

// ----- In the long run.

#[test]
fn requests_behind_one_that_nobody_answers_leave_nothing_behind() {
    let _turn = turn();
    let mut pair = Pair::logged_in();
    let (quiet, _) = pair.open_session();
    let (busy, theirs) = pair.open_session();
    pair.server.policy.request = Answer::Keep;
    let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    pair.client.conn.channel(quiet).unwrap().request(&kind, true).unwrap();
    pair.drive();
    let mut held = Vec::new();
    for _ in 0..11 {
        for _ in 0..1_000 {
            pair.client.conn.channel(busy).unwrap().request(&kind, true).unwrap();
            pair.drive();
            let ticket = take!(pair.server,
                ServerEvent::Channel(id, ChannelEvent::Request(ticket)) if id == theirs => ticket);
            pair.server.conn.reply_request(ticket, true).unwrap();
            pair.drive();
        }
        assert_eq!(pair.client.count("Reply(true)"), 1_000);
        // The records of the simulator are not the connection's.
        (pair.c2s.sent, pair.s2c.sent) = Default::default();
        (pair.client.trace, pair.server.trace) = Default::default();
        pair.client.events = VecDeque::new();
        held.push(live());
    }
    let grown = held[10].saturating_sub(held[0]);
    println!("ten thousand answered requests: {grown} bytes");
    assert!(grown < 8 * 1024, "{held:?}");
    pair.advance(Duration::from_secs(120));
    assert_eq!(pair.client.count("Reply(false)"), 1);
}

#[test]
fn ch_06_a_channel_opened_and_closed_costs_the_same_however_many_there_were() {
    let _turn = turn();
    // Accepted and closed by whoever opened it, refused by the embedder, and not even asked about.
    for (answer, accepted) in [(Answer::Yes, true), (Answer::No, false), (Answer::Drop, false)] {
        let mut pair = Pair::logged_in();
        pair.server.policy.open = answer;
        let mut costs = Vec::new();
        for _ in 0..20 {
            (pair.c2s.sent, pair.s2c.sent) = Default::default();
            (pair.client.trace, pair.server.trace) = Default::default();
            (pair.client.events, pair.server.events) = Default::default();
            (pair.server.accepted, pair.server.received) = Default::default();
            let before = allocations();
            for _ in 0..200 {
                let opened = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default());
                pair.drive();
                if let Ok(mut channel) = pair.client.conn.channel(opened.unwrap()) {
                    channel.close();
                    channel.release();
                }
                pair.drive();
                for id in std::mem::take(&mut pair.server.accepted) {
                    pair.server.conn.channel(id).unwrap().release();
                }
                pair.drive();
            }
            costs.push((allocations() - before, pair.c2s.sent.len() + pair.s2c.sent.len()));
            let channels =
                [pair.client.conn.memory_usage(), pair.server.conn.memory_usage()].map(|m| m.channels);
            assert_eq!(channels, [0, 0], "{answer:?}");
        }
        let opened = pair.client.count("Opened");
        assert_eq!(opened, if accepted { 200 } else { 0 }, "{answer:?}");
        println!("{answer:?}: {:?} at first, {:?} at last", costs[1], costs[19]);
        let least = |of: fn(&(usize, usize)) -> usize, costs: &[_]| costs.iter().map(of).min();
        let (early, late) = (&costs[1..6], &costs[15..]);
        assert_eq!(least(|cost| cost.0, early), least(|cost| cost.0, late), "allocations: {costs:?}");
        assert_eq!(least(|cost| cost.1, early), least(|cost| cost.1, late), "bytes sent: {costs:?}");
    }
}
