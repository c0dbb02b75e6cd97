//! Channel types and requests with their type-specific fields, RFC 4254 §6–§7, RFC 4335.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::BufMut;

use super::limit;
use crate::role::Side;
use crate::text::{Name, PeerText};
use crate::wire::PutSsh;
use crate::wire::decode::{self, DecodeError, IResult, boolean, fail, string, string_max, text_max, uint32};

/// The most terminal modes in one `pty-req`.
pub const MAX_TERMINAL_MODES: usize = 256;

/// What a channel is for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelKind {
    /// `session`: a program at the server (RFC 4254 §6.1).
    Session,
    /// `direct-tcpip`: a connection the server makes (RFC 4254 §7.2).
    DirectTcpip {
        /// The host to connect to.
        host: Name,
        /// The port to connect to.
        port: u16,
        /// Where the connection came from.
        originator: Name,
        /// The port it came from.
        originator_port: u16,
    },
    /// A type without a variant of its own.
    Other {
        /// The channel type.
        name: Name,
        /// Its type-specific fields, as they travel.
        data: Vec<u8>,
    },
}

impl ChannelKind {
    /// The channel type's name.
    pub fn name(&self) -> Name {
        self.wire_name().into()
    }

    /// The name as it travels.
    pub(crate) fn wire_name(&self) -> &str {
        match self {
            Self::Session => "session",
            Self::DirectTcpip { .. } => "direct-tcpip",
            Self::Other { name, .. } => name.as_str(),
        }
    }

    /// Whose rules requests on such a channel follow, at this side of it. What counts is the name: a session is
    /// one in whatever variant.
    pub(crate) fn rules(&self, side: Side) -> Rules {
        match self.wire_name() {
            "session" => Rules::Session(side),
            "direct-tcpip" => Rules::Tcpip,
            _ => Rules::Embedder,
        }
    }

    /// Reads a type and its fields.
    ///
    /// # Errors
    /// [`DecodeError`]; a port above 65535 is [`DecodeError::BadValue`].
    pub fn decode(name: &[u8], data: &[u8]) -> Result<Self, DecodeError> {
        match name {
            b"session" => decode::all(data, |input| Ok((input, Self::Session))),
            b"direct-tcpip" => decode::all(data, |input| {
                let (input, host) = text_max(limit::HOST)(input)?;
                let (input, port) = port(input)?;
                let (input, originator) = text_max(limit::HOST)(input)?;
                let (input, originator_port) = port_lenient(input)?;
                let (host, originator) = (host.into(), originator.into());
                Ok((input, Self::DirectTcpip { host, port, originator, originator_port }))
            }),
            name => Ok(Self::Other {
                name: core::str::from_utf8(name).map_err(|_| DecodeError::NotUtf8)?.into(),
                data: data.to_vec(),
            }),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Self::Session => 0,
            Self::DirectTcpip { host, originator, .. } => host.len().saturating_add(originator.len()),
            Self::Other { name, data } => name.len().saturating_add(data.len()),
        }
    }

    /// Writes the type-specific fields.
    pub fn encode_data(&self, out: &mut impl BufMut) {
        match self {
            Self::Session => {}
            Self::DirectTcpip { host, port, originator, originator_port } => {
                out.put_string(host.as_bytes());
                out.put_u32(u32::from(*port));
                out.put_string(originator.as_bytes());
                out.put_u32(u32::from(*originator_port));
            }
            Self::Other { data, .. } => out.put_slice(data),
        }
    }
}

fn port(input: &[u8]) -> IResult<'_, u16> {
    let (input, port) = uint32(input)?;
    match u16::try_from(port) {
        Ok(port) => Ok((input, port)),
        Err(_) => fail(DecodeError::BadValue),
    }
}

/// The originator's port is information only, and peers put odd values there.
fn port_lenient(input: &[u8]) -> IResult<'_, u16> {
    let (input, port) = uint32(input)?;
    Ok((input, u16::try_from(port).unwrap_or(0)))
}

