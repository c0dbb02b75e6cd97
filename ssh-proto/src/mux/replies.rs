//! Requests and their replies, both ways: order, and deadlines.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::ticket::{Pending, Ticket};
use crate::time::Instant;

/// What a reply that is not decided yet, or not sent yet, counts against the cap on owed replies.
pub(crate) const REPLY_COST: usize = 32;

/// Replies we owe, in the order of the requests.
#[derive(Debug)]
pub(crate) struct OwedReplies<T> {
    queue: VecDeque<Owed<T>>,
    undecided: usize,
    asked: u64,
}

#[derive(Debug)]
enum Owed<T> {
    Undecided(u64, Pending),
    Decided(T),
    /// So many refusals in a row: a flood must not take an entry each.
    Refusals(u32),
}

/// The next reply to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextReply<T> {
    Decided(T),
    Refusal,
}

impl<T> Default for OwedReplies<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), undecided: 0, asked: 0 }
    }
}

impl<T> OwedReplies<T> {
    /// How many wait for the embedder.
    pub(crate) fn undecided(&self) -> usize {
        self.undecided
    }

    /// Queues a question, and numbers it.
    pub(crate) fn push_undecided(&mut self, pending: Pending) -> u64 {
        self.undecided += 1;
        self.asked += 1;
        self.queue.push_back(Owed::Undecided(self.asked, pending));
        self.asked
    }

    /// Whether the question of this number still waits for the embedder.
    pub(crate) fn is_undecided(&self, number: u64) -> bool {
        self.queue.iter().any(|owed| matches!(owed, Owed::Undecided(asked, _) if *asked == number))
    }

    pub(crate) fn push_refusal(&mut self) {
        match self.queue.back_mut() {
            Some(Owed::Refusals(count)) => *count = count.saturating_add(1),
            _ => self.queue.push_back(Owed::Refusals(1)),
        }
    }

    /// Decides the question of `ticket`; false when it is not here.
    pub(crate) fn decide(&mut self, ticket: &Ticket, answer: Option<T>) -> bool {
        self.settle(answer, |pending| pending.is(ticket))
    }

    /// Refuses the questions that were dropped, and says how many there were.
    pub(crate) fn sweep(&mut self) -> usize {
        let before = self.undecided;
        while self.settle(None, Pending::is_dropped) {}
        before - self.undecided
    }

    fn settle(&mut self, answer: Option<T>, which: impl Fn(&Pending) -> bool) -> bool {
        let found = self.queue.iter_mut().find(|owed| matches!(owed, Owed::Undecided(_, p) if which(p)));
        let Some(owed) = found else { return false };
        *owed = answer.map_or(Owed::Refusals(1), Owed::Decided);
        self.undecided -= 1;
        true
    }

    /// Whether the oldest reply can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        !matches!(self.queue.front(), None | Some(Owed::Undecided(..)))
    }

    /// Takes the oldest reply, when it is decided.
    pub(crate) fn next(&mut self) -> Option<NextReply<T>> {
        match self.queue.front_mut()? {
            Owed::Undecided(..) => None,
            Owed::Refusals(count) if *count > 1 => {
                *count -= 1;
                Some(NextReply::Refusal)
            }
            _ => match self.queue.pop_front()? {
                Owed::Decided(answer) => Some(NextReply::Decided(answer)),
                _ => Some(NextReply::Refusal),
            },
        }
    }

    /// Forgets all of them, and says how many were decided.
    pub(crate) fn clear(&mut self) -> usize {
        self.forget_from(0)
    }

    /// Forgets the oldest question and all behind it, and says how many of those were decided.
    pub(crate) fn abandon(&mut self) -> usize {
        let first = self.queue.iter().position(|owed| matches!(owed, Owed::Undecided(..)));
        first.map_or(0, |first| self.forget_from(first))
    }

    fn forget_from(&mut self, first: usize) -> usize {
        self.undecided = 0;
        let counts = self.queue.drain(first..).map(|owed| match owed {
            Owed::Undecided(..) => 0,
            Owed::Decided(_) => 1,
            Owed::Refusals(count) => count as usize,
        });
        counts.sum()
    }
}

