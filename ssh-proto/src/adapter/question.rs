//! A client's questions, as a server's adapter hands them out.

use core::fmt;
use core::ops::Deref;

use super::Error;
use crate::auth::server::AuthVerdict;
use crate::connection::Connection;
use crate::error::AnswerError;
use crate::event::{AuthIdentity, ChannelEvent, ChannelId, ServerEvent};
use crate::key::{SignRefused, Signature};
use crate::msg::request::{GlobalReply, OpenFailure};
use crate::mux::channel::ChannelConfig;
use crate::role::Server;
use crate::ticket::{AuthRequest, ChannelRequest, GlobalRequest, KeyProbe, OpenRequest, SignRequest};

/// A way back to the connection that asked, which its adapter gives along with a question.
pub trait Answering: Clone {
    /// The adapter's channel.
    type Channel;

    /// Uses the connection, and has what comes of it sent.
    ///
    /// # Errors
    /// Those of `answer`, and [`AnswerError::Gone`] for a connection that is in no state to be used.
    fn answer<T>(
        &self,
        answer: impl FnOnce(&mut Connection<Server>) -> Result<T, AnswerError>,
    ) -> Result<T, AnswerError>;

    /// Opens the channel.
    ///
    /// # Errors
    /// As [`Connection::accept_channel`].
    fn accept(&self, request: OpenRequest, config: ChannelConfig) -> Result<Self::Channel, AnswerError>;

    /// Has the connection see that a question was dropped. That may be in a panic: this must not be another one, whatever
    /// becomes of the connection.
    fn dropped(&self);
}

/// A question of a client. It may be answered from anywhere, at any time; dropping it refuses.
#[must_use = "dropping it refuses"]
pub struct Question<T, A: Answering> {
    // Dropped in this order: first the ticket, then word of it.
    ticket: T,
    back: Notify<A>,
}

/// Lets the machine see that a ticket was dropped.
struct Notify<A: Answering>(A);

impl<A: Answering> Drop for Notify<A> {
    fn drop(&mut self) {
        self.0.dropped();
    }
}

impl<T, A: Answering> Question<T, A> {
    fn new(ticket: T, back: &A) -> Self {
        Self { ticket, back: Notify(back.clone()) }
    }

    fn answer<U>(
        self,
        answer: impl FnOnce(&mut Connection<Server>, T) -> Result<U, AnswerError>,
    ) -> Result<U, Error> {
        let Self { ticket, back } = self;
        Ok(back.0.answer(|conn| answer(conn, ticket))?)
    }
}

impl<T, A: Answering> Deref for Question<T, A> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.ticket
    }
}

impl<T: fmt::Debug, A: Answering> fmt::Debug for Question<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Question").field(&self.ticket).finish()
    }
}

impl<A: Answering> Question<SignRequest, A> {
    /// Gives the signature, or refuses to.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, signature: Result<Signature, SignRefused>) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.provide_signature(ticket, signature))
    }
}

impl<A: Answering> Question<KeyProbe, A> {
    /// Says whether a signature by this key would do.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, acceptable: bool) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_probe(ticket, acceptable))
    }
}

impl<A: Answering> Question<AuthRequest, A> {
    /// Decides.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, verdict: AuthVerdict) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_auth(ticket, verdict))
    }
}

impl<A: Answering> Question<OpenRequest, A> {
    /// Opens the channel.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn accept(self, config: ChannelConfig) -> Result<A::Channel, Error> {
        let Self { ticket, back } = self;
        Ok(back.0.accept(ticket, config)?)
    }

    /// Refuses it.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reject(self, why: OpenFailure) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reject_channel(ticket, why))
    }
}

impl<A: Answering> Question<ChannelRequest, A> {
    /// Grants or refuses it. For a request that wants no answer it does nothing.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, ok: bool) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_request(ticket, ok))
    }
}

impl<A: Answering> Question<GlobalRequest, A> {
    /// Answers it. For a request that wants no answer it does nothing.
    ///
    /// # Errors
    /// [`Error::Answer`].
    pub fn reply(self, reply: GlobalReply<'_>) -> Result<(), Error> {
        self.answer(|conn, ticket| conn.reply_global(ticket, reply))
    }
}

/// What whoever serves a client gets to decide, and to know. What is dropped is refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Asked<A: Answering> {
    /// Sign a key exchange with a host key whose [`KeyPair`](crate::KeyPair) has no signer.
    Sign(Question<SignRequest, A>),
    /// Would a signature by this key do?
    Probe(Question<KeyProbe, A>),
    /// May this user in?
    Auth(Question<AuthRequest, A>),
    /// The client is logged in.
    Authenticated(AuthIdentity),
    /// May the client open this channel? Keep what [`Question::accept`] gives: dropped, it closes.
    Open(Question<OpenRequest, A>),
    /// A request on a channel.
    Request(Question<ChannelRequest, A>),
    /// The client closed this channel. As long as a handle on it is left it takes the place of another; what
    /// came before can still be read from it.
    ChannelClosed(ChannelId),
    /// A request to the connection as a whole.
    Global(Question<GlobalRequest, A>),
}

impl<A: Answering> Asked<A> {
    /// Makes an event into what is asked by it; `None` when nothing is.
    pub fn new(event: ServerEvent, back: &A) -> Option<Self> {
        Some(match event {
            ServerEvent::Sign(ticket) => Self::Sign(Question::new(ticket, back)),
            ServerEvent::Probe(ticket) => Self::Probe(Question::new(ticket, back)),
            ServerEvent::Auth(ticket) => Self::Auth(Question::new(ticket, back)),
            ServerEvent::Authenticated(who) => Self::Authenticated(who),
            ServerEvent::Open(ticket) => Self::Open(Question::new(ticket, back)),
            ServerEvent::Channel(_, ChannelEvent::Request(ticket)) => {
                Self::Request(Question::new(ticket, back))
            }
            ServerEvent::Channel(id, ChannelEvent::Closed) => Self::ChannelClosed(id),
            ServerEvent::Global(ticket) => Self::Global(Question::new(ticket, back)),
            _ => return None,
        })
    }
}
