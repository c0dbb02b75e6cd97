//! The input buffer of an adapter: few allocations, bounded memory.

use alloc::vec::Vec;

use bytes::BytesMut;

/// The smallest buffer, for a connection that says little.
const MIN: usize = 4 * 1024;
/// The smallest one behind a silence, in which it is all that a connection holds of them; the least room for a read.
const IDLE: usize = 512;
/// The largest packet before authentication.
const PRE_AUTH_PACKET: usize = 35_000;
/// The largest one.
const MAX: usize = 256 * 1024;
/// How many buffers there are at most.
const BUFFERS: usize = 3;

/// Up to three rotating input buffers.
///
/// A connection takes whole packets off the front of its input and may keep slices of them as unread channel
/// data, so the buffer cannot be used again until those are gone. Growing it then would allocate anew for
/// every packet. The pool instead turns to another buffer, takes along only the partial packet at the end,
/// and comes back to the first one when its slices are gone. Buffers are made when needed, grow from 4 KiB
/// to 256 KiB while reads fill them, and are given back when the connection falls silent, all but 512 bytes.
///
/// ```
/// use ssh_proto::InputPool;
///
/// let mut pool = InputPool::new();
/// let spare = pool.reserve(); // at least this many bytes can be appended without allocating
/// pool.buffer().extend_from_slice(&[0; 16]);
/// pool.filled(16, spare);
/// assert_eq!(pool.buffer().len(), 16);
/// ```
#[derive(Debug)]
pub struct InputPool {
    current: Held,
    others: Vec<Held>,
    size: usize,
    max: usize,
}

/// A buffer, and the bytes it takes: its capacity does not count what was taken off its front.
#[derive(Debug, Default)]
struct Held {
    bytes: BytesMut,
    size: usize,
}

impl Held {
    fn new(size: usize) -> Self {
        let bytes = BytesMut::with_capacity(size);
        Self { size: bytes.capacity(), bytes }
    }

    fn spare(&self) -> usize {
        self.bytes.capacity().saturating_sub(self.bytes.len())
    }

    /// Larger than it was made it is when more was appended than there was room for.
    fn size(&self) -> usize {
        self.size.max(self.bytes.capacity())
    }
}

impl Default for InputPool {
    fn default() -> Self {
        Self::new()
    }
}

