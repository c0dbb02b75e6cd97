//! Which algorithms to try with which peer.

use crate::peers::Peer;

/// One choice of algorithms for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Combo {
    pub(crate) kex: &'static str,
    pub(crate) cipher: &'static str,
    /// `None` where the cipher brings its own.
    pub(crate) mac: Option<&'static str>,
    pub(crate) host_key: &'static str,
    pub(crate) user_key: &'static str,
    /// Where our side has its cryptography from.
    pub(crate) ours: Ours,
}

/// Our crypto providers. They take turns, and not the same ones over both adapters, so that each combination is
/// tried with each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ours {
    RustCrypto,
    AwsLc,
}

/// The role of the peer; ours is the other one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    /// The name in the summary and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What a peer and we have in common.
struct Common {
    kexes: &'static [&'static str],
    ciphers: &'static [&'static str],
    macs: &'static [&'static str],
    keys: &'static [&'static str],
}

const MACS: &[&str] =
    &["hmac-sha2-256", "hmac-sha2-512", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"];

const KEYS: &[&str] = &["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256", "rsa-sha2-512"];

/// OpenSSH 9.2: it has no ML-KEM yet.
const OPENSSH: Common = Common {
    kexes: &["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"],
    ciphers: &[
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "aes128-ctr",
        "aes256-ctr",
    ],
    macs: MACS,
    keys: KEYS,
};

/// dropbear 2022.83 as Debian builds it.
const DROPBEAR: Common = Common {
    kexes: &["curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"],
    ciphers: &["chacha20-poly1305@openssh.com", "aes128-ctr", "aes256-ctr"],
    macs: &["hmac-sha2-256"],
    keys: &["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256"],
};

const PARAMIKO: Common = Common {
    kexes: &["mlkem768x25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"],
    ciphers: &["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr"],
    macs: MACS,
    keys: KEYS,
};

const ASYNCSSH: Common = Common {
    kexes: &[
        "mlkem768x25519-sha256",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
    ],
    ciphers: OPENSSH.ciphers,
    macs: MACS,
    keys: KEYS,
};

/// The combinations for a peer, which has the same algorithms in both roles:
/// every key exchange with every cipher, every cipher with every MAC that it
/// needs, and every type of host and user key. `adapter` is the crate of ours.
pub(crate) fn combos(peer: Peer, adapter: &str) -> Vec<Combo> {
    let common = match peer {
        Peer::OpenSsh => &OPENSSH,
        Peer::Dropbear => &DROPBEAR,
        Peer::Paramiko => &PARAMIKO,
        Peer::AsyncSsh => &ASYNCSSH,
    };
    let mut combos = Vec::new();
    for (row, kex) in common.kexes.iter().enumerate() {
        for (column, cipher) in common.ciphers.iter().enumerate() {
            add(&mut combos, common, kex, cipher, row + column);
        }
    }
    // The key exchanges have gone through some of the MACs; here is the rest.
    for cipher in common.ciphers.iter().filter(|cipher| !is_aead(cipher)) {
        for (index, mac) in common.macs.iter().enumerate() {
            if !combos.iter().any(|combo: &Combo| combo.cipher == *cipher && combo.mac == Some(mac)) {
                add(&mut combos, common, common.kexes[index % common.kexes.len()], cipher, index);
            }
        }
    }
    let turns = [Ours::AwsLc, Ours::RustCrypto].into_iter().cycle();
    let turns = turns.skip(usize::from(adapter == "ssh-io-tokio"));
    combos.iter_mut().zip(turns).for_each(|(combo, ours)| combo.ours = ours);
    combos
}

/// Adds a combination with the MAC of that index, and the next keys in turn.
fn add(combos: &mut Vec<Combo>, common: &Common, kex: &'static str, cipher: &'static str, mac: usize) {
    let turn = combos.len();
    let keys = common.keys;
    combos.push(Combo {
        kex,
        cipher,
        mac: (!is_aead(cipher)).then(|| common.macs[mac % common.macs.len()]),
        host_key: keys[turn % keys.len()],
        // One step aside after each round, so that the pairs differ.
        user_key: keys[(turn + turn / keys.len()) % keys.len()],
        ours: Ours::AwsLc,
    });
}

/// Whether a cipher authenticates by itself.
pub(crate) fn is_aead(cipher: &str) -> bool {
    cipher.contains("gcm") || cipher.contains("poly1305")
}
