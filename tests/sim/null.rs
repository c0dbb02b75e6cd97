//! A provider without cryptography, written against the public traits alone.
//!
//! It keeps the shape of the real thing: both shares enter the secret, keys depend on the exchange, tags on
//! key, sequence number and packet, signatures on key and message. It protects nothing. Payloads under
//! [`CIPHER`] stay readable on the wire, which tests use to look at a record of a session. It panics when a key
//! seals under a sequence number twice.

use std::sync::Arc;

use ssh_proto::crypto::{
    BadSignature, BadTag, CipherAlgorithm, ClientExchange, Digest, Hash, KexAlgorithm, KexError, Mac,
    MacAlgorithm, OpenPacket, PacketKeys, PacketShape, Provider, SealPacket, SecretEncoding, ServerShare,
    SharedSecret, SignatureAlgorithm,
};
use ssh_proto::wire::PutSsh;
use ssh_proto::{Entropy, KeyError, KeyPair, PublicKey, SignRefused, Signature, Signer, ToSign};

/// The only name there is, for the key exchange, the AEAD, the key type and the signature.
pub const NAME: &str = "null@ssh-tests.invalid";
/// The AEAD.
pub const CIPHER: &str = NAME;
/// The cipher that needs [`MAC`]; it encrypts its length, by a fixed pattern.
pub const STREAM: &str = "null-stream@ssh-tests.invalid";
/// The MAC of [`STREAM`], computed over the plaintext.
pub const MAC: &str = "null-mac@ssh-tests.invalid";
/// The bytes of every tag.
pub const TAG: usize = 8;

/// The provider.
pub static PROVIDER: Provider = Provider {
    name: "null",
    deterministic: true,
    kex: &[&NullKex],
    ciphers: &[&NullCipher, &NullStream],
    macs: &[&NullMac],
    signatures: &[&NullSignature],
};

fn fnv(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut step = |word: u64, len: usize| {
        hash = (hash ^ word ^ (len as u64) << 56).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    };
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        words.iter().for_each(|word| step(u64::from_le_bytes(*word), 8));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            step(u64::from_le_bytes(word), rest.len());
        }
    }
    hash ^ (hash >> 29)
}

fn hash32(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    for (lane, chunk) in out.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&fnv(lane as u64 + 1, parts).to_be_bytes());
    }
    out
}

struct NullHash;

impl Hash for NullHash {
    fn digest(&self, parts: &[&[u8]]) -> Digest {
        // Of the concatenation: how it is cut must not matter.
        Digest::new(&hash32(&[&parts.concat()]))
    }
}

struct NullKex;

struct NullExchange {
    share: [u8; 32],
}

fn secret(client: &[u8], server: &[u8]) -> SharedSecret {
    SharedSecret::new(hash32(&[client, server]).to_vec().into(), SecretEncoding::Mpint)
}

impl KexAlgorithm for NullKex {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hash(&self) -> &'static dyn Hash {
        &NullHash
    }

    fn start(&self, entropy: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        let mut share = [0; 32];
        entropy.fill(&mut share)?;
        Ok(Box::new(NullExchange { share }))
    }

    fn respond(&self, client_share: &[u8], entropy: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        if client_share.len() != 32 {
            return Err(KexError::BadShare);
        }
        let mut share = vec![0; 32];
        entropy.fill(&mut share)?;
        let secret = secret(client_share, &share);
        Ok(ServerShare { share, secret })
    }
}

impl ClientExchange for NullExchange {
    fn share(&self) -> &[u8] {
        &self.share
    }

    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, KexError> {
        if server_share.len() != 32 {
            return Err(KexError::BadShare);
        }
        Ok(secret(&self.share, server_share))
    }
}

/// I6: a key seals one packet under each sequence number, in their order.
#[derive(Default)]
struct Nonces(Option<u32>);

impl Nonces {
    fn spend(&mut self, seq: u32) {
        assert!(self.0.is_none_or(|last| seq == last.wrapping_add(1)), "I6: {seq} behind {:?}", self.0);
        self.0 = Some(seq);
    }
}

struct NullCipher;

struct AeadHalf {
    key: Vec<u8>,
    sealed: Nonces,
}

impl AeadHalf {
    fn new(keys: &PacketKeys<'_>) -> Self {
        Self { key: [keys.key, keys.iv].concat(), sealed: Nonces::default() }
    }

    fn tag(&self, seq: u32, packet: &[u8]) -> [u8; TAG] {
        fnv(7, &[&self.key, &seq.to_be_bytes(), packet]).to_be_bytes()
    }
}

const AEAD_SHAPE: PacketShape = PacketShape { block: 8, length_in_block: false, tag: TAG };

impl CipherAlgorithm for NullCipher {
    fn name(&self) -> &'static str {
        CIPHER
    }

    fn key_len(&self) -> usize {
        16
    }

    fn iv_len(&self) -> usize {
        8
    }

    fn is_aead(&self) -> bool {
        true
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        Box::new(AeadHalf::new(keys))
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        Box::new(AeadHalf::new(keys))
    }
}

impl SealPacket for AeadHalf {
    fn shape(&self) -> PacketShape {
        AEAD_SHAPE
    }

    fn seal(&mut self, seq: u32, packet: &mut [u8]) {
        self.sealed.spend(seq);
        let (body, tag) = packet.split_at_mut(packet.len() - TAG);
        tag.copy_from_slice(&self.tag(seq, body));
    }
}

impl OpenPacket for AeadHalf {
    fn shape(&self) -> PacketShape {
        AEAD_SHAPE
    }

