//! A transport made of memory, whose writes a test can hold back.

use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;

use ssh_io_std::Split;

use crate::support::PATIENCE;

/// What writes do while they are held back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// They fail after a moment, as those of a socket with a write timeout.
    TimeOut,
    /// They take a byte each, after a moment.
    Trickle,
    /// They fail at once, as those of a file that does not block.
    Refuse,
    /// They stay until the transport ends.
    ForEver,
}

/// How long a write waits that times out, or that takes a byte.
const WRITE_TIMEOUT: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Contents {
    bytes: VecDeque<u8>,
    ended: bool,
    hold: Option<Hold>,
    /// Who is in a write that is held back, or was last.
    stuck: Option<Thread>,
    readers: HashSet<ThreadId>,
    writers: HashSet<ThreadId>,
    /// How often it was written to, whatever came of it.
    writes: usize,
    reader_gone: bool,
    writer_gone: bool,
}

/// One direction of the transport. Clones are the test's handles on it.
#[derive(Clone, Default)]
pub(crate) struct Flow(Arc<(Mutex<Contents>, Condvar)>);

impl Flow {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.0.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Contents) -> T) -> T {
        let result = change(&mut self.lock());
        self.0.1.notify_all();
        result
    }

    /// Waits until `holds`; false when it does not in all the time a test has.
    fn wait(&self, mut holds: impl FnMut(&mut Contents) -> bool) -> bool {
        let guard = self.lock();
        !self.0.1.wait_timeout_while(guard, PATIENCE, |contents| !holds(contents)).unwrap().1.timed_out()
    }

    /// Holds back all writes from now on.
    pub(crate) fn hold(&self, hold: Hold) {
        self.change(|contents| contents.hold = Some(hold));
    }

    /// Lets writes go on.
    pub(crate) fn release(&self) {
        self.change(|contents| contents.hold = None);
    }

    /// Waits until a write is held back, and tells whose.
    pub(crate) fn stuck(&self) -> Thread {
        assert!(self.wait(|contents| contents.stuck.is_some()), "nobody writes");
        self.lock().stuck.clone().unwrap()
    }

    /// How often it was written to, whatever came of it.
    pub(crate) fn writes(&self) -> usize {
        self.lock().writes
    }

    /// Waits until both ends of it are dropped.
    pub(crate) fn is_let_go(&self) -> bool {
        self.wait(|contents| contents.reader_gone && contents.writer_gone)
    }

    /// The threads that read from it, and those that wrote to it.
    pub(crate) fn users(&self) -> (HashSet<ThreadId>, HashSet<ThreadId>) {
        let contents = self.lock();
        (contents.readers.clone(), contents.writers.clone())
    }
}

/// One side's end of the transport.
#[derive(Clone)]
pub(crate) struct Side {
    pub(crate) incoming: Flow,
    pub(crate) outgoing: Flow,
}

/// Both ends of a new transport.
pub(crate) fn pair() -> (Side, Side) {
    let (there, back) = (Flow::default(), Flow::default());
    let ours = Side { incoming: back.clone(), outgoing: there.clone() };
    (ours, Side { incoming: there, outgoing: back })
}

impl Side {
    /// The end as a connection takes it.
    pub(crate) fn split(&self) -> Split<ReadEnd, WriteEnd> {
        let Self { incoming, outgoing } = self.clone();
        let unblock = move |how| {
            outgoing.change(|contents| contents.ended = true);
            if how == Shutdown::Both {
                incoming.change(|contents| contents.ended = true);
            }
        };
        Split {
            reader: ReadEnd(self.incoming.clone()),
            writer: WriteEnd(self.outgoing.clone()),
            unblock: Box::new(unblock),
        }
    }
}

/// Where bytes come out.
pub(crate) struct ReadEnd(Flow);

impl Read for ReadEnd {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        let mut contents = self.0.lock();
        contents.readers.insert(thread::current().id());
        let wake = &self.0.0.1;
        contents =
            wake.wait_while(contents, |contents| contents.bytes.is_empty() && !contents.ended).unwrap();
        contents.bytes.read(dst)
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        self.0.change(|contents| (contents.ended, contents.reader_gone) = (true, true));
    }
}

/// Where bytes go in.
pub(crate) struct WriteEnd(Flow);

impl Write for WriteEnd {
    fn write(&mut self, src: &[u8]) -> io::Result<usize> {
        let mut contents = self.0.lock();
        contents.writers.insert(thread::current().id());
        contents.writes += 1;
        while let Some(hold) = contents.hold.filter(|_| !contents.ended) {
            contents.stuck = Some(thread::current());
            let wake = &self.0.0.1;
            wake.notify_all();
            let held = |contents: &mut Contents| contents.hold.is_some() && !contents.ended;
            contents = match hold {
                Hold::Refuse => return Err(ErrorKind::WouldBlock.into()),
                Hold::ForEver => wake.wait_while(contents, held).unwrap(),
                Hold::TimeOut | Hold::Trickle => {
                    let (mut contents, result) =
                        wake.wait_timeout_while(contents, WRITE_TIMEOUT, held).unwrap();
                    if result.timed_out() && hold == Hold::TimeOut {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    if result.timed_out() {
                        contents.bytes.extend(src.first());
                        wake.notify_all();
                        return Ok(1);
                    }
                    contents
                }
            };
        }
        if contents.ended {
            return Err(ErrorKind::BrokenPipe.into());
        }
        contents.bytes.extend(src);
        drop(contents);
        self.0.0.1.notify_all();
        Ok(src.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.0.change(|contents| (contents.ended, contents.writer_gone) = (true, true));
    }
}
