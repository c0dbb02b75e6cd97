//! Why a connection ended, what the peer broke, and what the embedder got wrong.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::text::PeerText;
use crate::timer::TimeoutReason;

/// A disconnect reason code, [RFC 4253 §11.1].
///
/// [RFC 4253 §11.1]: https://www.rfc-editor.org/rfc/rfc4253#section-11.1
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DisconnectCode(pub u32);

#[allow(missing_docs, reason = "RFC 4253 §11.1 names them")]
impl DisconnectCode {
    pub const HOST_NOT_ALLOWED_TO_CONNECT: Self = Self(1);
    pub const PROTOCOL_ERROR: Self = Self(2);
    pub const KEY_EXCHANGE_FAILED: Self = Self(3);
    pub const MAC_ERROR: Self = Self(5);
    pub const COMPRESSION_ERROR: Self = Self(6);
    pub const SERVICE_NOT_AVAILABLE: Self = Self(7);
    pub const PROTOCOL_VERSION_NOT_SUPPORTED: Self = Self(8);
    pub const HOST_KEY_NOT_VERIFIABLE: Self = Self(9);
    pub const CONNECTION_LOST: Self = Self(10);
    pub const BY_APPLICATION: Self = Self(11);
    pub const TOO_MANY_CONNECTIONS: Self = Self(12);
    pub const AUTH_CANCELLED_BY_USER: Self = Self(13);
    pub const NO_MORE_AUTH_METHODS_AVAILABLE: Self = Self(14);
    pub const ILLEGAL_USER_NAME: Self = Self(15);
}

impl fmt::Display for DisconnectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "host not allowed to connect",
            2 => "protocol error",
            3 => "key exchange failed",
            5 => "MAC error",
            6 => "compression error",
            7 => "service not available",
            8 => "protocol version not supported",
            9 => "host key not verifiable",
            10 => "connection lost",
            11 => "by application",
            12 => "too many connections",
            13 => "authentication cancelled by user",
            14 => "no more authentication methods available",
            15 => "illegal user name",
            _ => return write!(f, "reason {}", self.0),
        };
        f.write_str(name)
    }
}

/// A DISCONNECT to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// The reason code.
    pub code: DisconnectCode,
    /// Text for the peer's log; at most 256 bytes of it are sent.
    pub description: String,
}

impl Disconnect {
    /// A DISCONNECT with this code and text.
    pub fn new(code: DisconnectCode, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }

    /// The ordinary end: reason 11, `BY_APPLICATION`.
    pub fn by_application() -> Self {
        Self::new(DisconnectCode::BY_APPLICATION, "disconnected by user")
    }
}

/// Why the connection is over. It comes once, as the last event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The embedder called `close`.
    Local(DisconnectCode),
    /// The peer sent DISCONNECT.
    PeerDisconnected {
        /// Its reason code.
        code: DisconnectCode,
        /// Its text.
        description: Box<PeerText>,
    },
    /// The transport ended without a DISCONNECT.
    Eof,
    /// The peer broke a rule.
    PeerMisbehaved {
        /// The rule.
        rule: PeerMisbehaved,
        /// The number of the message that broke it, when it was a message.
        message: Option<u8>,
    },
    /// The two ends have nothing in common.
    PeerIncompatible(Box<PeerIncompatible>),
    /// A deadline passed.
    TimedOut(TimeoutReason),
    /// The embedder rejected the host key, or dropped the question.
    HostKeyRejected,
    /// A host-key signature of ours was refused, or its ticket dropped.
    SignatureRefused,
    /// A host-key signature of ours, from a ticket or an own signer that [needs a check](crate::Signer::needs_check), does
    /// not verify. Nothing of it was sent: a wrong RSA signature can give the key away.
    SignatureInvalid,
    /// The embedder's random source failed.
    Entropy,
    /// A direction carried as many packets or bytes under one key as it may.
    KeyExhausted,
    /// A state that cannot be. Please report it.
    Internal(&'static str),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(code) => write!(f, "closed here: {code}"),
            Self::PeerDisconnected { code, description } if description.is_empty() => {
                write!(f, "the peer disconnected: {code}")
            }
            Self::PeerDisconnected { code, description } => {
                write!(f, "the peer disconnected: {code} ({description})")
            }
            Self::Eof => f.write_str("the transport ended"),
            Self::PeerMisbehaved { rule, message: Some(message) } => {
                write!(f, "the peer misbehaved: {rule} (message {message})")
            }
            Self::PeerMisbehaved { rule, message: None } => write!(f, "the peer misbehaved: {rule}"),
            Self::PeerIncompatible(why) => write!(f, "{why}"),
            Self::TimedOut(reason) => write!(f, "timed out: {reason}"),
            Self::HostKeyRejected => f.write_str("the host key was rejected"),
            Self::SignatureRefused => f.write_str("the host key's signer refused"),
            Self::SignatureInvalid => {
                f.write_str("the host key's signer gave a signature that does not verify")
            }
            Self::Entropy => f.write_str("the random source failed"),
            Self::KeyExhausted => f.write_str("a key carried all it may before a new one was agreed"),
            Self::Internal(what) => write!(f, "internal error: {what}"),
        }
    }
}

