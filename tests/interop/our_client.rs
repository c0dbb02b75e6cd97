//! Our client, as far as the tests care which crate it is from.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use ssh_io_std::ssh_proto::keys::HostKeyRejection;
use ssh_io_std::ssh_proto::{ClientConfig, Credential, ExitStatus, Negotiated};
use ssh_io_std::{Client, Error, HostKeys};

use crate::peers::USER;
use crate::support::WAIT;

/// Why our client gave up.
#[derive(Debug)]
pub(crate) enum Failure {
    HostKey(HostKeyRejection),
    Denied { remaining: Vec<String> },
    Other(String),
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: Option<ExitStatus>,
}

/// A connection to a server on the loopback interface.
pub(crate) trait OurClient: Sized {
    /// Connects, trusting the keys in a `known_hosts` file.
    fn connect(port: u16, config: Arc<ClientConfig>, known_hosts: &Path) -> Result<Self, Failure>;

    /// Logs in as the one user.
    fn log_in(&self, credential: Credential) -> Result<(), Failure>;

    /// Runs a command to its end. Its input is written while its outputs are read.
    fn run(&self, command: &str, input: &[u8]) -> Result<Ran, Failure>;

    fn negotiated(&self) -> Option<Negotiated>;

    /// How often keys were renewed.
    fn rekeys(&self) -> u64;

    /// Ends the connection.
    fn close(self);
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::HostKey(why) => Self::HostKey(why),
            Error::AuthFailed { remaining, partial: false } => Self::Denied { remaining },
            other => Self::Other(format!("{other} ({other:?})")),
        }
    }
}

impl OurClient for Client {
    fn connect(port: u16, config: Arc<ClientConfig>, known_hosts: &Path) -> Result<Self, Failure> {
        let host_keys = HostKeys::KnownHosts(known_hosts.to_owned());
        let builder = Self::with_config(config).host_keys(host_keys).connect_timeout(WAIT);
        Ok(builder.connect("127.0.0.1", port)?)
    }

    fn log_in(&self, credential: Credential) -> Result<(), Failure> {
        Ok(self.authenticate(USER, credential)?)
    }

    fn run(&self, command: &str, input: &[u8]) -> Result<Ran, Failure> {
        let channel = self.open_session()?;
        channel.set_timeout(Some(WAIT));
        channel.exec(command)?;
        thread::scope(|scope| {
            let written = scope.spawn(|| {
                (&channel).write_all(input)?;
                channel.finish_input()
            });
            let stderr = scope.spawn(|| {
                let mut stderr = Vec::new();
                channel.stderr().read_to_end(&mut stderr).map(|_| stderr)
            });
            let mut stdout = Vec::new();
            let read = (&channel).read_to_end(&mut stdout);
            if read.is_err() {
                // The others must not wait for what will not come.
                channel.close();
            }
            let stderr = stderr.join().expect("the end of the reader");
            let written = written.join().expect("the end of the writer");
            read.map_err(Error::from)?;
            let stderr = stderr.map_err(Error::from)?;
            written?;
            Ok(Ran { stdout, stderr, status: channel.wait()? })
        })
    }

    fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated()
    }

    fn rekeys(&self) -> u64 {
        self.rekeys()
    }

    fn close(self) {
        self.close();
    }
}
