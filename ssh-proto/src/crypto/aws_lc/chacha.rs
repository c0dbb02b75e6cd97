//! `chacha20-poly1305@openssh.com`, as in [`rustcrypto`](crate::crypto::rustcrypto).

use alloc::boxed::Box;

use aws_lc_rs::aead::chacha20_poly1305_openssh::{KEY_LEN, OpeningKey, SealingKey, TAG_LEN};

use crate::crypto::frame::{Refuse, clear_length, split_tag};
use crate::crypto::{BadTag, CipherAlgorithm, OpenPacket, PacketKeys, PacketShape, SealPacket};

const SHAPE: PacketShape = PacketShape { block: 8, length_in_block: false, tag: TAG_LEN };

/// The cipher.
pub(super) struct ChaCha20Poly1305;

impl CipherAlgorithm for ChaCha20Poly1305 {
    fn name(&self) -> &'static str {
        "chacha20-poly1305@openssh.com"
    }

    fn key_len(&self) -> usize {
        KEY_LEN
    }

    fn iv_len(&self) -> usize {
        0
    }

    fn is_aead(&self) -> bool {
        true
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        match keys.key.try_into() {
            Ok(key) => Box::new(Sealer(SealingKey::new(key))),
            Err(_) => Box::new(Refuse(SHAPE)),
        }
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        match keys.key.try_into() {
            Ok(key) => Box::new(Opener(OpeningKey::new(key))),
            Err(_) => Box::new(Refuse(SHAPE)),
        }
    }
}

struct Sealer(SealingKey);

impl SealPacket for Sealer {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn seal(&mut self, seq: u32, packet: &mut [u8]) {
        let Some((covered, tag)) = split_tag(packet, TAG_LEN) else { return };
        let Ok(tag) = tag.try_into() else { return };
        self.0.seal_in_place(seq, covered, tag);
    }
}

struct Opener(OpeningKey);

impl OpenPacket for Opener {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, seq: u32, head: &[u8]) -> u32 {
        let Some(length) = head.first_chunk().copied() else { return 0 };
        clear_length(&self.0.decrypt_packet_length(seq, length))
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        let (covered, tag) = split_tag(packet, TAG_LEN).ok_or(BadTag)?;
        let tag = (&*tag).try_into().map_err(|_| BadTag)?;
        self.0.open_in_place(seq, covered, tag).map(|_| ()).map_err(|_| BadTag)
    }
}
