//! Channels: numbers that name nothing, states that do not fit, windows.

use ssh_proto::raw::channel::{
    ChannelFailure, ChannelOpenFailure, ChannelSuccess, ChannelWindowAdjust, EXTENDED_DATA_STDERR,
};
use ssh_proto::raw::{Message, number};
use ssh_proto::{
    ChannelConfig, ChannelId, ChannelKind, ClientEvent, Limits, PeerMisbehaved, ReadError, ServerEvent, Side,
    StderrMode, Stream, WriteError,
};
use ssh_tests::scene::{Event, encoded};
use ssh_tests::{Scene, either, hand, null_client, null_server};

use crate::stage::rule;

/// How far the channel with our number 0 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Our open is unanswered.
    Opening,
    Open,
    /// The peer sent EOF.
    EofIn,
    /// We sent CLOSE, the peer did not.
    CloseOut,
    /// Both sent CLOSE, and the embedder is done with it.
    Gone,
    /// The number was never ours.
    Never,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It has an effect.
    Taken,
    /// It has none, and nothing is said.
    Dropped,
    Broken(PeerMisbehaved),
}

fn channel_in(side: Side, progress: Progress) -> Scene {
    let mut scene = Scene::of(side).authenticated();
    if progress == Progress::Opening {
        let config = ChannelConfig::default();
        either!(&mut scene.subject, conn => conn.open_channel(&ChannelKind::Session, config)).expect("room");
    } else if progress != Progress::Never {
        let id = scene.open_session(1 << 20);
        match progress {
            Progress::EofIn => scene.say(&hand::eof(0)),
            Progress::CloseOut => {
                either!(&mut scene.subject, conn => conn.channel(id).expect("known").close())
            }
            Progress::Gone => {
                either!(&mut scene.subject, conn => conn.channel(id).expect("known").close());
                scene.say(&hand::close(0));
                either!(&mut scene.subject, conn => conn.channel(id).expect("known").release());
            }
            _ => {}
        }
    }
    scene.forget();
    scene
}

fn message(number: u8) -> Vec<u8> {
    match number {
        91 => hand::confirmation(0, 7, 1 << 20, 32768),
        92 => encoded(&ChannelOpenFailure { recipient: 0, code: 1, description: b"no", language: b"" }),
        93 => hand::adjust(0, 10),
        94 => hand::data(0, b"data"),
        95 => hand::extended(0, 1, b"data"),
        96 => hand::eof(0),
        97 => hand::close(0),
        98 => hand::request(0, "shell", true, b""),
        99 => encoded(&ChannelSuccess { recipient: 0 }),
        _ => encoded(&ChannelFailure { recipient: 0 }),
    }
}

#[test]
fn ch_09_ch_10_ch_11_every_message_to_a_channel_in_every_state() {
    use Fate::{Broken, Dropped, Taken};
    use PeerMisbehaved::*;
    use Progress::*;
    let (not_opening, not_open) = (Broken(ChannelNotOpening), Broken(ChannelNotOpen));
    let (late, twice, never) = (Broken(DataAfterEof), Broken(DuplicateEof), Broken(UnknownChannel));
    let columns = [Opening, Open, EofIn, CloseOut, Gone, Never];
    let table: [(u8, [Fate; 6]); 10] = [
        (91, [Taken, not_opening, not_opening, not_opening, not_opening, never]),
        (92, [Taken, not_opening, not_opening, not_opening, not_opening, never]),
        (93, [not_open, Taken, Taken, Dropped, Dropped, never]),
        (94, [not_open, Taken, late, Dropped, Dropped, never]),
        (95, [not_open, Taken, late, Dropped, Dropped, never]),
        (96, [not_open, Taken, twice, Taken, Dropped, never]),
        (97, [not_open, Taken, Taken, Taken, Dropped, never]),
        (98, [not_open, Taken, Taken, Dropped, Dropped, never]),
        (99, [Dropped, Dropped, Dropped, Dropped, Dropped, never]),
        (100, [Dropped, Dropped, Dropped, Dropped, Dropped, never]),
    ];
    for side in [Side::Client, Side::Server] {
        for (number, fates) in table {
            for (progress, fate) in columns.into_iter().zip(fates) {
                let context = format!("{side:?}: {number} when {progress:?}");
                let mut scene = channel_in(side, progress);
                scene.say(&message(number));
                match fate {
                    Broken(rule) => scene.assert_broken(rule, Some(number)),
                    Dropped => assert_eq!((scene.events.len(), &scene.heard[..]), (0, &[][..]), "{context}"),
                    // A wider window has no event, and neither the CLOSE that answers ours an answer.
                    Taken => {
                        assert!(!scene.is_over(), "{context}: {:?}", scene.events);
                        let shown = !scene.events.is_empty() || !scene.heard.is_empty();
                        assert_eq!(shown, number != 93, "{context}");
                    }
                }
            }
        }
    }
}

