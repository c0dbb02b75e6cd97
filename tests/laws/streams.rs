//! What is written is read, in order and whole, whatever happens in between; and nothing waits forever, nor
//! anybody for an answer.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ssh_proto::{
    ChannelConfig, ChannelEvent, ChannelId, ChannelRequestKind, Client, ClientEvent, GlobalReply,
    GlobalRequestKind, ReadError, ServerEvent, StderrMode, Stream, WriteError,
};
use ssh_tests::{Answer, End, Pair, Peer, Policy, Seeded, Split, null_configs_with, take};

use super::ops::{cases, stream};

const STREAMS: [Stream; 2] = [Stream::Data, Stream::Stderr];

/// One side's use of one channel, by the book: it writes until `Blocked` and then waits for `Writable`, and
/// reads until `Blocked` and then waits for `Readable`.
struct Half {
    id: ChannelId,
    /// What is still to be written, last first, by stream.
    plan: Vec<(Stream, Vec<u8>)>,
    writable: bool,
    finished: bool,
    /// What was accepted, in order.
    written: Vec<(Stream, Vec<u8>)>,
    readable: BTreeSet<Stream>,
    got: [Vec<u8>; 2],
    ended: [bool; 2],
    /// Requests that were made here, and replies.
    asked: usize,
    answered: usize,
}

/// How a stream is read.
#[derive(Debug, Clone, Copy)]
enum How {
    Slices,
    Into,
    Peek,
}

impl Half {
    fn new(id: ChannelId, plan: Vec<(Stream, Vec<u8>)>) -> Self {
        let (readable, got) = (BTreeSet::new(), Default::default());
        let (written, ended) = (Vec::new(), [false; 2]);
        let (writable, finished, asked, answered) = (true, false, 0, 0);
        Self { id, plan, writable, finished, written, readable, got, ended, asked, answered }
    }

    fn hear(&mut self, event: &ChannelEvent) {
        match event {
            ChannelEvent::Readable(stream) => drop(self.readable.insert(*stream)),
            ChannelEvent::Writable => self.writable = true,
            ChannelEvent::Reply(ok) => {
                assert!(ok, "the other side agrees to everything");
                self.answered += 1;
            }
            _ => {}
        }
    }

    fn ask<R: Peer>(&mut self, end: &mut End<R>) {
        let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: vec![7; 100] };
        self.asked += usize::from(end.conn.channel(self.id).unwrap().request(&kind, true).is_ok());
    }

    fn write<R: Peer>(&mut self, end: &mut End<R>, max: usize) -> bool {
        let Some((stream, data)) = self.plan.last_mut().filter(|_| self.writable) else {
            return !self.finished && self.plan.is_empty() && {
                self.finished = true;
                end.conn.channel(self.id).unwrap().eof().unwrap();
                true
            };
        };
        let piece = &data[..data.len().min(max)];
        match end.conn.channel(self.id).unwrap().write(*stream, piece) {
            Ok(n) => {
                self.written.push((*stream, data.drain(..n).collect()));
                if data.is_empty() {
                    self.plan.pop();
                }
                true
            }
            Err(WriteError::Blocked) => {
                self.writable = false;
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn read<R: Peer>(&mut self, end: &mut End<R>, stream: Stream, max: usize, how: How) -> bool {
        if !self.readable.contains(&stream) {
            return false;
        }
        let mut channel = end.conn.channel(self.id).unwrap();
        let read = match how {
            How::Slices => channel.read(stream, max),
            How::Into => {
                let mut into = vec![0; max.min(1 << 20)];
                channel.read_into(stream, &mut into).map(|n| into[..n].to_vec().into())
            }
            How::Peek => match channel.peek(stream) {
                [] => channel.read(stream, max),
                piece => {
                    let piece = piece[..piece.len().min(max)].to_vec();
                    channel.consume(stream, piece.len());
                    Ok(piece.into())
                }
            },
        };
        match read {
            Ok(bytes) => {
                assert!(!bytes.is_empty() && bytes.len() <= max);
                self.got[stream as usize].extend_from_slice(&bytes);
            }
            Err(ReadError::Blocked) => drop(self.readable.remove(&stream)),
            Err(ReadError::Eof) => {
                self.ended[stream as usize] = true;
                self.readable.remove(&stream);
            }
            Err(error) => panic!("{error}"),
        }
        true
    }

    /// What the other half should read of what was accepted here.
    fn expected(&self, how: StderrMode, stream: Stream) -> Vec<u8> {
        let meant = |from: Stream| match how {
            StderrMode::Combined => stream == Stream::Data,
            StderrMode::Discard => stream == Stream::Data && from == Stream::Data,
            _ => from == stream,
        };
        let pieces = self.written.iter().filter(|(from, _)| meant(*from));
        pieces.flat_map(|(_, data)| data.iter().copied()).collect()
    }
}

/// A pair, and both sides' halves of its channels.
struct Talk {
    pair: Pair,
    client: Vec<Half>,
    server: Vec<Half>,
    stderr: Vec<StderrMode>,
    /// Global requests that were made by both sides.
    asked: usize,
}

#[derive(Debug, Clone)]
enum Act {
    Write(bool, u8, usize),
    Read(bool, u8, Stream, usize, How),
    Ask(bool, u8),
    /// Asked by this side, and from then on answered with so many bytes.
    AskGlobal(bool, usize),
    Step(u8),
    Drive,
    Stall(bool, bool),
    Rekey(bool),
}

fn global() -> GlobalRequestKind {
    GlobalRequestKind { name: "x@ssh-tests.invalid".into(), data: vec![7; 100] }
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![Just(How::Slices), Just(How::Into), Just(How::Peek)]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (any::<bool>(), any::<u8>(), 1usize..80_000).prop_map(|(s, c, n)| Act::Write(s, c, n)),
        3 => (any::<bool>(), any::<u8>(), 1usize..50).prop_map(|(s, c, n)| Act::Write(s, c, n)),
        6 => (any::<bool>(), any::<u8>(), stream(), 1usize..50_000, how())
            .prop_map(|(s, c, t, n, how)| Act::Read(s, c, t, n, how)),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(s, c)| Act::Ask(s, c)),
        2 => (any::<bool>(), 0usize..=32 * 1024).prop_map(|(s, n)| Act::AskGlobal(s, n)),
        4 => (1u8..10).prop_map(Act::Step),
        1 => Just(Act::Drive),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(s, on)| Act::Stall(s, on)),
        1 => any::<bool>().prop_map(Act::Rekey),
    ]
}

