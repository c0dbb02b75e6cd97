//! The end of the transport: it is told at once, and counts once everything before it was taken.

use std::time::Duration;

use ssh_proto::{
    CloseReason, Credential, Disconnect, DisconnectCode, Instant, PeerMisbehaved, ReadError, ServerEvent,
    Side, Stream, TimeoutReason,
};
use ssh_tests::config::null_server_external;
use ssh_tests::scene::{Event, Subject};
use ssh_tests::{Answer, Pair, Policy, Scene, either, hand, null, null_client, null_server};

use super::{Pipe, READS, Replier, Runner, assert_ran, blocking_client, client, run, server};

// ----- In the two loops.

#[test]
fn the_loop_over_a_runtime_reads_what_came_with_the_end_of_the_transport() {
    for reads in READS {
        for abrupt in [false, true] {
            let (client_config, server_config) = ssh_tests::null_configs();
            let mut client = client(&client_config, Runner { stays: true, ..Runner::default() }, "right");
            let mut server =
                server(&server_config, Replier { packets: 1000, vanishes: true, ..Replier::default() });
            let (mut c2s, mut s2c) = (Pipe::new(reads, 100_000), Pipe::new(reads, 100_000));
            s2c.abrupt = abrupt;
            let end = run(&mut client, &mut server, &mut c2s, &mut s2c, Instant::ORIGIN);
            assert_ran(&client.app, 1000);
            assert_eq!(client.app.closed, Some(CloseReason::Eof), "{reads:?} {abrupt}");
            assert_eq!(end, Instant::ORIGIN, "nobody waited for a deadline");
        }
    }
}

#[test]
fn the_blocking_loop_reads_what_came_with_the_end_of_the_transport() {
    for reads in READS {
        for abrupt in [false, true] {
            let app = Runner { stays: true, ..Runner::default() };
            let replier = Replier { packets: 1000, vanishes: true, abrupt, ..Replier::default() };
            let (app, _) = blocking_client(app, replier, reads, "right");
            assert_ran(&app, 1000);
            assert_eq!(app.closed, Some(CloseReason::Eof), "{reads:?} {abrupt}");
        }
    }
}

// ----- The contract behind them.

/// The end is told, as often as you like. It is only noted.
fn tell_end(scene: &mut Scene, times: usize) {
    let now = scene.now;
    for _ in 0..times {
        either!(&mut scene.subject, conn => conn.handle_eof(now));
        assert!(!either!(&scene.subject, conn => conn.wants_input()), "nothing more comes");
    }
}

/// Nothing is told as yet.
fn assert_quiet(scene: &mut Scene) {
    assert!(either!(&mut scene.subject, conn => conn.poll_event().is_none() && !conn.is_closed()));
}

/// Logged in, with a session; what the peer says then, so many bytes of it, is there with the end of the
/// transport, which is told first.
fn ending(side: Side, messages: &[Vec<u8>], bytes: usize, times: usize) -> (Scene, ssh_proto::ChannelId) {
    let mut scene = Scene::of(side).authenticated();
    let id = scene.open_session(1 << 20);
    let all: Vec<u8> = messages.iter().flat_map(|payload| scene.puppet.seal(payload)).collect();
    scene.input.extend_from_slice(&all[..bytes.min(all.len())]);
    tell_end(&mut scene, times);
    assert_quiet(&mut scene);
    (scene, id)
}

#[test]
fn the_end_is_noted_and_everything_before_it_is_taken_by_the_next_handle_input() {
    for side in [Side::Client, Side::Server] {
        for times in [1, 2, 5] {
            let request = hand::request(0, "last@ssh-tests.invalid", false, b"");
            let said = [hand::data(0, b"last "), hand::data(0, b"words"), request];
            let (mut scene, id) = ending(side, &said, usize::MAX, times);
            assert_eq!(scene.closed(), CloseReason::Eof);
            assert_eq!(scene.read_all(id, Stream::Data), (b"last words".to_vec(), ReadError::Lost));
            let told = |event: &&Event| format!("{event:?}").contains("last@ssh-tests.invalid");
            assert_eq!(scene.events.iter().filter(told).count(), 1);
            assert_eq!(scene.disconnects(), [], "there is nobody to tell");
            tell_end(&mut scene, times);
            scene.assert_silent_after_the_end();
        }
    }
}

#[test]
fn a_packet_cut_short_by_the_end_is_the_end_wherever_it_is_cut() {
    let whole = [hand::data(0, b"whole")];
    let both = [hand::data(0, b"whole"), hand::data(0, b"half")];
    let mut scene = Scene::client().authenticated();
    scene.open_session(1);
    let [first, second] = both.clone().map(|payload| scene.puppet.seal(&payload).len());
    for side in [Side::Client, Side::Server] {
        for bytes in first..first + second {
            let (mut scene, id) = ending(side, &both, bytes, 1);
            assert_eq!(scene.closed(), CloseReason::Eof, "{bytes} bytes");
            assert_eq!(scene.read_all(id, Stream::Data), (b"whole".to_vec(), ReadError::Lost));
            assert_eq!(scene.disconnects(), []);
            scene.assert_silent_after_the_end();
        }
        let (mut scene, id) = ending(side, &whole, first - 1, 1);
        assert_eq!(scene.closed(), CloseReason::Eof);
        assert_eq!(scene.read_all(id, Stream::Data), (Vec::new(), ReadError::Lost));
    }
}

