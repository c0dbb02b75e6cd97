//! The counts that `tests/run.sh` prints and insists on.

use std::fs;

use crate::matrix::Role;
use crate::peers::{Peer, base_dir, write};

/// Records how many combinations ran and passed with a peer in a role: a file of its own for each, since
/// test runners may use several processes.
pub(crate) fn record(peer: Peer, role: Role, count: usize) {
    let dir = base_dir().join("summary");
    fs::create_dir_all(&dir).expect("a directory for the counts");
    let line = format!("{} {} {count}\n", peer.name(), role.name());
    write(&dir.join(format!("{}-{}", peer.name(), role.name())), &line);
    print!("interop: {line}");
}
