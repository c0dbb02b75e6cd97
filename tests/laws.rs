//! The laws of a connection, as properties. Each module is one of them, or a few that share a machine.

#[path = "laws/ends.rs"]
mod ends;
#[path = "laws/memory.rs"]
mod memory;
#[path = "laws/messages.rs"]
mod messages;
#[path = "laws/ops.rs"]
mod ops;
#[path = "laws/replay.rs"]
mod replay;
#[path = "laws/same.rs"]
mod same;
#[path = "laws/streams.rs"]
mod streams;
