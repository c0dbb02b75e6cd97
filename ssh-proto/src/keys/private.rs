//! Private key files of OpenSSH (`openssh-key-v1`, OpenSSH's PROTOCOL.key).
//!
//! The format is SSH's own wire encoding, so it is read with this crate's decoders; the key derivation and the
//! ciphers come from `bcrypt-pbkdf` and `ssh-cipher`.

mod container;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use self::container::{MAGIC, armor, frame, unarmor};
use crate::entropy::{Entropy, EntropyError};
use crate::key::PublicKey;
use crate::secret::Secret;
use crate::wire::PutSsh;
use crate::wire::decode::{self, DecodeError, IResult, MAX_MPINT};

/// The longest private key file read, in bytes. One of RSA with 16384 bits has about 13 000.
pub const MAX_PRIVATE_KEY_FILE: usize = 64 * 1024;
/// The most rounds of bcrypt done for a passphrase: about half a minute's work. `ssh-keygen` writes 16 or 24
/// unless told otherwise; a file may name up to four thousand million, which take months.
pub const MAX_BCRYPT_ROUNDS: u32 = 4096;

/// What the private part is padded to in a file without encryption.
const PLAIN_BLOCK: usize = 8;

const ED25519: &str = "ssh-ed25519";
const ECDSA_P256: &str = "ecdsa-sha2-nistp256";
const NISTP256: &[u8] = b"nistp256";
const RSA: &str = "ssh-rsa";

/// A private key, in memory that is wiped when dropped.
pub struct PrivateKey {
    pub(crate) parts: PrivateParts,
    public: PublicKey,
    comment: String,
}

/// The private half. Numbers are big-endian without leading zeros, unless they have a fixed size.
pub(crate) enum PrivateParts {
    Ed25519 { seed: Secret<[u8; 32]> },
    EcdsaP256 { scalar: Secret<[u8; 32]> },
    Rsa(Box<RsaParts>),
}

/// The numbers of an RSA key. They are not checked against each other here: that takes an RSA implementation.
pub(crate) struct RsaParts {
    pub(crate) n: Vec<u8>,
    pub(crate) e: Vec<u8>,
    pub(crate) d: Secret<[u8]>,
    /// The inverse of `q` modulo `p`.
    pub(crate) iqmp: Secret<[u8]>,
    pub(crate) p: Secret<[u8]>,
    pub(crate) q: Secret<[u8]>,
}

/// Why a private key was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrivateKeyError {
    /// Not an OpenSSH private key file. `ssh-keygen -p` turns most others into one.
    NotAKey,
    /// An OpenSSH private key file that is damaged, or whose public and private halves don't belong together.
    Malformed,
    /// Longer than [`MAX_PRIVATE_KEY_FILE`].
    TooLong,
    /// The key is encrypted, and no passphrase (or the empty one) was given.
    NeedsPassphrase,
    /// The passphrase does not decrypt the key.
    WrongPassphrase,
    /// The key is encrypted by a cipher or key derivation this crate does not have.
    UnsupportedCipher(String),
    /// The passphrase is to be hashed more than [`MAX_BCRYPT_ROUNDS`] times.
    TooManyRounds(u32),
    /// The key is of a type this crate does not sign with.
    UnsupportedType(String),
}

impl fmt::Display for PrivateKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAKey => "not an OpenSSH private key file",
            Self::Malformed => "the private key is malformed",
            Self::TooLong => "the private key file is too long",
            Self::NeedsPassphrase => "the private key needs a passphrase",
            Self::WrongPassphrase => "the passphrase is wrong",
            Self::UnsupportedCipher(name) => return write!(f, "no support for keys encrypted by {name}"),
            Self::TooManyRounds(rounds) => {
                return write!(f, "the passphrase takes {rounds} rounds; {MAX_BCRYPT_ROUNDS} are allowed");
            }
            Self::UnsupportedType(name) => return write!(f, "no support for private keys of type {name}"),
        })
    }
}

impl core::error::Error for PrivateKeyError {}

