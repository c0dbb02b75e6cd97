//! Messages with a payload that wait to be sent: opens and requests.
//!
//! Order is that of the calls, except that a message for a channel that is not confirmed yet does not hold up
//! the others.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::event::ChannelId;

/// The largest payload taken.
pub(crate) const MAX_PAYLOAD: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) struct Waiting {
    /// Whose recipient number goes into bytes 1 to 5 when it is sent; `None` for messages without one.
    pub(crate) channel: Option<ChannelId>,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<Waiting>,
    bytes: usize,
    max_bytes: usize,
    max_messages: usize,
    /// The size of the last payload for which somebody was told `Full`.
    refused: Option<usize>,
}

impl Outbox {
    pub(crate) fn new(max_bytes: usize, max_messages: usize) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, max_bytes, max_messages, refused: None }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn fits(&self, size: usize) -> bool {
        self.queue.len() < self.max_messages && self.bytes + size <= self.max_bytes
    }

    /// Whether a payload of this size has room. A no is remembered, for `Ready`.
    pub(crate) fn has_room(&mut self, size: usize) -> bool {
        let fits = self.fits(size);
        if !fits {
            self.refused = Some(size);
        }
        fits
    }

    /// What was not asked whether it [has room](Self::has_room) is at most one keepalive, beyond the caps.
    pub(crate) fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.payload.len();
        self.queue.push_back(waiting);
    }

    /// Takes the first message that `may_leave`.
    pub(crate) fn take(&mut self, mut may_leave: impl FnMut(&Waiting) -> bool) -> Option<Waiting> {
        let at = self.queue.iter().position(&mut may_leave)?;
        let waiting = self.queue.remove(at)?;
        self.bytes -= waiting.payload.len();
        Some(waiting)
    }

    /// Drops what waits for a channel. Returns how many bytes that were.
    pub(crate) fn forget(&mut self, channel: ChannelId) -> usize {
        let before = self.bytes;
        let bytes = &mut self.bytes;
        self.queue.retain(|waiting| {
            let keep = waiting.channel != Some(channel);
            if !keep {
                *bytes -= waiting.payload.len();
            }
            keep
        });
        before - self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
        self.refused = None;
    }

    /// Whether somebody who was refused should be told that half of the room is free, and enough of it.
    pub(crate) fn take_ready(&mut self) -> bool {
        let half = self.bytes <= self.max_bytes / 2 && self.queue.len() <= self.max_messages / 2;
        let ready = half && self.refused.is_some_and(|size| self.fits(size));
        if ready {
            self.refused = None;
        }
        ready
    }
}
