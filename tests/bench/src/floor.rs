//! The floor: the least that moving channel data costs.

use std::hint::black_box;

use aws_lc_rs::aead::chacha20_poly1305_openssh::{KEY_LEN, OpeningKey, SealingKey};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{BufMut, BytesMut};
use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use ssh_proto::adapter::append;
use subtle::ConstantTimeEq;

use crate::Failure;
use crate::work::{Cipher, Library, PACKET, WIRE, gigabytes, repeat};

/// Of all three ciphers.
const TAG: usize = 16;
/// Length, padding length, message number, channel, length of the data.
const HEAD: usize = 4 + 1 + 1 + 4 + 4;
const CHANNEL_DATA: u8 = 94;

/// The cryptography of both ends. The keys are any; the sequence number is the only state.
trait Crypto {
    /// What the padded part is a multiple of.
    const BLOCK: usize;
    /// Seals the packet, all but its tag, which is last, and is written.
    fn seal(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure>;
    /// The packet's length, from its first four bytes.
    fn length(&mut self, seq: u32, head: [u8; 4]) -> u32;
    /// Verifies and opens the packet.
    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure>;
}

/// The floor under a cipher, in GB/s.
pub(crate) fn measure(library: Library, cipher: Cipher, seconds: f64) -> Result<f64, Failure> {
    match (library, cipher) {
        (Library::AwsLc, Cipher::Aes128Gcm) => rate(Gcm::new()?, seconds),
        (Library::AwsLc, Cipher::Chacha20Poly1305) => rate(AwsChacha::new(), seconds),
        (Library::Rustcrypto, Cipher::Chacha20Poly1305) => rate(RustChacha, seconds),
        (Library::Rustcrypto, Cipher::Aes128Gcm) => Err("there is no such floor".into()),
    }
}

fn rate(crypto: impl Crypto, seconds: f64) -> Result<f64, Failure> {
    let mut floor = Floor {
        crypto,
        output: BytesMut::with_capacity(2 * WIRE),
        input: BytesMut::with_capacity(2 * WIRE),
        seq: 0,
    };
    let data = vec![7; WIRE];
    let mean = repeat(seconds, || floor.pass(&data))?;
    Ok(gigabytes(WIRE as u64) / mean)
}

/// Both ends.
struct Floor<C> {
    crypto: C,
    output: BytesMut,
    input: BytesMut,
    /// The number of the next packet, at both ends.
    seq: u32,
}

impl<C: Crypto> Floor<C> {
    /// Passes data from one end to the other.
    fn pass(&mut self, data: &[u8]) -> Result<(), Failure> {
        let first = self.seq;
        for piece in black_box(data).chunks(PACKET) {
            self.send(piece)?;
        }
        // The room is that of the packets before, whose slices are gone.
        self.input.reserve(self.output.len());
        append(&mut self.input, &self.output);
        self.output.clear();
        let (mut received, mut seq) = (0, first);
        while let Some(head) = self.input.first_chunk() {
            let length = self.crypto.length(seq, *head) as usize;
            let mut packet = self.input.split_to(4 + length + TAG);
            self.crypto.open(seq, &mut packet)?;
            seq = seq.wrapping_add(1);
            let padding = usize::from(packet[4]);
            let payload = packet.freeze().slice(HEAD..4 + length - padding);
            received += black_box(payload).len();
        }
        if received == data.len() { Ok(()) } else { Err("data was lost".into()) }
    }

    /// Appends a packet.
    fn send(&mut self, data: &[u8]) -> Result<(), Failure> {
        let (start, unpadded) = (self.output.len(), HEAD - 4 + data.len());
        let padding = match C::BLOCK - unpadded % C::BLOCK {
            short @ ..4 => short + C::BLOCK,
            enough => enough,
        };
        self.output.put_u32(u32::try_from(unpadded + padding)?);
        self.output.put_u8(u8::try_from(padding)?);
        self.output.put_u8(CHANNEL_DATA);
        self.output.put_u32(0);
        self.output.put_u32(u32::try_from(data.len())?);
        append(&mut self.output, data);
        self.output.put_bytes(0, padding + TAG);
        self.crypto.seal(self.seq, &mut self.output[start..])?;
        self.seq = self.seq.wrapping_add(1);
        Ok(())
    }
}

/// What a packet consists of: its length, the padded part, the tag.
type Parts<'a> = (&'a mut [u8; 4], &'a mut [u8], &'a mut [u8; TAG]);

