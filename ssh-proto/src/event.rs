//! What happened, for the embedder, and the queue it waits in.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::error::CloseReason;
use crate::key::PublicKey;
use crate::msg::request::{ExitStatus, OpenFailure};
use crate::text::{Name, PeerText};
use crate::ticket::{
    AuthRequest, ChannelRequest, GlobalRequest, HostKeyCheck, KeyProbe, OpenRequest, SignRequest,
};

/// A channel of this connection. It never names another channel, even after its number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A global request of ours, for matching its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(crate) u64);

/// One of a channel's two streams per direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// SSH_MSG_CHANNEL_DATA.
    Data,
    /// SSH_MSG_CHANNEL_EXTENDED_DATA of type SSH_EXTENDED_DATA_STDERR.
    Stderr,
}

impl Stream {
    pub(crate) const BOTH: [Self; 2] = [Self::Data, Self::Stderr];
}

/// Who was authenticated, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthIdentity {
    /// The user name.
    pub user: Name,
    /// The methods that succeeded, in order.
    pub methods: Vec<&'static str>,
    /// The key whose signature was accepted, if one was.
    pub key: Option<PublicKey>,
}

/// Something happened on a channel.
#[derive(Debug)]
pub enum ChannelEvent {
    /// A stream went from empty to non-empty, or came to its end. Read until `Blocked`.
    Readable(Stream),
    /// A write that was `Blocked` or taken in part may go on, or was made impossible by an end of our own. When more
    /// channels wait than there is room for, they are told in turn, as many each time that output goes as there is
    /// room for.
    Writable,
    /// The peer asks for something. What starts and steers a program is told on a session that the peer opened
    /// (RFC 4254 §6), and is refused on one that we opened and on `direct-tcpip`. On a channel of any other type
    /// ([`ChannelKind::Other`](crate::ChannelKind::Other)) every well-formed request is told, whoever opened it:
    /// what it means there, and how often it may be made, is for the embedder to say. Three are not: how a program
    /// ended is told as [`Exit`](Self::Exit), and a keepalive, or one more that wants an answer than may wait for it
    /// ([`Limits::pending_requests`](crate::Limits::pending_requests), and what
    /// [`Limits::owed_replies`](crate::Limits::owed_replies) allows), is refused at once.
    Request(ChannelRequest),
    /// The oldest unanswered request was answered: by the peer, or with no, when no answer came in time, the channel was
    /// closed, or an abort dropped it.
    Reply(bool),
    /// The peer sends no more data. What came before may still wait to be read.
    Eof,
    /// How the remote program of a session we opened ended. On a channel of a type of its own either side may say
    /// it. It is no question: a peer that wants a reply all the same, against RFC 4254 §6.10, gets a refusal.
    Exit(ExitStatus),
    /// The peer closed the channel, and so do we, if we did not before: in a key exchange our CLOSE still waits for
    /// its end. What came before may still be read until the channel is released.
    Closed,
}

/// What a client is told.
#[derive(Debug)]
pub enum ClientEvent {
    /// Judge the host key.
    HostKey(HostKeyCheck),
    /// Text of the server, before authentication.
    Banner(PeerText),
    /// Sign, for public-key authentication.
    Sign(SignRequest),
    /// The attempt failed, or was not enough.
    AuthFailed {
        /// Methods the server takes next.
        remaining: Vec<String>,
        /// Whether the attempt succeeded and more is needed.
        partial: bool,
    },
    /// Logged in.
    Authenticated,
    /// A channel of ours is open.
    Opened(ChannelId),
    /// A channel of ours was refused; its id is gone.
    OpenFailed(ChannelId, OpenFailure),
    /// The server wants to open a channel.
    Open(OpenRequest),
    /// Something happened on a channel.
    Channel(ChannelId, ChannelEvent),
    /// The server asks for something.
    Global(GlobalRequest),
    /// The server answered a global request: its data, or `None` for a refusal.
    GlobalReply(RequestId, Option<Bytes>),
    /// A request was refused as `Full`; half of the room is free again.
    Ready,
    /// Keys were renewed.
    Rekeyed,
    /// The end. Nothing follows.
    Closed(CloseReason),
}

/// What a server is told.
#[derive(Debug)]
pub enum ServerEvent {
    /// Sign the key exchange with a host key.
    Sign(SignRequest),
    /// Judge whether a key would do.
    Probe(KeyProbe),
    /// Judge an authentication request.
    Auth(AuthRequest),
    /// The client is logged in.
    Authenticated(AuthIdentity),
    /// A channel of ours is open.
    Opened(ChannelId),
    /// A channel of ours was refused; its id is gone.
    OpenFailed(ChannelId, OpenFailure),
    /// The client wants to open a channel.
    Open(OpenRequest),
    /// Something happened on a channel.
    Channel(ChannelId, ChannelEvent),
    /// The client asks for something.
    Global(GlobalRequest),
    /// The client answered a global request: its data, or `None` for a refusal.
    GlobalReply(RequestId, Option<Bytes>),
    /// A request was refused as `Full`; half of the room is free again.
    Ready,
    /// Keys were renewed.
    Rekeyed,
    /// The end. Nothing follows.
    Closed(CloseReason),
}

