//! Tickets: questions the machine asks its embedder, each answered once.
//!
//! A ticket may cross threads, awaits and human prompts. Answering consumes it; dropping it refuses: the
//! next `handle_*` or `poll_event` of its connection answers with the refusal. A drop wakes nobody.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::error::AnswerError;
use crate::event::{ChannelId, Stream};
use crate::key::{PublicKey, SignPurpose, ToSign};
use crate::msg::request::{ChannelKind, ChannelRequestKind, GlobalRequestKind};
use crate::secret::Secret;
use crate::text::Name;

/// What makes a connection itself: tickets point to it, and count their drops here.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    drops: AtomicUsize,
}

impl Identity {
    /// How many tickets were dropped so far; the pending ones need a look when it has changed.
    pub(crate) fn drops(&self) -> usize {
        self.drops.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Slot {
    home: Arc<Identity>,
}

/// The embedder's half of a question.
#[derive(Debug)]
pub(crate) struct Ticket(Option<Arc<Slot>>);

/// The machine's half of a question.
#[derive(Debug)]
pub(crate) struct Pending(Arc<Slot>);

impl Pending {
    /// A new question of the connection `home`.
    pub(crate) fn new(home: &Arc<Identity>) -> (Self, Ticket) {
        let slot = Arc::new(Slot { home: home.clone() });
        (Self(slot.clone()), Ticket(Some(slot)))
    }

    /// Whether the embedder let go of the question without an answer.
    pub(crate) fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Whether `ticket` is the other half.
    pub(crate) fn is(&self, ticket: &Ticket) -> bool {
        ticket.0.as_ref().is_some_and(|slot| Arc::ptr_eq(slot, &self.0))
    }
}

impl Ticket {
    /// Refuses a ticket of another connection. Dropping it then refuses its question at home.
    pub(crate) fn check_home(&self, home: &Arc<Identity>) -> Result<(), AnswerError> {
        match &self.0 {
            Some(slot) if Arc::ptr_eq(&slot.home, home) => Ok(()),
            _ => Err(AnswerError::Foreign),
        }
    }

    /// The question is answered: nothing is left to refuse.
    pub(crate) fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            let home = slot.home.clone();
            // The slot goes first: who sees the count sees the question abandoned.
            drop(slot);
            home.drops.fetch_add(1, Ordering::Release);
        }
    }
}

/// Is this the host key of the server we meant to reach?
///
/// Answer with `accept_host_key` or `reject_host_key`. Input stands still until then.
///
/// A question is answered once. A second answer, whatever it is, does not compile, nor does a copy of the question:
///
/// ```compile_fail,E0382
/// use ssh_proto::{AnswerError, ClientConnection, HostKeyCheck};
///
/// fn judge(conn: &mut ClientConnection, check: HostKeyCheck) -> Result<(), AnswerError> {
///     conn.reject_host_key(check)?;
///     conn.accept_host_key(check)
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn copy(check: &ssh_proto::HostKeyCheck) -> ssh_proto::HostKeyCheck {
///     ssh_proto::HostKeyCheck::clone(check)
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropping it rejects the host key"]
pub struct HostKeyCheck {
    pub(crate) ticket: Ticket,
    pub(crate) key: PublicKey,
    pub(crate) algorithm: &'static str,
}

impl HostKeyCheck {
    /// The server's key. Its signature over the exchange is already verified.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The negotiated host key algorithm.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }
}

/// A signature by a key whose signer the machine does not have.
///
/// Answer with `provide_signature`.
#[must_use = "dropping it refuses the signature"]
pub struct SignRequest {
    pub(crate) ticket: Ticket,
    pub(crate) key: PublicKey,
    pub(crate) algorithm: &'static str,
    pub(crate) user: Option<String>,
    pub(crate) message: Vec<u8>,
}

impl SignRequest {
    /// What is to be signed, as a [`Signer`](crate::Signer) takes it.
    pub fn to_sign(&self) -> ToSign<'_> {
        ToSign {
            purpose: match &self.user {
                Some(user) => SignPurpose::UserAuth { user },
                None => SignPurpose::HostKey,
            },
            key: &self.key,
            algorithm: self.algorithm,
            message: &self.message,
        }
    }
}

impl fmt::Debug for SignRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignRequest").field("to_sign", &self.to_sign().purpose).finish_non_exhaustive()
    }
}

/// Would a signature by this key be acceptable? (`publickey` without signature, RFC 4252 §7.)
///
/// Answer with `reply_probe`. A yes grants nothing: the decision that counts is that of the [`AuthRequest`].
#[derive(Debug)]
#[must_use = "dropping it answers no"]
pub struct KeyProbe {
    pub(crate) ticket: Ticket,
    pub(crate) user: Name,
    pub(crate) key: PublicKey,
    pub(crate) algorithm: &'static str,
}

