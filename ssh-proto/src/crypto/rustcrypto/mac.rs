//! `hmac-sha2-256` and `hmac-sha2-512` (RFC 6668), also in encrypt-then-MAC form.

use alloc::boxed::Box;
use core::marker::PhantomData;

use hmac::KeyInit;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::frame::Refuse;
use crate::crypto::{BadTag, Mac, MacAlgorithm, PacketShape};

pub(super) static SHA256: Hmac<hmac::Hmac<Sha256>> = Hmac::new("hmac-sha2-256", false);
pub(super) static SHA512: Hmac<hmac::Hmac<Sha512>> = Hmac::new("hmac-sha2-512", false);
pub(super) static SHA256_ETM: Hmac<hmac::Hmac<Sha256>> = Hmac::new("hmac-sha2-256-etm@openssh.com", true);
pub(super) static SHA512_ETM: Hmac<hmac::Hmac<Sha512>> = Hmac::new("hmac-sha2-512-etm@openssh.com", true);

/// HMAC with a key as long as its tag.
pub(super) struct Hmac<M> {
    name: &'static str,
    etm: bool,
    mac: PhantomData<fn() -> M>,
}

impl<M> Hmac<M> {
    const fn new(name: &'static str, etm: bool) -> Self {
        Self { name, etm, mac: PhantomData }
    }
}

impl<M: hmac::Mac + KeyInit + Clone + Send + 'static> MacAlgorithm for Hmac<M> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_len(&self) -> usize {
        M::output_size()
    }

    fn tag_len(&self) -> usize {
        M::output_size()
    }

    fn is_etm(&self) -> bool {
        self.etm
    }

    fn keyed(&self, key: &[u8]) -> Box<dyn Mac> {
        match M::new_from_slice(key) {
            Ok(mac) => Box::new(Keyed(mac)),
            Err(_) => Box::new(Refuse(PacketShape { block: 8, length_in_block: false, tag: self.tag_len() })),
        }
    }
}

/// The state after the key, from which every packet's computation starts.
struct Keyed<M>(M);

impl<M: hmac::Mac + Clone> Keyed<M> {
    fn tag(&self, seq: u32, data: &[u8]) -> hmac::digest::Output<M> {
        self.0.clone().chain_update(seq.to_be_bytes()).chain_update(data).finalize().into_bytes()
    }
}

impl<M: hmac::Mac + Clone + Send> Mac for Keyed<M> {
    fn sign(&mut self, seq: u32, data: &[u8], tag: &mut [u8]) {
        for (to, from) in tag.iter_mut().zip(self.tag(seq, data)) {
            *to = from;
        }
    }

    fn verify(&mut self, seq: u32, data: &[u8], tag: &[u8]) -> Result<(), BadTag> {
        if self.tag(seq, data).as_slice().ct_eq(tag).into() { Ok(()) } else { Err(BadTag) }
    }
}
