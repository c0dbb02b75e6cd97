//! Key pairs of files, each with the signer of the provider that is to be tried.

use std::fs;

use base64ct::{Base64, Encoding};
use ssh_io_std::read_key_file;
use ssh_io_std::ssh_proto::KeyPair;
use ssh_io_std::ssh_proto::crypto::rustcrypto::{EcdsaP256Signer, Ed25519Signer, RsaSigner};

use crate::matrix::{Combo, Ours};
use crate::peers::KeyFile;

/// The key of a file as a combination says, and otherwise as our users get it, which is AWS-LC's.
pub(crate) fn key_pair(file: &KeyFile, combo: Option<&Combo>) -> KeyPair {
    match combo.map(|combo| combo.ours) {
        Some(Ours::RustCrypto) => of_rustcrypto(file),
        _ => read_key_file(file.path(), None).expect("a key file"),
    }
}

/// What is left of a file's contents.
struct Fields(Vec<u8>);

impl Fields {
    fn skip(&mut self, len: usize) -> Vec<u8> {
        self.0.drain(..len).collect()
    }

    fn string(&mut self) -> Vec<u8> {
        let len = u32::from_be_bytes(self.skip(4).try_into().expect("four bytes"));
        self.skip(len as usize)
    }

    /// A positive `mpint` without its sign.
    fn number(&mut self) -> Vec<u8> {
        let bytes = self.string();
        bytes.into_iter().skip_while(|byte| *byte == 0).collect()
    }
}

/// A file as `ssh-keygen` writes it, without a passphrase (OpenSSH's PROTOCOL.key).
fn of_rustcrypto(file: &KeyFile) -> KeyPair {
    let text = fs::read_to_string(file.path()).expect("a key file");
    let encoded: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    let mut outer = Fields(Base64::decode_vec(&encoded).expect("base64"));
    assert_eq!(outer.skip(15), b"openssh-key-v1\0");
    assert_eq!(
        (outer.string(), outer.string(), outer.string()),
        (b"none".into(), b"none".into(), Vec::new())
    );
    assert_eq!(outer.skip(4), [0, 0, 0, 1]);
    outer.string();
    let mut key = Fields(outer.string());
    key.skip(8);
    match &key.string()[..] {
        b"ssh-ed25519" => {
            key.string();
            let seed = key.string()[..32].try_into().expect("a seed");
            Ed25519Signer::from_seed(&seed).expect("a key").key_pair()
        }
        b"ecdsa-sha2-nistp256" => {
            key.string();
            key.string();
            let (mut scalar, digits) = ([0; 32], key.number());
            scalar[32 - digits.len()..].copy_from_slice(&digits);
            EcdsaP256Signer::from_scalar(&scalar).expect("a key").key_pair()
        }
        b"ssh-rsa" => {
            let [n, e, d, _, p, q] = [(); 6].map(|()| key.number());
            RsaSigner::from_components(&n, &e, &d, &p, &q).expect("a key").key_pair()
        }
        other => panic!("{}", String::from_utf8_lossy(other)),
    }
}
