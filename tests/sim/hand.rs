//! Messages by hand: what a side that misbehaves sends.
//!
//! `send_raw` puts any payload into a proper packet, in whatever state the connection is.

use bytes::BufMut;
use ssh_proto::raw::channel::{
    ChannelClose, ChannelData, ChannelEof, ChannelExtendedData, ChannelOpen, ChannelOpenConfirmation,
    ChannelRequest, ChannelWindowAdjust, GlobalRequest,
};
use ssh_proto::raw::transport::{Debug, Disconnect, Ignore, Ping};
use ssh_proto::raw::{Message, number};
use ssh_proto::wire::PutSsh;

/// A whole message.
pub fn encode<'a>(message: &impl Message<'a>) -> Vec<u8> {
    let mut payload = Vec::new();
    message.encode(&mut payload);
    payload
}

/// CHANNEL_OPEN of a session.
pub fn open(sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    open_as(b"session", sender, window, max_packet)
}

/// CHANNEL_OPEN of this type, without fields of its own.
pub fn open_as(kind: &[u8], sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    encode(&ChannelOpen { kind, sender, window, max_packet, data: b"" })
}

/// CHANNEL_OPEN_CONFIRMATION.
pub fn confirmation(recipient: u32, sender: u32, window: u32, max_packet: u32) -> Vec<u8> {
    encode(&ChannelOpenConfirmation { recipient, sender, window, max_packet, data: b"" })
}

/// CHANNEL_DATA.
pub fn data(recipient: u32, data: &[u8]) -> Vec<u8> {
    encode(&ChannelData { recipient, data })
}

/// CHANNEL_EXTENDED_DATA of this type.
pub fn extended(recipient: u32, code: u32, data: &[u8]) -> Vec<u8> {
    encode(&ChannelExtendedData { recipient, code, data })
}

/// CHANNEL_WINDOW_ADJUST.
pub fn adjust(recipient: u32, bytes: u32) -> Vec<u8> {
    encode(&ChannelWindowAdjust { recipient, bytes })
}

/// CHANNEL_EOF.
pub fn eof(recipient: u32) -> Vec<u8> {
    encode(&ChannelEof { recipient })
}

/// CHANNEL_CLOSE.
pub fn close(recipient: u32) -> Vec<u8> {
    encode(&ChannelClose { recipient })
}

/// CHANNEL_REQUEST.
pub fn request(recipient: u32, name: &str, want_reply: bool, data: &[u8]) -> Vec<u8> {
    encode(&ChannelRequest { recipient, name: name.as_bytes(), want_reply, data })
}

/// `exit-status`.
pub fn exit_status(recipient: u32, code: u32) -> Vec<u8> {
    request(recipient, "exit-status", false, &code.to_be_bytes())
}

/// `exit-signal` of TERM.
pub fn exit_signal(recipient: u32) -> Vec<u8> {
    let mut fields = Vec::new();
    fields.put_string(b"TERM");
    fields.put_bool(false);
    fields.put_string(b"");
    fields.put_string(b"");
    request(recipient, "exit-signal", false, &fields)
}

/// GLOBAL_REQUEST.
pub fn global(name: &str, want_reply: bool) -> Vec<u8> {
    encode(&GlobalRequest { name: name.as_bytes(), want_reply, data: b"" })
}

/// DISCONNECT.
pub fn disconnect(code: u32, description: &[u8]) -> Vec<u8> {
    encode(&Disconnect { code, description, language: b"" })
}

/// IGNORE.
pub fn ignore(len: usize) -> Vec<u8> {
    encode(&Ignore { data: &vec![0; len] })
}

/// DEBUG.
pub fn debug() -> Vec<u8> {
    encode(&Debug { always_display: false, message: b"", language: b"" })
}

/// PING.
pub fn ping(len: usize) -> Vec<u8> {
    encode(&Ping { data: &vec![b'p'; len] })
}

/// A payload of only its number.
pub fn bare(number: u8) -> Vec<u8> {
    vec![number]
}

/// A payload of its number and this many bytes.
pub fn filled(number: u8, len: usize) -> Vec<u8> {
    let mut payload = vec![number];
    payload.put_bytes(0x41, len);
    payload
}

/// A KEXINIT that offers only the null provider's algorithms; `kex` is the first list.
pub fn kexinit(kex: &str) -> Vec<u8> {
    let mut payload = vec![number::KEXINIT];
    payload.put_slice(&[9; 16]);
    let name = crate::null::NAME;
    for list in [kex, name, name, name, crate::null::MAC, crate::null::MAC, "none", "none", "", ""] {
        payload.put_string(list.as_bytes());
    }
    payload.put_bool(false);
    payload.put_u32(0);
    payload
}
