//! Packets in: through the gate to the layer they belong to.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use core::time::Duration;

use bytes::BytesMut;

use crate::auth::{Auth, Authenticated};
use crate::config::{AnyConfig, Common};
use crate::error::{CloseReason, Disconnect, DisconnectCode, PeerIncompatible, PeerMisbehaved};
use crate::event::CoreEvent;
use crate::kex::Progress;
use crate::machine::{Core, Stage};
use crate::msg::gate::{Verdict, admit};
use crate::msg::transport::{Debug, Disconnect as WireDisconnect, ExtInfo, Ignore, Ping, Unimplemented};
use crate::msg::{Message, number};
use crate::mux::{Effect, Mux};
use crate::role::Side;
use crate::text::{MAX_PEER_TEXT, PeerText};
use crate::time::Instant;
use crate::timer::TimeoutReason;
use crate::transport::incoming::{Packet, Payload};

/// Traffic that makes a re-exchange count as a real one, in bytes.
const SMALL_REKEY: u64 = 64 * 1024;
/// So many times the cap on owed replies end the connection when a re-exchange keeps them from leaving. Only what
/// the peer provoked counts: how long our own answers are is not its fault.
const OWED_IN_EXCHANGE: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);

/// When the peer lately asked for new keys without need.
#[derive(Debug, Default)]
pub(crate) struct RekeyHistory(VecDeque<Instant>);

impl RekeyHistory {
    fn record(&mut self, now: Instant, max: u32) -> Result<(), PeerMisbehaved> {
        while self.0.front().is_some_and(|at| now.saturating_since(*at) >= MINUTE) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        if self.0.len() > max as usize { Err(PeerMisbehaved::RekeyFlood) } else { Ok(()) }
    }
}

impl From<PeerMisbehaved> for CloseReason {
    fn from(rule: PeerMisbehaved) -> Self {
        Self::PeerMisbehaved { rule, message: None }
    }
}

impl CloseReason {
    /// The DISCONNECT that tells the peer, where there is somebody to tell.
    pub(crate) fn disconnect(&self) -> Option<Disconnect> {
        let code = match self {
            Self::PeerMisbehaved { rule, .. } => rule.disconnect_code()?,
            Self::PeerIncompatible(why) => match **why {
                PeerIncompatible::Version(_) => DisconnectCode::PROTOCOL_VERSION_NOT_SUPPORTED,
                _ => DisconnectCode::KEY_EXCHANGE_FAILED,
            },
            Self::TimedOut(reason) => match reason {
                TimeoutReason::Kex => DisconnectCode::KEY_EXCHANGE_FAILED,
                TimeoutReason::Login | TimeoutReason::RequestReply => DisconnectCode::PROTOCOL_ERROR,
                TimeoutReason::Keepalive | TimeoutReason::WriteStall => DisconnectCode::CONNECTION_LOST,
                TimeoutReason::Idle => DisconnectCode::BY_APPLICATION,
                // Before the version exchange there is nobody to tell.
                TimeoutReason::Ident => return None,
                // These end no connection.
                TimeoutReason::AuthDelay
                | TimeoutReason::OpenReply
                | TimeoutReason::Rekey
                | TimeoutReason::Linger => return None,
            },
            // When it is our own key, nothing can be sealed and nothing is.
            Self::KeyExhausted => DisconnectCode::PROTOCOL_ERROR,
            Self::HostKeyRejected => DisconnectCode::HOST_KEY_NOT_VERIFIABLE,
            Self::SignatureRefused | Self::SignatureInvalid => DisconnectCode::KEY_EXCHANGE_FAILED,
            Self::Internal(_) => DisconnectCode::PROTOCOL_ERROR,
            // Said already, or nobody there, or no randomness to seal with.
            Self::Local(_) | Self::PeerDisconnected { .. } | Self::Eof | Self::Entropy => return None,
        };
        let description = match self {
            // Not for the peer: it holds its own words, or our lists.
            Self::PeerIncompatible(_) => "no common ground".to_string(),
            // What became of our signer is nothing for the peer either.
            Self::SignatureInvalid => Self::SignatureRefused.to_string(),
            Self::PeerMisbehaved { rule, .. } => rule.to_string(),
            other => other.to_string(),
        };
        Some(Disconnect { code, description })
    }
}

