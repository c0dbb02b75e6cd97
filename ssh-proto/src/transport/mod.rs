//! The binary packet protocol, [RFC 4253 §6]: framing, sealing and opening, sequence numbers, key changes.
//!
//! The two directions share nothing: each has its own keys, counters and buffer.
//!
//! [RFC 4253 §6]: https://www.rfc-editor.org/rfc/rfc4253#section-6

pub(crate) mod incoming;
pub(crate) mod keys;
pub(crate) mod noise;
pub(crate) mod outgoing;
pub(crate) mod plain;

/// The largest `packet_length` accepted, in bytes.
pub const MAX_PACKET: usize = 256 * 1024;
/// The largest `packet_length` accepted before authentication (RFC 4253 §6.1 asks for 35,000).
pub const MAX_PACKET_PRE_AUTH: usize = 35_000;
/// The most channel data sent in one packet, in bytes.
pub const MAX_DATA: usize = 32 * 1024;
/// Packets under one key beyond which the connection ends (RFC 4344 §3.1).
pub(crate) const MAX_PACKETS_PER_KEY: u64 = 1 << 31;

/// What a direction has carried under its current key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Volume {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Volume {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets = self.packets.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}
