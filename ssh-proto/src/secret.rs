//! Secrets: wiped when dropped, never printed.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A secret that is wiped when dropped and has no readable `Debug`.
///
/// Copies the compiler may have left on the stack are beyond its reach.
pub struct Secret<T: ?Sized + Zeroize>(Box<T>);

impl<T: ?Sized + Zeroize> Secret<T> {
    /// Takes over a boxed value.
    pub fn from_box(value: Box<T>) -> Self {
        Self(value)
    }

    /// The value itself. Do not copy it anywhere that outlives its use.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized + Zeroize + AsRef<[u8]>> Secret<T> {
    /// Whether `other` is the same, in a time that depends on its length alone and not on how much of it is right:
    /// the way to compare a password, as that of [`AuthProof::Password`](crate::AuthProof::Password). The time may
    /// tell whether the lengths are the same.
    pub fn matches(&self, other: impl AsRef<[u8]>) -> bool {
        AsRef::<[u8]>::as_ref(&*self.0).ct_eq(other.as_ref()).into()
    }
}

impl From<&str> for Secret<str> {
    fn from(value: &str) -> Self {
        Self(value.into())
    }
}

impl From<String> for Secret<str> {
    fn from(mut value: String) -> Self {
        // Copied to its exact size first: shrinking in place could leave a second, unwiped copy behind.
        let secret = Self(value.as_str().into());
        value.zeroize();
        secret
    }
}

impl From<&[u8]> for Secret<[u8]> {
    fn from(value: &[u8]) -> Self {
        Self(value.into())
    }
}

impl Clone for Secret<str> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized + Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: ?Sized + Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        let secret: Secret<str> = "hunter2".into();
        assert_eq!(alloc::format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn only_the_same_matches() {
        let secret: Secret<str> = "hunter2".into();
        assert!(secret.matches("hunter2") && secret.matches(b"hunter2"));
        for other in ["", "hunter", "hunter22", "hunter3", "Hunter2"] {
            assert!(!secret.matches(other), "{other}");
        }
        let bytes: Secret<[u8]> = [0, 1][..].into();
        assert!(bytes.matches([0, 1]) && !bytes.matches([0, 1, 0]) && !bytes.matches([1, 1]));
    }
}