impl core::error::Error for CloseReason {}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:ident, $text:literal;)+) => {
        /// A rule of the protocol, or a limit, that the peer broke. One variant per rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum PeerMisbehaved {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl PeerMisbehaved {
            /// Every rule, for tests that must provoke each.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason code of the DISCONNECT it is answered with; `None` before the version exchange.
            pub fn disconnect_code(self) -> Option<DisconnectCode> {
                match self {
                    $(Self::$variant => rules!(@code $code),)+
                }
            }
        }

        impl fmt::Display for PeerMisbehaved {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
    (@code NONE) => { None };
    (@code $code:ident) => { Some(DisconnectCode::$code) };
}

rules! {
    /// A server's client must begin with its identification line (RFC 4253 §4.2).
    IdentMissing = NONE, "no SSH identification line";
    /// An identification line has at most 255 bytes (RFC 4253 §4.2).
    IdentTooLong = NONE, "identification line too long";
    /// No NUL, and no CR without LF, in the lines of the version exchange.
    IdentMalformed = NONE, "malformed identification line";
    /// Lines before a server's identification are bounded.
    PreambleTooLong = NONE, "too much text before the identification line";
    /// `packet_length` is at least 5 and leaves room for padding and a payload (RFC 4253 §6).
    PacketTooShort = PROTOCOL_ERROR, "packet too short";
    /// `packet_length` is bounded.
    PacketTooLong = PROTOCOL_ERROR, "packet too long";
    /// A packet is a multiple of the cipher's block (RFC 4253 §6).
    PacketMisaligned = PROTOCOL_ERROR, "packet is not a multiple of the block size";
    /// At least four bytes of padding, and no more than the packet holds (RFC 4253 §6).
    BadPadding = PROTOCOL_ERROR, "bad padding length";
    /// A payload has at least its message number.
    EmptyPayload = PROTOCOL_ERROR, "empty payload";
    /// The tag of every packet verifies (RFC 4253 §6.4).
    BadMac = MAC_ERROR, "message authentication failed";
    /// The message is not legal in this state.
    UnexpectedMessage = PROTOCOL_ERROR, "message not allowed in this state";
    /// The message's fields are not what its number says.
    MalformedMessage = PROTOCOL_ERROR, "malformed message";
    /// Under strict key exchange the first packet is KEXINIT.
    KexInitNotFirst = PROTOCOL_ERROR, "strict key exchange: KEXINIT was not the first packet";
    /// A KEXINIT is bounded.
    KexInitTooLong = PROTOCOL_ERROR, "KEXINIT too long";
    /// A key share is valid (RFC 4253 §8, RFC 8731 §3).
    BadKeyShare = KEY_EXCHANGE_FAILED, "invalid key share";
    /// The host key is one for the negotiated algorithm.
    BadHostKey = KEY_EXCHANGE_FAILED, "host key does not fit the negotiated algorithm";
    /// The signature over the exchange hash is by the negotiated algorithm.
    WrongSignatureAlgorithm = KEY_EXCHANGE_FAILED, "signature by another algorithm than negotiated";
    /// The signature over the exchange hash verifies.
    BadHostKeySignature = KEY_EXCHANGE_FAILED, "host key signature does not verify";
    /// The host key stays the same over a connection's life.
    HostKeyChanged = HOST_KEY_NOT_VERIFIABLE, "host key changed during the connection";
    /// Extensions are announced at most as often as allowed (RFC 8308 §2.4). More than 64 at once are a
    /// [`MalformedMessage`](Self::MalformedMessage).
    TooManyExtensions = PROTOCOL_ERROR, "extensions announced too often";
    /// Messages without effect are budgeted.
    NoiseFlood = PROTOCOL_ERROR, "too many messages without effect";
    /// Messages with unknown numbers are budgeted.
    UnimplementedFlood = PROTOCOL_ERROR, "too many unknown messages";
    /// Replies owed during a re-exchange, which cannot leave, are bounded.
    ReplyFlood = PROTOCOL_ERROR, "too many messages that want a reply during a key re-exchange";
    /// What may be sent before authentication is bounded.
    PreAuthVolume = PROTOCOL_ERROR, "too much traffic before authentication";
    /// Re-exchanges without traffic between them are budgeted.
    RekeyFlood = PROTOCOL_ERROR, "too many key re-exchanges";
    /// Only `ssh-userauth` is a service here (RFC 4253 §10).
    UnknownService = SERVICE_NOT_AVAILABLE, "unknown service";
    /// SERVICE_ACCEPT names the service that was asked for (RFC 4253 §10).
    WrongServiceAccepted = PROTOCOL_ERROR, "another service accepted than requested";
    /// User and service stay the same over all authentication requests (RFC 4252 §5).
    UserOrServiceChanged = PROTOCOL_ERROR, "change of user name or service during authentication";
    /// Failed authentication attempts are bounded (RFC 4252 §4).
    TooManyAuthFailures = NO_MORE_AUTH_METHODS_AVAILABLE, "too many authentication failures";
    /// Authentication requests of any kind are bounded.
    TooManyAuthRequests = NO_MORE_AUTH_METHODS_AVAILABLE, "too many authentication requests";
    /// PK_OK repeats the probed key and algorithm (RFC 4252 §7).
    WrongKeyAccepted = PROTOCOL_ERROR, "PK_OK for a key that was not offered";
    /// A channel message names a channel that exists or existed (RFC 4254 §5).
    UnknownChannel = PROTOCOL_ERROR, "nonexistent channel";
    /// Only an opening channel is confirmed or refused, once (RFC 4254 §5.1).
    ChannelNotOpening = PROTOCOL_ERROR, "open confirmation for a channel that is not opening";
    /// Nothing but the answer to the open arrives on a channel that is opening (RFC 4254 §5.1).
    ChannelNotOpen = PROTOCOL_ERROR, "message for a channel that is not open yet";
    /// A peer's maximum packet size is usable.
    MaxPacketTooSmall = PROTOCOL_ERROR, "maximum packet size too small";
    /// Data stays within the window (RFC 4254 §5.2).
    WindowExceeded = PROTOCOL_ERROR, "data beyond the window";
    /// Data stays within the maximum packet size (RFC 4254 §5.2).
    MaxPacketExceeded = PROTOCOL_ERROR, "data beyond the maximum packet size";
    /// A client's extended data is of a type there is (RFC 4254 §5.2), unless the server takes any.
    UnknownExtendedData = PROTOCOL_ERROR, "extended data of an unknown type";
    /// A window never exceeds 2^32 - 1 (RFC 4254 §5.2).
    WindowOverflow = PROTOCOL_ERROR, "window adjusted beyond 2^32 - 1";
    /// No data after EOF (RFC 4254 §5.3).
    DataAfterEof = PROTOCOL_ERROR, "data after EOF";
    /// One EOF per direction (RFC 4254 §5.3).
    DuplicateEof = PROTOCOL_ERROR, "second EOF";
}

