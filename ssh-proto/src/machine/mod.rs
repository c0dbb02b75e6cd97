//! The core: it wires transport, key exchange, authentication and mux together, for either role.

mod dispatch;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::BytesMut;

use self::dispatch::RekeyHistory;
use crate::auth::client::ClientAuth;
use crate::auth::server::ServerAuth;
use crate::auth::{Auth, AuthContext};
use crate::config::{AnyConfig, Limits};
use crate::entropy::Entropy;
use crate::error::{CloseReason, Disconnect};
use crate::event::{CoreEvent, EventQueue, Queued};
use crate::kex::{Kex, KexContext, SessionId};
use crate::msg::gate::State;
use crate::mux::{Mux, MuxContext};
use crate::owed::OwedQueue;
use crate::role::Side;
use crate::ticket::Identity;
use crate::time::Instant;
use crate::timer::{Taken, TimeoutReason, Timers};
use crate::transport::incoming::Incoming;
use crate::transport::noise::NoiseBudget;
use crate::transport::outgoing::Outgoing;
use crate::transport::{MAX_PACKET_PRE_AUTH, Volume};
use crate::wire::ident::IdentReader;

/// How much a connection holds, in bytes if nothing else is said. The fields do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// Sealed output, swapped bytes included.
    pub output: usize,
    /// Received channel data waiting to be read.
    pub parked: usize,
    /// Receive window granted and not used, which the peer may fill at any time.
    pub granted: usize,
    /// Messages waiting in the outbox.
    pub outbox: usize,
    /// Replies owed to the peer, those that wait for the embedder included.
    pub owed: usize,
    /// Waiting events.
    pub events: usize,
    /// Channels in use; a number, not bytes.
    pub channels: usize,
    /// Input buffers that data not read yet keeps alive, at most, as [`Limits::max_borrowed`](crate::Limits::max_borrowed)
    /// counts them; a number, not bytes.
    pub borrowed: usize,
}

pub(crate) enum Stage {
    Ident(IdentReader),
    Packets,
    Closed,
}

/// A connection, of either role.
pub(crate) struct Core {
    pub(crate) side: Side,
    pub(crate) config: AnyConfig,
    pub(crate) identity: Arc<Identity>,
    drops_seen: usize,
    pub(crate) stage: Stage,
    pub(crate) our_ident: Vec<u8>,
    pub(crate) peer_ident: Vec<u8>,
    pub(crate) incoming: Incoming,
    pub(crate) out: Outgoing,
    pub(crate) kex: Kex,
    pub(crate) auth: Auth,
    /// Exists from the moment authentication is complete.
    pub(crate) mux: Option<Mux>,
    pub(crate) owed: OwedQueue,
    pub(crate) events: EventQueue,
    pub(crate) timers: Timers,
    pub(crate) noise: NoiseBudget,
    pub(crate) now: Instant,
    /// The next packet is the first behind the first NEWKEYS.
    pub(crate) first_packet: bool,
    pub(crate) pre_auth: Volume,
    pub(crate) rekeys: RekeyHistory,
    pub(crate) rekey_wanted: bool,
    /// The transport ended.
    pub(crate) eof: bool,
    /// The last `handle_input` stopped because bytes were missing.
    starved: bool,
    /// The embedder held input since the last `handle_input` that was free to take all of it.
    unheard: bool,
    /// Bytes the last `handle_input` left behind.
    pub(crate) leftover: usize,
    /// The address in its buffer at which that begins, or may.
    input_at: Option<usize>,
    last_input: Instant,
    last_active: Instant,
    keepalive_misses: u32,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("side", &self.side).field("state", &self.gate_state()).finish()
    }
}

impl Core {
    pub(crate) fn new(side: Side, config: AnyConfig, entropy: Box<dyn Entropy + Send>, now: Instant) -> Self {
        let common = config.common();
        let hard_limit = common.hard_bytes();
        let limits = &common.limits;
        let mut core = Self {
            side,
            identity: Arc::new(Identity::default()),
            drops_seen: 0,
            stage: Stage::Ident(IdentReader::new(side)),
            our_ident: common.ident.as_bytes().to_vec(),
            peer_ident: Vec::new(),
            incoming: Incoming::new(MAX_PACKET_PRE_AUTH),
            out: Outgoing::new(entropy, hard_limit, limits.output),
            kex: Kex::new(side),
            auth: match &config {
                AnyConfig::Client(_) => Auth::Client(ClientAuth::new()),
                AnyConfig::Server(config) => Auth::Server(ServerAuth::new(config.methods)),
            },
            mux: None,
            owed: OwedQueue::default(),
            events: EventQueue::default(),
            timers: Timers::default(),
            noise: NoiseBudget::new(limits.noise_burst, limits.unimplemented_replies, now),
            now,
            first_packet: false,
            pre_auth: Volume::default(),
            rekeys: RekeyHistory::default(),
            rekey_wanted: false,
            eof: false,
            starved: true,
            unheard: false,
            leftover: 0,
            input_at: None,
            last_input: now,
            last_active: now,
            keepalive_misses: 0,
            config,
        };
        core.start();
        core
    }

