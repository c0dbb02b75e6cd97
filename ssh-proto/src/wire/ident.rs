//! The identification exchange, [RFC 4253 §4.2].
//!
//! ```text
//!           ┌─ preamble line (client only) ─┐
//!   Reading ┴───────── "SSH-…" line ────────┴─▶ Ident | IdentError
//! ```
//!
//! The scan stops at the first byte that breaks a rule, so the verdict does not depend on how the bytes
//! were split.
//!
//! [RFC 4253 §4.2]: https://www.rfc-editor.org/rfc/rfc4253#section-4.2

use alloc::vec::Vec;

use bytes::{Buf, BytesMut};

use crate::error::PeerMisbehaved;
use crate::role::Side;

/// The longest identification line, CR LF included.
pub(crate) const MAX_IDENT: usize = 255;
/// The most lines a server may send before its identification.
pub(crate) const MAX_PREAMBLE_LINES: usize = 32;
/// The most bytes of all those lines.
pub(crate) const MAX_PREAMBLE: usize = 4096;

const PREFIX: &[u8] = b"SSH-";

/// A peer's identification line.
#[derive(Debug)]
pub(crate) struct Ident {
    /// The line without CR LF: what the exchange hash covers.
    pub(crate) line: Vec<u8>,
    /// Whether it announces protocol 2 (`2.0`, or `1.99` from a server that speaks both).
    pub(crate) supported: bool,
}

/// Reads the peer's lines up to its identification.
#[derive(Debug)]
pub(crate) struct IdentReader {
    side: Side,
    lines: usize,
    preamble: usize,
}

impl IdentReader {
    pub(crate) fn new(side: Side) -> Self {
        Self { side, lines: 0, preamble: 0 }
    }

    /// Takes whole lines off `buf` until the identification is there.
    pub(crate) fn read(&mut self, buf: &mut BytesMut) -> Result<Option<Ident>, PeerMisbehaved> {
        while let Some(end) = self.line_end(buf)? {
            let line = buf.get(..end).unwrap_or_default();
            let content = line.strip_suffix(b"\r").unwrap_or(line);
            if content.starts_with(PREFIX) {
                let ident = Ident { line: content.to_vec(), supported: supported(content, self.side) };
                buf.advance(end.saturating_add(1));
                return Ok(Some(ident));
            }
            self.lines = self.lines.saturating_add(1);
            self.preamble = self.preamble.saturating_add(end).saturating_add(1);
            buf.advance(end.saturating_add(1));
            if self.lines > MAX_PREAMBLE_LINES {
                return Err(PeerMisbehaved::PreambleTooLong);
            }
        }
        Ok(None)
    }

    /// The position of the first line's LF, or the first rule its bytes break.
    fn line_end(&self, buf: &[u8]) -> Result<Option<usize>, PeerMisbehaved> {
        let mut prefix = PREFIX.iter();
        let mut is_ident = true;
        let mut previous = 0;
        for (at, &byte) in buf.iter().enumerate() {
            if let Some(&expected) = prefix.next() {
                is_ident &= byte == expected;
                if !is_ident && self.side == Side::Server {
                    // A client has nothing to say before its identification: an HTTP request ends here.
                    return Err(PeerMisbehaved::IdentMissing);
                }
            }
            if byte == 0 || (previous == b'\r' && byte != b'\n') {
                return Err(PeerMisbehaved::IdentMalformed);
            }
            if is_ident && at >= MAX_IDENT {
                return Err(PeerMisbehaved::IdentTooLong);
            }
            if !is_ident && self.preamble.saturating_add(at) >= MAX_PREAMBLE {
                return Err(PeerMisbehaved::PreambleTooLong);
            }
            if byte == b'\n' {
                return Ok(Some(at));
            }
            previous = byte;
        }
        Ok(None)
    }
}