#[test]
fn ch_09_late_messages_to_a_channel_that_is_gone_are_noise() {
    for side in [Side::Client, Side::Server] {
        for number in 93..=100 {
            let mut scene = channel_in(side, Progress::Gone);
            (0..256).for_each(|_| scene.say(&message(number)));
            assert!(!scene.is_over(), "{side:?}: {number}");
            scene.say(&message(number));
            scene.assert_broken(PeerMisbehaved::NoiseFlood, Some(number));
        }
    }
}

#[test]
fn ch_09_the_largest_number_names_nothing() {
    for number in 91..=100 {
        let mut scene = channel_in(Side::Server, Progress::Open);
        let mut payload = message(number);
        payload[1..5].fill(0xff);
        scene.say(&payload);
        assert_eq!(rule(&mut scene), PeerMisbehaved::UnknownChannel, "{number}");
    }
}

#[test]
fn ch_06_a_number_is_free_again_only_behind_both_closes() {
    let mut scene = Scene::server().authenticated();
    let first = scene.open_session(100);
    either!(&mut scene.subject, conn => conn.channel(first).expect("known").release());
    scene.forget();
    // Our CLOSE is out; theirs is not in.
    let second = scene.open_session(100);
    assert_ne!(first, second);
    scene.say(&hand::data(0, b"late"));
    assert_eq!(scene.read_all(second, Stream::Data), (Vec::new(), ReadError::Blocked));
    scene.say(&hand::close(0));
    assert_eq!(scene.memory().channels, 1);
    let third = scene.open_session(100);
    assert_ne!(first, third);
    assert_eq!(scene.memory().channels, 2);
}

#[test]
fn ch_06_opening_and_closing_over_and_over_keeps_nothing() {
    let mut scene = Scene::server().authenticated();
    let held = scene.memory();
    for _ in 0..2_000 {
        let id = scene.open_session(100);
        scene.say(&hand::data(0, b"x"));
        scene.say(&hand::close(0));
        either!(&mut scene.subject, conn => conn.channel(id).expect("known").release());
        scene.forget();
    }
    assert_eq!(scene.memory(), held);
}

/// Writes until the window is used up, and says how many bytes that were.
fn write_all(scene: &mut Scene, id: ChannelId) -> usize {
    let mut written = 0;
    loop {
        let result = either!(&mut scene.subject, conn => {
            conn.channel(id).expect("known").write(Stream::Data, &[0; 1000])
        });
        match result {
            Ok(n) => written += n,
            Err(error) => {
                assert_eq!(error, WriteError::Blocked);
                return written;
            }
        }
        scene.flush();
    }
}

