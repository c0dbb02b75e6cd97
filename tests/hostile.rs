//! Peers that do what they must not: every rule of `PeerMisbehaved`, the catalogue of known attacks, edits on
//! the wire, and damaged packets under the right keys.
//!
//! A test's name starts with a row of the project's catalogue of known classes of SSH flaws, and goes on with what
//! must hold: `sm` state machine and authentication, `pk` packets, `kx` key exchange, `ch` channels, `tm` leaks, `ad`
//! what the adapters meet, `out` what leads out of the machine; `dos` is a bound that no row names.
//!
//! Beside the code, because they need its inside:
//! - lengths, padding and the work behind a bad packet without keys (pk_01 to pk_03), flipped bits and short packets
//!   of every cipher (pk_04), decoders (pk_08), nonces and sequence numbers that wrap (pk_12), the noise budget
//!   (pk_13, sm_21), lines, lists and negotiation (pk_14, pk_18, sm_08, sm_14, kx_12);
//! - key shares (kx_04 to kx_07), keys and signatures (kx_08, kx_10, kx_14 to kx_20), derived keys (kx_25), files of
//!   keys (kx_23, out_03);
//! - windows and replies alone (ch_01 to ch_03, ch_08), fields of requests (ch_13, ch_15), what is shown (tm_04) and
//!   what is not (tm_05).
//!
//! In other files here: the table of states in `gate` (sm_06), exchanges with traffic in `rekey` (sm_10 to sm_13),
//! signatures by a bad signer in `tickets` (kx_16), trailing bytes and chunking in `laws` (pk_09, pk_16), the ends of
//! channels, replies and pings in `flow` (ch_04, ch_08, ch_20), the delay of refusals in `timers` (tm_01), the cost of
//! opening and closing in `memory` (ch_06), and what only an adapter meets in theirs (ad).
//!
//! Not here, for want of the thing itself: compression (pk_06, pk_07), exchanges in finite fields (kx_01 to kx_03; the
//! states of group exchange are in `gate` as a function), certificates, FIDO keys and their restrictions (sm_18, kx_21,
//! kx_22), file transfer (ch_22). Of keyboard-interactive and GSSAPI (sm_25), and of agent connections (ch_17), only
//! the refusal is. Aliasing (pk_17) is ruled out by `forbid(unsafe_code)`; the number of connections (kx_24) is the
//! adapters' concern, and how often a peer may open a channel (ch_06) the embedder's, who is asked each time.

#[path = "hostile/channels.rs"]
mod channels;
#[path = "hostile/early.rs"]
mod early;
#[path = "hostile/exchange.rs"]
mod exchange;
#[path = "hostile/extensions.rs"]
mod extensions;
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
#[path = "hostile/requests.rs"]
mod requests;
#[path = "hostile/rules.rs"]
mod rules;
#[path = "hostile/shown.rs"]
mod shown;
#[path = "hostile/stage.rs"]
mod stage;
#[path = "hostile/sweep.rs"]
mod sweep;
#[path = "hostile/traces.rs"]
mod traces;