fn hear<R: Peer>(end: &mut End<R>, halves: &mut [Half]) {
    for event in std::mem::take(&mut end.events) {
        let Some((id, event)) = R::channel_event(&event) else { continue };
        halves.iter_mut().filter(|half| half.id == id).for_each(|half| half.hear(event));
    }
}

impl Talk {
    /// Channels with these plans and ways of stderr, on wires of this shape.
    fn new(pair: Pair, plans: &[(StderrMode, u32, [usize; 2])], seed: u64) -> Self {
        let mut talk = Self { pair, client: Vec::new(), server: Vec::new(), stderr: Vec::new(), asked: 0 };
        let mut random = Seeded::new(seed);
        for (stderr, window, sizes) in plans {
            let config = ChannelConfig::default().with_window(*window).with_stderr(*stderr);
            talk.pair.server.policy.channel = config;
            let (ours, theirs) = talk.pair.open_session_with(config);
            let [client, server] = sizes.map(|size| {
                let mut plan = Vec::new();
                let mut left = size;
                while left > 0 {
                    let n = (1 + random.below(60_000)).min(left);
                    left -= n;
                    plan.push((STREAMS[random.below(2)], random.bytes(n)));
                }
                plan
            });
            talk.client.push(Half::new(ours, client));
            talk.server.push(Half::new(theirs, server));
            talk.stderr.push(*stderr);
        }
        talk.pair.client.policy = Policy { read: false, ..Policy::default() };
        talk.pair.server.policy = Policy { read: false, ..Policy::default() };
        talk
    }

    fn hear(&mut self) {
        hear(&mut self.pair.client, &mut self.client);
        hear(&mut self.pair.server, &mut self.server);
    }