#[test]
fn ch_01_windows_grow_to_their_end_and_not_beyond() {
    for side in [Side::Client, Side::Server] {
        for (window, adjust, fits) in [
            (0, u32::MAX, true),
            (1, u32::MAX, false),
            (u32::MAX, 0, true),
            (u32::MAX, 1, false),
            (1 << 31, 1 << 31, false),
            (1 << 31, (1 << 31) - 1, true),
        ] {
            let mut scene = Scene::of(side).authenticated();
            scene.open_session(window);
            scene.say(&hand::adjust(0, adjust));
            assert_eq!(!scene.is_over(), fits, "{window} + {adjust}");
            if !fits {
                assert_eq!(rule(&mut scene), PeerMisbehaved::WindowOverflow);
            }
        }
        let mut scene = Scene::of(side).authenticated();
        let id = scene.open_session(1500);
        assert_eq!(write_all(&mut scene, id), 1500);
        scene.say(&hand::adjust(0, 700));
        assert_eq!(write_all(&mut scene, id), 700);
    }
}

#[test]
fn ch_02_not_a_byte_beyond_the_window_and_a_tenth_where_that_is_wanted() {
    let window = 1000;
    for (lenient, fits) in [(false, 1000), (true, 1100)] {
        let config = null_client().with_limits(|limits| limits.lenient_window = lenient);
        let open = || {
            let mut scene = Scene::of_client(config.clone().build().expect("a client")).authenticated();
            let config = ChannelConfig::default().with_window(window);
            scene.as_client().open_channel(&ChannelKind::Session, config).expect("room");
            scene.settle();
            scene.say(&hand::confirmation(0, 7, 100, 100));
            scene
        };
        let mut scene = open();
        for stream in [0, 1] {
            let half = vec![0; fits / 2];
            scene.say(&if stream == 0 { hand::data(0, &half) } else { hand::extended(0, 1, &half) });
        }
        assert!(!scene.is_over(), "{lenient}");
        scene.say(&hand::extended(0, 1, b"x"));
        assert_eq!(rule(&mut scene), PeerMisbehaved::WindowExceeded);
    }
}

#[test]
fn ch_02_a_lenient_window_is_refilled_with_its_tenth_and_what_went_beyond_is_not_granted_again() {
    const WINDOW: usize = 1000;
    let config = null_client().with_limits(|limits| limits.lenient_window = true);
    let mut scene = Scene::of_client(config.build().expect("a client")).authenticated();
    let config = ChannelConfig::default().with_window(WINDOW as u32);
    let id = scene.as_client().open_channel(&ChannelKind::Session, config).expect("room");
    scene.settle();
    scene.say(&hand::confirmation(0, 7, 100, 100));
    let mut granted = WINDOW;
    for round in 1..=20 {
        scene.heard.clear();
        scene.say(&hand::data(0, &[0; WINDOW + WINDOW / 10]));
        assert!(!scene.is_over(), "{round}: {:?}", scene.events);
        assert_eq!((scene.memory().parked, scene.memory().granted), (WINDOW + WINDOW / 10, 0));
        assert_eq!(scene.heard, [], "nothing is granted before anything was read");
        assert_eq!(scene.read_all(id, Stream::Data).0.len(), WINDOW + WINDOW / 10);
        let adjusts = scene.take_heard().into_iter().map(|heard| {
            ChannelWindowAdjust::decode(&heard.payload).expect("only that is sent").bytes as usize
        });
        granted += adjusts.sum::<usize>();
        assert_eq!(granted, (round + 1) * WINDOW);
        assert_eq!((scene.memory().parked, scene.memory().granted), (0, WINDOW));
    }
    // The tenth comes with an adjust, not with the reading alone.
    scene.say(&hand::data(0, &[0; WINDOW + WINDOW / 10]));
    let mut channel = scene.as_client().channel(id).expect("known");
    assert_eq!(channel.read(Stream::Data, WINDOW / 10).expect("data").len(), WINDOW / 10);
    scene.heard.clear();
    scene.say(&hand::data(0, b"x"));
    assert_eq!(rule(&mut scene), PeerMisbehaved::WindowExceeded);
    assert_eq!(scene.disconnects(), [2]);
}

/// Types of extended data that are not defined.
const UNKNOWN: [u32; 3] = [0, 2, u32::MAX];

