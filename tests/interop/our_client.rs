//! Our client, as far as the tests care which crate it is from.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ssh_io_std::HostKeys;
use ssh_io_std::ssh_proto::adapter::Error;
use ssh_io_std::ssh_proto::keys::HostKeyRejection;
use ssh_io_std::ssh_proto::{ClientConfig, CloseReason, Credential, ExitStatus, Negotiated};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::peers::USER;
use crate::support::{TRANSFER_LIMIT, WAIT};

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
    /// The crate it is from.
    const CRATE: &str;

    /// Connects, trusting the keys in a `known_hosts` file.
    fn connect(port: u16, config: Arc<ClientConfig>, known_hosts: &Path) -> Result<Self, Failure>;

    /// Logs in as the one user.
    fn log_in(&self, credential: Credential) -> Result<(), Failure>;

    /// Runs a command to its end. Its input is written while its outputs are read.
    fn run(&self, command: &str, input: &[u8]) -> Result<Ran, Failure>;

    fn negotiated(&self) -> Option<Negotiated>;

    /// How often keys were renewed.
    fn rekeys(&self) -> u64;

    /// Ends the connection, and says whether that worked.
    fn close(self) -> Result<(), Failure>;
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

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(format!("{error} ({error:?})"))
    }
}

impl OurClient for ssh_io_std::Client {
    const CRATE: &str = "ssh-io-std";

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
            read?;
            written?;
            Ok(Ran { stdout, stderr: stderr?, status: channel.wait()? })
        })
    }

    fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated()
    }

    fn rekeys(&self) -> u64 {
        self.rekeys()
    }

    fn close(self) -> Result<(), Failure> {
        self.close();
        Ok(())
    }
}

/// A client of `ssh-io-tokio` and what it runs on.
pub(crate) struct TokioClient {
    client: ssh_io_tokio::Client,
    driver: JoinHandle<CloseReason>,
    runtime: Runtime,
}

/// Waits for a future, but not for ever.
fn block_on<T, E: Into<Failure>>(
    runtime: &Runtime,
    limit: Duration,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let result = runtime.block_on(async { tokio::time::timeout(limit, future).await });
    result.map_err(|_| Failure::Other(format!("not done after {limit:?}")))?.map_err(Into::into)
}

impl OurClient for TokioClient {
    const CRATE: &str = "ssh-io-tokio";

    fn connect(port: u16, config: Arc<ClientConfig>, known_hosts: &Path) -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let host_keys = ssh_io_tokio::HostKeys::KnownHosts(known_hosts.to_owned());
        let builder = ssh_io_tokio::Client::with_config(config).host_keys(host_keys);
        let (client, driver) = block_on(&runtime, WAIT, async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let (connecting, driver) = builder.start("127.0.0.1", port, stream).await?;
            let driver = tokio::spawn(driver.run());
            Ok::<_, Error>((connecting.finish().await?, driver))
        })?;
        Ok(Self { client, driver, runtime })
    }

    fn log_in(&self, credential: Credential) -> Result<(), Failure> {
        block_on(&self.runtime, WAIT, self.client.authenticate(USER, credential))
    }

    fn run(&self, command: &str, input: &[u8]) -> Result<Ran, Failure> {
        block_on(&self.runtime, TRANSFER_LIMIT, async {
            let channel = self.client.open_session().await?;
            channel.exec(command).await?;
            let mut errors = channel.stderr();
            let (mut reader, mut writer) = tokio::io::split(channel);
            let write = async {
                writer.write_all(input).await?;
                writer.shutdown().await
            };
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let reads =
                async { tokio::try_join!(reader.read_to_end(&mut stdout), errors.read_to_end(&mut stderr)) };
            // Outputs count even when the command did not want its input.
            let (written, read) = tokio::join!(write, reads);
            read?;
            written?;
            Ok::<_, Failure>(Ran { stdout, stderr, status: reader.unsplit(writer).wait().await? })
        })
    }

    fn negotiated(&self) -> Option<Negotiated> {
        self.client.negotiated()
    }

    fn rekeys(&self) -> u64 {
        self.client.rekeys()
    }

    fn close(self) -> Result<(), Failure> {
        let Self { client, driver, runtime } = self;
        client.close();
        let reason = block_on(&runtime, WAIT, async { driver.await.map_err(io::Error::other) })?;
        match reason {
            CloseReason::Local(_) => Ok(()),
            other => Err(Failure::Other(format!("closed: {other}"))),
        }
    }
}