impl From<DecodeError> for PrivateKeyError {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// Reads an `openssh-key-v1` file: Ed25519, ECDSA P-256 or RSA, plain or encrypted.
///
/// `passphrase` is not used for a plain file. What can be told without the passphrase is told before it is
/// asked for: a file that can't be loaded anyway never gives [`PrivateKeyError::NeedsPassphrase`]. The
/// ciphers are those of OpenSSH: AES in CTR, CBC and GCM mode, and ChaCha20-Poly1305.
///
/// # Errors
/// [`PrivateKeyError`].
pub fn load_private_key(
    file: &[u8],
    passphrase: Option<&Secret<str>>,
) -> Result<PrivateKey, PrivateKeyError> {
    let binary = unarmor(file)?;
    let frame = decode::all(&binary, frame)?;
    let public = PublicKey::from_blob(frame.public).map_err(|_| PrivateKeyError::Malformed)?;
    if ![ED25519, ECDSA_P256, RSA].contains(&public.key_type()) {
        return Err(PrivateKeyError::UnsupportedType(public.key_type().to_owned()));
    }
    let private = frame.decrypt(passphrase)?;
    let key = decode::all(&private, private_section)?;
    if key.public == public { Ok(key) } else { Err(PrivateKeyError::Malformed) }
}

fn private_section(input: &[u8]) -> IResult<'_, PrivateKey> {
    let (input, _) = decode::uint64(input)?;
    let (input, key_type) = decode::text_max(64)(input)?;
    let (input, parts) = match key_type {
        ED25519 => ed25519_fields(input)?,
        ECDSA_P256 => ecdsa_fields(input)?,
        RSA => rsa_fields(input)?,
        _ => return decode::fail(DecodeError::BadValue),
    };
    let (input, comment) = decode::string(input)?;
    let (input, padding) = decode::rest(input)?;
    let padded = padding.len() <= 255 && padding.iter().zip(1u8..).all(|(&byte, wanted)| byte == wanted);
    let (true, Some(public)) = (padded, parts.public()) else { return decode::fail(DecodeError::BadValue) };
    Ok((input, PrivateKey { parts, public, comment: String::from_utf8_lossy(comment).into_owned() }))
}

fn ed25519_fields(input: &[u8]) -> IResult<'_, PrivateParts> {
    let (input, public) = decode::string(input)?;
    let (input, private) = decode::string(input)?;
    match private.split_first_chunk::<32>() {
        Some((seed, tail)) if tail == public => {
            Ok((input, PrivateParts::Ed25519 { seed: fixed_secret(seed) }))
        }
        _ => decode::fail(DecodeError::BadValue),
    }
}

fn ecdsa_fields(input: &[u8]) -> IResult<'_, PrivateParts> {
    let (input, curve) = decode::string(input)?;
    let (input, _point) = decode::string(input)?;
    let (input, scalar) = number(input)?;
    if curve != NISTP256 || scalar.len() > 32 {
        return decode::fail(DecodeError::BadValue);
    }
    Ok((input, PrivateParts::EcdsaP256 { scalar: fixed_secret(scalar) }))
}

fn rsa_fields(input: &[u8]) -> IResult<'_, PrivateParts> {
    let (input, n) = number(input)?;
    let (input, e) = number(input)?;
    let (input, d) = number(input)?;
    let (input, iqmp) = number(input)?;
    let (input, p) = number(input)?;
    let (input, q) = number(input)?;
    let (n, e) = (n.to_vec(), e.to_vec());
    let parts = RsaParts { n, e, d: d.into(), iqmp: iqmp.into(), p: p.into(), q: q.into() };
    Ok((input, PrivateParts::Rsa(Box::new(parts))))
}

/// A non-negative `mpint`. Needless leading zeros are forgiven, as OpenSSH does: some tools write private
/// numbers at their full size.
fn number(input: &[u8]) -> IResult<'_, &[u8]> {
    let (input, value) = decode::string_max(MAX_MPINT)(input)?;
    if value.first().is_some_and(|&first| first >= 0x80) {
        return decode::fail(DecodeError::BadMpint);
    }
    let zeros = value.iter().take_while(|&&byte| byte == 0).count();
    Ok((input, value.get(zeros..).unwrap_or_default()))
}

/// The number at the end of 32 bytes. `bytes` are at most as many.
fn fixed_secret(bytes: &[u8]) -> Secret<[u8; 32]> {
    let mut secret = Box::new([0; 32]);
    for (to, from) in secret.iter_mut().rev().zip(bytes.iter().rev()) {
        *to = *from;
    }
    Secret::from_box(secret)
}

