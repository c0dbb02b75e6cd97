//! Tests of every cipher with every MAC, against the traits alone.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::PROVIDER;
use super::vectors::sealed::SEALED;
use crate::crypto::{BadTag, CipherAlgorithm, MAX_TAG, MacAlgorithm, OpenPacket, PacketKeys, SealPacket};

/// A way to protect packets: a cipher, and a MAC where it needs one.
#[derive(Clone, Copy)]
struct Suite {
    cipher: &'static dyn CipherAlgorithm,
    mac: Option<&'static dyn MacAlgorithm>,
}

impl Suite {
    fn all() -> Vec<Self> {
        let mut suites = Vec::new();
        for &cipher in PROVIDER.ciphers {
            if cipher.is_aead() {
                suites.push(Self { cipher, mac: None });
            } else {
                suites.extend(PROVIDER.macs.iter().map(|&mac| Self { cipher, mac: Some(mac) }));
            }
        }
        suites
    }

    fn named(cipher: &str, mac: Option<&str>) -> Self {
        let found = Self::all()
            .into_iter()
            .find(|suite| suite.cipher.name() == cipher && suite.mac.map(|mac| mac.name()) == mac);
        found.unwrap()
    }

    fn name(&self) -> String {
        format!("{} {}", self.cipher.name(), self.mac.map_or("", |mac| mac.name()))
    }

    /// Key material as the vectors have it.
    fn keyed<T>(&self, make: impl Fn(&PacketKeys<'_>) -> T) -> T {
        let bytes = |from: u8, len| (from..).take(len).collect::<Vec<u8>>();
        let key = bytes(0, self.cipher.key_len());
        let iv = bytes(0xa0, self.cipher.iv_len());
        let mac_key = bytes(0x40, self.mac.map_or(0, |mac| mac.key_len()));
        make(&PacketKeys { key: &key, iv: &iv, mac: self.mac.map(|mac| (mac, &mac_key[..])) })
    }

    fn sealer(&self) -> Box<dyn SealPacket> {
        self.keyed(|keys| self.cipher.sealer(keys))
    }

    fn opener(&self) -> Box<dyn OpenPacket> {
        self.keyed(|keys| self.cipher.opener(keys))
    }

    /// A packet before sealing, with the least padding for the payload and zeros where the tag comes.
    fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let shape = self.sealer().shape();
        assert!(shape.tag <= MAX_TAG && shape.block >= 8);
        let unpadded = 1 + payload.len() + if shape.length_in_block { 4 } else { 0 };
        let mut padding = shape.block - unpadded % shape.block;
        if padding < 4 {
            padding += shape.block;
        }
        let mut packet = u32::try_from(1 + payload.len() + padding).unwrap().to_be_bytes().to_vec();
        packet.push(u8::try_from(padding).unwrap());
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + padding, 0xee);
        packet.resize(packet.len() + shape.tag, 0);
        packet
    }
}

fn open(opener: &mut dyn OpenPacket, seq: u32, sealed: &[u8]) -> Result<Vec<u8>, BadTag> {
    let mut packet = sealed.to_vec();
    opener.packet_length(seq, &packet[..opener.head_len().min(packet.len())]);
    opener.open(seq, &mut packet)?;
    Ok(packet[4..packet.len() - opener.shape().tag].to_vec())
}

#[test]
fn packets_of_an_independent_implementation() {
    assert_eq!(SEALED.len(), Suite::all().len());
    for vector in SEALED {
        let suite = Suite::named(vector.cipher, vector.mac);
        let (mut sealer, mut opener) = (suite.sealer(), suite.opener());
        let clear = if sealer.shape().length_in_block { 4 } else { 0 };
        for (seq, size) in [(0x0102_0304, 16), (0x0102_0305, 2048)] {
            let payload: Vec<u8> = (0..size - clear - 9).map(|i| (i * 7) as u8).collect();
            let mut plain = ((size - clear) as u32).to_be_bytes().to_vec();
            plain.push(8);
            plain.extend_from_slice(&payload);
            plain.extend_from_slice(&[0xee; 8]);
            let mut packet = plain.clone();
            packet.resize(packet.len() + sealer.shape().tag, 0);
            sealer.seal(seq, &mut packet);
            if size == 16 {
                assert_eq!(packet, vector.first, "{}", suite.name());
            } else {
                assert_eq!(Sha256::digest(&packet)[..], vector.second, "{}", suite.name());
            }
            let length = opener.packet_length(seq, &packet[..opener.head_len()]);
            assert_eq!(length as usize, size - clear, "{}", suite.name());
            assert_eq!(open(&mut *opener, seq, &packet).unwrap(), plain[4..], "{}", suite.name());
        }
    }
}

#[test]
fn pk_03_only_encrypt_and_mac_has_a_malleable_length() {
    for suite in Suite::all() {
        let expected = suite.mac.is_some_and(|mac| !mac.is_etm());
        assert_eq!(suite.opener().length_is_malleable(), expected, "{}", suite.name());
        assert_eq!(suite.opener().shape(), suite.sealer().shape());
        assert_eq!(suite.opener().shape().length_in_block, expected);
    }
}

