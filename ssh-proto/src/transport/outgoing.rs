//! Sending: from payloads to sealed bytes in one append-only buffer.
//!
//! ```text
//! Open ── our KEXINIT ──▶ Exchange ── our NEWKEYS (new keys at once) ──▶ Open
//! ```
//!
//! Packets of the layers above pass only through [`Outgoing::service`], which is `None` during an exchange:
//! RFC 4253 §7.1 is a matter of types here.

use alloc::boxed::Box;

use bytes::{Buf, BufMut, BytesMut};
use zeroize::Zeroize;

use super::plain::Plain;
use super::{MAX_PACKETS_PER_KEY, Volume};
use crate::copy::append;
use crate::crypto::{PacketShape, SealPacket};
use crate::entropy::{Entropy, EntropyError};
use crate::kex::proof::KexProof;
use crate::msg::Message;
use crate::msg::kex::NewKeys;

/// Why nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFault {
    Entropy,
    KeyExhausted,
    /// A provider or the random source panicked inside a packet, or the packet cannot be padded.
    Interrupted,
}

/// The embedder's random source, and a pool drawn from it for padding: one call per block, not per packet.
pub(crate) struct Random {
    source: Box<dyn Entropy + Send>,
    pool: [u8; 512],
    used: usize,
    failed: bool,
}

impl Random {
    fn new(source: Box<dyn Entropy + Send>) -> Self {
        Self { source, pool: [0; 512], used: 512, failed: false }
    }

    fn padding(&mut self, out: &mut BytesMut, len: usize) -> Result<(), EntropyError> {
        if self.pool.len().saturating_sub(self.used) < len {
            let Self { source, pool, .. } = self;
            if source.fill(pool).is_err() {
                self.failed = true;
                return Err(EntropyError);
            }
            self.used = 0;
        }
        let end = self.used.saturating_add(len);
        out.put_slice(self.pool.get(self.used..end).ok_or(EntropyError)?);
        self.used = end;
        Ok(())
    }
}

impl Entropy for Random {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        let result = self.source.fill(out);
        self.failed |= result.is_err();
        result
    }
}

/// What a packet has before its payload: its length and that of its padding.
const HEAD: usize = 5;
/// The least padding of a packet, RFC 4253 §6.
const MIN_PADDING: usize = 4;

/// What goes out behind the last byte below the output limit: a packet, and what no limit holds up.
const OVER: usize = 64 * 1024;
/// The room for a message of a layer above whose size is not said.
const MESSAGE: usize = 512;
/// The room for a message of the transport or a key exchange whose size is not said.
const EXCHANGE: usize = 4 * 1024;

pub(crate) struct Outgoing {
    /// Never advanced, so that its capacity is all of it. Only `make_room` lets it grow, but for a message larger
    /// than it was said to be.
    out: BytesMut,
    /// How much of `out` was consumed.
    head: usize,
    /// How much services put in, but for their last packet.
    limit: usize,
    /// Bytes traded away by `swap` and not reported as sent yet.
    swapped: usize,
    sealer: Box<dyn SealPacket>,
    shape: PacketShape,
    seq: u32,
    volume: Volume,
    max_bytes: u64,
    pub(crate) random: Random,
    in_exchange: bool,
    fault: Option<SendFault>,
    /// Something was consumed since the mark was taken.
    progress: bool,
}

impl Outgoing {
    /// `max_bytes` is what one key may carry at the very most, `limit` the output limit.
    pub(crate) fn new(entropy: Box<dyn Entropy + Send>, max_bytes: u64, limit: usize) -> Self {
        let sealer = Box::new(Plain);
        Self {
            out: BytesMut::new(),
            head: 0,
            limit,
            swapped: 0,
            shape: sealer.shape(),
            sealer,
            seq: 0,
            volume: Volume::default(),
            max_bytes,
            random: Random::new(entropy),
            in_exchange: true,
            fault: None,
            progress: false,
        }
    }

