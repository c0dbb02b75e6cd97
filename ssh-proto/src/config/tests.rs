use alloc::collections::BTreeSet;

use super::*;
use crate::crypto::rustcrypto::{Ed25519Signer, PROVIDER};

/// A change to a configuration of either role.
#[derive(Debug, Clone, Copy)]
enum Change {
    Limits(fn(&mut Limits)),
    Rekey(fn(&mut RekeyPolicy)),
    Kex(&'static [&'static str]),
    HostKeys(&'static [&'static str]),
    Ciphers(&'static [&'static str]),
    Macs(&'static [&'static str]),
    Version(&'static str),
}

use Change::{Ciphers, HostKeys, Kex, Macs, Rekey, Version};

macro_rules! changed {
    ($builder:expr, $change:expr) => {
        match $change {
            Change::Limits(change) => $builder.with_limits(change),
            Rekey(change) => $builder.with_rekey(change),
            Kex(names) => $builder.kex(names),
            HostKeys(names) => $builder.host_key_algorithms(names),
            Ciphers(names) => $builder.ciphers(names),
            Macs(names) => $builder.macs(names),
            Version(version) => $builder.software_version(version),
        }
    };
}

fn client() -> ClientConfigBuilder {
    ClientConfig::builder(&PROVIDER)
}

fn server() -> ServerConfigBuilder {
    let key = Ed25519Signer::from_seed(&[7; 32]).unwrap().key_pair();
    ServerConfig::builder(&PROVIDER).host_key(key)
}

const UNKNOWN: ConfigError = ConfigError::UnknownAlgorithm("none");
const LONGEST: &str = text(&[b'1'; 200]);
const TOO_LONG: &str = text(&[b'1'; 201]);

const fn text(bytes: &'static [u8]) -> &'static str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("not UTF-8"),
    }
}

