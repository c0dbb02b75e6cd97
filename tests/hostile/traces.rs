//! Random sessions with a peer that keeps to every rule, and an embedder that does whatever it likes: the
//! connection never blames the peer, and what it sends keeps to the rules as well.

use std::collections::{BTreeMap, VecDeque};

use ssh_proto::raw::channel::*;
use ssh_proto::raw::{KexStep, Message, State, number};
use ssh_proto::{
    ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind, ClientEvent, GlobalReply,
    GlobalRequestKind, OpenFailure, OpenFailureCode, ServerEvent, Side, Stream,
};
use ssh_tests::scene::{Event, Subject};
use ssh_tests::{Scene, Seeded, either, hand, null_client, null_server};

/// A channel as the peer sees it. Its own number is its place in the list.
#[derive(Debug, Default)]
struct Model {
    /// The subject's number, once known.
    theirs: Option<u32>,
    refused: bool,
    /// What the peer may still send.
    window: u64,
    /// What the subject may still send.
    granted: u64,
    eof_out: bool,
    close_out: bool,
    eof_in: bool,
    close_in: bool,
    /// Requests of the peer that want an answer, and answers that came.
    asked: usize,
    answered: usize,
    /// Requests of the subject that want an answer.
    owed: usize,
}

/// The peer's memory of the session.
#[derive(Debug, Default)]
struct Peer {
    channels: Vec<Model>,
    /// Opens of the subject that were not answered: its number, its window.
    opens: VecDeque<(u32, u64)>,
    /// Global requests with an answer wanted, and the answers.
    asked: usize,
    answered: usize,
    /// Global requests of the subject.
    owed: usize,
    /// The subject's KEXINIT is out, its NEWKEYS is not.
    exchange: bool,
    /// How often each message came.
    heard: BTreeMap<u8, usize>,
}

impl Peer {
    /// Looks at what the subject sent; anything out of place is a bug of it.
    fn hear(&mut self, payload: &[u8], context: &str) {
        let channel = |peer: &mut Self, recipient: u32| -> usize {
            let at = recipient as usize;
            assert!(at < peer.channels.len(), "{context}: no channel {recipient}");
            assert!(!peer.channels[at].close_in, "{context}: behind its CLOSE: {payload:?}");
            at
        };
        let kex = matches!(payload[0], 1..=4 | 20..=49);
        *self.heard.entry(payload[0]).or_default() += 1;
        assert!(kex || !self.exchange, "{context}: message {} during an exchange", payload[0]);
        fn get<'a, M: Message<'a>>(payload: &'a [u8]) -> M {
            M::decode(payload).expect("well-formed")
        }
        match payload[0] {
            number::KEXINIT => self.exchange = true,
            number::NEWKEYS => self.exchange = false,
            number::CHANNEL_OPEN => {
                let open: ChannelOpen<'_> = get(payload);
                self.opens.push_back((open.sender, u64::from(open.window)));
            }
            number::CHANNEL_OPEN_CONFIRMATION => {
                let confirmation: ChannelOpenConfirmation<'_> = get(payload);
                let at = channel(self, confirmation.recipient);
                let model = &mut self.channels[at];
                assert!(model.theirs.is_none() && !model.refused, "{context}: answered twice");
                model.theirs = Some(confirmation.sender);
                model.window = u64::from(confirmation.window);
            }
            number::CHANNEL_OPEN_FAILURE => {
                let failure: ChannelOpenFailure<'_> = get(payload);
                let at = channel(self, failure.recipient);
                let model = &mut self.channels[at];
                assert!(model.theirs.is_none() && !model.refused, "{context}: answered twice");
                model.refused = true;
            }
            number::CHANNEL_WINDOW_ADJUST => {
                let adjust: ChannelWindowAdjust = get(payload);
                let at = channel(self, adjust.recipient);
                self.channels[at].window += u64::from(adjust.bytes);
                assert!(self.channels[at].window <= u64::from(u32::MAX), "{context}");
            }
            number::CHANNEL_DATA | number::CHANNEL_EXTENDED_DATA => {
                let (recipient, len) = match payload[0] {
                    number::CHANNEL_DATA => {
                        let data: ChannelData<'_> = get(payload);
                        (data.recipient, data.data.len() as u64)
                    }
                    _ => {
                        let data: ChannelExtendedData<'_> = get(payload);
                        (data.recipient, data.data.len() as u64)
                    }
                };
                let at = channel(self, recipient);
                let model = &mut self.channels[at];
                assert!(!model.eof_in, "{context}: data behind EOF");
                model.granted = model.granted.checked_sub(len).expect("data within the window");
            }
            number::CHANNEL_EOF => {
                let eof: ChannelEof = get(payload);
                let at = channel(self, eof.recipient);
                assert!(!std::mem::replace(&mut self.channels[at].eof_in, true), "{context}: EOF twice");
            }
            number::CHANNEL_CLOSE => {
                let close: ChannelClose = get(payload);
                let at = channel(self, close.recipient);
                assert!(self.channels[at].theirs.is_some(), "{context}");
                self.channels[at].close_in = true;
            }
            number::CHANNEL_REQUEST => {
                let request: ChannelRequest<'_> = get(payload);
                let at = channel(self, request.recipient);
                self.channels[at].owed += usize::from(request.want_reply);
            }
            number::CHANNEL_SUCCESS | number::CHANNEL_FAILURE => {
                let recipient = u32::from_be_bytes(payload[1..5].try_into().expect("four bytes"));
                let at = channel(self, recipient);
                self.channels[at].answered += 1;
                assert!(
                    self.channels[at].answered <= self.channels[at].asked,
                    "{context}: answers to nothing"
                );
            }
            number::GLOBAL_REQUEST => {
                let request: GlobalRequest<'_> = get(payload);
                self.owed += usize::from(request.want_reply);
            }
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => {
                self.answered += 1;
                assert!(self.answered <= self.asked, "{context}: answers to nothing");
            }
            _ => {}
        }
    }