/// Why the two ends cannot talk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// The peer speaks another version of the protocol.
    Version(PeerText),
    /// No algorithm of a kind is offered by both.
    NoCommonAlgorithm {
        /// Which list.
        kind: AlgorithmKind,
        /// What this end offers, comma-separated.
        ours: String,
        /// What the peer offers, comma-separated.
        theirs: PeerText,
    },
    /// The peer does not do strict key exchange, and the policy requires it or a cipher that does not need
    /// it ([CVE-2023-48795](https://nvd.nist.gov/vuln/detail/CVE-2023-48795)).
    StrictKexRequired,
}

impl fmt::Display for PeerIncompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(line) => write!(f, "unsupported protocol version: {line}"),
            Self::NoCommonAlgorithm { kind, ours, theirs } => {
                write!(f, "no common {kind}: ours {ours}; theirs {theirs}")
            }
            Self::StrictKexRequired => f.write_str("the peer does not support strict key exchange"),
        }
    }
}

/// A list of the KEXINIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlgorithmKind {
    /// `kex_algorithms`.
    Kex,
    /// `server_host_key_algorithms`.
    HostKey,
    /// `encryption_algorithms`, either direction.
    Cipher,
    /// `mac_algorithms`, either direction.
    Mac,
    /// `compression_algorithms`, either direction.
    Compression,
}

