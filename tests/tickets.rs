//! Tickets: answered, dropped, misdirected, late; and in a module of their own, between other things.

#[path = "tickets/between.rs"]
mod between;

use ssh_proto::{
    AnswerError, AuthMethods, AuthVerdict, ChannelConfig, ChannelEvent, ChannelId, ChannelKind,
    ChannelRequestKind, Client, ClientEvent, CloseReason, Credential, Disconnect, DisconnectCode, Entropy,
    GlobalReply, GlobalRequestKind, KeyPair, OpenFailure, OpenFailureCode, ServerConfig, ServerEvent,
    SignRefused, Signature, Signer, TimeoutReason, ToSign,
};
use ssh_tests::{Answer, End, Pair, Policy, external_key, null, null_key, take};

/// Every kind of ticket, as the side that gets it sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    HostKey,
    HostSign,
    UserSign,
    Probe,
    Auth,
    Open,
    Request,
    Global,
}

const ALL: [Kind; 8] = [
    Kind::HostKey,
    Kind::HostSign,
    Kind::UserSign,
    Kind::Probe,
    Kind::Auth,
    Kind::Open,
    Kind::Request,
    Kind::Global,
];

/// A ticket, whatever it is.
enum Any {
    Client(ClientEvent),
    Server(ServerEvent),
}

fn global() -> GlobalRequestKind {
    GlobalRequestKind { name: "g@ssh-tests.invalid".into(), data: vec![1] }
}

/// A pair whose side holds a ticket of this kind, and the ticket. Every other question is answered with yes.
fn pair_with(kind: Kind) -> (Pair, Any) {
    let client = ssh_tests::null_client().build().unwrap();
    let server = match kind {
        Kind::HostSign => ssh_tests::config::null_server_external(),
        _ => ssh_tests::null_server(),
    };
    let mut pair = Pair::new(client, server.build().unwrap(), 1);
    let keep = Answer::Keep;
    match kind {
        Kind::HostKey => pair.client.policy.host_key = keep,
        Kind::HostSign => pair.server.policy.sign = keep,
        Kind::UserSign => pair.client.policy.sign = keep,
        Kind::Probe => pair.server.policy.probe = keep,
        Kind::Auth => pair.server.policy.auth = keep,
        Kind::Open => pair.server.policy.open = keep,
        Kind::Request => pair.server.policy.request = keep,
        Kind::Global => pair.server.policy.global = keep,
    }
    let key = if kind == Kind::UserSign { external_key(2) } else { null_key(2) };
    let credential = Credential::PublicKey { key, probe: kind == Kind::Probe };
    pair.client.conn.authenticate("user", credential).unwrap();
    pair.drive();
    match kind {
        Kind::Open => drop(open(&mut pair)),
        Kind::Request => {
            let id = open(&mut pair);
            let mut channel = pair.client.conn.channel(id).unwrap();
            channel.request(&ChannelRequestKind::exec("true"), true).unwrap();
        }
        Kind::Global => drop(pair.client.conn.global_request(&global()).unwrap()),
        _ => {}
    }
    pair.drive();
    let ticket = match kind {
        Kind::HostKey => Any::Client(take!(pair.client, ClientEvent::HostKey(t) => ClientEvent::HostKey(t))),
        Kind::UserSign => Any::Client(take!(pair.client, ClientEvent::Sign(t) => ClientEvent::Sign(t))),
        _ => Any::Server(take!(pair.server,
            event @ (ServerEvent::Sign(_) | ServerEvent::Probe(_) | ServerEvent::Auth(_) | ServerEvent::Open(_)
                | ServerEvent::Global(_) | ServerEvent::Channel(_, ChannelEvent::Request(_))) => event)),
    };
    (pair, ticket)
}

fn open(pair: &mut Pair) -> ChannelId {
    pair.client.conn.open_channel(&ChannelKind::Session, ChannelConfig::default()).unwrap()
}

