//! The provider over RustCrypto with RSA, whose verifications are counted, for a test that has them to itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use ssh_proto::KeyError;
use ssh_proto::crypto::{BadSignature, Provider, SignatureAlgorithm, rustcrypto};

/// The provider.
pub static PROVIDER: Provider = Provider {
    name: "verifying",
    deterministic: rustcrypto::PROVIDER.deterministic,
    kex: rustcrypto::PROVIDER.kex,
    ciphers: rustcrypto::PROVIDER.ciphers,
    macs: rustcrypto::PROVIDER.macs,
    signatures: &[&Counted(0), &Counted(1), &Counted(2), &Counted(3)],
};

static VERIFICATIONS: AtomicUsize = AtomicUsize::new(0);

/// How many signatures were verified since this was asked last, whatever came of it.
pub fn verifications() -> usize {
    VERIFICATIONS.swap(0, Ordering::SeqCst)
}

/// An algorithm by its place.
struct Counted(usize);

impl Counted {
    fn inner(&self) -> &'static dyn SignatureAlgorithm {
        rustcrypto::PROVIDER.signatures[self.0]
    }
}

impl SignatureAlgorithm for Counted {
    fn name(&self) -> &'static str {
        self.inner().name()
    }

    fn key_type(&self) -> &'static str {
        self.inner().key_type()
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        self.inner().check_key(key)
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        VERIFICATIONS.fetch_add(1, Ordering::SeqCst);
        self.inner().verify(key, message, signature)
    }
}
