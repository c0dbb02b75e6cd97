//! Received data waiting to be read.
//!
//! Data stays where it was decrypted, as a slice of the input buffer, while few such slices are parked.
//! Beyond that it is copied together: a single byte must not keep a 256 KiB buffer alive.

use alloc::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

#[derive(Debug)]
enum Chunk {
    Borrowed(Bytes),
    Owned(BytesMut),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::Borrowed(bytes) => bytes.advance(n),
            Self::Owned(bytes) => bytes.advance(n),
        }
    }
}

/// How many parked slices of input buffers a connection may still make.
#[derive(Debug)]
pub(crate) struct BorrowBudget(pub(crate) usize);

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
        if let Some(rest) = budget.0.checked_sub(1) {
            budget.0 = rest;
            self.chunks.push_back(Chunk::Borrowed(data));
            return;
        }
        self.copy(&data);
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
    }

    fn copy(&mut self, mut rest: &[u8]) {
        let mut room = FIRST_COPY;
        if let Some(Chunk::Owned(last)) = self.chunks.back_mut() {
            let (fits, more) = rest.split_at(rest.len().min(last.capacity().saturating_sub(last.len())));
            last.extend_from_slice(fits);
            rest = more;
            room = NEXT_COPY;
        }
        if !rest.is_empty() {
            let mut copy = BytesMut::with_capacity(rest.len().max(room));
            copy.extend_from_slice(rest);
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
            Chunk::Borrowed(bytes) => bytes.split_to(n),
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
            if let (Some(to), Some(from)) = (to.get_mut(..n), piece.as_slice().get(..n)) {
                to.copy_from_slice(from);
            }
            copied = copied.saturating_add(self.consume(n, budget));
        }
        copied
    }

    fn drop_empty_front(&mut self, budget: &mut BorrowBudget) {
        if self.chunks.front().is_some_and(|front| front.as_slice().is_empty())
            && let Some(Chunk::Borrowed(_)) = self.chunks.pop_front()
        {
            budget.0 = budget.0.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_pushed_comes_out_in_order_and_the_budget_comes_back(
            pushes: Vec<Vec<u8>>, reads in proptest::collection::vec((0u8..3, 1usize..40), 0..200), budget in 0usize..4
        ) {
            let mut borrow = BorrowBudget(budget);
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
            prop_assert_eq!(borrow.0, budget);
        }
    }

    #[test]
    fn ch_03_tiny_packets_are_copied_together() {
        let mut budget = BorrowBudget(0);
        let mut parked = Parked::default();
        for _ in 0..100_000 {
            parked.push(Bytes::from_static(b"x"), &mut budget);
        }
        assert!(parked.chunks.len() < 10);
    }
}
