//! One direction between two sides, with everything a network does to bytes.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use ssh_proto::Instant;

use crate::entropy::Seeded;

/// How a stream of bytes is cut into deliveries.
#[derive(Debug, Clone, Default)]
pub enum Split {
    /// All there is at once.
    #[default]
    Whole,
    /// So many bytes at a time.
    Fixed(usize),
    /// These sizes over and over.
    List(Vec<usize>, usize),
    /// Random sizes up to so many bytes.
    Random(Seeded, usize),
}

impl Split {
    /// Random sizes by this seed.
    pub fn random(seed: u64, max: usize) -> Self {
        Self::Random(Seeded::new(seed), max)
    }

    /// The size of the next delivery of `have` bytes.
    pub fn next(&mut self, have: usize) -> usize {
        let size = match self {
            Self::Whole => have,
            Self::Fixed(size) => *size,
            Self::List(sizes, at) => {
                *at += 1;
                sizes.get((*at - 1) % sizes.len().max(1)).copied().unwrap_or(have)
            }
            Self::Random(random, max) => 1 + random.below(*max),
        };
        size.clamp(1, have.max(1))
    }
}

type Edit = Box<dyn FnMut(usize, &mut Vec<u8>) + Send>;

/// One direction.
#[derive(Default)]
pub struct Wire {
    /// How long bytes are under way.
    pub latency: Duration,
    /// Takes nothing from the sender.
    pub stalled: bool,
    /// The most bytes under way, as the buffers of a socket hold them.
    pub capacity: Option<usize>,
    /// How deliveries are cut.
    pub split: Split,
    /// How writes are cut: how much of the output the transport takes at a time.
    pub writes: Split,
    /// Ends the direction when so many bytes were delivered.
    pub cut_at: Option<usize>,
    /// Every byte the sender wrote, before any edit.
    pub sent: Vec<u8>,
    /// How many bytes were delivered.
    pub delivered: usize,
    /// The receiver was told of the end.
    pub ended: bool,
    edit: Option<Edit>,
    stream: VecDeque<(Instant, Vec<u8>, usize)>,
    length: usize,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("sent", &self.sent.len()).field("length", &self.length).finish()
    }
}

impl Wire {
    /// Changes what is written from now on: the closure gets the number of the first byte in the whole
    /// stream, and the bytes of one write.
    pub fn edit(&mut self, edit: impl FnMut(usize, &mut Vec<u8>) + Send + 'static) {
        self.edit = Some(Box::new(edit));
    }

    /// Stops editing.
    pub fn pass(&mut self) {
        self.edit = None;
    }

    /// Puts bytes on the wire that nobody sent.
    pub fn inject(&mut self, now: Instant, bytes: &[u8]) {
        self.length += bytes.len();
        self.stream.push_back((now, bytes.to_vec(), 0));
    }

    /// Ends the direction behind what is under way.
    pub fn cut(&mut self) {
        self.cut_at = Some(self.delivered + self.length);
    }

    /// Loses what is under way.
    pub fn lose(&mut self) {
        self.stream.clear();
        self.length = 0;
    }

    /// Takes what the transport would take of `output`, and says how many bytes.
    pub fn write(&mut self, now: Instant, output: &[u8]) -> usize {
        let room = self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.length));
        let have = output.len().min(room);
        if self.stalled || have == 0 {
            return 0;
        }
        let n = self.writes.next(have);
        let at = self.sent.len();
        self.sent.extend_from_slice(&output[..n]);
        let mut bytes = output[..n].to_vec();
        if let Some(edit) = &mut self.edit {
            edit(at, &mut bytes);
        }
        self.length += bytes.len();
        if !bytes.is_empty() {
            self.stream.push_back((now + self.latency, bytes, 0));
        }
        n
    }

    /// Whether anything could be delivered at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_delivery().is_some_and(|at| at <= now)
    }

    /// When the next bytes, or the end, arrive.
    pub fn next_delivery(&self) -> Option<Instant> {
        if self.cut_at.is_some_and(|at| self.delivered >= at) {
            return (!self.ended).then_some(Instant::ORIGIN);
        }
        self.stream.front().map(|(at, ..)| *at)
    }

    /// Bytes under way.
    pub fn under_way(&self) -> usize {
        self.length
    }

    /// The next delivery, if one is due.
    pub(crate) fn read(&mut self, now: Instant) -> Option<Delivery> {
        if self.cut_at.is_some_and(|at| self.delivered >= at) {
            return (!std::mem::replace(&mut self.ended, true)).then_some(Delivery::End);
        }
        let due = self.stream.iter().take_while(|(at, ..)| *at <= now);
        let due: usize = due.map(|(_, bytes, taken)| bytes.len() - taken).sum();
        let have = due.min(self.cut_at.map_or(usize::MAX, |at| at - self.delivered));
        if have == 0 {
            return None;
        }
        let size = self.split.next(have);
        self.delivered += size;
        self.length -= size;
        let mut out = Vec::with_capacity(size);
        while out.len() < size {
            let (_, bytes, taken) = self.stream.front_mut()?;
            let n = (size - out.len()).min(bytes.len() - *taken);
            out.extend_from_slice(&bytes[*taken..*taken + n]);
            *taken += n;
            if *taken == bytes.len() {
                self.stream.pop_front();
            }
        }
        Some(Delivery::Bytes(out))
    }
}

/// What arrives.
pub(crate) enum Delivery {
    Bytes(Vec<u8>),
    End,
}
