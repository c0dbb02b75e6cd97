//! Requests and their replies, both ways: order, and deadlines.

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::Bytes;

use crate::owed::{Cost, OwedQueue};
use crate::ticket::{Pending, Ticket};
use crate::time::Instant;

/// What a reply counts against the cap on owed replies, beside its data.
pub(crate) const REPLY_COST: Cost = Cost { provoked: 32, chosen: 0 };

/// An answer that may have data.
pub(crate) trait Answer {
    /// The data's length, in bytes.
    fn data_len(&self) -> usize;
}

impl Answer for bool {
    fn data_len(&self) -> usize {
        0
    }
}

impl Answer for Bytes {
    fn data_len(&self) -> usize {
        self.len()
    }
}

/// Replies we owe, in the order of the requests.
///
/// What may leave counts against the cap on owed replies: the peer has to read for it. What stands behind an
/// undecided question does not, because it is the embedder that it waits for, however long. It takes little
/// memory all the same: questions are asked only while few wait, and refusals in a row are one entry.
#[derive(Debug)]
pub(crate) struct OwedReplies<T> {
    queue: VecDeque<Owed<T>>,
    undecided: usize,
    asked: u64,
    /// What the replies before the oldest undecided question are counted as.
    due: Cost,
}

#[derive(Debug)]
enum Owed<T> {
    Undecided(u64, Pending),
    Decided(T),
    /// So many refusals in a row: a flood must not take an entry each.
    Refusals(u32),
}

impl<T: Answer> Owed<T> {
    fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided(..))
    }

    fn cost(&self) -> Cost {
        match self {
            Self::Undecided(..) => REPLY_COST,
            Self::Decided(answer) => cost_of(answer),
            Self::Refusals(count) => {
                Cost { provoked: REPLY_COST.provoked.saturating_mul(*count as usize), chosen: 0 }
            }
        }
    }
}

fn cost_of(answer: &impl Answer) -> Cost {
    Cost { chosen: answer.data_len(), ..REPLY_COST }
}

/// The next reply to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextReply<T> {
    Decided(T),
    Refusal,
}

impl<T> Default for OwedReplies<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), undecided: 0, asked: 0, due: Cost::default() }
    }
}

impl<T: Answer> OwedReplies<T> {
    /// How many wait for the embedder.
    pub(crate) fn undecided(&self) -> usize {
        self.undecided
    }

    /// The oldest question that waits for the embedder, and all behind it.
    fn held(&self) -> impl Iterator<Item = &Owed<T>> {
        self.queue.iter().skip_while(|owed| !owed.is_undecided())
    }

    /// How many questions wait for the embedder, or are decided and stand behind one that does.
    pub(crate) fn waiting(&self) -> usize {
        match self.undecided {
            0 => 0,
            _ => self.held().filter(|owed| !matches!(owed, Owed::Refusals(_))).count(),
        }
    }

