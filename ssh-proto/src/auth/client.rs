//! The client's half: one request at a time, driven by the embedder.
//!
//! ```text
//! Start ── our NEWKEYS ──▶ Requested ── SERVICE_ACCEPT ──▶ Accepted
//!
//! Idle ── authenticate ──▶ [Signing] ──▶ Sent ── FAILURE ──▶ Idle
//!                              ▲ PK_OK ───┘ └── SUCCESS ──▶ Done
//! ```
//!
//! The first request does not wait for SERVICE_ACCEPT: every key exchange here proves the server's key, which is
//! where RFC 4253 §10 allows it. It saves a round trip. Until the service is accepted no answer to it is.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;

use super::{AuthContext, Authenticated, CONNECTION, USERAUTH, acceptable_user};
use crate::error::{AnswerError, AuthError, CloseReason, PeerMisbehaved};
use crate::event::CoreEvent;
use crate::kex::exchange::encode_signature;
use crate::key::{self, KeyPair, MAX_KEY_BLOB, SignPurpose, Signature, ToSign};
use crate::msg::auth::{
    Method, UserauthBanner, UserauthFailure, UserauthPasswdChangereq, UserauthPkOk, UserauthRequest,
    UserauthSuccess, signed_data,
};
use crate::msg::gate::{AuthMethod, State};
use crate::msg::transport::{ExtInfo, ServiceAccept, ServiceRequest};
use crate::msg::{Message, limit, number};
use crate::secret::Secret;
use crate::text::PeerText;
use crate::ticket::{Pending, SignRequest, Ticket};
use crate::timer::TimeoutReason;
use crate::wire::NameList;

/// How a client proves who it is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Credential {
    /// `none`: asks which methods there are, or logs in where no proof is needed.
    None,
    /// `password`.
    Password(Secret<str>),
    /// `publickey`.
    PublicKey {
        /// The key and its signer.
        key: KeyPair,
        /// Whether to ask first if the key would do: saves a signature (and a touch of a token) for a round
        /// trip.
        probe: bool,
    },
}

#[derive(Debug)]
struct Attempt {
    user: String,
    credential: Credential,
}

/// A request whose signature is to be made.
#[derive(Debug)]
struct KeyAttempt {
    user: String,
    key: KeyPair,
    algorithm: &'static str,
}

/// How far `ssh-userauth` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Start,
    Requested,
    Accepted,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Signing { pending: Pending, attempt: KeyAttempt },
    Sent { method: AuthMethod, probed: Option<KeyAttempt> },
    Done,
}

pub(crate) struct ClientAuth {
    service: Service,
    phase: Phase,
    /// Accepted from the embedder, to be sent when the phase allows.
    queued: Option<Attempt>,
    /// `server-sig-algs`, RFC 8308 §3.1.
    server_sig_algs: Option<String>,
    /// EXT_INFO came: behind NEWKEYS, and behind our first request.
    ext_info: [bool; 2],
    /// A second EXT_INFO came that we did not ask for: nothing but SUCCESS may follow it.
    success_follows: bool,
    requests: u32,
    banners: u32,
    banner_bytes: usize,
    /// The methods of the last FAILURE.
    remaining: Vec<String>,
}

impl ClientAuth {
    pub(crate) fn new() -> Self {
        Self {
            service: Service::Start,
            phase: Phase::Idle,
            queued: None,
            server_sig_algs: None,
            ext_info: [false; 2],
            success_follows: false,
            requests: 0,
            banners: 0,
            banner_bytes: 0,
            remaining: Vec::new(),
        }
    }

    pub(crate) fn gate_state(&self) -> State {
        if self.service != Service::Accepted {
            return State::Service;
        }
        match &self.phase {
            Phase::Idle => State::AuthIdle,
            Phase::Signing { .. } => State::AuthSignPending,
            Phase::Sent { method, .. } => State::AuthSent(*method),
            Phase::Done => State::Authed,
        }
    }

    /// The connection is over: the credential that waits goes, and none is sent any more.
    pub(crate) fn retire(&mut self) {
        self.queued = None;
        self.phase = Phase::Idle;
        self.service = Service::Accepted;
    }

    /// Our NEWKEYS went out: ask for the service.
    pub(crate) fn start(&mut self, cx: &mut AuthContext<'_>) {
        if let Some(mut sender) = cx.out.service() {
            sender.send(&ServiceRequest { service: USERAUTH });
            self.service = Service::Requested;
            cx.timers.start(TimeoutReason::Login, Some(cx.common.limits.login_timeout));
            self.send_queued(cx);
        }
    }

