//! Encoders, as an extension of [`BufMut`].

use bytes::BufMut;

use crate::copy::append;

/// Writes the data types of RFC 4251 §5.
pub trait PutSsh: BufMut {
    /// `boolean`.
    fn put_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    /// `string`. Values are far below 4 GiB: every caller is bounded by the packet size.
    fn put_string(&mut self, value: &[u8]) {
        self.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        append(self, value);
    }

    /// `name-list`, from its names.
    fn put_names<'a>(&mut self, names: impl Iterator<Item = &'a str> + Clone) {
        let joined =
            names.clone().fold(0, |sum: usize, name| sum.saturating_add(name.len()).saturating_add(1));
        let joined = joined.saturating_sub(1);
        self.put_u32(u32::try_from(joined).unwrap_or(u32::MAX));
        for (position, name) in names.enumerate() {
            if position > 0 {
                self.put_u8(b',');
            }
            self.put_slice(name.as_bytes());
        }
    }

    /// `mpint` of a non-negative number given as big-endian bytes, leading zeros allowed.
    fn put_mpint(&mut self, number: &[u8]) {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        let digits = number.get(zeros..).unwrap_or_default();
        let sign = usize::from(digits.first().is_some_and(|&first| first >= 0x80));
        self.put_u32(u32::try_from(digits.len().saturating_add(sign)).unwrap_or(u32::MAX));
        if sign == 1 {
            self.put_u8(0);
        }
        self.put_slice(digits);
    }
}

impl<B: BufMut + ?Sized> PutSsh for B {}
