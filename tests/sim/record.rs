//! Reading a record of what one side sent, under the null provider's AEAD.

use ssh_proto::raw::number;

use crate::null::TAG;

/// A packet of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Where it begins in the record.
    pub at: usize,
    /// Its bytes on the wire, tag included.
    pub len: usize,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Sent {
    /// Its message number.
    pub fn number(&self) -> u8 {
        self.payload[0]
    }
}

/// The packets of a record that begins with an identification line. A packet that is not whole is left out.
pub fn packets(record: &[u8]) -> Vec<Sent> {
    let Some(line) = record.iter().position(|byte| *byte == b'\n') else { return Vec::new() };
    let (mut at, mut tag, mut packets) = (line + 1, 0, Vec::new());
    while let Some(head) = record.get(at..at + 5) {
        let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let len = 4 + length + tag;
        let Some(packet) = record.get(at..at + len) else { break };
        let payload = packet[5..4 + length - usize::from(head[4])].to_vec();
        if payload[0] == number::NEWKEYS {
            tag = TAG;
        }
        packets.push(Sent { at, len, payload });
        at += len;
    }
    packets
}

/// The message numbers of a record.
pub fn numbers(record: &[u8]) -> Vec<u8> {
    packets(record).iter().map(Sent::number).collect()
}

/// Checks [RFC 4253 §7.1] over a record: between a KEXINIT and its NEWKEYS there is only key exchange.
///
/// [RFC 4253 §7.1]: https://www.rfc-editor.org/rfc/rfc4253#section-7.1
pub fn assert_clean_exchanges(record: &[u8]) {
    let mut in_exchange = true;
    for number in numbers(record) {
        let allowed = matches!(number, 1..=4 | 20..=49);
        assert!(!in_exchange || allowed, "message {number} was sent during an exchange");
        match number {
            number::KEXINIT => in_exchange = true,
            number::NEWKEYS => in_exchange = false,
            _ => {}
        }
    }
}

/// How many messages of this number a record has.
pub fn count(record: &[u8], number: u8) -> usize {
    numbers(record).into_iter().filter(|other| *other == number).count()
}
