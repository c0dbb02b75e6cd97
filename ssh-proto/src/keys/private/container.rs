//! The container around a private key: its armor, its fields, its encryption.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding};
use ssh_cipher::Cipher;
use zeroize::Zeroizing;

use super::{MAX_BCRYPT_ROUNDS, MAX_PRIVATE_KEY_FILE, PrivateKeyError};
use crate::keys::{trim_start, without_bom};
use crate::secret::Secret;
use crate::wire::decode::{self, DecodeError, IResult};

pub(super) const BEGIN: &[u8] = b"-----BEGIN OPENSSH PRIVATE KEY-----";
pub(super) const END: &[u8] = b"-----END OPENSSH PRIVATE KEY-----";
pub(super) const MAGIC: &[u8; 15] = b"openssh-key-v1\0";
/// How many base64 characters OpenSSH writes on a line.
const LINE_WIDTH: usize = 70;

/// The bytes between the two marker lines.
pub(super) fn unarmor(file: &[u8]) -> Result<Zeroizing<Vec<u8>>, PrivateKeyError> {
    if file.len() > MAX_PRIVATE_KEY_FILE {
        return Err(PrivateKeyError::TooLong);
    }
    let text = trim_start(without_bom(file).trim_ascii_start());
    let text = text.strip_prefix(BEGIN).ok_or(PrivateKeyError::NotAKey)?;
    let end = text.windows(END.len()).position(|window| window == END).ok_or(PrivateKeyError::Malformed)?;
    let (text, _) = text.split_at(end);
    // The whole capacity at once: growing would leave unwiped copies behind.
    let mut base64 = Zeroizing::new(Vec::with_capacity(text.len()));
    base64.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let len = Base64::decode_in_place(&mut base64).map_err(|_| PrivateKeyError::Malformed)?.len();
    base64.truncate(len);
    Ok(base64)
}

pub(super) fn armor(binary: &[u8]) -> Secret<str> {
    let base64 = Zeroizing::new(Base64::encode_string(binary));
    let lines = base64.len().div_ceil(LINE_WIDTH);
    let room = [base64.len(), lines, BEGIN.len(), END.len(), 2].iter().sum();
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    text.extend_from_slice(BEGIN);
    text.push(b'\n');
    for line in base64.as_bytes().chunks(LINE_WIDTH) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(END);
    text.push(b'\n');
    core::str::from_utf8(&text).unwrap_or_default().into()
}

/// The fields around the private part.
pub(super) struct Frame<'a> {
    cipher: &'a str,
    kdf: &'a str,
    kdf_options: &'a [u8],
    pub(super) public: &'a [u8],
    pub(super) private: &'a [u8],
    tag: &'a [u8],
}

pub(super) fn frame(input: &[u8]) -> IResult<'_, Frame<'_>> {
    let (input, magic) = decode::bytes::<15>(input)?;
    let (input, cipher) = decode::text_max(64)(input)?;
    let (input, kdf) = decode::text_max(64)(input)?;
    let (input, kdf_options) = decode::string(input)?;
    let (input, keys) = decode::uint32(input)?;
    if magic != MAGIC || keys != 1 {
        return decode::fail(DecodeError::BadValue);
    }
    let (input, public) = decode::string(input)?;
    let (input, private) = decode::string(input)?;
    let (input, tag) = decode::rest(input)?;
    Ok((input, Frame { cipher, kdf, kdf_options, public, private, tag }))
}

impl Frame<'_> {
    pub(super) fn decrypt(
        &self,
        passphrase: Option<&Secret<str>>,
    ) -> Result<Zeroizing<Vec<u8>>, PrivateKeyError> {
        let mut private = Zeroizing::new(self.private.to_vec());
        if self.cipher == "none" {
            let plain = self.kdf == "none" && self.kdf_options.is_empty() && self.tag.is_empty();
            return if plain && checked(&private) { Ok(private) } else { Err(PrivateKeyError::Malformed) };
        }
        let unsupported = |name: &str| PrivateKeyError::UnsupportedCipher(name.to_owned());
        let cipher = cipher_named(self.cipher).ok_or_else(|| unsupported(self.cipher))?;
        let (key_len, iv_len) = cipher.key_and_iv_size().ok_or_else(|| unsupported(self.cipher))?;
        if self.kdf != "bcrypt" {
            return Err(unsupported(self.kdf));
        }
        let (salt, rounds) = decode::all(self.kdf_options, |input| {
            let (input, salt) = decode::string(input)?;
            let (input, rounds) = decode::uint32(input)?;
            Ok((input, (salt, rounds)))
        })?;
        let tag = match (cipher.has_tag(), <[u8; 16]>::try_from(self.tag)) {
            (true, Ok(tag)) => Some(tag.into()),
            (false, _) if self.tag.is_empty() => None,
            _ => return Err(PrivateKeyError::Malformed),
        };
        if salt.is_empty() || rounds == 0 || !private.len().is_multiple_of(cipher.block_size()) {
            return Err(PrivateKeyError::Malformed);
        }
        if rounds > MAX_BCRYPT_ROUNDS {
            return Err(PrivateKeyError::TooManyRounds(rounds));
        }
        let passphrase = passphrase.map(Secret::expose).filter(|passphrase| !passphrase.is_empty());
        let passphrase = passphrase.ok_or(PrivateKeyError::NeedsPassphrase)?;

        let mut derived = Zeroizing::new(alloc::vec![0; key_len.saturating_add(iv_len)]);
        bcrypt_pbkdf::bcrypt_pbkdf(passphrase, salt, rounds, &mut derived)
            .map_err(|_| PrivateKeyError::Malformed)?;
        let (key, iv) = derived.split_at(key_len);
        // OpenSSH's ChaCha20-Poly1305 counts packets instead of taking an initial vector, and this is number 0.
        let iv = if cipher == Cipher::ChaCha20Poly1305 { &[0; 8] } else { iv };
        cipher.decrypt(key, iv, &mut private, tag).map_err(|_| PrivateKeyError::WrongPassphrase)?;
        if checked(&private) { Ok(private) } else { Err(PrivateKeyError::WrongPassphrase) }
    }
}

fn cipher_named(name: &str) -> Option<Cipher> {
    Some(match name {
        "aes128-cbc" => Cipher::Aes128Cbc,
        "aes192-cbc" => Cipher::Aes192Cbc,
        "aes256-cbc" => Cipher::Aes256Cbc,
        "aes128-ctr" => Cipher::Aes128Ctr,
        "aes192-ctr" => Cipher::Aes192Ctr,
        "aes256-ctr" => Cipher::Aes256Ctr,
        "aes128-gcm@openssh.com" => Cipher::Aes128Gcm,
        "aes256-gcm@openssh.com" => Cipher::Aes256Gcm,
        "chacha20-poly1305@openssh.com" => Cipher::ChaCha20Poly1305,
        _ => return None,
    })
}

/// Whether the private part begins with the same number twice, as one decrypted with the right key does.
fn checked(private: &[u8]) -> bool {
    matches!(private.split_first_chunk::<4>(), Some((first, rest)) if rest.starts_with(first))
}