/// What may be asked on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Those of a session: each request is for one side of it. The client is who opened it, whatever the side of
    /// the connection (RFC 4254 §6).
    Session(Side),
    /// Nothing that starts or steers a program.
    Tcpip,
    /// A channel type of the embedder's own, who alone knows what a request on it means.
    Embedder,
}

impl Rules {
    /// Whether our side may be asked this.
    pub(crate) fn admit(self, kind: &ChannelRequestKind) -> bool {
        match (self, kind.asked_of()) {
            (Self::Embedder, _) | (_, None) => true,
            (Self::Session(ours), Some(side)) => ours == side,
            (Self::Tcpip, Some(_)) => false,
        }
    }
}

/// Why an open was refused, RFC 4254 §5.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFailure {
    /// The reason code.
    pub code: OpenFailureCode,
    /// Text for people.
    pub description: PeerText,
}

impl OpenFailure {
    /// A refusal with this code and text.
    pub fn new(code: OpenFailureCode, description: &str) -> Self {
        Self { code, description: PeerText::new(description.as_bytes()) }
    }
}

/// A reason code of SSH_MSG_CHANNEL_OPEN_FAILURE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpenFailureCode(pub u32);

impl OpenFailureCode {
    /// The policy forbids it.
    pub const ADMINISTRATIVELY_PROHIBITED: Self = Self(1);
    /// The connection behind it could not be made.
    pub const CONNECT_FAILED: Self = Self(2);
    /// The channel type is unknown.
    pub const UNKNOWN_CHANNEL_TYPE: Self = Self(3);
    /// No resources left for it.
    pub const RESOURCE_SHORTAGE: Self = Self(4);
}

/// A terminal's size, RFC 4254 §6.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Width in characters.
    pub columns: u32,
    /// Height in rows.
    pub rows: u32,
    /// Width in pixels, or 0.
    pub width: u32,
    /// Height in pixels, or 0.
    pub height: u32,
}

fn window_size(input: &[u8]) -> IResult<'_, WindowSize> {
    let (input, columns) = uint32(input)?;
    let (input, rows) = uint32(input)?;
    let (input, width) = uint32(input)?;
    let (input, height) = uint32(input)?;
    Ok((input, WindowSize { columns, rows, width, height }))
}

fn put_window_size(size: &WindowSize, out: &mut impl BufMut) {
    for value in [size.columns, size.rows, size.width, size.height] {
        out.put_u32(value);
    }
}

/// Encoded terminal modes, RFC 4254 §8: opcode and argument, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TerminalModes(Vec<(u8, u32)>);

impl TerminalModes {
    /// Modes in this order; anything past [`MAX_TERMINAL_MODES`] and opcodes outside of 1–159 are left out.
    pub fn new(modes: impl IntoIterator<Item = (u8, u32)>) -> Self {
        let known = modes.into_iter().filter(|(opcode, _)| (1..=159).contains(opcode));
        Self(known.take(MAX_TERMINAL_MODES).collect())
    }

    /// The modes: opcode, argument.
    pub fn iter(&self) -> impl Iterator<Item = (u8, u32)> {
        self.0.iter().copied()
    }

    /// Reads a mode string. It ends at TTY_OP_END, at an opcode above 159, or with its bytes.
    fn decode(mut input: &[u8]) -> Result<Self, DecodeError> {
        let mut modes = Vec::new();
        while let Some((&opcode @ 1..=159, rest)) = input.split_first() {
            let Some((argument, rest)) = rest.split_first_chunk::<4>() else {
                return Err(DecodeError::Short);
            };
            if modes.len() == MAX_TERMINAL_MODES {
                return Err(DecodeError::TooLong);
            }
            modes.push((opcode, u32::from_be_bytes(*argument)));
            input = rest;
        }
        Ok(Self(modes))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len().saturating_mul(5).saturating_add(1));
        for (opcode, argument) in &self.0 {
            out.put_u8(*opcode);
            out.put_u32(*argument);
        }
        out.put_u8(0);
        out
    }
}

