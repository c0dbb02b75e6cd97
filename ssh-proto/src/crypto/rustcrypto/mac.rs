//! `hmac-sha2-256` and `hmac-sha2-512` (RFC 6668), also in encrypt-then-MAC form.

use alloc::boxed::Box;
use core::marker::PhantomData;

use hmac::KeyInit;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::crypto::frame::Refuse;
use crate::crypto::{BadTag, Mac, MacAlgorithm, PacketShape};

pub(super) static SHA256: Hmac<hmac::Hmac<Sha256>> = Hmac::new("hmac-sha2-256", false);
pub(super) static SHA512: Hmac<hmac::Hmac<Sha512>> = Hmac::new("hmac-sha2-512", false);
pub(super) static SHA256_ETM: Hmac<hmac::Hmac<Sha256>> = Hmac::new("hmac-sha2-256-etm@openssh.com", true);
pub(super) static SHA512_ETM: Hmac<hmac::Hmac<Sha512>> = Hmac::new("hmac-sha2-512-etm@openssh.com", true);

/// HMAC with a key as long as its tag.
pub(super) struct Hmac<M> {
    name: &'static str,
    etm: bool,
    mac: PhantomData<fn() -> M>,
}

impl<M> Hmac<M> {
    const fn new(name: &'static str, etm: bool) -> Self {
        Self { name, etm, mac: PhantomData }
    }
}

impl<M: hmac::Mac + KeyInit + Clone + Send + 'static> MacAlgorithm for Hmac<M> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key_len(&self) -> usize {
        M::output_size()
    }

    fn tag_len(&self) -> usize {
        M::output_size()
    }

    fn is_etm(&self) -> bool {
        self.etm
    }

    fn keyed(&self, key: &[u8]) -> Box<dyn Mac> {
        match M::new_from_slice(key) {
            Ok(mac) => Box::new(Keyed(mac)),
            Err(_) => Box::new(Refuse(PacketShape { block: 8, length_in_block: false, tag: self.tag_len() })),
        }
    }
}

/// The state after the key, from which every packet's computation starts.
struct Keyed<M>(M);

impl<M: hmac::Mac + Clone> Keyed<M> {
    fn tag(&self, seq: u32, data: &[u8]) -> hmac::digest::Output<M> {
        self.0.clone().chain_update(seq.to_be_bytes()).chain_update(data).finalize().into_bytes()
    }
}

impl<M: hmac::Mac + Clone + Send> Mac for Keyed<M> {
    fn sign(&mut self, seq: u32, data: &[u8], tag: &mut [u8]) {
        for (to, from) in tag.iter_mut().zip(self.tag(seq, data)) {
            *to = from;
        }
    }

    fn verify(&mut self, seq: u32, data: &[u8], tag: &[u8]) -> Result<(), BadTag> {
        if self.tag(seq, data).as_slice().ct_eq(tag).into() { Ok(()) } else { Err(BadTag) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use hex_literal::hex;

    use super::*;

    /// Algorithm, key, message, tag.
    type Case<'a> = (&'a dyn MacAlgorithm, &'a [u8], &'a [u8], &'a [u8]);

    #[test]
    fn rfc_4231_cases_1_2_and_6_with_their_first_four_bytes_as_the_sequence_number() {
        let (long, case6): (&[u8], &[u8]) =
            (&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        let cases: [Case<'_>; 5] = [
            (
                &SHA256,
                &[0x0b; 20],
                b"Hi There",
                &hex!("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            ),
            (
                &SHA256,
                b"Jefe",
                b"what do ya want for nothing?",
                &hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            ),
            (&SHA256, long, case6, &hex!("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")),
            (
                &SHA512,
                &[0x0b; 20],
                b"Hi There",
                &hex!(
                    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
                    "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
                ),
            ),
            (
                &SHA512,
                b"Jefe",
                b"what do ya want for nothing?",
                &hex!(
                    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
                    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
                ),
            ),
        ];
        for (algorithm, key, message, expected) in cases {
            let (seq, data) = message.split_first_chunk().unwrap();
            let seq = u32::from_be_bytes(*seq);
            let mut mac = algorithm.keyed(key);
            let mut tag = vec![0; algorithm.tag_len()];
            for _ in 0..2 {
                mac.sign(seq, data, &mut tag);
                assert_eq!(tag, expected);
                assert_eq!(mac.verify(seq, data, expected), Ok(()));
            }
            assert_eq!(mac.verify(seq ^ 1, data, expected), Err(BadTag));
            assert_eq!(mac.verify(seq, data, &expected[..16]), Err(BadTag));
            assert_eq!(mac.verify(seq, data, &[]), Err(BadTag));
        }
    }
}
