//! Peers that do what they must not: every rule of `PeerMisbehaved`, the catalogue of known attacks, edits on
//! the wire, and damaged packets under the right keys.
//!
//! A test's name starts with a row of the project's catalogue of known classes of SSH flaws, and goes on with what
//! must hold: `sm` state machine and authentication, `pk` packets, `kx`
//! key exchange, `ch` channels, `tm` leaks, `ad` time, `out` what leads out of the machine. Beside the code, because
//! they need its inside: lengths and padding without keys (pk_01, pk_02), the work behind a bad packet (pk_03),
//! wrapping nonces (pk_12), lists, lines and negotiation (pk_14, pk_18, sm_08, sm_14), key shares, keys and signatures
//! (kx_04 to kx_07, kx_14 to kx_20, kx_25), files of keys (kx_23, out_03), windows and replies alone (ch_01, ch_02,
//! ch_08), fields of requests (ch_13, ch_15), secrets in logs (tm_05). In other files here: chunking (pk_16, as l1) and
//! trailing bytes (pk_09) in `laws`, crossing exchanges (sm_13) also in `rekey`, the cost of opening and closing
//! (ch_06) in `memory`.
//!
//! Not here, for want of the thing itself: compression (pk_06, pk_07), exchanges in finite fields (kx_01 to kx_03; the
//! states of group exchange are in `gate` as a function), keyboard-interactive and GSSAPI (sm_25, but for
//! their refusal), certificates, FIDO
//! keys and their restrictions (sm_18, kx_21, kx_22), agent connections (ch_17, but for
//! the refusal of their channels), file transfer (ch_22). The order of
//! accepts and the number of connections (kx_24) are the adapters' concern, how often a peer may open a channel (ch_06)
//! the embedder's, who is asked each time; aliasing (pk_17) is ruled out by `forbid(unsafe_code)`.

#[path = "hostile/channels.rs"]
mod channels;
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