    /// Says who we are. A server sends its KEXINIT at once, and so does a client that guesses; any other waits for the
    /// peer's identification, which costs no round trip.
    fn start(&mut self) {
        self.out.raw(&self.our_ident);
        self.out.raw(b"\r\n");
        self.timers.set(TimeoutReason::Ident, self.now.saturating_add(self.limits().ident_timeout));
        if self.side == Side::Server {
            self.timers.set(TimeoutReason::Login, self.now.saturating_add(self.limits().login_timeout));
        }
        if (self.side == Side::Server || self.config.common().guess_kex)
            && let Err(reason) = self.kex.start(self.config.common(), &mut self.out)
        {
            self.close_with(reason);
        }
        self.check_faults();
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.common().limits
    }

    // ----- Borrowing parts of the connection at once.

    pub(crate) fn kex_parts(&mut self) -> (&mut Kex, KexContext<'_>) {
        let idents = match self.side {
            Side::Client => (&self.our_ident[..], &self.peer_ident[..]),
            Side::Server => (&self.peer_ident[..], &self.our_ident[..]),
        };
        let cx = KexContext {
            config: &self.config,
            out: &mut self.out,
            events: &mut self.events,
            identity: &self.identity,
            idents,
        };
        (&mut self.kex, cx)
    }

    pub(crate) fn auth_parts(&mut self) -> (&mut Auth, AuthContext<'_>) {
        let cx = AuthContext {
            common: self.config.common(),
            out: &mut self.out,
            events: &mut self.events,
            timers: &mut self.timers,
            identity: &self.identity,
            session_id: self.kex.session_id().map(SessionId::as_bytes).unwrap_or_default(),
            now: self.now,
        };
        (&mut self.auth, cx)
    }

    pub(crate) fn mux_parts(&mut self) -> Option<(&mut Mux, MuxContext<'_>)> {
        let cx = MuxContext {
            limits: &self.config.common().limits,
            rekey: &self.config.common().rekey,
            out: &mut self.out,
            owed: &mut self.owed,
            events: &mut self.events,
            identity: &self.identity,
        };
        self.mux.as_mut().map(|mux| (mux, cx))
    }

    // ----- State.

    /// Where the connection stands, for the gate.
    pub(crate) fn gate_state(&self) -> State {
        if self.is_closing() {
            return State::Closing;
        }
        self.kex.gate_state().unwrap_or_else(|| match self.auth.gate_state() {
            State::Service if self.first_packet => State::ServiceFirst,
            state => state,
        })
    }

    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// Whether a gating ticket is with the embedder.
    pub(crate) fn awaits_answer(&self) -> bool {
        let auth = matches!(&self.auth, Auth::Server(auth) if auth.awaits_answer());
        !self.is_closing() && (self.kex.awaits_answer() || auth)
    }

    /// Whether packets may be taken from the input.
    pub(crate) fn takes_input(&self) -> bool {
        let limits = self.limits();
        !self.is_closing()
            && !self.embedder_holds()
            && self.auth.gate_state() != State::AuthDecisionPending
            && (self.owed.held().provoked <= limits.owed_cap() || self.exchange_holds_replies())
    }

    /// Whether the embedder keeps input from being taken: by a question about the key exchange that it has not
    /// answered, or by events that it has not polled. What is owed to a peer that does not read is none of it.
    fn embedder_holds(&self) -> bool {
        self.kex.awaits_answer() || self.events.is_full(self.limits().events)
    }

    /// Whether a re-exchange keeps replies from leaving. They must not keep its messages from being read; what
    /// they cost meanwhile is bounded by an end of the connection.
    pub(crate) fn exchange_holds_replies(&self) -> bool {
        self.mux.is_some() && !self.out.may_serve()
    }

    /// How many bytes of output may still be added by channels now.
    pub(crate) fn output_room(&self) -> usize {
        match self.out.may_serve() {
            true => self.limits().output.saturating_sub(self.out.pending()),
            false => 0,
        }
    }

    // ----- The world in.

    /// What every `handle_*` does first: the time moves on, and what is due is done.
    fn begin(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if let Some(mux) = &mut self.mux {
            mux.arm(self.now);
        }
        self.mark_active();
        // First: the refusal of a dropped question may be due at once.
        self.sweep();
        self.timers.arm(self.now);
        // Each at most once: at the end of the clock one that is set again is due again.
        let mut taken = Taken::default();
        while let Some(reason) = self.timers.take_due(self.now, &mut taken) {
            self.on_timer(reason);
        }
    }