impl InputPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self { current: Held::default(), others: Vec::new(), size: MIN, max: MAX }
    }

    /// The size of buffers that does until a peer is authenticated, for [`set_max`](Self::set_max).
    pub const MAX_PRE_AUTH: usize = 16 * 1024;
    /// The size buffers grow to by themselves.
    pub const MAX: usize = MAX;

    /// Grows buffers to `max` bytes from now on, at least 4 KiB and at most [`MAX`](Self::MAX). A packet that
    /// is larger still gets the room it needs.
    ///
    /// DoS: held at [`MAX_PRE_AUTH`](Self::MAX_PRE_AUTH) until a peer is authenticated, however fast it sends
    /// it then costs no more.
    pub fn set_max(&mut self, max: usize) {
        self.max = max.clamp(MIN, MAX);
        self.size = self.size.min(self.max);
    }

    /// The buffer to append to and to hand to `handle_input`.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.current.bytes
    }

    /// Makes room for a read and says how many bytes: at least 512, and more while reads fill it. What is there is
    /// moved when its buffer is full, to one with room for half as much again, or for the rest of the largest packet
    /// there may be. Behind that, where a whole read was appended to a part of a packet, the step is an eighth.
    pub fn reserve(&mut self) -> usize {
        self.current.size = self.current.size();
        let len = self.current.bytes.len();
        // No more is made room for than the largest packet there may be takes. There is more when a whole read was
        // appended behind a part of one.
        let large = self.max > Self::MAX_PRE_AUTH || len > PRE_AUTH_PACKET;
        let most = if large { MAX.saturating_add(MIN) } else { PRE_AUTH_PACKET.saturating_add(MIN) };
        let left = most.saturating_sub(len);
        let wanted = if left < IDLE { len / 8 } else { (self.size / 8).min(left).max(IDLE) };
        // Enough is left behind what is there, or the slices of the front are gone.
        if self.current.spare() >= wanted || self.current.bytes.try_reclaim(wanted) {
            return self.current.spare();
        }
        let needed = len.saturating_add((len / 2).min(left).max(wanted));
        let free = self.others.iter_mut().position(|other| other.bytes.try_reclaim(needed));
        let next = match free {
            Some(at) => self.others.swap_remove(at),
            None => {
                // Behind a silence there is a small one. Where slices of that are kept, more such would have to be made
                // over and over.
                if self.current.size > 0 {
                    self.size = self.size.max(MIN);
                }
                Held::new(self.size.max(needed))
            }
        };
        let mut old = core::mem::replace(&mut self.current, next);
        self.current.bytes.extend_from_slice(&old.bytes);
        old.bytes.clear();
        // Before authentication nothing is parked, so nothing is there to turn away from: one buffer does.
        let others = if self.max > Self::MAX_PRE_AUTH { BUFFERS - 1 } else { 0 };
        if self.others.len() < others {
            self.others.push(old);
        } else if let Some(first) = self.others.first_mut() {
            // All are held by slices: the oldest is let go, and lives as long as its slices.
            *first = old;
            self.others.rotate_left(1);
        }
        self.current.spare()
    }

    /// A read gave `n` of `room` bytes: a full one means there is more to come.
    pub fn filled(&mut self, n: usize, room: usize) {
        if n >= room && self.size < self.max {
            self.size = self.size.saturating_mul(2).min(self.max);
            self.others.retain(|other| other.size() >= self.size);
        }
    }

    /// Nothing came for a while: large buffers are given back.
    pub fn idle(&mut self) {
        self.others.clear();
        self.size = IDLE;
        // However little is left of it, it may be large.
        if self.current.bytes.len() < MIN {
            let len = self.current.bytes.len();
            let mut small = Held::new(if len == 0 { 0 } else { len.saturating_add(IDLE) });
            small.bytes.extend_from_slice(&self.current.bytes);
            self.current = small;
        }
    }

    /// Bytes of the buffers held, whatever of them is in use. A buffer that was turned away from for good, and is
    /// kept alive by slices that a connection or the application has, is theirs and not counted.
    pub fn capacity(&self) -> usize {
        self.others.iter().map(Held::size).fold(self.current.size(), usize::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool whose buffer grew, all but `left` bytes of it taken off again.
    fn grown(left: usize) -> InputPool {
        let mut pool = InputPool::new();
        let mut room = pool.reserve();
        while room < 4 * MIN {
            pool.buffer().resize(room, 1);
            pool.filled(room, room);
            drop(pool.buffer().split());
            room = pool.reserve();
        }
        pool.buffer().resize(room, 1);
        drop(pool.buffer().split_to(room - left));
        pool.others.clear();
        pool
    }

    #[test]
    fn a_large_buffer_is_given_back_however_little_of_it_is_left() {
        let mut pool = grown(10);
        assert!(pool.buffer().capacity() < MIN);
        pool.idle();
        assert_eq!(pool.buffer()[..], [1; 10]);
        assert!(!pool.buffer().try_reclaim(MIN), "it was there still");
        assert!(pool.capacity() < 2 * IDLE, "{}", pool.capacity());
        pool.reserve();
        assert!((IDLE..2 * IDLE).contains(&pool.capacity()), "{}", pool.capacity());
    }

    #[test]
    fn a_packet_costs_no_more_for_arriving_in_small_pieces() {
        let pre_auth = InputPool::MAX_PRE_AUTH;
        for (max, packet) in
            [(pre_auth, 35_000), (MAX, 32_800), (MAX, MAX + 20), (MIN, MAX + 20), (pre_auth, MAX + 20)]
        {
            for piece in [1, 16, 500, 4000] {
                for (rest, held, is_grown) in
                    [(0, false, false), (700, false, false), (700, true, false), (700, true, true)]
                {
                    let mut pool = InputPool::new();
                    pool.set_max(max);
                    for _ in 0..if is_grown { 20 } else { 0 } {
                        let room = pool.reserve();
                        pool.buffer().resize(room, 1);
                        pool.filled(room, room);
                        drop(pool.buffer().split());
                    }
                    pool.reserve();
                    pool.buffer().resize(rest, 1);
                    let slices = pool.buffer().split();
                    let slices = held.then_some(slices);
                    let mut moved = 0;
                    while pool.buffer().len() < packet {
                        let (from, len) = (pool.buffer().as_ptr(), pool.buffer().len());
                        let room = pool.reserve();
                        assert!(room >= MIN / 8);
                        moved += if pool.buffer().as_ptr() == from { 0 } else { len };
                        let n = piece.min(room);
                        pool.buffer().extend_from_slice(&[7; 4000][..n]);
                        pool.filled(n, room);
                    }
                    let most =
                        if packet > PRE_AUTH_PACKET || max == MAX { MAX } else { PRE_AUTH_PACKET } + MIN;
                    assert!(pool.current.size() <= most, "{packet} by {piece}: {}", pool.current.size());
                    assert!(moved <= 4 * packet, "{packet} by {piece}: {moved} bytes moved");
                    assert!(pool.buffer().iter().all(|byte| *byte == 7));
                    drop(slices);
                }
            }
        }
    }

    /// As an adapter does that reads into a buffer of its own.
    #[test]
    fn reads_that_are_appended_whole_behind_a_part_of_a_packet_are_moved_a_few_times_at_most() {
        for (kept, packet, read) in [(16, 33_000, 250_000), (16, 150_000, MAX), (16, 262_140, 257_144)] {
            let (mut pool, mut slices) = (InputPool::new(), std::collections::VecDeque::new());
            let (mut moved, mut appended) = (0, 0);
            for n in 0..200 {
                let mut left = read;
                while left > 0 {
                    let (from, len) = (pool.buffer().as_ptr(), pool.buffer().len());
                    let room = pool.reserve();
                    if n >= 100 {
                        moved += if pool.buffer().as_ptr() == from { 0 } else { len };
                    }
                    let some = left.min(room);
                    pool.buffer().extend_from_slice(&[7; MAX][..some]);
                    pool.filled(some, room);
                    left -= some;
                }
                appended += if n >= 100 { read } else { 0 };
                while pool.buffer().len() >= packet {
                    slices.push_back(pool.buffer().split_to(packet));
                    if slices.len() > kept {
                        slices.pop_front();
                    }
                }
            }
            assert!(moved <= 4 * appended, "{packet}: {moved} bytes moved for {appended}");
        }
    }

    #[test]
    fn a_buffer_counts_whole_however_little_of_it_is_left() {
        let mut pool = grown(10);
        assert!(pool.capacity() >= 4 * MIN, "{}", pool.capacity());
        // Behind slices of it that are kept, it is one of the others, and the next is the one in use.
        let kept = pool.buffer().split();
        let before = pool.capacity();
        pool.reserve();
        assert_eq!((pool.others.len(), pool.capacity()), (1, before + pool.size));
        drop(kept);
    }

    #[test]
    fn a_buffer_that_is_large_enough_stays_when_buffers_grow() {
        let mut pool = grown(10);
        let kept = pool.buffer().split();
        pool.reserve();
        drop(kept);
        // It shows next to nothing of what it is.
        assert!(pool.others[0].bytes.capacity() < MIN && pool.others[0].size() >= 2 * MIN);
        pool.size = MIN;
        pool.filled(MIN, MIN);
        assert_eq!(pool.others.len(), 1);
    }
}