    /// The number, for the subject, of an open channel on which the peer may still send, and its place.
    fn pick(&self, random: &mut Seeded) -> Option<(usize, u32)> {
        let open = self.channels.iter().enumerate().filter(|(_, model)| !model.close_out);
        let open: Vec<_> = open.filter_map(|(at, model)| model.theirs.map(|theirs| (at, theirs))).collect();
        (!open.is_empty()).then(|| open[random.below(open.len())])
    }
}

/// The session: both ends and what the embedder holds.
struct Session {
    scene: Scene,
    peer: Peer,
    random: Seeded,
    held: Vec<Event>,
    ids: Vec<ChannelId>,
    context: String,
}

impl Session {
    fn new(side: Side, seed: u64) -> Self {
        let limits = |limits: &mut ssh_proto::Limits| {
            limits.small_rekeys_per_minute = None;
            limits.noise_burst = u32::MAX;
            limits.unimplemented_replies = u32::MAX;
            limits.max_channels = 6;
            limits.recv_budget = 6 * limits.min_window + (1 << 20);
            limits.open_timeout = None;
        };
        let scene = match side {
            Side::Client => Scene::of_client(null_client().with_limits(limits).build().expect("a client")),
            Side::Server => Scene::of_server(null_server().with_limits(limits).build().expect("a server")),
        };
        let (held, ids, context) = (Vec::new(), Vec::new(), format!("{side:?}, seed {seed}"));
        let peer = Peer::default();
        Self { scene: scene.authenticated(), peer, random: Seeded::new(seed), held, ids, context }
    }

    /// Takes what happened, and checks it.
    fn look(&mut self) {
        self.scene.settle();
        for heard in std::mem::take(&mut self.scene.heard) {
            self.peer.hear(&heard.payload, &self.context);
        }
        for event in std::mem::take(&mut self.scene.events) {
            assert!(event.closed().is_none(), "{}: {event:?}", self.context);
            let asks = matches!(
                &event,
                Event::Client(
                    ClientEvent::Open(_)
                        | ClientEvent::Global(_)
                        | ClientEvent::Channel(_, ChannelEvent::Request(_))
                ) | Event::Server(
                    ServerEvent::Open(_)
                        | ServerEvent::Global(_)
                        | ServerEvent::Channel(_, ChannelEvent::Request(_))
                )
            );
            if asks {
                self.held.push(event);
            }
        }
    }

