//! The input buffer of an adapter: few allocations, bounded memory.

use alloc::vec::Vec;

use bytes::BytesMut;

use crate::copy::append;

/// The smallest buffer, for a connection that says little.
const MIN: usize = 4 * 1024;
/// The smallest one behind a silence, in which it is all that a connection holds of them; the least room for a read.
const IDLE: usize = 512;
/// The largest packet before authentication.
const PRE_AUTH_PACKET: usize = 35_000;
/// The largest one.
const MAX: usize = 256 * 1024;
/// How many buffers there are at most: for a window of 2 MiB that waits to be read, in slices of eight of them or a part
/// of one more, and the one in use.
const BUFFERS: usize = 10;

/// Up to ten rotating input buffers.
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

    /// The most bytes to read at once into a buffer of one's own that are appended then: as many as the largest packet
    /// there may be leaves room for. Where no read takes more, no buffer grows beyond that packet and 4 KiB: 39,096 bytes
    /// before authentication, 266,240 behind it.
    pub fn read_limit(&self) -> usize {
        match self.left() {
            0 => IDLE,
            left => left.min(self.max),
        }
    }

    /// What the largest packet there may be leaves of its buffer. Where an embedder allows larger ones before
    /// authentication, a packet may have outgrown that.
    fn left(&self) -> usize {
        let len = self.current.bytes.len();
        let before_auth = PRE_AUTH_PACKET.saturating_add(MIN);
        let large = self.max > Self::MAX_PRE_AUTH || len >= before_auth;
        let most = if large { MAX.saturating_add(MIN) } else { before_auth };
        most.saturating_sub(len)
    }

    /// Makes room for a read and says how many bytes: more while reads fill it, and at least 512, unless the largest
    /// packet there may be leaves less. What is there is moved when its buffer is full, to one with room for half as
    /// much again, or for the rest of the largest packet there may be. Behind that, where more was appended than
    /// [`read_limit`](Self::read_limit), the step is an eighth.
    pub fn reserve(&mut self) -> usize {
        self.current.size = self.current.size();
        let (len, left) = (self.current.bytes.len(), self.left());
        let wanted = if left == 0 { len / 8 } else { (self.size / 8).max(IDLE).min(left) };
        // One from before buffers grew would do for ever, a packet at a time, were it not turned away from.
        let outgrown = self.current.size < self.size;
        // Enough is left behind what is there, or the slices of the front are gone.
        if !outgrown && (self.current.spare() >= wanted || self.current.bytes.try_reclaim(wanted)) {
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
        append(&mut self.current.bytes, &old.bytes);
        old.bytes.clear();
        // Before authentication nothing is parked, so nothing is there to turn away from: one buffer does.
        let others = if self.max > Self::MAX_PRE_AUTH { BUFFERS - 1 } else { 0 };
        if outgrown {
            // Too small to come back to.
        } else if self.others.len() < others {
            self.others.push(old);
        } else if let Some(first) = self.others.first_mut() {
            // All are held by slices: one is let go, and lives as long as its slices.
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
        self.others = Vec::new();
        self.size = IDLE;
        let len = self.current.bytes.len();
        // However little is left of it, it may be large.
        if self.current.size() / 2 >= len {
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
    use proptest::collection::vec;
    use proptest::prelude::*;

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
    fn a_packet_that_never_gets_whole_keeps_no_more_than_about_itself() {
        for left in [MIN - 1, MIN, 5 * MIN, MAX / 2, MAX] {
            let mut pool = grown(left.min(4 * MIN));
            pool.buffer().resize(left, 1);
            pool.idle();
            assert_eq!(pool.buffer().len(), left);
            assert!(pool.capacity() <= 2 * left + IDLE, "{left}: {}", pool.capacity());
        }
    }

    /// Appends `n` bytes as an adapter does that reads into a buffer of its own; how many are moved for it.
    fn append(pool: &mut InputPool, mut n: usize) -> usize {
        let mut moved = 0;
        while n > 0 {
            let (from, len) = (pool.buffer().as_ptr(), pool.buffer().len());
            let limit = pool.read_limit();
            let room = pool.reserve();
            assert!(room >= limit.min(IDLE), "{room}, though {limit} may come");
            moved += if pool.buffer().as_ptr() == from { 0 } else { len };
            let some = n.min(room);
            pool.buffer().extend_from_slice(&[7; MAX][..some]);
            pool.filled(some, room);
            n -= some;
        }
        moved
    }

    #[test]
    fn a_packet_costs_no_more_for_arriving_in_pieces() {
        let pre_auth = InputPool::MAX_PRE_AUTH;
        for (max, packet) in [
            (pre_auth, 35_000),
            (pre_auth, 35_068),
            (MAX, 32_800),
            (MAX, MAX + 20),
            (MIN, MAX + 20),
            (pre_auth, MAX + 20),
        ] {
            for piece in [1, 16, 500, 4000, 16 * 1024, MAX] {
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
                        let n = piece.min(pool.read_limit());
                        moved += append(&mut pool, n);
                        let bound = if max == MAX || packet > MAX { MAX } else { PRE_AUTH_PACKET } + MIN;
                        assert!(pool.current.size() <= bound, "{packet} by {piece}: {}", pool.current.size());
                    }
                    assert!(moved <= 4 * pool.buffer().len(), "{packet} by {piece}: {moved} bytes moved");
                    assert!(pool.buffer().iter().all(|byte| *byte == 7));
                    drop(slices);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_buffer_is_larger_than_the_largest_packet_and_4_kib_whatever_comes_how(
            pre_auth: bool,
            packets in vec((5_usize..35_069, any::<bool>()), 1..40),
            reads in vec(1_usize..50_000, 1..20),
        ) {
            let mut pool = InputPool::new();
            pool.set_max(if pre_auth { InputPool::MAX_PRE_AUTH } else { MAX });
            let bound = MIN + if pre_auth { PRE_AUTH_PACKET } else { MAX };
            let (mut reads, mut kept) = (reads.into_iter().cycle(), Vec::new());
            for (packet, keep) in packets {
                // Behind authentication they are as much larger as they may be.
                let packet = if pre_auth { packet } else { packet * MAX / 35_068 };
                while pool.buffer().len() < packet {
                    let n = reads.next().unwrap_or(1).min(pool.read_limit());
                    append(&mut pool, n);
                    prop_assert!(pool.current.size() <= bound, "{}", pool.current.size());
                }
                let packet = pool.buffer().split_to(packet);
                kept.extend(keep.then_some(packet));
            }
        }
    }

    /// Bytes moved for 100 reads and those appended, of packets whose last so many are kept.
    fn stream(kept: usize, packet: usize, read: impl Fn(&InputPool) -> usize) -> (usize, usize) {
        let (mut pool, mut slices) = (InputPool::new(), std::collections::VecDeque::new());
        let (mut moved, mut appended) = (0, 0);
        for n in 0..200 {
            let read = read(&pool);
            let more = append(&mut pool, read);
            if n >= 100 {
                moved += more;
                appended += read;
            }
            while pool.buffer().len() >= packet {
                slices.push_back(pool.buffer().split_to(packet));
                if slices.len() > kept {
                    slices.pop_front();
                }
            }
        }
        (moved, appended)
    }

    #[test]
    fn a_stream_is_moved_a_few_times_at_most() {
        for packet in [500, 33_000, 150_000, 262_140, 262_200] {
            for kept in [0, 1, 16] {
                let (moved, appended) = stream(kept, packet, InputPool::read_limit);
                assert!(moved <= 3 * appended, "{packet}, {kept} kept: {moved} bytes moved for {appended}");
            }
        }
    }

    #[test]
    fn reads_beyond_the_limit_are_moved_a_few_times_at_most() {
        for (packet, read) in [(33_000, 250_000), (150_000, MAX), (262_140, 257_144), (262_200, MAX)] {
            let (moved, appended) = stream(16, packet, |_| read);
            assert!(moved <= 5 * appended, "{packet}: {moved} bytes moved for {appended}");
        }
    }

    #[test]
    fn a_buffer_from_before_buffers_grew_is_not_used_a_packet_at_a_time() {
        let mut pool = InputPool::new();
        // Nothing is kept, so that the first buffer could always be had again.
        for _ in 0..20 {
            let room = pool.reserve();
            append(&mut pool, room);
            drop(pool.buffer().split());
        }
        assert_eq!((pool.reserve(), pool.current.size()), (MAX, MAX));
        // Nor are those before it come back to.
        assert!(pool.others.iter().all(|other| other.size() == MAX), "{:?}", pool.others);
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
