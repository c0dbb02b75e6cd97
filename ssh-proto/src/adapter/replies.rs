//! Whose the answers to a channel's requests are.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Matches the answers to a channel's requests with those who asked.
///
/// Answers come in the order of the requests and carry no number ([RFC 4254 §4, §5.4]). Whoever stops waiting
/// must not leave its answer to the next one.
///
/// [RFC 4254 §4, §5.4]: https://www.rfc-editor.org/rfc/rfc4254#section-4
#[derive(Debug, Default)]
pub struct Replies {
    askers: u64,
    /// Who waits for the answers still to come, in the order of the requests; nobody for some.
    awaited: VecDeque<Option<Asker>>,
    /// Answers to those who have not taken them yet.
    answers: Vec<(Asker, bool)>,
}

/// Who asked, by [`Replies::expect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the answer is kept until it is taken or given up"]
pub struct Asker(u64);

impl Replies {
    /// A request that wants an answer was made, and somebody waits for it.
    pub fn expect(&mut self) -> Asker {
        let asker = Asker(self.askers);
        self.askers = self.askers.wrapping_add(1);
        self.awaited.push_back(Some(asker));
        asker
    }

    /// A request that wants an answer was made, and nobody waits for it.
    pub fn expect_unseen(&mut self) {
        self.awaited.push_back(None);
    }

    /// The oldest request was answered.
    pub fn answer(&mut self, ok: bool) {
        if let Some(Some(asker)) = self.awaited.pop_front() {
            self.answers.push((asker, ok));
        }
    }

    /// Takes the answer to `asker`, if it is there.
    pub fn take(&mut self, asker: Asker) -> Option<bool> {
        let at = self.answers.iter().position(|(other, _)| *other == asker)?;
        Some(self.answers.swap_remove(at).1)
    }

    /// `asker` does not wait any more.
    pub fn give_up(&mut self, asker: Asker) {
        let _ = self.take(asker);
        self.awaited
            .iter_mut()
            .filter(|awaited| **awaited == Some(asker))
            .for_each(|awaited| *awaited = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_their_own_answer_whatever_the_order_of_taking() {
        let mut replies = Replies::default();
        let first = replies.expect();
        replies.expect_unseen();
        let second = replies.expect();
        [true, true, false].into_iter().for_each(|ok| replies.answer(ok));
        assert_eq!(replies.take(second), Some(false));
        assert_eq!(replies.take(second), None);
        assert_eq!(replies.take(first), Some(true));
    }

    #[test]
    fn an_answer_nobody_waits_for_any_more_is_not_the_next_ones() {
        let mut replies = Replies::default();
        let early = replies.expect();
        let late = replies.expect();
        replies.answer(false);
        replies.give_up(early);
        replies.give_up(late);
        let next = replies.expect();
        replies.answer(false);
        assert_eq!(replies.take(next), None);
        replies.answer(true);
        assert_eq!(replies.take(next), Some(true));
        assert!(replies.awaited.is_empty() && replies.answers.is_empty());
    }

    #[test]
    fn an_answer_to_no_request_is_nothing() {
        let mut replies = Replies::default();
        replies.answer(true);
        let asker = replies.expect();
        assert_eq!(replies.take(asker), None);
    }
}
