//! Global requests, RFC 4254 §4, both ways. Their replies carry no number: order is everything.

use alloc::vec::Vec;

use bytes::Bytes;

use super::replies::{AwaitedReplies, NextReply, OwedReplies, REPLY_COST};
use super::{Effect, MAX_PAYLOAD, Mux, MuxContext, RequestRef, Waiting};
use crate::error::{AnswerError, PeerMisbehaved, RequestError};
use crate::event::{CoreEvent, RequestId};
use crate::msg::channel::{GlobalRequest as Wire, RequestFailure, RequestSuccess};
use crate::msg::request::{GlobalReply, GlobalRequestKind};
use crate::msg::{Message, limit, number};
use crate::ticket::{GlobalRequest, Pending, Ticket};

/// The keepalive OpenSSH sends, and so do we.
pub(crate) const KEEPALIVE: &str = "keepalive@openssh.com";

/// Who asked.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Embedder(RequestId),
    Keepalive,
}

#[derive(Debug, Default)]
pub(crate) struct Globals {
    awaited: AwaitedReplies<Asker>,
    owed: OwedReplies<Bytes>,
    next: u64,
    /// A request was refused because too many were unanswered, and is owed a `Ready`.
    refused: bool,
}

impl Globals {
    pub(crate) fn is_waiting(&self, number: u64) -> bool {
        self.awaited.is_waiting(number)
    }

    pub(crate) fn clear(&mut self) {
        self.awaited = AwaitedReplies::default();
        self.owed.clear();
    }

    /// Refuses the questions that were dropped.
    pub(crate) fn sweep(&mut self, cx: &mut MuxContext<'_>) {
        cx.owed.charge(self.owed.sweep() * REPLY_COST);
    }

    /// How many requests the peer left unanswered in time.
    pub(crate) fn expired(&self) -> usize {
        self.awaited.expired()
    }

    /// Moves the replies whose turn it is to the queue of what is sent.
    pub(crate) fn pump(&mut self, cx: &mut MuxContext<'_>) {
        while self.owed.is_ready() && cx.sender().is_some() {
            let reply = match self.owed.next() {
                Some(NextReply::Decided(data)) => Some(data),
                _ => None,
            };
            cx.owed.forgive(REPLY_COST);
            cx.owed.forgive_chosen(reply.as_ref().map_or(0, Bytes::len));
            cx.owed.push_global(reply);
            cx.owed.pump(cx.out, cx.limits.output);
        }
    }

    /// The deadline of a request passed.
    pub(crate) fn expire(&mut self, cx: &mut MuxContext<'_>, number: u64) {
        if let Some(Asker::Embedder(id)) = self.awaited.expire(number) {
            cx.events.push(CoreEvent::GlobalReply(*id, None));
        }
    }
}

impl Mux {
    /// A global request of ours; a reply is always wanted.
    pub(crate) fn global_request(
        &mut self,
        cx: &mut MuxContext<'_>,
        kind: &GlobalRequestKind,
    ) -> Result<RequestId, RequestError> {
        let id = RequestId(self.globals.next);
        self.send_global(cx, &kind.name, &kind.data, Asker::Embedder(id))?;
        self.globals.next += 1;
        self.active = true;
        Ok(id)
    }

    /// A keepalive. False when nothing was asked: there is no room for it. With as many unanswered requests out
    /// as there may be, one of those is the question; a peer that answers none must not be one that is never
    /// found silent.
    pub(crate) fn keepalive(&mut self, cx: &mut MuxContext<'_>) -> bool {
        self.globals.awaited.waiting() >= cx.limits.pending_globals
            || self.send_global(cx, KEEPALIVE, &[], Asker::Keepalive).is_ok()
    }

