//! Requests that the peer answers late or never.

use std::time::Duration;

use bytes::BytesMut;
use ssh_proto::raw::channel::ChannelSuccess;
use ssh_proto::raw::number;
use ssh_proto::{
    ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind, ClientEvent, Connection,
    DisconnectCode, GlobalRequestKind, Limits, RequestError, Role, ServerEvent, Side, TimeoutReason,
};
use ssh_tests::scene::Event;
use ssh_tests::{Answer, Pair, Policy, Scene, hand, null_client, take};

use super::{assert_told, logged_in, secs, timed_out};

const TIMEOUT: Duration = Duration::from_secs(120);
const MS: Duration = Duration::from_millis(1);
/// So many times the requests that may wait, unanswered in time, are too many.
const HOPELESS: usize = 4;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Channel,
    Global,
}

fn kind() -> ChannelRequestKind {
    ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() }
}

fn global() -> GlobalRequestKind {
    GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: Vec::new() }
}

/// A pair with a session, whose sides answer no request by themselves.
fn unanswered(limits: impl Fn(&mut Limits) + Copy) -> (Pair, [ChannelId; 2]) {
    let mut pair = logged_in(limits);
    let (ours, theirs) = pair.open_session();
    for policy in [&mut pair.client.policy, &mut pair.server.policy] {
        *policy = Policy { request: Answer::Keep, global: Answer::Keep, ..Policy::default() };
    }
    (pair, [ours, theirs])
}

/// Asks, unless there are too many questions already.
fn ask<R: Role>(conn: &mut Connection<R>, what: What, id: ChannelId) -> bool {
    let result = match what {
        What::Channel => conn.channel(id).unwrap().request(&kind(), true),
        What::Global => conn.global_request(&global()).map(drop),
    };
    assert!(matches!(result, Ok(()) | Err(RequestError::Full)), "{result:?}");
    result.is_ok()
}

/// `side` asks, unless it may not.
fn ask_once(pair: &mut Pair, side: Side, what: What, [ours, theirs]: [ChannelId; 2]) -> bool {
    let asked = match side {
        Side::Client => ask(&mut pair.client.conn, what, ours),
        Side::Server => ask(&mut pair.server.conn, what, theirs),
    };
    pair.drive();
    asked
}

/// `side` asks as much as it may, and says how often that was.
fn ask_all(pair: &mut Pair, side: Side, what: What, ids: [ChannelId; 2]) -> usize {
    std::iter::from_fn(|| ask_once(pair, side, what, ids).then_some(())).count()
}

/// How many requests of `side` came to nothing.
fn refused(pair: &Pair, side: Side) -> usize {
    let count =
        |words| if side == Side::Client { pair.client.count(words) } else { pair.server.count(words) };
    count(" Reply(false)") + count("None)")
}

/// The other side says yes to everything it was asked.
fn answer_all(pair: &mut Pair, side: Side) {
    match side {
        Side::Client => drop(pair.server.answer(&Policy::default())),
        Side::Server => drop(pair.client.answer(&Policy::default())),
    }
    pair.drive();
}

const ALL: [(Side, What); 4] = [
    (Side::Client, What::Channel),
    (Side::Client, What::Global),
    (Side::Server, What::Channel),
    (Side::Server, What::Global),
];

fn cap(what: What) -> usize {
    let limits = Limits::default();
    if what == What::Channel { limits.pending_requests } else { limits.pending_globals }
}

#[test]
fn a_peer_that_leaves_four_times_as_many_requests_as_may_wait_unanswered_is_left() {
    for (side, what) in ALL {
        let (mut pair, ids) = unanswered(|_| {});
        for round in 1..=HOPELESS {
            assert_eq!(ask_all(&mut pair, side, what, ids), cap(what), "{side:?} {what:?}");
            pair.advance(TIMEOUT - MS);
            assert_eq!(refused(&pair, side), (round - 1) * cap(what), "not before their time");
            assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None), "{side:?} {what:?}");
            pair.advance(MS);
            assert_eq!(refused(&pair, side), round * cap(what), "each came to nothing once");
        }
        let (left, told) = match side {
            Side::Client => (&pair.client.closed, &pair.server.closed),
            Side::Server => (&pair.server.closed, &pair.client.closed),
        };
        assert_eq!(*left, timed_out(TimeoutReason::RequestReply), "{side:?} {what:?}");
        assert_told(told, DisconnectCode::PROTOCOL_ERROR);
    }
}

