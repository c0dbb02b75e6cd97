//! Decoders, as nom parsers over a complete slice.
//!
//! Every length is checked against the bytes that are there before anything is done with it, and nothing
//! is copied: strings come back as slices of the input.

use core::fmt;

use nom::bytes::complete::take;
use nom::error::{ErrorKind, ParseError};
use nom::number::complete::{be_u8, be_u32, be_u64};

use super::name_list::NameList;

/// The longest `mpint` accepted, in bytes: 16384 bits and a sign byte (OpenSSH's `SSHBUF_MAX_BIGNUM`).
pub const MAX_MPINT: usize = 16384 / 8 + 1;

/// The result of a parser over SSH data.
pub type IResult<'a, T> = nom::IResult<&'a [u8], T, DecodeError>;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A field reaches beyond the end of the data.
    Short,
    /// Bytes are left over after the last field.
    Trailing,
    /// Text that must be UTF-8 is not.
    NotUtf8,
    /// A name-list is not made of printable ASCII names of 1 to 64 bytes, or has too many.
    BadNameList,
    /// An `mpint` is negative, over-long, or has needless leading zeros.
    BadMpint,
    /// A field exceeds its limit.
    TooLong,
    /// A value no version of the protocol defines.
    BadValue,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "a field reaches beyond the end",
            Self::Trailing => "bytes are left over after the last field",
            Self::NotUtf8 => "text is not UTF-8",
            Self::BadNameList => "malformed name-list",
            Self::BadMpint => "malformed mpint",
            Self::TooLong => "a field exceeds its limit",
            Self::BadValue => "undefined value",
        })
    }
}

impl core::error::Error for DecodeError {}

impl<'a> ParseError<&'a [u8]> for DecodeError {
    fn from_error_kind(_: &'a [u8], _: ErrorKind) -> Self {
        // The only nom primitives used are `take` and the fixed-width integers: they fail for want of bytes.
        Self::Short
    }

    fn append(_: &'a [u8], _: ErrorKind, first: Self) -> Self {
        first
    }
}

/// Ends a parser with an error of ours.
pub(crate) fn fail<'a, T>(error: DecodeError) -> IResult<'a, T> {
    Err(nom::Err::Failure(error))
}

/// Runs `parser` over the whole of `input`.
///
/// # Errors
/// The parser's own, or [`DecodeError::Trailing`] when it leaves bytes over.
pub fn all<'a, T>(
    input: &'a [u8],
    parser: impl FnOnce(&'a [u8]) -> IResult<'a, T>,
) -> Result<T, DecodeError> {
    match parser(input) {
        Ok(([], value)) => Ok(value),
        Ok(_) => Err(DecodeError::Trailing),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(error),
        Err(nom::Err::Incomplete(_)) => Err(DecodeError::Short),
    }
}

/// `byte`.
pub fn byte(input: &[u8]) -> IResult<'_, u8> {
    be_u8(input)
}

/// `boolean`: any value but zero is true.
pub fn boolean(input: &[u8]) -> IResult<'_, bool> {
    let (rest, value) = be_u8(input)?;
    Ok((rest, value != 0))
}

/// `uint32`.
pub fn uint32(input: &[u8]) -> IResult<'_, u32> {
    be_u32(input)
}

/// `uint64`.
pub fn uint64(input: &[u8]) -> IResult<'_, u64> {
    be_u64(input)
}

/// Exactly `N` bytes.
pub fn bytes<const N: usize>(input: &[u8]) -> IResult<'_, &[u8; N]> {
    match input.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((rest, head)),
        None => fail(DecodeError::Short),
    }
}

/// `string`: a `uint32` length and that many bytes.
pub fn string(input: &[u8]) -> IResult<'_, &[u8]> {
    let (rest, len) = be_u32(input)?;
    take(len)(rest)
}

/// A `string` of at most `max` bytes.
pub fn string_max(max: usize) -> impl Fn(&[u8]) -> IResult<'_, &[u8]> {
    move |input| {
        let (rest, value) = string(input)?;
        if value.len() > max { fail(DecodeError::TooLong) } else { Ok((rest, value)) }
    }
}

