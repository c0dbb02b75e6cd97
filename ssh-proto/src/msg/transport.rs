//! Transport messages, RFC 4253 §10–§11, RFC 8308 and OpenSSH's PROTOCOL §1.8.

use bytes::BufMut;

use super::{Message, limit, messages, number};
use crate::wire::PutSsh;
use crate::wire::decode::{self, DecodeError, IResult, fail, string, text_max, uint32};

messages! {
    /// `SSH_MSG_DISCONNECT`.
    Disconnect<'a> = DISCONNECT {
        /// The reason code.
        code: u32 = uint32, put_u32;
        /// Text for people.
        description: &'a [u8] = string, put_string;
        /// Its language tag.
        language: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_IGNORE`.
    Ignore<'a> = IGNORE {
        /// Anything.
        data: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_UNIMPLEMENTED`.
    Unimplemented = UNIMPLEMENTED {
        /// The sequence number of the packet that was not understood.
        sequence: u32 = uint32, put_u32;
    }

    /// `SSH_MSG_DEBUG`.
    Debug<'a> = DEBUG {
        /// Whether the peer wants it shown.
        always_display: bool = decode::boolean, put_bool;
        /// Text for people.
        message: &'a [u8] = string, put_string;
        /// Its language tag.
        language: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_SERVICE_REQUEST`.
    ServiceRequest<'a> = SERVICE_REQUEST {
        /// The service asked for.
        service: &'a str = text_max(limit::NAME), put_text;
    }

    /// `SSH_MSG_SERVICE_ACCEPT`.
    ServiceAccept<'a> = SERVICE_ACCEPT {
        /// The service granted.
        service: &'a str = text_max(limit::NAME), put_text;
    }

    /// `ping@openssh.com`.
    Ping<'a> = PING {
        /// Echoed in the PONG.
        data: &'a [u8] = string, put_string;
    }

    /// The answer to a PING.
    Pong<'a> = PONG {
        /// The PING's data.
        data: &'a [u8] = string, put_string;
    }
}

/// The most extensions in one EXT_INFO.
pub const MAX_EXTENSIONS: u32 = 64;
/// The longest EXT_INFO, in bytes.
pub const MAX_EXT_INFO: usize = 16 * 1024;

/// `SSH_MSG_EXT_INFO`, RFC 8308 §2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtInfo<'a> {
    count: u32,
    pairs: &'a [u8],
}

impl<'a> ExtInfo<'a> {
    /// The extensions: name and value.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut left = self.pairs;
        core::iter::from_fn(move || {
            let (rest, pair) = pair(left).ok()?;
            left = rest;
            Some(pair)
        })
    }

    /// Writes an EXT_INFO with these extensions.
    pub fn encode_pairs(pairs: &[(&str, &str)], out: &mut impl BufMut) {
        out.put_u8(number::EXT_INFO);
        out.put_u32(u32::try_from(pairs.len()).unwrap_or(u32::MAX));
        for (name, value) in pairs {
            out.put_string(name.as_bytes());
            out.put_string(value.as_bytes());
        }
    }
}

fn pair(input: &[u8]) -> IResult<'_, (&[u8], &[u8])> {
    let (input, name) = string(input)?;
    let (input, value) = string(input)?;
    Ok((input, (name, value)))
}

impl<'a> Message<'a> for ExtInfo<'a> {
    const NUMBER: u8 = number::EXT_INFO;

    fn parse(fields: &'a [u8]) -> IResult<'a, Self> {
        let (pairs, count) = uint32(fields)?;
        // DoS (CVE-2026-55199): the count is bounded before it drives a loop.
        if count > MAX_EXTENSIONS || fields.len() > MAX_EXT_INFO {
            return fail(DecodeError::TooLong);
        }
        let mut rest = pairs;
        for _ in 0..count {
            rest = pair(rest)?.0;
        }
        Ok((rest, Self { count, pairs }))
    }

    fn write(&self, out: &mut impl BufMut) {
        out.put_u32(self.count);
        out.put_slice(self.pairs);
    }
}