/// A subject with these limits and a session of this configuration, the peer's window being 100 bytes. The server
/// takes extended data of any type.
fn session_with(side: Side, limits: impl FnOnce(&mut Limits), config: ChannelConfig) -> (Scene, ChannelId) {
    let mut scene = match side {
        Side::Client => Scene::of_client(null_client().with_limits(limits).build().expect("a client")),
        Side::Server => {
            let config = null_server().any_extended_data(true).with_limits(limits);
            Scene::of_server(config.build().expect("a server"))
        }
    }
    .authenticated();
    let id = match side {
        Side::Client => {
            let id = scene.as_client().open_channel(&ChannelKind::Session, config).expect("room");
            scene.settle();
            scene.say(&hand::confirmation(0, 7, 100, 100));
            id
        }
        Side::Server => {
            scene.open_from_peer(7, 100);
            let request = scene.take(|event| match event {
                Event::Server(ServerEvent::Open(request)) => Ok(request),
                event => Err(event),
            });
            scene.as_server().accept_channel(request, config).expect("room")
        }
    };
    scene.forget();
    (scene, id)
}

#[test]
fn ch_03_ch_18_what_is_thrown_away_gives_its_window_back() {
    // Stderr that nobody wants, and types of data nobody knows.
    for (side, code) in [Side::Client, Side::Server]
        .into_iter()
        .flat_map(|side| std::iter::once(EXTENDED_DATA_STDERR).chain(UNKNOWN).map(move |code| (side, code)))
    {
        let config = ChannelConfig::default().with_stderr(StderrMode::Discard).with_window(65_536);
        let (mut scene, id) = session_with(side, |_| {}, config);
        let mut window = 65_536;
        for _ in 0..100 {
            scene.heard.clear();
            scene.say(&hand::extended(0, code, &[0; 30_000]));
            window -= 30_000;
            for heard in &scene.heard {
                let adjust = ChannelWindowAdjust::decode(&heard.payload);
                window += adjust.expect("only that is sent").bytes;
            }
            assert!(window >= 30_000, "{side:?}, type {code}: stalled");
        }
        assert!(!scene.is_over());
        assert_eq!(scene.read_all(id, Stream::Stderr), (Vec::new(), ReadError::Blocked));
        assert_eq!(scene.memory().parked, 0);
    }
}

#[test]
fn ch_18_extended_data_of_unknown_types_ends_the_connection_of_a_client_that_was_not_allowed_it() {
    for code in UNKNOWN {
        let mut scene = Scene::server().authenticated();
        let id = scene.open_session(100);
        scene.say(&hand::extended(0, EXTENDED_DATA_STDERR, b"stderr"));
        assert_eq!(scene.read_all(id, Stream::Stderr), (b"stderr".to_vec(), ReadError::Blocked));
        scene.say(&hand::extended(0, code, b"x"));
        scene.assert_broken(PeerMisbehaved::UnknownExtendedData, Some(number::CHANNEL_EXTENDED_DATA));
        assert_eq!(scene.disconnects(), [2]);
    }
}

#[test]
fn ch_04_packets_too_small_to_work_with_are_refused_and_small_ones_work() {
    for max_packet in [0, 1, 15] {
        let mut scene = Scene::server().authenticated();
        scene.say(&hand::open(7, 1 << 20, max_packet));
        let failure = ChannelOpenFailure::decode(&scene.heard[0].payload).expect("a refusal");
        assert_eq!((failure.recipient, scene.events.len()), (7, 0));
    }
    for max_packet in [16, u32::MAX] {
        let mut scene = Scene::client().authenticated();
        let id =
            scene.as_client().open_channel(&ChannelKind::Session, ChannelConfig::default()).expect("room");
        scene.settle();
        scene.say(&hand::confirmation(0, 7, 10_000, max_packet));
        scene.forget();
        assert_eq!(write_all(&mut scene, id), 10_000);
        let longest = scene.heard.iter().map(|heard| heard.payload.len() - 9).max();
        assert_eq!(longest, Some(max_packet.min(1000) as usize));
    }
}

