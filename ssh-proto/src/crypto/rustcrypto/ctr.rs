//! `aes128-ctr` and `aes256-ctr` (RFC 4344 §4) with any MAC, in both orders: encrypt-then-MAC, where the
//! length travels in clear, and RFC 4253 §6.4's encrypt-and-MAC, where it is encrypted too.

use alloc::boxed::Box;
use core::marker::PhantomData;

use aes::{Aes128, Aes256};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use crate::crypto::frame::{Refuse, clear_length, split_tag};
use crate::crypto::{BadTag, CipherAlgorithm, MAX_TAG, Mac, OpenPacket, PacketKeys, PacketShape, SealPacket};

pub(in crate::crypto) static AES128_CTR: Ctr<Ctr128BE<Aes128>> =
    Ctr { name: "aes128-ctr", cipher: PhantomData };
pub(in crate::crypto) static AES256_CTR: Ctr<Ctr128BE<Aes256>> =
    Ctr { name: "aes256-ctr", cipher: PhantomData };

/// A stream cipher that runs on from packet to packet.
pub(in crate::crypto) struct Ctr<C> {
    name: &'static str,
    cipher: PhantomData<fn() -> C>,
}

impl<C> CipherAlgorithm for Ctr<C>
where
    C: KeyIvInit + StreamCipher + StreamCipherSeek + Send + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_len(&self) -> usize {
        C::key_size()
    }

    fn iv_len(&self) -> usize {
        C::iv_size()
    }

    fn is_aead(&self) -> bool {
        false
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        match Direction::<C>::new(keys) {
            Ok(direction) => Box::new(direction),
            Err(refuse) => Box::new(refuse),
        }
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        match Direction::<C>::new(keys) {
            Ok(direction) => Box::new(direction),
            Err(refuse) => Box::new(refuse),
        }
    }
}

struct Direction<C> {
    cipher: C,
    mac: Box<dyn Mac>,
    shape: PacketShape,
}

impl<C: KeyIvInit> Direction<C> {
    fn new(keys: &PacketKeys<'_>) -> Result<Self, Refuse> {
        let shape = PacketShape {
            block: 16,
            length_in_block: keys.mac.is_some_and(|(mac, _)| !mac.is_etm()),
            tag: keys.mac.map_or(0, |(mac, _)| mac.tag_len()),
        };
        match (C::new_from_slices(keys.key, keys.iv), keys.mac) {
            (Ok(cipher), Some((mac, key))) => Ok(Self { cipher, mac: mac.keyed(key), shape }),
            _ => Err(Refuse(shape)),
        }
    }
}

impl<C> Direction<C> {
    /// The bytes that are encrypted, of those the tag covers.
    fn encrypted<'p>(&self, covered: &'p mut [u8]) -> &'p mut [u8] {
        let clear = if self.shape.length_in_block { 0 } else { 4 };
        covered.get_mut(clear..).unwrap_or_default()
    }
}

impl<C: StreamCipher + Send> SealPacket for Direction<C> {
    fn shape(&self) -> PacketShape {
        self.shape
    }

    fn seal(&mut self, seq: u32, packet: &mut [u8]) {
        let Some((covered, tag)) = split_tag(packet, self.shape.tag) else { return };
        let mac_of_plaintext = self.shape.length_in_block;
        if mac_of_plaintext {
            self.mac.sign(seq, covered, tag);
        }
        let body = self.encrypted(covered);
        if self.cipher.try_apply_keystream(body).is_err() {
            // Only after 2^128 blocks.
            body.fill(0);
        }
        if !mac_of_plaintext {
            self.mac.sign(seq, covered, tag);
        }
    }
}

impl<C: StreamCipher + StreamCipherSeek + Send> OpenPacket for Direction<C> {
    fn shape(&self) -> PacketShape {
        self.shape
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, _: u32, head: &[u8]) -> u32 {
        if !self.shape.length_in_block {
            return clear_length(head);
        }
        // Decrypted aside, and the keystream set back, so that `open` finds it where the packet begins.
        let Some(mut length) = head.first_chunk::<4>().copied() else { return 0 };
        let Ok(at) = self.cipher.try_current_pos::<u64>() else { return 0 };
        if self.cipher.try_apply_keystream(&mut length).is_err() || self.cipher.try_seek(at).is_err() {
            return 0;
        }
        clear_length(&length)
    }

    fn length_is_malleable(&self) -> bool {
        self.shape.length_in_block
    }

    fn discard(&mut self, seq: u32, bytes: &mut [u8]) {
        // As OpenSSH does behind a bad packet (packet.c, ssh_packet_stop_discard): the tag is nobody's.
        let mut tag = [0; MAX_TAG];
        if self.cipher.try_apply_keystream(bytes).is_ok()
            && let Some(tag) = tag.get_mut(..self.shape.tag)
        {
            self.mac.sign(seq, bytes, tag);
        }
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        let (covered, tag) = split_tag(packet, self.shape.tag).ok_or(BadTag)?;
        let mac_of_plaintext = self.shape.length_in_block;
        if !mac_of_plaintext {
            self.mac.verify(seq, covered, tag)?;
        }
        self.cipher.try_apply_keystream(self.encrypted(covered)).map_err(|_| BadTag)?;
        if mac_of_plaintext {
            self.mac.verify(seq, covered, tag)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::crypto::MacAlgorithm;

    /// Counts what it is given.
    struct Counting;

    static COUNT: AtomicUsize = AtomicUsize::new(0);

    impl Mac for Counting {
        fn sign(&mut self, _: u32, data: &[u8], tag: &mut [u8]) {
            assert_eq!(tag.len(), 32);
            COUNT.fetch_add(data.len(), Ordering::SeqCst);
        }

        fn verify(&mut self, _: u32, data: &[u8], _: &[u8]) -> Result<(), BadTag> {
            COUNT.fetch_add(data.len(), Ordering::SeqCst);
            Err(BadTag)
        }
    }

    impl MacAlgorithm for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn key_len(&self) -> usize {
            0
        }

        fn tag_len(&self) -> usize {
            32
        }

        fn is_etm(&self) -> bool {
            false
        }

        fn keyed(&self, _: &[u8]) -> Box<dyn Mac> {
            Box::new(Self)
        }
    }

    #[test]
    fn pk_03_what_is_thrown_away_costs_its_mac() {
        let keys = PacketKeys { key: &[1; 16], iv: &[2; 16], mac: Some((&Counting, &[])) };
        let mut opener = AES128_CTR.opener(&keys);
        assert!(opener.length_is_malleable());
        assert_eq!(opener.open(0, &mut [0; 64]), Err(BadTag));
        assert_eq!(COUNT.swap(0, Ordering::SeqCst), 32, "what the tag covers");
        for len in [1, 31, 100_000] {
            opener.discard(0, &mut alloc::vec![0; len]);
            assert_eq!(COUNT.swap(0, Ordering::SeqCst), len);
        }
    }
}
