//! The counts that `tests/run.sh` prints and insists on.

use std::fs;

use crate::matrix::Role;
use crate::peers::{Peer, base_dir, write};

/// Records how many combinations ran and passed between a peer in a role and a crate of ours in the other:
/// a file of its own for each, since test runners may use several processes.
pub(crate) fn record(peer: Peer, role: Role, ours: &str, count: usize) {
    let dir = base_dir().join("summary");
    fs::create_dir_all(&dir).expect("a directory for the counts");
    let (peer, role) = (peer.name(), role.name());
    let line = format!("{peer} {role} {ours} {count}\n");
    write(&dir.join(format!("{peer}-{role}-{ours}")), &line);
    print!("interop: {line}");
}
