//! Authentication messages, RFC 4252.

use alloc::vec::Vec;

use core::fmt;

use bytes::BufMut;

use super::{Message, limit, messages, number};
use crate::wire::decode::{
    DecodeError, IResult, boolean, fail, name_list, rest, string, string_max, text_max,
};
use crate::wire::{NameList, PutSsh};

/// The longest signature blob looked at: RSA with 16384 bits, its name, and slack.
pub const MAX_SIGNATURE: usize = 4096;

/// `SSH_MSG_USERAUTH_REQUEST`, RFC 4252 §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserauthRequest<'a> {
    /// The user name.
    pub user: &'a str,
    /// The service to start.
    pub service: &'a str,
    /// The method and its fields.
    pub method: Method<'a>,
}

/// The method-specific part of a USERAUTH_REQUEST. Its `Debug` shows no password, nor the fields of a method that is
/// not known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// `none`, RFC 4252 §5.2.
    None,
    /// `password`, RFC 4252 §8.
    Password {
        /// The password, or the old one of a change: meant to be UTF-8.
        password: &'a [u8],
        /// The new password of a change.
        new: Option<&'a [u8]>,
    },
    /// `publickey`, RFC 4252 §7.
    PublicKey {
        /// The signature algorithm.
        algorithm: &'a str,
        /// The key blob.
        key: &'a [u8],
        /// The signature, `string algorithm, string bytes`; without it the request is a probe.
        signature: Option<&'a [u8]>,
    },
    /// Any other method.
    Other {
        /// Its name.
        name: &'a str,
        /// Its fields, unparsed.
        fields: &'a [u8],
    },
}

impl Method<'_> {
    /// The method's name.
    pub fn name(&self) -> &str {
        match self {
            Self::None => "none",
            Self::Password { .. } => "password",
            Self::PublicKey { .. } => "publickey",
            Self::Other { name, .. } => name,
        }
    }
}

impl fmt::Debug for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { new, .. } => {
                f.debug_struct("Password").field("change", &new.is_some()).finish_non_exhaustive()
            }
            Self::PublicKey { algorithm, key, signature } => f
                .debug_struct("PublicKey")
                .field("algorithm", algorithm)
                .field("key", key)
                .field("signature", signature)
                .finish(),
            Self::Other { name, .. } => f.debug_struct("Other").field("name", name).finish_non_exhaustive(),
        }
    }
}

impl UserauthRequest<'_> {
    /// At least as many bytes as its encoding takes.
    pub fn size(&self) -> usize {
        let fields = match self.method {
            Method::None => [0; 3],
            Method::Password { password, new } => [password.len(), new.map_or(0, <[u8]>::len), 0],
            Method::PublicKey { algorithm, key, signature } => {
                [algorithm.len(), key.len(), signature.map_or(0, <[u8]>::len)]
            }
            Method::Other { name, fields } => [name.len(), fields.len(), 0],
        };
        fields.into_iter().chain([self.user.len(), self.service.len(), 64]).fold(0, usize::saturating_add)
    }
}

impl<'a> Message<'a> for UserauthRequest<'a> {
    const NUMBER: u8 = number::USERAUTH_REQUEST;

    fn parse(fields: &'a [u8]) -> IResult<'a, Self> {
        let (fields, user) = text_max(limit::USER)(fields)?;
        let (fields, service) = text_max(limit::NAME)(fields)?;
        let (fields, method) = text_max(limit::NAME)(fields)?;
        let (fields, method) = match method {
            "none" => (fields, Method::None),
            "password" => {
                let (fields, change) = boolean(fields)?;
                let (fields, password) = string(fields)?;
                let (fields, new) = match change {
                    true => string(fields).map(|(fields, new)| (fields, Some(new)))?,
                    false => (fields, None),
                };
                (fields, Method::Password { password, new })
            }
            "publickey" => {
                let (fields, signed) = boolean(fields)?;
                let (fields, algorithm) = text_max(limit::NAME)(fields)?;
                let (fields, key) = string(fields)?;
                let (fields, signature) = match signed {
                    true => string(fields).map(|(fields, blob)| (fields, Some(blob)))?,
                    false => (fields, None),
                };
                (fields, Method::PublicKey { algorithm, key, signature })
            }
            name => {
                let (fields, other) = rest(fields)?;
                (fields, Method::Other { name, fields: other })
            }
        };
        Ok((fields, Self { user, service, method }))
    }

    fn write(&self, out: &mut impl BufMut) {
        out.put_string(self.user.as_bytes());
        out.put_string(self.service.as_bytes());
        out.put_string(self.method.name().as_bytes());
        match self.method {
            Method::None => {}
            Method::Password { password, new } => {
                out.put_bool(new.is_some());
                out.put_string(password);
                if let Some(new) = new {
                    out.put_string(new);
                }
            }
            Method::PublicKey { algorithm, key, signature } => {
                out.put_bool(signature.is_some());
                out.put_string(algorithm.as_bytes());
                out.put_string(key);
                if let Some(signature) = signature {
                    out.put_string(signature);
                }
            }
            Method::Other { fields, .. } => out.put_slice(fields),
        }
    }
}

