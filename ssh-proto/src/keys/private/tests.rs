use alloc::format;

use proptest::prelude::*;

use super::container::{BEGIN, END};
use super::*;
use crate::keys::parse_public_key_line;

const PASSPHRASE: &str = "throw-away passphrase";

/// Counts up.
struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        for byte in out {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

macro_rules! testdata {
    ($name:literal) => {
        include_bytes!(concat!("../testdata/", $name))
    };
}

fn load(file: &[u8]) -> Result<PrivateKey, PrivateKeyError> {
    load_private_key(file, None)
}

fn load_with(file: &[u8], passphrase: &str) -> Result<PrivateKey, PrivateKeyError> {
    load_private_key(file, Some(&passphrase.into()))
}

fn error(result: Result<PrivateKey, PrivateKeyError>) -> PrivateKeyError {
    result.map(|key| format!("{key:?}")).unwrap_err()
}

/// The binary in `file` with `change` made to it, in its armor again.
fn changed(file: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Secret<str> {
    let mut binary = unarmor(file).unwrap();
    change(&mut binary);
    armor(&binary)
}

/// Replaces the first `from` in `binary` by `to`.
fn replace(binary: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    let at = binary.windows(from.len()).position(|window| window == from).unwrap();
    binary.splice(at..at + from.len(), to.iter().copied());
}

#[test]
fn files_of_ssh_keygen_are_loaded() {
    for (file, public) in [
        (&testdata!("ed25519")[..], &testdata!("ed25519.pub")[..]),
        (testdata!("ecdsa256"), testdata!("ecdsa256.pub")),
        (testdata!("rsa2048"), testdata!("rsa2048.pub")),
        (testdata!("ed25519_aes256_ctr"), testdata!("ed25519_aes256_ctr.pub")),
        (testdata!("ecdsa256_aes256_ctr"), testdata!("ecdsa256_aes256_ctr.pub")),
        (testdata!("rsa3072_aes256_ctr"), testdata!("rsa3072_aes256_ctr.pub")),
    ] {
        let (public, comment) = parse_public_key_line(public).unwrap();
        let key = load_with(file, PASSPHRASE).unwrap();
        assert_eq!((key.public(), key.comment()), (&public, &comment[..]));
    }
}

#[test]
fn every_mode_ssh_keygen_encrypts_with_is_decrypted() {
    for (file, comment) in [
        (&testdata!("ed25519_aes128_cbc")[..], "ed25519 aes128-cbc"),
        (testdata!("ed25519_aes256_gcm"), "ed25519 aes256-gcm@openssh.com"),
        (testdata!("ed25519_chacha20_poly1305"), "ed25519 chacha20-poly1305@openssh.com"),
    ] {
        assert_eq!(load_with(file, PASSPHRASE).unwrap().comment(), comment);
        assert_eq!(error(load_with(file, "wrong")), PrivateKeyError::WrongPassphrase, "{comment}");
    }
}

#[test]
fn a_scalar_that_begins_with_zeros_is_a_scalar() {
    let key = load(testdata!("ecdsa256_short_scalar")).unwrap();
    let public = parse_public_key_line(testdata!("ecdsa256_short_scalar.pub")).unwrap().0;
    assert_eq!(*key.public(), public);
    let PrivateParts::EcdsaP256 { scalar } = &key.parts else { panic!("another type") };
    assert_eq!(scalar.expose()[0], 0);
    // Written at its full size, as some tools do, it is the same.
    let scalar = scalar.expose();
    let padded = changed(testdata!("ecdsa256_short_scalar"), |binary| {
        let short = [&[0, 0, 0, 31][..], &scalar[1..], &[0, 0, 0, 0]].concat();
        let full = [&[0, 0, 0, 32][..], &scalar[..], &[0, 0, 0, 0]].concat();
        replace(binary, &short, &full);
        // One byte more of the key, one less of the padding: the length of the part stays.
        assert_eq!(binary.pop(), Some(1));
    });
    assert_eq!(*load(padded.expose().as_bytes()).unwrap().public(), public);
}

#[test]
fn a_missing_passphrase_is_told_from_a_wrong_one() {
    let file = testdata!("ed25519_aes256_ctr");
    assert_eq!(error(load(file)), PrivateKeyError::NeedsPassphrase);
    assert_eq!(error(load_with(file, "")), PrivateKeyError::NeedsPassphrase);
    assert_eq!(error(load_with(file, "wrong")), PrivateKeyError::WrongPassphrase);
    assert!(load_with(testdata!("ed25519"), "needless").is_ok());
}

#[test]
fn out_03_rounds_are_capped_before_anything_is_derived() {
    let file = testdata!("ed25519_aes256_ctr");
    for (rounds, expected) in [
        (0, PrivateKeyError::Malformed),
        (MAX_BCRYPT_ROUNDS, PrivateKeyError::NeedsPassphrase),
        (MAX_BCRYPT_ROUNDS + 1, PrivateKeyError::TooManyRounds(MAX_BCRYPT_ROUNDS + 1)),
        (u32::MAX, PrivateKeyError::TooManyRounds(u32::MAX)),
    ] {
        let file = changed(file, |binary| {
            replace(binary, &[0, 0, 0, 4, 0, 0, 0, 1], &[&rounds.to_be_bytes()[..], &[0, 0, 0, 1]].concat());
        });
        let passphrase = if rounds > MAX_BCRYPT_ROUNDS { Some(&PASSPHRASE.into()) } else { None };
        assert_eq!(error(load_private_key(file.expose().as_bytes(), passphrase)), expected);
    }
}

#[test]
fn what_this_crate_can_not_use_is_named_before_the_passphrase_is_asked_for() {
    let p384 = PrivateKeyError::UnsupportedType("ecdsa-sha2-nistp384".into());
    assert_eq!(error(load(testdata!("ecdsa384"))), p384);
    let file =
        changed(testdata!("ed25519_aes256_ctr"), |binary| replace(binary, b"aes256-ctr", b"aes512-ctr"));
    let cipher = PrivateKeyError::UnsupportedCipher("aes512-ctr".into());
    assert_eq!(error(load(file.expose().as_bytes())), cipher);
    let file = changed(testdata!("ed25519_aes256_ctr"), |binary| replace(binary, b"bcrypt", b"scrypt"));
    let kdf = PrivateKeyError::UnsupportedCipher("scrypt".into());
    assert_eq!(error(load(file.expose().as_bytes())), kdf);
}

#[test]
fn what_is_no_key_says_so() {
    for file in [
        &b""[..],
        b"rubbish",
        b"-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----\n",
        testdata!("ed25519.pub"),
    ] {
        assert_eq!(error(load(file)), PrivateKeyError::NotAKey);
    }
    assert_eq!(error(load(&[b' '; MAX_PRIVATE_KEY_FILE + 1])), PrivateKeyError::TooLong);
    assert_eq!(error(load(BEGIN)), PrivateKeyError::Malformed);
    assert_eq!(error(load(&[BEGIN, END].concat())), PrivateKeyError::Malformed);
}

#[test]
fn other_line_ends_and_widths_are_forgiven() {
    let text = core::str::from_utf8(testdata!("ed25519")).unwrap();
    let one_line =
        text.replace('\n', "").replace("KEY-----b", "KEY-----\nb").replace("-----END", "\n-----END");
    for variant in [text.replace('\n', "\r\n"), format!("\u{feff}\n {text}\n\n"), one_line] {
        assert!(load(variant.as_bytes()).is_ok(), "{variant:?}");
    }
}

#[test]
fn halves_that_do_not_belong_together_are_refused() {
    for file in [&testdata!("ed25519")[..], testdata!("ecdsa256"), testdata!("rsa2048")] {
        let blob = load(file).unwrap().public().as_blob().to_vec();
        let file = changed(file, |binary| {
            let mut other = blob.clone();
            *other.last_mut().unwrap() ^= 1;
            replace(binary, &blob, &other);
        });
        assert_eq!(error(load(file.expose().as_bytes())), PrivateKeyError::Malformed);
    }
    // The same change to every copy of the public half: now the seed does not fit.
    let public = load(testdata!("ed25519")).unwrap().public().as_blob()[19..].to_vec();
    let file = changed(testdata!("ed25519"), |binary| {
        let mut other = public.clone();
        other[0] ^= 1;
        for _ in 0..3 {
            replace(binary, &public, &other);
        }
    });
    assert_eq!(error(load(file.expose().as_bytes())), PrivateKeyError::Malformed);
}

#[test]
fn written_keys_are_the_files_of_ssh_keygen() {
    for file in [&testdata!("ed25519")[..], testdata!("ecdsa256"), testdata!("rsa2048")] {
        /// Gives the check number of the file.
        struct Check([u8; 4]);
        impl Entropy for Check {
            fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
                out.copy_from_slice(&self.0);
                Ok(())
            }
        }
        let binary = unarmor(file).unwrap();
        let check = decode::all(&binary, frame).unwrap().private[..4].try_into().unwrap();
        let key = load(file).unwrap();
        let written = key.to_openssh(key.comment(), &mut Check(check)).unwrap();
        assert_eq!(written.expose().as_bytes(), file);
    }
}

#[test]
fn fresh_keys_survive_the_round_trip() {
    let mut entropy = Counter(1);
    for key in [
        PrivateKey::generate_ed25519(&mut entropy).unwrap(),
        PrivateKey::generate_ecdsa_p256(&mut entropy).unwrap(),
    ] {
        let file = key.to_openssh("fresh", &mut entropy).unwrap();
        let again = load(file.expose().as_bytes()).unwrap();
        assert_eq!((again.public(), again.comment()), (key.public(), "fresh"));
    }
}

#[test]
fn a_source_that_fails_or_repeats_an_impossible_scalar_gives_no_key() {
    struct Ones;
    impl Entropy for Ones {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
            out.fill(0xff);
            Ok(())
        }
    }
    assert!(PrivateKey::generate_ecdsa_p256(&mut Ones).is_err());
    struct Broken;
    impl Entropy for Broken {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyError> {
            Err(EntropyError)
        }
    }
    assert!(PrivateKey::generate_ed25519(&mut Broken).is_err());
    assert!(load(testdata!("ed25519")).unwrap().to_openssh("", &mut Broken).is_err());
}

