//! One exchange: its hash, its signature, its keys.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::negotiate::Choice;
use super::proof::SignatureVerified;
use crate::crypto::{Digest, SharedSecret, SignatureAlgorithm};
use crate::error::PeerMisbehaved;
use crate::key::{PublicKey, SignPurpose, Signature, ToSign};
use crate::msg::auth::split_signature;
use crate::role::Side;
use crate::transport::keys::{KeySource, NewKeys, encode_secret};
use crate::wire::PutSsh;

/// Both KEXINITs are known.
pub(crate) struct Agreed {
    pub(crate) choice: Choice,
    /// The whole KEXINIT payloads, number included: the hash covers them.
    pub(crate) client_init: Vec<u8>,
    pub(crate) server_init: Vec<u8>,
}

impl Agreed {
    /// Computes the exchange hash (RFC 4253 §8, RFC 5656 §4).
    pub(crate) fn finish(
        self,
        (client_ident, server_ident): (&[u8], &[u8]),
        host_key: &PublicKey,
        client_share: &[u8],
        server_share: &[u8],
        secret: &SharedSecret,
    ) -> Finished {
        let secret = encode_secret(secret);
        let fields = [
            client_ident,
            server_ident,
            &self.client_init,
            &self.server_init,
            host_key.as_blob(),
            client_share,
            server_share,
        ];
        // Each a `string`, and the secret as it is encoded.
        let lengths = fields.map(|field| u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        let mut parts = [&secret[..]; 15];
        for ((string, length), field) in parts.chunks_exact_mut(2).zip(&lengths).zip(fields) {
            string.copy_from_slice(&[length, field]);
        }
        let hash = self.choice.kex.hash().digest(&parts);
        Finished { choice: self.choice, secret, hash }
    }
}

/// The hash and the secret are known.
pub(crate) struct Finished {
    choice: Choice,
    secret: Zeroizing<Vec<u8>>,
    pub(crate) hash: Digest,
}

impl Finished {
    pub(crate) fn new_keys(&self, side: Side, session_id: &[u8]) -> NewKeys {
        let source = KeySource {
            hash: self.choice.kex.hash(),
            secret: &self.secret,
            exchange_hash: &self.hash,
            session_id,
        };
        source.new_keys(side, self.choice.c2s, self.choice.s2c)
    }
}

/// A server's reply that only lacks its signature.
pub(crate) struct ServerReply {
    pub(crate) finished: Finished,
    pub(crate) share: Vec<u8>,
    pub(crate) key: PublicKey,
    pub(crate) algorithm: &'static dyn SignatureAlgorithm,
}

impl ServerReply {
    pub(crate) fn to_sign(&self) -> ToSign<'_> {
        ToSign {
            purpose: SignPurpose::HostKey,
            key: &self.key,
            algorithm: self.algorithm.name(),
            message: self.finished.hash.as_bytes(),
        }
    }

    /// Whether a signature is one of ours over the exchange hash.
    pub(crate) fn is_signed_by(&self, signature: &Signature) -> bool {
        let (key, hash) = (self.key.as_blob(), self.finished.hash.as_bytes());
        self.algorithm.verify(key, hash, signature.as_bytes()).is_ok()
    }
}

/// A host key that fits the negotiated algorithm. Its inside is looked at when it verifies.
pub(crate) fn host_key(algorithm: &dyn SignatureAlgorithm, blob: &[u8]) -> Result<PublicKey, PeerMisbehaved> {
    let key = PublicKey::from_blob(blob).map_err(|_| PeerMisbehaved::BadHostKey)?;
    if key.key_type() == algorithm.key_type() { Ok(key) } else { Err(PeerMisbehaved::BadHostKey) }
}

/// Verifies the signature over the exchange hash, by exactly the negotiated algorithm.
pub(crate) fn verify(
    algorithm: &dyn SignatureAlgorithm,
    key: &PublicKey,
    hash: &[u8],
    signature: &[u8],
) -> Result<SignatureVerified, PeerMisbehaved> {
    let (name, bytes) = split_signature(signature).map_err(|_| PeerMisbehaved::MalformedMessage)?;
    if name != algorithm.name() {
        return Err(PeerMisbehaved::WrongSignatureAlgorithm);
    }
    match algorithm.verify(key.as_blob(), hash, bytes) {
        Ok(()) => Ok(SignatureVerified(())),
        Err(_) if algorithm.check_key(key.as_blob()).is_err() => Err(PeerMisbehaved::BadHostKey),
        Err(_) => Err(PeerMisbehaved::BadHostKeySignature),
    }
}

/// `string algorithm, string bytes`.
pub(crate) fn encode_signature(signature: &Signature) -> Vec<u8> {
    let (algorithm, bytes) = (signature.algorithm().as_bytes(), signature.as_bytes());
    let mut blob = Vec::with_capacity(algorithm.len().saturating_add(bytes.len()).saturating_add(8));
    blob.put_string(algorithm);
    blob.put_string(bytes);
    blob
}
