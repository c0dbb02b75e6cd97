//! Later exchanges: traffic in between, both sides at once, other keys.

use std::time::Duration;

use ssh_proto::raw::channel::{ChannelOpenFailure, ChannelSuccess};
use ssh_proto::raw::{KexStep, State, number};
use ssh_proto::{
    ChannelConfig, ChannelEvent, ChannelKind, ChannelRequestKind, ClientEvent, CloseReason, GlobalReply,
    GlobalRequestKind, Limits, PeerMisbehaved, ReadError, ServerEvent, Side, Stream, TimeoutReason,
    WriteError,
};
use ssh_tests::puppet::null_signature;
use ssh_tests::scene::{Event, Subject};
use ssh_tests::{Scene, either, hand, null, null_client, null_server};

use crate::stage::{assert_unexpected, greeted};

#[test]
fn sm_11_nothing_but_the_exchange_behind_a_peers_kexinit() {
    for side in [Side::Client, Side::Server] {
        for message in [hand::data(0, b"x"), hand::global("x", false), hand::open(1, 1, 100), hand::ping(1)] {
            for steps in 1..=2 {
                let mut scene = Scene::of(side).authenticated();
                scene.open_session(1 << 20);
                scene.kexinit(|_| {});
                if steps > 1 {
                    scene.method();
                }
                scene.say(&message);
                assert_unexpected(&mut scene, message[0]);
            }
        }
    }
}

#[test]
fn sm_11_an_exchange_that_does_not_end_is_ended() {
    for side in [Side::Client, Side::Server] {
        for theirs in [true, false] {
            let mut scene = Scene::of(side).authenticated();
            if theirs {
                scene.kexinit(|_| {})
            } else {
                scene.rekey()
            }
            scene.wait(Duration::from_millis(59_900));
            assert!(!scene.is_over());
            scene.wait(Duration::from_millis(200));
            assert_eq!(scene.closed(), CloseReason::TimedOut(TimeoutReason::Kex), "{side:?} {theirs}");
            assert_eq!(scene.disconnects(), [3]);
        }
    }
}

#[test]
fn ch_16_nothing_comes_for_a_channel_whose_confirmation_has_not_left() {
    for message in [
        hand::data(0, b"x"),
        hand::extended(0, 1, b"x"),
        hand::adjust(0, 1),
        hand::eof(0),
        hand::request(0, "shell", true, b""),
        hand::close(0),
    ] {
        let mut scene = Scene::server().authenticated();
        scene.open_from_peer(7, 1 << 20);
        let request = scene.take(|event| match event {
            Event::Server(ServerEvent::Open(request)) => Ok(request),
            event => Err(event),
        });
        scene.rekey();
        scene.as_server().accept_channel(request, Default::default()).expect("there is room");
        scene.settle();
        scene.say(&message);
        scene.assert_broken(PeerMisbehaved::ChannelNotOpen, Some(message[0]));
    }
}

/// Answers each global request that was asked about, at length. Says how many there were.
fn answer_at_length(scene: &mut Scene) -> usize {
    let mut answered = 0;
    for event in scene.take_events() {
        let reply = GlobalReply::Success(&[b'a'; 20_000]);
        match (event, &mut scene.subject) {
            (Event::Client(ClientEvent::Global(request)), Subject::Client(conn)) => {
                conn.reply_global(request, reply).expect("the question is open");
            }
            (Event::Server(ServerEvent::Global(request)), Subject::Server(conn)) => {
                conn.reply_global(request, reply).expect("the question is open");
            }
            other => panic!("{:?}", other.0),
        }
        answered += 1;
    }
    answered
}

