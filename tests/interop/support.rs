//! What the tests of both directions share.

use std::io::{self, Write as _};
use std::process;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use ssh_io_std::ssh_proto::crypto::{self, PROVIDER, Provider};
use ssh_io_std::ssh_proto::{ClientConfig, Limits, Negotiated, ServerConfig};

use crate::keys;
use crate::matrix::{Combo, Ours, is_aead};
use crate::peers::Rig;

/// How long anything may stand still.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// How long a large transfer may take.
pub(crate) const TRANSFER_LIMIT: Duration = Duration::from_secs(240);
/// How long a test may take in all.
const TEST_LIMIT: Duration = Duration::from_secs(600);

/// What goes each way in a combination: some more than 1 MiB.
pub(crate) const SMALL: usize = (1 << 20) + 12_345;
/// What goes each way while keys are renewed.
pub(crate) const LARGE: usize = 64 << 20;
/// The same while only the peer renews them.
pub(crate) const MIDDLE: usize = 16 << 20;
/// The volume after which keys are renewed there.
pub(crate) const REKEY_BYTES: u64 = 1 << 20;
/// How often that must have happened at least for `bytes` each way. Each side starts a renewal at 1 MiB in
/// either direction, but what is under way by then still travels under the old keys.
pub(crate) fn min_rekeys(bytes: usize) -> u64 {
    bytes as u64 / REKEY_BYTES / 2
}

/// The result of a check: what is wrong.
pub(crate) type Checked = Result<(), String>;

/// Ends the process when a test hangs in spite of all its time limits.
pub(crate) struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    pub(crate) fn new(test: String) -> Self {
        let (alive, gone) = channel();
        thread::spawn(move || {
            if gone.recv_timeout(TEST_LIMIT) == Err(RecvTimeoutError::Timeout) {
                // Not `eprintln`, which the test harness would keep to itself.
                let _ = writeln!(io::stderr(), "{test}: not done after {TEST_LIMIT:?}");
                process::abort();
            }
        });
        Self { _alive: alive }
    }
}

/// Fails the test when checks failed, with a line for each.
#[track_caller]
pub(crate) fn report(results: impl IntoIterator<Item = (String, Checked)>) {
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(|(what, result)| result.err().map(|why| format!("{what}: {why}")))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// Bytes without a pattern that a lost, repeated or moved piece would leave intact.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len.div_ceil(8) as u64)
        .flat_map(|n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes())
        .take(len)
        .collect()
}

/// Checks that data came back as it was sent.
pub(crate) fn same(got: &[u8], sent: &[u8]) -> Checked {
    let differ = got.iter().zip(sent).position(|(a, b)| a != b);
    ensure!(
        got == sent,
        "{} bytes came back for {} sent, the first difference at {differ:?}",
        got.len(),
        sent.len()
    );
    Ok(())
}

/// A provider with one signature algorithm first.
fn with_rsa_sha256_first(provider: &Provider) -> Provider {
    let mut signatures = provider.signatures.to_vec();
    signatures.sort_by_key(|signature| signature.name() != "rsa-sha2-256");
    let Provider { name, deterministic, kex, ciphers, macs, .. } = *provider;
    Provider { name, deterministic, kex, ciphers, macs, signatures: signatures.leak() }
}

/// The algorithms of ours that a combination says, with the signature algorithm of its user key first, since a client
/// takes the first that fits the key.
fn provider(combo: Option<&Combo>) -> &'static Provider {
    static RUSTCRYPTO: LazyLock<Provider> =
        LazyLock::new(|| with_rsa_sha256_first(&crypto::rustcrypto::PROVIDER));
    static AWS_LC: LazyLock<Provider> = LazyLock::new(|| with_rsa_sha256_first(&crypto::aws_lc::PROVIDER));
    let Some(combo) = combo else { return &PROVIDER };
    match (combo.ours, combo.user_key == "rsa-sha2-256") {
        (Ours::RustCrypto, false) => &crypto::rustcrypto::PROVIDER,
        (Ours::RustCrypto, true) => &RUSTCRYPTO,
        (Ours::AwsLc, false) => &crypto::aws_lc::PROVIDER,
        (Ours::AwsLc, true) => &AWS_LC,
    }
}

/// What may take how long here.
pub(crate) fn limit_times(limits: &mut Limits) {
    limits.kex_timeout = WAIT;
    limits.login_timeout = WAIT;
    limits.open_timeout = Some(WAIT);
    limits.request_timeout = Some(WAIT);
}

/// A configuration of our client: one combination only, or all it has.
pub(crate) fn client_config(combo: Option<&Combo>, rekey: Option<u64>) -> Arc<ClientConfig> {
    let mut builder = ClientConfig::builder(provider(combo));
    if let Some(combo) = combo {
        builder = builder.kex(&[combo.kex]).ciphers(&[combo.cipher]).host_key_algorithms(&[combo.host_key]);
        if let Some(mac) = combo.mac {
            builder = builder.macs(&[mac]);
        }
    }
    if let Some(bytes) = rekey {
        builder = builder.with_rekey(|policy| policy.bytes = bytes);
    }
    builder.with_limits(limit_times).build().expect("a valid configuration")
}

/// A configuration of our server, with host keys of all types.
pub(crate) fn server_config(rig: &Rig, combo: Option<&Combo>, rekey: Option<u64>) -> Arc<ServerConfig> {
    let mut builder = ServerConfig::builder(provider(combo));
    for key in rig.host_keys() {
        builder = builder.host_key(keys::key_pair(&key, combo));
    }
    if let Some(combo) = combo {
        builder = builder.kex(&[combo.kex]).ciphers(&[combo.cipher]).host_key_algorithms(&[combo.host_key]);
        if let Some(mac) = combo.mac {
            builder = builder.macs(&[mac]);
        }
    }
    if let Some(bytes) = rekey {
        builder = builder.with_rekey(|policy| policy.bytes = bytes);
    }
    builder.with_limits(limit_times).build().expect("a valid configuration")
}

/// Checks that a connection uses exactly the algorithms of a combination.
pub(crate) fn check_negotiated(combo: &Combo, negotiated: Option<&Negotiated>) -> Checked {
    let negotiated = negotiated.ok_or("nothing negotiated")?;
    let mac = if is_aead(combo.cipher) { None } else { combo.mac };
    let same = negotiated.kex == combo.kex
        && negotiated.host_key == combo.host_key
        && negotiated.cipher_client_to_server == combo.cipher
        && negotiated.cipher_server_to_client == combo.cipher
        && negotiated.mac_client_to_server == mac
        && negotiated.mac_server_to_client == mac;
    ensure!(same, "negotiated {negotiated:?}");
    Ok(())
}

/// The name of a combination in messages.
pub(crate) fn describe(combo: &Combo) -> String {
    let Combo { kex, cipher, mac, host_key, user_key, ours } = combo;
    format!("{kex} {cipher} {} host {host_key} user {user_key} by {ours:?}", mac.unwrap_or("-"))
}
