//! That the provider does what [`rustcrypto`](crate::crypto::rustcrypto) does, whose tests have the published vectors.

use alloc::vec;
use alloc::vec::Vec;

use hex_literal::hex;
use proptest::prelude::*;

use super::PROVIDER as AWS;
use crate::crypto::rustcrypto::testing::{FailsAt, Script, strings, to_sign};
use crate::crypto::rustcrypto::vectors::{SSHSIG_MESSAGE, rsa as key};
use crate::crypto::rustcrypto::{self, PROVIDER as RUST};
use crate::crypto::{KexAlgorithm, KexError, MacAlgorithm, PacketKeys, Provider, SignatureAlgorithm};
use crate::key::{KeyError, KeyPair, PublicKey};
use crate::wire::PutSsh;

/// Both directions between the providers.
const BOTH: [(&Provider, &Provider); 2] = [(&AWS, &RUST), (&RUST, &AWS)];

fn kex<'a>(provider: &'a Provider, name: &str) -> &'a dyn KexAlgorithm {
    *provider.kex.iter().find(|kex| kex.name() == name).unwrap()
}

fn signature<'a>(provider: &'a Provider, name: &str) -> &'a dyn SignatureAlgorithm {
    *provider.signatures.iter().find(|algorithm| algorithm.name() == name).unwrap()
}

#[test]
fn it_has_the_algorithms_of_rustcrypto_in_their_order() {
    let names = |provider: &Provider| {
        let kex = provider.kex.iter().map(|kex| kex.name());
        let ciphers = provider.ciphers.iter().map(|cipher| cipher.name());
        let macs = provider.macs.iter().map(|mac| mac.name());
        let signatures = provider.signatures.iter().map(|algorithm| algorithm.name());
        kex.chain(ciphers).chain(macs).chain(signatures).collect::<Vec<_>>()
    };
    let ours: Vec<_> =
        names(&AWS).into_iter().filter(|name| cfg!(feature = "rsa") || !name.starts_with("rsa")).collect();
    assert_eq!(ours, names(&RUST));
    for (aws, rust) in AWS.ciphers.iter().zip(RUST.ciphers) {
        assert_eq!(
            (aws.key_len(), aws.iv_len(), aws.is_aead()),
            (rust.key_len(), rust.iv_len(), rust.is_aead())
        );
    }
    for (aws, rust) in AWS.signatures.iter().zip(RUST.signatures) {
        assert_eq!(aws.key_type(), rust.key_type());
    }
}

#[test]
fn a_client_of_one_provider_and_a_server_of_the_other_agree() {
    for (client, server) in BOTH {
        for name in client.kex.iter().map(|kex| kex.name()) {
            let client = kex(client, name).start(&mut Script::new(1)).unwrap();
            let server = kex(server, name).respond(client.share(), &mut Script::new(2)).unwrap();
            let secret = client.complete(&server.share).unwrap();
            assert_eq!(secret.as_bytes(), server.secret.as_bytes(), "{name}");
            assert_eq!(secret.encoding(), server.secret.encoding(), "{name}");
        }
    }
}

