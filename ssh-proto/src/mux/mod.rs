//! The connection protocol, [RFC 4254]: channels, their flow control, requests and replies.
//!
//! Nothing that only has one value per channel is queued: adjusts, EOF, CLOSE and plain replies are flags and
//! counters, turned into packets when a packet may be sent and there is room. Channels with such work stand
//! in one ring, channels whose writer waits for room in another, channels that the peer asks something on in a set. Who
//! drops a question has that set looked through; no other step of a connection that goes on looks at more channels than
//! it is about.
//!
//! [RFC 4254]: https://www.rfc-editor.org/rfc/rfc4254

pub(crate) mod channel;
mod globals;
pub(crate) mod handle;
pub(crate) mod outbox;
mod parked;
mod receive;
pub(crate) mod replies;
pub(crate) mod send;
pub(crate) mod window;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::channel::{ChannelConfig, ChannelState, Once, Program, RemoteId};
use self::globals::Globals;
use self::outbox::{MAX_PAYLOAD, Outbox, Waiting};
use self::parked::BorrowBudget;
use self::replies::Deadlines;
use self::window::{Ledger, RecvWindow, Window};
use crate::auth::Authenticated;
use crate::config::{AnyConfig, Limits, RekeyPolicy};
use crate::error::{AnswerError, OpenError, PeerMisbehaved, RequestError};
use crate::event::{ChannelEvent, ChannelId, CoreEvent, EventQueue, Flag, Stream};
use crate::msg::Message;
use crate::msg::channel::{ChannelOpen, ChannelRequest};
use crate::msg::request::{ChannelKind, ChannelRequestKind, OpenFailure, OpenFailureCode, Rules};
use crate::owed::OwedQueue;
use crate::role::Side;
use crate::ticket::{Identity, Pending, Ticket};
use crate::time::Instant;
use crate::timer::{TimeoutReason, Timers};
use crate::transport::MAX_DATA;
use crate::transport::outgoing::{Outgoing, ServiceSender};

/// So many times the requests that may wait, unanswered in time, end the connection.
const HOPELESS: usize = 4;

/// The least `maximum packet size` of a peer that is worked with.
const MIN_MAX_PACKET: u32 = 16;

/// What the mux needs of the rest of the connection.
pub(crate) struct MuxContext<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) rekey: &'a RekeyPolicy,
    pub(crate) out: &'a mut Outgoing,
    pub(crate) owed: &'a mut OwedQueue,
    pub(crate) events: &'a mut EventQueue,
    pub(crate) identity: &'a Arc<Identity>,
}

impl MuxContext<'_> {
    fn has_room(&self) -> bool {
        self.out.pending() < self.limits.output
    }

    /// Whether the peer provoked so much that nothing more is asked of the embedder.
    ///
    /// DoS: in an exchange answers cannot leave, and input goes on. Each refusal is the peer's own doing, and so
    /// counts against it; what the embedder decides meanwhile would not.
    fn owes_too_much(&self) -> bool {
        self.owed.held().provoked > self.limits.owed_cap()
    }

    /// Whether so much is owed that no more of what has a long answer is asked.
    ///
    /// DoS: answers that the embedder gave must not stop the input, or two ends that are as busy would wait for each
    /// other. What bounds them is that no more are asked for.
    fn owes_long_answers(&self) -> bool {
        self.owed.held().total() > self.limits.owed_cap()
    }

    /// The way out, when packets may be sent and there is room.
    fn sender(&mut self) -> Option<ServiceSender<'_>> {
        if self.has_room() { self.out.service() } else { None }
    }

    /// The same for data. Of that there may be any amount, and it must not use up a key that is due to be replaced.
    fn data_sender(&mut self) -> Option<ServiceSender<'_>> {
        if self.rekey.is_due(self.out.volume()) { None } else { self.sender() }
    }
}

/// Whether a message had an effect, for the noise budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Useful,
    Noise,
    /// It was on its way to a channel that we closed, or may have been, or is a habit of honest peers: it neither
    /// earns nor costs.
    Late,
}

#[derive(Debug, Default)]
struct SlotEntry {
    generation: u32,
    channel: Option<ChannelState>,
}

/// An open of the peer that waits for the embedder.
#[derive(Debug)]
struct PendingOpen {
    pending: Pending,
    rules: Rules,
    remote: RemoteId,
    window: u32,
    max_packet: u32,
}

