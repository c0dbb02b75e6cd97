//! Global requests, RFC 4254 §4, both ways. Their replies carry no number: order is everything.

use alloc::vec::Vec;

use bytes::Bytes;

use super::replies::{AwaitedReplies, NextReply, OwedReplies};
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
    /// A keepalive is among the awaited. It has no deadline, so there is never a second one.
    keepalive: bool,
    owed: OwedReplies<Bytes>,
    next: u64,
    /// A request was refused because too many were unanswered, and is owed a `Ready`.
    refused: bool,
}

impl Globals {
    pub(crate) fn is_waiting(&self, number: u64) -> bool {
        self.awaited.is_waiting(number)
    }

    /// A request leaves. Whether somebody has to be told when no answer comes in time.
    pub(crate) fn sent(&mut self, number: u64, sequence: u32) -> bool {
        matches!(self.awaited.sent(number, sequence), Some(Asker::Embedder(_)))
    }

    pub(crate) fn clear(&mut self) {
        self.awaited = AwaitedReplies::default();
        self.keepalive = false;
        self.owed = OwedReplies::default();
    }

    /// Refuses the questions that were dropped.
    pub(crate) fn sweep(&mut self, cx: &mut MuxContext<'_>) {
        self.owed.sweep(cx.owed);
    }

    /// How many requests of the embedder are waited for.
    fn waiting(&self) -> usize {
        self.awaited.waiting().saturating_sub(usize::from(self.keepalive))
    }

    /// How many requests the peer left unanswered in time.
    pub(crate) fn expired(&self) -> usize {
        self.awaited.expired()
    }

    /// What answers that wait for the embedder take, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.owed.held_bytes()
    }

    /// Moves the replies whose turn it is to the queue of what is sent.
    pub(crate) fn pump(&mut self, cx: &mut MuxContext<'_>) {
        while self.owed.is_ready() && cx.sender().is_some() {
            let reply = match self.owed.next(cx.owed) {
                Some(NextReply::Decided(data)) => Some(data),
                _ => None,
            };
            cx.owed.push_global(reply);
            cx.owed.pump(cx.out, cx.limits.output);
        }
    }

    /// The deadline of a request passed.
    pub(crate) fn expire(&mut self, cx: &mut MuxContext<'_>, number: u64) {
        if let Some(Asker::Embedder(id)) = self.awaited.expire(number) {
            cx.events.push(CoreEvent::GlobalReply(*id, None));
            self.tell_ready(cx);
        }
    }

    /// A request of ours was answered or given up: whoever was refused is told once half of them are free.
    fn tell_ready(&mut self, cx: &mut MuxContext<'_>) {
        if self.refused && self.waiting() <= cx.limits.pending_globals / 2 {
            self.refused = false;
            cx.events.push(CoreEvent::Ready);
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
        let GlobalRequestKind { name, data } = kind;
        if name.len() > limit::NAME || data.len().saturating_add(name.len()) > MAX_PAYLOAD {
            return Err(RequestError::TooLong);
        }
        if self.globals.waiting() >= cx.limits.pending_globals {
            self.globals.refused = true;
            return Err(RequestError::Full);
        }
        let payload = question(name.as_str(), data);
        if !self.outbox.has_room(payload.len()) {
            return Err(RequestError::Full);
        }
        let id = RequestId(self.globals.next);
        self.globals.next = self.globals.next.wrapping_add(1);
        self.ask(payload, Asker::Embedder(id));
        self.active = true;
        Ok(id)
    }

    /// Asks whether the peer is there. One that is not answered yet stays the question: a peer that answers
    /// none must neither fill the list nor be one that is never found silent. Nor must it be that when the outbox
    /// is full of what it never lets go, so the one question goes beside the caps.
    pub(crate) fn keepalive(&mut self) {
        if !self.globals.keepalive {
            self.ask(question(KEEPALIVE, &[]), Asker::Keepalive);
            self.globals.keepalive = true;
        }
    }

    fn ask(&mut self, payload: Vec<u8>, asker: Asker) {
        let asks = Some(RequestRef::Global(self.globals.awaited.push(asker)));
        self.outbox.push(Waiting { channel: None, asks, held: false, payload });
    }

    /// UNIMPLEMENTED: the peer knows no global requests, and that is its answer to this one (RFC 4253 §11.4). False
    /// when it is about anything else.
    pub(crate) fn on_unimplemented(&mut self, cx: &mut MuxContext<'_>, sequence: u32) -> bool {
        let taken = self.globals.awaited.take_unimplemented(sequence);
        taken.map(|taken| self.answered(cx, taken, None)).is_some()
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
        if !self.globals.owed.decide(cx.owed, &ticket, answer) {
            return Err(AnswerError::Gone);
        }
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
        // What wants no answer takes a place among the events, and those are bounded.
        let full = request.want_reply
            && (self.globals.owed.waiting() >= cx.limits.pending_global_tickets || cx.owes_long_answers());
        if name == KEEPALIVE || full {
            if !request.want_reply {
                return Ok(Effect::Noise);
            }
            self.globals.owed.push_refusal(cx.owed);
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
        let Some(taken) = self.globals.awaited.take() else { return Ok(Effect::Noise) };
        self.answered(cx, taken, data);
        Ok(Effect::Useful)
    }

    fn answered(&mut self, cx: &mut MuxContext<'_>, (asker, waiting): (Asker, bool), data: Option<&[u8]>) {
        match asker {
            Asker::Keepalive => self.globals.keepalive = false,
            Asker::Embedder(id) if waiting => {
                cx.events.push(CoreEvent::GlobalReply(id, data.map(Bytes::copy_from_slice)));
                self.active = true;
            }
            Asker::Embedder(_) => {}
        }
        self.globals.tell_ready(cx);
    }
}

/// A global request that wants a reply.
fn question(name: &str, data: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    Wire { name: name.as_bytes(), want_reply: true, data }.encode(&mut payload);
    payload
}