impl Core {
    pub(crate) fn send_disconnect(&mut self, code: DisconnectCode, text: &str) {
        let mut end = text.len().min(MAX_PEER_TEXT);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let description = text.get(..end).unwrap_or_default().as_bytes();
        self.out.transport(|out| WireDisconnect { code: code.0, description, language: b"" }.encode(out));
    }

    /// Takes the identification line or one packet. False when bytes are missing.
    pub(crate) fn read_one(&mut self, buf: &mut BytesMut) -> Result<bool, CloseReason> {
        match &mut self.stage {
            Stage::Closed => Ok(false),
            Stage::Ident(reader) => {
                let Some(ident) = reader.read(buf)? else { return Ok(false) };
                if !ident.supported {
                    let version = PeerText::new(&ident.line);
                    return Err(CloseReason::PeerIncompatible(Box::new(PeerIncompatible::Version(version))));
                }
                self.peer_ident = ident.line;
                self.stage = Stage::Packets;
                self.timers.stop(TimeoutReason::Ident);
                self.timers.set(TimeoutReason::Kex, self.now.saturating_add(self.limits().kex_timeout));
                if self.kex.is_idle() {
                    self.kex.start(self.config.common(), &mut self.out)?;
                }
                Ok(true)
            }
            Stage::Packets => {
                let Some(packet) = self.incoming.next(buf)? else { return Ok(false) };
                let number = packet.payload.as_slice().first().copied();
                let result = self.dispatch(&packet);
                packet.payload.wipe();
                result.map_err(|reason| match reason {
                    CloseReason::PeerMisbehaved { rule, .. } => {
                        CloseReason::PeerMisbehaved { rule, message: number }
                    }
                    other => other,
                })?;
                Ok(true)
            }
        }
    }

    /// The gate, then the layer.
    fn dispatch(&mut self, packet: &Packet) -> Result<(), CloseReason> {
        let payload = packet.payload.as_slice();
        let number = payload.first().copied().unwrap_or(0);
        self.check_volume(self.config.common().hard_bytes(), payload.len())?;
        let verdict = admit(self.side, self.gate_state(), self.kex.is_strict(), number);
        self.first_packet = false;
        match verdict {
            Verdict::Discard => Ok(()),
            Verdict::NotRead => Err(CloseReason::Internal("a packet was read at a closed gate")),
            Verdict::Violation => Err(PeerMisbehaved::UnexpectedMessage.into()),
            Verdict::Terminate => Err(disconnected(payload)),
            Verdict::Skip => {
                self.kex.skipped();
                Ok(())
            }
            Verdict::Ignore => {
                check_noise(number, payload)?;
                if number == number::UNIMPLEMENTED && self.on_unimplemented(payload) {
                    return Ok(());
                }
                Ok(self.noise.spend(self.now)?)
            }
            Verdict::Unimplemented => {
                self.noise.spend_unimplemented()?;
                self.owed.push_unimplemented(packet.seq);
                self.check_flood(0)
            }
            Verdict::Accept | Verdict::AcceptIf | Verdict::UseIfAwaited => {
                let before = self.owed.held().provoked;
                match self.route(number, &packet.payload, packet.seq)? {
                    Effect::Useful => self.noise.earn(payload.len()),
                    Effect::Noise => self.noise.spend(self.now)?,
                    Effect::Late => {}
                }
                self.check_flood(before)
            }
        }
    }

    /// Whether it is the answer to a request of ours.
    fn on_unimplemented(&mut self, payload: &[u8]) -> bool {
        let Ok(Unimplemented { sequence }) = Unimplemented::decode(payload) else { return false };
        self.mux_parts().is_some_and(|(mux, mut cx)| mux.on_unimplemented(&mut cx, sequence))
    }

    /// Ends the connection when a message brought what is owed over the cap while that does not stop the input:
    /// in an exchange, only the peer's KEXINIT can free the way for replies.
    ///
    /// The peer does not pay for long answers that the embedder chose to give; nor does a message that adds nothing
    /// to what was owed `before` pay for what the embedder decided meanwhile.
    fn check_flood(&self, before: usize) -> Result<(), CloseReason> {
        let cap = self.limits().owed_cap().saturating_mul(OWED_IN_EXCHANGE);
        match self.owed.held().provoked > cap.max(before) && self.exchange_holds_replies() {
            true => Err(PeerMisbehaved::ReplyFlood.into()),
            false => Ok(()),
        }
    }

