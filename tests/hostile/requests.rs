//! Requests: their order, their fields, and how many there may be.

use std::time::Duration;

use ssh_proto::raw::channel::ChannelOpen;
use ssh_proto::raw::number;
use ssh_proto::{
    ChannelConfig, ChannelEvent, ChannelKind, ChannelRequestKind, ClientEvent, ExitStatus, GlobalReply,
    PeerText, ServerEvent, Side, TerminalModes, WindowSize,
};
use ssh_tests::scene::Event;
use ssh_tests::{Scene, either, hand};

#[test]
fn ch_14_global_requests_are_answered_in_their_order_whatever_becomes_of_them() {
    let mut scene = Scene::server().authenticated();
    for at in 0..40 {
        scene.say(&hand::global(&format!("x-{at}"), true));
        scene.say(&hand::global("quiet", false));
    }
    // Sixteen wait for the embedder; those behind them that want an answer are refused in their turn.
    let asked: Vec<_> = scene
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Server(ServerEvent::Global(request)) => Some(request),
            _ => None,
        })
        .collect();
    let (wanting, quiet): (Vec<_>, Vec<_>) = asked.into_iter().partition(|request| request.wants_reply());
    assert_eq!((wanting.len(), quiet.len()), (16, 40));
    assert_eq!(scene.heard, []);
    for request in wanting.into_iter().rev() {
        scene.as_server().reply_global(request, GlobalReply::Success(b"")).expect("open");
    }
    scene.settle();
    let numbers: Vec<u8> = scene.heard.iter().map(|heard| heard.number()).collect();
    let expected = [vec![number::REQUEST_SUCCESS; 16], vec![number::REQUEST_FAILURE; 24]].concat();
    assert_eq!(numbers, expected);
}

/// The answers to channel requests, true for SUCCESS.
fn answers(scene: &mut Scene) -> Vec<bool> {
    scene
        .take_heard()
        .iter()
        .filter(|heard| [number::CHANNEL_SUCCESS, number::CHANNEL_FAILURE].contains(&heard.number()))
        .map(|heard| heard.number() == number::CHANNEL_SUCCESS)
        .collect()
}

/// Says yes to every channel request that was asked about; gives their number.
fn agree(scene: &mut Scene) -> usize {
    let mut agreed = 0;
    for event in scene.take_events() {
        if let Event::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) = event {
            scene.as_server().reply_request(request, true).expect("open");
            agreed += 1;
        }
    }
    scene.settle();
    agreed
}

#[test]
fn ch_15_requests_whose_fields_are_none_are_refused() {
    let mut scene = Scene::server().authenticated();
    scene.open_session(100);
    for name in
        ["exit-status", "exit-signal", "pty-req", "env", "exec", "subsystem", "window-change", "signal"]
    {
        for data in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff", &[0x80; 600]] {
            scene.say(&hand::request(0, name, true, data));
            assert_eq!(answers(&mut scene), [false], "{name} {data:?}");
        }
    }
    assert_eq!(scene.take_events().len(), 0);
}

/// A channel of this kind and its peer's first request on it.
fn requested(side: Side, ours: bool, channel: &ChannelKind, request: &[u8]) -> Scene {
    let mut scene = Scene::of(side).authenticated();
    let config = ChannelConfig::default();
    if ours {
        either!(&mut scene.subject, conn => conn.open_channel(channel, config)).expect("room");
        scene.settle();
        scene.say(&hand::confirmation(0, 7, 100, 100));
    } else {
        let mut data = Vec::new();
        channel.encode_data(&mut data);
        let (name, data) = (channel.name(), &data[..]);
        scene.tell(&ChannelOpen { kind: name.as_bytes(), sender: 7, window: 100, max_packet: 100, data });
        match scene.events.pop() {
            Some(Event::Client(ClientEvent::Open(open))) => scene.as_client().accept_channel(open, config),
            Some(Event::Server(ServerEvent::Open(open))) => scene.as_server().accept_channel(open, config),
            event => panic!("{event:?}"),
        }
        .expect("room");
    }
    scene.forget();
    scene.say(request);
    scene
}

/// To whom a request is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    /// The side that did not open the session.
    Server,
    /// The side that opened the session.
    Client,
    Anybody,
}