/// `SSH-2.0-…`, or `SSH-1.99-…` from a server (RFC 4253 §5.1).
fn supported(line: &[u8], side: Side) -> bool {
    let version = line.strip_prefix(PREFIX).unwrap_or_default();
    version.strip_prefix(b"2.0-").is_some()
        || (side == Side::Client && version.strip_prefix(b"1.99-").is_some())
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn read(side: Side, bytes: &[u8]) -> Result<Option<(Vec<u8>, bool)>, PeerMisbehaved> {
        let mut reader = IdentReader::new(side);
        let mut buf = BytesMut::from(bytes);
        reader.read(&mut buf).map(|ident| ident.map(|ident| (ident.line, ident.supported)))
    }

    /// One byte at a time; must agree with [`read`].
    fn read_slowly(side: Side, bytes: &[u8]) -> Result<Option<(Vec<u8>, bool)>, PeerMisbehaved> {
        let mut reader = IdentReader::new(side);
        let mut buf = BytesMut::new();
        for &byte in bytes {
            buf.extend_from_slice(&[byte]);
            if let Some(ident) = reader.read(&mut buf)? {
                return Ok(Some((ident.line, ident.supported)));
            }
        }
        Ok(None)
    }

    #[test]
    fn pk_14_identification_lines() {
        use PeerMisbehaved::*;
        use Side::{Client, Server};
        let long_ok = format!("SSH-2.0-{}\r\n", "x".repeat(245));
        let long = format!("SSH-2.0-{}\r\n", "x".repeat(246));
        let endless = "SSH-2.0-".to_owned() + &"x".repeat(300);
        let lines = "hello\r\n".repeat(32) + "SSH-2.0-a\r\n";
        let many = "hello\r\n".repeat(33);
        let big = "x".repeat(4097);
        let line = |text: &str, ok| Ok(Some((text.as_bytes().to_vec(), ok)));
        for (side, bytes, expected) in [
            (Server, "SSH-2.0-a\r\n", line("SSH-2.0-a", true)),
            (Server, "SSH-2.0-a\n", line("SSH-2.0-a", true)),
            (Server, "SSH-2.0-a with comment $ {\r\n", line("SSH-2.0-a with comment $ {", true)),
            (Server, "SSH-2.0-\r\n", line("SSH-2.0-", true)),
            (Server, "SSH-1.99-a\r\n", line("SSH-1.99-a", false)),
            (Client, "SSH-1.99-a\r\n", line("SSH-1.99-a", true)),
            (Client, "SSH-1.5-a\r\n", line("SSH-1.5-a", false)),
            (Client, "SSH-3.0-a\r\n", line("SSH-3.0-a", false)),
            (Client, "SSH-2.0\r\n", line("SSH-2.0", false)),
            (Server, "GET / HTTP/1.1\r\n", Err(IdentMissing)),
            (Server, "\r\nSSH-2.0-a\r\n", Err(IdentMissing)),
            (Server, "S", Ok(None)),
            (Client, "220 smtp\r\nSSH-2.0-a\r\n", line("SSH-2.0-a", true)),
            (Client, "S\nSSH-2.0-a\r\n", line("SSH-2.0-a", true)),
            (Server, "SSH-2.0-a\0\r\n", Err(IdentMalformed)),
            (Server, "SSH-2.0-a\rb\r\n", Err(IdentMalformed)),
            (Client, "he\0lo\r\n", Err(IdentMalformed)),
            (Server, &long_ok, line(long_ok.trim_end(), true)),
            (Server, &long, Err(IdentTooLong)),
            (Client, &endless, Err(IdentTooLong)),
            (Client, &lines, line("SSH-2.0-a", true)),
            (Client, &many, Err(PreambleTooLong)),
            (Client, &big, Err(PreambleTooLong)),
        ] {
            assert_eq!(read(side, bytes.as_bytes()), expected, "{side:?} {bytes:?}");
            assert_eq!(read_slowly(side, bytes.as_bytes()), expected, "slowly: {side:?} {bytes:?}");
        }
    }

    #[test]
    fn bytes_after_the_line_stay_in_the_buffer() {
        let mut buf = BytesMut::from(&b"SSH-2.0-a\r\n\0\0\0\x0c"[..]);
        let ident = IdentReader::new(Side::Server).read(&mut buf).unwrap().unwrap();
        assert_eq!(ident.line, b"SSH-2.0-a");
        assert_eq!(&buf[..], b"\0\0\0\x0c");
    }
}