/// A request of ours that the peer answers, from when it leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestRef {
    Open(ChannelId),
    Channel(ChannelId, u64),
    Global(u64),
}

#[derive(Debug)]
pub(crate) struct Mux {
    slots: Vec<SlotEntry>,
    free: VecDeque<u32>,
    in_use: usize,
    opens: VecDeque<PendingOpen>,
    /// The types of channel the peer may open; `None` is all.
    acceptable: Option<Vec<String>>,
    /// Extended data of any type is taken; what is no stderr is dropped.
    any_extended_data: bool,
    outbox: Outbox,
    ledger: Ledger,
    borrow: BorrowBudget,
    max_borrowed: usize,
    /// Channels with questions that wait for the embedder.
    asked: BTreeSet<ChannelId>,
    /// Channels with flags to render.
    control: VecDeque<ChannelId>,
    /// Channels whose writer waits for room.
    writers: VecDeque<ChannelId>,
    /// So many of them were told of room since output last went.
    told: usize,
    globals: Globals,
    open_deadlines: Deadlines<ChannelId>,
    request_deadlines: Deadlines<RequestRef>,
    /// The connection is gone.
    lost: bool,
    /// Messages to the embedder or by it happened, for the idle timeout.
    pub(crate) active: bool,
}

impl Mux {
    pub(crate) fn new(config: &AnyConfig, _proof: Authenticated) -> Self {
        let limits = &config.common().limits;
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
            in_use: 0,
            opens: VecDeque::new(),
            acceptable: match config {
                AnyConfig::Client(config) => Some(config.accept_opens.clone()),
                AnyConfig::Server(_) => None,
            },
            any_extended_data: match config {
                AnyConfig::Client(_) => true,
                AnyConfig::Server(config) => config.any_extended_data,
            },
            outbox: Outbox::new(limits.outbox_bytes, limits.outbox_messages),
            ledger: Ledger::new(limits.recv_budget, limits.max_channels, limits.min_window),
            borrow: BorrowBudget::new(limits.max_borrowed),
            max_borrowed: limits.max_borrowed,
            asked: BTreeSet::new(),
            control: VecDeque::new(),
            writers: VecDeque::new(),
            told: 0,
            globals: Globals::default(),
            open_deadlines: Deadlines::new(limits.open_timeout),
            request_deadlines: Deadlines::new(limits.request_timeout),
            lost: false,
            active: false,
        }
    }

    // ----- The slab.

    /// A channel the embedder may still use.
    fn get(&mut self, id: ChannelId) -> Option<&mut ChannelState> {
        self.find(id).filter(|channel| !channel.released)
    }

    /// A channel, released or not.
    fn find(&mut self, id: ChannelId) -> Option<&mut ChannelState> {
        slot(&mut self.slots, id)
    }

    fn insert(&mut self, rules: Rules, config: ChannelConfig, limits: &Limits) -> Option<&mut ChannelState> {
        if self.in_use >= limits.max_channels {
            return None;
        }
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(SlotEntry::default());
                slot
            }
        };
        self.in_use = self.in_use.saturating_add(1);
        let entry = self.slots.get_mut(slot as usize)?;
        let id = ChannelId { slot, generation: entry.generation };
        let recv = RecvWindow::open(&mut self.ledger, config.window as usize, limits.lenient_window);
        Some(entry.channel.insert(ChannelState::new(id, rules, recv, config.stderr)))
    }

    /// Frees a slot. Nothing may name the channel any more, and nothing of it is parked: it was released, or never
    /// open.
    fn remove(&mut self, id: ChannelId) {
        let Some(entry) = self.slots.get_mut(id.slot as usize) else { return };
        if let Some(mut channel) = entry.channel.take() {
            entry.generation = entry.generation.wrapping_add(1);
            channel.recv.close(&mut self.ledger);
            self.outbox.forget(id);
            self.asked.remove(&id);
            self.free.push_back(id.slot);
            self.in_use = self.in_use.saturating_sub(1);
        }
    }

    /// Frees a channel that both sides closed and the embedder released.
    fn collect(&mut self, id: ChannelId) {
        if self.find(id).is_some_and(|channel| channel.released && channel.is_finished()) {
            self.remove(id);
        }
    }

    /// Puts a channel on the ring of those with flags to render.
    fn touch(&mut self, id: ChannelId) {
        if let Some(channel) = self.find(id)
            && !channel.in_control
        {
            channel.in_control = true;
            self.control.push_back(id);
        }
    }

    /// Queues an event of which one per channel is enough.
    fn raise(&mut self, id: ChannelId, flag: Flag, events: &mut EventQueue) {
        if self.find(id).is_some_and(|channel| channel.raise(flag)) {
            events.push_flag(id, flag);
        }
    }

    /// The event behind a queued flag, if it still holds.
    pub(crate) fn take_flag(&mut self, id: ChannelId, flag: Flag) -> Option<ChannelEvent> {
        let channel = self.get(id)?;
        channel.lower(flag).then(|| flag.event())
    }

    // ----- Commands.

    pub(crate) fn open(
        &mut self,
        cx: &mut MuxContext<'_>,
        kind: &ChannelKind,
        config: ChannelConfig,
    ) -> Result<ChannelId, OpenError> {
        let mut data = Vec::new();
        kind.encode_data(&mut data);
        let size = data.len().saturating_add(kind.wire_name().len()).saturating_add(32);
        if size > MAX_PAYLOAD || kind.wire_name().len() > crate::msg::limit::NAME {
            return Err(OpenError::TooLong);
        }
        if !self.outbox.has_room(size) {
            return Err(OpenError::Full);
        }
        let channel = self.insert(kind.rules(Side::Client), config, cx.limits).ok_or(OpenError::TooMany)?;
        let (id, window) = (channel.id, channel.recv.initial());
        let mut payload = Vec::with_capacity(size);
        let max_packet = u32::try_from(MAX_DATA).unwrap_or(u32::MAX);
        let kind = kind.wire_name().as_bytes();
        ChannelOpen { kind, sender: id.slot, window, max_packet, data: &data }.encode(&mut payload);
        self.outbox.push(Waiting { channel: None, asks: Some(RequestRef::Open(id)), held: false, payload });
        self.active = true;
        Ok(id)
    }

    pub(crate) fn accept(
        &mut self,
        cx: &mut MuxContext<'_>,
        ticket: Ticket,
        config: ChannelConfig,
    ) -> Result<ChannelId, AnswerError> {
        let open = self.take_open(&ticket).ok_or(AnswerError::Gone)?;
        ticket.settle();
        self.active = true;
        let Some(channel) = self.insert(open.rules, config, cx.limits) else {
            let code = OpenFailureCode::RESOURCE_SHORTAGE;
            cx.owed.push_open_failure(open.remote, OpenFailure::new(code, "too many channels"));
            return Err(AnswerError::Refused);
        };
        channel.remote = Some(open.remote);
        channel.send = Window::new(open.window);
        channel.max_packet = (open.max_packet as usize).min(MAX_DATA);
        channel.confirm = Once::Wanted;
        let id = channel.id;
        self.touch(id);
        Ok(id)
    }

    pub(crate) fn reject(
        &mut self,
        cx: &mut MuxContext<'_>,
        ticket: Ticket,
        why: OpenFailure,
    ) -> Result<(), AnswerError> {
        let open = self.take_open(&ticket).ok_or(AnswerError::Gone)?;
        ticket.settle();
        cx.owed.push_open_failure(open.remote, why);
        Ok(())
    }

    fn take_open(&mut self, ticket: &Ticket) -> Option<PendingOpen> {
        let at = self.opens.iter().position(|open| open.pending.is(ticket))?;
        self.opens.remove(at)
    }

    pub(crate) fn reply_request(
        &mut self,
        cx: &mut MuxContext<'_>,
        ticket: Ticket,
        id: ChannelId,
        ok: bool,
    ) -> Result<(), AnswerError> {
        let channel = self.find(id).ok_or(AnswerError::Gone)?;
        if !channel.owed.decide(cx.owed, &ticket, ok.then_some(true)) {
            return Err(AnswerError::Gone);
        }
        if let Program::Asked(number) = channel.program
            && ok
            && !channel.owed.is_undecided(number)
        {
            channel.program = Program::Running;
        }
        channel.forget_refused_program();
        if channel.owed.undecided() == 0 {
            self.asked.remove(&id);
        }
        ticket.settle();
        self.touch(id);
        Ok(())
    }

    /// A request on a channel of ours. It may be made before the open is confirmed.
    fn request(
        &mut self,
        cx: &mut MuxContext<'_>,
        id: ChannelId,
        kind: &ChannelRequestKind,
        want_reply: bool,
    ) -> Result<(), RequestError> {
        let mut data = Vec::new();
        kind.encode_data(&mut data);
        if data.len() > MAX_PAYLOAD || kind.wire_name().len() > crate::msg::limit::NAME {
            return Err(RequestError::TooLong);
        }
        if self.lost {
            return Err(RequestError::Closed);
        }
        let size = data.len().saturating_add(kind.wire_name().len()).saturating_add(16);
        let Self { slots, outbox, .. } = self;
        let channel = slot(slots, id).filter(|channel| !channel.released).ok_or(RequestError::Closed)?;
        if channel.closing() || channel.close_in {
            return Err(RequestError::Closed);
        }
        if want_reply && channel.awaited.waiting() >= cx.limits.pending_requests {
            channel.refused = true;
            return Err(RequestError::Full);
        }
        let held = channel.remote.is_none();
        if !(if held { outbox.has_held_room(size) } else { outbox.has_room(size) }) {
            return Err(RequestError::Full);
        }
        let asks = want_reply.then(|| RequestRef::Channel(id, channel.awaited.push(())));
        let mut payload = Vec::with_capacity(size);
        let name = kind.wire_name().as_bytes();
        ChannelRequest { recipient: 0, name, want_reply, data: &data }.encode(&mut payload);
        if let Some(channel) = self.find(id) {
            channel.outboxed = channel.outboxed.saturating_add(1);
        }
        self.outbox.push(Waiting { channel: Some(id), asks, held, payload });
        self.active = true;
        Ok(())
    }

    /// Done with a channel: it closes by itself, late data is dropped, no event follows.
    pub(crate) fn release(&mut self, id: ChannelId) {
        let Some(channel) = self.get(id) else { return };
        channel.released = true;
        // A channel that was closed in order goes on doing so; any other is aborted.
        if !channel.closing() {
            channel.close_out = Once::Wanted;
            channel.outboxed = 0;
            self.outbox.forget(id);
        }
        let lost = self.lost;
        self.drop_parked(id);
        if lost {
            self.remove(id);
        } else {
            self.touch(id);
            self.collect(id);
        }
    }

    /// Nobody answers what the peer asked on a channel any more: it learns from the CLOSE. When the questions
    /// are dropped makes no difference then.
    fn abandon(&mut self, id: ChannelId) {
        if let Some(channel) = self.find(id) {
            channel.owed.abandon();
            self.asked.remove(&id);
        }
    }

    fn drop_parked(&mut self, id: ChannelId) -> usize {
        let Self { slots, borrow, ledger, .. } = self;
        let Some(channel) = slot(slots, id) else { return 0 };
        let mut dropped = 0;
        for stream in Stream::BOTH {
            dropped = channel.parked_mut(stream).consume(usize::MAX, borrow).saturating_add(dropped);
        }
        channel.recv.consume(ledger, dropped);
        dropped
    }

    /// The connection is gone: what was received stays readable, nothing else works.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
        self.outbox.clear();
        self.control.clear();
        self.writers.clear();
        self.opens.clear();
        self.globals.clear();
        let finished: Vec<ChannelId> = self
            .slots
            .iter()
            .filter_map(|entry| entry.channel.as_ref())
            .filter(|channel| channel.released)
            .map(|channel| channel.id)
            .collect();
        finished.into_iter().for_each(|id| self.remove(id));
    }

    /// Output went: there is room for those that wait.
    pub(crate) fn on_room(&mut self) {
        self.told = 0;
    }

    // ----- Deadlines.

    pub(crate) fn arm(&mut self, now: Instant) {
        self.open_deadlines.arm(now);
        self.request_deadlines.arm(now);
    }

    /// Brings the two timers of replies up to date.
    pub(crate) fn sync_timers(&mut self, limits: &Limits, timers: &mut Timers) {
        let Self { slots, globals, open_deadlines, request_deadlines, .. } = self;
        let channel = |id: ChannelId| {
            let channel = slots.get(id.slot as usize).and_then(|entry| entry.channel.as_ref());
            channel.filter(|channel| channel.id == id)
        };
        let opening = |id| channel(id).is_some_and(|channel| channel.remote.is_none());
        let waiting = |request| match request {
            // Those have deadlines of their own.
            RequestRef::Open(_) => false,
            RequestRef::Channel(id, number) => {
                channel(id).is_some_and(|channel| channel.awaited.is_waiting(number))
            }
            RequestRef::Global(number) => globals.is_waiting(number),
        };
        for (reason, after, head) in [
            (TimeoutReason::OpenReply, limits.open_timeout, open_deadlines.head(opening)),
            (TimeoutReason::RequestReply, limits.request_timeout, request_deadlines.head(waiting)),
        ] {
            match head {
                None => timers.stop(reason),
                Some(Some(at)) => timers.set(reason, at),
                Some(None) => timers.start(reason, after),
            }
        }
    }

    /// Gives all opens that wait another full period: it was not the peer that kept us waiting.
    pub(crate) fn excuse_opens(&mut self, now: Instant) {
        self.open_deadlines.restart(now);
    }

    /// Gives all requests that wait another full period.
    pub(crate) fn excuse_requests(&mut self, now: Instant) {
        self.request_deadlines.restart(now);
    }

    /// Fails the opens that are overdue. They still close by themselves when the answer comes.
    pub(crate) fn expire_opens(&mut self, cx: &mut MuxContext<'_>, now: Instant) {
        while let Some(id) = self.open_deadlines.take_due(now) {
            let Some(channel) = self.find(id) else { continue };
            if channel.remote.is_none() && !channel.released {
                let why = OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "no answer in time");
                cx.events.push(CoreEvent::OpenFailed(id, why));
                self.release(id);
            }
        }
    }

    /// Fails the requests that are overdue. The late reply goes by unseen.
    /// True when the peer has left so many unanswered that it is no use to go on.
    pub(crate) fn expire_requests(&mut self, cx: &mut MuxContext<'_>, now: Instant) -> bool {
        let mut hopeless = false;
        while let Some(request) = self.request_deadlines.take_due(now) {
            match request {
                RequestRef::Open(_) => {}
                RequestRef::Channel(id, number) => {
                    let expired = self.find(id).and_then(|channel| channel.awaited.expire(number).copied());
                    if expired.is_some()
                        && let Some(channel) = self.get(id)
                    {
                        hopeless |= channel.awaited.expired() / HOPELESS >= cx.limits.pending_requests;
                        let ready = channel.take_ready(cx.limits.pending_requests);
                        cx.events.push(CoreEvent::Channel(id, ChannelEvent::Reply(false)));
                        if ready {
                            cx.events.push(CoreEvent::Ready);
                        }
                    }
                    self.answer_dropped(cx, id);
                }
                RequestRef::Global(number) => {
                    self.globals.expire(cx, number);
                    hopeless |= self.globals.expired() / HOPELESS >= cx.limits.pending_globals;
                }
            }
        }
        hopeless
    }

    // ----- Figures.

    /// Bytes granted or held over all channels, and what parked data, waiting messages and answers that wait
    /// for the embedder take.
    pub(crate) fn usage(&self) -> (usize, usize, usize, usize) {
        let channels = || self.slots.iter().filter_map(|entry| entry.channel.as_ref());
        let granted = channels().map(|channel| channel.recv.granted()).sum();
        let parked = channels().flat_map(|channel| channel.parked.iter()).map(parked::Parked::len).sum();
        let held = channels().map(|channel| channel.owed.held_bytes()).sum::<usize>();
        (granted, parked, self.outbox.bytes(), held.saturating_add(self.globals.held_bytes()))
    }

    pub(crate) fn channels(&self) -> usize {
        self.in_use
    }

    /// From now on data comes in another buffer of the embedder.
    pub(crate) fn next_input(&mut self) {
        self.borrow.next_input();
    }

    pub(crate) fn borrowed(&self) -> usize {
        self.max_borrowed.saturating_sub(self.borrow.left())
    }
}

/// The channel in a slot, while it is this one. For those who hold another part of the mux at the same time.
fn slot(slots: &mut [SlotEntry], id: ChannelId) -> Option<&mut ChannelState> {
    let channel = slots.get_mut(id.slot as usize)?.channel.as_mut()?;
    (channel.id == id).then_some(channel)
}

/// A peer's maximum packet size that can be worked with.
fn usable(max_packet: u32) -> Result<usize, PeerMisbehaved> {
    if max_packet < MIN_MAX_PACKET {
        return Err(PeerMisbehaved::MaxPacketTooSmall);
    }
    Ok((max_packet as usize).min(MAX_DATA))
}