    fn act(&mut self, act: &Act) {
        self.hear();
        let channels = self.client.len();
        let at = |at: u8| usize::from(at) % channels;
        match *act {
            Act::Write(true, c, n) => drop(self.client[at(c)].write(&mut self.pair.client, n)),
            Act::Write(false, c, n) => drop(self.server[at(c)].write(&mut self.pair.server, n)),
            Act::Read(true, c, t, n, how) => {
                self.client[at(c)].read(&mut self.pair.client, t, n, how);
            }
            Act::Read(false, c, t, n, how) => {
                self.server[at(c)].read(&mut self.pair.server, t, n, how);
            }
            Act::Ask(true, c) => self.client[at(c)].ask(&mut self.pair.client),
            Act::Ask(false, c) => self.server[at(c)].ask(&mut self.pair.server),
            Act::AskGlobal(true, answer) => {
                self.pair.server.policy.global_data = answer;
                self.asked += usize::from(self.pair.client.conn.global_request(&global()).is_ok());
            }
            Act::AskGlobal(false, answer) => {
                self.pair.client.policy.global_data = answer;
                self.asked += usize::from(self.pair.server.conn.global_request(&global()).is_ok());
            }
            Act::Step(n) => {
                for _ in 0..n {
                    self.pair.step();
                }
            }
            Act::Drive => self.pair.drive(),
            Act::Stall(true, on) => self.pair.c2s.stalled = on,
            Act::Stall(false, on) => self.pair.s2c.stalled = on,
            Act::Rekey(true) => self.pair.client.conn.rekey(),
            Act::Rekey(false) => self.pair.server.conn.rekey(),
        }
    }

    /// Everything that can go on goes on, until nothing does.
    fn finish(&mut self) {
        (self.pair.c2s.stalled, self.pair.s2c.stalled) = (false, false);
        loop {
            self.pair.drive();
            self.hear();
            let mut busy = false;
            let Self { pair, client, server, .. } = self;
            for half in client {
                busy |= half.write(&mut pair.client, usize::MAX);
                busy |= STREAMS.iter().any(|s| half.read(&mut pair.client, *s, usize::MAX, How::Slices));
            }
            for half in server {
                busy |= half.write(&mut pair.server, usize::MAX);
                busy |= STREAMS.iter().any(|s| half.read(&mut pair.server, *s, usize::MAX, How::Slices));
            }
            if !busy {
                return;
            }
        }
    }

    /// What was read so far is the beginning of what was written.
    fn assert_prefixes(&self) {
        for ((client, server), how) in self.client.iter().zip(&self.server).zip(&self.stderr) {
            for (from, to) in [(client, server), (server, client)] {
                for stream in STREAMS {
                    assert!(from.expected(*how, stream).starts_with(&to.got[stream as usize]));
                }
            }
        }
    }

    /// Everything arrived, every stream ended, and both sides are idle.
    fn assert_complete(&self) {
        let Self { pair, .. } = self;
        assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
        for ((client, server), how) in self.client.iter().zip(&self.server).zip(&self.stderr) {
            for (from, to) in [(client, server), (server, client)] {
                assert!(from.plan.is_empty() && from.finished, "a writer was left waiting");
                for stream in STREAMS {
                    assert!(from.expected(*how, stream) == to.got[stream as usize], "{how:?} {stream:?}");
                }
                assert_eq!(to.ended, [true; 2], "a reader was left waiting");
                assert_eq!(from.answered, from.asked, "a reply was left owing");
            }
        }
        let answered = pair.client.count("GlobalReply(") + pair.server.count("GlobalReply(");
        assert_eq!(answered, self.asked, "a reply was left owing");
        assert!(pair.is_idle());
        ssh_tests::record::assert_clean_exchanges(&pair.c2s.sent);
        ssh_tests::record::assert_clean_exchanges(&pair.s2c.sent);
    }
}

fn stderr() -> impl Strategy<Value = StderrMode> {
    prop_oneof![3 => Just(StderrMode::Separate), 1 => Just(StderrMode::Combined), 1 => Just(StderrMode::Discard)]
}

fn plan() -> impl Strategy<Value = (StderrMode, u32, [usize; 2])> {
    let window = prop_oneof![Just(1u32), Just(200), Just(40_000), Just(2 << 20)];
    (stderr(), window).prop_flat_map(|(stderr, window)| {
        let most: usize = if window == 1 {
            300
        } else if window == 200 {
            20_000
        } else {
            300_000
        };
        ([0..most, 0..most]).prop_map(move |sizes| (stderr, window, sizes))
    })
}