#[test]
fn pk_04_every_flipped_bit_is_noticed() {
    for suite in Suite::all() {
        let mut sealed = suite.packet(b"attack at dawn");
        suite.sealer().seal(3, &mut sealed);
        assert!(open(&mut *suite.opener(), 3, &sealed).is_ok());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&mut *suite.opener(), 3, &flipped), Err(BadTag), "{} bit {bit}", suite.name());
        }
    }
}

#[test]
fn pk_04_truncated_packets_are_bad_tags_and_too_short_ones_are_left_alone() {
    for suite in Suite::all() {
        let mut sealed = suite.packet(b"attack at dawn");
        suite.sealer().seal(3, &mut sealed);
        for end in 0..sealed.len() {
            assert_eq!(open(&mut *suite.opener(), 3, &sealed[..end]), Err(BadTag), "{}", suite.name());
        }
        for len in 0..4 + suite.sealer().shape().tag {
            let mut short = vec![0xaa; len];
            suite.sealer().seal(3, &mut short);
            assert!(short.iter().all(|&byte| byte == 0xaa), "{}", suite.name());
        }
    }
}

#[test]
fn c15_the_position_in_the_stream_counts() {
    for suite in Suite::all() {
        let plain = suite.packet(b"once");
        let (mut first, mut second) = (plain.clone(), plain.clone());
        let mut sealer = suite.sealer();
        sealer.seal(3, &mut first);
        sealer.seal(4, &mut second);
        // A replay, a packet left out, and two in the wrong order.
        let mut opener = suite.opener();
        assert!(open(&mut *opener, 3, &first).is_ok());
        assert_eq!(open(&mut *opener, 4, &first), Err(BadTag), "{}", suite.name());
        assert_eq!(open(&mut *suite.opener(), 3, &second), Err(BadTag), "{}", suite.name());
        let mut opener = suite.opener();
        assert!(open(&mut *opener, 3, &first).is_ok());
        assert!(open(&mut *opener, 4, &second).is_ok());
    }
}

#[test]
fn pk_12_no_packet_is_sealed_like_another() {
    for suite in Suite::all() {
        let mut seen = BTreeSet::new();
        let mut sealer = suite.sealer();
        for seq in 0..1000 {
            let mut packet = suite.packet(&[0; 16]);
            sealer.seal(seq, &mut packet);
            assert!(seen.insert(packet[4..20].to_vec()), "{} at {seq}", suite.name());
        }
    }
}

#[test]
fn asking_for_the_length_leaves_the_stream_where_it_was() {
    for suite in Suite::all() {
        let (mut sealer, mut opener) = (suite.sealer(), suite.opener());
        for seq in 0..3 {
            let plain = suite.packet(&[7; 100]);
            let mut packet = plain.clone();
            sealer.seal(seq, &mut packet);
            let head = packet[..opener.head_len()].to_vec();
            for _ in 0..3 {
                let length = opener.packet_length(seq, &head);
                assert_eq!(length.to_be_bytes(), plain[..4], "{}", suite.name());
            }
            assert_eq!(opener.open(seq, &mut packet), Ok(()), "{}", suite.name());
        }
    }
}

#[test]
fn keys_of_the_wrong_length_seal_zeros_and_open_nothing() {
    for suite in Suite::all() {
        let mut plain = suite.packet(b"secret");
        let mac_key = vec![0; suite.mac.map_or(0, |mac| mac.key_len())];
        let (key, iv) = (vec![0; suite.cipher.key_len() - 1], vec![0; suite.cipher.iv_len()]);
        let keys = PacketKeys { key: &key, iv: &iv, mac: suite.mac.map(|mac| (mac, &mac_key[..])) };
        let mut opener = suite.cipher.opener(&keys);
        suite.cipher.sealer(&keys).seal(0, &mut plain);
        assert!(plain.iter().all(|&byte| byte == 0), "{}", suite.name());
        assert_eq!(open(&mut *opener, 0, &plain), Err(BadTag), "{}", suite.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn l8_what_is_sealed_opens(
        seq: u32,
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..6),
    ) {
        for suite in Suite::all() {
            let (mut sealer, mut opener) = (suite.sealer(), suite.opener());
            for (number, payload) in payloads.iter().enumerate() {
                let seq = seq.wrapping_add(number as u32);
                let plain = suite.packet(payload);
                let mut packet = plain.clone();
                sealer.seal(seq, &mut packet);
                let length = opener.packet_length(seq, &packet[..opener.head_len()]);
                prop_assert_eq!(&length.to_be_bytes()[..], &plain[..4]);
                let body = 4..plain.len() - sealer.shape().tag;
                prop_assert_ne!(&packet[body.clone()], &plain[body.clone()]);
                prop_assert_eq!(open(&mut *opener, seq, &packet).unwrap(), &plain[body]);
            }
        }
    }

    #[test]
    fn pk_04_noise_never_opens_and_never_panics(seq: u32, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        for suite in Suite::all() {
            prop_assert_eq!(open(&mut *suite.opener(), seq, &noise), Err(BadTag));
            suite.sealer().seal(seq, &mut noise.clone());
        }
    }
}