impl fmt::Display for AlgorithmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kex => "key exchange method",
            Self::HostKey => "host key algorithm",
            Self::Cipher => "cipher",
            Self::Mac => "MAC",
            Self::Compression => "compression",
        })
    }
}

macro_rules! errors {
    ($($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }

        impl core::error::Error for $name {}
    )+};
}

errors! {
    /// A channel could not be opened from here.
    #[non_exhaustive]
    OpenError {
        /// Authentication is not complete.
        NotAuthenticated = "not authenticated",
        /// As many channels as [`Limits::max_channels`](crate::Limits::max_channels) are in use. One is free again when
        /// it was released and both sides closed it; no event tells.
        TooMany = "too many channels",
        /// The outbox is full; `Ready` tells when it has room.
        Full = "too many messages are waiting to be sent",
        /// The channel type's name is longer than 64 bytes, or the open message is longer than 32 KiB.
        TooLong = "the request is too long",
        /// The connection is closed.
        Closed = "the connection is closed",
    }

    /// A request could not be accepted.
    #[non_exhaustive]
    RequestError {
        /// The outbox, or the list of unanswered requests, is full; `Ready` tells when it has room, and of a channel
        /// that is closed before, its `Closed`.
        Full = "too many requests are waiting",
        /// The request's name is longer than 64 bytes, or its payload is longer than 32 KiB.
        TooLong = "the request is too long",
        /// The channel or the connection is closed.
        Closed = "closed",
        /// Authentication is not complete.
        NotAuthenticated = "not authenticated",
    }

    /// A ticket could not be answered.
    #[non_exhaustive]
    AnswerError {
        /// The question is no longer open: it timed out, its channel is gone, or the connection is closed.
        Gone = "the question is gone",
        /// The ticket belongs to another connection, where the question is now refused.
        Foreign = "the ticket belongs to another connection",
        /// The answer does not fit in the limits, or is a signature that was [checked](crate::Signer::needs_check) and does
        /// not verify; the question is refused instead.
        Refused = "the answer cannot be sent; the question was refused",
    }

    /// A channel write was not accepted.
    #[non_exhaustive]
    WriteError {
        /// No window or no room now; a `Writable` event follows.
        Blocked = "blocked",
        /// This direction is closed.
        Closed = "closed",
    }

    /// A channel read gave no data.
    #[non_exhaustive]
    ReadError {
        /// Nothing has arrived; a `Readable` event follows.
        Blocked = "blocked",
        /// The peer sent EOF, or ended in its way a channel that we closed first; everything that was received
        /// was read.
        Eof = "end of stream",
        /// The peer closed the channel without EOF, or answered our abort.
        Reset = "channel closed",
        /// The connection is over, and the peer did not end the channel before.
        Lost = "connection lost",
    }

    /// `authenticate` was not accepted.
    #[non_exhaustive]
    AuthError {
        /// An attempt is under way.
        Busy = "an authentication attempt is under way",
        /// Authentication is already complete.
        Done = "already authenticated",
        /// User name, password or key exceed their limits, or the name begins with `-` or contains control
        /// characters.
        Invalid = "user name or credential out of bounds",
        /// As many attempts as a client makes were made.
        TooMany = "too many authentication attempts",
        /// The key's type is unknown to the provider. What the server says it takes makes no difference: a key is
        /// tried with the provider's first algorithm then.
        UnsupportedKey = "no signature algorithm for this key",
        /// The connection is closed.
        Closed = "the connection is closed",
    }

    /// A call that makes no sense in this state.
    #[non_exhaustive]
    ApiMisuse {
        /// A banner after authentication, or beyond its limits.
        BannerNotPossible = "a banner cannot be sent now",
    }
}

/// No channel has this id, or it was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownChannel;

impl fmt::Display for UnknownChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such channel")
    }
}

impl core::error::Error for UnknownChannel {}