    /// What every `handle_*` does last.
    fn end(&mut self) {
        self.pump();
        self.mark_active();
        // What left just now has its time from now on.
        if let Some(mux) = &mut self.mux {
            mux.arm(self.now);
        }
        self.timers.arm(self.now);
        self.unheard |= self.embedder_holds();
    }

    /// Channel traffic since the last look happened now: that of input at the end of its call, that of commands
    /// at the next.
    fn mark_active(&mut self) {
        if self.mux.as_mut().is_some_and(|mux| core::mem::take(&mut mux.active)) {
            self.last_active = self.now;
        }
    }

    pub(crate) fn handle_input(&mut self, now: Instant, buf: &mut BytesMut) {
        self.begin(now);
        self.starved = false;
        // It goes on where the last call stopped: in the same buffer, if anything of that is kept, as no other can be there.
        let goes_on = self.input_at == Some(buf.as_ptr().addr());
        if !goes_on && let Some(mux) = &mut self.mux {
            mux.next_input();
        }
        while self.takes_input() {
            match self.read_one(buf) {
                Ok(true) => {
                    self.last_input = self.now;
                    self.keepalive_misses = 0;
                    // Output depends on the packets alone, not on how they were split over calls.
                    self.pump();
                }
                Ok(false) => {
                    self.starved = true;
                    break;
                }
                Err(reason) => self.close_with(reason),
            }
        }
        self.unheard = false;
        self.finish_eof();
        self.end();
        if self.is_closing() {
            buf.clear();
        }
        self.leftover = buf.len();
        // Behind the end of a buffer another one may begin.
        self.input_at = (buf.capacity() > 0).then(|| buf.as_ptr().addr());
    }

    pub(crate) fn handle_eof(&mut self, now: Instant) {
        self.begin(now);
        self.eof = true;
        self.end();
    }

