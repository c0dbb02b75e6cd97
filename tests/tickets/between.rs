//! Tickets that are dropped or answered while other things go on, or when what they asked about is gone.

use ssh_proto::{
    AnswerError, ChannelConfig, ChannelEvent, ChannelId, ChannelKind, ChannelRequestKind, Connection,
    GlobalReply, OpenFailure, OpenFailureCode, Role, ServerEvent, SignRefused, Stream,
};
use ssh_tests::{Pair, Policy, record, take};

use super::{ALL, Any, Kind, answer, assert_no, global, pair_with};

/// Commands of every kind. What is not possible now is refused, and that is all.
fn meddle(pair: &mut Pair) {
    fn both<R: Role>(conn: &mut Connection<R>, channels: &[ChannelId]) {
        conn.rekey();
        let _ = conn.global_request(&global());
        // A server opens no sessions.
        let kind = ChannelKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
        let _ = conn.open_channel(&kind, ChannelConfig::default());
        for id in channels {
            let Ok(mut channel) = conn.channel(*id) else { continue };
            let _ = channel.write(Stream::Data, b"meanwhile");
            let _ = channel.request(&ChannelRequestKind::env("A", "b"), false);
            let _ = channel.read(Stream::Data, 10);
        }
    }
    let _ = pair.server.conn.banner("meanwhile");
    let _ = pair.client.conn.authenticate("user", ssh_proto::Credential::None);
    let accepted = pair.server.accepted.clone();
    both(&mut pair.client.conn, &[]);
    both(&mut pair.server.conn, &accepted);
}

/// How often the asking side was told no.
fn noes(pair: &Pair, kind: Kind) -> usize {
    match kind {
        Kind::HostKey => pair.client.count("Closed(HostKeyRejected"),
        Kind::HostSign => pair.server.count("Closed(SignatureRefused"),
        Kind::UserSign | Kind::Probe | Kind::Auth => pair.client.count("AuthFailed"),
        Kind::Open => pair.client.count("OpenFailed"),
        Kind::Request => pair.client.count("Reply(false)"),
        Kind::Global => pair.client.count("GlobalReply(RequestId(0), None)"),
    }
}

#[test]
fn every_ticket_dropped_between_other_commands_is_one_refusal_and_they_go_on() {
    for kind in ALL {
        // The commands come before the drop, between it and the next look at the connection, and both.
        for (before, behind) in [(true, false), (false, true), (true, true)] {
            let (mut pair, ticket) = pair_with(kind);
            (pair.client.policy, pair.server.policy) = (Policy::default(), Policy::default());
            let authenticated = pair.client.authenticated;
            if before {
                meddle(&mut pair);
            }
            drop(ticket);
            if behind {
                meddle(&mut pair);
            }
            pair.settle();
            assert_no(&pair, kind);
            assert_eq!(noes(&pair, kind), 1, "{kind:?} {before} {behind}: {:?}", pair.client.trace);
            if authenticated {
                let times = usize::from(before) + usize::from(behind);
                assert_eq!((pair.client.count("Rekeyed"), pair.server.count("Rekeyed")), (1, 1));
                assert_eq!(pair.server.count("GlobalReply"), times, "{kind:?}");
                let opened = times + usize::from(kind == Kind::Request);
                assert_eq!((pair.client.count("Opened("), pair.server.count("Opened(")), (opened, times));
            }
            record::assert_clean_exchanges(&pair.c2s.sent);
            record::assert_clean_exchanges(&pair.s2c.sent);
        }
    }
}

#[test]
fn tickets_dropped_in_any_order_are_refused_in_that_of_the_requests() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        // Two are dropped, the second is answered with yes.
        let (mut pair, first) = pair_with(Kind::Request);
        let id = take!(pair.client, ssh_proto::ClientEvent::Opened(id) => id);
        for _ in 0..2 {
            let kind = ChannelRequestKind::env("A", "b");
            pair.client.conn.channel(id).unwrap().request(&kind, true).unwrap();
        }
        pair.drive();
        let mut tickets = vec![Some(first)];
        for _ in 0..2 {
            let event =
                take!(pair.server, event @ ServerEvent::Channel(_, ChannelEvent::Request(_)) => event);
            tickets.push(Some(Any::Server(event)));
        }
        for (turn, which) in order.into_iter().enumerate() {
            let ticket = tickets[which].take().expect("each once");
            match which {
                1 => answer(&mut pair, ticket, true).unwrap(),
                _ => drop(ticket),
            }
            if turn == 1 {
                pair.drive();
            }
        }
        pair.drive();
        let replies = pair.client.trace.iter().filter(|event| event.contains(" Reply("));
        let replies: Vec<bool> = replies.map(|event| event.contains("true")).collect();
        assert_eq!(replies, [false, true, false], "{order:?}");
    }
}

