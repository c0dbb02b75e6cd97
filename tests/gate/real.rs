//! Real connections in every state, fed every message number in five bodies.

use std::collections::{BTreeSet, HashSet};

use ssh_proto::raw::{Message, State, Verdict, number, transport};
use ssh_proto::{CloseReason, DisconnectCode, PeerMisbehaved, Side};
use ssh_tests::scene::Scene;

use crate::bodies::{Body, is_well_formed};
use crate::oracle::{self, Row};
use crate::reach::{UNREACHED, reach, reach_rustcrypto};

/// Feeds one message and holds the connection to the verdict.
fn check(mut scene: Scene, row: &Row, strict: bool, number: u8, body: Body) {
    let payload = body.payload(&mut scene, number);
    let well_formed = is_well_formed(&scene, &payload);
    let context = format!("{:?} {:?}, strict: {strict}, message {number}, {body:?}", row.side, row.state);
    let (events, seq) = (scene.events.len(), scene.puppet.seq_out);
    let before = shown(&scene);
    let packet = scene.puppet.seal(&payload);
    scene.say_bytes(&packet);
    let verdict = row.verdicts[usize::from(number)];
    match verdict {
        Verdict::Violation => broken(&mut scene, events, PeerMisbehaved::UnexpectedMessage, number, &context),
        Verdict::Terminate => {
            let code = DisconnectCode(if well_formed { 11 } else { 2 });
            match scene.closed() {
                CloseReason::PeerDisconnected { code: told, description } => {
                    assert_eq!(told, code, "{context}");
                    assert_eq!(
                        description.as_bytes(),
                        if well_formed { &b"bye"[..] } else { b"" },
                        "{context}"
                    );
                }
                other => panic!("{context}: {other:?}"),
            }
            assert_eq!(scene.heard, [], "{context}");
        }
        // IGNORE, UNIMPLEMENTED and DEBUG are nothing, but must be what they say.
        Verdict::Ignore if (2..=4).contains(&number) && !well_formed => {
            broken(&mut scene, events, PeerMisbehaved::MalformedMessage, number, &context);
        }
        // Nobody looks into a PONG.
        Verdict::UseIfAwaited if number != number::PONG && !well_formed => {
            broken(&mut scene, events, PeerMisbehaved::MalformedMessage, number, &context);
        }
        Verdict::Ignore | Verdict::UseIfAwaited => {
            unmoved(&scene, row.state, events, &context);
            assert_eq!((scene.input.len(), &scene.heard[..]), (0, &[][..]), "{context}");
        }
        Verdict::Unimplemented => {
            unmoved(&scene, row.state, events, &context);
            if row.state == State::RekeySent {
                // Between our KEXINIT and our NEWKEYS the answer has to wait.
                assert_eq!(scene.heard, [], "{context}");
                assert!(scene.memory().owed > 0, "{context}");
                complete_rekey(&mut scene);
            }
            let answers: Vec<u32> = scene
                .heard
                .iter()
                .filter_map(|heard| transport::Unimplemented::decode(&heard.payload).ok())
                .map(|answer| answer.sequence)
                .collect();
            assert_eq!(answers, [seq], "{context}");
        }
        Verdict::Skip => {
            assert_eq!((scene.events.len(), &scene.heard[..]), (events, &[][..]), "{context}");
            // Once only: the next one is taken for the real one.
            scene.method();
            assert!(!scene.is_over(), "{context}: {:?}", scene.events);
        }
        Verdict::NotRead => {
            unmoved(&scene, row.state, events, &context);
            assert_eq!((&scene.input[..], &scene.heard[..]), (&packet[..], &[][..]), "{context}");
        }
        Verdict::Discard => {
            assert_eq!((scene.events.len(), scene.input.len()), (events, 0), "{context}");
            assert_eq!(scene.heard, [], "{context}");
        }
        Verdict::Accept | Verdict::AcceptIf => {
            // Extensions and a wider window show later.
            let shows = ![number::EXT_INFO, number::CHANNEL_WINDOW_ADJUST].contains(&number);
            assert!(!shows || shown(&scene) != before, "{context}");
            accepted(&mut scene, row, number, (body, well_formed), &context);
        }
    }
    if scene.is_over() {
        scene.assert_silent_after_the_end();
    }
}

/// The connection ended over this rule, and nothing else happened.
#[track_caller]
fn broken(scene: &mut Scene, events: usize, rule: PeerMisbehaved, message: u8, context: &str) {
    assert_eq!(scene.closed(), CloseReason::PeerMisbehaved { rule, message: Some(message) }, "{context}");
    assert_eq!(scene.events.len(), events + 1, "{context}");
    assert_eq!(scene.heard.len(), 1, "{context}");
    assert_eq!(scene.disconnects(), [2], "{context}");
}

