//! Sending: flags and waiting messages become packets, when a packet may be sent and there is room.

use super::channel::{Once, RemoteId};
use super::outbox::Waiting;
use super::replies::NextReply;
use super::{Mux, MuxContext, RequestRef};
use crate::event::{ChannelId, CoreEvent, Flag};
use crate::msg::channel::{
    ChannelClose, ChannelEof, ChannelFailure, ChannelOpenConfirmation, ChannelOpenFailure, ChannelSuccess,
    ChannelWindowAdjust,
};
use crate::msg::request::{OpenFailure, OpenFailureCode};
use crate::transport::MAX_DATA;
use crate::transport::outgoing::ServiceSender;

/// So many replies are sent for a channel before it stands in line again and the output's room is looked at.
const REPLIES_AT_ONCE: usize = 64;

impl Mux {
    /// Answers what was dropped with refusals.
    pub(crate) fn sweep(&mut self, cx: &mut MuxContext<'_>) {
        while let Some(at) = self.opens.iter().position(|open| open.pending.is_dropped()) {
            if let Some(open) = self.opens.remove(at) {
                let code = OpenFailureCode::ADMINISTRATIVELY_PROHIBITED;
                cx.owed.push_open_failure(open.remote, OpenFailure::new(code, "open refused"));
            }
        }
        self.globals.sweep(cx);
        // Which of those that were asked something was dropped, only they know.
        let mut asked = core::mem::take(&mut self.asked);
        asked.retain(|&id| {
            let Some(channel) = self.find(id) else { return false };
            let before = channel.owed.undecided();
            channel.owed.sweep(cx.owed);
            let left = channel.owed.undecided();
            if left < before {
                channel.forget_refused_program();
                self.touch(id);
            }
            left > 0
        });
        self.asked = asked;
    }

    /// Sends what may be sent: global replies, flags of channels, the outbox. Then tells writers of the room.
    pub(crate) fn pump(&mut self, cx: &mut MuxContext<'_>) {
        self.globals.pump(cx);
        while !self.control.is_empty() && cx.sender().is_some() {
            let Some(id) = self.control.pop_front() else { break };
            self.render(cx, id);
        }
        self.drain_outbox(cx);
        self.wake_writers(cx);
    }

    /// Sends a channel's flags, in their order: confirmation, adjust, replies; EOF and CLOSE behind its outbox.
    fn render(&mut self, cx: &mut MuxContext<'_>, id: ChannelId) {
        self.confirm(cx, id);
        let Some(channel) = self.find(id) else { return };
        channel.in_control = false;
        let Some(RemoteId(recipient)) = channel.remote else { return };
        if !cx.has_room() {
            return self.touch(id);
        }
        let Some(mut sender) = cx.out.service() else { return self.touch(id) };
        if channel.close_out != Once::Sent {
            if !channel.eof_in
                && !channel.close_in
                && !channel.released
                && let Some(bytes) = channel.recv.adjust()
            {
                sender.send(&ChannelWindowAdjust { recipient, bytes });
            }
            for _ in 0..REPLIES_AT_ONCE {
                match channel.owed.next(cx.owed) {
                    None => break,
                    Some(NextReply::Decided(true)) => sender.send(&ChannelSuccess { recipient }),
                    Some(_) => sender.send(&ChannelFailure { recipient }),
                }
            }
            if channel.owed.is_ready() {
                return self.touch(id);
            }
        }
        if channel.outboxed == 0 {
            self.finish(cx, id);
        }
    }

    /// Sends the confirmation of an accepted open, and lets its writer go on.
    fn confirm(&mut self, cx: &mut MuxContext<'_>, id: ChannelId) {
        let Some(channel) = self.find(id).filter(|channel| channel.confirm == Once::Wanted) else { return };
        let (Some(RemoteId(recipient)), Some(mut sender)) = (channel.remote, cx.sender()) else { return };
        let (window, max_packet) = (channel.recv.initial(), u32::try_from(MAX_DATA).unwrap_or(u32::MAX));
        channel.confirm = Once::Sent;
        sender.send(&ChannelOpenConfirmation { recipient, sender: id.slot, window, max_packet, data: b"" });
        if channel.blocked && channel.may_write() {
            self.wait_for_room(id);
        }
    }