/// What either role refuses.
const REFUSED: &[(ConfigError, Change)] = &[
    (UNKNOWN, Kex(&["curve25519-sha256", "none"])),
    (UNKNOWN, HostKeys(&["none"])),
    (UNKNOWN, Ciphers(&["aes128-gcm@openssh.com", "none"])),
    (UNKNOWN, Macs(&["none"])),
    (ConfigError::NoAlgorithms, Kex(&[])),
    (ConfigError::NoAlgorithms, HostKeys(&[])),
    (ConfigError::NoAlgorithms, Ciphers(&[])),
    (ConfigError::BadSoftwareVersion, Version("")),
    (ConfigError::BadSoftwareVersion, Version("two\nlines")),
    (ConfigError::BadSoftwareVersion, Version("tab\t")),
    (ConfigError::BadSoftwareVersion, Version("m\u{fc}de")),
    (ConfigError::BadSoftwareVersion, Version(TOO_LONG)),
    (ConfigError::BudgetTooSmall, Change::Limits(|l| l.recv_budget = l.max_channels * l.min_window - 1)),
    (ConfigError::BudgetTooSmall, Change::Limits(|l| l.min_window = l.recv_budget)),
    (ConfigError::BadLimit("max_channels"), Change::Limits(|l| l.max_channels = 0)),
    (ConfigError::BadLimit("max_channels"), Change::Limits(|l| l.max_channels = 65_537)),
    (ConfigError::BadLimit("min_window"), Change::Limits(|l| l.min_window = 0)),
    (ConfigError::BadLimit("min_window"), Change::Limits(|l| l.min_window = 1 << 32)),
    (ConfigError::BadLimit("output"), Change::Limits(|l| l.output = 64 * 1024 - 1)),
    (ConfigError::BadLimit("owed_replies"), Change::Limits(|l| l.owed_replies = 0)),
    (ConfigError::BadLimit("outbox_bytes"), Change::Limits(|l| l.outbox_bytes = 40 * 1024 - 1)),
    (ConfigError::BadLimit("outbox_messages"), Change::Limits(|l| l.outbox_messages = 0)),
    (ConfigError::BadLimit("events"), Change::Limits(|l| l.events = 0)),
    (ConfigError::BadLimit("noise_burst"), Change::Limits(|l| l.noise_burst = 0)),
    (ConfigError::BadLimit("pending_requests"), Change::Limits(|l| l.pending_requests = 0)),
    (ConfigError::BadLimit("pending_globals"), Change::Limits(|l| l.pending_globals = 0)),
    (ConfigError::BadLimit("pre_auth_bytes"), Change::Limits(|l| l.pre_auth_bytes = 0)),
    (ConfigError::BadLimit("pre_auth_packets"), Change::Limits(|l| l.pre_auth_packets = 0)),
    (ConfigError::BadLimit("ident_timeout"), Change::Limits(|l| l.ident_timeout = Duration::ZERO)),
    (ConfigError::BadLimit("kex_timeout"), Change::Limits(|l| l.kex_timeout = Duration::ZERO)),
    (ConfigError::BadLimit("rekey_timeout"), Change::Limits(|l| l.rekey_timeout = Duration::ZERO)),
    (ConfigError::BadLimit("login_timeout"), Change::Limits(|l| l.login_timeout = Duration::ZERO)),
    (ConfigError::BadLimit("write_stall"), Change::Limits(|l| l.write_stall = Duration::ZERO)),
    (ConfigError::BadLimit("auth_failures"), Change::Limits(|l| l.auth_failures = 0)),
    (ConfigError::BadLimit("auth_requests"), Change::Limits(|l| l.auth_requests = 0)),
    (ConfigError::BadLimit("auth_requests"), Change::Limits(|l| l.auth_requests = 1)),
    (ConfigError::BadLimit("client_auth_requests"), Change::Limits(|l| l.client_auth_requests = 0)),
    (ConfigError::BadLimit("open_timeout"), Change::Limits(|l| l.open_timeout = Some(Duration::ZERO))),
    (ConfigError::BadLimit("request_timeout"), Change::Limits(|l| l.request_timeout = Some(Duration::ZERO))),
    (
        ConfigError::BadLimit("keepalive_interval"),
        Change::Limits(|l| l.keepalive_interval = Some(Duration::ZERO)),
    ),
    (ConfigError::BadLimit("keepalive_misses"), Change::Limits(|l| l.keepalive_misses = 0)),
    (ConfigError::BadLimit("idle_timeout"), Change::Limits(|l| l.idle_timeout = Some(Duration::ZERO))),
    (ConfigError::BadLimit("rekey.bytes"), Rekey(|rekey| rekey.bytes = 0)),
    (ConfigError::BadLimit("rekey.packets"), Rekey(|rekey| rekey.packets = 0)),
    (ConfigError::BadLimit("rekey.packets"), Rekey(|rekey| rekey.packets = 1 << 31)),
    (ConfigError::BadLimit("rekey.packets"), Rekey(|rekey| rekey.packets = u64::MAX)),
    (ConfigError::BadLimit("rekey.interval"), Rekey(|rekey| rekey.interval = Some(Duration::ZERO))),
];