/// A `string` that must be UTF-8, of at most `max` bytes.
pub fn text_max(max: usize) -> impl Fn(&[u8]) -> IResult<'_, &str> {
    move |input| {
        let (rest, value) = string_max(max)(input)?;
        match core::str::from_utf8(value) {
            Ok(text) => Ok((rest, text)),
            Err(_) => fail(DecodeError::NotUtf8),
        }
    }
}

/// Everything that is left.
pub fn rest(input: &[u8]) -> IResult<'_, &[u8]> {
    Ok((&[], input))
}

/// `mpint` of a non-negative number, as its big-endian bytes without leading zeros (zero is empty).
///
/// Negative numbers, needless leading zeros and more than [`MAX_MPINT`] bytes are refused: no field of the
/// protocol needs them.
pub fn mpint(input: &[u8]) -> IResult<'_, &[u8]> {
    let (rest, value) = string(input)?;
    if value.len() > MAX_MPINT {
        return fail(DecodeError::BadMpint);
    }
    let number = match value {
        [] => value,
        [0, tail @ ..] => match tail {
            [first, ..] if *first >= 0x80 => tail,
            _ => return fail(DecodeError::BadMpint),
        },
        [first, ..] if *first >= 0x80 => return fail(DecodeError::BadMpint),
        _ => value,
    };
    Ok((rest, number))
}

/// `name-list`, checked as [`NameList::parse`] does.
pub fn name_list(input: &[u8]) -> IResult<'_, NameList<'_>> {
    let (rest, value) = string(input)?;
    match NameList::parse(value) {
        Ok(list) => Ok((rest, list)),
        Err(error) => fail(error),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::PutSsh;

    #[test]
    fn mpints_of_rfc_4251_section_5() {
        for (wire, number) in [
            (&[0u8, 0, 0, 0][..], &[][..]),
            (
                &[0, 0, 0, 8, 0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
                &[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
            ),
            (&[0, 0, 0, 2, 0x00, 0x80], &[0x80]),
        ] {
            assert_eq!(all(wire, mpint), Ok(number));
            let mut out = Vec::new();
            out.put_mpint(number);
            assert_eq!(out, wire);
        }
    }

    #[test]
    fn mpints_that_are_negative_or_padded_are_refused() {
        for wire in [
            &[0u8, 0, 0, 2, 0xed, 0xcc][..],
            &[0, 0, 0, 1, 0x00],
            &[0, 0, 0, 2, 0x00, 0x7f],
            &[0, 0, 0, 3, 0x00, 0x00, 0x80],
        ] {
            assert_eq!(all(wire, mpint), Err(DecodeError::BadMpint), "{wire:x?}");
        }
    }

    #[test]
    fn pk_08_a_length_beyond_the_end_is_short_whatever_it_claims() {
        for len in [1u32, 2, 0x7fff_ffff, u32::MAX] {
            let mut wire = len.to_be_bytes().to_vec();
            assert_eq!(all(&wire, string), Err(DecodeError::Short));
            wire.pop();
            assert_eq!(all(&wire, string), Err(DecodeError::Short));
        }
    }

    proptest! {
        #[test]
        fn l8_a_number_survives_the_round_trip(number: Vec<u8>) {
            let mut wire = Vec::new();
            wire.put_mpint(&number);
            let zeros = number.iter().take_while(|&&byte| byte == 0).count();
            prop_assert_eq!(all(&wire, mpint), Ok(&number[zeros..]));
        }

        #[test]
        fn l8_every_proper_prefix_of_a_string_is_short(value: Vec<u8>) {
            let mut wire = Vec::new();
            wire.put_string(&value);
            prop_assert_eq!(all(&wire, string), Ok(&value[..]));
            for end in 0..wire.len() {
                prop_assert_eq!(all(&wire[..end], string), Err(DecodeError::Short));
            }
        }

        #[test]
        fn l8_no_decoder_panics(data: Vec<u8>) {
            let _ = all(&data, mpint);
            let _ = all(&data, name_list);
            let _ = all(&data, text_max(16));
            let _ = all(&data, bytes::<16>);
        }
    }
}
