//! How windows grow, shrink and come back: the part of the budget that channels share.

use ssh_proto::{ChannelConfig, ChannelId, Stream, WriteError};
use ssh_tests::{Pair, null_configs_with};

use super::{client, fill, reads, server};

/// What every channel has to itself, and what all of them share.
const FLOOR: usize = 32 * 1024;
const SHARED: usize = 1 << 20;

/// A pair whose server reads nothing by itself and has this budget.
fn pair() -> Pair {
    let (client, server) = null_configs_with(
        |limits| {
            limits.max_channels = 4;
            limits.min_window = FLOOR;
            limits.recv_budget = 4 * FLOOR + SHARED;
        },
        |_| {},
    );
    let mut pair = Pair::new(client, server, 1);
    pair.login();
    pair.server.policy = reads(false);
    pair
}

/// Writes as much as the window lets through, and says how much that was.
fn fill_window(pair: &mut Pair, ours: ChannelId) -> usize {
    let mut written = 0;
    loop {
        match fill(&mut client(pair, ours), Stream::Data) {
            0 => return written,
            n => written += n,
        }
        pair.drive();
    }
}

/// The window is used up and everything consumed at once: so the next one is as large as it may be.
fn use_up(pair: &mut Pair, (ours, theirs): (ChannelId, ChannelId)) -> usize {
    let written = fill_window(pair, ours);
    server(pair, theirs).consume(Stream::Data, usize::MAX);
    pair.drive();
    written
}

/// Both sides are done with a channel.
fn end(pair: &mut Pair, (ours, theirs): (ChannelId, ChannelId)) {
    client(pair, ours).release();
    server(pair, theirs).release();
    pair.drive();
}

/// What a channel may take of the shared part when others hold so much of it.
fn share(others: usize) -> usize {
    (SHARED - others) / 8
}

#[test]
fn a_window_grows_with_what_is_consumed_once_others_gave_theirs_back() {
    let mut pair = pair();
    let (first, second) = (pair.open_session(), pair.open_session());
    let smaller = (SHARED - share(0)) / 8;
    assert_eq!(use_up(&mut pair, second), FLOOR + smaller);
    assert_eq!(use_up(&mut pair, second), FLOOR + smaller, "there is no more");
    end(&mut pair, first);
    assert_eq!(use_up(&mut pair, second), FLOOR + smaller, "nothing was consumed since");
    assert_eq!(use_up(&mut pair, second), FLOOR + share(0));
    assert_eq!(use_up(&mut pair, second), FLOOR + share(0));
}

#[test]
fn a_window_grows_by_no_more_than_was_consumed() {
    let mut pair = pair();
    let (first, second) = (pair.open_session(), pair.open_session());
    end(&mut pair, first);
    let smaller = (SHARED - share(0)) / 8;
    assert_eq!(fill_window(&mut pair, second.0), FLOOR + smaller);
    // The first thousand bytes make room for as many again, and the rest for what is missing.
    server(&mut pair, second.1).consume(Stream::Data, 1000);
    pair.drive();
    assert_eq!(fill_window(&mut pair, second.0), 2000);
}

#[test]
fn a_window_gives_back_what_is_more_than_its_share_by_not_being_renewed() {
    let mut pair = pair();
    let (first, second) = (pair.open_session(), pair.open_session());
    assert_eq!(use_up(&mut pair, first), FLOOR + share(0), "it was alone");
    let held = (SHARED - share(0)) / 8;
    assert_eq!(use_up(&mut pair, first), FLOOR + share(held));
    // What the first gave back, the second may have.
    assert_eq!(use_up(&mut pair, second), FLOOR + held);
    assert_eq!(use_up(&mut pair, second), FLOOR + share(share(held)));
}

#[test]
fn a_channel_that_goes_gives_its_part_of_the_shared_room_back() {
    let mut pair = pair();
    for _ in 0..50 {
        let both = (pair.open_session(), pair.open_session());
        assert_eq!(pair.server.conn.memory_usage().granted, 2 * FLOOR + share(0) + share(share(0)));
        assert_eq!(fill_window(&mut pair, both.0.0), FLOOR + share(0));
        // With data that nobody read, and without.
        end(&mut pair, both.0);
        end(&mut pair, both.1);
        let usage = pair.server.conn.memory_usage();
        assert_eq!((usage.granted, usage.parked, usage.channels), (0, 0, 0));
    }
}

#[test]
fn slices_of_a_channel_that_goes_make_room_for_others() {
    let mut pair = pair();
    let most = ssh_proto::Limits::default().max_borrowed;
    for round in 0..5 {
        let both = pair.open_session();
        // Small ones, and large ones of which each comes with a call of its own, in another buffer for all that is known.
        let piece = vec![7; if round % 2 == 0 { 5 } else { 8 * 1024 }];
        for _ in 0..most + 3 {
            assert_eq!(client(&mut pair, both.0).write(Stream::Data, &piece), Ok(piece.len()));
            pair.drive();
        }
        assert_eq!(pair.server.conn.memory_usage().borrowed, most);
        end(&mut pair, both);
        assert_eq!(pair.server.conn.memory_usage().borrowed, 0);
    }
}

#[test]
fn what_is_consumed_without_being_read_gives_its_window_back() {
    let mut pair = pair();
    pair.server.policy.channel = ChannelConfig::default().with_window(10_000);
    let (ours, theirs) = pair.open_session();
    for stream in [Stream::Data, Stream::Stderr] {
        assert_eq!(fill(&mut client(&mut pair, ours), stream), 10_000);
        pair.drive();
        server(&mut pair, theirs).consume(stream, 4_000);
        pair.drive();
        assert_eq!(server(&mut pair, theirs).peek(stream).len(), 6_000);
        assert_eq!(fill(&mut client(&mut pair, ours), stream), 4_000, "{stream:?}");
        pair.drive();
        server(&mut pair, theirs).consume(stream, usize::MAX);
        assert_eq!(server(&mut pair, theirs).peek(stream), b"");
        pair.drive();
        assert_eq!(pair.server.conn.memory_usage().granted, 10_000);
    }
    assert_eq!(client(&mut pair, ours).write(Stream::Data, &[0; 20_000]), Ok(10_000));
    assert_eq!(client(&mut pair, ours).write(Stream::Data, b"x"), Err(WriteError::Blocked));
}