#[test]
fn an_end_before_the_first_packet_is_the_end() {
    for side in [Side::Client, Side::Server] {
        for said in
            ["", "S", "SSH-2.0-puppet", "SSH-2.0-puppet\r", "SSH-2.0-puppet\r\n", "SSH-2.0-puppet\r\n\0\0"]
        {
            let mut scene = Scene::of(side);
            scene.input.extend_from_slice(said.as_bytes());
            tell_end(&mut scene, 1);
            assert_quiet(&mut scene);
            assert_eq!(scene.closed(), CloseReason::Eof, "{said:?}");
            scene.assert_silent_after_the_end();
        }
    }
}

#[test]
fn another_reason_among_the_last_bytes_goes_before_the_end() {
    for side in [Side::Client, Side::Server] {
        let said = [hand::data(0, b"data"), hand::disconnect(11, b"bye")];
        let (mut scene, id) = ending(side, &said, usize::MAX, 1);
        assert!(matches!(scene.closed(), CloseReason::PeerDisconnected { .. }));
        assert_eq!(scene.read_all(id, Stream::Data).0, b"data");
        scene.assert_silent_after_the_end();

        let said = [hand::data(0, b"data"), hand::data(99, b"nowhere")];
        let (mut scene, id) = ending(side, &said, usize::MAX, 1);
        scene.assert_broken(PeerMisbehaved::UnknownChannel, Some(94));
        assert_eq!(scene.read_all(id, Stream::Data).0, b"data");
        scene.assert_silent_after_the_end();
    }
}

#[test]
fn an_end_before_a_hidden_error_shows_says_nothing_of_it() {
    // The error of a bad length or tag is held back under a cipher whose lengths can be changed. What of the
    // two it was must not show at the end either.
    for bad in [0, 30] {
        let config = null_server().ciphers(&[null::STREAM]).build().unwrap();
        let mut scene = Scene::of_server(config).authenticated();
        let mut packet = scene.puppet.seal(&hand::ignore(40));
        packet[bad] ^= 0x40;
        scene.input.extend_from_slice(&packet);
        tell_end(&mut scene, 1);
        assert_quiet(&mut scene);
        assert_eq!(scene.closed(), CloseReason::Eof);
        assert_eq!(scene.disconnects(), []);
        scene.assert_silent_after_the_end();
    }
}