/// How a remote program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// `exit-status`: it returned this.
    Code(u32),
    /// `exit-signal`: a signal ended it.
    Signal {
        /// The signal's name without `SIG`, such as `KILL`.
        name: PeerText,
        /// Whether it dumped core.
        core_dumped: bool,
        /// Text for people.
        message: PeerText,
    },
}

impl ExitStatus {
    /// Bytes on the heap.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Self::Code(_) => 0,
            Self::Signal { name, message, .. } => {
                name.as_bytes().len().saturating_add(message.as_bytes().len())
            }
        }
    }
}

/// A request on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelRequestKind {
    /// `pty-req`.
    Pty {
        /// The terminal type, TERM.
        term: Name,
        /// Its size.
        size: WindowSize,
        /// Its modes.
        modes: TerminalModes,
    },
    /// `window-change`.
    WindowChange(WindowSize),
    /// `env`.
    Env {
        /// The variable's name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// `shell`.
    Shell,
    /// `exec`: the command line.
    Exec(Vec<u8>),
    /// `subsystem`: its name.
    Subsystem(Name),
    /// `signal`: its name without `SIG`.
    Signal(Name),
    /// `exit-status` or `exit-signal`.
    Exit(ExitStatus),
    /// `xon-xoff`: whether the client may do flow control itself.
    XonXoff(bool),
    /// `break`, RFC 4335: its length.
    Break(Duration),
    /// A request without a variant of its own.
    Other {
        /// The request's name.
        name: Name,
        /// Its fields, as they travel.
        data: Vec<u8>,
    },
}

impl ChannelRequestKind {
    /// `exec` of a command line.
    pub fn exec(command: impl AsRef<[u8]>) -> Self {
        Self::Exec(command.as_ref().to_vec())
    }

    /// `env` of a variable.
    pub fn env(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Self::Env { name: name.as_ref().to_vec(), value: value.as_ref().to_vec() }
    }

    /// The request's name.
    pub fn name(&self) -> Name {
        self.wire_name().into()
    }

    /// The name as it travels.
    pub(crate) fn wire_name(&self) -> &str {
        match self {
            Self::Pty { .. } => "pty-req",
            Self::WindowChange(_) => "window-change",
            Self::Env { .. } => "env",
            Self::Shell => "shell",
            Self::Exec(_) => "exec",
            Self::Subsystem(_) => "subsystem",
            Self::Signal(_) => "signal",
            Self::Exit(ExitStatus::Code(_)) => "exit-status",
            Self::Exit(ExitStatus::Signal { .. }) => "exit-signal",
            Self::XonXoff(_) => "xon-xoff",
            Self::Break(_) => "break",
            Self::Other { name, .. } => name.as_str(),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Self::Pty { term, modes, .. } => {
                modes.0.capacity().saturating_mul(size_of::<(u8, u32)>()).saturating_add(term.len())
            }
            Self::Env { name, value } => name.len().saturating_add(value.len()),
            Self::Exec(command) => command.len(),
            Self::Subsystem(name) | Self::Signal(name) => name.len(),
            Self::Exit(status) => status.heap_size(),
            Self::Other { name, data } => name.len().saturating_add(data.len()),
            Self::WindowChange(_) | Self::Shell | Self::XonXoff(_) | Self::Break(_) => 0,
        }
    }

    /// Whether it starts the session's one program (RFC 4254 §6.5).
    pub fn starts_program(&self) -> bool {
        matches!(self, Self::Shell | Self::Exec(_) | Self::Subsystem(_))
    }

    /// The side of a session it is a request to; `None` when it may be made to anybody on any channel.
    fn asked_of(&self) -> Option<Side> {
        match self {
            Self::Pty { .. } | Self::Env { .. } | Self::Shell | Self::Exec(_) | Self::Subsystem(_) => {
                Some(Side::Server)
            }
            Self::WindowChange(_) | Self::Signal(_) | Self::Break(_) => Some(Side::Server),
            Self::Exit(_) | Self::XonXoff(_) => Some(Side::Client),
            Self::Other { .. } => None,
        }
    }