/// Answers a ticket at this pair, with yes or no.
fn answer(pair: &mut Pair, ticket: Any, yes: bool) -> Result<(), AnswerError> {
    let (client, server) = (&mut pair.client.conn, &mut pair.server.conn);
    let signature = |to_sign: ssh_proto::ToSign<'_>| {
        if yes { Ok(null::sign(to_sign.key(), to_sign.message())) } else { Err(SignRefused) }
    };
    match ticket {
        Any::Client(ClientEvent::HostKey(check)) if yes => client.accept_host_key(check),
        Any::Client(ClientEvent::HostKey(check)) => client.reject_host_key(check),
        Any::Client(ClientEvent::Sign(request)) => {
            let signature = signature(request.to_sign());
            client.provide_signature(request, signature)
        }
        Any::Server(ServerEvent::Sign(request)) => {
            let signature = signature(request.to_sign());
            server.provide_signature(request, signature)
        }
        Any::Server(ServerEvent::Probe(probe)) => server.reply_probe(probe, yes),
        Any::Server(ServerEvent::Auth(request)) => {
            let reject = AuthVerdict::Reject { next: AuthMethods::default() };
            server.reply_auth(request, if yes { AuthVerdict::Accept } else { reject })
        }
        Any::Server(ServerEvent::Open(request)) if yes => {
            server.accept_channel(request, ChannelConfig::default()).map(drop)
        }
        Any::Server(ServerEvent::Open(request)) => {
            server.reject_channel(request, OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "no"))
        }
        Any::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) => {
            server.reply_request(request, yes)
        }
        Any::Server(ServerEvent::Global(request)) => {
            let reply = if yes { GlobalReply::Success(b"yes") } else { GlobalReply::Failure };
            server.reply_global(request, reply)
        }
        _ => unreachable!("no ticket"),
    }
}

