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
/// none, or they ended before they came to it, nobody else's turn is known of, and it is done right here.
///
/// Cancel-safe: what has not begun is dropped at once. A panic goes on here.
///
/// # Errors
/// [`io::Error`] should a runtime end in the middle of it.
pub(crate) async fn blocking<T: Send + 'static>(
    runtime: Option<Handle>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let work = Arc::new(Mutex::new(Some(work)));
    let _waiting = Waiting(Arc::clone(&work));
    if let Some(runtime) = runtime
        && let Some(done) = on_thread(runtime, &work).await
    {
        return Ok(done);
    }
    if let Ok(runtime) = Handle::try_current()
        && let Some(done) = on_thread(runtime, &work).await
    {
        return Ok(done);
    }
    // It is there as long as nobody began with it.
    take(&work).map(|work| work()).ok_or_else(|| io::ErrorKind::Interrupted.into())
}

/// Does it on a thread of this runtime; `None` when that ended before it came to this. A panic goes on here.
async fn on_thread<T: Send + 'static>(
    runtime: Handle,
    work: &Arc<Mutex<Option<impl FnOnce() -> T + Send + 'static>>>,
) -> Option<T> {
    let work = Arc::clone(work);
    match runtime.spawn_blocking(move || take(&work).map(|work| work())).await {
        Ok(done) => done,
        Err(error) => error.try_into_panic().map_or(None, |panic| resume_unwind(panic)),
    }
}
