//! Receiving: from bytes to verified payloads.
//!
//! ```text
//! Head ── length known and in bounds ──▶ Body ── tag verifies ──▶ Payload, Head
//!   └──── bad length, malleable cipher ──▶ Discard ◀── bad tag ───┘ (then the same error for both)
//! ```

use alloc::boxed::Box;

use bytes::{Buf, Bytes, BytesMut};
use zeroize::Zeroize;

use super::plain::Plain;
use super::{MAX_PACKET, Volume};
use crate::crypto::{BadTag, OpenPacket, PacketShape};
use crate::error::PeerMisbehaved;

/// Proof that a packet's tag was verified.
#[derive(Debug)]
struct MacVerified(());

/// A packet's payload. It exists only behind a verified tag.
#[derive(Debug)]
pub(crate) struct Payload {
    bytes: Bytes,
    _verified: MacVerified,
}

impl Payload {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Wipes what may have been a password. Payloads of an authenticated peer share their buffer with others
    /// and stay.
    pub(crate) fn wipe(self) {
        if let Ok(mut bytes) = self.bytes.try_into_mut() {
            bytes.as_mut().zeroize();
        }
    }
}

/// A received packet.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Its sequence number, for UNIMPLEMENTED.
    pub(crate) seq: u32,
    pub(crate) payload: Payload,
}

enum Stage {
    /// The length is not known yet.
    Head,
    /// `packet_length`, checked.
    Body(usize),
    /// CVE-2008-5161: so many more bytes are taken before the error shows, whatever it is.
    Discard(usize),
}

pub(crate) struct Incoming {
    opener: Box<dyn OpenPacket>,
    shape: PacketShape,
    stage: Stage,
    seq: u32,
    volume: Volume,
    max_packet: usize,
    /// Payloads may hold passwords, and leave the caller's buffer.
    secret: bool,
}

impl Incoming {
    pub(crate) fn new(max_packet: usize) -> Self {
        let opener = Box::new(Plain);
        Self {
            shape: opener.shape(),
            opener,
            stage: Stage::Head,
            seq: 0,
            volume: Volume::default(),
            max_packet,
            secret: true,
        }
    }

    /// What arrived under the current key.
    pub(crate) fn volume(&self) -> Volume {
        self.volume
    }

    /// For tests: nobody sends 2^31 packets.
    #[cfg(feature = "raw")]
    pub(crate) fn volume_mut(&mut self) -> &mut Volume {
        &mut self.volume
    }

    /// The peer is authenticated: larger packets are taken, and no more passwords come.
    pub(crate) fn authenticated(&mut self) {
        self.max_packet = MAX_PACKET;
        self.secret = false;
    }

    /// The peer's NEWKEYS was read: its next packet is under the new key. Under strict key exchange the
    /// sequence number starts again.
    pub(crate) fn new_keys(&mut self, opener: Box<dyn OpenPacket>, strict: bool) {
        self.shape = opener.shape();
        self.opener = opener;
        self.volume = Volume::default();
        if strict {
            self.seq = 0;
        }
    }

    /// How many more bytes complete what is being read, given that `have` are there.
    pub(crate) fn hint(&self, have: usize) -> usize {
        let need = match self.stage {
            Stage::Head => self.opener.head_len(),
            Stage::Body(length) => self.whole(length),
            Stage::Discard(left) => left,
        };
        need.saturating_sub(have).max(1)
    }

    /// Takes one whole packet off the front of `buf`, verified and decrypted in place.
    pub(crate) fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, PeerMisbehaved> {
        if let Stage::Head = self.stage {
            let Some(head) = buf.get(..self.opener.head_len()) else { return Ok(None) };
            let length = self.opener.packet_length(self.seq, head) as usize;
            self.stage = match self.check_length(length) {
                Ok(()) => Stage::Body(length),
                Err(_) if self.opener.length_is_malleable() => Stage::Discard(self.discard_len()),
                Err(error) => return Err(error),
            };
        }
        match self.stage {
            Stage::Head => Ok(None),
            Stage::Discard(left) => self.discard(left, buf),
            Stage::Body(length) => {
                let total = self.whole(length);
                if buf.len() < total {
                    return Ok(None);
                }
                let mut packet = buf.split_to(total);
                match self.opener.open(self.seq, &mut packet) {
                    Ok(()) => self.accept(packet, length, MacVerified(())).map(Some),
                    Err(BadTag) if self.opener.length_is_malleable() => {
                        self.discard(self.discard_len().saturating_sub(total), buf)
                    }
                    Err(BadTag) => Err(PeerMisbehaved::BadMac),
                }
            }
        }
    }