/// Nothing happened; only the first packet behind the first NEWKEYS is over with any.
#[track_caller]
fn unmoved(scene: &Scene, state: State, events: usize, context: &str) {
    assert_eq!(scene.events.len(), events, "{context}: {:?}", scene.events);
    let state = if state == State::ServiceFirst { State::Service } else { state };
    assert_eq!(scene.state(), state, "{context}");
}

fn complete_rekey(scene: &mut Scene) {
    scene.exchange();
    assert_eq!(scene.state(), State::Authed);
}

/// What a connection shows of itself.
fn shown(scene: &Scene) -> impl PartialEq + use<> {
    (scene.state(), scene.events.len(), scene.heard.len(), scene.memory())
}

/// A message that is legal here: well-formed it has an effect, malformed it ends the connection by the rule
/// that says so.
fn accepted(scene: &mut Scene, row: &Row, number: u8, (body, well_formed): (Body, bool), context: &str) {
    if !scene.is_over() {
        // A longer name or other data may be as good, where the fields end with the message.
        assert!(well_formed, "{context}");
        return;
    }
    let reason = scene.closed();
    let CloseReason::PeerMisbehaved { rule, message } = reason else { panic!("{context}: {reason:?}") };
    assert_eq!(message, Some(number), "{context}");
    let code = rule.disconnect_code().expect("behind the version exchange").0;
    assert_eq!(scene.disconnects(), [code], "{context}");
    let condition = match (number, row.state) {
        // The session's channel is open, not opening.
        (number::CHANNEL_OPEN_CONFIRMATION | number::CHANNEL_OPEN_FAILURE, _) => {
            Some(PeerMisbehaved::ChannelNotOpening)
        }
        // Nothing was asked of the server yet.
        (number::EXT_INFO, State::AuthIdle | State::AuthSignPending) => {
            Some(PeerMisbehaved::TooManyExtensions)
        }
        _ => None,
    };
    match body {
        Body::WellFormed => assert_eq!(Some(rule), condition, "{context}"),
        _ if !well_formed => assert_eq!(rule, PeerMisbehaved::MalformedMessage, "{context}"),
        _ => {}
    }
}

fn reachable() -> Vec<Row> {
    oracle::rows().into_iter().filter(|row| !UNREACHED.contains(&row.state)).collect()
}

/// Checks the lines of one role, and says how many cells that were.
fn check_side(side: Side) -> usize {
    let mut cells = 0;
    for row in reachable().into_iter().filter(|row| row.side == side) {
        for strict in row.kinds() {
            for (number, body) in (0..=255).flat_map(|number| Body::ALL.map(|body| (number, body))) {
                check(reach(row.side, row.state, strict), &row, strict, number, body);
                cells += 1;
            }
        }
    }
    cells
}

#[test]
fn sm_06_a_client_holds_to_the_table_in_every_state_it_comes_to() {
    assert_eq!(check_side(Side::Client), 48_640);
}

#[test]
fn sm_06_a_server_holds_to_the_table_in_every_state_it_comes_to() {
    assert_eq!(check_side(Side::Server), 40_960);
}

#[test]
fn sm_06_a_server_on_real_cryptography_holds_to_the_table_where_it_changes() {
    let mut cells = 0;
    // The signature by ticket is in the null provider's runs.
    let by_ticket = [State::KexSignPending, State::RekeySignPending];
    for row in reachable().into_iter().filter(|row| row.side == Side::Server) {
        if by_ticket.contains(&row.state) {
            continue;
        }
        let changes = |number: &u8| {
            let at = usize::from(*number);
            at == 0 || row.verdicts[at - 1] != row.verdicts[at]
        };
        for number in (0..=255).filter(changes) {
            let strict = row.strict != Some(false);
            check(reach_rustcrypto(row.state, strict), &row, strict, number, Body::WellFormed);
            cells += 1;
        }
    }
    assert_eq!(cells, 158);
}

#[test]
fn every_state_is_reached_but_those_of_group_exchange_and_keyboard_interactive() {
    let all: HashSet<State> = oracle::rows().iter().map(|row| row.state).collect();
    let reached: HashSet<State> = reachable().iter().map(|row| row.state).collect();
    let missing: BTreeSet<String> = all.difference(&reached).map(|state| format!("{state:?}")).collect();
    let expected = [
        "AuthPrompted",
        "AuthSent(KeyboardInteractive)",
        "Kex(GexFirst)",
        "Kex(GexSecond)",
        "RekeyKex(GexFirst)",
        "RekeyKex(GexSecond)",
    ];
    assert_eq!(missing.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(reachable().len(), 41);
}
