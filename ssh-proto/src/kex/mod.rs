//! The key exchange machine, [RFC 4253 §7–§8], for the first exchange and every later one.
//!
//! ```text
//! Idle ── KEXINIT out ──▶ InitSent ── KEXINIT in ──▶ Client: AwaitReply ──▶ [HostKey] ─┐
//!  ▲                                                 Server: AwaitInit ──▶ [Signing] ──┤
//!  └───────────────────────── NEWKEYS in ◀── AwaitNewKeys ◀──────────── NEWKEYS out ───┘
//! ```
//!
//! [RFC 4253 §7–§8]: https://www.rfc-editor.org/rfc/rfc4253#section-7

pub(crate) mod exchange;
pub(crate) mod negotiate;
pub(crate) mod proof;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use self::exchange::{Agreed, Finished, ServerReply};
use self::negotiate::{Markers, Negotiated, acceptable_without_strict, build_kexinit, negotiate};
use self::proof::{HostKeyAccepted, KexProof, ReplySigned, SignatureVerified};
use crate::config::{AnyConfig, Common};
use crate::crypto::{ClientExchange, Digest, KexError, OpenPacket};
use crate::error::{CloseReason, PeerIncompatible, PeerMisbehaved};
use crate::event::{CoreEvent, EventQueue};
use crate::key::{self, PublicKey, Signature};
use crate::msg::Message;
use crate::msg::gate::{KexStep, State};
use crate::msg::kex::{EcdhInit, EcdhReply, KexInit, MAX_KEXINIT};
use crate::role::Side;
use crate::ticket::{HostKeyCheck, Identity, Pending, SignRequest, Ticket};
use crate::transport::incoming::Incoming;
use crate::transport::outgoing::Outgoing;

/// The session identifier: the exchange hash of the first exchange (RFC 4253 §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionId(Digest);

impl SessionId {
    /// The identifier's bytes, as long as the first exchange's hash.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// What an exchange needs of the rest of the connection.
pub(crate) struct KexContext<'a> {
    pub(crate) config: &'a AnyConfig,
    pub(crate) out: &'a mut Outgoing,
    pub(crate) events: &'a mut EventQueue,
    pub(crate) identity: &'a Arc<Identity>,
    /// The identification lines: client's, server's.
    pub(crate) idents: (&'a [u8], &'a [u8]),
}

enum Phase {
    Idle,
    InitSent {
        /// What was guessed with it, under the name of its method.
        guess: Option<(&'static str, Box<dyn ClientExchange>)>,
    },
    AwaitReply {
        agreed: Box<Agreed>,
        exchange: Box<dyn ClientExchange>,
        skip: bool,
    },
    AwaitInit {
        agreed: Box<Agreed>,
        skip: bool,
    },
    HostKey {
        pending: Pending,
        finished: Box<Finished>,
        verified: SignatureVerified,
        key: PublicKey,
    },
    Signing {
        pending: Pending,
        reply: Box<ServerReply>,
    },
    AwaitNewKeys {
        opener: Box<dyn OpenPacket>,
    },
    /// Where a step leaves the machine that did not come to its end. Nothing is legal here.
    Failed,
}

/// How far a step got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More messages, or an answer, are needed.
    Waiting,
    /// Our NEWKEYS is out: services may send.
    Sending,
}

pub(crate) struct Kex {
    side: Side,
    phase: Phase,
    /// Our KEXINIT of the exchange under way.
    our_init: Vec<u8>,
    session_id: Option<SessionId>,
    host_key: Option<PublicKey>,
    negotiated: Option<Negotiated>,
    /// Decided in the first exchange, remembered for all later ones.
    markers: Option<Markers>,
    /// The first exchange is complete in both directions.
    established: bool,
}

