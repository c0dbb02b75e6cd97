//! What the machine needs of cryptography, as traits, and the provider that bundles it.
//!
//! A [`Provider`] is a struct of static tables: key exchanges, ciphers, MACs, signature verifiers. The
//! machine negotiates over the names and calls through the tables; it contains no cryptography of its
//! own. Sealing and opening work on a whole packet in place, so a provider decides itself how length,
//! body, tag and sequence number go together.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::entropy::{Entropy, EntropyError};
use crate::key::KeyError;

#[cfg(feature = "aws-lc-rs")]
pub mod aws_lc;
#[cfg(feature = "rustcrypto")]
mod frame;
#[cfg(any(feature = "rsa", feature = "aws-lc-rs"))]
mod rsa_key;
#[cfg(feature = "rustcrypto")]
pub mod rustcrypto;

/// The provider to use where nothing speaks for another, and its signers: with feature `aws-lc-rs` that over AWS-LC.
#[cfg(feature = "aws-lc-rs")]
pub use aws_lc::{EcdsaP256Signer, Ed25519Signer, PROVIDER};
/// The provider to use where nothing speaks for another, and its signers: with feature `aws-lc-rs` that over AWS-LC.
#[cfg(all(feature = "rustcrypto", not(feature = "aws-lc-rs")))]
pub use rustcrypto::{EcdsaP256Signer, Ed25519Signer, PROVIDER};

/// The longest digest of any supported hash, in bytes (SHA-512).
pub const MAX_HASH: usize = 64;
/// The longest tag of any supported cipher or MAC, in bytes.
pub const MAX_TAG: usize = 64;

/// A set of algorithms to negotiate from, in the provider's order of preference.
pub struct Provider {
    /// A name for logs, such as `rustcrypto`.
    pub name: &'static str,
    /// Whether the same entropy gives the same bytes: nothing in here draws randomness of its own.
    pub deterministic: bool,
    /// Key exchange methods.
    pub kex: &'static [&'static dyn KexAlgorithm],
    /// Ciphers.
    pub ciphers: &'static [&'static dyn CipherAlgorithm],
    /// MACs, for the ciphers that are no AEAD.
    pub macs: &'static [&'static dyn MacAlgorithm],
    /// Signature algorithms, for host keys and user keys.
    pub signatures: &'static [&'static dyn SignatureAlgorithm],
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A digest on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    bytes: [u8; MAX_HASH],
    len: usize,
}

impl Digest {
    /// Takes over a digest; anything past [`MAX_HASH`] bytes is cut off.
    pub fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; MAX_HASH];
        for (to, from) in bytes.iter_mut().zip(digest) {
            *to = *from;
        }
        Self { bytes, len: digest.len().min(MAX_HASH) }
    }

    /// The digest's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Zeroize for Digest {
    fn zeroize(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({} bytes)", self.len)
    }
}

/// A hash function.
pub trait Hash: Send + Sync {
    /// The digest of the concatenation of `parts`.
    fn digest(&self, parts: &[&[u8]]) -> Digest;
}

/// How the shared secret K enters the exchange hash and the key derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretEncoding {
    /// As an `mpint` of the big-endian bytes (Diffie-Hellman, ECDH, X25519).
    Mpint,
    /// As a `string` (the hybrids).
    String,
}

/// A shared secret K, wiped when dropped.
pub struct SharedSecret {
    bytes: Zeroizing<Vec<u8>>,
    encoding: SecretEncoding,
}

impl SharedSecret {
    /// K as `bytes`, big-endian when the encoding is [`SecretEncoding::Mpint`].
    pub fn new(bytes: Zeroizing<Vec<u8>>, encoding: SecretEncoding) -> Self {
        Self { bytes, encoding }
    }

    /// K's bytes, before encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How K is encoded.
    pub fn encoding(&self) -> SecretEncoding {
        self.encoding
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// Why a key exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KexError {
    /// The peer's share has the wrong length or form, is off its curve, or gives a secret without
    /// contribution of ours (such as X25519's all-zero output).
    BadShare,
    /// Our random source failed.
    Entropy,
}

impl From<EntropyError> for KexError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

/// A key exchange method of the form of [RFC 4253 §8]: one share each way.
///
/// Shares are the contents of the `string` (or `mpint`) fields of messages 30 and 31.
///
/// [RFC 4253 §8]: https://www.rfc-editor.org/rfc/rfc4253#section-8
pub trait KexAlgorithm: Send + Sync {
    /// The method's name in the KEXINIT.
    fn name(&self) -> &'static str;
    /// The hash of the exchange and of the key derivation.
    fn hash(&self) -> &'static dyn Hash;
    /// The client's first step: makes the ephemeral key.
    ///
    /// # Errors
    /// [`KexError::Entropy`].
    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError>;
    /// The server's only step: from the client's share to its own share and the secret.
    ///
    /// # Errors
    /// [`KexError::BadShare`], [`KexError::Entropy`].
    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError>;
}

/// A server's share and the secret it gives.
#[derive(Debug)]
pub struct ServerShare {
    /// The share to send.
    pub share: Vec<u8>,
    /// The secret K.
    pub secret: SharedSecret,
}

/// A client's half-done exchange.
pub trait ClientExchange: Send {
    /// The share to send.
    fn share(&self) -> &[u8];
    /// Completes the exchange with the server's share.
    ///
    /// # Errors
    /// [`KexError::BadShare`].
    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError>;
}

/// The key material of one direction, each part as long as the algorithm asked for.
pub struct PacketKeys<'a> {
    /// The cipher's key.
    pub key: &'a [u8],
    /// The cipher's initial IV.
    pub iv: &'a [u8],
    /// The MAC and its key; `None` exactly for an AEAD.
    pub mac: Option<(&'static dyn MacAlgorithm, &'a [u8])>,
}