    /// Bounds what may come before authentication, and under one key.
    fn check_volume(&mut self, hard_limit: u64, bytes: usize) -> Result<(), CloseReason> {
        if self.mux.is_none() {
            self.pre_auth.count(bytes);
            let limits = self.limits();
            if self.pre_auth.bytes > limits.pre_auth_bytes || self.pre_auth.packets > limits.pre_auth_packets
            {
                return Err(PeerMisbehaved::PreAuthVolume.into());
            }
        }
        let volume = self.incoming.volume();
        if volume.bytes > hard_limit || volume.packets > crate::transport::MAX_PACKETS_PER_KEY {
            return Err(CloseReason::KeyExhausted);
        }
        Ok(())
    }

    fn route(&mut self, number: u8, payload: &Payload, seq: u32) -> Result<Effect, CloseReason> {
        let bytes = payload.as_slice();
        match number {
            number::KEXINIT => self.on_kexinit(bytes, seq)?,
            number::NEWKEYS => self.on_new_keys(bytes)?,
            30..=49 => {
                let (kex, mut cx) = self.kex_parts();
                let progress = kex.on_method(&mut cx, bytes)?;
                self.after_kex_step(progress);
            }
            number::SERVICE_REQUEST..=number::EXT_INFO | 50..=79 => self.on_auth(number, bytes)?,
            80..=127 => {
                let Some((mux, mut cx)) = self.mux_parts() else {
                    return Err(PeerMisbehaved::UnexpectedMessage.into());
                };
                return Ok(mux.on_message(&mut cx, payload.bytes())?);
            }
            number::PING => {
                let ping = Ping::decode(bytes).map_err(|_| PeerMisbehaved::MalformedMessage)?;
                match self.side {
                    // OpenSSH sends them as chaff around keystrokes, fifty a second: the cap on owed replies is
                    // what bounds them.
                    Side::Server => self.owed.push_pong(ping.data),
                    // Only servers announce it.
                    Side::Client => {
                        self.noise.spend_unimplemented()?;
                        self.owed.push_unimplemented(seq);
                        return Ok(Effect::Noise);
                    }
                }
            }
            // We send no PING.
            number::PONG => return Ok(Effect::Noise),
            _ => return Err(PeerMisbehaved::UnexpectedMessage.into()),
        }
        Ok(Effect::Useful)
    }

    // ----- Key exchange.

    fn on_kexinit(&mut self, payload: &[u8], seq: u32) -> Result<(), CloseReason> {
        if self.mux.is_some() {
            let theirs_first = self.kex.is_idle();
            let carried = self.incoming.volume().bytes.saturating_add(self.out.volume().bytes);
            if let Some(max) = self.limits().small_rekeys_per_minute
                && theirs_first
                && carried < SMALL_REKEY
            {
                self.rekeys.record(self.now, max)?;
            }
            self.timers.set(TimeoutReason::Kex, self.now.saturating_add(self.limits().rekey_timeout));
        }
        let (kex, mut cx) = self.kex_parts();
        kex.on_kexinit(&mut cx, payload, seq)
    }

    /// Starts a re-exchange when one is due: asked for, or by volume.
    pub(crate) fn start_due_rekey(&mut self) {
        if self.mux.is_none() || !self.kex.is_idle() {
            return;
        }
        let policy = &self.config.common().rekey;
        let due = policy.is_due(self.incoming.volume()) || policy.is_due(self.out.volume());
        if !due && !self.rekey_wanted {
            return;
        }
        self.timers.start(TimeoutReason::Kex, Some(self.limits().rekey_timeout));
        if let Err(reason) = self.kex.start(self.config.common(), &mut self.out) {
            self.close_with(reason);
        }
    }

