//! What a connection may hold and how long it may take, and when its keys are renewed.

use core::time::Duration;

use crate::mux::replies::REPLY_COST;
use crate::transport::Volume;

/// Bounds on what a connection holds, waits for and answers. Every field has a reason in the docs; the
/// defaults are meant for the open internet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes and packets a peer may send before authentication is complete.
    pub pre_auth_bytes: u64,
    /// See [`pre_auth_bytes`](Self::pre_auth_bytes).
    pub pre_auth_packets: u64,
    /// How long the peer's identification may take.
    pub ident_timeout: Duration,
    /// How long the initial key exchange may take, the answer of a person not counted: at a server it ends with our
    /// NEWKEYS, because that of the client may come only when somebody has read a fingerprint. From there
    /// [`login_timeout`](Self::login_timeout) is the bound.
    pub kex_timeout: Duration,
    /// How long a re-exchange may take. It starts again when it is over while events wait unpolled in a full queue.
    pub rekey_timeout: Duration,
    /// How long authentication may take in all, at the server; at the client, the answer to one request.
    pub login_timeout: Duration,
    /// How long the peer may take to answer a channel open. Those that wait start again when it is over while
    /// the event queue is full or a question about the key exchange is unanswered: the answer may be there then.
    pub open_timeout: Option<Duration>,
    /// How long the peer may take to answer a channel or global request. As with
    /// [`open_timeout`](Self::open_timeout), it starts again while our side does not listen. Four times as many
    /// unanswered in time as may wait ([`pending_requests`](Self::pending_requests) on one channel, or
    /// [`pending_globals`](Self::pending_globals)) end the connection.
    pub request_timeout: Option<Duration>,
    /// How long output may wait for the transport without any progress, at least; at most twice as long.
    pub write_stall: Duration,
    /// After how much silence a keepalive is sent, unless one is unanswered still. Anything the peer sends ends
    /// the silence.
    pub keepalive_interval: Option<Duration>,
    /// How many such intervals of silence, one after another, pass behind a keepalive before the connection ends:
    /// at least one, because a peer that was not asked owes no answer.
    pub keepalive_misses: u32,
    /// How long a connection may be without channel traffic.
    pub idle_timeout: Option<Duration>,
    /// How long the last output may take after the close.
    pub linger: Duration,
    /// Failed authentication requests before the server disconnects.
    pub auth_failures: u32,
    /// Authentication requests of any kind before the server disconnects, the one for the service included.
    pub auth_requests: u32,
    /// Authentication requests a client sends.
    pub client_auth_requests: u32,
    /// How long after a request its refusal is sent at the earliest. One that takes longer to decide is sent at the
    /// next of twice the delay, four times the delay and so on; after more than five seconds, at once. So refusals
    /// take equally long when deciding takes no longer than the delay, and otherwise tell no more than between
    /// which doublings it took: choose a delay that is longer than a check of a password.
    ///
    /// It is the same for every user, known or not. OpenSSH adds up to 4.2 ms by a secret hash of the user's name,
    /// which blurs for whom a check crosses a doubling; here a delay that no check crosses is what hides it.
    pub auth_failure_delay: Duration,
    /// Bytes of banners taken from a server or sent to a client.
    pub banner_bytes: usize,
    /// Banners taken from a server or sent to a client.
    pub banners: u32,
    /// Messages without effect (IGNORE, DEBUG, unsolicited replies, …): the burst allowed. It refills by one
    /// per 4 KiB of useful traffic and one per second.
    pub noise_burst: u32,
    /// UNIMPLEMENTED replies between useful messages.
    pub unimplemented_replies: u32,
    /// Channels in use at once, at most 65,536.
    pub max_channels: usize,
    /// Channel opens of the peer that wait for the embedder; more are refused, with `RESOURCE_SHORTAGE`. A peer may
    /// open as many as it likes in one go: whoever means to take bursts raises this, up to `max_channels`.
    pub pending_opens: usize,
    /// Global requests of ours that wait for the peer, keepalives not counted.
    pub pending_globals: usize,
    /// Global requests of the peer that wait for the embedder, or are answered and stand behind one that does;
    /// more are answered FAILURE in their turn.
    pub pending_global_tickets: usize,
    /// Requests per channel that wait for an answer, counted for each direction apart. More of ours are
    /// refused; more of the peer's are answered FAILURE in their turn.
    pub pending_requests: usize,
    /// `env` requests per channel surfaced to the embedder; more are answered FAILURE.
    pub env_requests: u32,
    /// Bytes of receive window granted over all channels.
    pub recv_budget: usize,
    /// The part of it reserved for each channel.
    pub min_window: usize,
    /// Bytes of output beyond which channel writes are refused.
    pub output: usize,
    /// Bytes of owed replies that the peer provoked, beyond which no input is taken, beside 32 for each of
    /// [`pending_requests`](Self::pending_requests) on [`max_channels`](Self::max_channels): what an honest peer may ask
    /// without reading must not stop the input, or two ends that are as busy would wait for each other. Those that wait
    /// for the embedder do not count. While a re-exchange keeps replies from leaving, input is taken all the same, and four times as
    /// many end the connection.
    ///
    /// The data of answers to global requests is the embedder's choice and stops no input. While it and what was
    /// provoked are together more than all this, further global requests are answered FAILURE without asking; so it is
    /// at most this and 32 KiB for each of [`pending_global_tickets`](Self::pending_global_tickets).
    pub owed_replies: usize,
    /// Bytes of messages waiting in the outbox, one keepalive aside.
    pub outbox_bytes: usize,
    /// Messages waiting in the outbox, one keepalive aside.
    pub outbox_messages: usize,
    /// Events waiting for `poll_event`, beyond which no input is taken; so it is beyond 64 KiB of what they hold.
    pub events: usize,
    /// Input buffers that parked channel data may keep alive; more data is copied. Slices of 4 KiB and more that follow
    /// each other in a stream and in one buffer count as one, all others as one each. A call of `handle_input` that goes on
    /// in the buffer of the last one, where that stopped, is recognised as such.
    pub max_borrowed: usize,
    /// Key exchanges the peer may start per minute with less than 64 KiB of traffic before each.
    pub small_rekeys_per_minute: Option<u32>,
    /// Tolerate a peer that exceeds each window it was granted by up to a tenth, as OpenSSH does.
    pub lenient_window: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pre_auth_bytes: 16 << 20,
            pre_auth_packets: 4096,
            ident_timeout: Duration::from_secs(10),
            kex_timeout: Duration::from_secs(30),
            rekey_timeout: Duration::from_secs(60),
            login_timeout: Duration::from_secs(120),
            open_timeout: Some(Duration::from_secs(120)),
            request_timeout: Some(Duration::from_secs(120)),
            write_stall: Duration::from_secs(120),
            keepalive_interval: None,
            keepalive_misses: 3,
            idle_timeout: None,
            linger: Duration::from_secs(2),
            auth_failures: 6,
            auth_requests: 64,
            client_auth_requests: 32,
            auth_failure_delay: Duration::from_millis(10),
            banner_bytes: 32 * 1024,
            banners: 16,
            noise_burst: 256,
            unimplemented_replies: 32,
            max_channels: 32,
            pending_opens: 8,
            pending_globals: 64,
            pending_global_tickets: 16,
            pending_requests: 16,
            env_requests: 128,
            recv_budget: 24 << 20,
            min_window: 32 * 1024,
            output: 256 * 1024,
            owed_replies: 64 * 1024,
            outbox_bytes: 64 * 1024,
            outbox_messages: 64,
            events: 64,
            max_borrowed: 16,
            small_rekeys_per_minute: Some(8),
            lenient_window: false,
        }
    }
}