macro_rules! core_events {
    (client { $($c:ident($ct:ty)),* } server { $($s:ident($st:ty)),* } both { $($b:ident $(($($bt:ty),*))?),* }) => {
        /// The events of both roles, below the façade.
        #[doc(hidden)]
        #[derive(Debug)]
        pub enum CoreEvent {
            AuthFailed { remaining: Vec<String>, partial: bool },
            LoggedIn,
            $($c($ct),)* $($s($st),)* $($b $(($($bt),*))?,)*
        }
    };
}

core_events! {
    client { HostKey(HostKeyCheck), Banner(PeerText) }
    server { Probe(KeyProbe), Auth(AuthRequest), Authenticated(AuthIdentity) }
    both {
        Sign(SignRequest), Opened(ChannelId), OpenFailed(ChannelId, OpenFailure), Open(OpenRequest),
        Channel(ChannelId, ChannelEvent), Global(GlobalRequest), GlobalReply(RequestId, Option<Bytes>), Ready,
        Rekeyed, Closed(CloseReason)
    }
}

/// The events both roles have, under the same names.
macro_rules! shared {
    ($event:expr, $to:ident, { $($pattern:pat => $value:expr,)* }) => {
        Some(match $event {
            $($pattern => $value,)*
            CoreEvent::Sign(ticket) => $to::Sign(ticket),
            CoreEvent::Opened(id) => $to::Opened(id),
            CoreEvent::OpenFailed(id, why) => $to::OpenFailed(id, why),
            CoreEvent::Open(ticket) => $to::Open(ticket),
            CoreEvent::Channel(id, event) => $to::Channel(id, event),
            CoreEvent::Global(ticket) => $to::Global(ticket),
            CoreEvent::GlobalReply(id, reply) => $to::GlobalReply(id, reply),
            CoreEvent::Ready => $to::Ready,
            CoreEvent::Rekeyed => $to::Rekeyed,
            CoreEvent::Closed(reason) => $to::Closed(reason),
            _ => return None,
        })
    };
}

impl CoreEvent {
    pub(crate) fn into_client(self) -> Option<ClientEvent> {
        shared!(self, ClientEvent, {
            Self::HostKey(ticket) => ClientEvent::HostKey(ticket),
            Self::Banner(text) => ClientEvent::Banner(text),
            Self::AuthFailed { remaining, partial } => ClientEvent::AuthFailed { remaining, partial },
            Self::LoggedIn => ClientEvent::Authenticated,
        })
    }

    pub(crate) fn into_server(self) -> Option<ServerEvent> {
        shared!(self, ServerEvent, {
            Self::Probe(ticket) => ServerEvent::Probe(ticket),
            Self::Auth(ticket) => ServerEvent::Auth(ticket),
            Self::Authenticated(identity) => ServerEvent::Authenticated(identity),
        })
    }

    /// The heap a waiting event holds, in bytes, roughly.
    fn weight(&self) -> usize {
        let payload = match self {
            Self::Banner(text) => text.as_bytes().len(),
            Self::AuthFailed { remaining, .. } => {
                remaining.iter().map(|name| name.len().saturating_add(24)).sum()
            }
            Self::Global(request) => request.heap_size(),
            Self::GlobalReply(_, data) => data.as_ref().map_or(0, Bytes::len),
            Self::Open(request) => request.kind.heap_size(),
            Self::OpenFailed(_, why) => why.description.as_bytes().len(),
            Self::Channel(_, ChannelEvent::Request(request)) => request.kind.heap_size(),
            Self::Channel(_, ChannelEvent::Exit(status)) => status.heap_size(),
            Self::Auth(request) => request.user.len(),
            Self::Probe(probe) => probe.heap_size(),
            Self::Sign(request) => request.message.len(),
            Self::HostKey(_)
            | Self::LoggedIn
            | Self::Authenticated(_)
            | Self::Opened(_)
            | Self::Channel(..)
            | Self::Ready
            | Self::Rekeyed
            | Self::Closed(_) => 0,
        };
        payload.saturating_add(64)
    }
}

/// An event of which a channel has at most one waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    Data = 1,
    Stderr = 2,
    Writable = 4,
    Eof = 8,
    Closed = 16,
}

impl Flag {
    pub(crate) fn readable(stream: Stream) -> Self {
        match stream {
            Stream::Data => Self::Data,
            Stream::Stderr => Self::Stderr,
        }
    }

