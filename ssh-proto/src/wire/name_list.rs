//! `name-list`, and what RFC 4251 §6 asks of the names in it.

use super::decode::DecodeError;

/// The longest algorithm name (RFC 4251 §6).
pub const MAX_NAME: usize = 64;
/// The most names in one list.
pub const MAX_NAMES: usize = 256;

/// A checked name-list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameList<'a>(&'a str);

impl<'a> NameList<'a> {
    /// The list without names.
    pub const EMPTY: Self = Self("");

    /// Checks the contents of a name-list.
    ///
    /// Names are 1 to [`MAX_NAME`] printable ASCII bytes, at most [`MAX_NAMES`] of them. The empty list and one
    /// trailing comma are accepted: peers send both.
    ///
    /// # Errors
    /// [`DecodeError::BadNameList`].
    pub fn parse(list: &'a [u8]) -> Result<Self, DecodeError> {
        if !list.iter().all(u8::is_ascii_graphic) {
            return Err(DecodeError::BadNameList);
        }
        let text = core::str::from_utf8(list).map_err(|_| DecodeError::BadNameList)?;
        let text = text.strip_suffix(',').unwrap_or(text);
        if !text.is_empty() {
            for (at, name) in text.split(',').enumerate() {
                if name.is_empty() || name.len() > MAX_NAME || at >= MAX_NAMES {
                    return Err(DecodeError::BadNameList);
                }
            }
        } else if !list.is_empty() {
            return Err(DecodeError::BadNameList);
        }
        Ok(Self(text))
    }

    /// The names, in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + Clone {
        self.0.split(',').filter(|name| !name.is_empty())
    }

    /// Whether `name` is in the list.
    pub fn contains(self, name: &str) -> bool {
        self.iter().any(|listed| listed == name)
    }

    /// The list as it travels, without a trailing comma.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn pk_18_lists_are_judged_by_rfc_4251_section_6() {
        let long = "x".repeat(65);
        let many = "a,".repeat(257);
        for bad in [",", ",,", "a,,b", ",a", "a,,", "a b", "a\u{e9}", "a\0", &long, &many] {
            assert_eq!(NameList::parse(bad.as_bytes()), Err(DecodeError::BadNameList), "{bad:?}");
        }
        let most = "a,".repeat(256);
        for (good, names) in [("", 0), ("a", 1), ("a,b", 2), ("a,b,", 2), (&most[..], 256)] {
            assert_eq!(
                NameList::parse(good.as_bytes()).map(|list| list.iter().count()),
                Ok(names),
                "{good:?}"
            );
        }
    }

    #[test]
    fn names_come_in_order_and_are_found_whole() {
        let list = NameList::parse(b"ab,a,c").unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), ["ab", "a", "c"]);
        assert!(list.contains("a") && !list.contains("b"));
    }
}
