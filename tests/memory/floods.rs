//! Peers that come up with the same thing over and over, and transports that take little at a time: what is on the heap
//! is what is reported.

use std::collections::VecDeque;

use ssh_proto::{InputPool, Stream};
use ssh_tests::{Pair, hand, null_client, null_server};

use super::{NOW, allocations, live, since, turn};

/// What a peer may come up with, over and over.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("data, a byte each", hand::data(0, b"x")),
        ("data", hand::data(0, &[1; 1000])),
        ("stderr, a byte each", hand::extended(0, 1, b"x")),
        ("data of no stream", hand::extended(0, 9, &[1; 100])),
        ("pings", hand::ping(60)),
        ("large pings", hand::ping(30_000)),
        ("global requests", hand::global("g@ssh-tests.invalid", true)),
        ("keepalives", hand::global("keepalive@openssh.com", true)),
        ("questions without an answer", hand::global("g@ssh-tests.invalid", false)),
        ("opens", hand::open(3, 1000, 1000)),
        ("impossible opens", hand::open(3, 1000, 1)),
        ("requests", hand::request(0, "x@ssh-tests.invalid", true, &[0; 300])),
        ("requests without an answer", hand::request(0, "x@ssh-tests.invalid", false, &[0; 300])),
        ("exits", hand::exit_status(0, 1)),
        ("unknown messages", hand::filled(120, 3)),
        ("noise", hand::ignore(1000)),
        ("adjusts", hand::adjust(0, 1)),
    ]
}

/// How a peer takes what is sent to it.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Nothing,
    All,
    /// So many bytes at a time, behind every packet of its own.
    Pieces(usize),
}

#[test]
fn l4_what_is_on_the_heap_is_what_is_reported_under_any_flood() {
    const OUTPUT: usize = 64 * 1024;
    /// The largest packet and what is around it.
    const PACKET: usize = 33 * 1024;
    let _turn = turn();
    let limits = |limits: &mut ssh_proto::Limits| {
        limits.output = OUTPUT;
        limits.owed_replies = 8 * 1024;
        limits.max_borrowed = 4;
        (limits.noise_burst, limits.unimplemented_replies) = (u32::MAX, u32::MAX);
    };
    let takes = [Takes::Nothing, Takes::All, Takes::Pieces(1000), Takes::Pieces(30_000)];
    for (name, payload) in floods() {
        for (polls, takes) in [true, false].into_iter().flat_map(|polls| takes.map(|takes| (polls, takes))) {
            let server = null_server().with_limits(limits).build().unwrap();
            let mut pair = Pair::new(null_client().build().unwrap(), server, 5);
            pair.login();
            let (_, id) = pair.open_session();
            // More than is sent here.
            pair.client.conn.send_raw(&hand::adjust(0, 1 << 30));
            pair.drive();
            let (mut peer, mut conn) = (pair.client.conn, pair.server.conn);
            // Nothing is read, and no question is answered.
            let mut kept = VecDeque::with_capacity(64);
            let before = live();
            let others = peer.output_capacity();
            let mut pool = InputPool::new();
            for _ in 0..2_000 {
                peer.send_raw(&payload);
                while !peer.output().is_empty() && conn.wants_input() {
                    let room = pool.reserve();
                    let n = peer.output().len().min(room);
                    pool.buffer().extend_from_slice(&peer.output()[..n]);
                    pool.filled(n, room);
                    peer.consume_output(n);
                    conn.handle_input(NOW, pool.buffer());
                }
                if polls && kept.len() < 64 {
                    kept.extend(conn.poll_event());
                }
                // As much as there is room for.
                if let Ok(mut channel) = conn.channel(id) {
                    while channel.write(Stream::Data, &[7; 32 * 1024]).is_ok() {}
                }
                conn.consume_output(match takes {
                    Takes::Nothing => 0,
                    Takes::All => usize::MAX,
                    Takes::Pieces(n) => n,
                });
                let usage = conn.memory_usage();
                let ours = conn.output_capacity();
                assert!(ours <= (OUTPUT + PACKET) * 3 / 2, "{name}, {takes:?}: {ours}");
                // Queues grow by doubling. A slice keeps its buffer alive, and what is kept of the
                // questions is the embedder's.
                let queued = usage.parked + usage.owed + usage.outbox + usage.events + kept.len() * 512;
                let buffers = ours + pool.capacity() + usage.borrowed * 32 * 1024;
                let held = (live() + others).saturating_sub(before + peer.output_capacity());
                let most = 2 * queued + buffers + 16 * 1024;
                assert!(held <= most, "{name}, {polls} {takes:?}: {held} bytes, {most} reported: {usage:?}");
                let unsent = peer.output().len();
                peer.consume_output(if conn.wants_input() { 0 } else { unsent });
            }
        }
    }
}

#[test]
fn l4_an_output_that_leaves_in_pieces_takes_what_it_says_and_allocates_nothing_in_the_long_run() {
    let _turn = turn();
    for (output, taken) in [(64, 700), (256, 1000), (256, 30_000), (1024, 5000)] {
        let output = output * 1024;
        let server = null_server().with_limits(|limits| limits.output = output).build().unwrap();
        let mut pair = Pair::new(null_client().build().unwrap(), server, 5);
        pair.login();
        let (_, id) = pair.open_session();
        // More than any transfer here takes.
        pair.client.conn.send_raw(&hand::adjust(0, 1 << 30));
        pair.drive();
        let mut conn = pair.server.conn;
        let data = vec![7; 32 * 1024];
        let mut run = |bytes: usize| {
            let (at_first, mut sent) = (allocations(), 0);
            let rest = live() - conn.output_capacity();
            while sent < bytes {
                while conn.channel(id).unwrap().write(Stream::Data, &data).is_ok() {}
                let (held, told) = (since(rest), conn.output_capacity());
                assert!(held <= told + 4096, "{output}, {taken}: {held} bytes, told {told}");
                assert!(told <= (output + 33 * 1024) * 3 / 2, "{output}, {taken}: {told}");
                sent += conn.output().len().min(taken);
                conn.consume_output(taken);
            }
            allocations() - at_first
        };
        run(4 * output);
        let least = (0..3).map(|_| run(2 * output)).min();
        assert_eq!(least, Some(0), "{output}, {taken}");
    }
}
