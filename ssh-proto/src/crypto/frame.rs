//! What the packet protections of all providers share: taking a packet apart, the nonce of AES-GCM, and what
//! stands in for a cipher that was keyed wrongly.

use super::{BadTag, Mac, OpenPacket, PacketShape, SealPacket};

/// Divides a packet into what a tag covers (the length and the padded part) and the tag. `None` when it is
/// too short for a length and a tag.
pub(super) fn split_tag(packet: &mut [u8], tag: usize) -> Option<(&mut [u8], &mut [u8])> {
    let covered = packet.len().checked_sub(tag).filter(|&covered| covered >= 4)?;
    packet.split_at_mut_checked(covered)
}

/// The `packet_length` at the beginning of `head`, or 0, which no packet has, when there are no four bytes.
pub(super) fn clear_length(head: &[u8]) -> u32 {
    head.first_chunk().map_or(0, |length| u32::from_be_bytes(*length))
}

/// Stands in for a cipher or MAC that was given key material of a length it did not ask for: what it
/// seals is zeros, and it opens nothing.
pub(super) struct Refuse(pub(super) PacketShape);

impl SealPacket for Refuse {
    fn shape(&self) -> PacketShape {
        self.0
    }

    fn seal(&mut self, _: u32, packet: &mut [u8]) {
        packet.fill(0);
    }
}

impl OpenPacket for Refuse {
    fn shape(&self) -> PacketShape {
        self.0
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, _: u32, _: &[u8]) -> u32 {
        0
    }

    fn open(&mut self, _: u32, _: &mut [u8]) -> Result<(), BadTag> {
        Err(BadTag)
    }
}

impl Mac for Refuse {
    fn sign(&mut self, _: u32, _: &[u8], tag: &mut [u8]) {
        tag.fill(0);
    }

    fn verify(&mut self, _: u32, _: &[u8], _: &[u8]) -> Result<(), BadTag> {
        Err(BadTag)
    }
}

/// The nonce of AES-GCM (RFC 5647 §7.1): four fixed bytes and a counter of eight, which goes around after 2^64 packets from wherever it starts.
pub(super) struct GcmNonce {
    fixed: [u8; 4],
    counter: u64,
}

impl GcmNonce {
    pub(super) fn new(iv: &[u8]) -> Option<Self> {
        let (fixed, counter) = iv.split_first_chunk()?;
        Some(Self { fixed: *fixed, counter: u64::from_be_bytes(counter.try_into().ok()?) })
    }

    pub(super) fn next(&mut self) -> [u8; 12] {
        let mut nonce = [0; 12];
        let counter = self.counter.to_be_bytes();
        for (to, from) in nonce.iter_mut().zip(self.fixed.iter().chain(&counter)) {
            *to = *from;
        }
        self.counter = self.counter.wrapping_add(1);
        nonce
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn c12_the_nonce_counts_its_last_eight_bytes_and_never_repeats() {
        let mut nonce = GcmNonce::new(&[1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]).unwrap();
        assert_eq!(nonce.next(), [1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(nonce.next(), [1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        // The fixed bytes take no carry.
        assert_eq!(nonce.next(), [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(nonce.next(), [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut seen = BTreeSet::new();
        assert!((0..100_000).all(|_| seen.insert(nonce.next())));
    }

    #[test]
    fn an_iv_is_twelve_bytes() {
        for len in [0, 4, 11, 13, 16] {
            assert!(GcmNonce::new(&[0; 16][..len]).is_none());
        }
    }
}