    /// Reads a request's fields. Names without a variant keep their fields unread.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(name: &[u8], data: &[u8]) -> Result<Self, DecodeError> {
        decode::all(data, |input| {
            Ok(match name {
                b"pty-req" => {
                    let (input, term) = text_max(limit::TERM)(input)?;
                    let (input, size) = window_size(input)?;
                    let (input, modes) = string(input)?;
                    match TerminalModes::decode(modes) {
                        Ok(modes) => (input, Self::Pty { term: term.into(), size, modes }),
                        Err(error) => return fail(error),
                    }
                }
                b"window-change" => {
                    window_size(input).map(|(input, size)| (input, Self::WindowChange(size)))?
                }
                b"env" => {
                    let (input, name) = string(input)?;
                    let (input, value) = string(input)?;
                    (input, Self::env(name, value))
                }
                b"shell" => (input, Self::Shell),
                b"exec" => string(input).map(|(input, command)| (input, Self::exec(command)))?,
                b"subsystem" => {
                    text_max(limit::HOST)(input).map(|(input, name)| (input, Self::Subsystem(name.into())))?
                }
                b"signal" => {
                    text_max(limit::NAME)(input).map(|(input, name)| (input, Self::Signal(name.into())))?
                }
                b"exit-status" => {
                    uint32(input).map(|(input, code)| (input, Self::Exit(ExitStatus::Code(code))))?
                }
                b"exit-signal" => {
                    let (input, name) = string_max(limit::NAME)(input)?;
                    let (input, core_dumped) = boolean(input)?;
                    let (input, message) = string(input)?;
                    let (input, _language) = string(input)?;
                    let (name, message) = (PeerText::new(name), PeerText::new(message));
                    (input, Self::Exit(ExitStatus::Signal { name, core_dumped, message }))
                }
                b"xon-xoff" => boolean(input).map(|(input, can_do)| (input, Self::XonXoff(can_do)))?,
                b"break" => uint32(input)
                    .map(|(input, ms)| (input, Self::Break(Duration::from_millis(u64::from(ms)))))?,
                name => match core::str::from_utf8(name) {
                    Ok(name) => (&[][..], Self::Other { name: name.into(), data: input.to_vec() }),
                    Err(_) => return fail(DecodeError::NotUtf8),
                },
            })
        })
    }

    /// Writes the request's fields.
    pub fn encode_data(&self, out: &mut impl BufMut) {
        match self {
            Self::Pty { term, size, modes } => {
                out.put_string(term.as_bytes());
                put_window_size(size, out);
                out.put_string(&modes.encode());
            }
            Self::WindowChange(size) => put_window_size(size, out),
            Self::Env { name, value } => {
                out.put_string(name);
                out.put_string(value);
            }
            Self::Shell => {}
            Self::Exec(command) => out.put_string(command),
            Self::Subsystem(name) | Self::Signal(name) => out.put_string(name.as_bytes()),
            Self::Exit(ExitStatus::Code(code)) => out.put_u32(*code),
            Self::Exit(ExitStatus::Signal { name, core_dumped, message }) => {
                out.put_string(name.as_bytes());
                out.put_bool(*core_dumped);
                out.put_string(message.as_bytes());
                out.put_string(b"");
            }
            Self::XonXoff(can_do) => out.put_bool(*can_do),
            Self::Break(length) => out.put_u32(u32::try_from(length.as_millis()).unwrap_or(u32::MAX)),
            Self::Other { data, .. } => out.put_slice(data),
        }
    }
}

/// A request to the connection as a whole, RFC 4254 §4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalRequestKind {
    /// The request's name.
    pub name: Name,
    /// Its fields, as they travel.
    pub data: Vec<u8>,
}

