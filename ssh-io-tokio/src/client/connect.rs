//! From a host's name to a connection whose host key is accepted.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ssh_proto::adapter::Error;
use ssh_proto::{AnswerError, ClientConfig, HostKeyCheck};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::{Client, Handle};
use crate::driver::Driver;
use crate::host_key::{HostKeyQuestion, HostKeys};
use crate::shared::Shared;

/// How to connect, made by [`Client::with_config`].
#[derive(Debug)]
#[must_use]
pub struct ClientBuilder {
    pub(super) config: Arc<ClientConfig>,
    pub(super) host_keys: HostKeys,
    pub(super) timeout: Option<Duration>,
}

impl ClientBuilder {
    /// Sets algorithms and limits.
    pub fn config(mut self, config: Arc<ClientConfig>) -> Self {
        self.config = config;
        self
    }

    /// Sets which host keys are accepted. Without it, none is.
    ///
    /// While a key is judged, nothing more is read: a server that goes away meanwhile is noticed only when it is
    /// accepted, by the first call that waits for it.
    pub fn host_keys(mut self, host_keys: HostKeys) -> Self {
        self.host_keys = host_keys;
        self
    }

    /// Sets how long connecting may take in all, up to the host key's proof. Who judges it may take longer.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Connects over TCP, to the first address of the host that answers, and spawns the driver onto the current runtime.
    ///
    /// Cancel-safe: dropped, it leaves no connection behind. A key that [`HostKeys::AcceptNew`] was just about to
    /// record may be recorded all the same.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::KnownHosts`], [`Error::Closed`], [`Error::HostKey`], [`Error::HostKeyRefused`],
    /// [`Error::TimedOut`].
    pub async fn connect(mut self, host: &str, port: u16) -> Result<Client, Error> {
        let timeout = self.timeout.take();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let reached = within(timeout, async {
            let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
            let stream = first_that_answers(&addresses, deadline, TcpStream::connect).await?;
            // Packets are already coalesced; Nagle's delay would only cost time.
            stream.set_nodelay(true)?;
            self.reach(host, port, stream).await
        });
        let (connecting, check) = reached.await?;
        connecting.go_on(check, deadline).await
    }

    /// Connects over any transport, such as a channel of another connection, and spawns the driver onto the
    /// current runtime. Host and port are what the host key is judged by. A TCP stream is best without
    /// [Nagle's delay](tokio::net::TcpStream::set_nodelay): packets are already coalesced.
    ///
    /// Cancel-safe as [`connect`](Self::connect): the transport is let go of.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_over<T: AsyncRead + AsyncWrite + Send + 'static>(
        mut self,
        host: &str,
        port: u16,
        transport: T,
    ) -> Result<Client, Error> {
        let timeout = self.timeout.take();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (connecting, check) = within(timeout, self.reach(host, port, transport)).await?;
        connecting.go_on(check, deadline).await
    }

    /// Connects up to the host key's proof, or to an end before it.
    async fn reach<T: AsyncRead + AsyncWrite + Send + 'static>(
        self,
        host: &str,
        port: u16,
        transport: T,
    ) -> Result<(Connecting, Result<HostKeyCheck, Error>), Error> {
        let (connecting, driver) = self.start(host, port, transport).await?;
        tokio::spawn(driver.run());
        let check = connecting.check().await;
        Ok((connecting, check))
    }

    /// Begins over any transport: gives the driver to spawn, and what waits for the handshake. Host and port
    /// are what the host key is judged by. The connect timeout is the caller's to keep. Only a driver whose transport is
    /// `Send` can [run](Driver::run).
    ///
    /// Cancel-safe: nothing has begun before it is ready. The transport is let go of.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::KnownHosts`] for the file of known hosts.
    pub async fn start<T: AsyncRead + AsyncWrite>(
        self,
        host: &str,
        port: u16,
        transport: T,
    ) -> Result<(Connecting, Driver<T>), Error> {
        let known = self.host_keys.key_types(host, port).await?;
        let config = match known.is_empty() {
            true => self.config,
            false => Arc::new(self.config.prefer_host_keys(&known)),
        };
        let shared = Arc::new(Shared::new(config));
        let driver = Driver::new(Arc::clone(&shared), transport, Box::new(|_, _| None));
        let handle = Arc::new(Handle { shared });
        Ok((Connecting { handle, host_keys: self.host_keys, host: host.to_owned(), port }, driver))
    }
}

/// Tries addresses one after the other. Each gets its share of what is left of the time, so that one that is silent
/// leaves some to the next.
async fn first_that_answers<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    deadline: Option<Instant>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Error> {
    let mut last = None;
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let share = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()) / left);
        match within(share, async { Ok(connect(*address).await?) }).await {
            // The system's own patience may be shorter.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => last = Some(Error::TimedOut),
            Err(error) => last = Some(error),
            stream => return stream,
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the host has no address").into()))
}