#[test]
fn ch_20_our_own_long_answers_in_an_exchange_are_no_fault_of_the_peer() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        scene.rekey();
        // Legal: the peer has not answered our KEXINIT. Nothing can leave until it does.
        (0..16).for_each(|_| scene.say(&hand::global("x@ssh-tests.invalid", true)));
        assert_eq!(answer_at_length(&mut scene), 16, "{side:?}");
        scene.say(&hand::global("x@ssh-tests.invalid", true));
        assert!(!scene.is_over(), "{side:?}: {:?}", scene.events);
        scene.forget();
        scene.exchange();
        scene.settle();
        let answers: Vec<_> = scene.heard.iter().filter(|heard| heard.number() > 80).collect();
        let lengths: Vec<_> = answers.iter().map(|heard| (heard.number(), heard.payload.len())).collect();
        let long = (number::REQUEST_SUCCESS, 20_001);
        assert_eq!(lengths, [&[long; 16][..], &[(number::REQUEST_FAILURE, 1)]].concat(), "{side:?}");
    }
}

#[test]
fn dos_answers_of_any_length_in_an_exchange_are_bounded() {
    let mut scene = Scene::server().authenticated();
    scene.rekey();
    let (mut asked, mut answered) = (0, 0);
    while !scene.is_over() {
        (0..16).for_each(|_| scene.say(&hand::global("x@ssh-tests.invalid", true)));
        asked += 16;
        if !scene.is_over() {
            answered += answer_at_length(&mut scene);
        }
        // The places for questions times the longest answer, and what the peer may provoke.
        let held = scene.memory().owed;
        assert!(held <= 16 * 32 * 1024 + 5 * 64 * 1024, "{asked}: {held}");
    }
    assert_eq!(answered, 16, "nothing was asked about any more");
    scene.assert_broken(PeerMisbehaved::ReplyFlood, Some(number::GLOBAL_REQUEST));
}

#[test]
fn sm_12_between_our_kexinit_and_our_newkeys_nothing_else_leaves() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        let id = scene.open_session(1 << 20);
        scene.rekey();
        // All of these ask for an answer.
        for message in [hand::ping(4), hand::bare(199), hand::global("keepalive@openssh.com", true)] {
            scene.say(&message);
        }
        scene.say(&hand::data(0, &[0; 30_000]));
        let (data, _) = scene.read_all(id, Stream::Data);
        assert_eq!(data.len(), 30_000);
        let write =
            either!(&mut scene.subject, conn => conn.channel(id).expect("known").write(Stream::Data, b"x"));
        assert_eq!(write, Err(WriteError::Blocked));
        scene.exchange();
        let numbers: Vec<u8> = scene.heard.iter().map(|heard| heard.number()).collect();
        let from = numbers.iter().position(|n| *n == number::KEXINIT).expect("our KEXINIT");
        let to = numbers.iter().position(|n| *n == number::NEWKEYS).expect("our NEWKEYS");
        let method = if side == Side::Client { 30 } else { 31 };
        assert_eq!(numbers[from..=to], [20, method, 21], "{side:?}");
        let after = &numbers[to + 1..];
        assert!(after.contains(&number::UNIMPLEMENTED), "{after:?}");
        assert!(after.contains(&number::REQUEST_FAILURE), "{after:?}");
        assert_eq!(after.contains(&number::PONG), side == Side::Server, "{after:?}");
        assert!(scene.events.iter().any(|event| format!("{event:?}").contains("Writable")));
    }
}

#[test]
fn sm_13_data_on_its_way_is_taken_until_their_kexinit_and_both_may_begin_at_once() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        let id = scene.open_session(1 << 20);
        scene.rekey();
        assert_eq!(scene.state(), State::RekeySent);
        scene.say(&hand::data(0, b"before"));
        scene.kexinit(|_| {});
        assert_eq!(scene.state(), State::RekeyKex(KexStep::Single));
        scene.method();
        scene.new_keys();
        scene.say(&hand::data(0, b", after"));
        assert_eq!(scene.read_all(id, Stream::Data).0, b"before, after");
        assert_eq!(scene.state(), State::Authed);
        let inits = scene.heard.iter().filter(|heard| heard.number() == number::KEXINIT);
        assert_eq!(inits.count(), 1, "{side:?}");
    }
}