#[test]
fn room_that_comes_from_giving_up_is_told_to_whoever_was_refused() {
    for (side, what) in ALL {
        let (mut pair, ids) = unanswered(|_| {});
        let ready = |pair: &Pair| {
            let trace = if side == Side::Client { &pair.client.trace } else { &pair.server.trace };
            let at = |event: &str| trace.iter().position(|other| other == event);
            let given_up = at("Ready").map(|at| trace[..at].iter().filter(|e| e.contains("Reply")).count());
            (trace.iter().filter(|event| *event == "Ready").count(), given_up)
        };
        // The second half a minute behind the first; the last of all is refused.
        let half = cap(what) / 2;
        for _ in 0..half {
            assert!(ask_once(&mut pair, side, what, ids));
        }
        pair.advance(secs(60));
        assert_eq!(ask_all(&mut pair, side, what, ids), half, "{side:?} {what:?}");
        pair.advance(secs(60) - MS);
        assert_eq!(ready(&pair), (0, None), "{side:?} {what:?}");
        pair.advance(MS);
        assert_eq!(ready(&pair), (1, Some(half)), "{side:?} {what:?}: half of them are free");
        assert!(ask_once(&mut pair, side, what, ids), "{side:?} {what:?}");
        // Nobody was refused since.
        pair.advance(secs(600));
        assert_eq!(ready(&pair), (1, Some(half)), "{side:?} {what:?}");
    }
}

#[test]
fn one_unanswered_request_less_is_no_reason_to_leave() {
    let (mut pair, ids) = unanswered(|_| {});
    for round in 0..HOPELESS {
        if round == 0 {
            let mut channel = pair.client.conn.channel(ids[0]).unwrap();
            (1..cap(What::Channel)).for_each(|_| channel.request(&kind(), true).unwrap());
        } else {
            ask_all(&mut pair, Side::Client, What::Channel, ids);
        }
        pair.advance(TIMEOUT);
    }
    assert_eq!(refused(&pair, Side::Client), HOPELESS * cap(What::Channel) - 1);
    pair.advance(secs(10_000));
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn a_peer_that_answers_may_take_as_long_as_it_likes_over_and_over() {
    for (side, what) in ALL {
        // In time, and behind its time: a late answer is one that is not owed any more.
        for late in [TIMEOUT - MS, TIMEOUT + MS] {
            let (mut pair, ids) = unanswered(|limits| limits.pending_global_tickets = 64);
            for round in 1..=3 * HOPELESS {
                assert_eq!(ask_all(&mut pair, side, what, ids), cap(what), "{side:?} {what:?} {round}");
                pair.advance(late);
                answer_all(&mut pair, side);
                let expired = if late > TIMEOUT { round * cap(what) } else { 0 };
                assert_eq!(refused(&pair, side), expired, "{side:?} {what:?}");
            }
            assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None), "{side:?} {what:?}");
        }
    }
}