    /// Why sending has ended, if it has.
    pub(crate) fn fault(&self) -> Option<SendFault> {
        if self.random.failed { Some(SendFault::Entropy) } else { self.fault }
    }

    /// What was sent under the current key.
    pub(crate) fn volume(&self) -> Volume {
        self.volume
    }

    /// For tests: nobody sends 2^31 packets.
    #[cfg(feature = "raw")]
    pub(crate) fn volume_mut(&mut self) -> &mut Volume {
        &mut self.volume
    }

    /// Bytes not reported as sent, swapped ones included.
    pub(crate) fn pending(&self) -> usize {
        self.swapped.saturating_add(self.output().len())
    }

    pub(crate) fn output(&self) -> &[u8] {
        self.out.get(self.head..).unwrap_or_default()
    }

    /// Bytes of the buffer, those before the output included.
    pub(crate) fn capacity(&self) -> usize {
        self.out.capacity()
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.progress |= n > 0;
        let from_swapped = n.min(self.swapped);
        self.swapped = self.swapped.saturating_sub(from_swapped);
        let rest = n.saturating_sub(from_swapped).min(self.output().len());
        self.head = self.head.saturating_add(rest);
        if self.head >= self.out.len() {
            self.out.clear();
            self.head = 0;
        }
    }

    /// Lets so many bytes be appended without another allocation.
    ///
    /// To grow over what was consumed would double it too. A move copies all that is unsent, so there is one in
    /// place only when half as much was sent since the last, and else into a buffer with half as much room again:
    /// however slowly a peer takes it, a byte is copied a few times, and the buffer is at most half as large again
    /// as its contents ever were. One that is sent whole or swapped needs no such room.
    fn make_room(&mut self, needed: usize) {
        if self.out.capacity().saturating_sub(self.out.len()) >= needed {
            return;
        }
        let unsent = self.output().len();
        let wanted = unsent.saturating_add(needed);
        if self.head >= unsent / 2 && self.out.capacity() >= wanted {
            self.out.copy_within(self.head.., 0);
            self.out.truncate(unsent);
        } else {
            let most = self.limit.saturating_add(OVER);
            let size = match self.head {
                0 if wanted <= most => wanted.saturating_mul(2).min(most),
                _ => wanted.saturating_add(wanted / 2),
            };
            let mut larger = BytesMut::with_capacity(size);
            append(&mut larger, self.output());
            self.out = larger;
        }
        self.head = 0;
    }

    /// Trades the pending bytes for an empty buffer. While a traded buffer is not consumed, nothing happens.
    pub(crate) fn swap(&mut self, spare: &mut BytesMut) {
        if self.swapped == 0 && spare.is_empty() {
            self.out.advance(self.head);
            self.head = 0;
            core::mem::swap(&mut self.out, spare);
            self.swapped = spare.len();
            // What was taken off its front counts again.
            let shown = self.out.capacity();
            let _ = self.out.try_reclaim(shown.saturating_add(1));
        }
    }

