//! Logging in, one attempt at a time, by calls that may give up.

use alloc::string::String;
use alloc::vec::Vec;

use super::Error;
use crate::ticket::SignRequest;

/// The attempt to log in that is under way, and what came of it.
///
/// A connection makes one attempt at a time, and its outcome carries no number. A call waits until the attempt
/// [is free](Self::is_free), [begins](Self::begin) its own and takes its [steps](Self::take_step) until it is done;
/// one that returns early [gives up](Self::give_up), and its attempt goes on unseen.
#[derive(Debug, Default)]
pub struct Login {
    /// The server has not decided yet.
    pending: bool,
    /// Who made the attempt still waits. For nobody no signature is asked for, and no outcome kept.
    awaited: bool,
    sign: Option<SignRequest>,
    outcome: Option<Result<(), Error>>,
}

/// What an attempt comes to.
#[derive(Debug)]
pub enum LoginStep {
    /// The server wants a signature.
    Sign(SignRequest),
    /// The server has decided.
    Done(Result<(), Error>),
}

impl Login {
    /// Whether an attempt may begin: nobody is at one, and none is undecided.
    pub fn is_free(&self) -> bool {
        !self.pending && !self.awaited
    }

    /// An attempt was made, and somebody waits for what comes of it.
    pub fn begin(&mut self) {
        *self = Self { pending: true, awaited: true, ..Self::default() };
    }

    /// The server wants a signature; for nobody it is refused.
    pub fn asked(&mut self, request: SignRequest) {
        self.sign = self.awaited.then_some(request);
    }

    /// The server let us in.
    pub fn accepted(&mut self) {
        self.decided(Ok(()));
    }

    /// The server did not let us in, or wants more.
    pub fn failed(&mut self, remaining: Vec<String>, partial: bool) {
        self.decided(Err(Error::AuthFailed { remaining, partial }));
    }

    fn decided(&mut self, outcome: Result<(), Error>) {
        self.pending = false;
        self.outcome = self.awaited.then_some(outcome);
    }

    /// Takes what has come of the attempt since.
    pub fn take_step(&mut self) -> Option<LoginStep> {
        let sign = self.sign.take().map(LoginStep::Sign);
        sign.or_else(|| self.outcome.take().map(LoginStep::Done))
    }

    /// Whoever waited does not any more. A signature that is asked for is refused.
    pub fn give_up(&mut self) {
        self.awaited = false;
        (self.sign, self.outcome) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_given_up_keeps_the_place_until_it_is_decided_and_its_outcome_is_nobodys() {
        let mut login = Login::default();
        assert!(login.is_free());
        login.begin();
        assert!(!login.is_free());
        login.give_up();
        assert!(!login.is_free());
        login.failed(Vec::new(), false);
        assert!(login.is_free());
        assert!(login.take_step().is_none());
    }

    #[test]
    fn an_outcome_not_taken_yet_keeps_the_place() {
        let mut login = Login::default();
        login.begin();
        login.accepted();
        assert!(!login.is_free());
        assert!(matches!(login.take_step(), Some(LoginStep::Done(Ok(())))));
        login.give_up();
        assert!(login.is_free());
    }

    #[test]
    fn a_new_attempt_knows_nothing_of_the_last() {
        let mut login = Login::default();
        login.begin();
        login.failed(Vec::new(), true);
        login.give_up();
        login.begin();
        assert!(login.take_step().is_none());
        login.failed(Vec::new(), false);
        let step = login.take_step();
        assert!(
            matches!(step, Some(LoginStep::Done(Err(Error::AuthFailed { partial: false, .. })))),
            "{step:?}"
        );
    }
}