/// Replies the peer owes us, in the order of the requests, each with what it is for.
#[derive(Debug)]
pub(crate) struct AwaitedReplies<T> {
    queue: VecDeque<Awaited<T>>,
    expired: usize,
    next: u64,
}

#[derive(Debug)]
struct Awaited<T> {
    number: u64,
    what: T,
    /// The embedder was told no; the late reply still has to go by.
    expired: bool,
}

impl<T> Default for AwaitedReplies<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), expired: 0, next: 0 }
    }
}

impl<T> AwaitedReplies<T> {
    /// How many are waited for.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() - self.expired
    }

    /// How many came to nothing in time, and may still be answered.
    pub(crate) fn expired(&self) -> usize {
        self.expired
    }

    pub(crate) fn push(&mut self, what: T) -> u64 {
        let number = self.next;
        self.next += 1;
        self.queue.push_back(Awaited { number, what, expired: false });
        number
    }

    /// A reply came: what it is for, and whether anybody still waits.
    pub(crate) fn take(&mut self) -> Option<(T, bool)> {
        let awaited = self.queue.pop_front()?;
        self.expired -= usize::from(awaited.expired);
        Some((awaited.what, !awaited.expired))
    }

    pub(crate) fn is_waiting(&self, number: u64) -> bool {
        self.queue.iter().any(|awaited| awaited.number == number && !awaited.expired)
    }

    /// The deadline of a request passed. Returns what it was for, unless it is answered.
    pub(crate) fn expire(&mut self, number: u64) -> Option<&T> {
        let awaited = self.queue.iter_mut().find(|awaited| awaited.number == number && !awaited.expired)?;
        awaited.expired = true;
        self.expired += 1;
        Some(&awaited.what)
    }
}

/// Deadlines of equal length, oldest first.
#[derive(Debug)]
pub(crate) struct Deadlines<T> {
    after: Option<Duration>,
    queue: VecDeque<(Option<Instant>, T)>,
    /// The length at which those that are answered are looked for.
    sweep_at: usize,
}

/// Below this many deadlines, answered ones only go when they come to the front.
const FEW_DEADLINES: usize = 64;

impl<T: Copy> Deadlines<T> {
    pub(crate) fn new(after: Option<Duration>) -> Self {
        Self { after, queue: VecDeque::new(), sweep_at: FEW_DEADLINES }
    }

    /// Starts one. It has no point in time until [`arm`](Self::arm).
    pub(crate) fn start(&mut self, what: T) {
        if self.after.is_some() {
            self.queue.push_back((None, what));
        }
    }

    pub(crate) fn arm(&mut self, now: Instant) {
        let Some(after) = self.after else { return };
        for (at, _) in self.queue.iter_mut().rev().take_while(|(at, _)| at.is_none()) {
            *at = Some(now + after);
        }
    }

    /// The oldest one that `is_open`, forgetting older ones that are not: its point in time, or `None` inside
    /// when it is not armed.
    pub(crate) fn head(&mut self, is_open: impl Fn(T) -> bool) -> Option<Option<Instant>> {
        if self.queue.len() > self.sweep_at {
            // One that is never answered must not keep all behind it.
            self.queue.retain(|(_, what)| is_open(*what));
            self.sweep_at = (2 * self.queue.len()).max(FEW_DEADLINES);
        }
        while let Some((at, what)) = self.queue.front() {
            if is_open(*what) {
                return Some(*at);
            }
            self.queue.pop_front();
        }
        None
    }

    /// Takes one that is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        match self.queue.front() {
            Some((Some(at), _)) if *at <= now => self.queue.pop_front().map(|(_, what)| what),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::ticket::Identity;

