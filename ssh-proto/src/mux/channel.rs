//! One channel's state.
//!
//! ```text
//! Opening ── CONFIRMATION ──▶ Open ── EOF, CLOSE out and in, in any order ──▶ freed once released
//!    └────── OPEN_FAILURE ──▶ freed
//! ```

use super::Effect;
use super::parked::Parked;
use super::replies::{AwaitedReplies, OwedReplies};
use super::window::{RecvWindow, Window};
use crate::error::PeerMisbehaved;
use crate::event::{ChannelId, Flag, Stream};
use crate::msg::request::Rules;

/// The peer's number for a channel. Ours is the slot in [`ChannelId`]; the two are never mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoteId(pub(crate) u32);

/// How a channel's stderr is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StderrMode {
    /// As its own stream. It shares the window with the data, so both must be read.
    #[default]
    Separate,
    /// In the data stream, in the order of arrival.
    Combined,
    /// Dropped on arrival, its window given back at once.
    Discard,
}

/// What a channel starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelConfig {
    /// The largest receive window, in bytes. How much of it is granted follows the budget of the connection.
    pub window: u32,
    /// How stderr is delivered.
    pub stderr: StderrMode,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self { window: 2 << 20, stderr: StderrMode::Separate }
    }
}

impl ChannelConfig {
    /// Sets how stderr is delivered.
    #[must_use]
    pub fn with_stderr(mut self, stderr: StderrMode) -> Self {
        self.stderr = stderr;
        self
    }

    /// Sets the largest receive window, in bytes.
    #[must_use]
    pub fn with_window(mut self, window: u32) -> Self {
        self.window = window;
        self
    }
}

/// Where something that is sent once stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Once {
    No,
    Wanted,
    Sent,
}

/// Whether the session's one shell, exec or subsystem runs (RFC 4254 §6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    No,
    /// The question of this number asks for it.
    Asked(u64),
    Running,
}

#[derive(Debug)]
pub(crate) struct ChannelState {
    pub(crate) id: ChannelId,
    /// What the peer may ask for.
    pub(crate) rules: Rules,
    /// `None` while our open is unanswered.
    pub(crate) remote: Option<RemoteId>,

    pub(crate) send: Window,
    pub(crate) max_packet: usize,
    /// The confirmation of the peer's open; nothing precedes it.
    pub(crate) confirm: Once,
    pub(crate) eof_out: Once,
    pub(crate) close_out: Once,
    /// A write was refused or taken in part, and is owed a `Writable`.
    pub(crate) blocked: bool,

    pub(crate) recv: RecvWindow,
    pub(crate) parked: [Parked; 2],
    pub(crate) stderr: StderrMode,
    /// Bytes that arrived, per stream.
    pub(crate) arrived: [u64; 2],
    pub(crate) eof_in: bool,
    pub(crate) close_in: bool,
    /// We closed it first and in order, so that what the peer answers is an end and no reset.
    pub(crate) done: bool,
    /// Data of a stream, as in `parked`, was dropped unread: whatever ended it, what was read of it is not all.
    pub(crate) cut: [bool; 2],
    /// The peer's EOF and requests behind our CLOSE.
    late_eof: bool,
    late_requests: usize,
    /// Requests of the peer that wanted no answer, and were refused.
    quiet_refusals: u32,

    /// Our requests.
    pub(crate) awaited: AwaitedReplies<()>,
    /// Our open of it left.
    pub(crate) asked: bool,
    /// A request was refused because too many were unanswered, and is owed a `Ready`.
    pub(crate) refused: bool,
    /// The peer's requests; the answer is yes or no, and whether it starts the program.
    pub(crate) owed: OwedReplies<bool>,
    /// Messages of ours in the outbox.
    pub(crate) outboxed: usize,
    pub(crate) program: Program,
    pub(crate) env_requests: u32,

    pub(crate) in_control: bool,
    pub(crate) in_writers: bool,
    flags: u8,
    /// The embedder is done with it.
    pub(crate) released: bool,
}

/// So many requests per channel that have no effect are no noise yet.
const QUIET_REFUSALS: u32 = 8;

impl ChannelState {
    pub(crate) fn new(id: ChannelId, rules: Rules, recv: RecvWindow, stderr: StderrMode) -> Self {
        Self {
            id,
            rules,
            remote: None,
            send: Window::new(0),
            max_packet: 0,
            confirm: Once::Sent,
            eof_out: Once::No,
            close_out: Once::No,
            blocked: false,
            recv,
            parked: Default::default(),
            stderr,
            arrived: [0; 2],
            eof_in: false,
            close_in: false,
            done: false,
            cut: [false; 2],
            late_eof: false,
            late_requests: 0,
            quiet_refusals: 0,
            awaited: AwaitedReplies::default(),
            asked: false,
            refused: false,
            owed: OwedReplies::default(),
            outboxed: 0,
            program: Program::No,
            env_requests: 0,
            in_control: false,
            in_writers: false,
            flags: 0,
            released: false,
        }
    }

