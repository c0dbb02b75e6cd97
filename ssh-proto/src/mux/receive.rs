//! Messages of the peer to channels.
//!
//! A number that no channel of ours ever had ends the connection. One whose channel is gone is the late echo
//! of a close: it is dropped, within the noise budget.

use bytes::Bytes;

use super::channel::{ChannelState, Once, Program, RemoteId, StderrMode};
use super::window::Window;
use super::{Effect, Mux, MuxContext, PendingOpen, slot, usable};
use crate::config::Limits;
use crate::error::PeerMisbehaved;
use crate::event::{ChannelEvent, ChannelId, CoreEvent, Flag, Stream};
use crate::msg::channel::{
    ChannelClose, ChannelData, ChannelEof, ChannelExtendedData, ChannelFailure, ChannelOpen,
    ChannelOpenConfirmation, ChannelOpenFailure, ChannelRequest as WireRequest, ChannelSuccess,
    ChannelWindowAdjust, EXTENDED_DATA_STDERR,
};
use crate::msg::request::{ChannelKind, ChannelRequestKind, OpenFailure, OpenFailureCode, Rules};
use crate::msg::{Message, number};
use crate::role::Side;
use crate::text::PeerText;
use crate::ticket::{ChannelRequest, OpenRequest, Pending};
use crate::transport::MAX_DATA;
use crate::wire::decode::DecodeError;

/// Where a channel number of the peer's message leads.
enum Target<'a> {
    Channel(&'a mut ChannelState),
    /// It was ours, and is gone.
    Gone,
}

impl Mux {
    /// Dispatches a message of 80 to 100.
    pub(crate) fn on_message(
        &mut self,
        cx: &mut MuxContext<'_>,
        payload: &Bytes,
    ) -> Result<Effect, PeerMisbehaved> {
        match payload.first().copied().unwrap_or(0) {
            number::GLOBAL_REQUEST => self.on_global_request(cx, payload),
            number::REQUEST_SUCCESS | number::REQUEST_FAILURE => self.on_global_reply(cx, payload),
            number::CHANNEL_OPEN => self.on_open(cx, payload),
            number::CHANNEL_OPEN_CONFIRMATION => self.on_confirmation(cx, payload),
            number::CHANNEL_OPEN_FAILURE => self.on_open_failure(cx, payload),
            number::CHANNEL_WINDOW_ADJUST => self.on_adjust(cx, payload),
            number::CHANNEL_DATA => {
                let message = decode::<ChannelData<'_>>(payload)?;
                let data = payload.slice_ref(message.data);
                self.on_data(cx, message.recipient, Some(Stream::Data), data)
            }
            number::CHANNEL_EXTENDED_DATA => {
                let message = decode::<ChannelExtendedData<'_>>(payload)?;
                let stream = (message.code == EXTENDED_DATA_STDERR).then_some(Stream::Stderr);
                let data = payload.slice_ref(message.data);
                self.on_data(cx, message.recipient, stream, data)
            }
            number::CHANNEL_EOF => self.on_eof(cx, payload),
            number::CHANNEL_CLOSE => self.on_close(cx, payload),
            number::CHANNEL_REQUEST => self.on_request(cx, payload),
            number::CHANNEL_SUCCESS => {
                let reply = decode::<ChannelSuccess>(payload)?;
                self.on_reply(cx, reply.recipient, true)
            }
            number::CHANNEL_FAILURE => {
                let reply = decode::<ChannelFailure>(payload)?;
                self.on_reply(cx, reply.recipient, false)
            }
            _ => Err(PeerMisbehaved::UnexpectedMessage),
        }
    }