    /// Takes an attempt from the embedder; it leaves when the phase allows.
    pub(crate) fn authenticate(
        &mut self,
        cx: &mut AuthContext<'_>,
        user: &str,
        credential: Credential,
    ) -> Result<(), AuthError> {
        match self.phase {
            Phase::Done => return Err(AuthError::Done),
            Phase::Signing { .. } | Phase::Sent { .. } => return Err(AuthError::Busy),
            _ if self.queued.is_some() => return Err(AuthError::Busy),
            _ => {}
        }
        let fits = match &credential {
            Credential::None => true,
            Credential::Password(password) => password.expose().len() <= limit::PASSWORD,
            Credential::PublicKey { key, .. } => key.public.as_blob().len() <= MAX_KEY_BLOB,
        };
        if !fits || !acceptable_user(user) {
            return Err(AuthError::Invalid);
        }
        if self.requests >= cx.common.limits.client_auth_requests {
            return Err(AuthError::TooMany);
        }
        if let Credential::PublicKey { key, .. } = &credential
            && self.algorithm_for(cx, key).is_none()
        {
            return Err(AuthError::UnsupportedKey);
        }
        self.queued = Some(Attempt { user: user.to_string(), credential });
        self.send_queued(cx);
        Ok(())
    }

    /// The signature algorithm for a key: of those for its type, the provider's first that the server says it
    /// takes. Servers that say nothing, or leave out what they take, are tried with the provider's first
    /// (RFC 8332 §3.3).
    fn algorithm_for(&self, cx: &AuthContext<'_>, key: &KeyPair) -> Option<&'static str> {
        let taken = self.server_sig_algs.as_ref().and_then(|list| NameList::parse(list.as_bytes()).ok());
        let algorithms = cx.common.provider.signatures.iter();
        let mut fitting = algorithms
            .filter(|algorithm| algorithm.key_type() == key.public.key_type())
            .map(|algorithm| algorithm.name());
        let first = fitting.clone().next();
        fitting.find(|name| taken.is_some_and(|list| list.contains(name))).or(first)
    }

    /// Whether what waits depends on nothing that the server says before it accepts the service. Which algorithm to
    /// sign with may do so: `server-sig-algs` is on its way.
    fn may_go_early(&self, cx: &AuthContext<'_>) -> bool {
        let Some(Attempt { credential: Credential::PublicKey { key, .. }, .. }) = &self.queued else {
            return true;
        };
        let of_its_type = |name: &str| name == key.public.key_type();
        let algorithms = cx.common.provider.signatures.iter();
        let fitting = algorithms.filter(|algorithm| of_its_type(algorithm.key_type())).count();
        fitting <= 1 || self.server_sig_algs.is_some()
    }

    fn send_queued(&mut self, cx: &mut AuthContext<'_>) {
        let now = match self.service {
            Service::Start => false,
            Service::Requested => self.may_go_early(cx),
            Service::Accepted => true,
        };
        if !now || !matches!(self.phase, Phase::Idle) {
            return;
        }
        let Some(Attempt { user, credential }) = self.queued.take() else { return };
        match credential {
            Credential::None => self.send(cx, &user, Method::None, AuthMethod::None),
            Credential::Password(password) => {
                let method = Method::Password { password: password.expose().as_bytes(), new: None };
                self.send(cx, &user, method, AuthMethod::Password);
            }
            Credential::PublicKey { key, probe } => {
                let Some(algorithm) = self.algorithm_for(cx, &key) else {
                    return self.failed(cx);
                };
                let attempt = KeyAttempt { user, key, algorithm };
                if probe {
                    let key = attempt.key.public.clone();
                    let method = Method::PublicKey { algorithm, key: key.as_blob(), signature: None };
                    self.send(cx, &attempt.user, method, AuthMethod::PublicKeyProbe);
                    if let Phase::Sent { probed, .. } = &mut self.phase {
                        *probed = Some(attempt);
                    }
                } else {
                    self.sign(cx, attempt);
                }
            }
        }
    }

    /// The attempt came to nothing without the server's word.
    fn failed(&mut self, cx: &mut AuthContext<'_>) {
        self.phase = Phase::Idle;
        match self.service {
            Service::Accepted => cx.timers.stop(TimeoutReason::Login),
            // It owes us its word on the service.
            _ => cx.timers.start(TimeoutReason::Login, Some(cx.common.limits.login_timeout)),
        }
        cx.events.push(CoreEvent::AuthFailed { remaining: self.remaining.clone(), partial: false });
    }

    fn send(&mut self, cx: &mut AuthContext<'_>, user: &str, method: Method<'_>, name: AuthMethod) {
        if let Some(mut sender) = cx.out.service() {
            let request = UserauthRequest { user, service: CONNECTION, method };
            // Room for all of it at once: growing would leave an unwiped copy of a password behind.
            sender.send_with(request.size(), |out| request.encode(out));
            self.requests = self.requests.saturating_add(1);
            self.phase = Phase::Sent { method: name, probed: None };
            cx.timers.start(TimeoutReason::Login, Some(cx.common.limits.login_timeout));
        }
    }

    fn sign(&mut self, cx: &mut AuthContext<'_>, attempt: KeyAttempt) {
        let KeyAttempt { user, key, algorithm } = &attempt;
        let message = signed_data(cx.session_id, user, CONNECTION, algorithm, key.public.as_blob());
        match &key.signer {
            Some(signer) => {
                let purpose = SignPurpose::UserAuth { user };
                let to_sign = ToSign { purpose, key: &key.public, algorithm, message: &message };
                let signature = key::sign(&**signer, &to_sign, &mut cx.out.random).ok();
                // Who gave it hears of it by the attempt's failure.
                let _ = self.send_signed(cx, attempt, signature);
            }
            None => {
                let (pending, ticket) = Pending::new(cx.identity);
                let (user, key) = (Some(user.clone()), key.public.clone());
                cx.events.push(CoreEvent::Sign(SignRequest { ticket, key, algorithm, user, message }));
                // A person looks for a token: that is not the server's time. Its NEWKEYS may not be there yet either;
                // from the answer on, the login's deadline is that of all it owes.
                cx.timers.stop(TimeoutReason::Login);
                cx.timers.stop(TimeoutReason::Kex);
                self.phase = Phase::Signing { pending, attempt };
            }
        }
    }

    /// Sends the request with its signature. Without one, or with one that is none, the attempt failed.
    fn send_signed(
        &mut self,
        cx: &mut AuthContext<'_>,
        attempt: KeyAttempt,
        signature: Option<Signature>,
    ) -> Result<(), AnswerError> {
        let signature = signature.filter(|signature| signature.algorithm() == attempt.algorithm);
        let Some(signature) = signature else {
            self.failed(cx);
            return Ok(());
        };
        // A wrong RSA signature can give the key away.
        if !signature.sound && !verifies(cx, &attempt, &signature) {
            self.failed(cx);
            return Err(AnswerError::Refused);
        }
        let signature = encode_signature(&signature);
        let key = attempt.key.public.as_blob();
        let method = Method::PublicKey { algorithm: attempt.algorithm, key, signature: Some(&signature) };
        self.send(cx, &attempt.user, method, AuthMethod::PublicKeySigned);
        Ok(())
    }

    /// The signature of a ticket, or its refusal. `None` when the ticket is not ours any more.
    pub(crate) fn provide_signature(
        &mut self,
        cx: &mut AuthContext<'_>,
        ticket: &Ticket,
        signature: Option<Signature>,
    ) -> Option<Result<(), AnswerError>> {
        if !matches!(&self.phase, Phase::Signing { pending, .. } if pending.is(ticket)) {
            return None;
        }
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Signing { attempt, .. } => Some(self.send_signed(cx, attempt, signature)),
            _ => None,
        }
    }

