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

use super::plain::Plain;
use super::{MAX_PACKETS_PER_KEY, Volume};
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
        if self.pool.len() - self.used < len {
            let Self { source, pool, .. } = self;
            if source.fill(pool).is_err() {
                self.failed = true;
                return Err(EntropyError);
            }
            self.used = 0;
        }
        out.put_slice(self.pool.get(self.used..self.used + len).ok_or(EntropyError)?);
        self.used += len;
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

pub(crate) struct Outgoing {
    out: BytesMut,
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
    /// `max_bytes` is what one key may carry at the very most.
    pub(crate) fn new(entropy: Box<dyn Entropy + Send>, max_bytes: u64) -> Self {
        let sealer = Box::new(Plain);
        Self {
            out: BytesMut::new(),
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
        self.swapped + self.out.len()
    }

    pub(crate) fn output(&self) -> &[u8] {
        &self.out
    }

    pub(crate) fn capacity(&self) -> usize {
        self.out.capacity()
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.progress |= n > 0;
        let from_swapped = n.min(self.swapped);
        self.swapped -= from_swapped;
        let rest = (n - from_swapped).min(self.out.len());
        self.out.advance(rest);
    }

    /// Trades the pending bytes for an empty buffer. While a traded buffer is not consumed, nothing happens.
    pub(crate) fn swap(&mut self, spare: &mut BytesMut) {
        if self.swapped == 0 && spare.is_empty() {
            core::mem::swap(&mut self.out, spare);
            self.swapped = spare.len();
        }
    }

    /// Whether the transport took anything since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        core::mem::take(&mut self.progress)
    }

    /// Drops what was not sent.
    pub(crate) fn clear(&mut self) {
        self.out = BytesMut::new();
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
        self.out.put_slice(bytes);
    }

    /// A transport or key exchange message (1–49 without 5–7): legal at any time.
    pub(crate) fn transport(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.packet(0, write);
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
        let start = self.out.len();
        self.out.reserve(5 + size + self.shape.block + 4 + self.shape.tag);
        self.out.put_bytes(0, 5);
        write(&mut self.out);
        let payload = self.out.len() - start - 5;
        let head = if self.shape.length_in_block { 5 } else { 1 };
        let block = self.shape.block;
        let mut padding = block - (head + payload) % block;
        if padding < 4 {
            padding += block;
        }
        if self.random.padding(&mut self.out, padding).is_err() {
            self.out.truncate(start);
            return;
        }
        let length = 1 + payload + padding;
        self.out.put_bytes(0, self.shape.tag);
        let Some(packet) = self.out.get_mut(start..) else { return };
        if let Some((head, rest)) = packet.split_first_chunk_mut::<4>() {
            *head = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
            if let Some(first) = rest.first_mut() {
                *first = u8::try_from(padding).unwrap_or(u8::MAX);
            }
        }
        self.sealer.seal(self.seq, packet);
        self.seq = self.seq.wrapping_add(1);
        self.volume.count(length);
    }
}

/// The right to send messages of the layers above the transport.
pub(crate) struct ServiceSender<'a>(&'a mut Outgoing);

impl ServiceSender<'_> {
    /// Sends a message.
    pub(crate) fn send<'m>(&mut self, message: &impl Message<'m>) {
        self.0.packet(0, |out| message.encode(out));
    }

    /// Sends a payload written by `write`, of about `size` bytes.
    pub(crate) fn send_with(&mut self, size: usize, write: impl FnOnce(&mut BytesMut)) {
        self.0.packet(size, write);
    }
}