#[test]
fn kx_13_the_session_id_is_that_of_the_first_exchange() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        let id = |scene: &Scene| {
            let id = either!(&scene.subject, conn => conn.session_id().cloned());
            id.expect("there is one").as_bytes().to_vec()
        };
        let first = id(&scene);
        for _ in 0..3 {
            scene.exchange();
            assert_eq!(id(&scene), first);
            assert_ne!(scene.puppet.hash, first);
        }
    }
}

#[test]
fn kx_09_another_host_key_in_a_later_exchange() {
    let mut scene = Scene::client().authenticated();
    scene.puppet.host_key = null::public_key(9).as_blob().to_vec();
    scene.kexinit(|_| {});
    let reply = scene.puppet.reply_signed(|hash| null_signature(9, hash));
    scene.say(&reply);
    scene.assert_broken(PeerMisbehaved::HostKeyChanged, Some(number::KEX_ECDH_REPLY));

    // The same key goes unasked, but its signature counts as before.
    let mut scene = Scene::client().authenticated();
    scene.kexinit(|_| {});
    let reply = scene.puppet.reply_signed(|hash| null_signature(9, hash));
    scene.say(&reply);
    scene.assert_broken(PeerMisbehaved::BadHostKeySignature, Some(number::KEX_ECDH_REPLY));
}

#[test]
fn rekeys_with_traffic_between_them_are_no_flood() {
    let mut scene = Scene::server().authenticated();
    let id = scene.open_session(1 << 20);
    for _ in 0..20 {
        for _ in 0..3 {
            scene.say(&hand::data(0, &[0; 30_000]));
        }
        assert_eq!(scene.read_all(id, Stream::Data).0.len(), 90_000);
        scene.exchange();
    }
    assert!(!scene.is_over(), "{:?}", scene.closed());
    assert!(matches!(scene.subject, Subject::Server(_)));
}

#[test]
fn idle_rekeys_are_counted_by_the_minute() {
    let mut scene = Scene::server().authenticated();
    for _ in 0..50 {
        scene.wait(Duration::from_secs(8));
        scene.exchange();
    }
    assert!(!scene.is_over());
}

/// The most packets under one key.
const PACKETS: u64 = 1 << 31;
/// The most bytes under one key: twice of what a re-exchange is started at.
const BYTES: u64 = 2 << 30;

#[test]
fn pk_12_a_peer_that_ignores_our_kexinit_is_left_before_its_key_is_worn_out() {
    for side in [Side::Client, Side::Server] {
        for by_packets in [true, false] {
            let mut scene = Scene::of(side).authenticated();
            let id = scene.open_session(100);
            let packet = scene.puppet.seal(&hand::data(0, b"x"));
            // The length field and the tag do not count.
            let length = (packet.len() - 4 - null::TAG) as u64;
            let (packets, bytes) = if by_packets { (PACKETS - 3, 0) } else { (0, BYTES - 3 * length) };
            either!(&mut scene.subject, conn => conn.set_received(packets, bytes));
            scene.say_bytes(&packet);
            let numbers: Vec<u8> = scene.heard.iter().map(|heard| heard.number()).collect();
            assert_eq!(numbers, [number::KEXINIT], "it was time long ago");
            (0..2).for_each(|_| scene.say(&hand::data(0, b"x")));
            assert!(!scene.is_over(), "{side:?} {by_packets}");
            scene.say(&hand::data(0, b"y"));
            assert_eq!(scene.closed(), CloseReason::KeyExhausted, "{side:?} {by_packets}");
            assert_eq!(scene.disconnects(), [2]);
            assert_eq!(scene.read_all(id, Stream::Data), (b"xxx".to_vec(), ReadError::Lost));
            scene.assert_silent_after_the_end();
        }
    }
}