fn rekeys() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        2 => Just((1u64 << 30, 1u64 << 28)),
        1 => (1u64..100_000, Just(1u64 << 28)),
        1 => (Just(1u64 << 30), 1u64..60),
    ]
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn l6_and_l7_every_stream_arrives_whole_and_in_order_and_nobody_waits_forever(
        plans in proptest::collection::vec(plan(), 1..4),
        acts in proptest::collection::vec(act(), 0..150),
        (bytes, packets) in rekeys(),
        capacity in prop_oneof![Just(None), (1usize..100_000).prop_map(Some)],
        (max_split, max_write) in (1usize..100_000, 1usize..100_000),
        output in prop_oneof![Just(64 * 1024), Just(256 * 1024)],
        seed: u64,
    ) {
        let (client, server) = null_configs_with(
            |limits| {
                limits.small_rekeys_per_minute = None;
                limits.output = output;
            },
            |rekey| (rekey.bytes, rekey.packets) = (bytes, packets),
        );
        let mut pair = Pair::new(client, server, seed);
        pair.login();
        let mut talk = Talk::new(pair, &plans, seed);
        for wire in [&mut talk.pair.c2s, &mut talk.pair.s2c] {
            wire.capacity = capacity;
            wire.split = Split::random(seed, max_split);
            wire.writes = Split::random(!seed, max_write);
        }
        for act in &acts {
            talk.act(act);
            talk.assert_prefixes();
        }
        talk.finish();
        talk.assert_complete();
    }

    #[test]
    fn l5_closed_comes_once_and_last(
        acts in proptest::collection::vec(act(), 0..60),
        end in 0usize..40_000, at_client: bool, garbage: bool, seed: u64,
    ) {
        let mut pair = Pair::logged_in();
        pair.client.policy.read = false;
        let mut talk = Talk::new(pair, &[(StderrMode::Separate, 40_000, [90_000, 90_000])], seed);
        let wire = if at_client { &mut talk.pair.s2c } else { &mut talk.pair.c2s };
        let from = wire.sent.len();
        if garbage {
            wire.edit(move |at, bytes| {
                if let Some(byte) = (from + end).checked_sub(at).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 0x10;
                }
            });
        } else {
            wire.cut_at = Some(wire.delivered + end);
        }
        for act in acts {
            // `turn` asserts that nothing follows `Closed`.
            let Talk { pair, .. } = &talk;
            if pair.client.closed.is_some() || pair.server.closed.is_some() {
                break;
            }
            talk.act(&act);
        }
        for side in [true, false] {
            if talk.pair.client.closed.is_none() && talk.pair.server.closed.is_none() {
                talk.act(&Act::Write(side, 0, 70_000));
                talk.act(&Act::Drive);
            }
        }
        talk.pair.c2s.stalled = false;
        talk.pair.s2c.stalled = false;
        talk.pair.c2s.cut();
        talk.pair.s2c.cut();
        talk.pair.advance(std::time::Duration::from_secs(300));
        prop_assert_eq!(talk.pair.client.count("Closed("), 1, "{:?}", talk.pair.client.trace);
        prop_assert_eq!(talk.pair.server.count("Closed("), 1, "{:?}", talk.pair.server.trace);
        prop_assert!(talk.pair.client.conn.is_closed() && talk.pair.server.conn.is_closed());
        prop_assert!(talk.pair.client.conn.output().is_empty() && talk.pair.server.conn.output().is_empty());
        prop_assert_eq!(talk.pair.next_timeout(), None);
    }
}

/// Who writes until `Blocked` and then waits for `Writable`, and may lose interest while waiting.
struct Writer {
    id: ChannelId,
    left: usize,
    /// So many times it writes on when told; `None` is every time.
    patience: Option<usize>,
    waits: bool,
}

impl Writer {
    fn write(&mut self, end: &mut End<Client>) {
        while self.left > 0 && !self.waits {
            match end.conn.channel(self.id).unwrap().write(Stream::Data, &vec![0; self.left]) {
                Ok(n) => self.left -= n,
                Err(error) => {
                    assert_eq!(error, WriteError::Blocked);
                    self.waits = true;
                }
            }
        }
    }

    fn told(&mut self) {
        assert!(std::mem::take(&mut self.waits), "told without a refused write");
        match &mut self.patience {
            Some(0) => self.left = 0,
            Some(times) => *times -= 1,
            None => {}
        }
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn l7_whoever_waits_for_room_is_told_also_when_those_told_before_write_nothing(
        writers in proptest::collection::vec((1usize..150_000, proptest::option::of(0usize..3)), 3..16),
        consumed in proptest::collection::vec(1usize..100_000, 1..10),
        output in prop_oneof![Just(64 * 1024), Just(256 * 1024)], at_once: bool,
    ) {
        let (client, server) = null_configs_with(|limits| limits.output = output, |_| {});
        let mut pair = Pair::new(client, server, 1);
        pair.login();
        let open = |(left, patience)| Writer { id: pair.open_session().0, left, patience, waits: false };
        let mut writers: Vec<Writer> = writers.into_iter().map(open).collect();
        let end = &mut pair.client;
        writers.iter_mut().for_each(|writer| writer.write(end));
        for n in consumed.into_iter().cycle() {
            if end.conn.output().is_empty() {
                break;
            }
            end.conn.consume_output(n);
            while let Some(event) = end.conn.poll_event() {
                let Some((id, ChannelEvent::Writable)) = Client::channel_event(&event) else { continue };
                let writer = writers.iter_mut().find(|writer| writer.id == id).unwrap();
                writer.told();
                if at_once {
                    writer.write(end);
                }
            }
            writers.iter_mut().for_each(|writer| writer.write(end));
        }
        for writer in writers {
            prop_assert!(!writer.waits && writer.left == 0, "a writer was left waiting");
        }
    }
}

/// Which of the wires take nothing, from the client and from the server.
const STALLS: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];

