//! The accept loop, and its end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ssh_proto::ServerConfig;
use ssh_proto::adapter::{HostSigners, Startup, Startups};

use super::{Handler, ServerConnection};
use crate::error::Error;
use crate::os::after;

/// Serves clients of a listener. Clones are handles on the same server.
#[derive(Debug, Clone)]
pub struct Server {
    config: HostSigners,
    startups: Startups,
    running: Arc<Mutex<Running>>,
    /// One does not wait for clients any more.
    left: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct Running {
    /// Set once, and nothing is added from then on.
    stopped: bool,
    /// Where listeners are that wait for clients now, each in a call that is to be woken.
    waiting: Vec<SocketAddr>,
    /// Those that are not finished, and some that are.
    connections: Vec<ServerConnection>,
}

impl Server {
    /// A server with this configuration, and the [default](Startups::default) bounds on clients that have not
    /// logged in.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        let (config, startups) = (HostSigners::new(&config), Startups::default());
        Self { config, startups, running: Arc::default(), left: Arc::default() }
    }

    /// Sets how many clients may be connected without having logged in. One that is too many is hung up on.
    #[must_use]
    pub fn startups(self, startups: Startups) -> Self {
        Self { startups, ..self }
    }

    /// Accepts clients, each with a handler from `handler`, until [`shutdown`](Self::shutdown), also one before. A
    /// handler may keep its connection: it ends with the client, with the [`shutdown`](Self::shutdown), when it is
    /// [closed](ServerConnection::close), and by a panic of the handler, or of `handler` when it makes one; others go on.
    ///
    /// A failure to accept one client, for want of descriptors or threads, is waited out.
    ///
    /// It returns as soon as no more clients are accepted. Those there are go on until [`shutdown`](Self::shutdown)
    /// returns: that is what to wait for before the process ends.
    ///
    /// # Errors
    /// [`io::Error`] when the listener itself fails. Here, too, clients there are go on.
    pub fn serve<H: Handler>(
        &self,
        listener: &TcpListener,
        mut handler: impl FnMut(ServerConnection, SocketAddr) -> H,
    ) -> io::Result<()> {
        let address = listener.local_addr()?;
        loop {
            {
                // Under one lock: a shutdown finds the address, or is found here.
                let mut running = lock(&self.running);
                if running.stopped {
                    return Ok(());
                }
                running.waiting.push(address);
            }
            let accepted = listener.accept();
            {
                let mut running = lock(&self.running);
                if let Some(at) = running.waiting.iter().position(|waiting| *waiting == address) {
                    running.waiting.swap_remove(at);
                }
                self.left.notify_all();
                if running.stopped {
                    return Ok(());
                }
            }
            match accepted {
                Ok((stream, from)) => {
                    let Ok(startup) = self.startups.begin(Some(from.ip())) else { continue };
                    match self.begin(stream, startup) {
                        // With nothing locked: it may take its time, or end the server.
                        Ok(Some((connection, made))) => {
                            let handler = catch_unwind(AssertUnwindSafe(|| handler(connection, from)));
                            // Without one the connection ends.
                            let _ = handler.map(|handler| made.send(handler));
                        }
                        Ok(None) => {}
                        Err(_) => thread::sleep(BACK_OFF),
                    }
                }
                Err(error) if is_listener_fault(&error) => return Err(error),
                Err(_) => thread::sleep(BACK_OFF),
            }
        }
    }

    /// A connection that waits for its handler; `None` when the server was stopped.
    fn begin<H: Handler>(
        &self,
        stream: TcpStream,
        startup: Startup,
    ) -> Result<Option<(ServerConnection, SyncSender<H>)>, Error> {
        // Locked until it is in the list: a shutdown must not miss it.
        let mut running = lock(&self.running);
        if running.stopped {
            return Ok(None);
        }
        let (connection, made) = ServerConnection::start_counted(&self.config, stream, Some(startup))?;
        running.connections.retain(|connection| !connection.is_finished());
        running.connections.push(connection.clone());
        Ok(Some((connection, made)))
    }

    /// A connection that is not finished; `None` when all are.
    pub(super) fn unfinished(&self) -> Option<ServerConnection> {
        let mut running = lock(&self.running);
        running.connections.retain(|connection| !connection.is_finished());
        running.connections.last().cloned()
    }

    /// Accepts no more clients, waits for those there are to leave, at most `grace`, and then ends their
    /// connections; they read why. When this returns, all are over and their transports let go; a handler or a signer
    /// may still be at its last call. Of two calls at once the shorter grace counts. Where a listener cannot be reached
    /// from its own host, not for seconds, its [`serve`](Self::serve) returns at the next client.
    pub fn shutdown(&self, grace: Duration) {
        let deadline = after(grace);
        lock(&self.running).stopped = true;
        let mut reached = 0;
        let mut woken = self.wake_listeners(&mut reached);
        // They stay in the list until they are finished: another call waits for them too, and may end them earlier.
        while let Some(connection) = self.unfinished() {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            connection.join(if woken { left } else { left.min(BACK_OFF) });
            woken = woken || self.wake_listeners(&mut reached);
        }
        let rest = lock(&self.running).connections.clone();
        rest.iter().for_each(ServerConnection::close);
        while let Some(connection) = self.unfinished() {
            connection.join(Duration::MAX);
        }
        for _ in 0..WAKE_ROUNDS {
            if woken {
                break;
            }
            let running = lock(&self.running);
            let waits = |running: &mut Running| !running.waiting.is_empty();
            drop(self.left.wait_timeout_while(running, BACK_OFF, waits));
            woken = self.wake_listeners(&mut reached);
        }
    }

    /// Has those that wait for clients see that this is over; false when it is to be looked at again whether they did.
    /// `reached` counts the calls that reached somebody.
    fn wake_listeners(&self, reached: &mut u32) -> bool {
        let waiting = lock(&self.running).waiting.clone();
        let (mut some, mut passes) = (false, false);
        // All of them, also behind one that failed.
        for at in waiting {
            let mut later = false;
            let is_reached = ways_to(at).any(|way| match TcpStream::connect_timeout(&way, BACK_OFF) {
                Ok(_) => true,
                Err(error) => {
                    later |= !is_unreachable(&error);
                    false
                }
            });
            some |= is_reached;
            passes |= later && !is_reached;
        }
        *reached += u32::from(some);
        // Who was reached may be another server at the same listener.
        !passes && (!some || *reached >= WAKE_TRIES)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where to connect to so that a listener's `accept` returns, the best way first: nothing else has it do so everywhere.
/// One of all addresses may be on a host that has those of IPv4 alone.
pub(super) fn ways_to(listener: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let ways = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => [Some(v4), None],
        IpAddr::V6(ip) if ip.is_unspecified() => [Some(v6), Some(v4)],
        ip => [Some(ip), None],
    };
    ways.into_iter().flatten().map(move |ip| {
        // What else belongs to an address stays, such as the link it is on.
        let mut way = listener;
        way.set_ip(ip);
        way
    })
}

/// Whether an error to connect is about the way to the listener, so that another try would fail too. That no address
/// is available says of a way over the own host that all ports are taken, which passes.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
    )
}

/// How often, behind the grace, it is tried again to reach listeners.
const WAKE_ROUNDS: u32 = 200;

/// How often somebody is reached where a listener still waits, until it is left to the next client to wake it.
const WAKE_TRIES: u32 = 20;

/// How long to let others finish when accepting fails.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Whether an accept error is about the listener, not about one client or a passing shortage.
fn is_listener_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected | io::ErrorKind::Unsupported
    )
}