/// What the asking side sees of a yes.
fn assert_yes(pair: &Pair, kind: Kind) {
    let said = match kind {
        Kind::HostKey | Kind::HostSign | Kind::UserSign | Kind::Probe | Kind::Auth => "Authenticated",
        Kind::Open => "Opened",
        Kind::Request => "Reply(true)",
        Kind::Global => "Some(b\"yes\")",
    };
    assert!(pair.client.saw(said), "{kind:?}: {:?}", pair.client.trace);
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

/// What both sides see of a no.
fn assert_no(pair: &Pair, kind: Kind) {
    let Pair { client, server, .. } = pair;
    match kind {
        Kind::HostKey => {
            assert_eq!(client.closed, Some(CloseReason::HostKeyRejected));
            assert_disconnected(&server.closed, DisconnectCode::HOST_KEY_NOT_VERIFIABLE);
        }
        Kind::HostSign => {
            assert_eq!(server.closed, Some(CloseReason::SignatureRefused));
            assert_disconnected(&client.closed, DisconnectCode::KEY_EXCHANGE_FAILED);
        }
        _ => {
            let said = match kind {
                Kind::UserSign | Kind::Probe | Kind::Auth => "AuthFailed",
                Kind::Open => "OpenFailed",
                Kind::Request => "Reply(false)",
                _ => "GlobalReply(RequestId(0), None)",
            };
            assert!(client.saw(said), "{kind:?}: {:?}", client.trace);
            assert_eq!((&client.closed, &server.closed), (&None, &None));
        }
    }
}

fn assert_disconnected(reason: &Option<CloseReason>, expected: DisconnectCode) {
    let Some(CloseReason::PeerDisconnected { code, .. }) = reason else { panic!("{reason:?}") };
    assert_eq!(*code, expected);
}

#[test]
fn every_ticket_answered_with_yes_lets_things_go_on() {
    for kind in ALL {
        let (mut pair, ticket) = pair_with(kind);
        answer(&mut pair, ticket, true).unwrap();
        pair.settle();
        assert_yes(&pair, kind);
    }
}

#[test]
fn every_ticket_answered_with_no_is_a_refusal() {
    for kind in ALL {
        let (mut pair, ticket) = pair_with(kind);
        answer(&mut pair, ticket, false).unwrap();
        pair.settle();
        assert_no(&pair, kind);
    }
}

#[test]
fn every_ticket_dropped_on_another_thread_is_a_refusal_at_the_next_call() {
    for kind in ALL {
        let (mut pair, ticket) = pair_with(kind);
        std::thread::spawn(move || drop(ticket)).join().unwrap();
        pair.settle();
        assert_no(&pair, kind);
    }
}

#[test]
fn a_drop_alone_is_noticed_by_poll_event_without_any_input() {
    let (mut pair, ticket) = pair_with(Kind::HostKey);
    drop(ticket);
    assert!(matches!(pair.client.conn.poll_event(), Some(ClientEvent::Closed(CloseReason::HostKeyRejected))));
    let (mut pair, ticket) = pair_with(Kind::Request);
    assert!(pair.server.conn.output().is_empty());
    drop(ticket);
    assert!(pair.server.conn.poll_event().is_none());
    assert!(!pair.server.conn.output().is_empty());
}

#[test]
fn every_ticket_answered_at_a_foreign_connection_is_refused_at_home() {
    for kind in ALL {
        let (mut other, kept) = pair_with(kind);
        let (mut pair, ticket) = pair_with(kind);
        assert_eq!(answer(&mut other, ticket, true), Err(AnswerError::Foreign), "{kind:?}");
        pair.settle();
        assert_no(&pair, kind);
        answer(&mut other, kept, true).unwrap();
        other.settle();
        assert_yes(&other, kind);
    }
}

#[test]
fn every_ticket_answered_after_the_close_is_gone() {
    for kind in ALL {
        let (mut pair, ticket) = pair_with(kind);
        pair.client.conn.close(Disconnect::by_application());
        pair.server.conn.close(Disconnect::by_application());
        let trace = (pair.client.trace.len(), pair.server.trace.len());
        assert_eq!(answer(&mut pair, ticket, true), Err(AnswerError::Gone), "{kind:?}");
        pair.settle();
        assert_eq!(pair.client.closed, Some(CloseReason::Local(DisconnectCode::BY_APPLICATION)));
        assert_eq!((pair.client.trace.len(), pair.server.trace.len()), (trace.0 + 1, trace.1 + 1));
    }
}

#[test]
fn a_ticket_that_outlives_its_connection_is_harmless() {
    for kind in ALL {
        let (pair, ticket) = pair_with(kind);
        drop(pair);
        let (mut other, _kept) = pair_with(kind);
        assert_eq!(answer(&mut other, ticket, true), Err(AnswerError::Foreign));
    }
}

#[test]
fn gating_tickets_stop_the_input_and_the_others_do_not() {
    for kind in ALL {
        let (pair, _ticket) = pair_with(kind);
        let (waits, wants) = match kind {
            Kind::HostKey => (pair.client.conn.awaits_answer(), pair.client.conn.wants_input()),
            Kind::UserSign => {
                assert!(!pair.client.conn.awaits_answer());
                continue;
            }
            _ => (pair.server.conn.awaits_answer(), pair.server.conn.wants_input()),
        };
        let gates = matches!(kind, Kind::HostKey | Kind::HostSign | Kind::Probe | Kind::Auth);
        assert_eq!((waits, wants), (gates, !gates), "{kind:?}");
    }
}

#[test]
fn a_request_answered_after_its_channel_closed_is_gone() {
    let (mut pair, ticket) = pair_with(Kind::Request);
    let id = pair.server.accepted[0];
    pair.server.conn.channel(id).unwrap().abort();
    pair.drive();
    assert_eq!(answer(&mut pair, ticket, true), Err(AnswerError::Gone));
    assert!(pair.client.saw("Reply(false)"), "what is unanswered at the close is answered with no");
    let (mut pair, ticket) = pair_with(Kind::Request);
    pair.server.conn.channel(pair.server.accepted[0]).unwrap().release();
    pair.drive();
    assert_eq!(answer(&mut pair, ticket, true), Err(AnswerError::Gone));
}

#[test]
fn a_late_answer_to_a_request_whose_asker_gave_up_goes_by_unseen() {
    let (mut pair, ticket) = pair_with(Kind::Request);
    pair.advance(std::time::Duration::from_secs(121));
    assert_eq!(pair.client.count("Reply(false)"), 1);
    let id = take!(pair.client, ClientEvent::Opened(id) => id);
    pair.client.conn.channel(id).unwrap().request(&ChannelRequestKind::env("A", ""), true).unwrap();
    answer(&mut pair, ticket, true).unwrap();
    pair.drive();
    assert_eq!(pair.client.count(" Reply("), 1, "it is not taken for the answer to the second request");
    let second = take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(t)) => t);
    pair.server.conn.reply_request(second, true).unwrap();
    pair.drive();
    assert_eq!(pair.client.count("Reply(true)"), 1);
}

