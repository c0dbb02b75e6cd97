//! Text from the peer, safe to show.

use alloc::vec::Vec;
use core::fmt::{self, Write};

/// The most bytes of a peer's text that are kept.
pub const MAX_PEER_TEXT: usize = 256;

/// Text from the peer.
///
/// Its `Display` escapes control characters, the bidirectional overrides and whatever is not UTF-8, so it
/// can be printed to a terminal or a log. The bytes themselves are behind [`as_bytes`](Self::as_bytes).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PeerText(Vec<u8>);

impl PeerText {
    /// Takes the first [`MAX_PEER_TEXT`] bytes.
    pub fn new(text: &[u8]) -> Self {
        Self::with_limit(text, MAX_PEER_TEXT)
    }

    /// Takes the first `max` bytes.
    pub(crate) fn with_limit(text: &[u8], max: usize) -> Self {
        Self(text.get(..max).unwrap_or(text).to_vec())
    }

    /// The bytes as they came, cut to their limit.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || is_format(c) {
                    write!(f, "{}", c.escape_unicode())?;
                } else {
                    f.write_char(c)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Characters that reorder or hide what is shown: bidirectional controls, separators, zero-width marks.
fn is_format(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

impl fmt::Debug for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tm_04_terminal_sequences_are_escaped() {
        let text = PeerText::new("\u{1b}[2Jhi\r\n\u{202e}\u{9b}x".as_bytes());
        assert_eq!(text.to_string(), "\\u{1b}[2Jhi\\u{d}\\u{a}\\u{202e}\\u{9b}x");
        assert_eq!(PeerText::new(b"a\xffb").to_string(), "a\\xffb");
    }

    proptest! {
        #[test]
        fn tm_04_display_never_shows_a_control_character(bytes: Vec<u8>) {
            prop_assert!(!PeerText::new(&bytes).to_string().chars().any(|c| c.is_control() || is_format(c)));
        }
    }
}
