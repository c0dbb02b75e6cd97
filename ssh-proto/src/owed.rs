//! Replies a peer can provoke, counted.
//!
//! DoS (CVE-2025-26466): whoever sends PINGs, unknown messages or refused opens without reading the answers
//! must not make memory grow. Answers wait here while nothing may be sent or the output is full; beyond a cap
//! no more input is taken.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::msg::Message;
use crate::msg::channel::{RequestFailure, RequestSuccess};
use crate::msg::request::OpenFailure;
use crate::msg::transport::{Pong, Unimplemented};
use crate::mux::channel::RemoteId;
use crate::mux::send::send_open_failure;
use crate::transport::outgoing::Outgoing;

#[derive(Debug)]
enum Owed {
    Pong(Vec<u8>),
    Unimplemented(u32),
    OpenFailure(RemoteId, OpenFailure),
    Global(Option<Bytes>),
}

/// What replies that are owed hold, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// By the peer's doing.
    pub(crate) provoked: usize,
    /// By the embedder's choice: a long answer that it gave is none of the peer's doing.
    pub(crate) chosen: usize,
}

impl Cost {
    pub(crate) fn total(self) -> usize {
        self.provoked.saturating_add(self.chosen)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            provoked: self.provoked.saturating_add(other.provoked),
            chosen: self.chosen.saturating_add(other.chosen),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            provoked: self.provoked.saturating_sub(other.provoked),
            chosen: self.chosen.saturating_sub(other.chosen),
        }
    }
}

impl Owed {
    fn cost(&self) -> Cost {
        let (provoked, chosen) = match self {
            Self::Pong(data) => (data.len(), 0),
            Self::OpenFailure(_, why) => (why.description.as_bytes().len(), 0),
            Self::Global(Some(data)) => (0, data.len()),
            Self::Global(None) | Self::Unimplemented(_) => (0, 0),
        };
        Cost { provoked: provoked.saturating_add(64), chosen }
    }
}

#[derive(Debug, Default)]
pub(crate) struct OwedQueue {
    queue: VecDeque<Owed>,
    held: Cost,
}

impl OwedQueue {
    /// What all of it holds.
    pub(crate) fn held(&self) -> Cost {
        self.held
    }

    fn push(&mut self, owed: Owed) {
        self.charge(owed.cost());
        self.queue.push_back(owed);
    }

    pub(crate) fn push_pong(&mut self, data: &[u8]) {
        self.push(Owed::Pong(data.to_vec()));
    }

    pub(crate) fn push_unimplemented(&mut self, seq: u32) {
        self.push(Owed::Unimplemented(seq));
    }

    pub(crate) fn push_open_failure(&mut self, remote: RemoteId, why: OpenFailure) {
        self.push(Owed::OpenFailure(remote, why));
    }

    pub(crate) fn push_global(&mut self, reply: Option<Bytes>) {
        self.push(Owed::Global(reply));
    }

    /// Counts replies that are kept elsewhere, in the order of their own queue.
    pub(crate) fn charge(&mut self, cost: Cost) {
        self.held = self.held.plus(cost);
    }

    /// Such replies were sent, or are not owed any more.
    pub(crate) fn forgive(&mut self, cost: Cost) {
        self.held = self.held.minus(cost);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends what may be sent while the output is below `room`.
    pub(crate) fn pump(&mut self, out: &mut Outgoing, room: usize) {
        while !self.queue.is_empty() && out.pending() < room {
            let Some(mut sender) = out.service() else { break };
            let Some(owed) = self.queue.pop_front() else { break };
            self.forgive(owed.cost());
            match owed {
                Owed::Pong(data) => {
                    sender.send_with(data.len().saturating_add(5), |out| Pong { data: &data }.encode(out));
                }
                Owed::Unimplemented(sequence) => sender.send(&Unimplemented { sequence }),
                Owed::OpenFailure(remote, why) => send_open_failure(&mut sender, remote, &why),
                Owed::Global(Some(data)) => {
                    sender.send_with(data.len().saturating_add(1), |out| {
                        RequestSuccess { data: &data }.encode(out)
                    });
                }
                Owed::Global(None) => sender.send(&RequestFailure {}),
            }
        }
    }
}
