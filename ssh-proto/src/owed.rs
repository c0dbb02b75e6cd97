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

impl Owed {
    /// What it costs by the peer's doing.
    fn cost(&self) -> usize {
        64 + match self {
            Self::Pong(data) => data.len(),
            Self::OpenFailure(_, why) => why.description.as_bytes().len(),
            _ => 0,
        }
    }

    /// What it costs by the embedder's choice.
    fn chosen(&self) -> usize {
        match self {
            Self::Global(Some(data)) => data.len(),
            _ => 0,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct OwedQueue {
    queue: VecDeque<Owed>,
    provoked: usize,
    chosen: usize,
}

impl OwedQueue {
    /// All that is held.
    pub(crate) fn bytes(&self) -> usize {
        self.provoked + self.chosen
    }

    /// What the peer provoked of it: a long answer that the embedder chose to give is none of its doing.
    pub(crate) fn provoked(&self) -> usize {
        self.provoked
    }

    fn push(&mut self, owed: Owed) {
        self.provoked += owed.cost();
        self.chosen += owed.chosen();
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

    /// Counts a reply that is kept elsewhere, in the order of its own queue.
    pub(crate) fn charge(&mut self, bytes: usize) {
        self.provoked += bytes;
    }

    /// Such replies were sent, or are not owed any more.
    pub(crate) fn forgive(&mut self, bytes: usize) {
        self.provoked = self.provoked.saturating_sub(bytes);
    }

    /// Counts the data of a reply that is kept elsewhere.
    pub(crate) fn charge_chosen(&mut self, bytes: usize) {
        self.chosen += bytes;
    }

    /// Such data is here now, or not owed any more.
    pub(crate) fn forgive_chosen(&mut self, bytes: usize) {
        self.chosen = self.chosen.saturating_sub(bytes);
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
            self.forgive_chosen(owed.chosen());
            match owed {
                Owed::Pong(data) => sender.send(&Pong { data: &data }),
                Owed::Unimplemented(sequence) => sender.send(&Unimplemented { sequence }),
                Owed::OpenFailure(remote, why) => send_open_failure(&mut sender, remote, &why),
                Owed::Global(Some(data)) => {
                    sender.send_with(data.len() + 1, |out| RequestSuccess { data: &data }.encode(out));
                }
                Owed::Global(None) => sender.send(&RequestFailure {}),
            }
        }
    }
}
