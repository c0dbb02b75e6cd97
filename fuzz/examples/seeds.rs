//! Writes the seeds of the corpora: every message, every stage, and every step behind every stage.

use std::fs;
use std::io;
use std::path::Path;

use ssh_fuzz::hostile::{KINDS, message};
use ssh_fuzz::input::Input;
use ssh_fuzz::session::{STAGES, STEPS, Step};
use ssh_proto::crypto::rustcrypto::{self, Ed25519Signer};
use ssh_proto::keys::PrivateKey;
use ssh_proto::{PublicKey, Side};
use ssh_tests::{Puppet, Seeded, null};

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: String, bytes: &[u8]| {
        fs::create_dir_all(root.join(target))?;
        fs::write(root.join(target).join(name), bytes)
    };
    for kind in 0..KINDS as u8 {
        let payload = message(&mut Input(&[kind, 1, 1, 1, 1, 1, 1, 1]), b"session");
        write("messages", format!("message-{kind}"), &[&[0], &payload[..]].concat())?;
        write("messages", format!("fields-{kind}"), &[&[2], &payload[1..]].concat())?;
    }
    for (name, key) in key_files() {
        write("messages", name, &[&[3], key.as_bytes()].concat())?;
    }
    let mut entropy = Seeded::new(1);
    let (one, other) =
        (PrivateKey::generate_ed25519(&mut entropy), PrivateKey::generate_ecdsa_p256(&mut entropy));
    for (at, key) in [one, other].into_iter().flatten().enumerate() {
        let file = key.to_openssh("comment", &mut entropy).expect("there is entropy");
        write("messages", format!("private-{at}"), &[&[4], file.expose().as_bytes()].concat())?;
    }
    for cipher in 0..6 {
        for mac in 0..4 {
            let program =
                [&[6, cipher, mac, 7, 2, 3][..], b"abc", &[0, 3], b"def", &[1, 0, 0, 0, 12]].concat();
            write("messages", format!("packets-{cipher}-{mac}"), &program)?;
        }
    }
    let [client, server] = [Side::Client, Side::Server].map(|side| {
        let mut offer = Puppet::new(side, &rustcrypto::PROVIDER, b"", |_| Vec::new()).offer();
        offer.follows = side == Side::Client;
        offer.payload()
    });
    write("messages", "negotiation".into(), &[&[7], &client[..], &server].concat())?;
    for target in ["client", "server"] {
        write(target, "raw".into(), b"\x81\x40\xffSSH-2.0-x\r\n\0\0\0\x0c\x0a\x02\0\0\0\0\0\0\0\0\0\0\0")?;
        for stage in 0..STAGES.len() as u8 {
            for (setup, name) in [0, 1, 2, 8, 16, 32, 63].iter().zip('a'..) {
                write(target, format!("stage-{stage}-{name}"), &[64 | stage, *setup, Step::Settle as u8])?;
            }
            for step in 0..STEPS as u8 {
                let program =
                    [32 | stage, 0, step, 5, 5, 5, Step::DeliverAll as u8, 100, Step::Poll as u8, 7];
                write(target, format!("step-{stage}-{step}"), &program)?;
            }
            for kind in 0..KINDS as u8 {
                let program =
                    [64 | stage, 0, Step::Message as u8, kind, 0, 1, 1, 1, 1, 1, Step::Settle as u8];
                write(target, format!("message-{stage}-{kind}"), &program)?;
            }
        }
    }
    Ok(())
}

fn key_files() -> Vec<(String, String)> {
    let ed25519 = Ed25519Signer::from_seed(&[1; 32]).expect("any seed is a key").key_pair();
    let keys: [PublicKey; 2] = [null::public_key(1), ed25519.public];
    let lines = keys.iter().map(PublicKey::to_line).enumerate();
    lines
        .flat_map(|(at, line)| {
            [
                (format!("public-{at}"), format!("{line} a comment\n")),
                (format!("authorized-{at}"), format!("# keys\n{line}\ncommand=\"x y\" {line}\n")),
                (
                    format!("known-{at}"),
                    format!("host,[host]:2222 {line}\n@revoked *.example.com {line}\n|1|eA==|eA== {line}\n"),
                ),
            ]
        })
        .collect()
}