#[test]
fn debug_shows_nothing_private() {
    let key = load(testdata!("ed25519")).unwrap();
    assert!(format!("{key:?}").starts_with("PrivateKey { public: PublicKey(ssh-ed25519 SHA256:"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(data: Vec<u8>) {
        let _ = load(&data);
        let _ = load(armor(&data).expose().as_bytes());
        let _ = load(armor(&[&MAGIC[..], &data].concat()).expose().as_bytes());
    }

    #[test]
    fn every_damaged_byte_is_noticed_or_harmless(position: prop::sample::Index, byte: u8) {
        for file in [&testdata!("ed25519")[..], testdata!("ecdsa256"), testdata!("rsa2048")] {
            let intact = load(file).unwrap();
            let file = changed(file, |binary| {
                let position = position.index(binary.len());
                binary[position] = byte;
            });
            if let Ok(key) = load(file.expose().as_bytes()) {
                prop_assert_eq!(key.public(), intact.public());
            }
        }
    }

    #[test]
    fn damaged_encrypted_files_never_panic(position: prop::sample::Index, byte: u8) {
        for file in [&testdata!("ed25519_aes256_ctr")[..], testdata!("ed25519_chacha20_poly1305")] {
            let file = changed(file, |binary| {
                let position = position.index(binary.len());
                binary[position] = byte;
            });
            let _ = load(file.expose().as_bytes());
        }
    }

    #[test]
    fn a_proper_prefix_is_no_key(end: prop::sample::Index) {
        for file in [&testdata!("ed25519")[..], testdata!("rsa2048"), testdata!("ed25519_aes256_ctr")] {
            let file = changed(file, |binary| binary.truncate(end.index(binary.len())));
            prop_assert_eq!(error(load(file.expose().as_bytes())), PrivateKeyError::Malformed);
        }
    }
}