    /// Our NEWKEYS may have gone out: then services may go on, and at the first time begin.
    pub(crate) fn after_kex_step(&mut self, progress: Progress) {
        if progress == Progress::Waiting {
            // A person reads a fingerprint for minutes; that is not the peer's time.
            self.timers.stop(TimeoutReason::Kex);
            return;
        }
        if self.mux.is_some() {
            self.rekey_wanted = false;
            return;
        }
        if self.side == Side::Server {
            // A person reads a fingerprint at the client before its NEWKEYS comes. The login grace goes on.
            self.timers.stop(TimeoutReason::Kex);
        }
        if self.kex.peer_takes_ext_info()
            && let Some(mut sender) = self.out.service()
        {
            let pairs: &[(&str, &str)] = match self.side {
                Side::Server => {
                    &[("server-sig-algs", &self.config.common().signature_names), ("ping@openssh.com", "0")]
                }
                Side::Client => &[("ext-info-in-auth@openssh.com", "0")],
            };
            let size =
                pairs.iter().map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(8));
            sender.send_with(size.sum::<usize>().saturating_add(5), |out| ExtInfo::encode_pairs(pairs, out));
        }
        if let (Auth::Client(auth), mut cx) = self.auth_parts() {
            auth.start(&mut cx);
        }
    }

    fn on_new_keys(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        crate::msg::kex::NewKeys::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        let later = self.kex.on_new_keys(&mut self.incoming)?;
        self.timers.stop(TimeoutReason::Kex);
        if later {
            self.events.push(CoreEvent::Rekeyed);
            self.schedule_rekey();
        } else {
            self.first_packet = true;
        }
        Ok(())
    }

    fn schedule_rekey(&mut self) {
        if let Some(interval) = self.config.common().rekey.interval {
            self.timers.start(TimeoutReason::Rekey, Some(interval));
        }
    }

    // ----- Authentication.

    fn on_auth(&mut self, number: u8, payload: &[u8]) -> Result<(), CloseReason> {
        let announced = self.kex.peer_takes_ext_info();
        let (auth, mut cx) = self.auth_parts();
        if let Auth::Client(auth) = &auth {
            auth.admit(number)?;
        }
        let proof = match auth {
            Auth::Client(auth) => match number {
                number::EXT_INFO => auth.on_ext_info(&mut cx, payload, announced).map(|()| None),
                number::SERVICE_ACCEPT => auth.on_service_accept(&mut cx, payload).map(|()| None),
                number::USERAUTH_FAILURE => auth.on_failure(&mut cx, payload).map(|()| None),
                number::USERAUTH_SUCCESS => auth.on_success(&mut cx, payload).map(Some),
                number::USERAUTH_BANNER => auth.on_banner(&mut cx, payload).map(|()| None),
                number::USERAUTH_60 => auth.on_60(&mut cx, payload).map(|()| None),
                _ => Err(PeerMisbehaved::UnexpectedMessage.into()),
            },
            Auth::Server(auth) => match number {
                number::EXT_INFO => auth.on_ext_info(payload).map(|()| None),
                number::SERVICE_REQUEST => auth.on_service_request(&mut cx, payload).map(|()| None),
                number::USERAUTH_REQUEST => auth.on_request(&mut cx, payload).map(|()| None),
                _ => Err(PeerMisbehaved::UnexpectedMessage.into()),
            },
        }?;
        if let Some(proof) = proof {
            self.become_authenticated(proof);
        }
        Ok(())
    }

    /// Authentication is complete: the mux begins.
    pub(crate) fn become_authenticated(&mut self, proof: Authenticated) {
        self.incoming.authenticated();
        let Common { limits, .. } = self.config.common();
        let (keepalive, idle) = (limits.keepalive_interval, limits.idle_timeout);
        let config: &AnyConfig = &self.config;
        self.mux = Some(Mux::new(config, proof));
        self.timers.start(TimeoutReason::Keepalive, keepalive);
        self.timers.start(TimeoutReason::Idle, idle);
        self.schedule_rekey();
    }
}

/// The peer's DISCONNECT. One that is not well-formed is one all the same, without a text.
fn disconnected(payload: &[u8]) -> CloseReason {
    let (code, description) = match WireDisconnect::decode(payload) {
        Ok(message) => (message.code, message.description),
        Err(_) => (DisconnectCode::PROTOCOL_ERROR.0, &[][..]),
    };
    let description = Box::new(PeerText::new(description));
    CloseReason::PeerDisconnected { code: DisconnectCode(code), description }
}

/// IGNORE, UNIMPLEMENTED and DEBUG have no effect, but must be what they say.
fn check_noise(number: u8, payload: &[u8]) -> Result<(), PeerMisbehaved> {
    let well_formed = match number {
        number::IGNORE => Ignore::decode(payload).is_ok(),
        number::UNIMPLEMENTED => Unimplemented::decode(payload).is_ok(),
        number::DEBUG => Debug::decode(payload).is_ok(),
        _ => true,
    };
    if well_formed { Ok(()) } else { Err(PeerMisbehaved::MalformedMessage) }
}
