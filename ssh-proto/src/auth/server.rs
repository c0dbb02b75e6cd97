//! The server's half: one decision at a time, answered by the embedder.
//!
//! ```text
//! AwaitService ── SERVICE_REQUEST ──▶ Idle ── USERAUTH_REQUEST ──▶ Deciding ──▶ Done
//!                                      ▲                              │ no
//!                                      └──── the delay passed ◀── Holding
//! ```

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;

use super::{AuthContext, Authenticated, CONNECTION, USERAUTH, acceptable_user};
use crate::config::{AuthMethods, Limits};
use crate::crypto::SignatureAlgorithm;
use crate::error::{ApiMisuse, CloseReason, PeerMisbehaved};
use crate::event::{AuthIdentity, CoreEvent};
use crate::key::PublicKey;
use crate::msg::auth::{
    MAX_SIGNATURE, Method, UserauthBanner, UserauthFailure, UserauthPkOk, UserauthRequest, UserauthSuccess,
    signed_data, split_signature,
};
use crate::msg::gate::State;
use crate::msg::transport::{ExtInfo, ServiceAccept, ServiceRequest};
use crate::msg::{Message, limit};
use crate::mux::outbox::MAX_PAYLOAD;
use crate::secret::Secret;
use crate::text::Name;
use crate::ticket::{AuthProof, AuthRequest, KeyProbe, Pending, Ticket};
use crate::time::Instant;
use crate::timer::TimeoutReason;
use crate::wire::{NameList, PutSsh};

/// The embedder's answer to an [`AuthRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthVerdict {
    /// Let the user in.
    Accept,
    /// The proof does not do; these methods are possible.
    Reject {
        /// Methods that can go on. Others are refused without asking until a verdict names them.
        next: AuthMethods,
    },
    /// The proof does, and more is needed.
    Partial {
        /// Methods that can go on. Others are refused without asking until a verdict names them.
        next: AuthMethods,
    },
}