impl Kex {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            phase: Phase::Idle,
            our_init: Vec::new(),
            session_id: None,
            host_key: None,
            negotiated: None,
            markers: None,
            established: false,
        }
    }

    pub(crate) fn session_id(&self) -> Option<&SessionId> {
        self.session_id.as_ref()
    }

    pub(crate) fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.markers.is_some_and(|markers| markers.strict)
    }

    /// Whether the peer takes an EXT_INFO.
    pub(crate) fn peer_takes_ext_info(&self) -> bool {
        self.markers.is_some_and(|markers| markers.ext_info)
    }

    /// Whether the embedder must answer before input is read on.
    pub(crate) fn awaits_answer(&self) -> bool {
        matches!(self.phase, Phase::HostKey { .. } | Phase::Signing { .. })
    }

    /// The gate's state, while an exchange or the wait for the first one decides it.
    pub(crate) fn gate_state(&self) -> Option<State> {
        let first = !self.established;
        Some(match &self.phase {
            Phase::Idle | Phase::InitSent { .. } if first => State::AwaitKexInit,
            Phase::Idle => return None,
            Phase::InitSent { .. } => State::RekeySent,
            Phase::AwaitReply { skip: true, .. } | Phase::AwaitInit { skip: true, .. } => {
                if first {
                    State::KexSkipGuess
                } else {
                    State::RekeySkipGuess
                }
            }
            Phase::AwaitReply { .. } | Phase::AwaitInit { .. } => {
                if first {
                    State::Kex(KexStep::Single)
                } else {
                    State::RekeyKex(KexStep::Single)
                }
            }
            Phase::HostKey { .. } => State::HostKeyPending,
            Phase::Signing { .. } if first => State::KexSignPending,
            Phase::Signing { .. } => State::RekeySignPending,
            Phase::AwaitNewKeys { .. } if first => State::AwaitNewKeys,
            Phase::AwaitNewKeys { .. } => State::RekeyAwaitNewKeys,
            Phase::Failed => State::Closing,
        })
    }

    /// The connection is over: what the exchange under way holds goes.
    pub(crate) fn retire(&mut self) {
        self.phase = Phase::Failed;
    }

    /// Sends our KEXINIT, and our share with the first one when the configuration says to guess.
    pub(crate) fn start(&mut self, common: &Common, out: &mut Outgoing) -> Result<(), CloseReason> {
        let first = !self.established;
        self.our_init = build_kexinit(common, first, &mut out.random).map_err(|_| CloseReason::Entropy)?;
        out.transport_with(self.our_init.len(), |buf| buf.extend_from_slice(&self.our_init));
        out.begin_exchange();
        let method = common.algorithms.kex.first().filter(|_| first && common.guess_kex);
        let method = method.and_then(|name| common.provider.kex.iter().find(|kex| kex.name() == *name));
        let guess = match method {
            Some(method) => {
                let exchange = method.start(&mut out.random).map_err(kex_fault)?;
                out.transport(|out| EcdhInit { share: exchange.share() }.encode(out));
                Some((method.name(), exchange))
            }
            None => None,
        };
        self.phase = Phase::InitSent { guess };
        Ok(())
    }

    /// The peer's KEXINIT, which arrived as packet `seq`.
    pub(crate) fn on_kexinit(
        &mut self,
        cx: &mut KexContext<'_>,
        payload: &[u8],
        seq: u32,
    ) -> Result<(), CloseReason> {
        if payload.len() > MAX_KEXINIT {
            return Err(PeerMisbehaved::KexInitTooLong.into());
        }
        let theirs = KexInit::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        if matches!(self.phase, Phase::Idle) {
            self.start(cx.config.common(), cx.out)?;
        }
        let guess = match mem::replace(&mut self.phase, Phase::Failed) {
            Phase::InitSent { guess } => guess,
            _ => return Err(PeerMisbehaved::UnexpectedMessage.into()),
        };
        let markers = *self.markers.get_or_insert_with(|| Markers::of_peer(self.side, &theirs));
        // Terrapin: under strict key exchange nothing comes before KEXINIT, checked once it is known.
        if markers.strict && !self.established && seq != 0 {
            return Err(PeerMisbehaved::KexInitNotFirst.into());
        }
        let our_init = mem::take(&mut self.our_init);
        let ours = KexInit::decode(&our_init).map_err(|_| CloseReason::Internal("own KEXINIT"))?;
        let common = cx.config.common();
        let choice = negotiate(self.side, common, &ours, &theirs).map_err(CloseReason::PeerIncompatible)?;
        if !markers.strict && !acceptable_without_strict(common.strict_kex, &choice) {
            return Err(CloseReason::PeerIncompatible(Box::new(PeerIncompatible::StrictKexRequired)));
        }
        self.negotiated = Some(choice.negotiated(markers.strict));
        let skip = choice.wrong_guess;
        self.phase = match self.side {
            Side::Client => {
                // Whoever drops a wrong guess has not looked at its share.
                let exchange = match guess.filter(|(method, _)| *method == choice.kex.name()) {
                    Some((_, exchange)) => exchange,
                    None => choice.kex.start(&mut cx.out.random).map_err(kex_fault)?,
                };
                if !choice.right_guess {
                    cx.out.transport(|out| EcdhInit { share: exchange.share() }.encode(out));
                }
                let agreed =
                    Box::new(Agreed { choice, client_init: our_init, server_init: payload.to_vec() });
                Phase::AwaitReply { agreed, exchange, skip }
            }
            Side::Server => {
                let agreed =
                    Box::new(Agreed { choice, client_init: payload.to_vec(), server_init: our_init });
                Phase::AwaitInit { agreed, skip }
            }
        };
        Ok(())
    }

    /// The wrongly guessed packet went by.
    pub(crate) fn skipped(&mut self) {
        if let Phase::AwaitReply { skip, .. } | Phase::AwaitInit { skip, .. } = &mut self.phase {
            *skip = false;
        }
    }

    /// Message 30 or 31, whichever this side expects.
    pub(crate) fn on_method(
        &mut self,
        cx: &mut KexContext<'_>,
        payload: &[u8],
    ) -> Result<Progress, CloseReason> {
        match mem::replace(&mut self.phase, Phase::Failed) {
            Phase::AwaitReply { agreed, exchange, .. } => self.on_reply(cx, *agreed, exchange, payload),
            Phase::AwaitInit { agreed, .. } => self.on_init(cx, *agreed, payload),
            _ => Err(PeerMisbehaved::UnexpectedMessage.into()),
        }
    }

    /// Client: the server's share, host key and signature.
    fn on_reply(
        &mut self,
        cx: &mut KexContext<'_>,
        agreed: Agreed,
        exchange: Box<dyn ClientExchange>,
        payload: &[u8],
    ) -> Result<Progress, CloseReason> {
        let reply = EcdhReply::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        let algorithm = agreed.choice.host_key;
        let key = exchange::host_key(algorithm, reply.host_key)?;
        let client_share = exchange.share().to_vec();
        let secret = exchange.complete(reply.share).map_err(kex_fault)?;
        let finished = agreed.finish(cx.idents, &key, &client_share, reply.share, &secret);
        let verified = exchange::verify(algorithm, &key, finished.hash.as_bytes(), reply.signature)?;
        match &self.host_key {
            Some(known) if *known == key => {
                let proof = KexProof::Client(verified, HostKeyAccepted(()));
                Ok(self.take_keys(cx, &finished, proof))
            }
            Some(_) => Err(PeerMisbehaved::HostKeyChanged.into()),
            None => {
                let (pending, ticket) = Pending::new(cx.identity);
                let check = HostKeyCheck { ticket, key: key.clone(), algorithm: algorithm.name() };
                cx.events.push(CoreEvent::HostKey(check));
                let finished = Box::new(finished);
                self.phase = Phase::HostKey { pending, finished, verified, key };
                Ok(Progress::Waiting)
            }
        }
    }

    /// Client: the embedder's verdict on the host key; `None` when the ticket is not ours any more.
    pub(crate) fn judge_host_key(
        &mut self,
        cx: &mut KexContext<'_>,
        ticket: &Ticket,
        accepted: bool,
    ) -> Option<Result<Progress, CloseReason>> {
        if !matches!(&self.phase, Phase::HostKey { pending, .. } if pending.is(ticket)) {
            return None;
        }
        match mem::replace(&mut self.phase, Phase::Failed) {
            Phase::HostKey { finished, verified, key, .. } if accepted => {
                self.host_key = Some(key);
                let proof = KexProof::Client(verified, HostKeyAccepted(()));
                Some(Ok(self.take_keys(cx, &finished, proof)))
            }
            _ => Some(Err(CloseReason::HostKeyRejected)),
        }
    }

    /// Server: the client's share.
    fn on_init(
        &mut self,
        cx: &mut KexContext<'_>,
        agreed: Agreed,
        payload: &[u8],
    ) -> Result<Progress, CloseReason> {
        let init = EcdhInit::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        let algorithm = agreed.choice.host_key;
        let AnyConfig::Server(config) = cx.config else { return Err(CloseReason::Internal("role")) };
        let pair = config.host_keys.iter().find(|pair| pair.public.key_type() == algorithm.key_type());
        let pair = pair.ok_or(CloseReason::Internal("host key"))?.clone();
        let server = agreed.choice.kex.respond(init.share, &mut cx.out.random).map_err(kex_fault)?;
        let finished = agreed.finish(cx.idents, &pair.public, init.share, &server.share, &server.secret);
        let reply = ServerReply { finished, share: server.share, key: pair.public, algorithm };
        match pair.signer {
            Some(signer) => {
                let signature = key::sign(&*signer, &reply.to_sign(), &mut cx.out.random);
                self.send_reply(cx, reply, signature.ok())
            }
            None => {
                let (pending, ticket) = Pending::new(cx.identity);
                cx.events.push(CoreEvent::Sign(SignRequest {
                    ticket,
                    key: reply.key.clone(),
                    algorithm: algorithm.name(),
                    user: None,
                    message: reply.finished.hash.as_bytes().to_vec(),
                }));
                self.phase = Phase::Signing { pending, reply: Box::new(reply) };
                Ok(Progress::Waiting)
            }
        }
    }

    /// Server: the signature, or its refusal; `None` when the ticket is not ours any more.
    pub(crate) fn provide_signature(
        &mut self,
        cx: &mut KexContext<'_>,
        ticket: &Ticket,
        signature: Option<Signature>,
    ) -> Option<Result<Progress, CloseReason>> {
        if !matches!(&self.phase, Phase::Signing { pending, .. } if pending.is(ticket)) {
            return None;
        }
        match mem::replace(&mut self.phase, Phase::Failed) {
            Phase::Signing { reply, .. } => Some(self.send_reply(cx, *reply, signature)),
            _ => None,
        }
    }

    fn send_reply(
        &mut self,
        cx: &mut KexContext<'_>,
        reply: ServerReply,
        signature: Option<Signature>,
    ) -> Result<Progress, CloseReason> {
        let signature = signature
            .filter(|signature| signature.algorithm() == reply.algorithm.name())
            .ok_or(CloseReason::SignatureRefused)?;
        if !signature.sound && !reply.is_signed_by(&signature) {
            return Err(CloseReason::SignatureInvalid);
        }
        let signature = exchange::encode_signature(&signature);
        cx.out.transport(|out| {
            EcdhReply { host_key: reply.key.as_blob(), share: &reply.share, signature: &signature }
                .encode(out);
        });
        Ok(self.take_keys(cx, &reply.finished, KexProof::Server(ReplySigned(()))))
    }

    /// Whether a question of the exchange was dropped, and how that ends the connection.
    pub(crate) fn dropped_answer(&self) -> Option<CloseReason> {
        match &self.phase {
            Phase::HostKey { pending, .. } if pending.is_dropped() => Some(CloseReason::HostKeyRejected),
            Phase::Signing { pending, .. } if pending.is_dropped() => Some(CloseReason::SignatureRefused),
            _ => None,
        }
    }

    /// Sends NEWKEYS and takes our half of the new keys; the peer's half waits for its NEWKEYS.
    fn take_keys(&mut self, cx: &mut KexContext<'_>, finished: &Finished, proof: KexProof) -> Progress {
        let session_id = self.session_id.get_or_insert(SessionId(finished.hash));
        let keys = finished.new_keys(self.side, session_id.as_bytes());
        let strict = self.is_strict();
        cx.out.new_keys(proof, keys.sealer, strict);
        self.phase = Phase::AwaitNewKeys { opener: keys.opener };
        Progress::Sending
    }

    /// The peer's NEWKEYS. Returns whether the exchange was a later one.
    pub(crate) fn on_new_keys(&mut self, incoming: &mut Incoming) -> Result<bool, CloseReason> {
        match mem::replace(&mut self.phase, Phase::Failed) {
            Phase::AwaitNewKeys { opener } => {
                incoming.new_keys(opener, self.is_strict());
                self.phase = Phase::Idle;
                Ok(mem::replace(&mut self.established, true))
            }
            _ => Err(PeerMisbehaved::UnexpectedMessage.into()),
        }
    }
}

fn kex_fault(error: KexError) -> CloseReason {
    match error {
        KexError::Entropy => CloseReason::Entropy,
        _ => PeerMisbehaved::BadKeyShare.into(),
    }
}