#[test]
fn pk_12_no_sequence_number_comes_twice_before_the_first_keys() {
    for side in [Side::Client, Side::Server] {
        // Only without strict key exchange may so much come, and only where no other limit is left.
        let endless = |limits: &mut Limits| {
            (limits.pre_auth_packets, limits.noise_burst) = (u64::MAX, u32::MAX);
        };
        let scene = match side {
            Side::Client => Scene::of_client(null_client().with_limits(endless).build().expect("a client")),
            Side::Server => Scene::of_server(null_server().with_limits(endless).build().expect("a server")),
        };
        let mut scene = greeted(scene.strict(false));
        scene.kexinit(|_| {});
        either!(&mut scene.subject, conn => conn.set_received(PACKETS - 1, 0));
        scene.say(&hand::ignore(0));
        assert!(!scene.is_over(), "{side:?}: {:?}", scene.closed());
        scene.say(&hand::ignore(0));
        assert_eq!(scene.closed(), CloseReason::KeyExhausted, "{side:?}");
        assert_eq!(scene.disconnects(), [2]);
        scene.assert_silent_after_the_end();
    }
}

#[test]
fn pk_12_nothing_is_sealed_with_a_key_that_is_worn_out() {
    for side in [Side::Client, Side::Server] {
        // KEXINIT, the share or the reply, NEWKEYS: an exchange takes three.
        for left in 0..=4 {
            let mut scene = Scene::of(side).authenticated();
            let id = scene.open_session(100);
            either!(&mut scene.subject, conn => conn.set_sent(PACKETS - left, 0));
            scene.settle();
            let steps: [fn(&mut Scene); 3] = [|scene| scene.kexinit(|_| {}), Scene::method, Scene::new_keys];
            for step in steps {
                if !scene.is_over() {
                    step(&mut scene);
                }
            }
            let numbers: Vec<u8> = scene.heard.iter().map(|heard| heard.number()).collect();
            let method = if side == Side::Client { 30 } else { 31 };
            assert_eq!(numbers, [20, method, 21][..3.min(left as usize)], "{side:?}, {left} left");
            if left < 3 {
                assert_eq!(scene.closed(), CloseReason::KeyExhausted, "{side:?}, {left} left");
                scene.assert_silent_after_the_end();
                continue;
            }
            // The new key is as good as new.
            let write = either!(&mut scene.subject, conn => {
                conn.channel(id).expect("known").write(Stream::Data, b"x")
            });
            assert_eq!(write, Ok(1));
            scene.say(&hand::data(0, b"y"));
            assert_eq!(scene.heard.last().map(|heard| heard.number()), Some(number::CHANNEL_DATA));
            assert!(!scene.is_over(), "{side:?}, {left} left");
        }
        let mut scene = Scene::of(side).authenticated();
        either!(&mut scene.subject, conn => conn.set_sent(0, BYTES));
        scene.settle();
        assert_eq!((scene.closed(), scene.heard.len()), (CloseReason::KeyExhausted, 0));
    }
}

/// What `flood` says, over and over, in an exchange that the peer holds open, with each question answered at once.
/// How much was owed at most before the connection ended.
fn flood_in_an_exchange(flood: impl Fn(u32) -> Vec<Vec<u8>>) -> usize {
    let mut scene = Scene::server().authenticated();
    scene.open_session(1 << 20);
    scene.rekey();
    let mut owed = 0;
    for round in 0..100_000 {
        for message in flood(round) {
            scene.say(&message);
        }
        if scene.is_over() {
            let expected = PeerMisbehaved::ReplyFlood;
            assert!(matches!(scene.closed(), CloseReason::PeerMisbehaved { rule, .. } if rule == expected));
            return owed;
        }
        for event in scene.take_events() {
            match event {
                Event::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) => {
                    scene.as_server().reply_request(request, true).expect("open");
                }
                refused => drop(refused),
            }
        }
        owed = owed.max(scene.memory().owed);
    }
    panic!("{owed} bytes are owed, and nothing ends it");
}

