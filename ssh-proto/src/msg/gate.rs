//! The gate: which message is legal when.
//!
//! One total function of role, state, strictness and message number. Nothing is dispatched without its
//! verdict, so a handler never has to ask whether it should have been reached. The states are those of the
//! whole connection as the *receiving* side sees it; the diagram shows the client's, the server's differ in
//! who waits for whom.
//!
//! ```text
//! AwaitKexInit ─▶ [KexSkipGuess] ─▶ Kex… ─▶ [HostKeyPending] ─▶ AwaitNewKeys
//!       ─▶ ServiceFirst ─▶ Service ─▶ AuthIdle ⇄ Auth… ─▶ Authed
//! Authed ⇄ RekeySent ─▶ [RekeySkipGuess] ─▶ RekeyKex… ─▶ RekeyAwaitNewKeys ─▶ Authed
//! ```

use super::number::*;
use crate::role::Side;

/// Where a connection stands, for the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Before the peer's first KEXINIT.
    AwaitKexInit,
    /// The initial exchange: the peer's wrongly guessed packet comes next and is skipped.
    KexSkipGuess,
    /// The initial exchange: a method message comes next.
    Kex(KexStep),
    /// The initial exchange: the client's embedder judges the host key.
    HostKeyPending,
    /// The initial exchange: the server's embedder signs.
    KexSignPending,
    /// The initial exchange: only the peer's NEWKEYS is missing.
    AwaitNewKeys,
    /// Right behind the first NEWKEYS.
    ServiceFirst,
    /// Before a service is accepted.
    Service,
    /// Between authentication requests.
    AuthIdle,
    /// The client's embedder signs a request.
    AuthSignPending,
    /// The client awaits the answer to a request.
    AuthSent(AuthMethod),
    /// The server sent prompts.
    AuthPrompted,
    /// The server's embedder decides, or the answer is held back.
    AuthDecisionPending,
    /// Authenticated, no exchange under way.
    Authed,
    /// Authenticated; our KEXINIT is out, the peer's is not in.
    RekeySent,
    /// A re-exchange: the peer's wrongly guessed packet comes next and is skipped.
    RekeySkipGuess,
    /// A re-exchange: a method message comes next.
    RekeyKex(KexStep),
    /// A re-exchange: the server's embedder signs.
    RekeySignPending,
    /// A re-exchange: only the peer's NEWKEYS is missing.
    RekeyAwaitNewKeys,
    /// Over; what still comes is discarded.
    Closing,
}

/// The method message an exchange waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KexStep {
    /// 30 at the server, 31 at the client.
    Single,
    /// Group exchange: 34 at the server, 31 at the client.
    GexFirst,
    /// Group exchange: 32 at the server, 33 at the client.
    GexSecond,
}

/// The method of a client's outstanding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// `none`.
    None,
    /// `password`.
    Password,
    /// `publickey` without signature.
    PublicKeyProbe,
    /// `publickey` with signature.
    PublicKeySigned,
    /// `keyboard-interactive`.
    KeyboardInteractive,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Dispatch it.
    Accept,
    /// Dispatch it; its layer has a further condition, and what fails that is a violation.
    AcceptIf,
    /// It has no effect, and costs from the noise budget. IGNORE, UNIMPLEMENTED and DEBUG must be well-formed all
    /// the same; of anything else nobody looks.
    Ignore,
    /// Dispatch it; what answers nothing costs from the noise budget.
    UseIfAwaited,
    /// Answer UNIMPLEMENTED.
    Unimplemented,
    /// DISCONNECT: it ends the connection, silently.
    Terminate,
    /// The wrong guess: drop it, once.
    Skip,
    /// Disconnect with reason 2.
    Violation,
    /// Not read now: input is paused.
    NotRead,
    /// Dropped without a trace.
    Discard,
}

/// Judges message `number` arriving at `side` in `state`.
///
/// `strict` says whether strict key exchange was negotiated; before both KEXINITs are known it is false.
pub fn admit(side: Side, state: State, strict: bool, number: u8) -> Verdict {
    use State::*;
    match state {
        Closing => Verdict::Discard,
        HostKeyPending | KexSignPending | AuthDecisionPending | RekeySignPending => Verdict::NotRead,
        _ if number == 0 => Verdict::Violation,
        _ if number == DISCONNECT => Verdict::Terminate,
        // Strictness of the initial exchange is only known behind the KEXINITs; the transport checks it for
        // what came before when they meet.
        AwaitKexInit => match number {
            KEXINIT => Verdict::AcceptIf,
            _ => exchange_noise(number, false),
        },
        KexSkipGuess => skip_guess(number, strict),
        RekeySkipGuess => skip_guess(number, false),
        Kex(step) => kex_method(side, step, number, strict),
        RekeyKex(step) => kex_method(side, step, number, false),
        AwaitNewKeys | RekeyAwaitNewKeys => match number {
            NEWKEYS => Verdict::Accept,
            _ => exchange_noise(number, strict && state == AwaitNewKeys),
        },
        ServiceFirst | Service | AuthIdle | AuthSignPending | AuthSent(_) | AuthPrompted => {
            before_auth(side, state, number)
        }
        Authed | RekeySent => authenticated(side, number),
    }
}

