//! Work that blocks, on threads of a runtime.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

/// Work that has perhaps not begun. Whoever waits for it takes it back by giving up, rather than leave it to the
/// thread that comes to it some day.
struct Waiting<F>(Arc<Mutex<Option<F>>>);

fn take<F>(work: &Mutex<Option<F>>) -> Option<F> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl<F> Drop for Waiting<F> {
    fn drop(&mut self) {
        // Dropped when the lock is open.
        drop(take(&self.0));
    }
}

/// Does it where that holds nobody up: on a thread of this runtime, or else of the one at hand. Where there is
/// none, nobody else's turn is known of, and it is done right here.
///
/// Cancel-safe: what has not begun is dropped at once. A panic goes on here.
///
/// # Errors
/// [`io::Error`] when the runtime ended before it came to this.
pub(crate) async fn blocking<T: Send + 'static>(
    runtime: Option<Handle>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let Some(runtime) = runtime.or_else(|| Handle::try_current().ok()) else { return Ok(work()) };
    let work = Arc::new(Mutex::new(Some(work)));
    let _waiting = Waiting(Arc::clone(&work));
    let done = runtime.spawn_blocking(move || {
        let work = take(&work)?;
        Some(work())
    });
    match done.await {
        // It is there as long as somebody waits.
        Ok(done) => done.ok_or_else(|| io::ErrorKind::Interrupted.into()),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(ended) => Err(ended.into()),
        },
    }
}