#[test]
fn dos_whoever_holds_an_exchange_open_cannot_have_replies_pile_up() {
    let unknown_between_useful = |_| {
        let mut messages = vec![hand::bare(199); 30];
        messages.push(hand::adjust(0, 1));
        messages
    };
    let requests = |_| vec![hand::request(0, "x@ssh-tests.invalid", true, b"")];
    let opens = |round| vec![hand::open(round, 1000, 1000)];
    // Four times the cap, and what one round adds.
    let bound = 4 * (64 + 16) * 1024 + 8 * 1024;
    for owed in [
        flood_in_an_exchange(unknown_between_useful),
        flood_in_an_exchange(requests),
        flood_in_an_exchange(opens),
    ] {
        assert!(owed <= bound, "{owed}");
    }
}

#[test]
fn ch_07_ch_08_no_reply_answers_a_request_that_an_exchange_still_holds_back() {
    for side in [Side::Client, Side::Server] {
        let mut scene = Scene::of(side).authenticated();
        let id = scene.open_session(1 << 20);
        scene.rekey();
        either!(&mut scene.subject, conn => {
            let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
            conn.channel(id).unwrap().request(&kind, true).unwrap();
            conn.global_request(&GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() }).unwrap();
        });
        scene.forget();
        let replies = |scene: &mut Scene| {
            scene.say(&hand::encode(&ChannelSuccess { recipient: 0 }));
            scene.say(&hand::bare(number::REQUEST_SUCCESS));
            scene.take_events()
        };
        assert!(replies(&mut scene).is_empty(), "nobody was asked");
        scene.exchange();
        scene.take_events();
        let heard: Vec<u8> = scene.take_heard().iter().map(|heard| heard.number()).collect();
        assert!(heard.ends_with(&[number::CHANNEL_REQUEST, number::GLOBAL_REQUEST]), "{heard:?}");
        assert_eq!(replies(&mut scene).len(), 2);
    }
}

/// A window is no reason to leave a peer that keeps to it, however slow the line.
#[test]
fn pk_12_what_a_large_window_lets_come_before_the_peer_hears_of_an_exchange_is_taken() {
    const WINDOW: u32 = 200 << 20;
    let config = null_client().with_rekey(|rekey| rekey.bytes = 1 << 20);
    let config = config.with_limits(|limits| limits.recv_budget = 2 << 30).build().expect("a client");
    let mut scene = Scene::of_client(config).authenticated();
    let channel = ChannelConfig::default().with_window(WINDOW);
    let id = scene.as_client().open_channel(&ChannelKind::Session, channel).expect("a channel");
    scene.settle();
    scene.say(&hand::confirmation(0, 0, 100, 32768));
    scene.forget();
    let data = vec![7; 32768];
    for _ in 0..WINDOW / 32768 {
        scene.say(&hand::data(0, &data));
        assert!(!scene.is_over(), "{:?}", scene.closed());
        while scene.as_client().channel(id).unwrap().read(Stream::Data, usize::MAX).is_ok() {}
        scene.take_events();
    }
    assert_eq!(scene.take_heard().first().map(|heard| heard.number()), Some(number::KEXINIT));
}

#[test]
fn ch_07_ch_11_no_answer_opens_a_channel_that_was_not_asked_for_yet() {
    let failure = ChannelOpenFailure { recipient: 0, code: 1, description: b"no", language: b"" };
    let answers = [hand::confirmation(0, 0, 1000, 1000), hand::encode(&failure)];
    for side in [Side::Client, Side::Server] {
        for answer in &answers {
            let config = null_client().accept_opens(&["x@ssh-tests.invalid"]).build().unwrap();
            let mut scene =
                if side == Side::Client { Scene::of_client(config) } else { Scene::server() }.authenticated();
            scene.rekey();
            let kind = ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
            let opened =
                either!(&mut scene.subject, conn => conn.open_channel(&kind, ChannelConfig::default()));
            opened.expect("room for a channel");
            scene.forget();
            scene.say(answer);
            scene.assert_broken(PeerMisbehaved::ChannelNotOpening, Some(answer[0]));
        }
    }
}
