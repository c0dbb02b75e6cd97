//! Commands and answers of the embedder.

use crate::auth::Auth;
use crate::auth::client::Credential;
use crate::auth::server::AuthVerdict;
use crate::connection::Connection;
use crate::error::{
    AnswerError, ApiMisuse, AuthError, CloseReason, Disconnect, OpenError, RequestError, UnknownChannel,
};
use crate::event::{ChannelId, RequestId};
use crate::kex::Progress;
use crate::key::{SignRefused, Signature};
use crate::machine::Core;
use crate::msg::request::{ChannelKind, GlobalReply, GlobalRequestKind, OpenFailure};
use crate::mux::channel::ChannelConfig;
use crate::mux::handle::Channel;
use crate::mux::{Mux, MuxContext};
use crate::role::{Client, Role, Server};
use crate::ticket::{
    AuthRequest, ChannelRequest, GlobalRequest, HostKeyCheck, KeyProbe, OpenRequest, SignRequest, Ticket,
};
use crate::timer::TimeoutReason;
#[cfg(feature = "raw")]
use crate::transport::Volume;

impl Core {
    /// Whether a ticket may still be answered here.
    fn check(&self, ticket: &Ticket) -> Result<(), AnswerError> {
        ticket.check_home(&self.identity)?;
        if self.is_closing() { Err(AnswerError::Gone) } else { Ok(()) }
    }

    /// Answers a question of the mux.
    fn answer<T>(
        &mut self,
        ticket: Ticket,
        answer: impl FnOnce(&mut Mux, &mut MuxContext<'_>, Ticket) -> Result<T, AnswerError>,
    ) -> Result<T, AnswerError> {
        self.check(&ticket)?;
        let (mux, mut cx) = self.mux_parts().ok_or(AnswerError::Gone)?;
        let result = answer(mux, &mut cx, ticket);
        self.pump();
        result
    }

    /// Goes on after an answer to a question of the key exchange.
    fn after_kex_answer(
        &mut self,
        ticket: Ticket,
        result: Option<Result<Progress, CloseReason>>,
    ) -> Result<(), AnswerError> {
        let result = result.ok_or(AnswerError::Gone)?;
        ticket.settle();
        match result {
            Ok(progress) => {
                let limits = self.limits();
                let timeout = if self.mux.is_some() { limits.rekey_timeout } else { limits.kex_timeout };
                self.timers.start(TimeoutReason::Kex, Some(timeout));
                self.after_kex_step(progress);
                self.pump();
            }
            Err(reason) => {
                let invalid = reason == CloseReason::SignatureInvalid;
                self.close_with(reason);
                if invalid {
                    return Err(AnswerError::Refused);
                }
            }
        }
        Ok(())
    }

    fn judge_host_key(&mut self, check: HostKeyCheck, accepted: bool) -> Result<(), AnswerError> {
        let ticket = check.ticket;
        self.check(&ticket)?;
        let (kex, mut cx) = self.kex_parts();
        let result = kex.judge_host_key(&mut cx, &ticket, accepted);
        self.after_kex_answer(ticket, result)
    }

    fn provide_signature(
        &mut self,
        request: SignRequest,
        signature: Option<Signature>,
    ) -> Result<(), AnswerError> {
        let ticket = request.ticket;
        self.check(&ticket)?;
        if request.user.is_none() {
            let (kex, mut cx) = self.kex_parts();
            let result = kex.provide_signature(&mut cx, &ticket, signature);
            return self.after_kex_answer(ticket, result);
        }
        let (auth, mut cx) = self.auth_parts();
        let Auth::Client(auth) = auth else { return Err(AnswerError::Gone) };
        let result = auth.provide_signature(&mut cx, &ticket, signature).ok_or(AnswerError::Gone)?;
        ticket.settle();
        self.pump();
        result
    }
}

impl<R: Role> Connection<R> {
    /// Ends the connection with a DISCONNECT.
    pub fn close(&mut self, reason: Disconnect) {
        if !self.core.is_closing() {
            self.core.send_disconnect(reason.code, &reason.description);
            self.core.close_with(CloseReason::Local(reason.code));
        }
    }

