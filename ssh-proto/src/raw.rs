//! The inside, for tests and fuzzing. Exempt from semantic versioning.

use alloc::boxed::Box;
use alloc::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::crypto::OpenPacket;
use crate::error::{PeerIncompatible, PeerMisbehaved};
use crate::kex::negotiate::{self, Negotiated};
use crate::role::Role;
use crate::transport::incoming::Incoming;

pub use crate::msg::gate::{AuthMethod, KexStep, State, Verdict, admit};
pub use crate::msg::{Message, auth, channel, kex, number, transport};

/// What comes of the KEXINITs `ours` and `theirs` at a side with this configuration, and whether the peer's
/// guess was wrong. Strictness is not looked at.
///
/// # Errors
/// [`PeerIncompatible::NoCommonAlgorithm`].
pub fn negotiate<R: Role>(
    config: &Arc<R::Config>,
    ours: &kex::KexInit<'_>,
    theirs: &kex::KexInit<'_>,
) -> Result<(Negotiated, bool), Box<PeerIncompatible>> {
    let choice = negotiate::negotiate(R::SIDE, R::wrap(config.clone()).common(), ours, theirs)?;
    Ok((choice.negotiated(false), choice.wrong_guess))
}

/// The receiving half of a connection's transport, behind the identification line.
pub struct Framer(Incoming);

impl core::fmt::Debug for Framer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Framer")
    }
}

impl Framer {
    /// Packets of up to so many bytes, in the clear.
    pub fn new(max_packet: usize) -> Self {
        Self(Incoming::new(max_packet))
    }

    /// The next packet is under this key; under strict key exchange, the sequence number starts again.
    pub fn new_keys(&mut self, opener: Box<dyn OpenPacket>, strict: bool) {
        self.0.new_keys(opener, strict);
    }

    /// Takes one whole packet off the front of `buf`: its sequence number and its payload.
    ///
    /// # Errors
    /// The rule that the packet breaks. Nothing can be taken behind it.
    pub fn take(&mut self, buf: &mut BytesMut) -> Result<Option<(u32, Bytes)>, PeerMisbehaved> {
        Ok(self.0.next(buf)?.map(|packet| (packet.seq, packet.payload.bytes().clone())))
    }

    /// How many more bytes complete what is being read, given that `have` are there.
    pub fn hint(&self, have: usize) -> usize {
        self.0.hint(have)
    }
}