impl Limits {
    /// What may be owed before no input is taken.
    pub(crate) fn owed_cap(&self) -> usize {
        let asked = self.pending_requests.saturating_mul(self.max_channels);
        self.owed_replies.saturating_add(asked.saturating_mul(REPLY_COST.provoked))
    }
}

/// When keys are renewed (RFC 4253 §9, RFC 4344 §3). Each limit counts one direction.
///
/// At a soft limit a re-exchange is started. A direction that carries twice as much under one key (at least
/// 128 MiB, and twice [`Limits::recv_budget`]), or 2^31 packets, ends the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RekeyPolicy {
    /// Bytes under one key.
    pub bytes: u64,
    /// Packets under one key, below 2^31.
    pub packets: u64,
    /// The age of a key.
    pub interval: Option<Duration>,
}

impl Default for RekeyPolicy {
    fn default() -> Self {
        Self { bytes: 1 << 30, packets: 1 << 28, interval: Some(Duration::from_secs(3600)) }
    }
}

impl RekeyPolicy {
    /// Whether a key that carried so much is to be replaced.
    pub(crate) fn is_due(&self, volume: Volume) -> bool {
        volume.bytes >= self.bytes || volume.packets >= self.packets
    }

    /// How many packets, of which each counts so many bytes, are begun before the key is due.
    pub(crate) fn packets_left(&self, volume: Volume, bytes: usize) -> usize {
        let by_bytes = self.bytes.saturating_sub(volume.bytes).div_ceil(bytes.max(1) as u64);
        let left = by_bytes.min(self.packets.saturating_sub(volume.packets));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Bytes under one key that end the connection. However small the soft limit, what is on its way when a
    /// re-exchange begins must fit: `granted` bytes may be.
    pub(crate) fn hard_bytes(&self, granted: usize) -> u64 {
        const LEAST: u64 = 128 << 20;
        self.bytes.saturating_mul(2).max(LEAST).max((granted as u64).saturating_mul(2))
    }
}
