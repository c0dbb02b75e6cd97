//! The other side: an [`End`] of the simulator, driven over a transport of tokio.

use std::sync::{Arc, Mutex, MutexGuard};

use ssh_proto::{Instant, Server, ServerConfig};
use ssh_tests::{End, Policy, Seeded};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// A server that a test reaches into.
pub(crate) struct Remote(Arc<Shared>);

struct Shared {
    end: Mutex<End<Server>>,
    /// For the driver: the test did something.
    work: Notify,
    /// For the test: something happened.
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, End<Server>> {
        self.end.lock().unwrap()
    }
}

impl Remote {
    /// Spawns a server. `app` looks at it whenever something happened.
    pub(crate) fn start(
        config: Arc<ServerConfig>,
        policy: Policy,
        app: impl FnMut(&mut End<Server>) + Send + 'static,
        transport: impl AsyncRead + AsyncWrite + Send + 'static,
    ) -> Self {
        let mut end = End::new(config, Seeded::new(1));
        end.policy = policy;
        let (work, changed) = (Notify::new(), Notify::new());
        let shared = Arc::new(Shared { end: Mutex::new(end), work, changed });
        tokio::spawn(drive(Arc::clone(&shared), app, transport));
        Self(shared)
    }

    /// Does something to the server now.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut End<Server>) -> T) -> T {
        let result = act(&mut self.0.lock());
        self.0.work.notify_one();
        result
    }

    /// Waits until `look` finds what it looks for. It only looks.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut(&mut End<Server>) -> Option<T>) -> T {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.0.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

async fn drive(
    shared: Arc<Shared>,
    mut app: impl FnMut(&mut End<Server>),
    transport: impl AsyncRead + AsyncWrite,
) {
    let (mut reader, mut writer) = tokio::io::split(transport);
    let start = tokio::time::Instant::now();
    let now = || Instant::from_duration(start.elapsed());
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let (output, wants_input, deadline) = {
            let mut end = shared.lock();
            loop {
                let busy = end.turn(now());
                app(&mut end);
                if !busy {
                    break;
                }
            }
            let output = end.conn.output().to_vec();
            if end.closed.is_some() && output.is_empty() {
                break;
            }
            (output, end.conn.wants_input(), end.conn.poll_timeout())
        };
        shared.changed.notify_waiters();
        let deadline = deadline.map(|at| start + at.as_duration());
        tokio::select! {
            written = writer.write(&output), if !output.is_empty() => match written {
                Ok(n) => shared.lock().conn.consume_output(n),
                Err(_) => break,
            },
            read = reader.read(&mut chunk), if wants_input => match read {
                Ok(n @ 1..) => shared.lock().input.extend_from_slice(&chunk[..n]),
                _ => shared.lock().conn.handle_eof(now()),
            },
            () = tokio::time::sleep_until(deadline.unwrap_or(start)), if deadline.is_some() => {
                shared.lock().conn.handle_timeout(now());
            }
            () = shared.work.notified() => {}
        }
    }
    let _ = writer.shutdown().await;
    shared.changed.notify_waiters();
}