fn parts(packet: &mut [u8]) -> Result<Parts<'_>, Failure> {
    let (length, rest) = packet.split_first_chunk_mut().ok_or("no length")?;
    let (body, tag) = rest.split_last_chunk_mut().ok_or("no tag")?;
    Ok((length, body, tag))
}

/// AES-128-GCM of AWS-LC.
struct Gcm(LessSafeKey);

impl Gcm {
    fn new() -> Result<Self, Failure> {
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[1; 16])?)))
    }

    fn nonce(seq: u32) -> Nonce {
        let mut nonce = [0; 12];
        nonce[8..].copy_from_slice(&seq.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Crypto for Gcm {
    const BLOCK: usize = 16;

    fn seal(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure> {
        let (length, body, tag) = parts(packet)?;
        let computed = self.0.seal_in_place_separate_tag(Self::nonce(seq), Aad::from(&*length), body)?;
        tag.copy_from_slice(computed.as_ref());
        Ok(())
    }

    fn length(&mut self, _: u32, head: [u8; 4]) -> u32 {
        u32::from_be_bytes(head)
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure> {
        let (length, body, tag) = parts(packet)?;
        self.0.open_in_place_separate_tag(Self::nonce(seq), Aad::from(&*length), tag, body)?;
        Ok(())
    }
}

/// chacha20-poly1305@openssh.com of AWS-LC.
struct AwsChacha {
    sealing: SealingKey,
    opening: OpeningKey,
}

impl AwsChacha {
    fn new() -> Self {
        Self { sealing: SealingKey::new(&[1; KEY_LEN]), opening: OpeningKey::new(&[1; KEY_LEN]) }
    }
}

impl Crypto for AwsChacha {
    const BLOCK: usize = 8;

    fn seal(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure> {
        let (covered, tag) = packet.split_last_chunk_mut().ok_or("no tag")?;
        self.sealing.seal_in_place(seq, covered, tag);
        Ok(())
    }

    fn length(&mut self, seq: u32, head: [u8; 4]) -> u32 {
        u32::from_be_bytes(self.opening.decrypt_packet_length(seq, head))
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure> {
        let (covered, tag) = packet.split_last_chunk_mut().ok_or("no tag")?;
        self.opening.open_in_place(seq, covered, tag)?;
        Ok(())
    }
}

/// chacha20-poly1305@openssh.com, put together of what RustCrypto has.
struct RustChacha;

impl RustChacha {
    fn stream(key: u8, seq: u32) -> ChaCha20Legacy {
        ChaCha20Legacy::new(&[key; 32].into(), &u64::from(seq).to_be_bytes().into())
    }

    /// The stream of the padded part, at its second block, and the authenticator from its first.
    fn body(seq: u32) -> (ChaCha20Legacy, Poly1305) {
        // Twice the key's length: a whole block.
        let (mut stream, mut block) = (Self::stream(1, seq), [[0; 32]; 2]);
        stream.apply_keystream(block.as_flattened_mut());
        (stream, Poly1305::new(&block[0].into()))
    }

    fn tag(mut authenticator: Poly1305, covered: &[u8]) -> poly1305::Tag {
        let (blocks, rest) = poly1305::Block::slice_as_chunks(covered);
        authenticator.update(blocks);
        authenticator.compute_unpadded(rest)
    }
}

impl Crypto for RustChacha {
    const BLOCK: usize = 8;

    fn seal(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure> {
        let (mut stream, authenticator) = Self::body(seq);
        let (length, body, _) = parts(packet)?;
        Self::stream(2, seq).apply_keystream(length);
        stream.apply_keystream(body);
        let (covered, tag) = packet.split_last_chunk_mut::<TAG>().ok_or("no tag")?;
        tag.copy_from_slice(&Self::tag(authenticator, covered));
        Ok(())
    }

    fn length(&mut self, seq: u32, mut head: [u8; 4]) -> u32 {
        Self::stream(2, seq).apply_keystream(&mut head);
        u32::from_be_bytes(head)
    }

    fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Failure> {
        let (mut stream, authenticator) = Self::body(seq);
        let (covered, tag) = packet.split_last_chunk::<TAG>().ok_or("no tag")?;
        if !bool::from(Self::tag(authenticator, covered).as_slice().ct_eq(tag)) {
            return Err("a tag does not verify".into());
        }
        let (_, body, _) = parts(packet)?;
        stream.apply_keystream(body);
        Ok(())
    }
}
