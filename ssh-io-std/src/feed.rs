//! A writer whose writes can time out, over one whose cannot.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::transport::WRITE_TIMEOUT;

/// What is handed over at once, at most.
const MAX_PIECE: usize = 64 * 1024;

/// Writes to the input of a process. What is accepted a thread passes on, which may be kept by a process that does
/// not take it; a write or a flush waits for it only a second, and then fails with `TimedOut`.
pub struct Feed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Accepted and not written yet, or being written: one piece at a time.
    piece: Option<Vec<u8>>,
    busy: bool,
    /// Why nothing can be written any more.
    failed: Option<ErrorKind>,
    /// The writer is dropped.
    ended: bool,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is on its way any more.
    fn idle(&self) -> io::Result<MutexGuard<'_, State>> {
        let waits = |state: &mut State| state.busy && state.failed.is_none();
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), WRITE_TIMEOUT, waits)
            .unwrap_or_else(PoisonError::into_inner);
        match state.failed {
            Some(kind) => Err(kind.into()),
            None if state.busy => Err(ErrorKind::TimedOut.into()),
            None => Ok(state),
        }
    }

    /// The thread's work: passes on what comes, until the end of either side.
    fn pass_on(&self, mut to: impl Write) -> io::Result<()> {
        loop {
            let waits = |state: &mut State| state.piece.is_none() && !state.ended;
            let state = self.changed.wait_while(self.lock(), waits);
            let piece = state.unwrap_or_else(PoisonError::into_inner).piece.take();
            let Some(piece) = piece else { return Ok(()) };
            to.write_all(&piece)?;
            to.flush()?;
            self.lock().busy = false;
            self.changed.notify_all();
        }
    }
}

impl Feed {
    pub(crate) fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let feed = Self(Arc::default());
        let shared = Arc::clone(&feed.0);
        thread::Builder::new().name("ssh-feed".into()).spawn(move || {
            let result = shared.pass_on(to);
            let error = result.err().map_or(ErrorKind::BrokenPipe, |error| error.kind());
            shared.lock().failed = Some(error);
            shared.changed.notify_all();
        })?;
        Ok(feed)
    }
}

impl Write for Feed {
    fn write(&mut self, src: &[u8]) -> io::Result<usize> {
        let n = src.len().min(MAX_PIECE);
        let mut state = self.0.idle()?;
        if n > 0 {
            state.piece = src.get(..n).map(<[u8]>::to_vec);
            state.busy = true;
            self.0.changed.notify_all();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.idle().map(drop)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}