    /// Whether the transport took anything since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        core::mem::take(&mut self.progress)
    }

    /// Drops what was not sent.
    pub(crate) fn clear(&mut self) {
        self.out = BytesMut::new();
        self.head = 0;
        self.swapped = 0;
    }

    /// Gives the buffer back when it is empty and large.
    pub(crate) fn shrink(&mut self) {
        const IDLE: usize = 4096;
        if self.out.is_empty() && self.out.capacity() > IDLE {
            self.out = BytesMut::new();
        }
    }

    /// Appends bytes that are no packet: the identification line.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.out.put_slice(bytes);
    }

    /// A transport or key exchange message (1–49 without 5–7): legal at any time.
    pub(crate) fn transport(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.packet(EXCHANGE, write);
    }

    /// The same, of about `size` bytes.
    pub(crate) fn transport_with(&mut self, size: usize, write: impl FnOnce(&mut BytesMut)) {
        self.packet(size, write);
    }

    /// Whether services may send now.
    pub(crate) fn may_serve(&self) -> bool {
        !self.in_exchange && self.fault().is_none()
    }

    /// Nothing is sealed any more: the key goes, what was sealed stays.
    pub(crate) fn retire(&mut self) {
        self.sealer = Box::new(Plain);
        self.in_exchange = true;
    }

    /// The way out for all other messages, unless an exchange is under way.
    pub(crate) fn service(&mut self) -> Option<ServiceSender<'_>> {
        if self.may_serve() { Some(ServiceSender(self)) } else { None }
    }

    /// Our KEXINIT goes out: services wait.
    pub(crate) fn begin_exchange(&mut self) {
        self.in_exchange = true;
    }

    /// Sends NEWKEYS under the old key and takes the new one. Under strict key exchange the sequence number
    /// starts again.
    pub(crate) fn new_keys(&mut self, _proof: KexProof, sealer: Box<dyn SealPacket>, strict: bool) {
        self.transport(|out| NewKeys {}.encode(out));
        self.shape = sealer.shape();
        self.sealer = sealer;
        self.volume = Volume::default();
        self.in_exchange = false;
        if strict {
            self.seq = 0;
        }
    }

    /// The bytes of a packet with so many bytes of payload.
    pub(crate) fn packet_len(&self, payload: usize) -> usize {
        self.counted_len(payload).saturating_add(4).saturating_add(self.shape.tag)
    }

    /// What such a packet counts of the [volume](Self::volume) of its key.
    pub(crate) fn counted_len(&self, payload: usize) -> usize {
        payload.saturating_add(1).saturating_add(padding_of(&self.shape, payload))
    }

    /// One packet. `size` is how many payload bytes `write` will append, as far as known.
    fn packet(&mut self, size: usize, write: impl FnOnce(&mut BytesMut)) {
        if self.fault().is_some() {
            return;
        }
        // RFC 4344 §3.1: never near the end of the sequence numbers under one key.
        if self.volume.packets >= MAX_PACKETS_PER_KEY || self.volume.bytes >= self.max_bytes {
            self.fault = Some(SendFault::KeyExhausted);
            return;
        }
        // Should a provider panic in here, or name a block that no padding fills, this connection sends nothing any
        // more: the embedder may go on with it, and no packet is left out.
        self.fault = Some(SendFault::Interrupted);
        let around = self.shape.block.saturating_add(self.shape.tag).saturating_add(HEAD + MIN_PADDING);
        self.make_room(size.saturating_add(around));
        let mut unsealed = Unsealed { start: self.out.len(), out: &mut self.out, sealed: false };
        unsealed.out.put_bytes(0, HEAD);
        write(unsealed.out);
        let payload = unsealed.out.len().saturating_sub(unsealed.start).saturating_sub(HEAD);
        let padding = padding_of(&self.shape, payload);
        let length = payload.saturating_add(padding).saturating_add(1);
        let pad = u8::try_from(padding).map_err(|_| EntropyError);
        let pad = pad.and_then(|pad| self.random.padding(unsealed.out, padding).map(|()| pad));
        if let Ok(pad) = pad {
            unsealed.out.put_bytes(0, self.shape.tag);
            let packet = unsealed.out.get_mut(unsealed.start..).unwrap_or_default();
            if let Some((head, rest)) = packet.split_first_chunk_mut::<4>() {
                *head = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
                if let Some(first) = rest.first_mut() {
                    *first = pad;
                }
            }
            self.sealer.seal(self.seq, packet);
            unsealed.sealed = true;
            self.seq = self.seq.wrapping_add(1);
            self.volume.count(length);
            self.fault = None;
        }
    }
}

/// The padding of a packet with so many bytes of payload: as little as there may be.
fn padding_of(shape: &PacketShape, payload: usize) -> usize {
    let head = if shape.length_in_block { HEAD } else { 1 };
    // A provider that names no block size pads to none.
    let over = payload.saturating_add(head).checked_rem(shape.block).unwrap_or(0);
    let padding = shape.block.saturating_sub(over);
    if padding < MIN_PADDING { padding.saturating_add(shape.block) } else { padding }
}