#[derive(Debug)]
enum Question {
    Probe { algorithm: &'static str, key: PublicKey },
    Request { method: &'static str, key: Option<PublicKey> },
}

#[derive(Debug)]
enum Phase {
    AwaitService,
    Idle,
    Deciding { pending: Pending, question: Question, received: Instant },
    Holding { disconnect: bool },
    Done,
}

pub(crate) struct ServerAuth {
    phase: Phase,
    /// The user of the first request; it stays the same.
    user: Option<Name>,
    methods: Vec<&'static str>,
    key: Option<PublicKey>,
    failures: u32,
    requests: u32,
    /// What can go on, by the last verdict; at first, by the configuration.
    possible: AuthMethods,
    banners: u32,
    banner_bytes: usize,
    queued_banners: Vec<String>,
}

impl ServerAuth {
    pub(crate) fn new(possible: AuthMethods) -> Self {
        Self {
            phase: Phase::AwaitService,
            user: None,
            methods: Vec::new(),
            key: None,
            failures: 0,
            requests: 0,
            possible,
            banners: 0,
            banner_bytes: 0,
            queued_banners: Vec::new(),
        }
    }

    pub(crate) fn gate_state(&self) -> State {
        match &self.phase {
            Phase::AwaitService => State::Service,
            Phase::Idle => State::AuthIdle,
            Phase::Deciding { .. } | Phase::Holding { .. } => State::AuthDecisionPending,
            Phase::Done => State::Authed,
        }
    }

    /// Whether a decision is with the embedder.
    pub(crate) fn awaits_answer(&self) -> bool {
        matches!(self.phase, Phase::Deciding { .. })
    }

    /// EXT_INFO of a client: it tells nothing a server needs yet.
    pub(crate) fn on_ext_info(&mut self, payload: &[u8]) -> Result<(), CloseReason> {
        ExtInfo::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        Ok(())
    }

    pub(crate) fn on_service_request(
        &mut self,
        cx: &mut AuthContext<'_>,
        payload: &[u8],
    ) -> Result<(), CloseReason> {
        let request = ServiceRequest::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        if request.service != USERAUTH {
            return Err(PeerMisbehaved::UnknownService.into());
        }
        self.count_request(&cx.common.limits)?;
        if let Some(mut sender) = cx.out.service() {
            sender.send(&ServiceAccept { service: USERAUTH });
        }
        if matches!(self.phase, Phase::AwaitService) {
            self.phase = Phase::Idle;
            for banner in mem::take(&mut self.queued_banners) {
                send_banner(cx, &banner);
            }
        }
        Ok(())
    }

    fn count_request(&mut self, limits: &Limits) -> Result<(), CloseReason> {
        self.requests = self.requests.saturating_add(1);
        match self.requests > limits.auth_requests {
            true => Err(PeerMisbehaved::TooManyAuthRequests.into()),
            false => Ok(()),
        }
    }

    pub(crate) fn on_request(&mut self, cx: &mut AuthContext<'_>, payload: &[u8]) -> Result<(), CloseReason> {
        let request = UserauthRequest::decode(payload).map_err(|_| PeerMisbehaved::MalformedMessage)?;
        self.count_request(&cx.common.limits)?;
        if request.service != CONNECTION {
            let changed = self.user.is_some();
            let rule =
                if changed { PeerMisbehaved::UserOrServiceChanged } else { PeerMisbehaved::UnknownService };
            return Err(rule.into());
        }
        // CVE-2026-46705: what one user proved must never count for another.
        match &self.user {
            Some(user) if *user != request.user => {
                return Err(PeerMisbehaved::UserOrServiceChanged.into());
            }
            Some(_) => {}
            None => self.user = Some(request.user.into()),
        }
        if !acceptable_user(request.user) {
            self.refuse(cx, cx.now, true);
            return Ok(());
        }
        match request.method {
            // Listed nowhere, and always a question (RFC 4252 §5.2).
            Method::None => self.ask(cx, "none", AuthProof::None, None),
            Method::Password { password, new } if self.possible.contains(AuthMethods::PASSWORD) => {
                match (password_text(password), new.map(password_text)) {
                    (Some(password), None) => self.ask(cx, "password", AuthProof::Password(password), None),
                    (Some(old), Some(Some(new))) => {
                        self.ask(cx, "password", AuthProof::PasswordChange { old, new }, None);
                    }
                    _ => self.refuse(cx, cx.now, true),
                }
            }
            Method::PublicKey { algorithm, key, signature }
                if self.possible.contains(AuthMethods::PUBLICKEY) =>
            {
                self.on_public_key(cx, request.user, (algorithm, key, signature));
            }
            // Not possible now, or not known: nobody is asked.
            Method::Password { .. } | Method::PublicKey { .. } | Method::Other { .. } => {
                self.refuse(cx, cx.now, true);
            }
        }
        Ok(())
    }

    fn on_public_key(
        &mut self,
        cx: &mut AuthContext<'_>,
        user: &str,
        (name, blob, signature): (&str, &[u8], Option<&[u8]>),
    ) {
        let signatures = cx.common.provider.signatures;
        let algorithm = signatures.iter().find(|algorithm| algorithm.name() == name).copied();
        let key = PublicKey::from_blob(blob).ok();
        let fitting = algorithm.zip(key).filter(|(algorithm, key)| {
            // With a signature, verifying looks at the key as well.
            let sound = signature.is_some() || algorithm.check_key(blob).is_ok();
            key.key_type() == algorithm.key_type() && sound
        });
        let Some((algorithm, key)) = fitting else { return self.refuse(cx, cx.now, true) };
        let name = algorithm.name();
        match signature {
            None => {
                let (pending, ticket) = Pending::new(cx.identity);
                let probe = KeyProbe { ticket, user: user.into(), key: key.clone(), algorithm: name };
                cx.events.push(CoreEvent::Probe(probe));
                let question = Question::Probe { algorithm: name, key };
                self.phase = Phase::Deciding { pending, question, received: cx.now };
            }
            Some(signature) if verify(cx, user, algorithm, &key, signature) => {
                let proof = AuthProof::PublicKey { key: key.clone(), algorithm: name };
                self.ask(cx, "publickey", proof, Some(key));
            }
            Some(_) => self.refuse(cx, cx.now, true),
        }
    }

    fn ask(
        &mut self,
        cx: &mut AuthContext<'_>,
        method: &'static str,
        proof: AuthProof,
        key: Option<PublicKey>,
    ) {
        let (pending, ticket) = Pending::new(cx.identity);
        let user = self.user.clone().unwrap_or_default();
        cx.events.push(CoreEvent::Auth(AuthRequest { ticket, user, proof }));
        let question = Question::Request { method, key };
        self.phase = Phase::Deciding { pending, question, received: cx.now };
    }

    /// A refusal leaves no sooner than the delay after its request, however fast it was decided, and one that was
    /// decided later leaves at a doubling of it: the time must not tell which users and keys exist.
    fn refuse(&mut self, cx: &mut AuthContext<'_>, received: Instant, counts: bool) {
        self.failures = self.failures.saturating_add(u32::from(counts));
        let disconnect = self.failures >= cx.common.limits.auth_failures;
        self.phase = Phase::Holding { disconnect };
        cx.timers.start_step(TimeoutReason::AuthDelay, received, cx.common.limits.auth_failure_delay);
    }

    /// The delay of a refusal passed.
    pub(crate) fn on_delay(&mut self, cx: &mut AuthContext<'_>) -> Result<(), CloseReason> {
        if let Phase::Holding { disconnect } = self.phase {
            if disconnect {
                return Err(PeerMisbehaved::TooManyAuthFailures.into());
            }
            send_failure(cx, self.possible, false);
            self.phase = Phase::Idle;
        }
        Ok(())
    }

    /// The embedder's answer to a request. `None` when the ticket is not ours any more.
    pub(crate) fn reply_auth(
        &mut self,
        cx: &mut AuthContext<'_>,
        ticket: &Ticket,
        verdict: AuthVerdict,
    ) -> Option<Option<Authenticated>> {
        let (method, key, received) = match &self.phase {
            Phase::Deciding { pending, question: Question::Request { method, key }, received }
                if pending.is(ticket) =>
            {
                (*method, key.clone(), *received)
            }
            _ => return None,
        };
        match verdict {
            AuthVerdict::Reject { next } => {
                self.possible = next;
                self.refuse(cx, received, method != "none");
            }
            AuthVerdict::Partial { next } => {
                self.possible = next;
                self.record(method, key);
                send_failure(cx, next, true);
                self.phase = Phase::Idle;
            }
            AuthVerdict::Accept => {
                if let Some(mut sender) = cx.out.service() {
                    sender.send(&UserauthSuccess {});
                }
                if !cx.out.may_serve() {
                    // It could not be sealed. The connection ends, and nobody is told of a login.
                    return Some(None);
                }
                self.record(method, key);
                self.phase = Phase::Done;
                cx.timers.stop(TimeoutReason::Login);
                cx.events.push(CoreEvent::Authenticated(AuthIdentity {
                    user: self.user.clone().unwrap_or_default(),
                    methods: self.methods.clone(),
                    key: self.key.clone(),
                }));
                return Some(Some(Authenticated(())));
            }
        }
        Some(None)
    }

    fn record(&mut self, method: &'static str, key: Option<PublicKey>) {
        self.methods.push(method);
        // The key that signed, never one that was only offered (CVE-2024-45337).
        self.key = key.or_else(|| self.key.take());
    }

    /// The embedder's answer to a probe. `None` when the ticket is not ours any more.
    pub(crate) fn reply_probe(
        &mut self,
        cx: &mut AuthContext<'_>,
        ticket: &Ticket,
        acceptable: bool,
    ) -> Option<()> {
        let received = match &self.phase {
            Phase::Deciding { pending, question: Question::Probe { algorithm, key }, received }
                if pending.is(ticket) =>
            {
                if acceptable && let Some(mut sender) = cx.out.service() {
                    let (algorithm, key) = (algorithm.as_bytes(), key.as_blob());
                    let size = algorithm.len().saturating_add(key.len()).saturating_add(9);
                    sender.send_with(size, |out| UserauthPkOk { algorithm, key }.encode(out));
                }
                *received
            }
            _ => return None,
        };
        if acceptable {
            self.phase = Phase::Idle;
        } else {
            self.refuse(cx, received, true);
        }
        Some(())
    }

    /// A dropped question is a refusal.
    pub(crate) fn sweep(&mut self, cx: &mut AuthContext<'_>) {
        if let Phase::Deciding { pending, question, received } = &self.phase
            && pending.is_dropped()
        {
            let (received, none) = (*received, matches!(question, Question::Request { method: "none", .. }));
            self.refuse(cx, received, !none);
        }
    }

    /// Sends a banner, or keeps it until the service is accepted.
    pub(crate) fn banner(&mut self, cx: &mut AuthContext<'_>, text: &str) -> Result<(), ApiMisuse> {
        let limits = &cx.common.limits;
        let bytes = self.banner_bytes.saturating_add(text.len());
        let one = text.len() <= MAX_PAYLOAD;
        let fits = one && self.banners < limits.banners && bytes <= limits.banner_bytes;
        if !fits || matches!(self.phase, Phase::Done) {
            return Err(ApiMisuse::BannerNotPossible);
        }
        self.banners = self.banners.saturating_add(1);
        self.banner_bytes = bytes;
        if matches!(self.phase, Phase::AwaitService) {
            self.queued_banners.push(text.to_string());
        } else {
            send_banner(cx, text);
        }
        Ok(())
    }
}

/// A password that is UTF-8 and no longer than any.
fn password_text(password: &[u8]) -> Option<Secret<str>> {
    let fits = password.len() <= limit::PASSWORD;
    core::str::from_utf8(password).ok().filter(|_| fits).map(Secret::from)
}

/// Verifies the signature of a `publickey` request: by this key, this algorithm, over this session and
/// request.
fn verify(
    cx: &AuthContext<'_>,
    user: &str,
    algorithm: &dyn SignatureAlgorithm,
    key: &PublicKey,
    signature: &[u8],
) -> bool {
    if signature.len() > MAX_SIGNATURE {
        return false;
    }
    let Ok((name, bytes)) = split_signature(signature) else { return false };
    let message = signed_data(cx.session_id, user, CONNECTION, algorithm.name(), key.as_blob());
    name == algorithm.name() && algorithm.verify(key.as_blob(), &message, bytes).is_ok()
}

fn send_banner(cx: &mut AuthContext<'_>, text: &str) {
    if let Some(mut sender) = cx.out.service() {
        let banner = UserauthBanner { message: text.as_bytes(), language: b"" };
        sender.send_with(text.len().saturating_add(9), |out| banner.encode(out));
    }
}

fn send_failure(cx: &mut AuthContext<'_>, next: AuthMethods, partial_success: bool) {
    let mut names = Vec::new();
    names.put_names(next.names());
    let list = names.get(4..).and_then(|list| NameList::parse(list).ok()).unwrap_or(NameList::EMPTY);
    if let Some(mut sender) = cx.out.service() {
        sender.send(&UserauthFailure { methods: list, partial_success });
    }
}