    fn send_global(
        &mut self,
        cx: &mut MuxContext<'_>,
        name: &str,
        data: &[u8],
        asker: Asker,
    ) -> Result<(), RequestError> {
        if name.len() > limit::NAME || data.len() + name.len() > MAX_PAYLOAD {
            return Err(RequestError::TooLong);
        }
        let mut payload = Vec::new();
        Wire { name: name.as_bytes(), want_reply: true, data }.encode(&mut payload);
        let many = self.globals.awaited.waiting() >= cx.limits.pending_globals;
        let room = match asker {
            Asker::Embedder(_) => {
                self.globals.refused |= many;
                self.outbox.has_room(payload.len())
            }
            Asker::Keepalive => self.outbox.has_room_for_own(payload.len()),
        };
        if many || !room {
            return Err(RequestError::Full);
        }
        let number = self.globals.awaited.push(asker);
        if let Asker::Embedder(_) = asker {
            self.request_deadlines.start(RequestRef::Global(number));
        }
        self.outbox.push(Waiting { channel: None, payload });
        Ok(())
    }

    /// The embedder's answer to a global request.
    pub(crate) fn reply_global(
        &mut self,
        cx: &mut MuxContext<'_>,
        ticket: Ticket,
        reply: GlobalReply<'_>,
    ) -> Result<(), AnswerError> {
        let (answer, fits) = match reply {
            GlobalReply::Success(data) if data.len() <= MAX_PAYLOAD => {
                (Some(Bytes::copy_from_slice(data)), true)
            }
            GlobalReply::Success(_) => (None, false),
            GlobalReply::Failure => (None, true),
        };
        let cost = answer.as_ref().map_or(0, Bytes::len);
        if !self.globals.owed.decide(&ticket, answer) {
            return Err(AnswerError::Gone);
        }
        // DoS: its data waits for the replies before it and for a peer that may not read.
        cx.owed.charge(REPLY_COST);
        cx.owed.charge_chosen(cost);
        ticket.settle();
        if fits { Ok(()) } else { Err(AnswerError::Refused) }
    }

    pub(super) fn on_global_request(
        &mut self,
        cx: &mut MuxContext<'_>,
        payload: &[u8],
    ) -> Result<Effect, PeerMisbehaved> {
        let request = Wire::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        let name = core::str::from_utf8(request.name).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        // DoS: in an exchange answers cannot leave, and input goes on. What may be chosen as an answer is bounded
        // by asking about nothing more once too much is owed.
        let full = self.globals.owed.undecided() >= cx.limits.pending_global_tickets
            || cx.owed.bytes() > cx.limits.owed_replies;
        if name == KEEPALIVE || full {
            if request.want_reply {
                cx.owed.charge(REPLY_COST);
                self.globals.owed.push_refusal();
            }
            return Ok(Effect::Useful);
        }
        let ticket = request.want_reply.then(|| {
            let (pending, ticket) = Pending::new(cx.identity);
            self.globals.owed.push_undecided(pending);
            ticket
        });
        let kind = GlobalRequestKind { name: name.into(), data: request.data.to_vec() };
        cx.events.push(CoreEvent::Global(GlobalRequest { ticket, kind }));
        self.active = true;
        Ok(Effect::Useful)
    }

    /// REQUEST_SUCCESS or REQUEST_FAILURE. CVE-2026-39830: an unsolicited one is never kept.
    pub(super) fn on_global_reply(
        &mut self,
        cx: &mut MuxContext<'_>,
        payload: &[u8],
    ) -> Result<Effect, PeerMisbehaved> {
        let malformed = |_| PeerMisbehaved::MalformedMessage;
        let data = match payload.first() {
            Some(&number::REQUEST_SUCCESS) => Some(RequestSuccess::decode(payload).map_err(malformed)?.data),
            _ => {
                RequestFailure::decode(payload).map_err(malformed)?;
                None
            }
        };
        let taken = self.globals.awaited.take();
        if self.globals.refused && self.globals.awaited.waiting() <= cx.limits.pending_globals / 2 {
            self.globals.refused = false;
            cx.events.push(CoreEvent::Ready);
        }
        match taken {
            None => Ok(Effect::Noise),
            Some((Asker::Embedder(id), true)) => {
                cx.events.push(CoreEvent::GlobalReply(id, data.map(Bytes::copy_from_slice)));
                self.active = true;
                Ok(Effect::Useful)
            }
            Some(_) => Ok(Effect::Useful),
        }
    }
}