#[test]
fn requests_of_a_session_are_told_to_the_side_of_one_that_they_are_for() {
    let (name, data) = ("x@ssh-tests.invalid".to_string(), vec![0, 0, 0, 1, b'x']);
    let tcpip = ChannelKind::DirectTcpip {
        host: "host".into(),
        port: 80,
        originator: "host".into(),
        originator_port: 1,
    };
    let channels = [
        ChannelKind::Session,
        // Not a way around it.
        ChannelKind::Other { name: "session".into(), data: Vec::new() },
        tcpip,
        ChannelKind::Other { name: name.clone().into(), data: data.clone() },
    ];
    let size = WindowSize::default();
    let signal =
        ExitStatus::Signal { name: PeerText::new(b"TERM"), core_dumped: false, message: PeerText::new(b"") };
    let requests = [
        (ChannelRequestKind::Pty { term: "xterm".into(), size, modes: TerminalModes::default() }, To::Server),
        (ChannelRequestKind::WindowChange(size), To::Server),
        (ChannelRequestKind::env("A", "B"), To::Server),
        (ChannelRequestKind::Shell, To::Server),
        (ChannelRequestKind::exec("id"), To::Server),
        (ChannelRequestKind::Subsystem("sftp".into()), To::Server),
        (ChannelRequestKind::Signal("TERM".into()), To::Server),
        (ChannelRequestKind::Break(Duration::from_secs(1)), To::Server),
        (ChannelRequestKind::XonXoff(true), To::Client),
        (ChannelRequestKind::Exit(ExitStatus::Code(7)), To::Client),
        (ChannelRequestKind::Exit(signal), To::Client),
        (ChannelRequestKind::Other { name: name.into(), data }, To::Anybody),
    ];
    let flags = [true, false];
    for (side, ours) in
        [Side::Client, Side::Server].into_iter().flat_map(|side| flags.map(|ours| (side, ours)))
    {
        for (channel, (kind, to)) in channels.iter().flat_map(|kind| requests.iter().map(move |r| (kind, r)))
        {
            // Only clients open sessions.
            if side == Side::Client && !ours && channel.name() == "session" {
                continue;
            }
            for want_reply in flags {
                let mut data = Vec::new();
                kind.encode_data(&mut data);
                let request = hand::request(0, kind.name().as_str(), want_reply, &data);
                let mut scene = requested(side, ours, channel, &request);
                let told = match to {
                    To::Anybody => true,
                    // A type of the embedder's own: it alone knows what its requests mean.
                    _ if channel.name() == "x@ssh-tests.invalid" => true,
                    To::Client => ours && channel.name() == "session",
                    To::Server => !ours && channel.name() == "session",
                };
                let context = format!("{side:?}, ours {ours}: {kind:?} on {channel:?}");
                match scene.events.pop() {
                    None => assert!(!told, "{context}"),
                    Some(
                        Event::Client(ClientEvent::Channel(_, event))
                        | Event::Server(ServerEvent::Channel(_, event)),
                    ) => {
                        let right = match (&event, kind) {
                            (ChannelEvent::Exit(status), ChannelRequestKind::Exit(sent)) => status == sent,
                            (ChannelEvent::Request(request), _) => {
                                request.kind() == kind && request.wants_reply() == want_reply
                            }
                            _ => false,
                        };
                        assert!(told && right, "{context}: {event:?}");
                    }
                    Some(event) => panic!("{context}: {event:?}"),
                }
                assert_eq!(scene.events.len(), 0, "{context}");
                // A question was dropped just now; an exit and whatever was not told were refused at once.
                let answered = if want_reply { vec![false] } else { Vec::new() };
                assert_eq!(answers(&mut scene), answered, "{context}");
                assert!(!scene.is_over(), "{context}");
            }
        }
    }
}

#[test]
fn ch_16_a_session_runs_one_program() {
    let exec = b"\0\0\0\x02id";
    let mut scene = Scene::server().authenticated();
    scene.open_session(100);
    scene.say(&hand::request(0, "exec", true, exec));
    assert_eq!(agree(&mut scene), 1);
    scene.say(&hand::request(0, "exec", true, exec));
    scene.say(&hand::request(0, "shell", true, b""));
    scene.say(&hand::request(0, "subsystem", true, b"\0\0\0\x04sftp"));
    assert_eq!(answers(&mut scene), [true, false, false, false]);
    assert_eq!(agree(&mut scene), 0);
}