    fn peer_acts(&mut self) {
        let Self { scene, peer, random, .. } = self;
        // An exchange goes on step by step.
        match scene.state() {
            State::RekeyKex(KexStep::Single) => return scene.method(),
            State::RekeyAwaitNewKeys => return scene.new_keys(),
            State::RekeySent if random.below(3) == 0 => return scene.kexinit(|_| {}),
            _ => {}
        }
        match random.below(16) {
            0 if peer.channels.len() < 40 => {
                let sender = u32::try_from(peer.channels.len()).expect("few");
                peer.channels.push(Model { granted: 5000, ..Model::default() });
                let kind = if scene.side() == Side::Server { "session" } else { "x@ssh-tests.invalid" };
                scene.say(&hand::open_as(kind.as_bytes(), sender, 5000, 1000));
            }
            1 => {
                if let Some((theirs, window)) = peer.opens.pop_front() {
                    let ours = u32::try_from(peer.channels.len()).expect("few");
                    if random.below(4) == 0 {
                        scene.tell(&ChannelOpenFailure {
                            recipient: theirs,
                            code: 2,
                            description: b"",
                            language: b"",
                        });
                    } else {
                        let theirs_now = Some(theirs);
                        peer.channels.push(Model {
                            theirs: theirs_now,
                            window,
                            granted: 700,
                            ..Model::default()
                        });
                        scene.say(&hand::confirmation(theirs, ours, 700, 100));
                    }
                }
            }
            2..=4 => {
                if let Some((at, theirs)) = peer.pick(random).filter(|(at, _)| !peer.channels[*at].eof_out) {
                    let len =
                        random.below(4000).min(usize::try_from(peer.channels[at].window).expect("small"));
                    peer.channels[at].window -= len as u64;
                    let data = vec![b'd'; len];
                    scene.say(&match random.below(3) {
                        0 => hand::extended(theirs, 1, &data),
                        _ => hand::data(theirs, &data),
                    });
                }
            }
            5 => {
                if let Some((at, theirs)) = peer.pick(random) {
                    let bytes = u32::try_from(random.below(3000)).expect("small");
                    peer.channels[at].granted += u64::from(bytes);
                    scene.say(&hand::adjust(theirs, bytes));
                }
            }
            6 => {
                if let Some((at, theirs)) = peer.pick(random).filter(|(at, _)| !peer.channels[*at].eof_out) {
                    peer.channels[at].eof_out = true;
                    scene.say(&hand::eof(theirs));
                }
            }
            7 if random.below(4) == 0 => {
                if let Some((at, theirs)) = peer.pick(random) {
                    peer.channels[at].close_out = true;
                    scene.say(&hand::close(theirs));
                }
            }
            8 | 9 => {
                if let Some((at, theirs)) = peer.pick(random) {
                    let want_reply = random.below(2) == 0;
                    peer.channels[at].asked += usize::from(want_reply);
                    let name = ["exec", "shell", "env", "exit-status", "x@y", "y@x"][random.below(6)];
                    scene.say(&hand::request(theirs, name, want_reply, b"\0\0\0\0"));
                }
            }
            10 => {
                let at = peer.channels.iter().position(|model| model.owed > 0 && !model.close_out);
                if let Some((at, theirs)) = at.and_then(|at| Some((at, peer.channels[at].theirs?))) {
                    peer.channels[at].owed -= 1;
                    match random.below(2) {
                        0 => scene.tell(&ChannelSuccess { recipient: theirs }),
                        _ => scene.tell(&ChannelFailure { recipient: theirs }),
                    }
                }
            }
            11 => {
                let want_reply = random.below(2) == 0;
                peer.asked += usize::from(want_reply);
                let name = ["keepalive@openssh.com", "x@y"][random.below(2)];
                scene.say(&hand::global(name, want_reply));
            }
            12 if peer.owed > 0 => {
                peer.owed -= 1;
                scene.say(&hand::bare(number::REQUEST_FAILURE));
            }
            13 => scene.say(&[hand::ignore(9), hand::ping(20), hand::bare(201)][random.below(3)]),
            14 if random.below(4) == 0 => scene.kexinit(|_| {}),
            _ => {}
        }
    }

    fn embedder_acts(&mut self) {
        if !self.held.is_empty() && self.random.below(2) == 0 {
            let event = self.held.swap_remove(self.random.below(self.held.len()));
            return self.react(event);
        }
        let Self { scene, random, ids, .. } = self;
        let config = ChannelConfig::default().with_window(8000);
        if ids.is_empty() || random.below(10) == 0 {
            let opened =
                either!(&mut scene.subject, conn => conn.open_channel(&ChannelKind::Session, config));
            return ids.extend(opened);
        }
        let at = random.below(ids.len());
        let (id, mut choice) = (ids[at], random.below(12));
        if (7..10).contains(&choice) && random.below(4) > 0 {
            // Most channels live long.
            choice = 3;
        }
        either!(&mut scene.subject, conn => {
            if choice == 10 {
                return conn.rekey();
            }
            if choice == 11 {
                let _ = conn.global_request(&GlobalRequestKind { name: "x@y".into(), data: Vec::new() });
                return;
            }
            let Ok(mut channel) = conn.channel(id) else { return };
            match choice {
                0..=2 => drop(channel.write(Stream::Data, &vec![b'w'; random.below(3000)])),
                3 | 4 => drop(channel.read(Stream::Data, random.below(5000))),
                5 => drop(channel.read(Stream::Stderr, random.below(5000))),
                6 => drop(channel.request(&ChannelRequestKind::Shell, random.below(2) == 0)),
                7 => drop(channel.eof()),
                8 => channel.close(),
                _ => {
                    channel.release();
                    ids.swap_remove(at);
                }
            }
        });
    }