    pub(crate) fn parked(&self, stream: Stream) -> &Parked {
        let [data, stderr] = &self.parked;
        match stream {
            Stream::Data => data,
            Stream::Stderr => stderr,
        }
    }

    pub(crate) fn parked_mut(&mut self, stream: Stream) -> &mut Parked {
        let [data, stderr] = &mut self.parked;
        match stream {
            Stream::Data => data,
            Stream::Stderr => stderr,
        }
    }

    /// Whether data of a stream was dropped unread.
    pub(crate) fn is_cut(&self, stream: Stream) -> bool {
        let [data, stderr] = self.cut;
        match stream {
            Stream::Data => data,
            Stream::Stderr => stderr,
        }
    }

    /// Whether the peer was asked for it, and has not answered.
    pub(crate) fn is_opening(&self) -> bool {
        self.asked && self.remote.is_none()
    }

    /// Whether our CLOSE went out or will.
    pub(crate) fn closing(&self) -> bool {
        self.close_out != Once::No
    }

    /// Whether the peer ended its data: by EOF, or by any end of a channel that we closed in order.
    pub(crate) fn has_ended(&self) -> bool {
        self.eof_in || self.done && (self.late_eof || self.close_in)
    }

    /// The peer's EOF to a channel we close. A first one may have been on its way.
    pub(crate) fn drop_eof(&mut self) -> Effect {
        let again = self.eof_in || core::mem::replace(&mut self.late_eof, true);
        if again { Effect::Noise } else { Effect::Late }
    }

    /// A request of the peer to a channel we close. So many as a peer may make before it has answers may have
    /// been on their way, and a whole environment, which wants none.
    pub(crate) fn drop_request(&mut self, max: usize) -> Effect {
        self.late_requests = self.late_requests.saturating_add(1);
        if self.late_requests > max { Effect::Noise } else { Effect::Late }
    }

    /// A request that is refused, and wants no answer. Peers have habits (`eow@openssh.com` when a reader is gone,
    /// `simple@putty.projects.tartarus.org`), a few for each channel, and channels may be many.
    pub(crate) fn refuse_quietly(&mut self) -> Effect {
        self.quiet_refusals = self.quiet_refusals.saturating_add(1);
        if self.quiet_refusals > QUIET_REFUSALS { Effect::Noise } else { Effect::Late }
    }

    /// An adjust of the peer. Once we close the channel it can only give back what was sent before.
    pub(crate) fn adjust(&mut self, bytes: u32) -> Result<Effect, PeerMisbehaved> {
        let given_back = bytes <= self.send.outstanding();
        self.send.grow(bytes)?;
        Ok(match self.closing() {
            _ if bytes == 0 => Effect::Noise,
            false => Effect::Useful,
            true if given_back => Effect::Late,
            true => Effect::Noise,
        })
    }

    /// The embedder said no to the program, or nothing: the next one may be asked for.
    pub(crate) fn forget_refused_program(&mut self) {
        if let Program::Asked(number) = self.program
            && !self.owed.is_undecided(number)
        {
            self.program = Program::No;
        }
    }

    /// A request of ours was answered or given up. Whether somebody who was refused is to be told that half of
    /// `max` may be made again.
    pub(crate) fn take_ready(&mut self, max: usize) -> bool {
        let ready = self.refused && self.awaited.waiting() <= max / 2;
        self.refused &= !ready;
        ready
    }

    /// Whether both CLOSEs went by and nothing of the channel is on its way.
    pub(crate) fn is_finished(&self) -> bool {
        self.close_in && self.close_out == Once::Sent
    }

    /// Sets an event flag; false when it was set already or nobody listens any more.
    pub(crate) fn raise(&mut self, flag: Flag) -> bool {
        let fresh = self.flags & flag as u8 == 0 && !self.released;
        if fresh {
            self.flags |= flag as u8;
        }
        fresh
    }

    /// Clears an event flag; false when it was not set.
    pub(crate) fn lower(&mut self, flag: Flag) -> bool {
        let set = self.flags & flag as u8 != 0;
        self.flags &= !(flag as u8);
        set
    }

    /// Whether a write could be accepted, but for the room in the output.
    pub(crate) fn may_write(&self) -> bool {
        self.remote.is_some()
            && self.confirm == Once::Sent
            && self.outboxed == 0
            && self.send.available() > 0
            && self.eof_out == Once::No
            && !self.closing()
    }
}