/// A cipher, together with the way it frames a packet.
pub trait CipherAlgorithm: Send + Sync {
    /// The name in the KEXINIT.
    fn name(&self) -> &'static str;
    /// Key bytes taken from the key derivation.
    fn key_len(&self) -> usize;
    /// IV bytes taken from the key derivation.
    fn iv_len(&self) -> usize;
    /// Whether it authenticates by itself, so that no MAC is negotiated.
    fn is_aead(&self) -> bool;
    /// The sending half of a direction.
    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket>;
    /// The receiving half of a direction.
    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket>;
}

/// How packets of a direction are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketShape {
    /// The padded part is a multiple of this, at least 8.
    pub block: usize,
    /// Whether the four length bytes count into that multiple (plain and encrypt-and-MAC: yes; AEAD and
    /// encrypt-then-MAC: no).
    pub length_in_block: bool,
    /// Bytes of tag behind the packet, at most [`MAX_TAG`].
    pub tag: usize,
}

/// Seals packets of one direction.
pub trait SealPacket: Send {
    /// The layout this sealer needs.
    fn shape(&self) -> PacketShape;
    /// Seals in place. `packet` is `uint32 packet_length, byte padding_length, payload, padding`, followed by
    /// [`PacketShape::tag`] bytes to be overwritten with the tag.
    fn seal(&mut self, seq: u32, packet: &mut [u8]);
}

/// Opens packets of one direction.
pub trait OpenPacket: Send {
    /// The layout this opener expects.
    fn shape(&self) -> PacketShape;
    /// How many bytes [`packet_length`](Self::packet_length) needs, at least 4.
    fn head_len(&self) -> usize;
    /// The packet length, from the first [`head_len`](Self::head_len) bytes of a packet, which stay as they
    /// are. It is **not** authenticated yet. Called once per packet, before [`open`](Self::open).
    fn packet_length(&mut self, seq: u32, head: &[u8]) -> u32;
    /// Whether the length is decrypted before anything authenticates it, so that an attacker could learn
    /// from *when* an error comes (CBC and CTR with encrypt-and-MAC; [CVE-2008-5161]).
    ///
    /// [CVE-2008-5161]: https://nvd.nist.gov/vuln/detail/CVE-2008-5161
    fn length_is_malleable(&self) -> bool {
        false
    }
    /// Spends on `bytes` what [`open`](Self::open) spends on as many bytes of a packet, and tells nothing of them.
    /// Called with all that is thrown away behind a bad length or a bad tag where
    /// [`length_is_malleable`](Self::length_is_malleable), so that neither the place of the error nor the time it
    /// takes depends on the length.
    fn discard(&mut self, seq: u32, bytes: &mut [u8]) {
        let _ = (seq, bytes);
    }
    /// Verifies and decrypts in place. `packet` is the whole packet with its tag; afterwards the bytes
    /// between the length and the tag are plaintext.
    ///
    /// # Errors
    /// [`BadTag`]; the packet's content is then unspecified and must not be looked at.
    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag>;
}

/// A packet's tag does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTag;

/// A MAC for ciphers that are no AEAD.
pub trait MacAlgorithm: Send + Sync {
    /// The name in the KEXINIT.
    fn name(&self) -> &'static str;
    /// Key bytes taken from the key derivation.
    fn key_len(&self) -> usize;
    /// Tag bytes.
    fn tag_len(&self) -> usize;
    /// Whether it is computed over the ciphertext (`-etm@openssh.com`).
    fn is_etm(&self) -> bool;
    /// A MAC under `key`.
    fn keyed(&self, key: &[u8]) -> Box<dyn Mac>;
}

/// A keyed MAC.
pub trait Mac: Send {
    /// Writes the tag of `uint32 seq ‖ data` over `tag`, which has the algorithm's tag length.
    fn sign(&mut self, seq: u32, data: &[u8], tag: &mut [u8]);
    /// Compares in constant time.
    ///
    /// # Errors
    /// [`BadTag`].
    fn verify(&mut self, seq: u32, data: &[u8], tag: &[u8]) -> Result<(), BadTag>;
}

/// A signature algorithm, as a verifier.
pub trait SignatureAlgorithm: Send + Sync {
    /// The algorithm's name in name-lists and signatures, such as `rsa-sha2-512`.
    fn name(&self) -> &'static str;
    /// The type of the keys it works with, such as `ssh-rsa`.
    fn key_type(&self) -> &'static str;
    /// Whether `key` is a well-formed, acceptable key for this algorithm.
    ///
    /// # Errors
    /// [`KeyError`] with the reason.
    fn check_key(&self, key: &[u8]) -> Result<(), KeyError>;
    /// Verifies `signature` (the inner bytes, without the algorithm's name) over `message` by the key whose
    /// blob is `key`.
    ///
    /// # Errors
    /// [`BadSignature`], for a malformed signature as well, and for a key that [`check_key`](Self::check_key) refuses:
    /// nobody may have called that before. Behind a refusal it may be called to tell the reason.
    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature>;
}

/// A signature does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSignature;