    /// The memory of those and of the refusals between them, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let entries =
            self.held().map(|owed| if let Owed::Refusals(_) = owed { REPLY_COST } else { owed.cost() });
        entries.map(Cost::total).sum()
    }

    /// Queues a question, and numbers it.
    pub(crate) fn push_undecided(&mut self, pending: Pending) -> u64 {
        self.undecided = self.undecided.saturating_add(1);
        self.asked = self.asked.wrapping_add(1);
        self.queue.push_back(Owed::Undecided(self.asked, pending));
        self.asked
    }

    /// Whether the question of this number still waits for the embedder.
    pub(crate) fn is_undecided(&self, number: u64) -> bool {
        self.queue.iter().any(|owed| matches!(owed, Owed::Undecided(asked, _) if *asked == number))
    }

    pub(crate) fn push_refusal(&mut self, account: &mut OwedQueue) {
        match self.queue.back_mut() {
            Some(Owed::Refusals(count)) => *count = count.saturating_add(1),
            _ => self.queue.push_back(Owed::Refusals(1)),
        }
        if self.undecided == 0 {
            self.due = self.due.plus(REPLY_COST);
            account.charge(REPLY_COST);
        }
    }

    /// Decides the question of `ticket`; false when it is not here.
    pub(crate) fn decide(&mut self, account: &mut OwedQueue, ticket: &Ticket, answer: Option<T>) -> bool {
        self.settle(account, answer, |pending| pending.is(ticket))
    }

    /// Refuses the questions that were dropped.
    pub(crate) fn sweep(&mut self, account: &mut OwedQueue) {
        while self.settle(account, None, Pending::is_dropped) {}
    }

    fn settle(
        &mut self,
        account: &mut OwedQueue,
        answer: Option<T>,
        which: impl Fn(&Pending) -> bool,
    ) -> bool {
        let found = self.queue.iter().position(|owed| matches!(owed, Owed::Undecided(_, p) if which(p)));
        let Some(at) = found else { return false };
        self.undecided = self.undecided.saturating_sub(1);
        match answer {
            Some(answer) => {
                if let Some(owed) = self.queue.get_mut(at) {
                    *owed = Owed::Decided(answer);
                }
            }
            None => self.refuse(at),
        }
        self.recount(account);
        true
    }

    /// Makes a refusal of an entry, one with those before and behind it.
    fn refuse(&mut self, at: usize) {
        let mut refusals = 1u32;
        let (mut from, mut to) = (at, at);
        if let Some(before) = at.checked_sub(1)
            && let Some(Owed::Refusals(count)) = self.queue.get(before)
        {
            refusals = refusals.saturating_add(*count);
            from = before;
        }
        let behind = at.saturating_add(1);
        if let Some(Owed::Refusals(count)) = self.queue.get(behind) {
            refusals = refusals.saturating_add(*count);
            to = behind;
        }
        self.queue.drain(from..to);
        if let Some(owed) = self.queue.get_mut(from) {
            *owed = Owed::Refusals(refusals);
        }
    }

    /// Brings the account up to date.
    fn recount(&mut self, account: &mut OwedQueue) {
        let due = self.queue.iter().take_while(|owed| !owed.is_undecided()).map(Owed::cost);
        let due = due.fold(Cost::default(), Cost::plus);
        account.forgive(self.due);
        account.charge(due);
        self.due = due;
    }

    /// Whether the oldest reply can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.queue.front().is_some_and(|owed| !owed.is_undecided())
    }

    /// Takes the oldest reply, when it is decided.
    pub(crate) fn next(&mut self, account: &mut OwedQueue) -> Option<NextReply<T>> {
        let reply = match self.queue.front_mut()? {
            Owed::Undecided(..) => return None,
            Owed::Refusals(count) if *count > 1 => {
                *count = count.saturating_sub(1);
                NextReply::Refusal
            }
            _ => match self.queue.pop_front()? {
                Owed::Decided(answer) => NextReply::Decided(answer),
                _ => NextReply::Refusal,
            },
        };
        let cost = if let NextReply::Decided(answer) = &reply { cost_of(answer) } else { REPLY_COST };
        self.due = self.due.minus(cost);
        account.forgive(cost);
        Some(reply)
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self, account: &mut OwedQueue) {
        self.queue.clear();
        self.undecided = 0;
        self.recount(account);
    }

    /// Forgets the oldest question and all behind it.
    pub(crate) fn abandon(&mut self) {
        if let Some(first) = self.queue.iter().position(Owed::is_undecided) {
            self.queue.truncate(first);
        }
        self.undecided = 0;
    }
}