/// IGNORE, UNIMPLEMENTED and DEBUG during an exchange; everything else breaks it.
fn exchange_noise(number: u8, strict: bool) -> Verdict {
    match number {
        IGNORE | UNIMPLEMENTED | DEBUG if !strict => Verdict::Ignore,
        _ => Verdict::Violation,
    }
}

fn skip_guess(number: u8, strict: bool) -> Verdict {
    match number {
        30..=49 => Verdict::Skip,
        _ => exchange_noise(number, strict),
    }
}

fn kex_method(side: Side, step: KexStep, number: u8, strict: bool) -> Verdict {
    let expected = match (side, step) {
        (Side::Server, KexStep::Single) => KEX_ECDH_INIT,
        (Side::Server, KexStep::GexFirst) => KEX_GEX_REQUEST,
        (Side::Server, KexStep::GexSecond) => KEX_GEX_INIT,
        (Side::Client, KexStep::Single | KexStep::GexFirst) => KEX_ECDH_REPLY,
        (Side::Client, KexStep::GexSecond) => KEX_GEX_REPLY,
    };
    if number == expected { Verdict::Accept } else { exchange_noise(number, strict) }
}

/// Numbers that RFC 4250 §4.1.2 assigns to nothing outside of a key exchange, below 128.
fn unassigned(number: u8) -> bool {
    matches!(number, 9..=19 | 22..=29 | 54..=59)
}

fn before_auth(side: Side, state: State, number: u8) -> Verdict {
    use State::*;
    let in_auth = !matches!(state, ServiceFirst | Service);
    match (side, number) {
        (_, IGNORE | UNIMPLEMENTED | DEBUG | PING) => Verdict::Ignore,
        (_, PONG) => Verdict::UseIfAwaited,
        (_, EXT_INFO) if state == ServiceFirst => Verdict::AcceptIf,
        (Side::Client, EXT_INFO) if in_auth => Verdict::AcceptIf,
        (Side::Server, SERVICE_REQUEST) if !in_auth => Verdict::Accept,
        // Paramiko repeats the service request for every attempt.
        (Side::Server, SERVICE_REQUEST) => Verdict::AcceptIf,
        (Side::Server, USERAUTH_REQUEST) if in_auth => Verdict::Accept,
        (Side::Server, USERAUTH_INFO_RESPONSE) if state == AuthPrompted => Verdict::AcceptIf,
        (Side::Client, SERVICE_ACCEPT) if !in_auth => Verdict::AcceptIf,
        (Side::Client, USERAUTH_BANNER) if in_auth => Verdict::Accept,
        (Side::Client, USERAUTH_FAILURE | USERAUTH_SUCCESS) if matches!(state, AuthSent(_)) => {
            Verdict::Accept
        }
        (Side::Client, USERAUTH_60) => match state {
            AuthSent(AuthMethod::Password | AuthMethod::PublicKeyProbe | AuthMethod::KeyboardInteractive) => {
                Verdict::AcceptIf
            }
            _ => Verdict::Violation,
        },
        (_, 128..) => Verdict::Unimplemented,
        _ if unassigned(number) => Verdict::Unimplemented,
        _ => Verdict::Violation,
    }
}

fn authenticated(side: Side, number: u8) -> Verdict {
    match number {
        IGNORE | UNIMPLEMENTED | DEBUG => Verdict::Ignore,
        KEXINIT => Verdict::Accept,
        // RFC 4252 §5.1: requests behind the success are ignored silently.
        USERAUTH_REQUEST | USERAUTH_INFO_RESPONSE if side == Side::Server => Verdict::Ignore,
        GLOBAL_REQUEST | CHANNEL_OPEN => Verdict::Accept,
        REQUEST_SUCCESS | REQUEST_FAILURE | CHANNEL_SUCCESS | CHANNEL_FAILURE | PONG => Verdict::UseIfAwaited,
        CHANNEL_OPEN_CONFIRMATION..=CHANNEL_REQUEST | PING => Verdict::AcceptIf,
        83..=89 | 101.. => Verdict::Unimplemented,
        _ if unassigned(number) => Verdict::Unimplemented,
        _ => Verdict::Violation,
    }
}
