//! `chacha20-poly1305@openssh.com`: two ChaCha20 streams with 64-bit nonces, one for the length and one
//! for the rest, and a Poly1305 tag over both ciphertexts.
//!
//! The derived key's first half is for the padded part and the tag, its second half for the length. The
//! nonce is the sequence number. The first block of the first stream gives the Poly1305 key, the padded part
//! begins with the second.

use alloc::boxed::Box;

use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::frame::{Refuse, clear_length, split_tag};
use crate::crypto::{BadTag, CipherAlgorithm, OpenPacket, PacketKeys, PacketShape, SealPacket};

const TAG: usize = 16;
const SHAPE: PacketShape = PacketShape { block: 8, length_in_block: false, tag: TAG };

/// The cipher.
pub(super) struct ChaCha20Poly1305;

impl CipherAlgorithm for ChaCha20Poly1305 {
    fn name(&self) -> &'static str {
        "chacha20-poly1305@openssh.com"
    }

    fn key_len(&self) -> usize {
        64
    }

    fn iv_len(&self) -> usize {
        0
    }

    fn is_aead(&self) -> bool {
        true
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        match Direction::new(keys.key) {
            Some(direction) => Box::new(direction),
            None => Box::new(Refuse(SHAPE)),
        }
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        match Direction::new(keys.key) {
            Some(direction) => Box::new(direction),
            None => Box::new(Refuse(SHAPE)),
        }
    }
}

struct Direction {
    body_key: Zeroizing<[u8; 32]>,
    length_key: Zeroizing<[u8; 32]>,
}

impl Direction {
    fn new(key: &[u8]) -> Option<Self> {
        let (body_key, length_key) = key.split_first_chunk()?;
        let length_key = length_key.try_into().ok()?;
        Some(Self { body_key: Zeroizing::new(*body_key), length_key: Zeroizing::new(length_key) })
    }

    fn apply_to_length(&self, seq: u32, length: &mut [u8; 4]) {
        stream(&self.length_key, seq).apply_keystream(length);
    }

    /// The stream of the padded part, at its second block, and the authenticator from its first.
    fn body(&self, seq: u32) -> (ChaCha20Legacy, Poly1305) {
        let mut stream = stream(&self.body_key, seq);
        let mut block = Zeroizing::new([0; 64]);
        stream.apply_keystream(block.as_mut_slice());
        let key = block.first_chunk::<32>().copied().map(Zeroizing::new).unwrap_or_default();
        (stream, Poly1305::new((&*key).into()))
    }
}

fn stream(key: &[u8; 32], seq: u32) -> ChaCha20Legacy {
    ChaCha20Legacy::new(key.into(), &u64::from(seq).to_be_bytes().into())
}

fn tag_of(mut authenticator: Poly1305, data: &[u8]) -> poly1305::Tag {
    // Whole blocks go through the parallel backend, which `compute_unpadded` does not use.
    let (blocks, rest) = poly1305::Block::slice_as_chunks(data);
    authenticator.update(blocks);
    authenticator.compute_unpadded(rest)
}

impl SealPacket for Direction {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn seal(&mut self, seq: u32, packet: &mut [u8]) {
        let Some((covered, tag)) = split_tag(packet, TAG) else { return };
        let Some((length, body)) = covered.split_first_chunk_mut() else { return };
        let (mut stream, authenticator) = self.body(seq);
        self.apply_to_length(seq, length);
        stream.apply_keystream(body);
        tag.copy_from_slice(&tag_of(authenticator, covered));
    }
}

impl OpenPacket for Direction {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, seq: u32, head: &[u8]) -> u32 {
        let Some(mut length) = head.first_chunk().copied() else { return 0 };
        self.apply_to_length(seq, &mut length);
        clear_length(&length)
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        let (covered, tag) = split_tag(packet, TAG).ok_or(BadTag)?;
        let (mut stream, authenticator) = self.body(seq);
        if !bool::from(tag_of(authenticator, covered).as_slice().ct_eq(tag)) {
            return Err(BadTag);
        }
        let (_, body) = covered.split_first_chunk_mut::<4>().ok_or(BadTag)?;
        stream.apply_keystream(body);
        Ok(())
    }
}