    fn head_len(&self) -> usize {
        4
    }

    fn packet_length(&mut self, _seq: u32, head: &[u8]) -> u32 {
        u32::from_be_bytes(head[..4].try_into().expect("four bytes"))
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        let (body, tag) = packet.split_at(packet.len() - TAG);
        if self.tag(seq, body) == tag { Ok(()) } else { Err(BadTag) }
    }
}

struct NullStream;

struct StreamHalf {
    key: Vec<u8>,
    mac: Box<dyn Mac>,
    sealed: Nonces,
}

impl StreamHalf {
    fn new(keys: &PacketKeys<'_>) -> Self {
        let (algorithm, mac_key) = keys.mac.expect("not an AEAD");
        Self { key: keys.key.to_vec(), mac: algorithm.keyed(mac_key), sealed: Nonces::default() }
    }

    fn apply(&self, seq: u32, bytes: &mut [u8]) {
        let seq = seq.to_be_bytes();
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte ^= self.key[at % self.key.len()] ^ seq[at % 4];
        }
    }
}

const STREAM_SHAPE: PacketShape = PacketShape { block: 16, length_in_block: true, tag: TAG };

impl CipherAlgorithm for NullStream {
    fn name(&self) -> &'static str {
        STREAM
    }

    fn key_len(&self) -> usize {
        24
    }

    fn iv_len(&self) -> usize {
        0
    }

    fn is_aead(&self) -> bool {
        false
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        Box::new(StreamHalf::new(keys))
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        Box::new(StreamHalf::new(keys))
    }
}

impl SealPacket for StreamHalf {
    fn shape(&self) -> PacketShape {
        STREAM_SHAPE
    }

    fn seal(&mut self, seq: u32, packet: &mut [u8]) {
        self.sealed.spend(seq);
        let (body, tag) = packet.split_at_mut(packet.len() - TAG);
        self.mac.sign(seq, body, tag);
        self.apply(seq, body);
    }
}

impl OpenPacket for StreamHalf {
    fn shape(&self) -> PacketShape {
        STREAM_SHAPE
    }

    fn head_len(&self) -> usize {
        16
    }

    fn packet_length(&mut self, seq: u32, head: &[u8]) -> u32 {
        let mut length: [u8; 4] = head[..4].try_into().expect("four bytes");
        self.apply(seq, &mut length);
        u32::from_be_bytes(length)
    }

    fn length_is_malleable(&self) -> bool {
        true
    }

    fn discard(&mut self, seq: u32, bytes: &mut [u8]) {
        self.apply(seq, bytes);
        self.mac.sign(seq, bytes, &mut [0; TAG]);
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), BadTag> {
        let (body, tag) = packet.split_at_mut(packet.len() - TAG);
        self.apply(seq, body);
        self.mac.verify(seq, body, tag)
    }
}

struct NullMac;

struct KeyedMac(Vec<u8>);

impl MacAlgorithm for NullMac {
    fn name(&self) -> &'static str {
        MAC
    }

    fn key_len(&self) -> usize {
        16
    }

    fn tag_len(&self) -> usize {
        TAG
    }

    fn is_etm(&self) -> bool {
        false
    }

    fn keyed(&self, key: &[u8]) -> Box<dyn Mac> {
        Box::new(KeyedMac(key.to_vec()))
    }
}

impl Mac for KeyedMac {
    fn sign(&mut self, seq: u32, data: &[u8], tag: &mut [u8]) {
        tag.copy_from_slice(&fnv(11, &[&self.0, &seq.to_be_bytes(), data]).to_be_bytes());
    }

    fn verify(&mut self, seq: u32, data: &[u8], tag: &[u8]) -> Result<(), BadTag> {
        let mut right = [0; TAG];
        self.sign(seq, data, &mut right);
        if right == tag { Ok(()) } else { Err(BadTag) }
    }
}

struct NullSignature;

/// The public half of the key of this number.
pub fn public_key(number: u32) -> PublicKey {
    let mut blob = Vec::new();
    blob.put_string(NAME.as_bytes());
    blob.put_string(&hash32(&[b"key", &number.to_be_bytes()]));
    PublicKey::from_blob(&blob).expect("a key blob")
}

/// The signature of `message` by the key whose blob is `key`. Anybody can make it.
pub fn sign(key: &PublicKey, message: &[u8]) -> Signature {
    Signature::new(NAME, hash32(&[key.as_blob(), message]))
}

impl SignatureAlgorithm for NullSignature {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key_type(&self) -> &'static str {
        NAME
    }

    fn check_key(&self, key: &[u8]) -> Result<(), KeyError> {
        if key.len() == 4 + NAME.len() + 4 + 32 { Ok(()) } else { Err(KeyError::Malformed) }
    }

    fn verify(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.check_key(key).map_err(|_| BadSignature)?;
        if hash32(&[key, message]) == signature { Ok(()) } else { Err(BadSignature) }
    }
}

/// Signs with the keys of this module.
#[derive(Debug, Clone, Copy)]
pub struct NullSigner;

impl Signer for NullSigner {
    fn sign(&self, what: &ToSign<'_>, _entropy: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        Ok(sign(what.key(), what.message()))
    }
}

/// The key of this number, with its signer.
pub fn null_key(number: u32) -> KeyPair {
    KeyPair::new(public_key(number), Arc::new(NullSigner))
}

/// The key of this number, to be signed for by ticket.
pub fn external_key(number: u32) -> KeyPair {
    KeyPair::external(public_key(number))
}
