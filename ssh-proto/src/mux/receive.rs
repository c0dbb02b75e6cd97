//! Messages of the peer to channels.
//!
//! A number that no channel of ours ever had ends the connection. One whose channel is gone is the late echo
//! of a close: it is dropped, within the noise budget.

use bytes::Bytes;

use super::channel::{ChannelState, Once, RemoteId, Stderr};
use super::replies::REPLY_COST;
use super::window::Window;
use super::{Effect, Mux, MuxContext, PendingOpen, usable};
use crate::error::PeerMisbehaved;
use crate::event::{ChannelEvent, CoreEvent, Flag, Stream};
use crate::msg::channel::{
    ChannelClose, ChannelData, ChannelEof, ChannelExtendedData, ChannelFailure, ChannelOpen,
    ChannelOpenConfirmation, ChannelOpenFailure, ChannelRequest as WireRequest, ChannelSuccess,
    ChannelWindowAdjust, EXTENDED_DATA_STDERR,
};
use crate::msg::request::{ChannelKind, ChannelRequestKind, OpenFailure, OpenFailureCode};
use crate::msg::{Message, number};
use crate::text::PeerText;
use crate::ticket::{ChannelRequest, OpenRequest, Pending};
use crate::transport::MAX_DATA;

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

    /// The channel, which must be confirmed; `None` when it is gone.
    fn open_target(&mut self, recipient: u32) -> Result<Option<&mut ChannelState>, PeerMisbehaved> {
        match self.target(recipient)? {
            Target::Gone => Ok(None),
            Target::Channel(channel) if channel.remote.is_none() => Err(PeerMisbehaved::ChannelNotOpen),
            Target::Channel(channel) => Ok(Some(channel)),
        }
    }

    /// CHANNEL_OPEN: surfaced, or refused at once.
    fn on_open(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let open = decode::<ChannelOpen<'_>>(payload)?;
        let remote = RemoteId(open.sender);
        let refusal =
            if self.acceptable.as_ref().is_some_and(|kinds| !kinds.iter().any(|k| k.as_bytes() == open.kind))
            {
                Some((OpenFailureCode::ADMINISTRATIVELY_PROHIBITED, "not asked for"))
            } else if usable(open.max_packet).is_err() {
                Some((OpenFailureCode::ADMINISTRATIVELY_PROHIBITED, "maximum packet size too small"))
            } else if self.opens.len() >= cx.limits.pending_opens
                || self.in_use + self.opens.len() >= cx.limits.max_channels
            {
                Some((OpenFailureCode::RESOURCE_SHORTAGE, "too many channels"))
            } else {
                None
            };
        if let Some((code, text)) = refusal {
            cx.owed.push_open_failure(remote, OpenFailure::new(code, text));
            return Ok(Effect::Useful);
        }
        let kind = ChannelKind::decode(open.kind, open.data).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        let (pending, ticket) = Pending::new(cx.identity);
        let (window, max_packet) = (open.window, open.max_packet);
        self.opens.push_back(PendingOpen { pending, remote, window, max_packet });
        cx.events.push(CoreEvent::Open(OpenRequest { ticket, kind }));
        self.active = true;
        Ok(Effect::Useful)
    }

    fn on_confirmation(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let confirmation = decode::<ChannelOpenConfirmation<'_>>(payload)?;
        let max_packet = usable(confirmation.max_packet)?;
        let channel = match self.target(confirmation.recipient)? {
            Target::Channel(channel) if channel.remote.is_none() => channel,
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
        self.touch(id);
        self.active = true;
        Ok(Effect::Useful)
    }

    fn on_open_failure(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let failure = decode::<ChannelOpenFailure<'_>>(payload)?;
        let channel = match self.target(failure.recipient)? {
            Target::Channel(channel) if channel.remote.is_none() => channel,
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
        channel.send.grow(adjust.bytes)?;
        let id = channel.id;
        if channel.blocked && channel.may_write() {
            self.wait_for_room(id);
        }
        Ok(if adjust.bytes == 0 { Effect::Noise } else { Effect::Useful })
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
        let Some(channel) = self.open_target(recipient)? else { return Ok(Effect::Noise) };
        if channel.eof_in {
            return Err(PeerMisbehaved::DataAfterEof);
        }
        channel.recv.receive(data.len())?;
        if data.is_empty() {
            return Ok(Effect::Noise);
        }
        let id = channel.id;
        let [arrived_data, arrived_stderr] = &mut channel.arrived;
        match stream {
            Some(Stream::Data) => *arrived_data += data.len() as u64,
            Some(Stream::Stderr) => *arrived_stderr += data.len() as u64,
            None => {}
        }
        let unread = match (stream, channel.stderr) {
            (Some(Stream::Data), _) => Some(Stream::Data),
            (Some(Stream::Stderr), Stderr::Separate) => Some(Stream::Stderr),
            (Some(Stream::Stderr), Stderr::Combined) => Some(Stream::Data),
            _ => None,
        };
        let unread = unread.filter(|_| !channel.released && !channel.closing());
        match unread {
            Some(stream) => {
                let was_empty = channel.parked(stream).is_empty();
                let Self { slots, borrow, .. } = self;
                let entry = slots.get_mut(id.slot as usize).and_then(|entry| entry.channel.as_mut());
                if let Some(channel) = entry {
                    channel.parked_mut(stream).push(data, borrow);
                }
                if was_empty {
                    self.raise(id, Flag::readable(stream), cx.events);
                }
            }
            // Discarded data gives its credit back too, or the channel would stall.
            None => {
                let Self { slots, ledger, .. } = self;
                let entry = slots.get_mut(id.slot as usize).and_then(|entry| entry.channel.as_mut());
                if let Some(channel) = entry {
                    channel.recv.consume(ledger, data.len());
                    if channel.recv.wants_adjust() {
                        self.touch(id);
                    }
                }
            }
        }
        self.active = true;
        Ok(Effect::Useful)
    }

    fn on_eof(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let eof = decode::<ChannelEof>(payload)?;
        let Some(channel) = self.open_target(eof.recipient)? else { return Ok(Effect::Noise) };
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
    fn raise_ends(&mut self, cx: &mut MuxContext<'_>, id: crate::event::ChannelId) {
        for stream in Stream::BOTH {
            if self.find(id).is_some_and(|channel| channel.parked(stream).is_empty()) {
                self.raise(id, Flag::readable(stream), cx.events);
            }
        }
    }

    fn on_close(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let close = decode::<ChannelClose>(payload)?;
        let Some(channel) = self.open_target(close.recipient)? else { return Ok(Effect::Noise) };
        channel.close_in = true;
        // The answer to a CLOSE is a CLOSE, at once; what waits for this channel has nowhere to go.
        if channel.close_out == Once::No {
            channel.close_out = Once::Wanted;
        }
        channel.outboxed = 0;
        let (id, had_eof, released) = (channel.id, channel.eof_in, channel.released);
        while let Some((_, waiting)) = channel.awaited.take() {
            if waiting && !released {
                cx.events.push(CoreEvent::Channel(id, ChannelEvent::Reply(false)));
            }
        }
        self.outbox.forget(id);
        if !had_eof {
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
                let ready = channel.refused && channel.awaited.len() <= cx.limits.pending_requests / 2;
                channel.refused &= !ready;
                if waiting && !released {
                    cx.events.push(CoreEvent::Channel(id, ChannelEvent::Reply(ok)));
                    self.active = true;
                }
                if ready && !released {
                    cx.events.push(CoreEvent::Ready);
                }
                Ok(Effect::Useful)
            }
        }
    }

    /// CHANNEL_REQUEST: surfaced, or answered at once.
    fn on_request(&mut self, cx: &mut MuxContext<'_>, payload: &[u8]) -> Result<Effect, PeerMisbehaved> {
        let request = decode::<WireRequest<'_>>(payload)?;
        let Some(channel) = self.open_target(request.recipient)? else { return Ok(Effect::Noise) };
        let id = channel.id;
        if channel.closing() || channel.released {
            // Our CLOSE is on its way: nobody answers any more.
            return Ok(Effect::Useful);
        }
        let kind = ChannelRequestKind::decode(request.name, request.data);
        let refuse = match &kind {
            Err(_) => true,
            Ok(ChannelRequestKind::Other { name, .. }) if name == super::globals::KEEPALIVE => true,
            // RFC 4254 §6.5: one program per session.
            Ok(kind) if kind.starts_program() => core::mem::replace(&mut channel.program, true),
            Ok(ChannelRequestKind::Env { .. }) => {
                channel.env_requests += 1;
                channel.env_requests > cx.limits.env_requests
            }
            Ok(_) => false,
        };
        let refuse = refuse || channel.owed.undecided() >= cx.limits.pending_requests;
        if request.want_reply {
            cx.owed.charge(REPLY_COST);
        }
        let kind = match kind {
            Ok(kind) if !refuse => kind,
            result => {
                // A program that was never surfaced is not running either.
                if result.is_ok_and(|kind| kind.starts_program())
                    && channel.owed.undecided() >= cx.limits.pending_requests
                {
                    channel.program = false;
                }
                if request.want_reply {
                    channel.owed.push_refusal();
                    self.touch(id);
                }
                return Ok(Effect::Useful);
            }
        };
        if let ChannelRequestKind::Exit(status) = kind {
            if request.want_reply {
                channel.owed.push_refusal();
            }
            cx.events.push(CoreEvent::Channel(id, ChannelEvent::Exit(status)));
            self.touch(id);
            self.active = true;
            return Ok(Effect::Useful);
        }
        let ticket = request.want_reply.then(|| {
            let (pending, ticket) = Pending::new(cx.identity);
            channel.owed.push_undecided(pending);
            ticket
        });
        let request = ChannelRequest { ticket, channel: id, kind, after: channel.arrived };
        cx.events.push(CoreEvent::Channel(id, ChannelEvent::Request(request)));
        self.active = true;
        Ok(Effect::Useful)
    }
}

fn decode<'a, M: Message<'a>>(payload: &'a [u8]) -> Result<M, PeerMisbehaved> {
    M::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)
}
