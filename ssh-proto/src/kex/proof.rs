//! What must have happened before keys are taken into use.

/// The server's signature over the exchange hash was verified.
#[derive(Debug)]
pub(crate) struct SignatureVerified(pub(super) ());

/// The host key was accepted by the embedder, or is the one accepted before.
#[derive(Debug)]
pub(crate) struct HostKeyAccepted(pub(super) ());

/// The server's signed reply was sent.
#[derive(Debug)]
pub(crate) struct ReplySigned(pub(super) ());

/// The right to take new keys into use. Only the key exchange can make one: the fields above are its own.
#[derive(Debug)]
pub(crate) enum KexProof {
    Client(SignatureVerified, HostKeyAccepted),
    Server(ReplySigned),
}