/// What is just within the bounds.
const ACCEPTED: &[Change] = &[
    Macs(&[]),
    Version("x"),
    Version("with a comment ~"),
    Version(LONGEST),
    Change::Limits(|l| l.recv_budget = l.max_channels * l.min_window),
    Change::Limits(|l| (l.max_channels, l.min_window) = (1, 1)),
    Change::Limits(|l| (l.max_channels, l.min_window) = (65_536, 1)),
    Change::Limits(|l| (l.output, l.outbox_bytes) = (64 * 1024, 40 * 1024)),
    Change::Limits(|l| (l.owed_replies, l.outbox_messages, l.events) = (1, 1, 1)),
    Change::Limits(|l| (l.noise_burst, l.pending_requests, l.pending_globals) = (1, 1, 1)),
    Change::Limits(|l| (l.pre_auth_bytes, l.pre_auth_packets) = (1, 1)),
    Change::Limits(|l| {
        let least = Duration::from_nanos(1);
        (l.ident_timeout, l.kex_timeout, l.rekey_timeout) = (least, least, least);
        (l.login_timeout, l.write_stall) = (least, least);
        (l.open_timeout, l.request_timeout) = (Some(least), Some(least));
    }),
    Change::Limits(|l| (l.auth_failures, l.auth_requests, l.client_auth_requests) = (1, 2, 1)),
    Change::Limits(|l| (l.open_timeout, l.request_timeout) = (None, None)),
    // No time is none to wait for.
    Change::Limits(|l| {
        (l.linger, l.auth_failure_delay, l.keepalive_misses) = (Duration::ZERO, Duration::ZERO, 1)
    }),
    Change::Limits(|l| (l.pending_opens, l.pending_global_tickets, l.env_requests) = (0, 0, 0)),
    Change::Limits(|l| (l.banners, l.banner_bytes, l.unimplemented_replies) = (0, 0, 0)),
    Change::Limits(|l| (l.max_borrowed, l.small_rekeys_per_minute) = (0, Some(0))),
    Change::Limits(|l| l.keepalive_interval = Some(Duration::from_nanos(1))),
    Change::Limits(|l| l.idle_timeout = Some(Duration::from_nanos(1))),
    Change::Limits(|l| (l.keepalive_interval, l.idle_timeout) = (None, None)),
    Rekey(|rekey| (rekey.bytes, rekey.packets, rekey.interval) = (1, 1, None)),
    Rekey(|rekey| (rekey.bytes, rekey.packets) = (u64::MAX, (1 << 31) - 1)),
    Rekey(|rekey| rekey.interval = Some(Duration::from_nanos(1))),
];

/// What only a server refuses.
fn without_host_keys() -> [ServerConfigBuilder; 2] {
    [ServerConfig::builder(&PROVIDER), server().host_key_algorithms(&["ecdsa-sha2-nistp256"])]
}

#[test]
fn configurations_that_cannot_work_are_refused_for_what_is_wrong_with_them() {
    for (error, change) in REFUSED {
        assert_eq!(changed!(client(), *change).build().err(), Some(*error), "{change:?}");
        assert_eq!(changed!(server(), *change).build().err(), Some(*error), "{change:?}");
    }
    for builder in without_host_keys() {
        assert_eq!(builder.build().err(), Some(ConfigError::NoHostKey));
    }
    let builder = client().accept_opens(&["x11", "session"]);
    assert_eq!(builder.build().err(), Some(ConfigError::SessionAtClient));
    assert!(client().accept_opens(&["x11", "forwarded-tcpip"]).build().is_ok());
}

#[test]
fn configurations_that_just_work_are_accepted() {
    for change in ACCEPTED {
        assert_eq!(changed!(client(), *change).build().err(), None, "{change:?}");
        assert_eq!(changed!(server(), *change).build().err(), None, "{change:?}");
    }
}

#[test]
fn there_is_a_case_for_every_reason_to_refuse() {
    /// The variants, counted. Whoever adds one comes by here.
    fn variant(error: &ConfigError) -> u8 {
        match error {
            ConfigError::UnknownAlgorithm(_) => 0,
            ConfigError::NoAlgorithms => 1,
            ConfigError::BadSoftwareVersion => 2,
            ConfigError::BudgetTooSmall => 3,
            ConfigError::BadLimit(_) => 4,
            ConfigError::NoHostKey => 5,
            ConfigError::SessionAtClient => 6,
        }
    }
    let of_one_role = [ConfigError::NoHostKey, ConfigError::SessionAtClient];
    let refused: Vec<_> = REFUSED.iter().map(|(error, _)| *error).chain(of_one_role).collect();
    assert_eq!(refused.iter().map(variant).collect::<BTreeSet<_>>(), (0..=6).collect());
    let limits: BTreeSet<_> = refused
        .iter()
        .filter_map(|error| match error {
            ConfigError::BadLimit(name) => Some(*name),
            _ => None,
        })
        .collect();
    let bounds = client().0.common.bounds();
    assert_eq!(limits, bounds.iter().map(|(name, _)| *name).collect());
}