    fn target(&mut self, recipient: u32) -> Result<Target<'_>, PeerMisbehaved> {
        match self.slots.get_mut(recipient as usize) {
            None => Err(PeerMisbehaved::UnknownChannel),
            Some(entry) => Ok(match &mut entry.channel {
                // Behind its own CLOSE a peer has nothing more to say on a channel.
                Some(channel) if !channel.close_in => Target::Channel(channel),
                _ => Target::Gone,
            }),
        }
    }

    /// The channel, which must be confirmed, and the confirmation on its way when it is ours; `None` when it is gone.
    fn open_target(&mut self, recipient: u32) -> Result<Option<&mut ChannelState>, PeerMisbehaved> {
        match self.target(recipient)? {
            Target::Gone => Ok(None),
            Target::Channel(channel) if channel.remote.is_none() || channel.confirm == Once::Wanted => {
                Err(PeerMisbehaved::ChannelNotOpen)
            }
            Target::Channel(channel) => Ok(Some(channel)),
        }
    }

    /// CHANNEL_OPEN: surfaced, or refused at once.
    fn on_open(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let open = decode::<ChannelOpen<'_>>(payload)?;
        let remote = RemoteId(open.sender);
        let kind = match self.judge_open(cx.limits, &open)? {
            Ok(_) if cx.owes_too_much() => {
                let why = OpenFailure::new(OpenFailureCode::RESOURCE_SHORTAGE, "too much is owed");
                cx.owed.push_open_failure(remote, why);
                return Ok(Effect::Useful);
            }
            Ok(kind) => kind,
            Err((code, text)) => {
                cx.owed.push_open_failure(remote, OpenFailure::new(code, text));
                return Ok(Effect::Useful);
            }
        };
        let (pending, ticket) = Pending::new(cx.identity);
        let (window, max_packet) = (open.window, open.max_packet);
        let rules = kind.rules(Side::Server);
        self.opens.push_back(PendingOpen { pending, rules, remote, window, max_packet });
        cx.events.push(CoreEvent::Open(OpenRequest { ticket, kind }));
        self.active = true;
        Ok(Effect::Useful)
    }

    /// What an open is for, or why it is refused without asking. Fields that are cut short or too many end the
    /// connection; fields that say something impossible cost only the channel.
    fn judge_open(
        &self,
        limits: &Limits,
        open: &ChannelOpen<'_>,
    ) -> Result<Result<ChannelKind, (OpenFailureCode, &'static str)>, PeerMisbehaved> {
        let prohibited = OpenFailureCode::ADMINISTRATIVELY_PROHIBITED;
        let asked_for = self
            .acceptable
            .as_ref()
            .is_none_or(|kinds| kinds.iter().any(|kind| kind.as_bytes() == open.kind));
        if !asked_for {
            return Ok(Err((prohibited, "not asked for")));
        }
        if usable(open.max_packet).is_err() {
            return Ok(Err((prohibited, "maximum packet size too small")));
        }
        let (pending, in_use) = (self.opens.len(), self.in_use);
        if pending >= limits.pending_opens || in_use.saturating_add(pending) >= limits.max_channels {
            return Ok(Err((OpenFailureCode::RESOURCE_SHORTAGE, "too many channels")));
        }
        match ChannelKind::decode(open.kind, open.data) {
            Ok(kind) => Ok(Ok(kind)),
            Err(DecodeError::Short | DecodeError::Trailing) => Err(PeerMisbehaved::MalformedMessage),
            Err(_) => Ok(Err((prohibited, "impossible request"))),
        }
    }

    fn on_confirmation(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let confirmation = decode::<ChannelOpenConfirmation<'_>>(payload)?;
        let max_packet = usable(confirmation.max_packet)?;
        let channel = match self.target(confirmation.recipient)? {
            Target::Channel(channel) if channel.is_opening() => channel,
            _ => return Err(PeerMisbehaved::ChannelNotOpening),
        };
        channel.remote = Some(RemoteId(confirmation.sender));
        channel.send = Window::new(confirmation.window);
        channel.max_packet = max_packet;
        let (id, released) = (channel.id, channel.released);
        if !released {
            cx.events.push(CoreEvent::Opened(id));
        }
        if channel.blocked && channel.may_write() {
            self.wait_for_room(id);
        }
        self.outbox.let_go(id);
        self.touch(id);
        self.active = true;
        Ok(Effect::Useful)
    }

    fn on_open_failure(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let failure = decode::<ChannelOpenFailure<'_>>(payload)?;
        let channel = match self.target(failure.recipient)? {
            Target::Channel(channel) if channel.is_opening() => channel,
            _ => return Err(PeerMisbehaved::ChannelNotOpening),
        };
        let (id, released) = (channel.id, channel.released);
        if !released {
            let description = PeerText::new(failure.description);
            let why = OpenFailure { code: OpenFailureCode(failure.code), description };
            cx.events.push(CoreEvent::OpenFailed(id, why));
        }
        self.remove(id);
        Ok(Effect::Useful)
    }

    fn on_adjust(&mut self, _cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let adjust = decode::<ChannelWindowAdjust>(payload)?;
        let Some(channel) = self.open_target(adjust.recipient)? else { return Ok(Effect::Noise) };
        let effect = channel.adjust(adjust.bytes)?;
        let id = channel.id;
        if channel.blocked && channel.may_write() {
            self.wait_for_room(id);
        }
        Ok(effect)
    }

    /// Data of a stream, or of no stream we know.
    fn on_data(
        &mut self,
        cx: &mut MuxContext<'_>,
        recipient: u32,
        stream: Option<Stream>,
        data: Bytes,
    ) -> Result<Effect, PeerMisbehaved> {
        if data.len() > MAX_DATA {
            return Err(PeerMisbehaved::MaxPacketExceeded);
        }
        let any_type = self.any_extended_data;
        let Some(channel) = self.open_target(recipient)? else { return Ok(Effect::Noise) };
        if stream.is_none() && !any_type {
            return Err(PeerMisbehaved::UnknownExtendedData);
        }
        if channel.eof_in {
            return Err(PeerMisbehaved::DataAfterEof);
        }
        channel.recv.receive(data.len())?;
        if data.is_empty() {
            return Ok(Effect::Noise);
        }
        let id = channel.id;
        let [arrived_data, arrived_stderr] = &mut channel.arrived;
        let arrived = match stream {
            Some(Stream::Data) => Some(arrived_data),
            Some(Stream::Stderr) => Some(arrived_stderr),
            None => None,
        };
        if let Some(arrived) = arrived {
            *arrived = arrived.saturating_add(data.len() as u64);
        }
        let unread = match (stream, channel.stderr) {
            (Some(Stream::Data), _) => Some(Stream::Data),
            (Some(Stream::Stderr), StderrMode::Separate) => Some(Stream::Stderr),
            (Some(Stream::Stderr), StderrMode::Combined) => Some(Stream::Data),
            _ => None,
        };
        let closing = channel.closing();
        let unread = unread.filter(|_| !closing);
        match unread {
            Some(stream) => {
                let was_empty = channel.parked(stream).is_empty();
                let Self { slots, borrow, .. } = self;
                if let Some(channel) = slot(slots, id) {
                    channel.parked_mut(stream).push(data, borrow);
                }
                if was_empty {
                    self.raise(id, Flag::readable(stream), cx.events);
                }
            }
            // Discarded data gives its credit back too, or the channel would stall.
            None => {
                let Self { slots, ledger, .. } = self;
                if let Some(channel) = slot(slots, id) {
                    channel.recv.consume(ledger, data.len());
                    if channel.recv.wants_adjust() {
                        self.touch(id);
                    }
                }
            }
        }
        self.active = true;
        // The window bounds what may come to a channel we close.
        Ok(if closing { Effect::Late } else { Effect::Useful })
    }

    fn on_eof(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let eof = decode::<ChannelEof>(payload)?;
        let Some(channel) = self.open_target(eof.recipient)? else { return Ok(Effect::Noise) };
        if channel.closing() {
            // What came before it was dropped, so that it is no event of its own. It is the end of what was received
            // all the same, and the CLOSE behind it may never come.
            let (id, effect) = (channel.id, channel.drop_eof());
            if channel.done && effect == Effect::Late {
                self.raise_ends(cx, id);
            }
            return Ok(effect);
        }
        if channel.eof_in {
            return Err(PeerMisbehaved::DuplicateEof);
        }
        channel.eof_in = true;
        let id = channel.id;
        self.raise_ends(cx, id);
        self.raise(id, Flag::Eof, cx.events);
        Ok(Effect::Useful)
    }

    /// A stream came to its end: whoever waits for data must look.
    fn raise_ends(&mut self, cx: &mut MuxContext<'_>, id: ChannelId) {
        for stream in Stream::BOTH {
            if self.find(id).is_some_and(|channel| channel.parked(stream).is_empty()) {
                self.raise(id, Flag::readable(stream), cx.events);
            }
        }
    }

    fn on_close(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let close = decode::<ChannelClose>(payload)?;
        let Some(channel) = self.open_target(close.recipient)? else { return Ok(Effect::Noise) };
        let had_ended = channel.has_ended();
        channel.close_in = true;
        // The answer to a CLOSE is a CLOSE, at once; what waits for this channel has nowhere to go.
        if channel.close_out == Once::No {
            channel.close_out = Once::Wanted;
        }
        channel.outboxed = 0;
        let (id, released) = (channel.id, channel.released);
        while let Some((_, waiting)) = channel.awaited.give_up() {
            if waiting && !released {
                cx.events.push(CoreEvent::Channel(id, ChannelEvent::Reply(false)));
            }
        }
        let ready = channel.take_ready(cx.limits.pending_requests) && !released;
        if ready {
            cx.events.push(CoreEvent::Ready);
        }
        self.outbox.forget(id);
        if !had_ended {
            self.raise_ends(cx, id);
        }
        self.raise(id, Flag::Closed, cx.events);
        self.touch(id);
        self.collect(id);
        self.active = true;
        Ok(Effect::Useful)
    }

    /// SUCCESS or FAILURE for the oldest request of ours.
    fn on_reply(
        &mut self,
        cx: &mut MuxContext<'_>,
        recipient: u32,
        ok: bool,
    ) -> Result<Effect, PeerMisbehaved> {
        let channel = match self.target(recipient)? {
            Target::Gone => return Ok(Effect::Noise),
            Target::Channel(channel) if channel.remote.is_none() => return Ok(Effect::Noise),
            Target::Channel(channel) => channel,
        };
        let (id, released) = (channel.id, channel.released);
        match channel.awaited.take() {
            None => Ok(Effect::Noise),
            Some(((), waiting)) => {
                let ready = channel.take_ready(cx.limits.pending_requests);
                if waiting && !released {
                    cx.events.push(CoreEvent::Channel(id, ChannelEvent::Reply(ok)));
                    self.active = true;
                }
                if ready && !released {
                    cx.events.push(CoreEvent::Ready);
                }
                self.answer_dropped(cx, id);
                Ok(Effect::Useful)
            }
        }
    }

    /// Answers requests that were dropped before they left, when it is their turn.
    pub(super) fn answer_dropped(&mut self, cx: &mut MuxContext<'_>, id: ChannelId) {
        let lost = self.lost;
        let Some(channel) = self.get(id).filter(|_| !lost) else { return };
        for _ in 0..channel.awaited.take_dropped() {
            cx.events.push(CoreEvent::Channel(id, ChannelEvent::Reply(false)));
        }
        if channel.take_ready(cx.limits.pending_requests) {
            cx.events.push(CoreEvent::Ready);
        }
    }

    /// CHANNEL_REQUEST: surfaced, or answered at once.
    fn on_request(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let request = decode::<WireRequest<'_>>(payload)?;
        let Some(channel) = self.open_target(request.recipient)? else { return Ok(Effect::Noise) };
        let id = channel.id;
        let late = channel.closing().then(|| {
            let env = usize::try_from(cx.limits.env_requests).unwrap_or(usize::MAX);
            channel.drop_request(cx.limits.pending_requests.saturating_add(env))
        });
        let full = request.want_reply && cx.owes_too_much();
        let mut refused = Effect::Useful;
        let kind = match surfaced(channel, &request, cx.limits).filter(|_| !full) {
            // How a program ended is worth knowing to whoever closed on it.
            Some(ChannelRequestKind::Exit(status)) if !channel.released => {
                cx.events.push(CoreEvent::Channel(id, ChannelEvent::Exit(status)));
                self.active = true;
                None
            }
            None if !request.want_reply => {
                // OpenSSH sends all of its environment that its configuration names, in one go.
                let is_surplus = request.name == b"env" && channel.env_requests > cx.limits.env_requests;
                refused = if is_surplus { Effect::Late } else { channel.refuse_quietly() };
                None
            }
            kind => kind,
        };
        if let Some(effect) = late {
            // Our CLOSE is on its way: nobody answers any more.
            return Ok(effect);
        }
        let Some(kind) = kind else {
            if request.want_reply {
                if let Some(channel) = self.find(id) {
                    channel.owed.push_refusal(cx.owed);
                }
                self.touch(id);
            }
            return Ok(refused);
        };
        let Some(channel) = self.find(id) else { return Ok(Effect::Useful) };
        let asked = request.want_reply.then(|| {
            let (pending, ticket) = Pending::new(cx.identity);
            (channel.owed.push_undecided(pending), ticket)
        });
        if kind.starts_program() {
            // Without an answer there is no no.
            channel.program = asked.as_ref().map_or(Program::Running, |(number, _)| Program::Asked(*number));
        }
        let ticket = asked.map(|(_, ticket)| ticket);
        let request = ChannelRequest { ticket, channel: id, kind, after: channel.arrived };
        if request.ticket.is_some() {
            self.asked.insert(id);
        }
        cx.events.push(CoreEvent::Channel(id, ChannelEvent::Request(request)));
        self.active = true;
        Ok(Effect::Useful)
    }
}

/// The request, unless it is one to refuse without asking: malformed, too many, a second program of a session, or
/// against the rules of the channel.
fn surfaced(
    channel: &mut ChannelState,
    request: &WireRequest<'_>,
    limits: &Limits,
) -> Option<ChannelRequestKind> {
    if request.want_reply && channel.owed.waiting() >= limits.pending_requests {
        return None;
    }
    let kind = ChannelRequestKind::decode(request.name, request.data).ok()?;
    if !channel.rules.admit(&kind) {
        return None;
    }
    let allowed = match &kind {
        ChannelRequestKind::Other { name, .. } => name != super::globals::KEEPALIVE,
        // RFC 4254 §6.5: one program per session.
        kind if kind.starts_program() => channel.rules == Rules::Embedder || channel.program == Program::No,
        ChannelRequestKind::Env { .. } if channel.rules != Rules::Embedder => {
            channel.env_requests = channel.env_requests.saturating_add(1);
            channel.env_requests <= limits.env_requests
        }
        _ => true,
    };
    allowed.then_some(kind)
}

fn decode<'a, M: Message<'a>>(payload: &'a [u8]) -> Result<M, PeerMisbehaved> {
    M::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)
}
