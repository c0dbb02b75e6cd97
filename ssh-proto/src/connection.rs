//! The façade of the state machine. Its commands and answers are in `commands`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::marker::PhantomData;

use bytes::BytesMut;

use crate::config::Limits;
use crate::entropy::Entropy;
use crate::kex::SessionId;
use crate::kex::negotiate::Negotiated;
use crate::machine::{Core, MemoryUsage};
use crate::role::Role;
use crate::text::PeerText;
use crate::time::Instant;
use crate::timer::TimeoutReason;

/// An SSH-2 connection as a state machine: bytes and time in, events and bytes out.
///
/// There are four kinds of methods. `handle_*` tell it of the world: bytes, the end of bytes, time. `poll_*`,
/// `output` and the `wants_`/`is_`/`awaits_` questions look at it, in any order and as often as you like.
/// Commands make it do something; they carry no time. Answers take a ticket from an event.
///
/// Before waiting for I/O, call [`handle_input`](Self::handle_input) until [`poll_event`](Self::poll_event)
/// gives `None` and nothing was flushed since: answering and flushing may open the way for input that is
/// already there. The drive loop is in the [crate documentation](crate).
pub struct Connection<R: Role> {
    pub(crate) core: Core,
    role: PhantomData<fn() -> R>,
}

impl<R: Role> fmt::Debug for Connection<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl<R: Role> Connection<R> {
    /// A connection that was just made. Its first output is there already.
    pub fn new(config: Arc<R::Config>, entropy: Box<dyn Entropy + Send>, now: Instant) -> Self {
        Self { core: Core::new(R::SIDE, R::wrap(config), entropy, now), role: PhantomData }
    }

    /// Takes the next event. `Closed` is the last one.
    pub fn poll_event(&mut self) -> Option<R::Event> {
        loop {
            // An event of the other role cannot be; skipping it is the safe answer if it were.
            if let Some(event) = R::event(self.core.poll_event()?) {
                return Some(event);
            }
        }
    }
}

impl<R: Role> Connection<R> {
    /// Takes whole packets off the front of `buf`, decrypting them in place. What stays is the start of a
    /// packet, or input that is not wanted yet; it is to be offered again.
    ///
    /// It stops for an incomplete packet, a question that must be answered first, a full event queue, owed
    /// replies over their cap, and the close. After the close it empties `buf`.
    ///
    /// Deadlines that are over at `now` are met before anything is taken, so that no peer can put them off by
    /// sending on. Who makes no call for as long as a deadline lasts loses the answer it was for, be it in `buf`:
    /// work that takes long belongs where it does not keep the connection from being driven. Only input that
    /// events or a question kept back is heard first (see [`TimeoutReason`]).
    pub fn handle_input(&mut self, now: Instant, buf: &mut BytesMut) {
        self.core.handle_input(now, buf);
    }

    /// The transport has ended. The close follows in [`handle_input`](Self::handle_input), once that has taken
    /// the bytes before it.
    pub fn handle_eof(&mut self, now: Instant) {
        self.core.handle_eof(now);
    }

    /// Time has passed. Call it when [`poll_timeout`](Self::poll_timeout) is due; at other times it does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
    }

    /// The bytes to send next.
    pub fn output(&self) -> &[u8] {
        self.core.out.output()
    }

    /// The transport took `n` bytes of the output.
    pub fn consume_output(&mut self, n: usize) {
        self.core.consume_output(n);
    }

    /// Trades the pending output for the empty buffer `spare`, for writing it without holding the connection.
    ///
    /// The bytes count as unsent until [`consume_output`](Self::consume_output), which counts against them first;
    /// meanwhile [`output`](Self::output) shows only newer bytes, and another trade does nothing.
    pub fn swap_output(&mut self, spare: &mut BytesMut) {
        self.core.out.swap(spare);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. A point in the past means at once.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next(self.core.now).map(|(at, _)| at)
    }

    /// What the next deadline is for.
    pub fn timeout_reason(&self) -> Option<TimeoutReason> {
        self.core.timers.next(self.core.now).map(|(_, reason)| reason)
    }

    /// Whether more bytes from the transport are of use now.
    pub fn wants_input(&self) -> bool {
        !self.core.eof && self.core.takes_input()
    }

    /// Whether everything stands still until the embedder answers a ticket.
    pub fn awaits_answer(&self) -> bool {
        self.core.awaits_answer()
    }

    /// How many bytes complete the packet that is being read, at least 1. Its length is not authenticated:
    /// do not reserve by it.
    pub fn input_hint(&self) -> usize {
        self.core.incoming.hint(self.core.leftover)
    }

    /// Whether `Closed` was returned. Output may still wait to be sent; it is dropped when
    /// [`Limits::linger`](crate::Limits::linger) has passed.
    pub fn is_closed(&self) -> bool {
        self.core.events.is_over()
    }

    /// The algorithms of the last key exchange.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.core.kex.negotiated()
    }

    /// The session identifier, once the first key exchange came so far.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.core.kex.session_id()
    }

    /// Our identification line, without CR LF.
    pub fn local_ident(&self) -> String {
        String::from_utf8_lossy(&self.core.our_ident).into_owned()
    }

    /// The peer's identification line, without CR LF, once it is there.
    pub fn peer_ident(&self) -> Option<PeerText> {
        (!self.core.peer_ident.is_empty()).then(|| PeerText::new(&self.core.peer_ident))
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        self.core.limits()
    }

    /// What the connection holds. Not counted is what the embedder holds: its input buffers, and the slices of
    /// them that [`Channel::read`](crate::Channel::read) gave it.
    pub fn memory_usage(&self) -> MemoryUsage {
        self.core.memory_usage()
    }

    /// Bytes of output that [`consume_output`](Self::consume_output) was not told of yet, swapped ones included.
    pub fn unsent(&self) -> usize {
        self.core.out.pending()
    }

    /// The bytes that the output buffer takes, with those behind and before the [`output`](Self::output). At most
    /// half as much again as [`Limits::output`](crate::Limits::output) and a packet; for the moment in which it grows
    /// there are two. What was swapped out is not in it.
    pub fn output_capacity(&self) -> usize {
        self.core.out.capacity()
    }
}