    /// A dropped signature ticket is a refusal.
    pub(crate) fn sweep(&mut self, cx: &mut AuthContext<'_>) {
        if matches!(&self.phase, Phase::Signing { pending, .. } if pending.is_dropped()) {
            self.failed(cx);
        }
    }

    pub(crate) fn on_service_accept(
        &mut self,
        cx: &mut AuthContext<'_>,
        payload: &[u8],
    ) -> Result<(), CloseReason> {
        let accept = ServiceAccept::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        match self.service {
            Service::Requested if accept.service == USERAUTH => {}
            Service::Requested => return Err(PeerMisbehaved::WrongServiceAccepted.into()),
            _ => return Err(PeerMisbehaved::UnexpectedMessage.into()),
        }
        self.service = Service::Accepted;
        if !matches!(self.phase, Phase::Sent { .. }) {
            cx.timers.stop(TimeoutReason::Login);
            self.send_queued(cx);
        }
        Ok(())
    }

    /// A message of the server's to authentication: behind a second EXT_INFO that we did not ask for, SUCCESS.
    pub(crate) fn admit(&self, number: u8) -> Result<(), CloseReason> {
        match self.success_follows && number != number::USERAUTH_SUCCESS {
            true => Err(PeerMisbehaved::TooManyExtensions.into()),
            false => Ok(()),
        }
    }

