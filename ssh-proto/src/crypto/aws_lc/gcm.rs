//! `aes128-gcm@openssh.com` and `aes256-gcm@openssh.com`, as in [`rustcrypto`](crate::crypto::rustcrypto).

use alloc::boxed::Box;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};

use crate::crypto::frame::{GcmNonce, Refuse, clear_length, split_tag};
use crate::crypto::{BadTag, CipherAlgorithm, OpenPacket, PacketKeys, PacketShape, SealPacket};

const TAG: usize = 16;
const SHAPE: PacketShape = PacketShape { block: 16, length_in_block: false, tag: TAG };

pub(super) static AES128_GCM: Gcm =
    Gcm { name: "aes128-gcm@openssh.com", algorithm: &AES_128_GCM, key_len: 16 };
pub(super) static AES256_GCM: Gcm =
    Gcm { name: "aes256-gcm@openssh.com", algorithm: &AES_256_GCM, key_len: 32 };

/// AES-GCM over a packet.
pub(super) struct Gcm {
    name: &'static str,
    algorithm: &'static Algorithm,
    key_len: usize,
}

impl CipherAlgorithm for Gcm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_len(&self) -> usize {
        self.key_len
    }

    fn iv_len(&self) -> usize {
        12
    }

    fn is_aead(&self) -> bool {
        true
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        match Direction::new(self.algorithm, keys) {
            Some(direction) => Box::new(direction),
            None => Box::new(Refuse(SHAPE)),
        }
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        match Direction::new(self.algorithm, keys) {
            Some(direction) => Box::new(direction),
            None => Box::new(Refuse(SHAPE)),
        }
    }
}

struct Direction {
    key: LessSafeKey,
    nonce: GcmNonce,
}

impl Direction {
    fn new(algorithm: &'static Algorithm, keys: &PacketKeys<'_>) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(algorithm, keys.key).ok()?);
        Some(Self { key, nonce: GcmNonce::new(keys.iv)? })
    }

    fn nonce(&mut self) -> Nonce {
        Nonce::assume_unique_for_key(self.nonce.next())
    }
}

impl SealPacket for Direction {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn seal(&mut self, _: u32, packet: &mut [u8]) {
        let Some((covered, tag)) = split_tag(packet, TAG) else { return };
        let Some((length, body)) = covered.split_first_chunk_mut::<4>() else { return };
        let nonce = self.nonce();
        match self.key.seal_in_place_separate_tag(nonce, Aad::from(&*length), body) {
            Ok(computed) => tag.copy_from_slice(computed.as_ref()),
            // Only for bodies beyond 64 GiB.
            Err(_) => body.fill(0),
        }
    }
}

impl OpenPacket for Direction {
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
        let nonce = self.nonce();
        let opened = self.key.open_in_place_separate_tag(nonce, Aad::from(&*length), tag, body);
        opened.map(|_| ()).map_err(|_| BadTag)
    }
}