#[test]
fn ch_19_a_window_may_grow_on_a_channel_that_is_half_over() {
    let mut scene = Scene::server().authenticated();
    let id = scene.open_session(0);
    scene.say(&hand::eof(0));
    scene.say(&hand::adjust(0, 10));
    assert_eq!(write_all(&mut scene, id), 10);
    either!(&mut scene.subject, conn => conn.channel(id).expect("known").close());
    scene.say(&hand::adjust(0, 10));
    assert!(!scene.is_over());
}

/// How a channel is closed here.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Close,
    Abort,
    Release,
    /// The CLOSE waits for the end of an exchange.
    CloseInExchange,
}

const LEAVES: [Leave; 4] = [Leave::Close, Leave::Abort, Leave::Release, Leave::CloseInExchange];

fn leave(scene: &mut Scene, id: ChannelId, how: Leave) {
    if let Leave::CloseInExchange = how {
        scene.rekey();
    }
    either!(&mut scene.subject, conn => {
        let mut channel = conn.channel(id).expect("known");
        match how {
            Leave::Close | Leave::CloseInExchange => channel.close(),
            Leave::Abort => drop(channel.abort()),
            Leave::Release => channel.release(),
        }
    });
    scene.forget();
}

#[test]
fn pk_13_whatever_comes_without_end_to_a_channel_we_closed_is_noise() {
    let exit = &7u32.to_be_bytes()[..];
    let floods = [
        hand::eof(0),
        hand::adjust(0, 1),
        hand::adjust(0, 1000),
        hand::request(0, "x@ssh-tests.invalid", false, b""),
        hand::request(0, "x@ssh-tests.invalid", true, &[0; 30_000]),
        hand::request(0, "exit-status", false, exit),
        hand::data(0, b""),
    ];
    for (side, how) in [Side::Client, Side::Server].into_iter().flat_map(|s| LEAVES.map(|how| (s, how))) {
        for flood in &floods {
            let mut scene = Scene::of(side).authenticated();
            let id = scene.open_session(100);
            leave(&mut scene, id, how);
            let mut said = 0;
            while !scene.is_over() && said < 1000 {
                scene.say(flood);
                said += 1;
            }
            scene.assert_broken(PeerMisbehaved::NoiseFlood, Some(flood[0]));
            // So much noise may be, and before that what an honest peer may have sent: requests that wait for their
            // answers, and an environment.
            let late = if flood[0] == number::CHANNEL_REQUEST { 16 + 128 } else { 16 };
            assert!((257..=257 + late).contains(&said), "{side:?} {how:?} {}: {said}", flood[0]);
        }
    }
}

#[test]
fn what_was_on_its_way_to_a_channel_we_closed_is_no_noise() {
    const WINDOW: u32 = 2000;
    for (side, how) in [Side::Client, Side::Server].into_iter().flat_map(|s| LEAVES.map(|how| (s, how))) {
        let config = ChannelConfig::default().with_window(WINDOW);
        let (mut scene, id) = session_with(side, |limits| limits.noise_burst = 1, config);
        scene.say(&hand::adjust(0, WINDOW - 100));
        assert_eq!(write_all(&mut scene, id), WINDOW as usize);
        leave(&mut scene, id, how);
        // A window's worth of data, in the smallest pieces, and as many pieces of what was sent given back.
        for _ in 0..WINDOW {
            scene.say(&hand::data(0, b"x"));
            scene.say(&hand::adjust(0, 1));
        }
        (0..16).for_each(|_| scene.say(&hand::request(0, "x@ssh-tests.invalid", true, b"")));
        (0..128).for_each(|_| scene.say(&hand::request(0, "env", false, b"\0\0\0\x01A\0\0\0\x01b")));
        scene.say(&hand::eof(0));
        scene.say(&hand::close(0));
        assert!(!scene.is_over(), "{side:?} {how:?}: {:?}", scene.events);
        // The one message without effect that is allowed was not among them.
        scene.say(&hand::ignore(0));
        assert!(!scene.is_over(), "{side:?} {how:?}: {:?}", scene.events);
        scene.say(&hand::ignore(0));
        assert_eq!(rule(&mut scene), PeerMisbehaved::NoiseFlood);
    }
}

