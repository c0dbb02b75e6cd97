//! What waits for whoever answers a client.

use alloc::collections::VecDeque;

use crate::config::Limits;
use crate::event::{ChannelEvent, ServerEvent};
use crate::ticket::SignRequest;

/// Questions, and what else whoever answers them should know: who logged in, which channels were closed. In their
/// order.
///
/// DoS: as many questions wait as the [`Limits`] let a client have open at once, at least 256, and of what their client
/// chose the length of they hold 64 KiB for each channel there may be. More are refused, for input must go on: who
/// answers may itself wait for it, or for the connection's end.
#[derive(Debug, Default)]
pub struct Questions {
    queue: VecDeque<ServerEvent>,
    /// How many of them had to have a place.
    asked: usize,
    /// Bytes that clients chose the length of.
    held: usize,
    /// How many ask for a signature: one at most, and it is looked for often.
    signs: usize,
}

impl Questions {
    const LEAST: usize = 256;
    const BYTES_EACH: usize = 64 * 1024;

    /// How many may wait, and what they may hold.
    fn most(limits: &Limits) -> (usize, usize) {
        let requests = limits.max_channels.saturating_mul(limits.pending_requests);
        let others = limits.pending_opens.saturating_add(limits.pending_global_tickets);
        let count = requests.saturating_add(others).max(Self::LEAST);
        (count, limits.max_channels.saturating_mul(Self::BYTES_EACH))
    }

    /// A question, which is refused when there is no room for it.
    pub(super) fn ask(&mut self, question: ServerEvent, limits: &Limits) {
        let (count, bytes) = Self::most(limits);
        if self.asked < count && self.held < bytes {
            self.tell(question);
        }
    }

    /// What there is always room for.
    pub(super) fn tell(&mut self, event: ServerEvent) {
        self.asked = self.asked.saturating_add(usize::from(has_place(&event)));
        self.held = self.held.saturating_add(heap_size(&event));
        self.signs = self.signs.saturating_add(usize::from(is_sign(&event)));
        self.queue.push_back(event);
    }

    /// Takes the first one.
    pub fn pop_front(&mut self) -> Option<ServerEvent> {
        let first = self.queue.pop_front()?;
        self.asked = self.asked.saturating_sub(usize::from(has_place(&first)));
        self.held = self.held.saturating_sub(heap_size(&first));
        self.signs = self.signs.saturating_sub(usize::from(is_sign(&first)));
        Some(first)
    }

    /// Takes the question for a signature, if there is one and it is picked.
    pub(super) fn take_sign<T>(
        &mut self,
        pick: impl FnOnce(&SignRequest) -> Option<T>,
    ) -> Option<(ServerEvent, T)> {
        if self.signs == 0 {
            return None;
        }
        let at = self.queue.iter().position(is_sign)?;
        let Some(ServerEvent::Sign(request)) = self.queue.get(at) else { return None };
        let picked = pick(request)?;
        self.signs = self.signs.saturating_sub(1);
        Some((self.queue.remove(at)?, picked))
    }

    /// Refuses them all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether it takes one of the places that are counted: it is not among what there is always room for.
fn has_place(event: &ServerEvent) -> bool {
    !is_sign(event)
        && !matches!(event, ServerEvent::Authenticated(_) | ServerEvent::Channel(_, ChannelEvent::Closed))
}

fn is_sign(event: &ServerEvent) -> bool {
    matches!(event, ServerEvent::Sign(_))
}

/// What a question holds that its client chose the length of, in bytes.
fn heap_size(question: &ServerEvent) -> usize {
    match question {
        ServerEvent::Global(request) => request.heap_size(),
        ServerEvent::Open(request) => request.kind.heap_size(),
        ServerEvent::Channel(_, ChannelEvent::Request(request)) => request.kind.heap_size(),
        ServerEvent::Probe(probe) => probe.heap_size(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ChannelId;
    use crate::msg::request::GlobalRequestKind;
    use crate::ticket::GlobalRequest;

    fn global(len: usize) -> ServerEvent {
        let kind = GlobalRequestKind { name: "x@example.invalid".into(), data: alloc::vec![7; len] };
        ServerEvent::Global(GlobalRequest { ticket: None, kind })
    }

    fn closed() -> ServerEvent {
        ServerEvent::Channel(ChannelId { slot: 0, generation: 0 }, ChannelEvent::Closed)
    }

    #[test]
    fn they_are_bounded_in_number_and_by_what_they_hold() {
        let few = Limits { max_channels: 1, pending_requests: 1, ..Limits::default() };
        let many = Limits { max_channels: 100, pending_opens: 100, ..few.clone() };
        for (limits, count) in
            [(&few, 256), (&many, 256), (&Limits { max_channels: 1000, ..many.clone() }, 1116)]
        {
            let mut questions = Questions::default();
            (0..5000).for_each(|_| questions.ask(global(0), limits));
            assert_eq!(questions.queue.len(), count);
            // What is told is, whatever waits, and takes nobody's place.
            questions.pop_front();
            (0..100).for_each(|_| questions.tell(closed()));
            (0..5000).for_each(|_| questions.ask(global(0), limits));
            assert_eq!(questions.queue.len(), count + 100);
            questions.clear();
            let bytes = limits.max_channels * 64 * 1024;
            questions.ask(global(bytes - 100), limits);
            questions.ask(global(200), limits);
            questions.ask(global(0), limits);
            assert_eq!(questions.queue.len(), 2);
            questions.tell(closed());
            while questions.pop_front().is_some() {}
            assert_eq!((questions.held, questions.asked), (0, 0));
        }
    }
}
