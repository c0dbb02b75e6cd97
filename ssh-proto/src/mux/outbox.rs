//! Messages with a payload that wait to be sent: opens and requests.
//!
//! Order is that of the calls, except that a message for a channel that is not confirmed yet does not hold up
//! the others.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::RequestRef;
use crate::event::ChannelId;

/// The largest payload taken.
pub(crate) const MAX_PAYLOAD: usize = 32 * 1024;

/// Messages that wait for the answer to an open have one part in so many of the room, and one of them always has:
/// a peer that does not answer must not take it from all other channels.
const HELD_SHARE: usize = 4;

#[derive(Debug)]
pub(crate) struct Waiting {
    /// Whose recipient number goes into bytes 1 to 5 when it is sent; `None` for messages without one.
    pub(crate) channel: Option<ChannelId>,
    /// The request that it is, when a reply is waited for.
    pub(crate) asks: Option<RequestRef>,
    /// It waits for the answer to its channel's open.
    pub(crate) held: bool,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<Waiting>,
    bytes: usize,
    max_bytes: usize,
    max_messages: usize,
    /// The messages that are held, and their bytes.
    held: usize,
    held_bytes: usize,
    /// The size of the last payload for which somebody was told `Full`.
    refused: Option<usize>,
    /// The same for one that would have been held.
    refused_held: Option<usize>,
}

impl Outbox {
    pub(crate) fn new(max_bytes: usize, max_messages: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            max_bytes,
            max_messages,
            held: 0,
            held_bytes: 0,
            refused: None,
            refused_held: None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn fits(&self, size: usize) -> bool {
        self.queue.len() < self.max_messages && self.bytes.saturating_add(size) <= self.max_bytes
    }

    /// Whether one that is held fits as well.
    fn fits_held(&self, size: usize) -> bool {
        let share = self.held < self.max_messages / HELD_SHARE
            && self.held_bytes.saturating_add(size) <= self.max_bytes / HELD_SHARE;
        self.fits(size) && (share || self.held == 0)
    }

    /// Whether a payload of this size has room. A no is remembered, for `Ready`.
    pub(crate) fn has_room(&mut self, size: usize) -> bool {
        let fits = self.fits(size);
        if !fits {
            self.refused = Some(size);
        }
        fits
    }

    /// Whether a payload that is held has room. A no is remembered, for `Ready`.
    pub(crate) fn has_held_room(&mut self, size: usize) -> bool {
        let fits = self.fits_held(size);
        if !fits {
            self.refused_held = Some(size);
        }
        fits
    }

    /// What was not asked whether it [has room](Self::has_room) is at most one keepalive, beyond the caps.
    pub(crate) fn push(&mut self, waiting: Waiting) {
        self.bytes = self.bytes.saturating_add(waiting.payload.len());
        if waiting.held {
            self.held = self.held.saturating_add(1);
            self.held_bytes = self.held_bytes.saturating_add(waiting.payload.len());
        }
        self.queue.push_back(waiting);
    }

    /// The open of a channel was confirmed: what it has here waits as any other.
    pub(crate) fn let_go(&mut self, channel: ChannelId) {
        for waiting in
            self.queue.iter_mut().filter(|waiting| waiting.held && waiting.channel == Some(channel))
        {
            waiting.held = false;
            self.held = self.held.saturating_sub(1);
            self.held_bytes = self.held_bytes.saturating_sub(waiting.payload.len());
        }
        // It may be this channel that was refused, and what it asks for now is not held.
        self.refused = self.refused.max(self.refused_held.take());
    }

    /// Takes the first message that `may_leave`.
    pub(crate) fn take(&mut self, mut may_leave: impl FnMut(&Waiting) -> bool) -> Option<Waiting> {
        let at = self.queue.iter().position(&mut may_leave)?;
        let waiting = self.queue.remove(at)?;
        self.bytes = self.bytes.saturating_sub(waiting.payload.len());
        if waiting.held {
            self.held = self.held.saturating_sub(1);
            self.held_bytes = self.held_bytes.saturating_sub(waiting.payload.len());
        }
        Some(waiting)
    }

    /// Drops what waits for a channel. Returns how many bytes that were.
    pub(crate) fn forget(&mut self, channel: ChannelId) -> usize {
        let Self { queue, bytes, held, held_bytes, .. } = self;
        let before = *bytes;
        queue.retain(|waiting| {
            let keep = waiting.channel != Some(channel);
            if !keep {
                *bytes = bytes.saturating_sub(waiting.payload.len());
                if waiting.held {
                    *held = held.saturating_sub(1);
                    *held_bytes = held_bytes.saturating_sub(waiting.payload.len());
                }
            }
            keep
        });
        before.saturating_sub(*bytes)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max_bytes, self.max_messages);
    }

    /// Whether somebody who was refused should be told that half of the room is free, and enough of it.
    pub(crate) fn take_ready(&mut self) -> bool {
        // Of what is not held: that may stay for long.
        let half = self.bytes.saturating_sub(self.held_bytes)
            <= self.max_bytes.saturating_sub(self.held_bytes) / 2
            && self.queue.len().saturating_sub(self.held) <= self.max_messages.saturating_sub(self.held) / 2;
        let ready = half && self.refused.is_some_and(|size| self.fits(size));
        if ready {
            self.refused = None;
        }
        let half_held = self.held_bytes <= self.max_bytes / HELD_SHARE / 2
            && self.held <= self.max_messages / HELD_SHARE / 2;
        let ready_held = half && half_held && self.refused_held.is_some_and(|size| self.fits_held(size));
        if ready_held {
            self.refused_held = None;
        }
        ready || ready_held
    }
}
