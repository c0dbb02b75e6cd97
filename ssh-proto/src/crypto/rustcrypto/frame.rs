//! What all packet protections share: taking a packet apart, and what stands in for a cipher that was
//! keyed wrongly.

use crate::crypto::{BadTag, Mac, OpenPacket, PacketShape, SealPacket};

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