#[test]
fn unanswered_requests_count_for_each_channel_alone() {
    let (mut pair, first) = unanswered(|_| {});
    let (ours, theirs) = pair.open_session();
    for round in 1..=HOPELESS {
        for (ids, times) in [(first, HOPELESS - 1), ([ours, theirs], HOPELESS - 1)] {
            if round <= times {
                ask_all(&mut pair, Side::Client, What::Channel, ids);
            }
        }
        pair.advance(TIMEOUT);
    }
    assert_eq!(refused(&pair, Side::Client), 2 * (HOPELESS - 1) * cap(What::Channel));
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn every_request_comes_to_nothing_at_its_own_time_however_many_others_were_answered() {
    let (mut pair, [ours, _]) = unanswered(|_| {});
    let (busy, theirs) = pair.open_session();
    let ask = |pair: &mut Pair, id| pair.client.conn.channel(id).unwrap().request(&kind(), true).unwrap();
    // Requests on one channel that nobody answers, a second apart; behind each, many on another that are.
    for _ in 0..10 {
        ask(&mut pair, ours);
        pair.drive();
        for _ in 0..100 {
            ask(&mut pair, busy);
            pair.drive();
            let ticket = take!(pair.server,
                ServerEvent::Channel(id, ChannelEvent::Request(ticket)) if id == theirs => ticket);
            pair.server.conn.reply_request(ticket, true).unwrap();
            pair.drive();
        }
        pair.advance(secs(1));
    }
    assert_eq!(pair.client.count("Reply(true)"), 1000);
    pair.client.trace.clear();
    for expired in 0..10 {
        pair.advance(secs(if expired == 0 { 110 } else { 1 }) - MS);
        assert_eq!(pair.client.count("Reply("), expired, "not before its time");
        assert_eq!(pair.client.conn.timeout_reason(), Some(TimeoutReason::RequestReply));
        assert_eq!(pair.client.conn.poll_timeout(), Some(pair.now + MS));
        pair.advance(MS);
        assert_eq!(pair.client.count("Reply(false)"), expired + 1);
    }
    assert_eq!(pair.client.closed, None);
}

/// A peer has so long to answer from when it was asked.
#[test]
fn a_request_that_waits_for_the_answer_to_an_open_has_its_whole_time_behind_it() {
    let mut pair = logged_in(|limits| {
        limits.open_timeout = None;
        limits.request_timeout = Some(TIMEOUT);
    });
    pair.server.policy = Policy { open: Answer::Keep, request: Answer::Keep, ..Policy::default() };
    let id = pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    pair.client.conn.channel(id).unwrap().request(&kind(), true).unwrap();
    pair.advance(2 * TIMEOUT);
    assert!(!pair.client.saw("Reply"), "{:?}", pair.client.trace);
    let open = take!(pair.server, ServerEvent::Open(open) => open);
    pair.server.conn.accept_channel(open, ChannelConfig::default()).unwrap();
    pair.advance(TIMEOUT - MS);
    assert!(pair.server.saw("Request") && !pair.client.saw("Reply"), "{:?}", pair.client.trace);
    pair.advance(MS);
    assert_eq!(refused(&pair, Side::Client), 1, "{:?}", pair.client.trace);
}

#[test]
fn a_request_that_an_abort_drops_before_it_left_is_answered_no_at_once() {
    let mut scene = Scene::client().authenticated();
    let id = scene.open_session(1000);
    scene.rekey();
    for reply in [true, false, true] {
        scene.as_client().channel(id).unwrap().request(&kind(), reply).unwrap();
    }
    scene.forget();
    scene.as_client().channel(id).unwrap().abort();
    // Whatever the peer makes of the close.
    let told = scene.take_events();
    let no = |event: &Event| matches!(event, Event::Client(ClientEvent::Channel(of, ChannelEvent::Reply(false))) if *of == id);
    assert!(told.len() == 2 && told.iter().all(no), "{told:?}");
    scene.exchange();
    let heard = scene.take_heard();
    assert!(heard.iter().all(|heard| heard.number() != number::CHANNEL_REQUEST), "{heard:?}");
}

/// The answers that the embedder is told of a channel's requests, in their order, and how often there is room again.
fn told(scene: &mut Scene) -> (Vec<bool>, usize) {
    let (mut answers, mut ready) = (Vec::new(), 0);
    for event in scene.take_events() {
        match event {
            Event::Client(ClientEvent::Channel(_, ChannelEvent::Reply(ok))) => answers.push(ok),
            Event::Client(ClientEvent::Ready) => ready += 1,
            _ => {}
        }
    }
    (answers, ready)
}

#[test]
fn requests_that_an_abort_drops_are_answered_behind_those_that_left_whatever_becomes_of_them() {
    enum Then {
        Success,
        Timeout,
        Close,
        End,
    }
    for then in [Then::Success, Then::Timeout, Then::Close, Then::End] {
        let limits = |limits: &mut Limits| limits.request_timeout = Some(TIMEOUT);
        let mut scene = Scene::of_client(null_client().with_limits(limits).build().unwrap()).authenticated();
        let id = scene.open_session(1000);
        let ask = |scene: &mut Scene| scene.as_client().channel(id).unwrap().request(&kind(), true);
        ask(&mut scene).unwrap();
        scene.settle();
        // All that may wait, of which the first has left.
        scene.rekey();
        while ask(&mut scene).is_ok() {}
        scene.forget();
        scene.as_client().channel(id).unwrap().abort();
        assert_eq!(told(&mut scene), (Vec::new(), 0), "the first is still to be answered");
        let most = Limits::default().pending_requests;
        let mut expected = (vec![false; most], 1);
        match then {
            Then::Success => {
                scene.say(&hand::encode(&ChannelSuccess { recipient: 0 }));
                expected.0[0] = true;
            }
            Then::Timeout => {
                scene.exchange();
                scene.wait(TIMEOUT);
            }
            Then::Close => scene.say(&hand::close(0)),
            Then::End => {
                scene.close();
                expected = (Vec::new(), 0);
            }
        }
        assert_eq!(told(&mut scene), expected);
    }
    // Behind the end of the connection nothing is told.
    let mut scene = Scene::client().authenticated();
    let id = scene.open_session(1000);
    scene.rekey();
    scene.as_client().channel(id).unwrap().request(&kind(), true).unwrap();
    scene.close();
    scene.take_events();
    let _ = scene.as_client().channel(id).map(|mut channel| channel.abort());
    assert!(scene.take_events().is_empty());
}

/// Its time begins when it leaves, and not with the next call.
#[test]
fn a_request_that_leaves_while_input_is_handled_is_timed_from_then_on() {
    let limits = |limits: &mut Limits| limits.request_timeout = Some(TIMEOUT);
    let mut scene = Scene::of_client(null_client().with_limits(limits).build().unwrap()).authenticated();
    let id = scene.as_client().open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    scene.as_client().channel(id).unwrap().request(&kind(), true).unwrap();
    scene.settle();
    let now = scene.now;
    let confirmation = scene.puppet.seal(&hand::confirmation(0, 7, 1000, 32768));
    let conn = scene.as_client();
    conn.handle_input(now, &mut BytesMut::from(&confirmation[..]));
    while conn.poll_event().is_some() {}
    // Somebody has the output, and is not done with it.
    conn.swap_output(&mut BytesMut::new());
    let at = now + TIMEOUT;
    assert_eq!(conn.poll_timeout(), Some(at));
    conn.handle_timeout(at);
    assert!(matches!(conn.poll_event(), Some(ClientEvent::Channel(_, ChannelEvent::Reply(false)))));
}

#[test]
fn an_open_that_an_exchange_holds_back_has_its_whole_time_behind_it() {
    let mut scene = Scene::of_client(
        null_client().with_limits(|limits| limits.open_timeout = Some(secs(10))).build().unwrap(),
    )
    .authenticated();
    scene.rekey();
    scene.forget();
    let id = scene.as_client().open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap();
    scene.settle();
    scene.wait(secs(25));
    assert!(scene.take_events().is_empty());
    scene.exchange();
    scene.take_events();
    scene.wait(secs(10) - MS);
    assert!(scene.take_events().is_empty());
    scene.wait(MS);
    let failed = scene.take_events();
    assert!(
        matches!(&failed[..], [Event::Client(ClientEvent::OpenFailed(of, _))] if *of == id),
        "{failed:?}"
    );
}