    /// The transport's end counts once everything before it was taken.
    fn finish_eof(&mut self) {
        if self.eof && self.starved {
            self.close_with(CloseReason::Eof);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.begin(now);
        self.out.shrink();
        self.end();
    }

    fn on_timer(&mut self, reason: TimeoutReason) {
        let limits = self.limits().clone();
        let now = self.now;
        if self.mux.is_some() && (self.unheard || self.embedder_holds()) {
            // What the peer owes may be there already, unread; also when the embedder, back from elsewhere, has
            // just made room and nothing was taken since. Before authentication nothing is excused: these
            // deadlines protect a server then.
            match (reason, &mut self.mux) {
                (TimeoutReason::Kex, _) => {
                    return self.timers.set(reason, now.saturating_add(limits.rekey_timeout));
                }
                (TimeoutReason::OpenReply, Some(mux)) => return mux.excuse_opens(now),
                (TimeoutReason::RequestReply, Some(mux)) => return mux.excuse_requests(now),
                _ => {}
            }
        }
        match reason {
            TimeoutReason::Ident | TimeoutReason::Kex | TimeoutReason::Login => {
                self.close_with(CloseReason::TimedOut(reason));
            }
            TimeoutReason::AuthDelay => {
                if let (Auth::Server(auth), mut cx) = self.auth_parts()
                    && let Err(reason) = auth.on_delay(&mut cx)
                {
                    self.close_with(reason);
                }
            }
            TimeoutReason::OpenReply => {
                if let Some((mux, mut cx)) = self.mux_parts() {
                    mux.expire_opens(&mut cx, now);
                }
            }
            TimeoutReason::RequestReply => {
                if let Some((mux, mut cx)) = self.mux_parts()
                    && mux.expire_requests(&mut cx, now)
                {
                    self.close_with(CloseReason::TimedOut(reason));
                }
            }
            TimeoutReason::WriteStall => {
                if self.out.pending() > 0 {
                    match self.out.take_progress() {
                        true => self.timers.set(reason, now.saturating_add(limits.write_stall)),
                        false => self.close_with(CloseReason::TimedOut(reason)),
                    }
                }
            }
            TimeoutReason::Keepalive => {
                let Some(interval) = limits.keepalive_interval else { return };
                let silent_until = self.last_input.saturating_add(interval);
                if silent_until > now {
                    return self.timers.set(reason, silent_until);
                }
                self.timers.set(reason, now.saturating_add(interval));
                if self.unheard || !self.takes_input() {
                    // It is we who do not listen: an answer may be there already.
                    self.keepalive_misses = 0;
                    return;
                }
                if self.keepalive_misses >= limits.keepalive_misses {
                    return self.close_with(CloseReason::TimedOut(reason));
                }
                if let Some(mux) = &mut self.mux {
                    mux.keepalive();
                    self.keepalive_misses = self.keepalive_misses.saturating_add(1);
                }
            }
            TimeoutReason::Idle => {
                let Some(idle) = limits.idle_timeout else { return };
                let idle_until = self.last_active.saturating_add(idle);
                match idle_until > now {
                    true => self.timers.set(reason, idle_until),
                    false => self.close_with(CloseReason::TimedOut(reason)),
                }
            }
            TimeoutReason::Rekey => self.rekey_wanted = true,
            TimeoutReason::Linger => self.out.clear(),
        }
    }

    // ----- The world out.

    /// Answers dropped tickets with refusals.
    pub(crate) fn sweep(&mut self) {
        let drops = self.identity.drops();
        if drops == self.drops_seen || self.is_closing() {
            return;
        }
        self.drops_seen = drops;
        if let Some(reason) = self.kex.dropped_answer() {
            return self.close_with(reason);
        }
        match self.auth_parts() {
            (Auth::Client(auth), mut cx) => auth.sweep(&mut cx),
            (Auth::Server(auth), mut cx) => auth.sweep(&mut cx),
        }
        if let Some((mux, mut cx)) = self.mux_parts() {
            mux.sweep(&mut cx);
        }
        self.pump();
    }

    pub(crate) fn poll_event(&mut self) -> Option<CoreEvent> {
        self.sweep();
        loop {
            match self.events.pop()? {
                Queued::Event(event) => return Some(event),
                Queued::Flag(id, flag) => {
                    // Also behind a loss: what came before it is told before it.
                    if let Some(event) = self.mux.as_mut().and_then(|mux| mux.take_flag(id, flag)) {
                        return Some(CoreEvent::Channel(id, event));
                    }
                }
            }
        }
    }

    /// Sends whatever may be sent now. Cheap when there is nothing.
    pub(crate) fn pump(&mut self) {
        if self.is_closing() {
            return;
        }
        self.start_due_rekey();
        let room = self.limits().output;
        self.owed.pump(&mut self.out, room);
        if let Some((mux, mut cx)) = self.mux_parts() {
            mux.pump(&mut cx);
        }
        // Also when it was this that made one due. To wait for the next call would let the output depend on how
        // often there is one, and that is on how the input is cut.
        self.start_due_rekey();
        if self.is_closing() {
            // There was no entropy for it; what follows would start the timers again.
            return;
        }
        if let Some(mux) = &mut self.mux {
            mux.sync_timers(&self.config.common().limits, &mut self.timers);
        }
        if self.out.pending() > 0 && !self.timers.is_running(TimeoutReason::WriteStall) {
            self.timers.start(TimeoutReason::WriteStall, Some(self.limits().write_stall));
        }
        self.check_faults();
    }

    /// A send that failed ends the connection here, not where it happened.
    fn check_faults(&mut self) {
        use crate::transport::outgoing::SendFault;
        match self.out.fault() {
            Some(SendFault::Entropy) => self.close_with(CloseReason::Entropy),
            Some(SendFault::KeyExhausted) => self.close_with(CloseReason::KeyExhausted),
            Some(SendFault::Interrupted) => {
                self.close_with(CloseReason::Internal("a packet could not be sealed"));
            }
            None => {}
        }
    }

    pub(crate) fn consume_output(&mut self, n: usize) {
        self.out.consume(n);
        if let Some(mux) = self.mux.as_mut().filter(|_| n > 0) {
            mux.on_room();
        }
        self.pump();
    }

    /// The end: a DISCONNECT where one is due, then nothing but what was received.
    pub(crate) fn close_with(&mut self, reason: CloseReason) {
        if self.is_closing() {
            return;
        }
        if let Some(Disconnect { code, description }) = reason.disconnect() {
            self.send_disconnect(code, &description);
        }
        self.stage = Stage::Closed;
        self.events.close(reason);
        self.owed.clear();
        if let Some(mux) = &mut self.mux {
            mux.lose();
        }
        // Keys and credentials are not needed any more; dropping them wipes them.
        self.incoming = Incoming::new(MAX_PACKET_PRE_AUTH);
        self.out.retire();
        self.kex.retire();
        if let Auth::Client(auth) = &mut self.auth {
            auth.retire();
        }
        self.timers.stop_all();
        self.timers.start(TimeoutReason::Linger, Some(self.limits().linger));
    }

    pub(crate) fn memory_usage(&self) -> MemoryUsage {
        let (granted, parked, outbox, held) = self.mux.as_ref().map(Mux::usage).unwrap_or_default();
        MemoryUsage {
            output: self.out.pending(),
            parked,
            granted: granted.saturating_sub(parked),
            outbox,
            owed: self.owed.held().total().saturating_add(held),
            events: self.events.bytes(),
            channels: self.mux.as_ref().map_or(0, Mux::channels),
            borrowed: self.mux.as_ref().map_or(0, Mux::borrowed),
        }
    }
}