    /// EXT_INFO: once behind the first NEWKEYS, and once after our first request: just before SUCCESS (RFC 8308
    /// §2.4), or at any time when we `announced` that we take it (PROTOCOL §1.10 of OpenSSH). Neither may stand for
    /// the other.
    pub(crate) fn on_ext_info(
        &mut self,
        cx: &mut AuthContext<'_>,
        payload: &[u8],
        announced: bool,
    ) -> Result<(), CloseReason> {
        let info = ExtInfo::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        let late = self.service == Service::Accepted;
        let [early_seen, late_seen] = &mut self.ext_info;
        let seen = core::mem::replace(if late { late_seen } else { early_seen }, true);
        if seen || (late && self.requests == 0) {
            return Err(PeerMisbehaved::TooManyExtensions.into());
        }
        self.success_follows = late && !announced;
        for (name, value) in info.iter() {
            if name == b"server-sig-algs" {
                let list = NameList::parse(value).map_err(|_| PeerMisbehaved::MalformedMessage)?;
                self.server_sig_algs = Some(list.as_str().to_string());
            }
        }
        self.send_queued(cx);
        Ok(())
    }

    pub(crate) fn on_banner(&mut self, cx: &mut AuthContext<'_>, payload: &[u8]) -> Result<(), CloseReason> {
        let banner = UserauthBanner::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        let limits = &cx.common.limits;
        let room = limits.banner_bytes.saturating_sub(self.banner_bytes);
        // DoS: a server could send banners for ever. What exceeds the limits is dropped.
        if self.banners < limits.banners && room > 0 {
            self.banners = self.banners.saturating_add(1);
            let text = PeerText::with_limit(banner.message, room);
            self.banner_bytes = self.banner_bytes.saturating_add(text.as_bytes().len());
            cx.events.push(CoreEvent::Banner(text));
        }
        Ok(())
    }

    pub(crate) fn on_failure(&mut self, cx: &mut AuthContext<'_>, payload: &[u8]) -> Result<(), CloseReason> {
        let failure = UserauthFailure::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        self.remaining = failure.methods.iter().take(32).map(String::from).collect();
        self.phase = Phase::Idle;
        cx.timers.stop(TimeoutReason::Login);
        let (remaining, partial) = (self.remaining.clone(), failure.partial_success);
        cx.events.push(CoreEvent::AuthFailed { remaining, partial });
        Ok(())
    }

    pub(crate) fn on_success(
        &mut self,
        cx: &mut AuthContext<'_>,
        payload: &[u8],
    ) -> Result<Authenticated, CloseReason> {
        UserauthSuccess::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        self.phase = Phase::Done;
        cx.timers.stop(TimeoutReason::Login);
        cx.events.push(CoreEvent::LoggedIn);
        Ok(Authenticated(()))
    }

    /// Message 60: PK_OK for a probe, PASSWD_CHANGEREQ for a password.
    pub(crate) fn on_60(&mut self, cx: &mut AuthContext<'_>, payload: &[u8]) -> Result<(), CloseReason> {
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Sent { method: AuthMethod::PublicKeyProbe, probed: Some(attempt) } => {
                let ok = UserauthPkOk::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
                let same =
                    ok.key == attempt.key.public.as_blob() && ok.algorithm == attempt.algorithm.as_bytes();
                if !same {
                    return Err(PeerMisbehaved::WrongKeyAccepted.into());
                }
                if self.requests >= cx.common.limits.client_auth_requests {
                    self.failed(cx);
                } else {
                    self.sign(cx, attempt);
                }
                Ok(())
            }
            Phase::Sent { method: AuthMethod::Password, .. } => {
                UserauthPasswdChangereq::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
                self.failed(cx);
                Ok(())
            }
            _ => Err(PeerMisbehaved::UnexpectedMessage.into()),
        }
    }
}

/// Whether a signature is the one that the attempt needs.
fn verifies(cx: &AuthContext<'_>, attempt: &KeyAttempt, signature: &Signature) -> bool {
    let KeyAttempt { user, key, algorithm } = attempt;
    let key = key.public.as_blob();
    let message = signed_data(cx.session_id, user, CONNECTION, algorithm, key);
    let verifier = cx.common.provider.signatures.iter().find(|verifier| verifier.name() == *algorithm);
    verifier.is_some_and(|verifier| verifier.verify(key, &message, signature.as_bytes()).is_ok())
}