    /// Answers a ticket this way or that.
    fn react(&mut self, event: Event) {
        let Self { scene, random, ids, .. } = self;
        let config = ChannelConfig::default().with_window(8000);
        let choice = random.below(4);
        macro_rules! answer {
            ($conn:expr, $event:expr, $events:ident) => {
                match $event {
                    $events::Open(ticket) => match choice {
                        0 => drop(ticket),
                        1 => {
                            let why = OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "no");
                            let _ = $conn.reject_channel(ticket, why);
                        }
                        _ => ids.extend($conn.accept_channel(ticket, config)),
                    },
                    $events::Channel(_, ChannelEvent::Request(ticket)) => match choice {
                        0 => drop(ticket),
                        _ => drop($conn.reply_request(ticket, choice == 1)),
                    },
                    $events::Global(ticket) => match choice {
                        0 => drop(ticket),
                        1 => drop($conn.reply_global(ticket, GlobalReply::Failure)),
                        _ => drop($conn.reply_global(ticket, GlobalReply::Success(b"yes"))),
                    },
                    _ => {}
                }
            };
        }
        match (&mut scene.subject, event) {
            (Subject::Client(conn), Event::Client(event)) => answer!(conn, event, ClientEvent),
            (Subject::Server(conn), Event::Server(event)) => answer!(conn, event, ServerEvent),
            _ => {}
        }
    }

    /// Everybody answers everything and closes; then nothing may be left.
    fn wind_up(mut self) -> BTreeMap<u8, usize> {
        while !matches!(self.scene.state(), State::Authed) || self.peer.exchange {
            match self.scene.state() {
                State::RekeySent => self.scene.kexinit(|_| {}),
                State::RekeyKex(_) => self.scene.method(),
                _ => self.scene.new_keys(),
            }
            self.look();
        }
        while let Some(event) = self.held.pop() {
            self.react(event);
            self.look();
        }
        for id in std::mem::take(&mut self.ids) {
            either!(&mut self.scene.subject, conn => {
                if let Ok(channel) = conn.channel(id) {
                    channel.release();
                }
            });
        }
        self.look();
        while let Some((theirs, _)) = self.peer.opens.pop_front() {
            let (code, description, language) = (2, &b""[..], &b""[..]);
            self.scene.tell(&ChannelOpenFailure { recipient: theirs, code, description, language });
        }
        for at in 0..self.peer.channels.len() {
            let model = &mut self.peer.channels[at];
            if let Some(theirs) = model.theirs.filter(|_| !model.close_out) {
                model.close_out = true;
                self.scene.say(&hand::close(theirs));
            }
        }
        while std::mem::take(&mut self.peer.owed) > 0 {
            self.scene.say(&hand::bare(number::REQUEST_FAILURE));
        }
        self.look();
        let context = &self.context;
        assert_eq!(self.peer.answered, self.peer.asked, "{context}: global requests");
        for (at, model) in self.peer.channels.iter().enumerate() {
            assert!(model.refused || model.close_in, "{context}: channel {at} has no end: {model:?}");
        }
        let held = self.scene.memory();
        let left = BTreeMap::from([
            ("channels", held.channels),
            ("owed", held.owed),
            ("outbox", held.outbox),
            ("parked", held.parked),
            ("granted", held.granted),
            ("output", held.output),
            ("borrowed", held.borrowed),
        ]);
        let left: Vec<_> = left.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        assert_eq!(left, [], "{context}");
        self.peer.heard
    }
}

#[test]
fn a_peer_that_keeps_to_the_rules_is_never_blamed_and_nothing_is_left_of_it() {
    let (mut steps, mut heard) = (0, BTreeMap::new());
    for seed in 0..400 {
        for side in [Side::Client, Side::Server] {
            let mut session = Session::new(side, seed);
            for _ in 0..200 {
                steps += 1;
                match session.random.below(2) {
                    0 => session.peer_acts(),
                    _ => session.embedder_acts(),
                }
                session.look();
            }
            for (number, times) in session.wind_up() {
                *heard.entry(number).or_insert(0) += times;
            }
        }
    }
    assert_eq!(steps, 160_000);
    let rare =
        [81, 82, 90, 91, 92, 93, 94, 96, 97, 98, 99, 100, 20, 21, 3, 193].map(|number| heard.get(&number));
    assert!(rare.into_iter().all(|times| times.is_some_and(|times| *times > 200)), "{heard:?}");
}
