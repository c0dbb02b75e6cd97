//! Connection messages, RFC 4254.

use super::{limit, messages};
use crate::wire::decode::{boolean, rest, string, string_max, uint32};

/// `SSH_EXTENDED_DATA_STDERR`.
pub const EXTENDED_DATA_STDERR: u32 = 1;

messages! {
    /// `SSH_MSG_GLOBAL_REQUEST`, RFC 4254 §4.
    GlobalRequest<'a> = GLOBAL_REQUEST {
        /// The request's name.
        name: &'a [u8] = string_max(limit::NAME), put_string;
        /// Whether an answer is wanted.
        want_reply: bool = boolean, put_bool;
        /// Request-specific fields.
        data: &'a [u8] = rest, put_slice;
    }

    /// `SSH_MSG_REQUEST_SUCCESS`.
    RequestSuccess<'a> = REQUEST_SUCCESS {
        /// Request-specific fields.
        data: &'a [u8] = rest, put_slice;
    }

    /// `SSH_MSG_REQUEST_FAILURE`.
    RequestFailure = REQUEST_FAILURE {}

    /// `SSH_MSG_CHANNEL_OPEN`, RFC 4254 §5.1.
    ChannelOpen<'a> = CHANNEL_OPEN {
        /// The channel type.
        kind: &'a [u8] = string_max(limit::NAME), put_string;
        /// The sender's number for the channel.
        sender: u32 = uint32, put_u32;
        /// The sender's initial receive window, in bytes.
        window: u32 = uint32, put_u32;
        /// The most data the sender takes in one message, in bytes.
        max_packet: u32 = uint32, put_u32;
        /// Type-specific fields.
        data: &'a [u8] = rest, put_slice;
    }

    /// `SSH_MSG_CHANNEL_OPEN_CONFIRMATION`.
    ChannelOpenConfirmation<'a> = CHANNEL_OPEN_CONFIRMATION {
        /// The number the receiver gave in its open.
        recipient: u32 = uint32, put_u32;
        /// The sender's number.
        sender: u32 = uint32, put_u32;
        /// The sender's initial receive window, in bytes.
        window: u32 = uint32, put_u32;
        /// The most data the sender takes in one message, in bytes.
        max_packet: u32 = uint32, put_u32;
        /// Type-specific fields.
        data: &'a [u8] = rest, put_slice;
    }

    /// `SSH_MSG_CHANNEL_OPEN_FAILURE`.
    ChannelOpenFailure<'a> = CHANNEL_OPEN_FAILURE {
        /// The number the receiver gave in its open.
        recipient: u32 = uint32, put_u32;
        /// The reason code.
        code: u32 = uint32, put_u32;
        /// Text for people.
        description: &'a [u8] = string, put_string;
        /// Its language tag.
        language: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_CHANNEL_WINDOW_ADJUST`, RFC 4254 §5.2.
    ChannelWindowAdjust = CHANNEL_WINDOW_ADJUST {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
        /// Bytes to add to the window.
        bytes: u32 = uint32, put_u32;
    }

    /// `SSH_MSG_CHANNEL_DATA`.
    ChannelData<'a> = CHANNEL_DATA {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
        /// The data.
        data: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_CHANNEL_EXTENDED_DATA`.
    ChannelExtendedData<'a> = CHANNEL_EXTENDED_DATA {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
        /// The kind of data; only [`EXTENDED_DATA_STDERR`] is defined.
        code: u32 = uint32, put_u32;
        /// The data.
        data: &'a [u8] = string, put_string;
    }

    /// `SSH_MSG_CHANNEL_EOF`, RFC 4254 §5.3.
    ChannelEof = CHANNEL_EOF {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
    }

    /// `SSH_MSG_CHANNEL_CLOSE`.
    ChannelClose = CHANNEL_CLOSE {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
    }

    /// `SSH_MSG_CHANNEL_REQUEST`, RFC 4254 §5.4.
    ChannelRequest<'a> = CHANNEL_REQUEST {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
        /// The request's name.
        name: &'a [u8] = string_max(limit::NAME), put_string;
        /// Whether an answer is wanted.
        want_reply: bool = boolean, put_bool;
        /// Request-specific fields.
        data: &'a [u8] = rest, put_slice;
    }

    /// `SSH_MSG_CHANNEL_SUCCESS`.
    ChannelSuccess = CHANNEL_SUCCESS {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
    }

    /// `SSH_MSG_CHANNEL_FAILURE`.
    ChannelFailure = CHANNEL_FAILURE {
        /// The receiver's number.
        recipient: u32 = uint32, put_u32;
    }
}
