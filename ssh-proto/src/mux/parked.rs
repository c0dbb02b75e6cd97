//! Received data waiting to be read.
//!
//! Data stays where it was decrypted, as a slice of the input buffer, while few such buffers are kept alive by it.
//! Beyond that it is copied together: a single byte must not keep a 256 KiB buffer alive.

use alloc::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::copy::append;

/// The smallest slice that shares the charge of the one before: less would be copied for less than it takes to hold it.
const MIN_SHARING: usize = 4 * 1024;

/// So much room for chunks is kept when none is left: for a window of 2 MiB in full packets.
const KEPT_CHUNKS: usize = 64;

#[derive(Debug)]
enum Chunk {
    Borrowed(Borrowed),
    Owned(BytesMut),
}

/// A slice of an input buffer.
#[derive(Debug)]
struct Borrowed {
    bytes: Bytes,
    /// The input it came with.
    input: u64,
    /// The charge for that is held by one before it.
    shares: bool,
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(slice) => &slice.bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::Borrowed(slice) => slice.bytes.advance(n),
            Self::Owned(bytes) => bytes.advance(n),
        }
    }
}

/// How many input buffers a connection may still keep alive for parked data.
///
/// What comes with one call of the embedder is in one buffer, and so is what comes with the next where that goes on in it:
/// slices of a stream that follow each other there count once.
#[derive(Debug)]
pub(crate) struct BorrowBudget {
    left: usize,
    input: u64,
}