#[test]
fn what_comes_to_a_channel_we_closed_earns_nothing() {
    for how in LEAVES {
        let config = ChannelConfig::default().with_window(2 << 20);
        let (mut scene, id) = session_with(Side::Server, |limits| limits.noise_burst = 3, config);
        (0..3).for_each(|_| scene.say(&hand::ignore(0)));
        leave(&mut scene, id, how);
        for _ in 0..16 {
            scene.say(&hand::data(0, &[0; 30_000]));
            scene.say(&hand::request(0, "x@ssh-tests.invalid", true, &[0; 30_000]));
        }
        assert!(!scene.is_over(), "{how:?}");
        scene.say(&hand::ignore(0));
        assert_eq!(rule(&mut scene), PeerMisbehaved::NoiseFlood, "{how:?}");
    }
}

#[test]
fn ch_12_ch_17_a_server_opens_nothing_that_was_not_allowed() {
    let config = ssh_proto::ClientConfig::builder(&ssh_tests::null::PROVIDER).build().expect("a client");
    for kind in ["session", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "direct-tcpip", ""] {
        let mut scene = Scene::of_client(config.clone()).authenticated();
        let kind = kind.as_bytes();
        scene.tell(&ssh_proto::raw::channel::ChannelOpen {
            kind,
            sender: 7,
            window: 100,
            max_packet: 100,
            data: b"anything",
        });
        let failure = ChannelOpenFailure::decode(&scene.heard[0].payload).expect("a refusal");
        assert_eq!((failure.recipient, failure.code), (7, 1));
        assert_eq!((scene.events.len(), scene.memory().channels), (0, 0));
    }
}

#[test]
fn ch_13_a_forwarded_connection_with_fields_that_are_none() {
    let mut scene = Scene::server().authenticated();
    let kind = b"direct-tcpip";
    for data in [&b""[..], b"\0\0\0\x04host", b"\xff\xff\xff\xff", &[0; 300]] {
        if scene.is_over() {
            scene = Scene::server().authenticated();
        }
        scene.tell(&ssh_proto::raw::channel::ChannelOpen {
            kind,
            sender: 7,
            window: 9,
            max_packet: 99,
            data,
        });
        assert_eq!(rule(&mut scene), PeerMisbehaved::MalformedMessage, "{data:?}");
        assert!(!scene.events.iter().any(|event| matches!(event, Event::Server(ServerEvent::Open(_)))));
    }
}

#[test]
fn ch_07_answers_to_nothing_are_never_kept() {
    let mut scene = Scene::client().authenticated();
    let id = scene.open_session(100);
    let held = scene.memory();
    for _ in 0..60 {
        scene.say(&hand::bare(number::REQUEST_FAILURE));
        scene.say(&hand::filled(number::REQUEST_SUCCESS, 1000));
        scene.say(&encoded(&ChannelSuccess { recipient: 0 }));
        scene.say(&encoded(&ChannelFailure { recipient: 0 }));
    }
    assert_eq!((scene.events.len(), scene.memory()), (0, held));
    // What is asked now is answered by what comes now.
    let shell = ssh_proto::ChannelRequestKind::Shell;
    scene.as_client().channel(id).expect("known").request(&shell, true).expect("room");
    scene.settle();
    assert_eq!(scene.events.len(), 0);
    scene.say(&encoded(&ChannelSuccess { recipient: 0 }));
    let [Event::Client(ClientEvent::Channel(_, event))] = &scene.events[..] else {
        panic!("{:?}", scene.events)
    };
    assert!(matches!(event, ssh_proto::ChannelEvent::Reply(true)));
}