impl PrivateParts {
    fn key_type(&self) -> &'static str {
        match self {
            Self::Ed25519 { .. } => ED25519,
            Self::EcdsaP256 { .. } => ECDSA_P256,
            Self::Rsa(_) => RSA,
        }
    }

    /// The public half, computed from the private one where it is not among its numbers. `None` when there is
    /// no such key.
    fn public(&self) -> Option<PublicKey> {
        let mut blob = Vec::new();
        blob.put_string(self.key_type().as_bytes());
        match self {
            Self::Ed25519 { seed } => blob.put_string(&ed25519_public(seed)),
            Self::EcdsaP256 { scalar } => {
                blob.put_string(NISTP256);
                blob.put_string(&p256_public(scalar)?);
            }
            Self::Rsa(rsa) => {
                blob.put_mpint(&rsa.e);
                blob.put_mpint(&rsa.n);
            }
        }
        PublicKey::from_blob(&blob).ok()
    }

    /// The type's own fields of the private part, without the type.
    fn put_fields(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ed25519 { seed } => {
                let public = ed25519_public(seed);
                out.put_string(&public);
                out.put_string(&Zeroizing::new([*seed.expose(), public].concat()));
            }
            Self::EcdsaP256 { scalar } => {
                out.put_string(NISTP256);
                out.put_string(&p256_public(scalar).unwrap_or_default());
                out.put_mpint(scalar.expose());
            }
            Self::Rsa(rsa) => {
                for number in
                    [&rsa.n, &rsa.e, rsa.d.expose(), rsa.iqmp.expose(), rsa.p.expose(), rsa.q.expose()]
                {
                    out.put_mpint(number);
                }
            }
        }
    }
}

fn ed25519_public(seed: &Secret<[u8; 32]>) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes()
}

/// The uncompressed point, or `None` for a scalar that is zero or not below the order.
fn p256_public(scalar: &Secret<[u8; 32]>) -> Option<Vec<u8>> {
    let key = p256::SecretKey::from_slice(scalar.expose()).ok()?;
    Some(key.public_key().to_sec1_bytes().into_vec())
}

impl PrivateKey {
    /// A fresh Ed25519 key.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed.
    pub fn generate_ed25519(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let seed = random_secret(entropy)?;
        Self::new(PrivateParts::Ed25519 { seed }).ok_or(EntropyError)
    }

    /// A fresh ECDSA key on the curve P-256.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed.
    pub fn generate_ecdsa_p256(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        // One number in 2^32 is not a key. A source that hits two has failed.
        for _ in 0..2 {
            let scalar = random_secret(entropy)?;
            if let Some(key) = Self::new(PrivateParts::EcdsaP256 { scalar }) {
                return Ok(key);
            }
        }
        Err(EntropyError)
    }

    fn new(parts: PrivateParts) -> Option<Self> {
        let public = parts.public()?;
        Some(Self { parts, public, comment: String::new() })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The comment in the file; empty for a fresh key.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The key as an unencrypted `openssh-key-v1` file.
    ///
    /// # Errors
    /// [`EntropyError`] when the source failed: the format has a random check number.
    pub fn to_openssh(&self, comment: &str, entropy: &mut dyn Entropy) -> Result<Secret<str>, EntropyError> {
        let mut check = [0; 4];
        entropy.fill(&mut check)?;
        // Room for everything at once: growing would leave unwiped copies behind.
        let room = comment.len().saturating_add(6 * MAX_MPINT);
        let mut private = Zeroizing::new(Vec::with_capacity(room));
        private.extend_from_slice(&check);
        private.extend_from_slice(&check);
        private.put_string(self.parts.key_type().as_bytes());
        self.parts.put_fields(&mut private);
        private.put_string(comment.as_bytes());
        let padding = private.len().next_multiple_of(PLAIN_BLOCK).saturating_sub(private.len());
        private.extend((1u8..).take(padding));

        let mut binary = Zeroizing::new(Vec::with_capacity(private.len().saturating_add(MAX_MPINT * 2)));
        binary.extend_from_slice(MAGIC);
        binary.put_string(b"none");
        binary.put_string(b"none");
        binary.put_string(b"");
        binary.extend_from_slice(&1u32.to_be_bytes());
        binary.put_string(self.public.as_blob());
        binary.put_string(&private);
        Ok(armor(&binary))
    }
}

fn random_secret(entropy: &mut dyn Entropy) -> Result<Secret<[u8; 32]>, EntropyError> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(bytes.as_mut_slice())?;
    Ok(fixed_secret(bytes.as_slice()))
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
