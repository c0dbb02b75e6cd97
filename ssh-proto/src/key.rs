//! Public keys, signatures, and who signs.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use crate::base64;
use crate::entropy::Entropy;
use crate::wire::decode;

/// The longest public key blob accepted from anywhere, in bytes.
pub const MAX_KEY_BLOB: usize = 8 * 1024;

/// A public key, held as the blob of [RFC 4253 §6.6]: `string type` and the type's own fields.
///
/// Two keys are equal when their blobs are. The blob's inner fields are checked by the provider that
/// verifies with it, not here: a key of an unknown type can still be named and compared.
///
/// [RFC 4253 §6.6]: https://www.rfc-editor.org/rfc/rfc4253#section-6.6
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    blob: Arc<[u8]>,
}

impl PublicKey {
    /// Reads a key blob.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] over [`MAX_KEY_BLOB`], [`KeyError::Malformed`] when it does not begin with a
    /// printable type name.
    pub fn from_blob(blob: &[u8]) -> Result<Self, KeyError> {
        if blob.len() > MAX_KEY_BLOB {
            return Err(KeyError::TooLong);
        }
        type_name(blob).ok_or(KeyError::Malformed)?;
        Ok(Self { blob: blob.into() })
    }

    /// The blob, as it travels in `SSH_MSG_KEXDH_REPLY` and `SSH_MSG_USERAUTH_REQUEST`.
    pub fn as_blob(&self) -> &[u8] {
        &self.blob
    }

    /// The key type the blob begins with, such as `ssh-ed25519`.
    pub fn key_type(&self) -> &str {
        type_name(&self.blob).unwrap_or_default()
    }

    /// The fingerprint as OpenSSH prints it: `SHA256:` and the unpadded base64 of the blob's SHA-256.
    pub fn fingerprint(&self) -> String {
        let mut text = String::from("SHA256:");
        text.push_str(base64::encode(&Sha256::digest(&self.blob)).trim_end_matches('='));
        text
    }

    /// The key as one line of a public key file without a comment: type, space, base64 of the blob.
    pub fn to_line(&self) -> String {
        let mut line = String::from(self.key_type());
        line.push(' ');
        line.push_str(&base64::encode(&self.blob));
        line
    }
}

fn type_name(blob: &[u8]) -> Option<&str> {
    let (_, name) = decode::string(blob).ok()?;
    if name.is_empty() || name.len() > 64 || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    core::str::from_utf8(name).ok()
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.key_type(), self.fingerprint())
    }
}

/// Why bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// Longer than [`MAX_KEY_BLOB`].
    TooLong,
    /// Not the form the type prescribes.
    Malformed,
    /// A type this build has no code for.
    UnknownType,
    /// An RSA modulus below 2048 or above 16384 bits, or an exponent no one should use.
    WeakOrHuge,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the key is longer than any supported key",
            Self::Malformed => "the key is malformed",
            Self::UnknownType => "the key type is not supported",
            Self::WeakOrHuge => "the key size is out of bounds",
        })
    }
}

impl core::error::Error for KeyError {}

/// A signature: the name of the algorithm that made it and that algorithm's own bytes.
///
/// On the wire it is `string algorithm, string bytes` ([RFC 4253 §6.6]). One that came of
/// [`adapter::sign`](crate::adapter::sign) also knows if its signer [needs a check](Signer::needs_check).
///
/// [RFC 4253 §6.6]: https://www.rfc-editor.org/rfc/rfc4253#section-6.6
#[derive(Clone)]
pub struct Signature {
    algorithm: String,
    bytes: Vec<u8>,
    /// Who made it needs no check.
    pub(crate) sound: bool,
}

impl Signature {
    /// A signature by `algorithm`, such as `rsa-sha2-512`, over which `bytes` are the inner blob.
    pub fn new(algorithm: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { algorithm: algorithm.into(), bytes: bytes.into(), sound: false }
    }

    /// The signature algorithm's name.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// The algorithm's own bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        (&self.algorithm, &self.bytes) == (&other.algorithm, &other.bytes)
    }
}

impl Eq for Signature {}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}, {} bytes)", self.algorithm, self.bytes.len())
    }
}

