//! Somebody on the way who changes, repeats or exchanges bytes, under every cipher: each side hears of it, and
//! nothing of what follows is taken.

use std::io::{Read, Write};
use std::sync::Arc;

use ssh_proto::PeerMisbehaved::{BadMac, PacketMisaligned, PacketTooLong, PacketTooShort};
use ssh_proto::{ClientConfig, CloseReason, DisconnectCode, ServerConfig};
use ssh_tests::{rustcrypto_client, rustcrypto_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use crate::crowd::{blocking_by, comes_back, logged_in_by};
use crate::line::Meddling;
use crate::over_tokio::runtime;
use crate::tally::{STD, TOKIO, survived, turn};

/// Each with a MAC, where it needs one: over the packet as it is sent, or as it is read.
const CIPHERS: [(&str, &str); 4] = [
    ("aes128-gcm@openssh.com", ""),
    ("chacha20-poly1305@openssh.com", ""),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-256"),
];

/// A length, the first block, and what is far behind them.
const BEHIND: [usize; 6] = [0, 2, 3, 4, 17, 5000];
const HOW: [Meddling; 3] = [Meddling::Flipped, Meddling::Twice(1000), Meddling::Swapped(1000)];

/// What is done to the bytes of which side.
#[derive(Debug, Clone, Copy)]
struct Case {
    cipher: &'static str,
    mac: &'static str,
    side: usize,
    behind: usize,
    how: Meddling,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (cipher, mac) in CIPHERS {
        for side in [0, 1] {
            for behind in BEHIND {
                cases.extend(HOW.map(|how| Case { cipher, mac, side, behind, how }));
            }
        }
    }
    cases
}

impl Case {
    fn configs(self) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let (client, server) = (rustcrypto_client().ciphers(&[self.cipher]), rustcrypto_server());
        let client = if self.mac.is_empty() { client } else { client.macs(&[self.mac]) };
        (client.build().unwrap(), server.build().unwrap())
    }

    /// What the client and the server heard. Whether it was of the MAC, and not of a length.
    fn check(self, [client, server]: [CloseReason; 2]) -> bool {
        // Whoever got what was changed finds out, and tells the other.
        let (finds, is_told) = if self.side == 0 { (server, client) } else { (client, server) };
        let CloseReason::PeerMisbehaved { rule, message: None } = finds else {
            panic!("{self:?}: {finds:?}");
        };
        assert!(
            matches!(rule, BadMac | PacketTooShort | PacketTooLong | PacketMisaligned),
            "{self:?}: {rule:?}"
        );
        let of_the_mac = rule == BadMac;
        // Only a length that is read before it is proved says something else: GCM's, and that of an own MAC.
        assert!(
            of_the_mac || self.cipher != "aes128-ctr" || self.mac.ends_with("etm@openssh.com"),
            "{self:?}"
        );
        let code = match is_told {
            CloseReason::PeerDisconnected { code, .. } => code,
            other => panic!("{self:?}: {other:?}"),
        };
        let expected = if of_the_mac { DisconnectCode::MAC_ERROR } else { DisconnectCode::PROTOCOL_ERROR };
        assert_eq!(code, expected, "{self:?}");
        of_the_mac
    }
}

/// What is sent at a place of the stream.
fn byte(at: usize) -> u8 {
    u8::try_from(at % 251).expect("less than 251")
}

/// Whether all of it is what was sent, and in its order; `at` is the place of the first one.
fn check(case: Case, at: usize, bytes: &[u8]) {
    assert!(bytes.iter().zip(at..).all(|(got, at)| *got == byte(at)), "{case:?}: wrong bytes behind {at}");
}

const PIECE: usize = 251 * 50;

/// Most of what was tried failed for the MAC.
fn tell(adapter: &'static str, cases: usize, of_the_mac: usize) {
    assert!(of_the_mac > cases / 2, "{of_the_mac} of {cases}");
    survived(adapter, "bytes changed, repeated or exchanged on the way", cases);
}

#[test]
fn ad_22_bytes_that_somebody_meddled_with_over_tokio() {
    let _turn = turn();
    let (cases, mut of_the_mac) = (cases(), 0);
    for case in &cases {
        let reasons = async {
            let (line, client, server) = logged_in_by(case.configs()).await;
            let (mut reader, mut writer) = client.open_session().await.unwrap().split();
            writer.channel().exec("program").await.unwrap();
            line.meddle(case.side, case.behind, case.how);
            let writing = tokio::spawn(async move {
                let data: Vec<u8> = (0..PIECE).map(byte).collect();
                while AsyncWriteExt::write_all(&mut writer, &data).await.is_ok() {}
            });
            let (mut buffer, mut at) = (vec![0; 5000], 0);
            while let Ok(n @ 1..) = reader.read(&mut buffer).await {
                check(*case, at, &buffer[..n]);
                at += n;
            }
            writing.await.unwrap();
            [client.closed().await, server.closed().await]
        };
        let reasons = runtime().block_on(async { timeout(Duration::from_secs(3600), reasons).await });
        of_the_mac += usize::from(case.check(reasons.expect("nobody finds out")));
    }
    tell(TOKIO, cases.len(), of_the_mac);
}

#[test]
fn ad_22_bytes_that_somebody_meddled_with_over_std() {
    let _turn = turn();
    let (cases, mut of_the_mac) = (cases(), 0);
    for case in cases.clone() {
        let reasons = comes_back(move || {
            let (line, client, server) = blocking_by(case.configs());
            let (mut reader, mut writer) = client.open_session().unwrap().split();
            writer.channel().exec("program").unwrap();
            line.meddle(case.side, case.behind, case.how);
            let writing = std::thread::spawn(move || {
                let data: Vec<u8> = (0..PIECE).map(byte).collect();
                while Write::write_all(&mut writer, &data).is_ok() {}
            });
            let (mut buffer, mut at) = (vec![0; 5000], 0);
            while let Ok(n @ 1..) = Read::read(&mut reader, &mut buffer) {
                check(case, at, &buffer[..n]);
                at += n;
            }
            writing.join().unwrap();
            [client.closed(), server.closed()]
        });
        of_the_mac += usize::from(case.check(reasons));
    }
    tell(STD, cases.len(), of_the_mac);
}