#[test]
fn a_ticket_whose_channel_is_gone_says_nothing_about_the_one_in_its_place() {
    for dropped in [false, true] {
        let (mut pair, old) = pair_with(Kind::Request);
        let ours = take!(pair.client, ssh_proto::ClientEvent::Opened(id) => id);
        let theirs = pair.server.accepted[0];
        pair.client.conn.channel(ours).unwrap().release();
        pair.server.conn.channel(theirs).unwrap().release();
        pair.drive();
        assert_eq!(pair.server.conn.memory_usage().channels, 0);

        let (ours, theirs) = pair.open_session();
        let place = |id: ChannelId| format!("{id:?}").split(", ").next().map(str::to_owned);
        assert_eq!(place(theirs), place(pair.server.accepted[0]), "the number is used again");
        assert_ne!(theirs, pair.server.accepted[0]);
        pair.client.conn.channel(ours).unwrap().request(&ChannelRequestKind::Shell, true).unwrap();
        pair.drive();
        let new = take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(new)) => new);
        match dropped {
            true => drop(old),
            false => assert_eq!(answer(&mut pair, old, true), Err(AnswerError::Gone)),
        }
        pair.drive();
        assert_eq!(pair.client.count(" Reply("), 0, "{:?}", pair.client.trace);
        pair.server.conn.reply_request(new, true).unwrap();
        pair.drive();
        assert_eq!(pair.client.count("Reply(true)"), 1);
    }
}

#[test]
fn a_ticket_answered_at_the_other_side_of_its_connection_is_foreign_and_refused_at_home() {
    for kind in [Kind::HostSign, Kind::UserSign, Kind::Open, Kind::Request, Kind::Global] {
        let (mut pair, ticket) = pair_with(kind);
        let why = OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "no");
        let (client, server) = (&mut pair.client.conn, &mut pair.server.conn);
        let result = match ticket {
            Any::Client(ssh_proto::ClientEvent::Sign(request)) => {
                server.provide_signature(request, Err(SignRefused))
            }
            Any::Server(ServerEvent::Sign(request)) => client.provide_signature(request, Err(SignRefused)),
            Any::Server(ServerEvent::Open(request)) => client.reject_channel(request, why),
            Any::Server(ServerEvent::Channel(_, ChannelEvent::Request(request))) => {
                client.reply_request(request, true)
            }
            Any::Server(ServerEvent::Global(request)) => {
                client.reply_global(request, GlobalReply::Success(b""))
            }
            _ => unreachable!("no such ticket"),
        };
        assert_eq!(result, Err(AnswerError::Foreign), "{kind:?}");
        pair.settle();
        assert_no(&pair, kind);
        assert_eq!(noes(&pair, kind), 1);
    }
}

#[test]
fn a_question_that_wants_no_answer_gets_none_whatever_becomes_of_it() {
    for dropped in [false, true] {
        let mut pair = Pair::logged_in();
        let (ours, _) = pair.open_session();
        pair.server.policy = Policy::keep();
        let kind = ChannelRequestKind::env("A", "b");
        pair.client.conn.channel(ours).unwrap().request(&kind, false).unwrap();
        pair.client.conn.send_raw(&ssh_tests::hand::global("g@ssh-tests.invalid", false));
        pair.drive();
        let request = take!(pair.server, ServerEvent::Channel(_, ChannelEvent::Request(t)) => t);
        let global = take!(pair.server, ServerEvent::Global(t) => t);
        assert!(!request.wants_reply() && !global.wants_reply());
        let sent = pair.s2c.sent.len();
        if dropped {
            drop((request, global));
        } else {
            pair.server.conn.reply_request(request, true).unwrap();
            pair.server.conn.reply_global(global, GlobalReply::Success(b"")).unwrap();
        }
        pair.drive();
        assert_eq!(pair.s2c.sent.len(), sent);
    }
}