#[test]
fn a_channel_of_a_type_of_its_own_has_no_rules_but_those_of_the_embedder() {
    let exec = hand::request(0, "exec", true, b"\0\0\0\x02id");
    let own = ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
    for (kind, programs) in [(own, 3), (ChannelKind::Session, 1)] {
        let mut scene = requested(Side::Server, false, &kind, &exec);
        let mut agreed = agree(&mut scene);
        for _ in 0..2 {
            scene.say(&exec);
            agreed += agree(&mut scene);
        }
        assert_eq!(agreed, programs, "{kind:?}");
        let answered: Vec<bool> = (0..3).map(|at| at < programs).collect();
        assert_eq!(answers(&mut scene), answered, "{kind:?}");
        // Fields that are none are none anywhere.
        scene.say(&hand::request(0, "pty-req", true, b""));
        assert_eq!((scene.take_events().len(), answers(&mut scene)), (0, vec![false]), "{kind:?}");
    }
}

#[test]
fn ch_16_a_program_that_was_refused_makes_room_for_the_next() {
    // Whether the question is answered with no or let go of.
    for dropped in [true, false] {
        let mut scene = Scene::server().authenticated();
        scene.open_session(100);
        for name in ["shell", "shell", "exec"] {
            let data = if name == "exec" { &b"\0\0\0\x02id"[..] } else { b"" };
            scene.say(&hand::request(0, name, true, data));
            // While there is no answer yet, there is no second question.
            scene.say(&hand::request(0, "shell", true, b""));
            let request = scene.take(|event| match event {
                Event::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) => Ok(request),
                event => Err(event),
            });
            assert_eq!((request.kind().name().as_str(), scene.events.len()), (name, 0), "dropped: {dropped}");
            match dropped {
                true => drop(request),
                false => scene.as_server().reply_request(request, false).expect("open"),
            }
            assert_eq!(answers(&mut scene), [false, false], "dropped: {dropped}");
        }
        scene.say(&hand::request(0, "shell", true, b""));
        assert_eq!(agree(&mut scene), 1, "dropped: {dropped}");
        scene.say(&hand::request(0, "shell", true, b""));
        assert_eq!((answers(&mut scene), agree(&mut scene)), (vec![true, false], 0));
    }
}

#[test]
fn ch_16_variables_are_capped() {
    let mut scene = Scene::server().authenticated();
    scene.open_session(100);
    let mut agreed = 0;
    for _ in 0..200 {
        scene.say(&hand::request(0, "env", true, b"\0\0\0\x01A\0\0\0\x01B"));
        agreed += agree(&mut scene);
    }
    assert_eq!(agreed, 128);
    assert_eq!(answers(&mut scene), [vec![true; 128], vec![false; 72]].concat());
}

/// So many requests of a peer that goes on asking.
const MANY: usize = 10_000;
/// So many of them the embedder is asked about at once.
const ASKED: usize = 16;
/// What the connection may hold of them meanwhile, in bytes.
const HELD: usize = 2048;

/// The peer asks many times over, all at once and then one by one. While the embedder has not made up its mind
/// nothing is answered, and input goes on being taken.
fn ask_many(scene: &mut Scene, request: &[u8], mut each: impl FnMut(&mut Scene)) {
    for at in 0..MANY {
        let packet = scene.puppet.seal(request);
        scene.input.extend_from_slice(&packet);
        if at >= MANY / 2 || at % 1000 == 0 {
            scene.settle();
            each(scene);
        }
        assert!(scene.memory().owed <= HELD, "{at}: {:?}", scene.memory());
    }
    assert!(!scene.is_over() && scene.input.is_empty());
    assert!(either!(&scene.subject, conn => conn.wants_input()));
    assert_eq!(scene.heard, []);
}

#[test]
fn ch_08_channel_requests_beyond_the_cap_are_refused_in_their_turn() {
    let mut scene = Scene::server().authenticated();
    scene.open_session(100);
    ask_many(&mut scene, &hand::request(0, "x@ssh-tests.invalid", true, b""), |_| {});
    assert_eq!(agree(&mut scene), ASKED);
    assert_eq!(answers(&mut scene), [vec![true; ASKED], vec![false; MANY - ASKED]].concat());
    assert_eq!(scene.memory().owed, 0);
}