    #[test]
    fn ch_08_replies_leave_in_the_order_of_the_requests() {
        let home = Arc::new(Identity::default());
        let mut owed = OwedReplies::<u8>::default();
        let ((first, first_ticket), (second, second_ticket)) = (Pending::new(&home), Pending::new(&home));
        owed.push_undecided(first);
        owed.push_refusal();
        owed.push_refusal();
        owed.push_undecided(second);
        assert!(owed.decide(&second_ticket, Some(2)));
        assert_eq!(owed.next(), None);
        drop(first_ticket);
        owed.sweep();
        for _ in 0..3 {
            assert_eq!(owed.next(), Some(NextReply::Refusal));
        }
        assert_eq!(owed.next(), Some(NextReply::Decided(2)));
        assert_eq!(owed.next(), None);
        assert!(!owed.decide(&second_ticket, Some(2)));
    }

    #[test]
    fn a_reply_after_its_deadline_goes_by_without_being_taken_for_another() {
        let mut awaited = AwaitedReplies::default();
        let first = awaited.push('a');
        awaited.push('b');
        assert_eq!(awaited.expire(first), Some(&'a'));
        assert_eq!(awaited.expire(first), None);
        assert_eq!(awaited.take(), Some(('a', false)));
        assert_eq!(awaited.take(), Some(('b', true)));
        assert_eq!(awaited.take(), None);
    }

    const AFTER: Duration = Duration::from_secs(120);

    fn at(millis: u64) -> Instant {
        Instant::from_duration(Duration::from_millis(millis))
    }

    #[test]
    fn deadlines_of_what_is_answered_are_forgotten_behind_one_that_is_not() {
        let mut deadlines = Deadlines::new(Some(AFTER));
        for number in 0..100_000_u64 {
            deadlines.start(number);
            deadlines.arm(at(number));
            // The first stays unanswered, any other is answered at once.
            assert_eq!(deadlines.head(|number| number == 0), Some(Some(at(0) + AFTER)));
            assert!(deadlines.queue.len() <= FEW_DEADLINES, "{}", deadlines.queue.len());
        }
        assert!(deadlines.queue.capacity() <= 2 * FEW_DEADLINES, "{}", deadlines.queue.capacity());
        assert_eq!(deadlines.take_due(at(119_999)), None);
        assert_eq!(deadlines.take_due(at(120_000)), Some(0));
    }

    proptest! {
        #[test]
        fn every_open_deadline_is_due_at_its_own_time_and_in_order(
            ops in proptest::collection::vec((0u8..8, any::<u16>()), 0..600), keeps in 0usize..300,
        ) {
            let mut deadlines = Deadlines::new(Some(AFTER));
            // What is open, and when it is due: numbers and points in time grow together.
            let (mut open, mut due) = (BTreeSet::new(), Vec::new());
            let (mut now, mut most) = (0, 0);
            for (op, amount) in ops {
                match op {
                    0..=4 => for _ in 0..op {
                        deadlines.start(due.len());
                        open.insert(due.len());
                        due.push(at(now) + AFTER);
                    },
                    // Anything may be answered, except that so many stay.
                    5 | 6 => open = open.iter().copied().filter(|number| {
                        *number < keeps || number % 7 != usize::from(amount) % 7
                    }).collect(),
                    _ => {
                        now += u64::from(amount);
                        while let Some(number) = deadlines.take_due(at(now)) {
                            if open.contains(&number) {
                                prop_assert_eq!(open.pop_first(), Some(number), "the oldest first");
                                prop_assert!(due[number] <= at(now), "not before its time");
                            }
                        }
                        let overdue = open.iter().find(|number| due[**number] <= at(now));
                        prop_assert_eq!(overdue, None, "not behind its time");
                    }
                }
                most = most.max(open.len());
                deadlines.arm(at(now));
                let head = deadlines.head(|number| open.contains(&number));
                prop_assert_eq!(head, open.first().map(|number| Some(due[*number])));
                prop_assert!(deadlines.queue.len() <= FEW_DEADLINES.max(2 * most));
            }
        }
    }
}