    /// Asks for new keys. Before authentication it waits.
    pub fn rekey(&mut self) {
        self.core.rekey_wanted = true;
        self.core.pump();
    }

    /// A handle on a channel.
    ///
    /// # Errors
    /// [`UnknownChannel`] when it was released, or never was.
    pub fn channel(&mut self, id: ChannelId) -> Result<Channel<'_>, UnknownChannel> {
        Channel::new(&mut self.core, id)
    }

    /// Opens a channel. `Opened` or `OpenFailed` follows; requests may be made at once.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_channel(
        &mut self,
        kind: &ChannelKind,
        config: ChannelConfig,
    ) -> Result<ChannelId, OpenError> {
        if self.core.is_closing() {
            return Err(OpenError::Closed);
        }
        let (mux, mut cx) = self.core.mux_parts().ok_or(OpenError::NotAuthenticated)?;
        let id = mux.open(&mut cx, kind, config)?;
        self.core.pump();
        Ok(id)
    }

    /// Accepts a channel the peer wants to open. It is open at once.
    ///
    /// # Errors
    /// [`AnswerError`]; [`AnswerError::Refused`] when there are too many channels.
    pub fn accept_channel(
        &mut self,
        request: OpenRequest,
        config: ChannelConfig,
    ) -> Result<ChannelId, AnswerError> {
        self.core.answer(request.ticket, |mux, cx, ticket| mux.accept(cx, ticket, config))
    }

    /// Refuses a channel the peer wants to open.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reject_channel(&mut self, request: OpenRequest, why: OpenFailure) -> Result<(), AnswerError> {
        self.core.answer(request.ticket, |mux, cx, ticket| mux.reject(cx, ticket, why))
    }

    /// Answers a channel request. For one that wants no reply it does nothing.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reply_request(&mut self, request: ChannelRequest, ok: bool) -> Result<(), AnswerError> {
        let Some(ticket) = request.ticket else { return Ok(()) };
        let id = request.channel;
        self.core.answer(ticket, |mux, cx, ticket| mux.reply_request(cx, ticket, id, ok))
    }

    /// Makes a global request; `GlobalReply` with the same id answers it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn global_request(&mut self, request: &GlobalRequestKind) -> Result<RequestId, RequestError> {
        if self.core.is_closing() {
            return Err(RequestError::Closed);
        }
        let (mux, mut cx) = self.core.mux_parts().ok_or(RequestError::NotAuthenticated)?;
        let id = mux.global_request(&mut cx, request)?;
        self.core.pump();
        Ok(id)
    }

    /// Answers a global request. For one that wants no reply it does nothing.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reply_global(
        &mut self,
        request: GlobalRequest,
        reply: GlobalReply<'_>,
    ) -> Result<(), AnswerError> {
        let Some(ticket) = request.ticket else { return Ok(()) };
        self.core.answer(ticket, |mux, cx, ticket| mux.reply_global(cx, ticket, reply))
    }

    /// Brings a signature, or says that there is none. One by another algorithm than asked for is none.
    ///
    /// # Errors
    /// [`AnswerError`]; [`AnswerError::Refused`] for a signature that does not verify, of which nothing is sent:
    /// the attempt of a user key came to nothing then (`AuthFailed`), and without a host key's signature the
    /// connection ends with [`CloseReason::SignatureInvalid`]. One of [`adapter::sign`](crate::adapter::sign) by a signer
    /// that [needs no check](crate::Signer::needs_check) is sent as it is.
    pub fn provide_signature(
        &mut self,
        request: SignRequest,
        signature: Result<Signature, SignRefused>,
    ) -> Result<(), AnswerError> {
        self.core.provide_signature(request, signature.ok())
    }

    /// Sends a payload as it is, in whatever state. For tests and fuzzing.
    #[cfg(feature = "raw")]
    pub fn send_raw(&mut self, payload: &[u8]) {
        self.core.out.transport_with(payload.len(), |out| out.extend_from_slice(payload));
    }

    /// Sets what was received under the current key, in packets and bytes. For tests of what wears a key out.
    #[cfg(feature = "raw")]
    pub fn set_received(&mut self, packets: u64, bytes: u64) {
        *self.core.incoming.volume_mut() = Volume { packets, bytes };
    }

    /// Sets what was sent under the current key, in packets and bytes. For tests of what wears a key out.
    #[cfg(feature = "raw")]
    pub fn set_sent(&mut self, packets: u64, bytes: u64) {
        *self.core.out.volume_mut() = Volume { packets, bytes };
    }

    /// Where the connection stands, as its gate sees it. For tests and fuzzing.
    #[cfg(feature = "raw")]
    pub fn gate_state(&self) -> crate::raw::State {
        self.core.gate_state()
    }
}