#[test]
fn l7_full_outputs_and_stalled_wires_are_no_deadlock_whoever_wants_new_keys_and_answers() {
    for stalls in STALLS {
        for rekeys in [[false, false], [true, false], [false, true], [true, true]] {
            for first in [true, false] {
                let mut pair = Pair::logged_in();
                (pair.c2s.capacity, pair.s2c.capacity) = (Some(1000), Some(1000));
                let sizes = [600_000, 600_000];
                let plans = [(StderrMode::Separate, 2 << 20, sizes), (StderrMode::Combined, 100_000, sizes)];
                let mut talk = Talk::new(pair, &plans, 1);
                [talk.pair.c2s.stalled, talk.pair.s2c.stalled] = stalls;
                let act = |talk: &mut Talk, act: &dyn Fn(bool) -> Act| {
                    [true, false].into_iter().for_each(|side| talk.act(&act(side)));
                };
                // Both outputs are as full as they get, with everything else behind them.
                for at in 0..100 {
                    act(&mut talk, &|side| Act::Write(side, at, usize::MAX));
                }
                let output = [talk.pair.client.conn.output().len(), talk.pair.server.conn.output().len()];
                assert!(output.iter().all(|output| *output >= 256 * 1024), "{output:?}");
                act(&mut talk, &|side| Act::Ask(side, 0));
                act(&mut talk, &|side| Act::AskGlobal(side, 0));
                act(&mut talk, &|side| {
                    if rekeys[usize::from(side)] { Act::Rekey(side) } else { Act::Step(1) }
                });
                talk.act(&Act::Drive);
                act(&mut talk, &|side| Act::Ask(side, 1));
                talk.act(&Act::Drive);
                talk.assert_prefixes();
                // One wire after the other.
                talk.act(&Act::Stall(first, false));
                talk.act(&Act::Drive);
                talk.assert_prefixes();
                assert_eq!((&talk.pair.client.closed, &talk.pair.server.closed), (&None, &None));
                talk.finish();
                talk.assert_complete();
                let rekeyed = usize::from(rekeys != [false, false]);
                assert_eq!(talk.pair.client.count("Rekeyed"), rekeyed, "{stalls:?} {rekeys:?}");
            }
        }
    }
}

#[test]
fn l7_full_outputs_are_no_deadlock_however_long_the_answers_to_requests_are() {
    for stalls in STALLS {
        let mut pair = Pair::logged_in();
        (pair.c2s.capacity, pair.s2c.capacity) = (Some(1000), Some(1000));
        let mut talk = Talk::new(pair, &[(StderrMode::Separate, 2 << 20, [600_000, 600_000])], 1);
        let pair = &mut talk.pair;
        (pair.client.policy.global, pair.server.policy.global) = (Answer::Keep, Answer::Keep);
        for _ in 0..16 {
            pair.client.conn.global_request(&global()).unwrap();
            pair.server.conn.global_request(&global()).unwrap();
        }
        pair.drive();
        let asked: Vec<_> = (0..16)
            .map(|_| {
                let client = take!(pair.client, ClientEvent::Global(request) => request);
                (client, take!(pair.server, ServerEvent::Global(request) => request))
            })
            .collect();
        talk.asked = 32;
        [talk.pair.c2s.stalled, talk.pair.s2c.stalled] = stalls;
        for at in 0..100 {
            talk.act(&Act::Write(true, at, usize::MAX));
            talk.act(&Act::Write(false, at, usize::MAX));
        }
        let answer = [7; 8 * 1024];
        for (client, server) in asked {
            talk.pair.client.conn.reply_global(client, GlobalReply::Success(&answer)).unwrap();
            talk.pair.server.conn.reply_global(server, GlobalReply::Success(&answer)).unwrap();
        }
        talk.finish();
        talk.assert_complete();
    }
}