#[test]
fn the_same_entropy_makes_the_same_classic_keys() {
    for name in ["curve25519-sha256", "ecdh-sha2-nistp256"] {
        let share = |provider| kex(provider, name).start(&mut Script::new(7)).unwrap().share().to_vec();
        assert_eq!(share(&AWS), share(&RUST), "{name}");
    }
    // Bytes that are no scalar of P-256 are drawn again.
    let order = hex!("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let draws = [[0; 32], order, [0xff; 32], [7; 32]].concat();
    let p256 =
        |entropy: &mut Script| kex(&AWS, "ecdh-sha2-nistp256").start(entropy).unwrap().share().to_vec();
    assert_eq!(p256(&mut Script::starting_with(&draws)), p256(&mut Script::starting_with(&[7; 32])));
}

#[test]
fn c3_a_failing_random_source_fails_every_exchange() {
    for kex in AWS.kex {
        assert_eq!(kex.start(&mut FailsAt(0)).err(), Some(KexError::Entropy), "{}", kex.name());
        let client = kex.start(&mut Script::new(1)).unwrap();
        assert_eq!(kex.respond(client.share(), &mut FailsAt(0)).err(), Some(KexError::Entropy));
    }
}

#[test]
fn kx_05_low_order_points_are_refused_in_both_roles_and_in_the_hybrid() {
    for point in rustcrypto::x25519::tests::low_order() {
        for (name, before_client, before_server) in
            [("curve25519-sha256", 0, 0), ("mlkem768x25519-sha256", 1184, 1088)]
        {
            let kex = kex(&AWS, name);
            let client = kex.start(&mut Script::new(1)).unwrap();
            let server = kex.respond(client.share(), &mut Script::new(2)).unwrap();
            let share = [&client.share()[..before_client], &point].concat();
            assert_eq!(
                kex.respond(&share, &mut Script::new(1)).err(),
                Some(KexError::BadShare),
                "{point:x?}"
            );
            let share = [&server.share[..before_server], &point].concat();
            assert_eq!(client.complete(&share).err(), Some(KexError::BadShare), "{point:x?}");
        }
    }
}

#[test]
fn kx_04_shares_of_another_length_are_refused() {
    for kex in AWS.kex {
        let good_client = kex.start(&mut Script::new(1)).unwrap().share().to_vec();
        let good_server = kex.respond(&good_client, &mut Script::new(2)).unwrap().share;
        for (good, at_server) in [(good_client, true), (good_server, false)] {
            let longer = [&good[..], &[0]].concat();
            // As X.509 has it, which AWS-LC reads too.
            let x25519 = [&hex!("302a300506032b656e032100"), &good[..]].concat();
            let p256 = [&hex!("3059301306072a8648ce3d020106082a8648ce3d030107034200"), &good[..]].concat();
            for share in [&[][..], &good[1..], &good[..good.len() - 1], &longer, &x25519, &p256] {
                let refused = if at_server {
                    kex.respond(share, &mut Script::new(1)).err()
                } else {
                    kex.start(&mut Script::new(1)).unwrap().complete(share).err()
                };
                assert_eq!(refused, Some(KexError::BadShare), "{} {}", kex.name(), share.len());
            }
        }
    }
}

#[test]
fn kx_04_points_that_are_none_are_refused_whatever_their_form() {
    let kex = kex(&AWS, "ecdh-sha2-nistp256");
    let good = kex.start(&mut Script::new(1)).unwrap().share().to_vec();
    let p = hex!("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
    // x = p stands for the x = 0 of a point of the curve.
    let sqrt_b = hex!("66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4");
    assert!(kex.respond(&[&[4], &[0; 32][..], &sqrt_b].concat(), &mut Script::new(1)).is_ok());
    let mut off_curve = good.clone();
    off_curve[64] ^= 1;
    let mut bad = vec![
        vec![0],
        vec![0; 65],
        off_curve,
        [&[4], &[0; 64][..]].concat(),
        [&[4], &p[..], &sqrt_b].concat(),
        [&[4], &good[1..33], &p].concat(),
        [&[4], &[0xff; 64][..]].concat(),
    ];
    for form in [0, 1, 2, 3, 5, 6, 7, 0x84] {
        let mut share = good.clone();
        share[0] = form;
        bad.push(share[..33].to_vec());
        bad.push(share);
    }
    for share in bad {
        assert_eq!(kex.respond(&share, &mut Script::new(1)).err(), Some(KexError::BadShare), "{share:x?}");
        let client = kex.start(&mut Script::new(1)).unwrap();
        assert_eq!(client.complete(&share).err(), Some(KexError::BadShare), "{share:x?}");
    }
}

#[test]
fn kx_06_an_encapsulation_key_that_is_not_reduced_is_refused() {
    let kex = kex(&AWS, "mlkem768x25519-sha256");
    let good = kex.start(&mut Script::new(1)).unwrap().share().to_vec();
    // Coefficients are twelve bits, and below 3329.
    for at in [0, 3, 1149] {
        let mut share = good.clone();
        share[at..at + 3].fill(0xff);
        assert_eq!(kex.respond(&share, &mut Script::new(1)).err(), Some(KexError::BadShare), "{at}");
    }
}

#[test]
fn a_ciphertext_that_was_changed_gives_another_secret() {
    let kex = kex(&AWS, "mlkem768x25519-sha256");
    let client = kex.start(&mut Script::new(1)).unwrap();
    let mut server = kex.respond(client.share(), &mut Script::new(2)).unwrap();
    server.share[5] ^= 1;
    let secret = client.complete(&server.share).unwrap();
    assert_ne!(secret.as_bytes(), server.secret.as_bytes());
}

/// The signers in memory of either provider, of the same keys.
fn pairs() -> Vec<(KeyPair, KeyPair)> {
    let seed = [3; 32];
    vec![
        (
            super::Ed25519Signer::from_seed(&seed).unwrap().key_pair(),
            rustcrypto::Ed25519Signer::from_seed(&seed).unwrap().key_pair(),
        ),
        (
            super::EcdsaP256Signer::from_scalar(&seed).unwrap().key_pair(),
            rustcrypto::EcdsaP256Signer::from_scalar(&seed).unwrap().key_pair(),
        ),
        #[cfg(feature = "rsa")]
        (
            super::RsaSigner::from_components(key::N, key::E, key::D, key::P, key::Q).unwrap().key_pair(),
            rustcrypto::RsaSigner::from_components(key::N, key::E, key::D, key::P, key::Q)
                .unwrap()
                .key_pair(),
        ),
        #[cfg(feature = "rsa")]
        (
            super::RsaSigner::from_components(key::N, key::E, key::D, key::Q, key::P).unwrap().key_pair(),
            rustcrypto::RsaSigner::from_components(key::N, key::E, key::D, key::Q, key::P)
                .unwrap()
                .key_pair(),
        ),
    ]
}

#[test]
fn what_one_provider_signs_the_other_verifies() {
    for (aws, rust) in pairs() {
        assert_eq!(aws.public, rust.public);
        let key = aws.public.as_blob();
        let names: Vec<_> =
            AWS.signatures.iter().filter(|it| it.key_type() == aws.public.key_type()).collect();
        assert!(!names.is_empty());
        for name in names.into_iter().map(|it| it.name()) {
            for number in 0_u8..16 {
                let message = [number];
                let what = to_sign(&aws.public, name, &message);
                for pair in [&aws, &rust] {
                    let made = pair.signer.as_ref().unwrap().sign(&what, &mut Script::new(1)).unwrap();
                    assert_eq!(made.algorithm(), name);
                    for provider in [&AWS, &RUST] {
                        let verifier = signature(provider, name);
                        assert_eq!(verifier.check_key(key), Ok(()));
                        assert_eq!(verifier.verify(key, &message, made.as_bytes()), Ok(()), "{name}");
                        assert!(verifier.verify(key, b"other", made.as_bytes()).is_err(), "{name}");
                        for at in [0, made.as_bytes().len() / 2, made.as_bytes().len() - 1] {
                            let mut forged = made.as_bytes().to_vec();
                            forged[at] ^= 1;
                            assert!(verifier.verify(key, &message, &forged).is_err(), "{name} {at}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn kx_14_signers_sign_for_their_own_key_and_algorithm_only() {
    let pairs = pairs();
    for (aws, _) in &pairs {
        let signer = aws.signer.as_ref().unwrap();
        for (other, _) in &pairs {
            for name in AWS.signatures.iter().map(|it| it.name()).chain(["ssh-rsa", ""]) {
                let may = other.public == aws.public
                    && AWS
                        .signatures
                        .iter()
                        .any(|it| it.name() == name && it.key_type() == aws.public.key_type());
                let what = to_sign(&other.public, name, b"m");
                assert_eq!(signer.sign(&what, &mut Script::new(1)).is_ok(), may, "{:?} {name}", aws.public);
            }
        }
    }
}

#[test]
fn kx_19_and_kx_20_both_refuse_the_same_keys_and_signatures() {
    let (pair, _) = pairs().swap_remove(0);
    let what = to_sign(&pair.public, "ssh-ed25519", b"m");
    let made = pair.signer.as_ref().unwrap().sign(&what, &mut Script::new(1)).unwrap();
    let ed25519 = signature(&AWS, "ssh-ed25519");
    let blob = |key: &[u8]| strings(&[b"ssh-ed25519", key]);
    for point in rustcrypto::ed25519::tests::SMALL_ORDER {
        for r in rustcrypto::ed25519::tests::SMALL_ORDER {
            let forged = [r, [0; 32]].concat();
            for message in 0..16_u8 {
                assert!(ed25519.verify(&blob(&point), &[message], &forged).is_err(), "{point:x?}");
            }
        }
        assert!(ed25519.check_key(&blob(&point)).is_err());
        let mut forged = made.as_bytes().to_vec();
        forged[..32].copy_from_slice(&point);
        assert!(ed25519.verify(pair.public.as_blob(), b"m", &forged).is_err());
    }
    // S beyond the order.
    let order = hex!("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    for times in 1..16_u32 {
        let mut carry = 0_u32;
        let mut forged = made.as_bytes().to_vec();
        for (byte, order) in forged[32..].iter_mut().zip(order) {
            carry += u32::from(*byte) + times * u32::from(order);
            *byte = carry as u8;
            carry >>= 8;
        }
        assert!(ed25519.verify(pair.public.as_blob(), b"m", &forged).is_err(), "{times}");
    }
    // Keys that are not reduced, with points of large order.
    for k in [3_u8, 4, 5, 6, 9, 10, 14, 15, 16, 18] {
        for top in [0x7f, 0xff] {
            let mut key = [0xff; 32];
            key[0] = 0xed + k;
            key[31] = top;
            assert!(!crate::crypto::rustcrypto::ed25519::is_sound(&key));
            assert!(ed25519.check_key(&blob(&key)).is_err());
        }
        let mut reduced = [0; 32];
        reduced[0] = k;
        assert!(crate::crypto::rustcrypto::ed25519::is_sound(&reduced));
    }
    let (pair, _) = pairs().swap_remove(1);
    let ecdsa = signature(&AWS, "ecdsa-sha2-nistp256");
    let n = hex!("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let mpints = |numbers: [&[u8]; 2]| {
        let mut out = Vec::new();
        numbers.iter().for_each(|number| out.put_mpint(number));
        out
    };
    for number in [&[][..], &n, &[0xff; 32], &[1]] {
        for signature in [mpints([number, &[7; 32]]), mpints([&[7; 32], number])] {
            assert!(ecdsa.verify(pair.public.as_blob(), b"m", &signature).is_err());
        }
    }
    for scalar in [[0; 32], n, [0xff; 32]] {
        assert!(super::EcdsaP256Signer::from_scalar(&scalar).is_err());
    }
}

#[test]
fn rsa_keys_that_aws_lc_does_not_take_go_to_rustcrypto_or_are_refused() {
    let algorithm = signature(&AWS, "rsa-sha2-512");
    let elsewhere = if cfg!(feature = "rsa") { Ok(()) } else { Err(KeyError::WeakOrHuge) };
    let odd = |bits: usize| {
        let mut number = vec![0x5a; bits.div_ceil(8)];
        number[0] = 1 << ((bits - 1) % 8);
        *number.last_mut().unwrap() |= 1;
        number
    };
    for (e, n, verdict) in [
        (&[3][..], odd(2048), Ok(())),
        (&[1, 0, 1], odd(2049), Ok(())),
        (&[0xff; 4], odd(8192), Ok(())),
        (&[3], odd(8193), elsewhere),
        (&[1, 0, 1], odd(16384), elsewhere),
        (&[1, 0, 0, 0, 1], odd(2048), elsewhere),
        (&[0xff; 8], odd(2048), elsewhere),
        (&[3], odd(2047), Err(KeyError::WeakOrHuge)),
        (&[2], odd(2048), Err(KeyError::WeakOrHuge)),
    ] {
        let mut blob = strings(&[b"ssh-rsa"]);
        blob.put_mpint(e);
        blob.put_mpint(&n);
        assert_eq!(algorithm.check_key(&blob), verdict, "{e:?} {}", n.len());
        for signature in [&vec![1; n.len()][..], &[], &[1], &vec![0xff; n.len() + 1]] {
            assert!(algorithm.verify(&blob, b"m", signature).is_err());
        }
    }
}

#[test]
fn rsa_signatures_of_openssh_verify_with_or_without_leading_zeros() {
    for (name, made) in [("rsa-sha2-256", key::SHA256), ("rsa-sha2-512", key::SHA512)] {
        assert_eq!(signature(&AWS, name).verify(key::BLOB, SSHSIG_MESSAGE, made), Ok(()));
        assert!(signature(&AWS, name).verify(key::BLOB, b"other", made).is_err());
    }
    let algorithm = signature(&AWS, "rsa-sha2-512");
    let signer =
        super::RsaSigner::from_components(key::N, key::E, key::D, key::P, key::Q).unwrap().key_pair();
    // One message in 256 has a signature that begins with a zero.
    let (message, made) = (0_u32..)
        .map(|number| {
            let message = number.to_be_bytes();
            let what = to_sign(&signer.public, "rsa-sha2-512", &message);
            (message, signer.signer.as_ref().unwrap().sign(&what, &mut Script::new(1)).unwrap())
        })
        .find(|(_, made)| made.as_bytes()[0] == 0)
        .unwrap();
    let made = made.as_bytes();
    assert_eq!(algorithm.verify(key::BLOB, &message, &made[1..]), Ok(()));
    assert!(algorithm.verify(key::BLOB, &message, &[&[0], made].concat()).is_err());
    assert!(algorithm.verify(key::BLOB, &message, &[]).is_err());
    assert!(algorithm.verify(key::BLOB, &message, key::N).is_err());
}

#[test]
fn rsa_components_that_do_not_belong_together_are_refused() {
    let with = |n: &[u8], e: &[u8], d: &[u8], p: &[u8], q: &[u8]| {
        super::RsaSigner::from_components(n, e, d, p, q).err()
    };
    assert_eq!(with(key::N, key::E, key::D, key::Q, key::P), None);
    assert_eq!(with(&[&[0, 0], key::N].concat(), key::E, &[&[0], key::D].concat(), key::P, key::Q), None);
    let mut d = key::D.to_vec();
    d[200] ^= 4;
    assert_eq!(with(key::N, key::E, &d, key::P, key::Q), Some(KeyError::Malformed));
    let huge = [0xff; 1025];
    for (d, p, q) in [
        (key::D, key::P, key::P),
        (key::D, &[1][..], key::N),
        (key::D, key::N, &[1][..]),
        (key::D, &[3], &[2]),
        (key::D, &[], &[]),
        (&[], &[], &[]),
        (&[], key::P, key::Q),
        (key::D, &[0], &[0]),
        (&huge, key::P, key::Q),
        (key::D, &huge, key::Q),
        (key::D, key::P, &[0xff; 1024]),
        (&huge[..257], key::P, key::Q),
    ] {
        assert_eq!(with(key::N, key::E, d, p, q), Some(KeyError::Malformed), "{p:x?} {q:x?}");
    }
    assert_eq!(with(key::N, &[3], key::D, key::P, key::Q), Some(KeyError::Malformed));
    assert_eq!(with(key::P, key::E, key::D, key::P, &[1]), Some(KeyError::WeakOrHuge));
    assert_eq!(with(key::N, &[4], key::D, key::P, key::Q), Some(KeyError::WeakOrHuge));
}

#[test]
fn a_public_key_is_the_same_to_both() {
    let blob = strings(&[b"ssh-ed25519", &[9; 32]]);
    let key = PublicKey::from_blob(&blob);
    for (one, other) in BOTH {
        let verdict = |provider| signature(provider, "ssh-ed25519").check_key(&blob);
        assert_eq!(verdict(one), verdict(other));
    }
    assert!(key.is_ok());
}

/// Every way to protect packets: a cipher, and a MAC where it needs one.
fn suites() -> Vec<(&'static str, Option<&'static dyn MacAlgorithm>)> {
    let mut suites = Vec::new();
    for cipher in RUST.ciphers {
        if cipher.is_aead() {
            suites.push((cipher.name(), None));
        } else {
            suites.extend(RUST.macs.iter().map(|&mac| (cipher.name(), Some(mac))));
        }
    }
    suites
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_seal_to_the_same_bytes_and_open_and_refuse_what_the_other_sealed(
        seq: u32,
        key: u8,
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..4),
        flip: prop::sample::Index,
    ) {
        for (name, mac) in suites() {
            let cipher = |provider: &Provider| {
                *provider.ciphers.iter().find(|cipher| cipher.name() == name).unwrap()
            };
            let key: Vec<u8> = (key..=255).chain(0..key).cycle().take(128).collect();
            let (aws, rust) = (cipher(&AWS), cipher(&RUST));
            let keys = PacketKeys {
                key: &key[..rust.key_len()],
                iv: &key[64..64 + rust.iv_len()],
                mac: mac.map(|mac| (mac, &key[..mac.key_len()])),
            };
            let (mut ours, mut theirs) = (aws.sealer(&keys), rust.sealer(&keys));
            let (mut opens, mut also_opens) = (aws.opener(&keys), rust.opener(&keys));
            prop_assert_eq!(ours.shape(), theirs.shape());
            prop_assert_eq!(opens.shape(), also_opens.shape());
            prop_assert_eq!(opens.length_is_malleable(), also_opens.length_is_malleable());
            for (number, body) in bodies.iter().enumerate() {
                let seq = seq.wrapping_add(number as u32);
                let shape = ours.shape();
                let clear = if shape.length_in_block { 4 } else { 0 };
                let body: Vec<u8> = body.iter().copied().cycle().take(body.len() * 16 - clear).collect();
                let plain = [&(body.len() as u32).to_be_bytes()[..], &body, &vec![0; shape.tag]].concat();
                let (mut one, mut other) = (plain.clone(), plain.clone());
                ours.seal(seq, &mut one);
                theirs.seal(seq, &mut other);
                prop_assert_eq!(&one, &other, "{}", name);
                let head = &one[..opens.head_len()];
                prop_assert_eq!(opens.packet_length(seq, head), body.len() as u32);
                prop_assert_eq!(also_opens.packet_length(seq, head), body.len() as u32);
                // With a bit flipped, by an opener of its own: the stream goes on behind.
                let mut flipped = one.clone();
                flipped[flip.index(one.len())] ^= 1;
                let mut fresh = aws.opener(&keys);
                fresh.packet_length(seq, &flipped[..fresh.head_len()]);
                prop_assert!(fresh.open(seq, &mut flipped).is_err());
                prop_assert_eq!(opens.open(seq, &mut one), Ok(()));
                prop_assert_eq!(also_opens.open(seq, &mut other), Ok(()));
                prop_assert_eq!(&one[4..4 + body.len()], &body[..]);
                prop_assert_eq!(&other[4..4 + body.len()], &body[..]);
            }
        }
    }

    #[test]
    fn pk_04_noise_never_opens_and_never_panics(seq: u32, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        for cipher in AWS.ciphers.iter().filter(|cipher| cipher.is_aead()) {
            for key_len in [0, cipher.key_len() - 1, cipher.key_len(), cipher.key_len() + 1] {
                let keys = PacketKeys { key: &vec![1; key_len], iv: &vec![2; cipher.iv_len()], mac: None };
                let mut opener = cipher.opener(&keys);
                opener.packet_length(seq, &noise[..noise.len().min(4)]);
                prop_assert!(opener.open(seq, &mut noise.clone()).is_err());
                cipher.sealer(&keys).seal(seq, &mut noise.clone());
            }
        }
    }
}