    /// The bytes of a packet of this `packet_length`.
    fn whole(&self, length: usize) -> usize {
        length.saturating_add(4).saturating_add(self.shape.tag)
    }

    fn check_length(&self, length: usize) -> Result<(), PeerMisbehaved> {
        if length < 5 {
            return Err(PeerMisbehaved::PacketTooShort);
        }
        if length > self.max_packet {
            return Err(PeerMisbehaved::PacketTooLong);
        }
        let padded = if self.shape.length_in_block { length.saturating_add(4) } else { length };
        if !padded.is_multiple_of(self.shape.block) {
            return Err(PeerMisbehaved::PacketMisaligned);
        }
        // Body and length of the packet must hold what the opener reads as its head.
        if self.whole(length) < self.opener.head_len() {
            return Err(PeerMisbehaved::PacketTooShort);
        }
        Ok(())
    }

    /// The largest packet there could be, so that the error comes at one place in the stream, and after as much
    /// work.
    fn discard_len(&self) -> usize {
        self.whole(MAX_PACKET)
    }

    fn discard(&mut self, left: usize, buf: &mut BytesMut) -> Result<Option<Packet>, PeerMisbehaved> {
        let taken = left.min(buf.len());
        self.opener.discard(self.seq, buf.get_mut(..taken).unwrap_or_default());
        buf.advance(taken);
        self.stage = Stage::Discard(left.saturating_sub(taken));
        if taken == left { Err(PeerMisbehaved::BadMac) } else { Ok(None) }
    }

    fn accept(
        &mut self,
        mut packet: BytesMut,
        length: usize,
        verified: MacVerified,
    ) -> Result<Packet, PeerMisbehaved> {
        let padding = usize::from(packet.get(4).copied().unwrap_or(0));
        let payload_len = length.checked_sub(1 + padding).ok_or(PeerMisbehaved::BadPadding)?;
        if padding < 4 {
            return Err(PeerMisbehaved::BadPadding);
        }
        if payload_len == 0 {
            return Err(PeerMisbehaved::EmptyPayload);
        }
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        self.volume.count(length);
        self.stage = Stage::Head;
        let range = 5..payload_len.saturating_add(5);
        let bytes = if self.secret {
            let copy = Bytes::from(packet.get(range).unwrap_or_default().to_vec());
            packet.as_mut().zeroize();
            copy
        } else {
            packet.freeze().slice(range)
        };
        Ok(Packet { seq, payload: Payload { bytes, _verified: verified } })
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn next(bytes: &[u8]) -> Result<Option<Packet>, PeerMisbehaved> {
        Incoming::new(1000).next(&mut BytesMut::from(bytes))
    }

    fn packet(length: u32, padding: u8, rest: usize) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.push(padding);
        bytes.extend((0..rest).map(|_| 2));
        bytes
    }

    #[test]
    fn pk_01_lengths_are_bounded_before_anything_is_done_with_them() {
        use PeerMisbehaved::*;
        for (length, error) in [
            (0, PacketTooShort),
            (1, PacketTooShort),
            (4, PacketTooShort),
            (5, PacketMisaligned),
            (13, PacketMisaligned),
            (1004, PacketTooLong),
            (1 << 31, PacketTooLong),
            (u32::MAX, PacketTooLong),
        ] {
            assert_eq!(next(&length.to_be_bytes()).unwrap_err(), error, "{length}");
        }
        assert!(next(&996u32.to_be_bytes()).unwrap().is_none());
    }

