//! Packets before the first NEWKEYS: neither encrypted nor authenticated.

use crate::crypto::{BadTag, OpenPacket, PacketShape, SealPacket};

pub(crate) struct Plain;

const SHAPE: PacketShape = PacketShape { block: 8, length_in_block: true, tag: 0 };

impl SealPacket for Plain {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn seal(&mut self, _seq: u32, _packet: &mut [u8]) {}
}

impl OpenPacket for Plain {
    fn shape(&self) -> PacketShape {
        SHAPE
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, _seq: u32, head: &[u8]) -> u32 {
        head.first_chunk().map_or(0, |length| u32::from_be_bytes(*length))
    }

    fn open(&mut self, _seq: u32, _packet: &mut [u8]) -> Result<(), BadTag> {
        Ok(())
    }
}
