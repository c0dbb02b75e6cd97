//! What a connection can run over: a reader, a writer, and a way to end both.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::os::after;

/// How long a write may block before deadlines get their turn.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

pub use crate::feed::Feed;

/// Ends one or both halves of a transport, waking whoever is blocked in it.
pub type Unblock = Box<dyn Fn(Shutdown) + Send + Sync>;

/// A transport taken apart.
pub struct Split<R, W> {
    /// Where the peer's bytes come from. Used by one thread only. It should wait for as long as it takes: a read
    /// that fails with `TimedOut` or `WouldBlock` is tried again a moment later.
    pub reader: R,
    /// Where ours go. Used by one thread at a time. A write that cannot go on should fail with `TimedOut` or
    /// `WouldBlock` after a second or so, as a socket with a write timeout does: deadlines run only in between. It is
    /// tried again a moment later. What a flush could not hand on it tries again when it is called again.
    pub writer: W,
    /// Ends the halves from any thread. [`Shutdown::Write`] tells the peer that nothing follows;
    /// [`Shutdown::Both`] must make a blocked read return, and a blocked write.
    pub unblock: Unblock,
}

impl<R, W> fmt::Debug for Split<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split").finish_non_exhaustive()
    }
}

/// A byte stream both ways that can be taken apart.
pub trait Transport {
    /// The reading half.
    type Reader: Read + Send + 'static;
    /// The writing half.
    type Writer: Write + Send + 'static;

    /// Takes it apart.
    ///
    /// # Errors
    /// What the operating system says.
    fn split(self) -> io::Result<Split<Self::Reader, Self::Writer>>;
}

impl Transport for TcpStream {
    type Reader = Self;
    type Writer = Self;

    fn split(self) -> io::Result<Split<Self, Self>> {
        // Packets are already coalesced; Nagle's delay would only cost time.
        self.set_nodelay(true)?;
        self.set_nonblocking(false)?;
        self.set_read_timeout(None)?;
        self.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let (writer, control) = (self.try_clone()?, self.try_clone()?);
        let unblock = Box::new(move |how| drop(control.shutdown(how)));
        Ok(Split { reader: self, writer, unblock })
    }
}

#[cfg(unix)]
impl Transport for std::os::unix::net::UnixStream {
    type Reader = Self;
    type Writer = Self;

    fn split(self) -> io::Result<Split<Self, Self>> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(None)?;
        self.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let (writer, control) = (self.try_clone()?, self.try_clone()?);
        let unblock = Box::new(move |how| drop(control.shutdown(how)));
        Ok(Split { reader: self, writer, unblock })
    }
}

/// A process whose standard input and output carry the connection, such as a proxy command.
///
/// It must have been spawned with both piped. It is killed and reaped when the connection ends; a shell in
/// between should `exec` it, and one that we may not kill has to end by itself when its input does. A thread feeds it its input, so that deadlines run while it does not take that.
impl Transport for Child {
    type Reader = ChildStdout;
    type Writer = Feed;

    fn split(mut self) -> io::Result<Split<ChildStdout, Feed>> {
        let (reader, writer) = (self.stdout.take(), self.stdin.take());
        let child = KillOnDrop(Mutex::new(self));
        let piped = |what| io::Error::new(io::ErrorKind::InvalidInput, format!("the {what} is not piped"));
        let (reader, writer) =
            (reader.ok_or_else(|| piped("stdout"))?, writer.ok_or_else(|| piped("stdin"))?);
        let writer = Feed::start(writer)?;
        let unblock = Box::new(move |how| {
            if how == Shutdown::Both {
                child.kill();
            }
        });
        Ok(Split { reader, writer, unblock })
    }
}

/// How long a process takes at most to end when it is killed.
const KILL_TIME: Duration = Duration::from_secs(1);
/// Between two looks at whether it has.
const KILL_PAUSE: Duration = Duration::from_millis(1);

/// A process that does not outlive its connection, nor stay a zombie, where we may kill it.
struct KillOnDrop(Mutex<Child>);

impl KillOnDrop {
    fn kill(&self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // For one that was reaped before, these do nothing.
        let _ = child.kill();
        reap(|| child.try_wait(), KILL_TIME);
    }
}

/// Waits until a process that was killed is reaped, at most so long: one that runs as somebody else may not be killed,
/// and then is left alone.
fn reap<T>(mut try_wait: impl FnMut() -> io::Result<Option<T>>, limit: Duration) {
    let deadline = after(limit);
    while matches!(try_wait(), Ok(None)) && deadline.is_some_and(|at| Instant::now() < at) {
        thread::sleep(KILL_PAUSE);
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Any pair of a reader and a writer, with a closure that ends them.
impl<R: Read + Send + 'static, W: Write + Send + 'static> Transport for Split<R, W> {
    type Reader = R;
    type Writer = W;

    fn split(self) -> io::Result<Self> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_process_is_waited_for_until_it_is_reaped_or_the_time_is_over() {
        let looks = Cell::new(0);
        let look = |ends: usize| {
            looks.set(looks.get() + 1);
            Ok((looks.get() == ends).then_some(()))
        };
        reap(|| look(3), Duration::from_secs(3600));
        assert_eq!(looks.take(), 3);
        reap(|| look(usize::MAX), Duration::ZERO);
        assert_eq!(looks.take(), 1);
    }
}