impl KeyProbe {
    /// The user name of the request.
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// The key offered.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The signature algorithm offered.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// What the client chose the length of, in bytes.
    pub(crate) fn heap_size(&self) -> usize {
        self.user.len().saturating_add(self.key.as_blob().len())
    }
}

/// What an [`AuthRequest`] brings as proof.
#[derive(Debug)]
#[non_exhaustive]
pub enum AuthProof {
    /// `none`: nothing.
    None,
    /// A password, to be checked against a salted hash of the right one. Where the right one itself is at hand,
    /// compare with [`Secret::matches`], whose time does not tell how much is right.
    Password(Secret<str>),
    /// A change of password: the old and the new one.
    PasswordChange {
        /// The old password.
        old: Secret<str>,
        /// The new password.
        new: Secret<str>,
    },
    /// A signature by this key over this very request, already verified.
    PublicKey {
        /// The key that signed.
        key: PublicKey,
        /// The algorithm it signed with.
        algorithm: &'static str,
    },
}

/// May this user in? Answer with `reply_auth`. Input stands still until then.
#[derive(Debug)]
#[must_use = "dropping it rejects the request"]
pub struct AuthRequest {
    pub(crate) ticket: Ticket,
    pub(crate) user: Name,
    pub(crate) proof: AuthProof,
}

impl AuthRequest {
    /// The user name of the request.
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// The proof.
    pub fn proof(&self) -> &AuthProof {
        &self.proof
    }
}

/// The peer wants to open a channel. Answer with `accept_channel` or `reject_channel`.
#[derive(Debug)]
#[must_use = "dropping it refuses the channel"]
pub struct OpenRequest {
    pub(crate) ticket: Ticket,
    pub(crate) kind: ChannelKind,
}

impl OpenRequest {
    /// What the channel is for.
    pub fn kind(&self) -> &ChannelKind {
        &self.kind
    }
}

/// A request on a channel. Answer with `reply_request`; answers are sent in the order of the requests.
#[derive(Debug)]
#[must_use = "dropping it answers FAILURE, when an answer is wanted"]
pub struct ChannelRequest {
    pub(crate) ticket: Option<Ticket>,
    pub(crate) channel: ChannelId,
    pub(crate) kind: ChannelRequestKind,
    pub(crate) after: [u64; 2],
}

impl ChannelRequest {
    /// The channel it arrived on.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The request and its fields.
    pub fn kind(&self) -> &ChannelRequestKind {
        &self.kind
    }

    /// Whether the peer wants an answer.
    pub fn wants_reply(&self) -> bool {
        self.ticket.is_some()
    }

    /// How many bytes of `stream` the peer had sent before it.
    pub fn after(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Data => self.after[0],
            Stream::Stderr => self.after[1],
        }
    }
}

/// A request to the connection as a whole. Answer with `reply_global`; answers are sent in the order of
/// the requests.
#[derive(Debug)]
#[must_use = "dropping it answers FAILURE, when an answer is wanted"]
pub struct GlobalRequest {
    pub(crate) ticket: Option<Ticket>,
    pub(crate) kind: GlobalRequestKind,
}

impl GlobalRequest {
    /// The request and its fields.
    pub fn kind(&self) -> &GlobalRequestKind {
        &self.kind
    }

    /// Whether the peer wants an answer.
    pub fn wants_reply(&self) -> bool {
        self.ticket.is_some()
    }

    /// What the peer chose the length of, in bytes.
    pub(crate) fn heap_size(&self) -> usize {
        self.kind.name.len().saturating_add(self.kind.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_ticket_is_seen_by_its_home_and_a_settled_one_is_not() {
        let home = Arc::new(Identity::default());
        let (first, dropped) = Pending::new(&home);
        let (second, settled) = Pending::new(&home);
        assert!(first.is(&dropped) && !first.is(&settled));
        settled.settle();
        assert_eq!(home.drops(), 0);
        std::thread::spawn(move || drop(dropped)).join().unwrap();
        assert_eq!(home.drops(), 1);
        assert!(first.is_dropped());
        drop(second);
    }

    #[test]
    fn a_foreign_ticket_is_refused_and_then_counts_as_dropped_at_home() {
        let (home, other) = (Arc::new(Identity::default()), Arc::new(Identity::default()));
        let (pending, ticket) = Pending::new(&home);
        assert_eq!(ticket.check_home(&other), Err(AnswerError::Foreign));
        drop(ticket);
        assert!(pending.is_dropped());
        assert_eq!((home.drops(), other.drops()), (1, 0));
    }
}