/// Replies the peer owes us, in the order of the requests, each with what it is for.
///
/// A request that was not [sent](Self::sent) yet is waited for as any other, but nothing answers it, and it has no
/// deadline: the peer does not know of it.
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
    /// The sequence number of its packet, once it was sent.
    sent: Option<u32>,
    /// It will never be sent.
    dropped: bool,
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
        self.queue.len().saturating_sub(self.expired)
    }

    /// How many came to nothing in time, and may still be answered.
    pub(crate) fn expired(&self) -> usize {
        self.expired
    }

    pub(crate) fn push(&mut self, what: T) -> u64 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.queue.push_back(Awaited { number, what, sent: None, dropped: false, expired: false });
        number
    }

    /// A request leaves, in the packet of this sequence number. Returns what it is for.
    pub(crate) fn sent(&mut self, number: u64, sequence: u32) -> Option<&T> {
        let awaited = self.queue.iter_mut().find(|awaited| awaited.number == number)?;
        awaited.sent = Some(sequence);
        Some(&awaited.what)
    }

    /// A reply came: what it is for, and whether anybody still waits.
    pub(crate) fn take(&mut self) -> Option<(T, bool)> {
        self.queue.front()?.sent?;
        self.take_at(0)
    }

    /// The peer does not know the message of this sequence number, and that is its reply.
    pub(crate) fn take_unimplemented(&mut self, sequence: u32) -> Option<(T, bool)> {
        self.take_at(self.queue.iter().position(|awaited| awaited.sent == Some(sequence))?)
    }

    /// What was not sent will not be.
    pub(crate) fn drop_unsent(&mut self) {
        self.queue.iter_mut().for_each(|awaited| awaited.dropped |= awaited.sent.is_none());
    }

    /// Takes those that were dropped, up to the first that may still be answered: how many there were. Their answer is
    /// no, in their turn.
    pub(crate) fn take_dropped(&mut self) -> usize {
        let (before, mut behind) = (self.queue.len(), false);
        self.queue.retain(|awaited| {
            behind |= !awaited.dropped && !awaited.expired;
            behind || !awaited.dropped
        });
        before.saturating_sub(self.queue.len())
    }

    /// No reply comes any more: what the oldest one is for, and whether anybody still waits.
    pub(crate) fn give_up(&mut self) -> Option<(T, bool)> {
        self.take_at(0)
    }

    fn take_at(&mut self, at: usize) -> Option<(T, bool)> {
        let awaited = self.queue.remove(at)?;
        self.expired = self.expired.saturating_sub(usize::from(awaited.expired));
        Some((awaited.what, !awaited.expired))
    }

    pub(crate) fn is_waiting(&self, number: u64) -> bool {
        self.queue.iter().any(|awaited| awaited.number == number && !awaited.expired)
    }

    /// The deadline of a request passed. Returns what it was for, unless it is answered.
    pub(crate) fn expire(&mut self, number: u64) -> Option<&T> {
        let awaited = self.queue.iter_mut().find(|awaited| awaited.number == number && !awaited.expired)?;
        awaited.expired = true;
        self.expired = self.expired.saturating_add(1);
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
        // Looked at in every call: mostly there is nothing to do.
        if self.queue.back().is_none_or(|(at, _)| at.is_some()) {
            return;
        }
        for (at, _) in self.queue.iter_mut().rev().take_while(|(at, _)| at.is_none()) {
            *at = Some(now.saturating_add(after));
        }
    }

    /// Starts all of them again.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.queue.iter_mut().for_each(|(at, _)| *at = None);
        self.arm(now);
    }

    /// The oldest one that `is_open`, forgetting older ones that are not: its point in time, or `None` inside
    /// when it is not armed.
    pub(crate) fn head(&mut self, is_open: impl Fn(T) -> bool) -> Option<Option<Instant>> {
        if self.queue.len() > self.sweep_at {
            // One that is never answered must not keep all behind it.
            self.queue.retain(|(_, what)| is_open(*what));
            self.sweep_at = self.queue.len().saturating_mul(2).max(FEW_DEADLINES);
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

    proptest! {
        /// Against a list of all replies, each with its ticket while it is open and its answer when it has one.
        #[test]
        fn ch_08_replies_leave_in_the_order_of_the_requests_and_count_when_they_may(
            ops in proptest::collection::vec((0u8..8, any::<u8>()), 0..200),
        ) {
            let home = Arc::new(Identity::default());
            let (mut owed, mut account) = (OwedReplies::<Bytes>::default(), OwedQueue::default());
            let mut model: VecDeque<(Option<Ticket>, Option<Bytes>)> = VecDeque::new();
            for (op, which) in ops {
                let open: Vec<usize> = (0..model.len()).filter(|at| model[*at].0.is_some()).collect();
                let picked = open.get(usize::from(which) % open.len().max(1)).copied();
                match (op, picked) {
                    (0 | 1, _) => {
                        let (pending, ticket) = Pending::new(&home);
                        owed.push_undecided(pending);
                        model.push_back((Some(ticket), None));
                    }
                    (2, _) => {
                        owed.push_refusal(&mut account);
                        model.push_back((None, None));
                    }
                    (3 | 4, Some(at)) => {
                        let answer = (op == 3).then(|| Bytes::from(vec![which; usize::from(which)]));
                        let ticket = model[at].0.take().unwrap();
                        prop_assert!(owed.decide(&mut account, &ticket, answer.clone()));
                        prop_assert!(!owed.decide(&mut account, &ticket, answer.clone()));
                        model[at].1 = answer;
                    }
                    (5, Some(at)) => {
                        model[at].0 = None;
                        owed.sweep(&mut account);
                    }
                    (6, _) if which < 20 => {
                        owed.abandon();
                        model.truncate(open.first().copied().unwrap_or(model.len()));
                    }
                    (7, _) => {
                        prop_assert_eq!(owed.is_ready(), model.front().is_some_and(|(open, _)| open.is_none()));
                        let next = owed.next(&mut account);
                        prop_assert_eq!(next.is_some(), model.front().is_some_and(|(open, _)| open.is_none()));
                        if let Some(next) = next {
                            let expected = model.pop_front().unwrap().1;
                            prop_assert_eq!(next, expected.map_or(NextReply::Refusal, NextReply::Decided));
                        }
                    }
                    _ => {}
                }
                let first = model.iter().position(|(open, _)| open.is_some()).unwrap_or(model.len());
                let cost = |(_, answer): &(_, Option<Bytes>)| {
                    REPLY_COST.provoked + answer.as_ref().map_or(0, Bytes::len)
                };
                prop_assert_eq!(account.held().total(), model.range(..first).map(cost).sum::<usize>());
                let held = model.range(first..).filter(|(open, answer)| open.is_some() || answer.is_some());
                prop_assert_eq!(owed.waiting(), held.count());
                prop_assert_eq!(owed.undecided(), model.iter().filter(|(open, _)| open.is_some()).count());
                let entries = owed.held().count();
                prop_assert!(entries <= 2 * owed.waiting(), "refusals in a row are one entry");
                let data: usize = model.range(first..).map(cost).map(|cost| cost - REPLY_COST.provoked).sum();
                prop_assert_eq!(owed.held_bytes(), entries * REPLY_COST.provoked + data);
            }
            owed.clear(&mut account);
            prop_assert_eq!((account.held().total(), owed.waiting(), owed.next(&mut account)), (0, 0, None));
        }
    }

    #[test]
    fn a_reply_after_its_deadline_goes_by_without_being_taken_for_another() {
        let mut awaited = AwaitedReplies::default();
        let first = awaited.push('a');
        let second = awaited.push('b');
        assert_eq!(awaited.take(), None, "nobody was asked");
        assert_eq!(awaited.sent(first, 7), Some(&'a'));
        assert_eq!(awaited.sent(second, 9), Some(&'b'));
        assert_eq!(awaited.expire(first), Some(&'a'));
        assert_eq!(awaited.expire(first), None);
        assert_eq!(awaited.take(), Some(('a', false)));
        assert_eq!(awaited.take(), Some(('b', true)));
        assert_eq!(awaited.take(), None);
    }

    #[test]
    fn what_the_peer_does_not_know_is_answered_by_that_and_none_beside_it() {
        let mut awaited = AwaitedReplies::default();
        for (what, sequence) in [('a', 5), ('b', u32::MAX), ('c', 0)] {
            let number = awaited.push(what);
            awaited.sent(number, sequence);
        }
        awaited.push('d');
        assert_eq!(awaited.take_unimplemented(6), None);
        assert_eq!(awaited.take_unimplemented(u32::MAX), Some(('b', true)));
        assert_eq!(awaited.take_unimplemented(u32::MAX), None);
        assert_eq!(
            (awaited.take(), awaited.take(), awaited.take()),
            (Some(('a', true)), Some(('c', true)), None)
        );
        assert_eq!((awaited.waiting(), awaited.give_up(), awaited.waiting()), (1, Some(('d', true)), 0));
    }

    #[test]
    fn what_was_dropped_is_answered_behind_what_may_still_be() {
        let mut awaited = AwaitedReplies::default();
        let numbers = ['a', 'b', 'c', 'd'].map(|what| awaited.push(what));
        awaited.sent(numbers[0], 0);
        awaited.sent(numbers[1], 1);
        awaited.drop_unsent();
        assert_eq!(awaited.take_dropped(), 0);
        assert_eq!(awaited.take(), Some(('a', true)));
        assert_eq!(awaited.take_dropped(), 0);
        // Nobody waits for it any more, and its late reply goes by.
        awaited.expire(numbers[1]);
        assert_eq!((awaited.take_dropped(), awaited.waiting()), (2, 0));
        assert_eq!((awaited.take(), awaited.take()), (Some(('b', false)), None));
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