impl BorrowBudget {
    pub(crate) fn new(left: usize) -> Self {
        Self { left, input: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// From now on slices are of other input.
    pub(crate) fn next_input(&mut self) {
        self.input = self.input.wrapping_add(1);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Parked {
    chunks: VecDeque<Chunk>,
    len: usize,
}

/// The room of a copy's first chunk, and of the following ones.
const FIRST_COPY: usize = 512;
const NEXT_COPY: usize = 16 * 1024;

impl Parked {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, data: Bytes, budget: &mut BorrowBudget) {
        self.len = self.len.saturating_add(data.len());
        let input = budget.input;
        // The one before it keeps its buffer alive anyway.
        let shares = data.len() >= MIN_SHARING
            && matches!(self.chunks.back(), Some(Chunk::Borrowed(last)) if last.input == input);
        if !shares {
            match budget.left.checked_sub(1) {
                Some(rest) => budget.left = rest,
                None => return self.copy(&data),
            }
        }
        self.chunks.push_back(Chunk::Borrowed(Borrowed { bytes: data, input, shares }));
    }

    /// Moves all of `other` behind what is here.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.len = self.len.saturating_add(core::mem::take(&mut other.len));
        for chunk in other.chunks.drain(..) {
            match chunk {
                Chunk::Borrowed(_) => self.chunks.push_back(chunk),
                // Together again, or each switch of a stream's way could leave a chunk of its own.
                Chunk::Owned(bytes) => self.copy(&bytes),
            }
        }
        other.chunks.shrink_to(KEPT_CHUNKS);
    }

    fn copy(&mut self, mut rest: &[u8]) {
        let mut room = FIRST_COPY;
        if let Some(Chunk::Owned(last)) = self.chunks.back_mut() {
            let (fits, more) = rest.split_at(rest.len().min(last.capacity().saturating_sub(last.len())));
            append(last, fits);
            rest = more;
            room = NEXT_COPY;
        }
        if !rest.is_empty() {
            let mut copy = BytesMut::with_capacity(rest.len().max(room));
            append(&mut copy, rest);
            self.chunks.push_back(Chunk::Owned(copy));
        }
    }

    /// The first contiguous piece.
    pub(crate) fn peek(&self) -> &[u8] {
        self.chunks.front().map(Chunk::as_slice).unwrap_or_default()
    }

    /// Takes up to `max` bytes of the first contiguous piece, without copying.
    pub(crate) fn read(&mut self, max: usize, budget: &mut BorrowBudget) -> Bytes {
        let Some(front) = self.chunks.front_mut() else { return Bytes::new() };
        let n = front.as_slice().len().min(max);
        let bytes = match front {
            Chunk::Borrowed(slice) => slice.bytes.split_to(n),
            Chunk::Owned(bytes) => bytes.split_to(n).freeze(),
        };
        self.len = self.len.saturating_sub(n);
        self.drop_empty_front(budget);
        bytes
    }

    /// Drops `n` bytes, and says how many there were to drop.
    pub(crate) fn consume(&mut self, n: usize, budget: &mut BorrowBudget) -> usize {
        let mut left = n.min(self.len);
        let consumed = left;
        while left > 0 {
            let Some(front) = self.chunks.front_mut() else { break };
            let step = front.as_slice().len().min(left);
            front.advance(step);
            left = left.saturating_sub(step);
            self.drop_empty_front(budget);
        }
        self.len = self.len.saturating_sub(consumed);
        consumed
    }

    /// Copies as much as fits into `dst`.
    pub(crate) fn read_into(&mut self, dst: &mut [u8], budget: &mut BorrowBudget) -> usize {
        let mut copied = 0;
        while let Some((piece, to)) = self.chunks.front().zip(dst.get_mut(copied..)) {
            let n = piece.as_slice().len().min(to.len());
            if n == 0 {
                break;
            }
            if let (Some(mut to), Some(from)) = (to.get_mut(..n), piece.as_slice().get(..n)) {
                append(&mut to, from);
            }
            copied = copied.saturating_add(self.consume(n, budget));
        }
        copied
    }

    fn drop_empty_front(&mut self, budget: &mut BorrowBudget) {
        if self.chunks.front().is_none_or(|front| !front.as_slice().is_empty()) {
            return;
        }
        if let Some(Chunk::Borrowed(Borrowed { shares: false, .. })) = self.chunks.pop_front() {
            match self.chunks.front_mut() {
                Some(Chunk::Borrowed(next)) if next.shares => next.shares = false,
                _ => budget.left = budget.left.saturating_add(1),
            }
        }
        if self.chunks.is_empty() {
            self.chunks.shrink_to(KEPT_CHUNKS);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// How many charges the slices hold, each for slices of one input.
    fn charges(parked: &Parked) -> usize {
        let (mut charges, mut before) = (0, None);
        for chunk in &parked.chunks {
            before = match chunk {
                Chunk::Borrowed(slice) => {
                    match slice.shares {
                        true => assert_eq!(before, Some(slice.input)),
                        false => charges += 1,
                    }
                    Some(slice.input)
                }
                Chunk::Owned(_) => None,
            };
        }
        charges
    }

    proptest! {
        #[test]
        fn slices_of_one_input_are_charged_together_and_given_back(
            pushes in proptest::collection::vec((any::<bool>(), 1usize..20_000, any::<bool>()), 1..100),
            reads in proptest::collection::vec(0usize..60_000, 100), budget in 0usize..6,
        ) {
            let mut borrow = BorrowBudget::new(budget);
            let (mut parked, mut other) = (Parked::default(), Parked::default());
            for ((next, len, aside), read) in pushes.into_iter().zip(reads) {
                if next {
                    borrow.next_input();
                }
                let to = if aside { &mut other } else { &mut parked };
                to.push(Bytes::from(alloc::vec![7; len]), &mut borrow);
                prop_assert_eq!(charges(&parked) + charges(&other), budget - borrow.left);
                match read % 7 {
                    0 => parked.append(&mut other),
                    _ => drop(parked.consume(read, &mut borrow)),
                }
                prop_assert_eq!(charges(&parked) + charges(&other), budget - borrow.left);
                for empty in [&parked, &other].into_iter().filter(|parked| parked.is_empty()) {
                    prop_assert!(empty.chunks.capacity() <= 2 * KEPT_CHUNKS);
                }
            }
            for mut parked in [parked, other] {
                parked.consume(usize::MAX, &mut borrow);
            }
            prop_assert_eq!(borrow.left, budget);
        }

        #[test]
        fn what_is_pushed_comes_out_in_order_and_the_budget_comes_back(
            pushes: Vec<Vec<u8>>, reads in proptest::collection::vec((0u8..3, 1usize..40), 0..200), budget in 0usize..4
        ) {
            let mut borrow = BorrowBudget::new(budget);
            let mut parked = Parked::default();
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let mut reads = reads.into_iter();
            for data in pushes.into_iter().filter(|data| !data.is_empty()) {
                sent.extend_from_slice(&data);
                if data.len() % 3 == 0 {
                    let mut other = Parked::default();
                    other.push(Bytes::from(data), &mut borrow);
                    parked.append(&mut other);
                    prop_assert!(other.is_empty() && other.peek().is_empty());
                } else {
                    parked.push(Bytes::from(data), &mut borrow);
                }
                let Some((how, n)) = reads.next() else { continue };
                match how {
                    0 => got.extend_from_slice(&parked.read(n, &mut borrow)),
                    1 => {
                        let mut dst = [0; 40];
                        let n = parked.read_into(&mut dst[..n], &mut borrow);
                        got.extend_from_slice(&dst[..n]);
                    }
                    _ => {
                        let piece = parked.peek();
                        let piece = piece[..n.min(piece.len())].to_vec();
                        got.extend_from_slice(&piece);
                        parked.consume(piece.len(), &mut borrow);
                    }
                }
                prop_assert_eq!(parked.len(), sent.len() - got.len());
            }
            while !parked.is_empty() {
                got.extend_from_slice(&parked.read(7, &mut borrow));
            }
            prop_assert_eq!(got, sent);
            prop_assert_eq!(borrow.left, budget);
        }
    }

    #[test]
    fn an_input_is_charged_once_for_large_slices_and_for_each_small_one() {
        for (len, charged) in [(MIN_SHARING, 1), (MIN_SHARING - 1, 8)] {
            let mut budget = BorrowBudget::new(8);
            let mut parked = Parked::default();
            for _ in 0..8 {
                parked.push(Bytes::from(alloc::vec![7; len]), &mut budget);
            }
            assert_eq!(8 - budget.left, charged);
            // The charge is that of what is left.
            parked.consume(7 * len, &mut budget);
            assert_eq!(budget.left, 7);
            budget.next_input();
            parked.push(Bytes::from(alloc::vec![7; len]), &mut budget);
            assert_eq!(budget.left, 6, "of another buffer, perhaps");
            parked.consume(2 * len, &mut budget);
            assert_eq!(budget.left, 8);
        }
    }

    #[test]
    fn room_for_many_slices_is_given_back_with_the_last() {
        for moved in [false, true] {
            let mut budget = BorrowBudget::new(1);
            let (mut parked, mut other) = (Parked::default(), Parked::default());
            for _ in 0..1000 {
                parked.push(Bytes::from_static(&[7; MIN_SHARING]), &mut budget);
            }
            assert!(parked.chunks.capacity() >= 1000);
            match moved {
                true => other.append(&mut parked),
                false => drop(parked.consume(usize::MAX, &mut budget)),
            }
            assert!(parked.is_empty() && parked.chunks.capacity() <= 2 * KEPT_CHUNKS);
        }
    }

    #[test]
    fn ch_03_tiny_packets_are_copied_together() {
        let mut budget = BorrowBudget::new(0);
        let mut parked = Parked::default();
        for _ in 0..100_000 {
            parked.push(Bytes::from_static(b"x"), &mut budget);
        }
        assert!(parked.chunks.len() < 10);
    }
}
