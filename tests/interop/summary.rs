//! The counts that `tests/run.sh` prints and insists on.

use std::fs;

use crate::matrix::Role;
use crate::peers::{Peer, base_dir, write};

/// How many combinations ran for each peer and role.
#[derive(Default)]
pub(crate) struct Summary(Vec<(Peer, Role, usize)>);

impl Summary {
    /// Starts to count, and forgets what an earlier run has counted.
    pub(crate) fn new() -> Self {
        let _ = fs::remove_file(base_dir().join("summary.txt"));
        Self::default()
    }

    /// Adds what has run and passed.
    pub(crate) fn add(&mut self, peer: Peer, role: Role, count: usize) {
        match self.0.iter_mut().find(|row| (row.0, row.1) == (peer, role)) {
            Some(row) => row.2 += count,
            None => self.0.push((peer, role, count)),
        }
    }

    /// Writes a line `PEER ROLE COUNT` for each peer and role, zeros included.
    pub(crate) fn save(&self) {
        let mut text = String::new();
        for peer in Peer::ALL {
            for role in Role::ALL {
                let row = self.0.iter().find(|row| (row.0, row.1) == (peer, role));
                let count = row.map_or(0, |row| row.2);
                text += &format!("{} {} {count}\n", peer.name(), role.name());
            }
        }
        write(&base_dir().join("summary.txt"), &text);
    }
}