/// A packet in the output that is plain text yet. Dropped before it is sealed, it is gone.
struct Unsealed<'a> {
    out: &'a mut BytesMut,
    start: usize,
    sealed: bool,
}

impl Drop for Unsealed<'_> {
    fn drop(&mut self) {
        if !self.sealed {
            // It may be all there: cut off, it would be left in memory that is used again.
            if let Some(plain) = self.out.get_mut(self.start..) {
                plain.zeroize();
            }
            self.out.truncate(self.start);
        }
    }
}

/// The right to send messages of the layers above the transport. [`Outgoing::service`] gives it; who was given none
/// has none, for the field is private.
pub(crate) struct ServiceSender<'a>(&'a mut Outgoing);

impl ServiceSender<'_> {
    /// The sequence number of the next packet.
    pub(crate) fn sequence(&self) -> u32 {
        self.0.seq
    }

    /// Sends a message.
    pub(crate) fn send<'m>(&mut self, message: &impl Message<'m>) {
        self.0.packet(MESSAGE, |out| message.encode(out));
    }

    /// Sends a payload written by `write`, of about `size` bytes.
    pub(crate) fn send_with(&mut self, size: usize, write: impl FnOnce(&mut BytesMut)) {
        self.0.packet(size, write);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 256 * 1024;

    struct NoEntropy;

    impl Entropy for NoEntropy {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), EntropyError> {
            Err(EntropyError)
        }
    }

    /// Panics at its second packet.
    struct Panics(bool);

    impl SealPacket for Panics {
        fn shape(&self) -> PacketShape {
            Plain.shape()
        }

        fn seal(&mut self, _: u32, _: &mut [u8]) {
            assert!(!core::mem::replace(&mut self.0, true), "as the test wants it");
        }
    }

    struct Zeros;

    impl Entropy for Zeros {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
            out.fill(0);
            Ok(())
        }
    }

    #[test]
    fn a_packet_whose_sealing_panics_is_not_in_the_output_and_none_follows_it() {
        let mut out = Outgoing::new(Box::new(Zeros), u64::MAX, LIMIT);
        out.sealer = Box::new(Panics(false));
        out.transport(|out| out.put_slice(b"sealed"));
        let sealed = out.output().to_vec();
        assert_eq!((sealed.is_empty(), out.fault()), (false, None));
        let send = || out.transport(|out| out.put_slice(b"in clear"));
        assert!(std::panic::catch_unwind(core::panic::AssertUnwindSafe(send)).is_err());
        assert_eq!((out.output(), out.fault()), (&sealed[..], Some(SendFault::Interrupted)));
        out.transport(|out| out.put_slice(b"more"));
        assert_eq!((out.output(), out.volume().packets), (&sealed[..], 1));
    }

    /// Puts the sequence number into the first four bytes.
    struct Numbers;

    impl SealPacket for Numbers {
        fn shape(&self) -> PacketShape {
            Plain.shape()
        }

        fn seal(&mut self, seq: u32, packet: &mut [u8]) {
            packet[..4].copy_from_slice(&seq.to_be_bytes());
        }
    }

    #[test]
    fn pk_12_sequence_numbers_wrap() {
        let mut out = Outgoing::new(Box::new(Zeros), u64::MAX, LIMIT);
        (out.sealer, out.seq) = (Box::new(Numbers), u32::MAX - 1);
        for seq in [u32::MAX - 1, u32::MAX, 0, 1] {
            out.clear();
            out.transport(|out| out.put_slice(b"payload"));
            assert_eq!(out.output()[..4], seq.to_be_bytes());
        }
    }

    /// A cipher whose blocks no padding can fill.
    struct Wide;

    impl SealPacket for Wide {
        fn shape(&self) -> PacketShape {
            PacketShape { block: 1024, ..Plain.shape() }
        }

        fn seal(&mut self, _: u32, _: &mut [u8]) {}
    }

    #[test]
    fn a_packet_that_cannot_be_padded_is_not_dropped_in_silence() {
        let mut out = Outgoing::new(Box::new(Zeros), u64::MAX, LIMIT);
        let sealer = Box::new(Wide);
        (out.shape, out.sealer) = (sealer.shape(), sealer);
        out.transport(|out| out.put_slice(b"payload"));
        assert_eq!((out.output(), out.fault()), (&b""[..], Some(SendFault::Interrupted)));
    }

    #[test]
    fn padding_fills_the_block_and_is_never_short() {
        for length_in_block in [false, true] {
            for block in [8, 16] {
                let shape = PacketShape { block, length_in_block, tag: 0 };
                for payload in 0..100 {
                    let padding = padding_of(&shape, payload);
                    let head = if length_in_block { 5 } else { 1 };
                    assert!((4..block + 4).contains(&padding), "{payload}: {padding}");
                    assert_eq!((head + payload + padding) % block, 0, "{payload}: {padding}");
                }
            }
        }
        // What no provider should say divides by nothing.
        assert_eq!(padding_of(&PacketShape { block: 0, length_in_block: true, tag: 0 }, 9), 0);
    }

    fn outgoing() -> Outgoing {
        Outgoing::new(Box::new(NoEntropy), u64::MAX, LIMIT)
    }

    #[test]
    fn swapped_bytes_count_as_unsent_and_are_the_first_to_be_consumed() {
        let (mut out, mut spare) = (outgoing(), BytesMut::new());
        out.raw(b"abcdef");
        out.swap(&mut spare);
        assert_eq!((&spare[..], out.output(), out.pending()), (&b"abcdef"[..], &b""[..], 6));
        out.raw(b"ghi");
        out.consume(4);
        assert_eq!((out.output(), out.pending()), (&b"ghi"[..], 5), "two swapped bytes are left");
        out.consume(3);
        assert_eq!((out.output(), out.pending()), (&b"hi"[..], 2));
        out.consume(usize::MAX);
        assert_eq!((out.output(), out.pending()), (&b""[..], 0));
        out.consume(usize::MAX);
        out.raw(b"j");
        assert_eq!((out.output(), out.pending()), (&b"j"[..], 1), "what was too much is not owed");
    }

    #[test]
    fn a_second_swap_does_nothing_until_the_first_is_consumed() {
        let (mut out, mut first, mut second) = (outgoing(), BytesMut::new(), BytesMut::new());
        out.raw(b"first");
        out.swap(&mut first);
        out.raw(b"second");
        out.consume(4);
        out.swap(&mut second);
        assert_eq!((&second[..], out.output(), out.pending()), (&b""[..], &b"second"[..], 7));
        out.consume(1);
        let mut full = BytesMut::from(&b"full"[..]);
        out.swap(&mut full);
        assert_eq!((&full[..], out.output()), (&b"full"[..], &b"second"[..]), "no place for it");
        out.swap(&mut second);
        assert_eq!((&second[..], out.output(), out.pending()), (&b"second"[..], &b""[..], 6));
    }

    #[test]
    fn what_is_cleared_is_neither_swapped_nor_pending() {
        let (mut out, mut spare) = (outgoing(), BytesMut::new());
        out.raw(b"swapped");
        out.swap(&mut spare);
        out.raw(b"pending");
        out.clear();
        assert_eq!((out.output(), out.pending()), (&b""[..], 0));
        out.raw(b"new");
        out.consume(1);
        assert_eq!((out.output(), out.pending()), (&b"ew"[..], 2), "nothing swapped is left to consume");
    }

    proptest! {
        #[test]
        fn bytes_leave_once_and_in_order_however_they_are_taken(
            ops in proptest::collection::vec((0u8..4, 0usize..40), 0..100),
        ) {
            let (mut out, mut held) = (outgoing(), BytesMut::new());
            let (mut made, mut sent) = (Vec::new(), Vec::new());
            for (op, n) in ops {
                match op {
                    0 => {
                        let bytes: Vec<u8> = (0..n).map(|at| (made.len() + at) as u8).collect();
                        out.raw(&bytes);
                        made.extend(bytes);
                    }
                    1 => out.swap(&mut held),
                    // What is held comes first; behind it, what is shown may be written in the same turn.
                    _ => {
                        let from_held = n.min(held.len());
                        sent.extend_from_slice(&held.split_to(from_held));
                        let rest = if held.is_empty() { (n - from_held).min(out.output().len()) } else { 0 };
                        sent.extend_from_slice(&out.output()[..rest]);
                        out.consume(from_held + rest);
                    }
                }
                prop_assert_eq!(out.pending(), made.len() - sent.len());
                prop_assert_eq!(out.pending(), held.len() + out.output().len());
                prop_assert!(made.starts_with(&sent));
            }
        }
    }

    #[test]
    fn a_large_buffer_is_given_back_once_all_of_it_was_sent() {
        let mut out = outgoing();
        out.raw(&[0; 100_000]);
        out.consume(99_999);
        out.shrink();
        assert_eq!(out.output(), [0], "it is in use");
        out.consume(1);
        out.shrink();
        assert_eq!(out.capacity(), 0, "it was there still");
    }

    #[test]
    fn a_slow_peer_costs_half_as_much_memory_again_and_a_few_copies_of_each_byte() {
        const PACKET: usize = 32 * 1024;
        let limit = 4 * LIMIT;
        for taken in [10, 100, 1000, 5000, 30_000, 100_000, 500_000] {
            let mut out = Outgoing { limit, ..outgoing() };
            let (mut made, mut copied, mut allocated) = (0, 0, 0);
            while made < 8 * limit {
                while out.pending() < limit {
                    let (head, unsent, at) = (out.head, out.pending(), out.out.as_ptr());
                    out.raw(&[7; PACKET]);
                    made += PACKET;
                    allocated += usize::from(out.out.as_ptr() != at);
                    if out.head < head || out.out.as_ptr() != at {
                        copied += unsent;
                    }
                    assert!(out.capacity() <= (limit + PACKET) * 3 / 2, "{taken}: {}", out.capacity());
                }
                out.consume(taken);
            }
            println!("{taken}: {copied} bytes of {made} copied, {allocated} allocations");
            assert!(copied <= 3 * made, "{taken}: {copied} of {made}");
            assert!(allocated <= 10, "{taken}: {allocated}");
        }
    }

    #[test]
    fn a_buffer_that_is_sent_whole_or_swapped_is_as_large_as_the_limit_and_little_more() {
        for swaps in [true, false] {
            let (mut out, mut spare) = (outgoing(), BytesMut::new());
            for _ in 0..20 {
                while out.pending() < LIMIT {
                    out.raw(&[7; 32 * 1024]);
                }
                if swaps {
                    out.swap(&mut spare);
                    spare.advance(spare.len());
                }
                out.consume(usize::MAX);
                assert!(out.capacity() <= LIMIT + OVER, "{}", out.capacity());
            }
        }
    }

    #[test]
    fn a_spare_counts_with_what_was_taken_off_its_front() {
        let (mut out, mut spare) = (outgoing(), BytesMut::with_capacity(10_000));
        spare.extend_from_slice(&[1; 9_000]);
        spare.advance(9_000);
        out.swap(&mut spare);
        assert!(out.capacity() >= 10_000, "{}", out.capacity());
        let mut split = BytesMut::with_capacity(20_000);
        split.extend_from_slice(&[1; 19_000]);
        drop(split.split_to(19_000));
        out.swap(&mut split);
        assert!(out.capacity() >= 20_000, "{}", out.capacity());
    }
}
