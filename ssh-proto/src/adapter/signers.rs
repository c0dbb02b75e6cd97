//! Host keys, and apart from them who signs with them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::ServerKept;
use crate::config::ServerConfig;
use crate::event::ServerEvent;
use crate::key::{KeyPair, Signer};

/// A server's configuration, and apart from it the keys it signs with whose signers may take their time: those must
/// not be called while the connection is locked, nor where it holds up others.
#[derive(Clone)]
pub struct HostSigners {
    external: Arc<ServerConfig>,
    keys: Arc<[KeyPair]>,
}

impl fmt::Debug for HostSigners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSigners").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl HostSigners {
    /// Takes the signers out of a configuration that are not quick.
    pub fn new(config: &ServerConfig) -> Self {
        let slow = |key: &&KeyPair| key.signer.as_ref().is_some_and(|signer| !signer.is_quick());
        let keys = config.host_keys().iter().filter(slow).cloned();
        Self { external: Arc::new(config.without_slow_signers()), keys: keys.collect::<Vec<_>>().into() }
    }

    /// The configuration, of host keys that sign at once or by ticket.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.external
    }

    /// Takes the question for a signature that a signer of ours is to answer, and him. At most one is open; that of
    /// a key without a signer stays for whoever serves the client.
    pub fn take(&self, kept: &mut ServerKept) -> Option<(ServerEvent, Arc<dyn Signer + Send + Sync>)> {
        kept.questions.take_sign(|request| {
            let pair = self.keys.iter().find(|pair| pair.public == *request.to_sign().key())?;
            pair.signer.clone()
        })
    }
}