/// The answer to a global request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlobalReply<'a> {
    /// SSH_MSG_REQUEST_SUCCESS with request-specific fields.
    Success(&'a [u8]),
    /// SSH_MSG_REQUEST_FAILURE.
    Failure,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(kind: ChannelRequestKind) {
        let mut data = Vec::new();
        kind.encode_data(&mut data);
        assert_eq!(ChannelRequestKind::decode(kind.name().as_bytes(), &data), Ok(kind.clone()));
        if !matches!(kind, ChannelRequestKind::Other { .. }) {
            for end in 0..data.len() {
                let cut = ChannelRequestKind::decode(kind.name().as_bytes(), &data[..end]);
                assert_eq!(cut, Err(DecodeError::Short), "{kind:?} cut at {end}");
            }
            data.push(0);
            let long = ChannelRequestKind::decode(kind.name().as_bytes(), &data);
            assert_eq!(long, Err(DecodeError::Trailing), "{kind:?}");
        }
    }

    #[test]
    fn ch_15_every_request_decodes_what_it_encodes_and_nothing_shorter_or_longer() {
        let size = WindowSize { columns: 80, rows: 24, width: 640, height: 480 };
        let modes = TerminalModes::new([(53, 1), (128, 38400)]);
        round_trip(ChannelRequestKind::Pty { term: "xterm".into(), size, modes });
        round_trip(ChannelRequestKind::WindowChange(size));
        round_trip(ChannelRequestKind::env("LANG", "C"));
        round_trip(ChannelRequestKind::Shell);
        round_trip(ChannelRequestKind::exec("true"));
        round_trip(ChannelRequestKind::Subsystem("sftp".into()));
        round_trip(ChannelRequestKind::Signal("TERM".into()));
        round_trip(ChannelRequestKind::Exit(ExitStatus::Code(7)));
        let name = PeerText::new(b"KILL");
        let message = PeerText::new(b"killed");
        round_trip(ChannelRequestKind::Exit(ExitStatus::Signal { name, core_dumped: true, message }));
        round_trip(ChannelRequestKind::XonXoff(true));
        round_trip(ChannelRequestKind::Break(Duration::from_millis(500)));
        round_trip(ChannelRequestKind::Other { name: "eow@openssh.com".into(), data: b"x".to_vec() });
    }

    #[test]
    fn ch_15_mode_strings_end_where_rfc_4254_section_8_says() {
        assert_eq!(TerminalModes::decode(b""), Ok(TerminalModes::default()));
        assert_eq!(TerminalModes::decode(b"\0trailing"), Ok(TerminalModes::default()));
        assert_eq!(TerminalModes::decode(b"\x35\0\0\0\x01"), Ok(TerminalModes::new([(0x35, 1)])));
        assert_eq!(TerminalModes::decode(b"\xa0\0\0\0\x01"), Ok(TerminalModes::default()));
        assert_eq!(TerminalModes::decode(b"\x35\0\0\0"), Err(DecodeError::Short));
        assert_eq!(TerminalModes::decode(&b"\x01\0\0\0\0".repeat(257)), Err(DecodeError::TooLong));
    }

    #[test]
    fn ch_13_a_port_above_65535_is_refused() {
        let mut data = Vec::new();
        data.put_string(b"host");
        data.put_u32(65536);
        data.put_string(b"");
        data.put_u32(0);
        assert_eq!(ChannelKind::decode(b"direct-tcpip", &data), Err(DecodeError::BadValue));
    }

    proptest! {
        #[test]
        fn l8_no_request_decoder_panics(name in "[a-z-]{1,14}", data: Vec<u8>) {
            for name in [&name[..], "pty-req", "exit-signal", "env", "window-change", "signal", "exec"] {
                let _ = ChannelRequestKind::decode(name.as_bytes(), &data);
                let _ = ChannelKind::decode(b"direct-tcpip", &data);
            }
        }
    }
}
