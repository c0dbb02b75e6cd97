//! A connection as an adapter holds it: with a pool of input buffers, and nothing beside it that would be counted.

use std::sync::Arc;

use ssh_proto::{Connection, InputPool, Instant};

use crate::end::Peer;
use crate::entropy::Seeded;

/// A connection and its input buffers.
#[derive(Debug)]
pub struct Adapter<R: Peer> {
    /// The connection.
    pub conn: Connection<R>,
    /// Its input buffers.
    pub pool: InputPool,
}

impl<R: Peer> Adapter<R> {
    /// A side that has just connected.
    pub fn new(config: Arc<R::Config>, seed: u64) -> Self {
        Self::of(R::connect(config, Box::new(Seeded::new(seed))))
    }

    /// A connection with buffers of its own.
    pub fn of(conn: Connection<R>) -> Self {
        Self { conn, pool: InputPool::new() }
    }

    /// Reads as much as one `read` gives, and handles it. Says whether there was anything.
    pub fn take(&mut self, now: Instant, from: &mut Connection<impl Peer>) -> bool {
        let output = from.output();
        if output.is_empty() {
            return false;
        }
        let room = self.pool.reserve();
        let n = output.len().min(room);
        self.pool.buffer().extend_from_slice(&output[..n]);
        from.consume_output(n);
        self.pool.filled(n, room);
        self.conn.handle_input(now, self.pool.buffer());
        true
    }
}