    /// Sends EOF and CLOSE, once nothing of the channel is left to go before them.
    fn finish(&mut self, cx: &mut MuxContext<'_>, id: ChannelId) {
        let Some(channel) = self.find(id) else { return };
        let Some(RemoteId(recipient)) = channel.remote else { return };
        let Some(mut sender) = cx.sender() else { return self.touch(id) };
        if channel.eof_out == Once::Wanted && channel.close_out != Once::Sent {
            channel.eof_out = Once::Sent;
            sender.send(&ChannelEof { recipient });
        }
        if channel.close_out == Once::Wanted {
            channel.close_out = Once::Sent;
            sender.send(&ChannelClose { recipient });
            channel.owed.clear(cx.owed);
        }
        self.collect(id);
    }

    fn drain_outbox(&mut self, cx: &mut MuxContext<'_>) {
        while !self.outbox.is_empty() {
            let Some(mut sender) = cx.sender() else { break };
            let slots = &self.slots;
            let remote = |id: ChannelId| {
                let channel = slots.get(id.slot as usize).and_then(|entry| entry.channel.as_ref());
                let channel = channel.filter(|channel| channel.id == id && channel.confirm == Once::Sent);
                channel.and_then(|channel| channel.remote)
            };
            let ready = |waiting: &Waiting| waiting.channel.is_none_or(|id| remote(id).is_some());
            let Some(mut waiting) = self.outbox.take(ready) else { break };
            if let Some(RemoteId(remote)) = waiting.channel.and_then(remote)
                && let Some(recipient) = waiting.payload.get_mut(1..5)
            {
                recipient.copy_from_slice(&remote.to_be_bytes());
            }
            let sequence = sender.sequence();
            sender.send_with(waiting.payload.len(), |out| out.extend_from_slice(&waiting.payload));
            if let Some(request) = waiting.asks {
                self.sent(request, sequence);
            }
            if let Some(id) = waiting.channel {
                self.unboxed(cx, id);
            }
        }
        if self.outbox.take_ready() {
            cx.events.push(CoreEvent::Ready);
        }
    }

    /// A request that wants a reply leaves: from now on the peer may answer it, and has so long for it.
    fn sent(&mut self, request: RequestRef, sequence: u32) {
        let is_waited_for = match request {
            RequestRef::Open(id) => {
                if let Some(channel) = self.find(id) {
                    channel.asked = true;
                    self.open_deadlines.start(id);
                }
                false
            }
            RequestRef::Channel(id, number) => {
                self.find(id).is_some_and(|channel| channel.awaited.sent(number, sequence).is_some())
            }
            RequestRef::Global(number) => self.globals.sent(number, sequence),
        };
        if is_waited_for {
            self.request_deadlines.start(request);
        }
    }

    /// One message of a channel left the outbox.
    fn unboxed(&mut self, cx: &mut MuxContext<'_>, id: ChannelId) {
        let Some(channel) = self.find(id) else { return };
        channel.outboxed = channel.outboxed.saturating_sub(1);
        if channel.outboxed > 0 {
            return;
        }
        if channel.eof_out == Once::Wanted || channel.close_out == Once::Wanted {
            self.finish(cx, id);
        } else if channel.blocked {
            self.wait_for_room(id);
        }
    }

    /// Puts a channel on the ring of writers.
    pub(super) fn wait_for_room(&mut self, id: ChannelId) {
        if let Some(channel) = self.find(id)
            && !channel.in_writers
        {
            channel.in_writers = true;
            self.writers.push_back(id);
        }
    }

    /// Raises `Writable` for as many waiting channels as the room has quanta since output last went, and for all of
    /// them when nothing is left to be sent. Who is told may have nothing to write any more, and while there is
    /// output the next ones get their turn when some of it is consumed; without, nothing would come by again.
    ///
    /// Who was told counts until then, so that it makes no difference how often there is a look.
    fn wake_writers(&mut self, cx: &mut MuxContext<'_>) {
        if self.writers.is_empty() || cx.data_sender().is_none() {
            return;
        }
        let turns = match cx.out.pending() {
            0 => usize::MAX,
            pending => cx.limits.output.saturating_sub(pending).div_ceil(MAX_DATA),
        };
        while self.told < turns
            && let Some(id) = self.writers.pop_front()
        {
            let Some(channel) = self.find(id) else { continue };
            channel.in_writers = false;
            if channel.blocked && channel.may_write() {
                channel.blocked = false;
                self.told = self.told.saturating_add(1);
                self.raise(id, Flag::Writable, cx.events);
            }
        }
    }
}

/// Sends a refusal of an open.
pub(crate) fn send_open_failure(sender: &mut ServiceSender<'_>, remote: RemoteId, why: &OpenFailure) {
    let (code, description) = (why.code.0, why.description.as_bytes());
    sender.send(&ChannelOpenFailure { recipient: remote.0, code, description, language: b"" });
}
