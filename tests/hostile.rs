//! Peers that do what they must not: every rule of `PeerMisbehaved`, the catalogue of known attacks, edits on
//! the wire, and damaged packets under the right keys.

#[path = "hostile/channels.rs"]
mod channels;
#[path = "hostile/exchange.rs"]
mod exchange;
#[path = "hostile/handshake.rs"]
mod handshake;
#[path = "hostile/limits.rs"]
mod limits;
#[path = "hostile/login.rs"]
mod login;
#[path = "hostile/mitm.rs"]
mod mitm;
#[path = "hostile/packets.rs"]
mod packets;
#[path = "hostile/rekeying.rs"]
mod rekeying;
#[path = "hostile/rules.rs"]
mod rules;
#[path = "hostile/stage.rs"]
mod stage;
#[path = "hostile/sweep.rs"]
mod sweep;
