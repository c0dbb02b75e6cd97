//! `ssh-io-tokio` against a server of the simulator, mostly in paused time.

mod answers;
mod bursts;
mod dropped;
mod ended;
mod ending;
mod flushes;
mod gate;
mod host_keys;
mod judged;
mod key_files;
mod last_words;
mod login;
mod outside;
mod panics;
mod remote;
mod requests;
mod rig;
mod sendable;
mod server;
mod shown;
mod signers;
mod turns;
mod waiting;
