//! Every message as a borrowed struct, and the gate before their dispatch.

pub mod auth;
pub mod channel;
pub(crate) mod gate;
pub mod kex;
pub(crate) mod request;
pub mod transport;

use bytes::BufMut;

use crate::wire::decode::{self, DecodeError, IResult};

/// Message numbers, RFC 4250 §4.1.2 and OpenSSH's PROTOCOL.
#[allow(missing_docs, reason = "the RFCs name them")]
pub mod number {
    pub const DISCONNECT: u8 = 1;
    pub const IGNORE: u8 = 2;
    pub const UNIMPLEMENTED: u8 = 3;
    pub const DEBUG: u8 = 4;
    pub const SERVICE_REQUEST: u8 = 5;
    pub const SERVICE_ACCEPT: u8 = 6;
    pub const EXT_INFO: u8 = 7;
    pub const NEWCOMPRESS: u8 = 8;
    pub const KEXINIT: u8 = 20;
    pub const NEWKEYS: u8 = 21;
    pub const KEX_ECDH_INIT: u8 = 30;
    pub const KEX_ECDH_REPLY: u8 = 31;
    pub const KEX_GEX_INIT: u8 = 32;
    pub const KEX_GEX_REPLY: u8 = 33;
    pub const KEX_GEX_REQUEST: u8 = 34;
    pub const USERAUTH_REQUEST: u8 = 50;
    pub const USERAUTH_FAILURE: u8 = 51;
    pub const USERAUTH_SUCCESS: u8 = 52;
    pub const USERAUTH_BANNER: u8 = 53;
    /// PK_OK, PASSWD_CHANGEREQ or INFO_REQUEST, by the method under way.
    pub const USERAUTH_60: u8 = 60;
    pub const USERAUTH_INFO_RESPONSE: u8 = 61;
    pub const GLOBAL_REQUEST: u8 = 80;
    pub const REQUEST_SUCCESS: u8 = 81;
    pub const REQUEST_FAILURE: u8 = 82;
    pub const CHANNEL_OPEN: u8 = 90;
    pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub const CHANNEL_DATA: u8 = 94;
    pub const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub const CHANNEL_EOF: u8 = 96;
    pub const CHANNEL_CLOSE: u8 = 97;
    pub const CHANNEL_REQUEST: u8 = 98;
    pub const CHANNEL_SUCCESS: u8 = 99;
    pub const CHANNEL_FAILURE: u8 = 100;
    pub const PING: u8 = 192;
    pub const PONG: u8 = 193;
}

/// A message: its number and its fields.
pub trait Message<'a>: Sized {
    /// The message number.
    const NUMBER: u8;

    /// Parses the fields behind the number.
    fn parse(fields: &'a [u8]) -> IResult<'a, Self>;

    /// Writes the fields behind the number.
    fn write(&self, out: &mut impl BufMut);

    /// Decodes a whole payload.
    ///
    /// # Errors
    /// [`DecodeError`], also for another number and for bytes behind the last field.
    fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        match payload.split_first() {
            Some((&number, fields)) if number == Self::NUMBER => decode::all(fields, Self::parse),
            Some(_) => Err(DecodeError::BadValue),
            None => Err(DecodeError::Short),
        }
    }

    /// Encodes the whole payload.
    fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(Self::NUMBER);
        self.write(out);
    }
}

/// Defines messages whose fields are simply one after the other.
macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident $(<$life:lifetime>)? = $number:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = $parse:expr, $put:ident;)*
    })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name $(<$life>)? { $($(#[$field_meta])* pub $field: $type,)* }

        impl<'a> $crate::msg::Message<'a> for $name $(<$life>)? {
            const NUMBER: u8 = $crate::msg::number::$number;

            fn parse(fields: &'a [u8]) -> $crate::wire::decode::IResult<'a, Self> {
                $(let (fields, $field) = $parse(fields)?;)*
                Ok((fields, Self { $($field,)* }))
            }

            fn write(&self, out: &mut impl ::bytes::BufMut) {
                let _ = &out;
                $($crate::msg::messages!(@put out, self.$field, $put);)*
            }
        }
    )+};
    (@put $out:ident, $value:expr, put_text) => { $crate::wire::PutSsh::put_string($out, $value.as_bytes()) };
    (@put $out:ident, $value:expr, put_slice) => { ::bytes::BufMut::put_slice($out, $value) };
    (@put $out:ident, $value:expr, put_u32) => { ::bytes::BufMut::put_u32($out, $value) };
    (@put $out:ident, $value:expr, put_list) => {
        $crate::wire::PutSsh::put_string($out, $value.as_str().as_bytes())
    };
    (@put $out:ident, $value:expr, $put:ident) => { $crate::wire::PutSsh::$put($out, $value) };
}

pub(crate) use messages;

/// Limits on fields, in bytes.
pub(crate) mod limit {
    /// A user name.
    pub(crate) const USER: usize = 256;
    /// A service, method, algorithm, request or channel type name.
    pub(crate) const NAME: usize = 64;
    /// A password.
    pub(crate) const PASSWORD: usize = 1024;
    /// A host name or address in a channel open.
    pub(crate) const HOST: usize = 256;
    /// The terminal name of a `pty-req`.
    pub(crate) const TERM: usize = 64;
}