impl Connection<Client> {
    /// The host key is right: the connection goes on.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn accept_host_key(&mut self, check: HostKeyCheck) -> Result<(), AnswerError> {
        self.core.judge_host_key(check, true)
    }

    /// The host key is wrong: the connection ends.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reject_host_key(&mut self, check: HostKeyCheck) -> Result<(), AnswerError> {
        self.core.judge_host_key(check, false)
    }

    /// Tries to log in. It may be called right after `new`, for one attempt at a time; it leaves when the
    /// phase allows. `Authenticated` or `AuthFailed` follows.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn authenticate(&mut self, user: &str, with: Credential) -> Result<(), AuthError> {
        if self.core.is_closing() {
            return Err(AuthError::Closed);
        }
        let result = match self.core.auth_parts() {
            (Auth::Client(auth), mut cx) => auth.authenticate(&mut cx, user, with),
            _ => Err(AuthError::Closed),
        };
        self.core.pump();
        result
    }
}

impl Connection<Server> {
    /// Decides on an authentication request. A refusal is sent when
    /// [`Limits::auth_failure_delay`](crate::Limits::auth_failure_delay) has passed since the request.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reply_auth(&mut self, request: AuthRequest, verdict: AuthVerdict) -> Result<(), AnswerError> {
        let ticket = request.ticket;
        self.core.check(&ticket)?;
        let (auth, mut cx) = self.core.auth_parts();
        let Auth::Server(auth) = auth else { return Err(AnswerError::Gone) };
        let proof = auth.reply_auth(&mut cx, &ticket, verdict).ok_or(AnswerError::Gone)?;
        ticket.settle();
        if let Some(proof) = proof {
            self.core.become_authenticated(proof);
        }
        self.core.pump();
        Ok(())
    }

    /// Says whether a signature by the probed key would be acceptable.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn reply_probe(&mut self, probe: KeyProbe, acceptable: bool) -> Result<(), AnswerError> {
        let ticket = probe.ticket;
        self.core.check(&ticket)?;
        let (auth, mut cx) = self.core.auth_parts();
        let Auth::Server(auth) = auth else { return Err(AnswerError::Gone) };
        auth.reply_probe(&mut cx, &ticket, acceptable).ok_or(AnswerError::Gone)?;
        ticket.settle();
        self.core.pump();
        Ok(())
    }

    /// Sends a banner to be shown before authentication; it waits until that begins.
    ///
    /// # Errors
    /// [`ApiMisuse::BannerNotPossible`] after authentication, after the end, beyond the limits,
    /// and for a text of more than 32 KiB, which does not fit a packet before authentication.
    pub fn banner(&mut self, text: &str) -> Result<(), ApiMisuse> {
        if self.core.is_closing() {
            return Err(ApiMisuse::BannerNotPossible);
        }
        match self.core.auth_parts() {
            (Auth::Server(auth), mut cx) => auth.banner(&mut cx, text)?,
            _ => return Err(ApiMisuse::BannerNotPossible),
        }
        self.core.pump();
        Ok(())
    }
}