    pub(crate) fn event(self) -> ChannelEvent {
        match self {
            Self::Data => ChannelEvent::Readable(Stream::Data),
            Self::Stderr => ChannelEvent::Readable(Stream::Stderr),
            Self::Writable => ChannelEvent::Writable,
            Self::Eof => ChannelEvent::Eof,
            Self::Closed => ChannelEvent::Closed,
        }
    }
}

/// An entry of the queue.
#[derive(Debug)]
pub(crate) enum Queued {
    Event(CoreEvent),
    /// A flag of a channel, at the place where it was raised first. The channel knows whether it still holds.
    Flag(ChannelId, Flag),
}

impl Queued {
    /// The channel that it is told of for as long as it is not released.
    fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Flag(id, _) | Self::Event(CoreEvent::Channel(id, _) | CoreEvent::Opened(id)) => Some(*id),
            Self::Event(_) => None,
        }
    }
}

/// The waiting events, in the order they happened. The close comes last whatever it is queued behind.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    queue: VecDeque<Queued>,
    events: usize,
    bytes: usize,
    /// How many entries there are of the channel in each slot, up to the last that had any.
    of_slot: Vec<u32>,
    closed: Option<CloseReason>,
    /// `Closed` was returned.
    over: bool,
}

/// The bytes of waiting events beyond which no input is taken.
const MAX_EVENT_BYTES: usize = 64 * 1024;

impl EventQueue {
    pub(crate) fn push(&mut self, event: CoreEvent) {
        self.events = self.events.saturating_add(1);
        self.bytes = self.bytes.saturating_add(event.weight());
        self.append(Queued::Event(event));
    }

    pub(crate) fn push_flag(&mut self, id: ChannelId, flag: Flag) {
        self.append(Queued::Flag(id, flag));
    }

    fn append(&mut self, queued: Queued) {
        if let Some(ChannelId { slot, .. }) = queued.channel() {
            let slot = slot as usize;
            if self.of_slot.len() <= slot {
                self.of_slot.resize(slot.saturating_add(1), 0);
            }
            if let Some(n) = self.of_slot.get_mut(slot) {
                *n = n.saturating_add(1);
            }
        }
        self.queue.push_back(queued);
    }

    /// A channel was released: nothing of it is told any more.
    pub(crate) fn forget(&mut self, id: ChannelId) {
        let Self { queue, events, bytes, of_slot, .. } = self;
        // Mostly all of it was: nobody looks through what there is of others then.
        let Some(n @ 1..) = of_slot.get_mut(id.slot as usize) else { return };
        queue.retain(|queued| {
            if queued.channel() != Some(id) {
                return true;
            }
            if let Queued::Event(event) = queued {
                *events = events.saturating_sub(1);
                *bytes = bytes.saturating_sub(event.weight());
            }
            *n = n.saturating_sub(1);
            false
        });
    }

    /// The last event. The first reason stands.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if self.closed.is_none() && !self.over {
            self.closed = Some(reason);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        if let Some(queued) = self.queue.pop_front() {
            if let Some(id) = queued.channel()
                && let Some(n) = self.of_slot.get_mut(id.slot as usize)
            {
                *n = n.saturating_sub(1);
            }
            if let Queued::Event(event) = &queued {
                self.events = self.events.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(event.weight());
            }
            return Some(queued);
        }
        let reason = self.closed.take()?;
        self.over = true;
        Some(Queued::Event(CoreEvent::Closed(reason)))
    }

    pub(crate) fn is_full(&self, max: usize) -> bool {
        self.events >= max || self.bytes >= MAX_EVENT_BYTES
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_a_channel_that_is_forgotten() {
        let [gone, kept] = [0, 1].map(|slot| ChannelId { slot, generation: 0 });
        let mut events = EventQueue::default();
        for id in [gone, kept] {
            events.push(CoreEvent::Opened(id));
            events.push(CoreEvent::Channel(id, ChannelEvent::Reply(true)));
            events.push_flag(id, Flag::Data);
        }
        events.push(CoreEvent::Ready);
        events.forget(gone);
        assert_eq!((events.queue.len(), events.events, events.bytes), (4, 3, 3 * 64));
        events.forget(kept);
        assert_eq!((events.queue.len(), events.events, events.bytes), (1, 1, 64));
        assert_eq!(events.of_slot, [0, 0]);
    }

    #[test]
    fn what_there_is_of_a_slot_is_counted_whoever_had_it() {
        let [before, after] = [0, 1].map(|generation| ChannelId { slot: 3, generation });
        let mut events = EventQueue::default();
        events.push_flag(before, Flag::Data);
        events.push(CoreEvent::Opened(after));
        assert_eq!(events.of_slot, [0, 0, 0, 2]);
        events.forget(after);
        assert_eq!(events.of_slot, [0, 0, 0, 1]);
        assert!(matches!(events.pop(), Some(Queued::Flag(id, Flag::Data)) if id == before));
        assert_eq!(events.of_slot, [0, 0, 0, 0]);
        events.forget(before);
    }
}