#[test]
fn a_full_queue_is_emptied_before_the_end_is_told() {
    let said: Vec<_> = (0..300).map(|_| hand::global("g@ssh-tests.invalid", false)).collect();
    let (mut scene, _) = ending(Side::Server, &said, usize::MAX, 1);
    let (now, mut events) = (scene.now, 0);
    // A driver that takes one event at a time.
    loop {
        let Scene { subject: Subject::Server(conn), input, .. } = &mut scene else {
            unreachable!("a server");
        };
        conn.handle_input(now, input);
        match conn.poll_event() {
            Some(ServerEvent::Global(_)) => events += 1,
            Some(ServerEvent::Closed(reason)) => break assert_eq!(reason, CloseReason::Eof),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(events, 300);
    assert!(either!(&mut scene.subject, conn => conn.poll_event().is_none() && conn.is_closed()));
}

#[test]
fn a_close_of_our_own_goes_before_an_end_that_was_only_noted() {
    for side in [Side::Client, Side::Server] {
        let (mut scene, _) = ending(side, &[hand::data(0, b"data")], usize::MAX, 1);
        either!(&mut scene.subject, conn => conn.close(Disconnect::by_application()));
        assert_eq!(scene.closed(), CloseReason::Local(DisconnectCode::BY_APPLICATION));
        scene.assert_silent_after_the_end();
    }
}

// ----- Behind a question.

/// What waits for an answer while the transport ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Question {
    HostKey,
    HostSign,
    Probe,
    Auth,
}

const QUESTIONS: [Question; 4] = [Question::HostKey, Question::HostSign, Question::Probe, Question::Auth];

/// A pair of which one side keeps this question, and was told of the end: the peer is gone.
fn asked(question: Question) -> Pair {
    let server = if question == Question::HostSign { null_server_external() } else { null_server() };
    let mut pair = Pair::new(null_client().build().unwrap(), server.build().unwrap(), 1);
    let (client, server) = (&mut pair.client.policy, &mut pair.server.policy);
    match question {
        Question::HostKey => client.host_key = Answer::Keep,
        Question::HostSign => server.sign = Answer::Keep,
        Question::Probe => server.probe = Answer::Keep,
        Question::Auth => server.auth = Answer::Keep,
    }
    let key = ssh_tests::null_key(2);
    let credential = Credential::PublicKey { key, probe: question == Question::Probe };
    pair.client.conn.authenticate("user", credential).unwrap();
    pair.drive();
    // Nothing goes either way any more.
    (pair.c2s.stalled, pair.s2c.stalled) = (true, true);
    match question {
        Question::HostKey => pair.client.conn.handle_eof(pair.now),
        _ => pair.server.conn.handle_eof(pair.now),
    }
    pair
}

fn answer(pair: &mut Pair, question: Question, answer: Answer) {
    let policy = Policy { host_key: answer, sign: answer, probe: answer, auth: answer, ..Policy::default() };
    let any = match question {
        Question::HostKey => pair.client.answer(&policy),
        _ => pair.server.answer(&policy),
    };
    assert!(any, "{question:?}");
}

/// Why the side that was asked ended, and how often it said so.
fn ends(pair: &Pair, question: Question) -> (Option<CloseReason>, usize) {
    match question {
        Question::HostKey => (pair.client.closed.clone(), pair.client.count("Closed(")),
        _ => (pair.server.closed.clone(), pair.server.count("Closed(")),
    }
}

#[test]
fn the_end_waits_for_the_answer_to_a_question() {
    for question in QUESTIONS {
        let mut pair = asked(question);
        pair.advance(Duration::from_secs(20));
        let (waits, wants) = match question {
            Question::HostKey => (pair.client.conn.awaits_answer(), pair.client.conn.wants_input()),
            _ => (pair.server.conn.awaits_answer(), pair.server.conn.wants_input()),
        };
        assert_eq!((waits, wants, ends(&pair, question)), (true, false, (None, 0)), "{question:?}");

        answer(&mut pair, question, Answer::Yes);
        pair.drive();
        assert_eq!(ends(&pair, question), (Some(CloseReason::Eof), 1), "{question:?}");
        // What was there already was taken before it, and what is due was said.
        let at = |words: &str| pair.server.trace.iter().position(|event| event.contains(words));
        if question == Question::Auth {
            assert!(at("Authenticated").unwrap() < at("Closed(").unwrap());
        }
        pair.advance(Duration::from_secs(10_000));
        assert_eq!(ends(&pair, question), (Some(CloseReason::Eof), 1), "{question:?}");
    }
}

#[test]
fn a_no_to_a_question_behind_which_the_end_waits_is_a_no_once() {
    for question in QUESTIONS {
        for no in [Answer::No, Answer::Drop] {
            let mut pair = asked(question);
            answer(&mut pair, question, no);
            pair.drive();
            let refused = match question {
                Question::HostKey => Some(CloseReason::HostKeyRejected),
                Question::HostSign => Some(CloseReason::SignatureRefused),
                // It is held back, and the end with it.
                _ => None,
            };
            assert_eq!(ends(&pair, question), (refused.clone(), usize::from(refused.is_some())));
            pair.settle();
            let reason = refused.unwrap_or(CloseReason::Eof);
            assert_eq!(ends(&pair, question), (Some(reason.clone()), 1), "{question:?} {no:?}");
            pair.advance(Duration::from_secs(10_000));
            assert_eq!(ends(&pair, question), (Some(reason), 1));
        }
    }
}

#[test]
fn deadlines_go_on_behind_the_end_while_a_question_waits() {
    let mut pair = asked(Question::Auth);
    pair.advance(Duration::from_millis(119_999));
    assert_eq!(ends(&pair, Question::Auth), (None, 0));
    assert_eq!(pair.server.conn.timeout_reason(), Some(TimeoutReason::Login));
    pair.advance(Duration::from_millis(1));
    let login = Some(CloseReason::TimedOut(TimeoutReason::Login));
    assert_eq!(ends(&pair, Question::Auth), (login.clone(), 1));
    answer(&mut pair, Question::Auth, Answer::Yes);
    pair.advance(Duration::from_secs(10_000));
    assert_eq!(ends(&pair, Question::Auth), (login, 1), "the first reason stands");
    assert_eq!(pair.server.conn.poll_timeout(), None);

    // A person may read a fingerprint for as long as it takes, and only then hears that it was for nothing.
    let mut pair = asked(Question::HostKey);
    pair.advance(Duration::from_secs(10_000));
    assert_eq!(ends(&pair, Question::HostKey), (None, 0));
    answer(&mut pair, Question::HostKey, Answer::Yes);
    pair.drive();
    assert_eq!(ends(&pair, Question::HostKey), (Some(CloseReason::Eof), 1));
    // The last output stays for its time, and nothing else is waited for.
    assert_eq!(pair.client.conn.timeout_reason(), Some(TimeoutReason::Linger));
    pair.advance(Duration::from_secs(2));
    assert_eq!((pair.client.conn.poll_timeout(), pair.client.conn.output().len()), (None, 0));
}