#[test]
fn a_late_yes_to_an_open_whose_asker_gave_up_closes_the_channel_again() {
    let (mut pair, ticket) = pair_with(Kind::Open);
    pair.advance(std::time::Duration::from_secs(121));
    assert_eq!(pair.client.count("OpenFailed"), 1);
    answer(&mut pair, ticket, true).unwrap();
    pair.drive();
    assert_eq!(pair.client.count("Opened("), 0);
    assert!(pair.server.saw("Closed"), "{:?}", pair.server.trace);
    assert_eq!(pair.client.conn.memory_usage().channels, 0);
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
}

#[test]
fn an_answer_too_long_to_send_is_a_refusal() {
    let (mut pair, ticket) = pair_with(Kind::Global);
    let Any::Server(ServerEvent::Global(request)) = ticket else { unreachable!() };
    let long = vec![0; 40_000];
    let result = pair.server.conn.reply_global(request, GlobalReply::Success(&long));
    assert_eq!(result, Err(AnswerError::Refused));
    pair.drive();
    assert_no(&pair, Kind::Global);
}

#[test]
fn a_signature_by_another_algorithm_is_a_refusal() {
    for kind in [Kind::HostSign, Kind::UserSign] {
        let (mut pair, ticket) = pair_with(kind);
        let signature = Ok(Signature::new("other@ssh-tests.invalid", vec![1]));
        match ticket {
            Any::Client(ClientEvent::Sign(request)) => pair.client.conn.provide_signature(request, signature),
            Any::Server(ServerEvent::Sign(request)) => pair.server.conn.provide_signature(request, signature),
            _ => unreachable!(),
        }
        .unwrap();
        pair.settle();
        assert_no(&pair, kind);
    }
}

/// Whether a signature stands anywhere in what a side sent: the null cipher hides nothing.
fn sent(wire: &ssh_tests::Wire, signature: &Signature) -> bool {
    let bytes = signature.as_bytes();
    wire.sent.windows(bytes.len()).any(|part| part == bytes)
}

#[test]
fn kx_16_of_a_host_signature_that_does_not_verify_nothing_leaves() {
    let (mut pair, ticket) = pair_with(Kind::HostSign);
    let Any::Server(ServerEvent::Sign(request)) = ticket else { unreachable!() };
    let wrong = null::sign(&null::public_key(77), request.to_sign().message());
    let result = pair.server.conn.provide_signature(request, Ok(wrong.clone()));
    assert_eq!(result, Err(AnswerError::Refused));
    pair.drive();
    assert_eq!(pair.server.closed, Some(CloseReason::SignatureInvalid));
    assert_disconnected(&pair.client.closed, DisconnectCode::KEY_EXCHANGE_FAILED);
    assert!(!sent(&pair.s2c, &wrong));
    assert!(!pair.client.saw("HostKey SHA256"));
}

#[test]
fn kx_16_of_a_user_signature_that_does_not_verify_nothing_leaves() {
    let (mut pair, ticket) = pair_with(Kind::UserSign);
    let Any::Client(ClientEvent::Sign(request)) = ticket else { unreachable!() };
    let asked = pair.server.count("Auth");
    let wrong = null::sign(&null::public_key(77), request.to_sign().message());
    let result = pair.client.conn.provide_signature(request, Ok(wrong.clone()));
    assert_eq!(result, Err(AnswerError::Refused));
    pair.settle();
    assert_no(&pair, Kind::UserSign);
    assert!(!sent(&pair.c2s, &wrong));
    assert_eq!(pair.server.count("Auth"), asked);
    // The next attempt is as good as any.
    pair.client.conn.authenticate("user", Credential::PublicKey { key: null_key(2), probe: false }).unwrap();
    pair.settle();
    assert!(pair.client.authenticated);
}

/// A signer that failed while it computed.
struct Faulty;

impl Signer for Faulty {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        Ok(null::sign(&null::public_key(77), what.message()))
    }
}