/// What a `publickey` signature covers: the session id and the request up to its key, with the signature flag set
/// (RFC 4252 §7).
pub fn signed_data(session_id: &[u8], user: &str, service: &str, algorithm: &str, key: &[u8]) -> Vec<u8> {
    let fields = [session_id, user.as_bytes(), service.as_bytes(), algorithm.as_bytes(), key];
    let size = fields.iter().map(|field| field.len().saturating_add(4)).fold(16, usize::saturating_add);
    let mut out = Vec::with_capacity(size);
    out.put_string(session_id);
    out.put_u8(number::USERAUTH_REQUEST);
    out.put_string(user.as_bytes());
    out.put_string(service.as_bytes());
    out.put_string(b"publickey");
    out.put_bool(true);
    out.put_string(algorithm.as_bytes());
    out.put_string(key);
    out
}

messages! {
    /// `SSH_MSG_USERAUTH_FAILURE`.
    UserauthFailure<'a> = USERAUTH_FAILURE {
        /// Methods that can go on.
        methods: NameList<'a> = name_list, put_list;
        /// Whether the request succeeded and more is needed.
        partial_success: bool = boolean, put_bool;
    }

    /// `SSH_MSG_USERAUTH_SUCCESS`.
    UserauthSuccess = USERAUTH_SUCCESS {}

    /// `SSH_MSG_USERAUTH_BANNER`, RFC 4252 §5.4.
    UserauthBanner<'a> = USERAUTH_BANNER {
        /// Text to show before authentication.
        message: &'a [u8] = string, put_string;
        /// Its language tag.
        language: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_USERAUTH_PK_OK`, RFC 4252 §7.
    UserauthPkOk<'a> = USERAUTH_60 {
        /// The algorithm of the probe.
        algorithm: &'a [u8] = string, put_string;
        /// The key of the probe.
        key: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_USERAUTH_PASSWD_CHANGEREQ`, RFC 4252 §8.
    UserauthPasswdChangereq<'a> = USERAUTH_60 {
        /// The prompt.
        prompt: &'a [u8] = string, put_string;
        /// Its language tag.
        language: &'a [u8] = string, put_string;
    }
}

/// Splits a signature blob into algorithm and bytes.
///
/// # Errors
/// [`DecodeError`].
pub fn split_signature(blob: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    crate::wire::decode::all(blob, |input| {
        let (input, algorithm) = string_max(limit::NAME)(input)?;
        let (input, bytes) = string(input)?;
        match core::str::from_utf8(algorithm) {
            Ok(algorithm) => Ok((input, (algorithm, bytes))),
            Err(_) => fail(DecodeError::NotUtf8),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tm_05_no_request_shows_its_secrets() {
        let shown =
            |method| format!("{:?}", UserauthRequest { user: "me", service: "ssh-connection", method });
        let (password, fields) = (&b"hunter2"[..], &b"\0\0\0\x07hunter2"[..]);
        for (method, expected) in [
            (Method::Password { password, new: None }, "Password { change: false, .. }"),
            (Method::Password { password, new: Some(password) }, "Password { change: true, .. }"),
            (Method::Other { name: "x", fields }, "Other { name: \"x\", .. }"),
            (Method::None, "None"),
        ] {
            let expected = format!(
                "UserauthRequest {{ user: \"me\", service: \"ssh-connection\", method: {expected} }}"
            );
            assert_eq!(shown(method), expected);
        }
        let key = Method::PublicKey { algorithm: "a", key: b"k", signature: None };
        assert!(shown(key).ends_with("PublicKey { algorithm: \"a\", key: [107], signature: None } }"));
    }
}
