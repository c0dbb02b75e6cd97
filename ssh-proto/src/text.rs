//! Text from the peer, safe to show.

use alloc::borrow::ToOwned;
use alloc::string::String;
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
            write_escaped(f, chunk.valid())?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Writes a text without the characters that do something to a terminal or a log.
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() || is_format(c) {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// Characters that reorder or hide what is shown: bidirectional controls, separators, zero-width marks,
/// tags.
fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

impl fmt::Debug for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A name that travels as text: a user, a host, a subsystem, a request without a type of its own.
///
/// It may be the peer's, so its `Display` and `Debug` escape what those of [`PeerText`] escape. It compares with
/// plain text and is made from it, but does not dereference to it: an unescaped text would get into a log
/// through any function that takes a `&str`. Whoever acts on the text itself asks for it by
/// [`as_str`](Self::as_str).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Name(String);

impl Name {
    /// The text as it is: to compare with, to look up, to act on. To show it, use `Display`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text's bytes as they are.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text as it is, taken out.
    pub fn into_string(self) -> String {
        self.0
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, &self.0)
    }
}

impl fmt::Debug for Name {
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
        let text = PeerText::new("\u{1b}[2Jhi\r\n\u{202e}\u{9b}\u{e0041}x".as_bytes());
        assert_eq!(text.to_string(), "\\u{1b}[2Jhi\\u{d}\\u{a}\\u{202e}\\u{9b}\\u{e0041}x");
        assert_eq!(PeerText::new(b"a\xffb").to_string(), "a\\xffb");
        let name = Name::from("\u{1b}]0;x\u{7}\u{202e}\u{200b}ü");
        assert_eq!(name.to_string(), "\\u{1b}]0;x\\u{7}\\u{202e}\\u{200b}ü");
        assert_eq!(format!("{name:?} {:?}", Some(&name)), format!("\"{name}\" Some(\"{name}\")"));
    }

    #[test]
    fn a_name_is_made_from_text_and_compares_with_it() {
        let name = Name::from("root");
        assert!(
            name == "root"
                && *"root" == *name.as_str()
                && name != "Root"
                && name == Name::from(String::from("root"))
        );
        assert_eq!((&name, name.as_str(), name.as_bytes(), name.len()), (&name, "root", &b"root"[..], 4));
        assert!(!name.is_empty() && Name::default().is_empty());
        assert_eq!(name.into_string(), "root");
    }

    proptest! {
        #[test]
        fn tm_04_display_never_shows_a_control_character(bytes: Vec<u8>) {
            prop_assert!(!PeerText::new(&bytes).to_string().chars().any(|c| c.is_control() || is_format(c)));
        }

        #[test]
        fn tm_04_no_name_shows_a_control_character(text: String) {
            let name = Name::from(&text[..]);
            let shown = format!("{name} {name:?}");
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_format(c)));
            prop_assert_eq!(name.as_str(), text);
        }
    }
}