#[test]
fn kx_16_a_signer_at_hand_is_trusted_no_more_than_a_ticket() {
    let faulty = |number| KeyPair::new(null::public_key(number), std::sync::Arc::new(Faulty));
    let server = ServerConfig::builder(&null::PROVIDER).ciphers(&[null::CIPHER]).host_key(faulty(1));
    for (host, server) in [(true, server), (false, ssh_tests::null_server())] {
        let (client, server) = (ssh_tests::null_client().build().unwrap(), server.build().unwrap());
        let mut pair = Pair::new(client, server, 1);
        pair.client
            .conn
            .authenticate("user", Credential::PublicKey { key: faulty(2), probe: false })
            .unwrap();
        pair.settle();
        if host {
            assert_eq!(pair.server.closed, Some(CloseReason::SignatureInvalid));
        } else {
            assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
            assert_eq!((pair.client.count("AuthFailed"), pair.server.count("Auth")), (1, 0));
        }
    }
}

#[test]
fn auth_a_login_takes_the_steps_the_server_asks_for_and_names_the_key_that_signed() {
    let mut pair = Pair::null();
    pair.server.policy = Policy { auth: Answer::Keep, ..Policy::default() };
    pair.client.conn.authenticate("user", Credential::None).unwrap();
    pair.drive();
    let next = AuthMethods::PUBLICKEY;
    let reject = AuthVerdict::Reject { next };
    let auth = take!(pair.server, ServerEvent::Auth(request) => request);
    pair.server.conn.reply_auth(auth, reject).unwrap();
    pair.drive();
    assert_eq!(pair.client.count("AuthFailed"), 0, "the refusal is held back");
    pair.settle();
    assert!(pair.client.saw("AuthFailed { remaining: [\"publickey\"], partial: false }"));

    let probe = Credential::PublicKey { key: null_key(8), probe: true };
    pair.server.policy.probe = Answer::No;
    pair.client.conn.authenticate("user", probe).unwrap();
    pair.settle();
    assert_eq!(pair.client.count("AuthFailed"), 2);

    pair.server.policy.probe = Answer::Yes;
    let key = null_key(9);
    pair.client.conn.authenticate("user", Credential::PublicKey { key: key.clone(), probe: true }).unwrap();
    pair.drive();
    let auth = take!(pair.server, ServerEvent::Auth(request) => request);
    let partial = AuthVerdict::Partial { next: AuthMethods::PASSWORD };
    pair.server.conn.reply_auth(auth, partial).unwrap();
    pair.drive();
    assert!(pair.client.saw("AuthFailed { remaining: [\"password\"], partial: true }"));

    pair.client.conn.authenticate("user", Credential::Password("secret".into())).unwrap();
    pair.drive();
    let auth = take!(pair.server, ServerEvent::Auth(request) => request);
    pair.server.conn.reply_auth(auth, AuthVerdict::Accept).unwrap();
    pair.drive();
    let identity = pair.server.identity.as_ref().unwrap();
    assert_eq!((identity.user.as_str(), &identity.methods[..]), ("user", &["publickey", "password"][..]));
    assert_eq!(identity.key.as_ref(), Some(&key.public));
}

#[test]
fn a_held_ticket_stops_the_clients_deadlines_and_never_the_servers_login_grace() {
    let (mut pair, ticket) = pair_with(Kind::HostKey);
    assert_eq!(
        pair.client.conn.poll_timeout().map(|_| pair.client.conn.timeout_reason()),
        stall(&pair.client)
    );
    // A person reads the fingerprint, and the server, which waits for NEWKEYS, cannot know.
    pair.advance(std::time::Duration::from_secs(119));
    assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
    answer(&mut pair, ticket, true).unwrap();
    pair.drive();
    assert_yes(&pair, Kind::HostKey);
    let (mut pair, _ticket) = pair_with(Kind::HostKey);
    pair.advance(std::time::Duration::from_secs(120));
    assert_eq!(pair.server.closed, Some(CloseReason::TimedOut(TimeoutReason::Login)));
    let (mut pair, _ticket) = pair_with(Kind::Auth);
    pair.advance(std::time::Duration::from_secs(121));
    assert_eq!(pair.server.closed, Some(CloseReason::TimedOut(TimeoutReason::Login)));
}

/// Nothing runs but, at most, the lazy deadline of progress.
fn stall(end: &End<Client>) -> Option<Option<TimeoutReason>> {
    end.conn.poll_timeout().map(|_| Some(TimeoutReason::WriteStall))
}