async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match limit {
        None => future.await,
        Some(limit) => timeout(limit, future).await.unwrap_or(Err(Error::TimedOut)),
    }
}

/// A connection whose handshake is under way.
#[must_use = "dropping it ends the connection"]
pub struct Connecting {
    handle: Arc<Handle>,
    host_keys: HostKeys,
    host: String,
    port: u16,
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Connecting {
    /// Waits for the host key and judges it.
    ///
    /// Cancel-safe: dropped, also before its first poll, it ends the connection, and the server reads why. A key that
    /// [`HostKeys::AcceptNew`] was just about to record may be recorded all the same.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::HostKey`], [`Error::HostKeyRefused`], [`Error::KnownHosts`], [`Error::Io`].
    pub async fn finish(self) -> Result<Client, Error> {
        let check = self.check().await;
        self.go_on(check, None).await
    }

    /// The future does not borrow: a judge need not be `Sync`, and who waits for this is to be `Send`.
    fn check(&self) -> impl Future<Output = Result<HostKeyCheck, Error>> + Send + use<> {
        let shared = Arc::clone(&self.handle.shared);
        async move { shared.wait_for(|state| state.kept.host_key.take()).await }
    }

    /// Judges the key; a person may take longer for that. Behind an end, waits for the last words until the deadline.
    async fn go_on(
        self,
        check: Result<HostKeyCheck, Error>,
        deadline: Option<Instant>,
    ) -> Result<Client, Error> {
        match check {
            Ok(check) => self.judge(check).await,
            Err(why) => {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                let said = async {
                    self.handle.shared.said_all().await;
                    Ok(())
                };
                let _ = within(left, said).await;
                Err(why)
            }
        }
    }

    async fn judge(self, check: HostKeyCheck) -> Result<Client, Error> {
        let Self { handle, host_keys, host, port } = self;
        let shared = &handle.shared;
        // Dropped with it, also when this future is, the question is refused.
        let question = HostKeyQuestion { host, port, key: check.key().clone() };
        let verdict = host_keys.judge(question, shared.runtime()).await;
        let answered = {
            let mut state = shared.lock();
            match &verdict {
                // What holds up the end of a connection that can only end, as its transport failed.
                Err(_) if !state.collapsed => state.conn.reject_host_key(check).map(Ok),
                // It ended meanwhile, or can only end. What became of the question is nothing to it.
                _ if state.is_mute() => Ok(Err(state.gone())),
                Err(_) => Err(AnswerError::Gone),
                Ok(()) => state.conn.accept_host_key(check).map(Ok),
            }
        };
        shared.work.notify_one();
        if let Err(why) = verdict {
            shared.said_all().await;
            return Err(why);
        }
        match answered {
            Ok(alive) => alive.map(|()| Client { handle }),
            // The reason is on its way.
            Err(AnswerError::Gone) => shared.wait_for(|_| None).await,
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(12);

    /// Tries so many addresses, of which only the last answers if any; what came of it, and after how long.
    async fn attempt(silent: u16, answers: bool) -> (Result<u16, Error>, Duration) {
        let last = silent + u16::from(answers);
        let addresses: Vec<_> = (1..=last).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let connect = async |address: SocketAddr| match address.port() > silent {
            true => Ok(address.port()),
            false => pending().await,
        };
        let began = Instant::now();
        let result = first_that_answers(&addresses, Some(began + LIMIT), connect).await;
        (result, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_leaves_time_for_the_next() {
        for (silent, share) in [(0, 0), (1, 6), (2, 8), (3, 9)] {
            let (result, took) = attempt(silent, true).await;
            assert_eq!(result.unwrap(), silent + 1);
            assert_eq!(took.as_millis().div_ceil(100), u128::from(share * 10u32), "{silent}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_silent_the_whole_time_has_passed() {
        let (result, took) = attempt(3, false).await;
        assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
        assert!(took >= LIMIT, "{took:?}");
        assert!(matches!(attempt(0, false).await.0, Err(Error::Io(_))));
    }

    #[tokio::test]
    async fn an_address_the_system_gives_up_is_one_that_was_too_long_in_coming() {
        let addresses = [SocketAddr::from(([127, 0, 0, 1], 1))];
        for limit in [None, Some(Instant::now() + LIMIT)] {
            let connect = async |_| Err::<(), _>(io::ErrorKind::TimedOut.into());
            let result = first_that_answers(&addresses, limit, connect).await;
            assert!(matches!(result, Err(Error::TimedOut)), "{result:?}");
        }
    }
}
