//! `aes128-gcm@openssh.com` and `aes256-gcm@openssh.com`: RFC 5647's packets under the names that need no
//! MAC negotiated beside them.
//!
//! The length travels in clear as associated data. The nonce is the derived IV, whose last eight bytes
//! count packets; the sequence number has no part in it.

use alloc::boxed::Box;
use core::marker::PhantomData;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};

use crate::crypto::frame::{GcmNonce, Refuse, clear_length, split_tag};
use crate::crypto::{BadTag, CipherAlgorithm, OpenPacket, PacketKeys, PacketShape, SealPacket};

const TAG: usize = 16;
const SHAPE: PacketShape = PacketShape { block: 16, length_in_block: false, tag: TAG };

pub(super) static AES128_GCM: Gcm<Aes128Gcm> = Gcm { name: "aes128-gcm@openssh.com", cipher: PhantomData };
pub(super) static AES256_GCM: Gcm<Aes256Gcm> = Gcm { name: "aes256-gcm@openssh.com", cipher: PhantomData };

/// AES-GCM over a packet.
pub(super) struct Gcm<C> {
    name: &'static str,
    cipher: PhantomData<fn() -> C>,
}

impl<C> CipherAlgorithm for Gcm<C>
where
    C: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + Send + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_len(&self) -> usize {
        C::key_size()
    }

    fn iv_len(&self) -> usize {
        12
    }

    fn is_aead(&self) -> bool {
        true
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        match Direction::<C>::new(keys) {
            Some(direction) => Box::new(direction),
            None => Box::new(Refuse(SHAPE)),
        }
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        match Direction::<C>::new(keys) {
            Some(direction) => Box::new(direction),
            None => Box::new(Refuse(SHAPE)),
        }
    }
}

struct Direction<C> {
    cipher: C,
    nonce: GcmNonce,
}

impl<C: KeyInit> Direction<C> {
    fn new(keys: &PacketKeys<'_>) -> Option<Self> {
        Some(Self { cipher: C::new_from_slice(keys.key).ok()?, nonce: GcmNonce::new(keys.iv)? })
    }
}

impl<C: AeadInOut<NonceSize = U12, TagSize = U16> + Send> SealPacket for Direction<C> {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn seal(&mut self, _: u32, packet: &mut [u8]) {
        let Some((covered, tag)) = split_tag(packet, TAG) else { return };
        let Some((length, body)) = covered.split_first_chunk_mut::<4>() else { return };
        let nonce = self.nonce.next().into();
        match self.cipher.encrypt_inout_detached(&nonce, length, (&mut *body).into()) {
            Ok(computed) => tag.copy_from_slice(&computed),
            // Only for bodies beyond 64 GiB.
            Err(_) => body.fill(0),
        }
    }
}

impl<C: AeadInOut<NonceSize = U12, TagSize = U16> + Send> OpenPacket for Direction<C> {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, _: u32, head: &[u8]) -> u32 {
        clear_length(head)
    }

    fn open(&mut self, _: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        let (covered, tag) = split_tag(packet, TAG).ok_or(BadTag)?;
        let (length, body) = covered.split_first_chunk_mut::<4>().ok_or(BadTag)?;
        let tag = (&*tag).try_into().map_err(|_| BadTag)?;
        let nonce = self.nonce.next().into();
        self.cipher.decrypt_inout_detached(&nonce, length, body.into(), tag).map_err(|_| BadTag)
    }
}
