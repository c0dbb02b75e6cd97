//! What the servers of this program do on a session, and the configurations of our ends.

use std::sync::Arc;

use ssh_proto::crypto::{Provider, aws_lc, rustcrypto};
use ssh_proto::{ClientConfig, KeyPair, Limits, RekeyPolicy, ServerConfig};

use crate::Failure;
use crate::work::{Cipher, Direction, Kex, Library};

/// A command, as a client's `exec` asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Move so many bytes, and end.
    Move(Direction, u64),
    /// Send back what comes.
    Echo,
    /// Say a little, and end.
    Say,
}

impl Command {
    /// The words of the command line.
    pub(crate) fn line(self) -> String {
        match self {
            Self::Move(Direction::Down, bytes) => format!("down {bytes}"),
            Self::Move(Direction::Up, bytes) => format!("up {bytes}"),
            Self::Echo => "echo".into(),
            Self::Say => "say".into(),
        }
    }

    /// The command of a command line.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split(' ');
        Some(match (words.next()?, words.next().map(str::parse)) {
            ("down", Some(Ok(bytes))) => Self::Move(Direction::Down, bytes),
            ("up", Some(Ok(bytes))) => Self::Move(Direction::Up, bytes),
            ("echo", None) => Self::Echo,
            ("say", None) => Self::Say,
            _ => return None,
        })
    }
}

/// The configurations of a client and a server, and the key the client logs in with.
#[derive(Clone)]
pub(crate) struct Configs {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) user_key: KeyPair,
}

impl Configs {
    /// Ends with this cipher and this key exchange, and room for so many channels.
    pub(crate) fn new(library: Library, cipher: Cipher, kex: Kex, channels: usize) -> Result<Self, Failure> {
        let provider: &'static Provider = library.provider();
        let limits = |limits: &mut Limits| {
            limits.max_channels = limits.max_channels.max(channels);
            limits.recv_budget = limits.recv_budget.max(2 * limits.max_channels * limits.min_window);
        };
        let rekey = |rekey: &mut RekeyPolicy| {
            rekey.bytes = u64::MAX / 4;
            rekey.interval = None;
        };
        let client = ClientConfig::builder(provider)
            .kex(&[kex.name()])
            .ciphers(&[cipher.name()])
            .with_limits(limits)
            .with_rekey(rekey)
            .build()?;
        let server = ServerConfig::builder(provider)
            .kex(&[kex.name()])
            .ciphers(&[cipher.name()])
            .with_limits(limits)
            .with_rekey(rekey)
            .host_key(key(library, 1)?)
            .build()?;
        Ok(Self { client, server, user_key: key(library, 2)? })
    }
}

fn key(library: Library, seed: u8) -> Result<KeyPair, Failure> {
    Ok(match library {
        Library::AwsLc => aws_lc::Ed25519Signer::from_seed(&[seed; 32])?.key_pair(),
        Library::Rustcrypto => rustcrypto::Ed25519Signer::from_seed(&[seed; 32])?.key_pair(),
    })
}