#[test]
fn ch_08_one_question_that_waits_holds_up_its_channel_and_nothing_else() {
    for yes in [true, false] {
        let mut scene = Scene::server().authenticated();
        scene.open_session(100);
        let (mut first, mut others) = (None, 0);
        ask_many(&mut scene, &hand::request(0, "x@ssh-tests.invalid", true, b""), |scene| {
            for event in core::mem::take(&mut scene.events) {
                let Event::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) = event else {
                    panic!("{event:?}")
                };
                if first.is_none() {
                    first = Some(request);
                } else {
                    scene.as_server().reply_request(request, yes).expect("open");
                    others += 1;
                }
            }
        });
        // Answers that are kept are bounded as questions are; refusals take no room, so more may be asked.
        let agreed = if yes { ASKED - 1 } else { 0 };
        assert!(if yes { others == agreed } else { others > MANY / 2 - ASKED }, "{others}");
        scene.as_server().reply_request(first.expect("one was asked"), true).expect("open");
        let expected = [vec![true; 1 + agreed], vec![false; MANY - 1 - agreed]].concat();
        assert_eq!(answers(&mut scene), expected);
        assert_eq!(scene.memory().owed, 0);
    }
}

#[test]
fn ch_14_one_global_question_that_waits_holds_up_the_replies_and_nothing_else() {
    let mut scene = Scene::server().authenticated();
    let (mut first, mut others) = (None, 0);
    ask_many(&mut scene, &hand::global("x@ssh-tests.invalid", true), |scene| {
        for event in core::mem::take(&mut scene.events) {
            let Event::Server(ServerEvent::Global(request)) = event else { panic!("{event:?}") };
            if first.is_none() {
                first = Some(request);
            } else {
                let yes = GlobalReply::Success(b"with data");
                scene.as_server().reply_global(request, yes).expect("open");
                others += 1;
            }
        }
    });
    assert_eq!(others, ASKED - 1, "answers that are kept are bounded as questions are");
    scene.as_server().reply_global(first.expect("one was asked"), GlobalReply::Failure).expect("open");
    let numbers: Vec<u8> = scene.take_heard().iter().map(|heard| heard.number()).collect();
    let no = |times| vec![number::REQUEST_FAILURE; times];
    let expected = [no(1), vec![number::REQUEST_SUCCESS; others], no(MANY - 1 - others)].concat();
    assert_eq!(numbers, expected);
    assert_eq!(scene.memory().owed, 0);
}

#[test]
fn ch_14_global_requests_beyond_the_cap_are_refused_in_their_turn() {
    let mut scene = Scene::server().authenticated();
    ask_many(&mut scene, &hand::global("x@ssh-tests.invalid", true), |_| {});
    // A keepalive has no answer of its own, but its turn.
    scene.say(&hand::global("keepalive@openssh.com", true));
    let events = scene.take_events();
    assert_eq!((events.len(), &scene.heard[..]), (ASKED, &[][..]));
    for event in events.into_iter().rev() {
        let Event::Server(ServerEvent::Global(request)) = event else { panic!("{event:?}") };
        scene.as_server().reply_global(request, GlobalReply::Success(b"yes")).expect("open");
    }
    let numbers: Vec<u8> = scene.take_heard().iter().map(|heard| heard.number()).collect();
    let refused = vec![number::REQUEST_FAILURE; MANY - ASKED + 1];
    assert_eq!(numbers, [vec![number::REQUEST_SUCCESS; ASKED], refused].concat());
    assert_eq!(scene.memory().owed, 0);
}

#[test]
fn what_is_decided_in_an_exchange_is_not_held_against_the_peer() {
    let mut scene = Scene::server().authenticated();
    scene.open_session(100);
    ask_many(&mut scene, &hand::request(0, "x@ssh-tests.invalid", true, b""), |_| {});
    scene.rekey();
    scene.heard.clear();
    assert_eq!(agree(&mut scene), ASKED);
    assert!(scene.memory().owed > 256 * 1024, "{:?}", scene.memory());
    scene.say(&hand::request(0, "quiet@ssh-tests.invalid", false, b""));
    scene.exchange();
    assert!(!scene.is_over(), "{:?}", scene.events);
    assert_eq!(answers(&mut scene), [vec![true; ASKED], vec![false; MANY - ASKED]].concat());
}