    #[test]
    fn pk_12_sequence_numbers_wrap_and_start_again_only_under_strict_key_exchange() {
        let mut incoming = Incoming::new(1000);
        let seq = |incoming: &mut Incoming| {
            incoming.next(&mut BytesMut::from(&packet(12, 4, 11)[..])).unwrap().unwrap().seq
        };
        assert_eq!((seq(&mut incoming), seq(&mut incoming)), (0, 1));
        incoming.new_keys(Box::new(Plain), false);
        assert_eq!(seq(&mut incoming), 2);
        incoming.seq = u32::MAX;
        assert_eq!((seq(&mut incoming), seq(&mut incoming)), (u32::MAX, 0));
        incoming.new_keys(Box::new(Plain), true);
        assert_eq!(seq(&mut incoming), 0);
    }

    #[test]
    fn pk_02_padding_leaves_a_payload_and_has_four_bytes() {
        use PeerMisbehaved::*;
        for (padding, error) in
            [(0, BadPadding), (3, BadPadding), (11, EmptyPayload), (12, BadPadding), (255, BadPadding)]
        {
            assert_eq!(next(&packet(12, padding, 11)).unwrap_err(), error, "{padding}");
        }
        let read = next(&packet(12, 4, 11)).unwrap().unwrap();
        assert_eq!(read.payload.as_slice(), [2; 7]);
    }

    /// An opener that believes no tag, and counts what it was given.
    struct Counting(Arc<AtomicUsize>);

    const TAG: usize = 16;

    impl OpenPacket for Counting {
        fn shape(&self) -> PacketShape {
            PacketShape { block: 16, length_in_block: true, tag: TAG }
        }

        fn head_len(&self) -> usize {
            4
        }

        fn packet_length(&mut self, _: u32, head: &[u8]) -> u32 {
            u32::from_be_bytes(head.try_into().unwrap())
        }

        fn length_is_malleable(&self) -> bool {
            true
        }

        fn open(&mut self, _: u32, packet: &mut [u8]) -> Result<(), BadTag> {
            self.0.fetch_add(packet.len(), Ordering::SeqCst);
            Err(BadTag)
        }

        fn discard(&mut self, _: u32, bytes: &mut [u8]) {
            self.0.fetch_add(bytes.len(), Ordering::SeqCst);
        }
    }

    #[test]
    fn pk_03_a_bad_length_costs_as_many_bytes_of_work_as_a_bad_tag() {
        let lengths = [0, 4, 5, 12, 28, 60, 988, 35_000, MAX_PACKET - 4, MAX_PACKET + 12, 1 << 30];
        for length in lengths {
            for piece in [1, 7, 4096, 1 << 20] {
                let work = Arc::new(AtomicUsize::new(0));
                let mut incoming = Incoming::new(MAX_PACKET);
                incoming.new_keys(Box::new(Counting(work.clone())), true);
                let mut buf = BytesMut::new();
                let mut left = 4 + MAX_PACKET + TAG;
                let mut head = u32::try_from(length).unwrap().to_be_bytes().into_iter();
                while left > 0 {
                    let take = piece.min(left);
                    buf.extend((0..take).map(|_| head.next().unwrap_or(0)));
                    left -= take;
                    match incoming.next(&mut buf) {
                        Ok(taken) => assert!(taken.is_none() && left > 0, "{length} {piece}"),
                        Err(rule) => {
                            assert_eq!((rule, left), (PeerMisbehaved::BadMac, 0), "{length} {piece}");
                        }
                    }
                }
                assert_eq!(work.load(Ordering::SeqCst), 4 + MAX_PACKET + TAG, "{length} {piece}");
            }
        }
    }

    #[test]
    fn the_hint_says_what_is_missing() {
        let mut incoming = Incoming::new(1000);
        let mut buf = BytesMut::from(&[0, 0][..]);
        assert_eq!(incoming.hint(buf.len()), 2);
        buf.extend_from_slice(&[0, 12, 4]);
        assert!(incoming.next(&mut buf).unwrap().is_none());
        assert_eq!(incoming.hint(buf.len()), 11);
    }
}