/// What a signature is for. A signer may refuse by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignPurpose<'a> {
    /// The server proves its host key over the exchange hash ([RFC 4253 §8]).
    ///
    /// [RFC 4253 §8]: https://www.rfc-editor.org/rfc/rfc4253#section-8
    HostKey,
    /// The client proves a user key ([RFC 4252 §7]).
    ///
    /// [RFC 4252 §7]: https://www.rfc-editor.org/rfc/rfc4252#section-7
    UserAuth {
        /// The user name of the request.
        user: &'a str,
    },
}

/// What is to be signed. Only the core makes one, so a signer never signs bytes of somebody's choosing.
#[derive(Debug, Clone, Copy)]
pub struct ToSign<'a> {
    pub(crate) purpose: SignPurpose<'a>,
    pub(crate) key: &'a PublicKey,
    pub(crate) algorithm: &'a str,
    pub(crate) message: &'a [u8],
}

impl<'a> ToSign<'a> {
    /// What the signature is for.
    pub fn purpose(&self) -> SignPurpose<'a> {
        self.purpose
    }

    /// The key that signs.
    pub fn key(&self) -> &'a PublicKey {
        self.key
    }

    /// The signature algorithm to use, such as `rsa-sha2-512`.
    pub fn algorithm(&self) -> &'a str {
        self.algorithm
    }

    /// The exact bytes to sign (not a hash of them).
    pub fn message(&self) -> &'a [u8] {
        self.message
    }
}

/// Whoever holds a private key: memory, an agent, a token.
pub trait Signer {
    /// Signs [`ToSign::message`] with the algorithm [`ToSign::algorithm`].
    ///
    /// # Errors
    /// [`SignRefused`] when the key can't or won't sign this.
    fn sign(&self, what: &ToSign<'_>, entropy: &mut dyn Entropy) -> Result<Signature, SignRefused>;

    /// Whether the connection verifies a signature of this signer before it sends it, which it does unless told
    /// otherwise. A token that fails while it computes an RSA signature gives its key away with it
    /// ([Boneh, DeMillo and Lipton 1997](https://doi.org/10.1007/3-540-69053-0_4)), so only who verifies by
    /// itself, or computes in this process and cannot leak that way, does without.
    fn needs_check(&self) -> bool {
        true
    }

    /// Whether it computes in this process and takes microseconds. The adapters have such a signer called by the
    /// connection, and any other on a thread for it, with nothing locked: it may wait for a token or a person.
    fn is_quick(&self) -> bool {
        false
    }
}

/// Has a signer sign. The connection verifies what comes of it only where [that is needed](Signer::needs_check), also
/// when it comes by ticket.
///
/// # Errors
/// As [`Signer::sign`].
pub fn sign(
    signer: &dyn Signer,
    what: &ToSign<'_>,
    entropy: &mut dyn Entropy,
) -> Result<Signature, SignRefused> {
    let sound = !signer.needs_check();
    signer.sign(what, entropy).map(|signature| Signature { sound, ..signature })
}

/// A signer did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignRefused;

impl fmt::Display for SignRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signer refused")
    }
}

impl core::error::Error for SignRefused {}

/// A public key and, when it is at hand, the signer of its private half.
///
/// Without a signer the connection raises a `Sign` event, and the embedder brings the signature.
#[derive(Clone)]
pub struct KeyPair {
    /// The public half.
    pub public: PublicKey,
    /// Who signs, or `None` for a signature by ticket.
    pub signer: Option<Arc<dyn Signer + Send + Sync>>,
}

impl KeyPair {
    /// A pair that signs by itself.
    pub fn new(public: PublicKey, signer: Arc<dyn Signer + Send + Sync>) -> Self {
        Self { public, signer: Some(signer) }
    }

    /// A public key whose signatures come by ticket.
    pub fn external(public: PublicKey) -> Self {
        Self { public, signer: None }
    }

    /// Takes out a signer that is not [quick](Signer::is_quick), so that the signature comes by ticket.
    pub fn take_slow_signer(&mut self) -> Option<Arc<dyn Signer + Send + Sync>> {
        self.signer.take_if(|signer| !signer.is_quick())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}
