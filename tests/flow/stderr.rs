//! A channel whose stderr is to go another way than it began.

use ssh_proto::{ChannelConfig, ChannelId, ReadError, StderrMode, Stream};
use ssh_tests::{Pair, record};

use super::{client, fill, reads, server};

/// One packet, so that what is read of it is granted again at once.
const WINDOW: usize = 20_000;

/// A pair whose client reads nothing by itself, and its channel.
fn session() -> (Pair, ChannelId, ChannelId) {
    let mut pair = Pair::logged_in();
    pair.client.policy = reads(false);
    let (ours, theirs) = pair.open_session_with(ChannelConfig::default().with_window(20_000));
    (pair, ours, theirs)
}

/// What the client has of a stream, all of it.
fn read_all(pair: &mut Pair, ours: ChannelId, stream: Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(bytes) = client(pair, ours).read(stream, usize::MAX) {
        all.extend_from_slice(&bytes);
    }
    pair.drive();
    all
}

/// Whole windows of data go through.
fn assert_flows(pair: &mut Pair, ours: ChannelId, theirs: ChannelId) {
    for stream in [Stream::Data, Stream::Stderr, Stream::Data] {
        let written = fill(&mut server(pair, theirs), stream);
        assert_eq!(written, WINDOW, "{stream:?}");
        pair.drive();
        read_all(pair, ours, Stream::Data);
    }
}

#[test]
fn a_window_full_of_early_stderr_is_given_back_when_it_is_to_be_discarded() {
    let (mut pair, ours, theirs) = session();
    assert_eq!(fill(&mut server(&mut pair, theirs), Stream::Stderr), WINDOW);
    pair.drive();
    let usage = pair.client.conn.memory_usage();
    assert_eq!((usage.parked, usage.granted), (WINDOW, 0));
    assert_ne!(usage.borrowed, 0);

    client(&mut pair, ours).set_stderr(StderrMode::Discard);
    let usage = pair.client.conn.memory_usage();
    assert_eq!((usage.parked, usage.granted, usage.borrowed), (0, WINDOW, 0));
    assert_eq!(client(&mut pair, ours).read(Stream::Stderr, 1), Err(ReadError::Blocked));
    assert_eq!(client(&mut pair, ours).read(Stream::Data, 1), Err(ReadError::Blocked));
    pair.drive();
    assert_flows(&mut pair, ours, theirs);
    assert_eq!(pair.client.conn.memory_usage().granted, WINDOW);
}

#[test]
fn a_window_full_of_early_stderr_is_read_as_data_when_it_is_to_be_combined() {
    let (mut pair, ours, theirs) = session();
    assert_eq!(fill(&mut server(&mut pair, theirs), Stream::Stderr), WINDOW);
    pair.drive();
    assert_eq!(pair.client.count("Readable(Data)"), 0);

    client(&mut pair, ours).set_stderr(StderrMode::Combined);
    let usage = pair.client.conn.memory_usage();
    assert_eq!((usage.parked, usage.granted), (WINDOW, 0));
    pair.drive();
    assert_eq!(pair.client.count("Readable(Data)"), 1);
    assert_eq!(client(&mut pair, ours).read(Stream::Stderr, 1), Err(ReadError::Blocked));
    assert_eq!(read_all(&mut pair, ours, Stream::Data).len(), WINDOW);
    let usage = pair.client.conn.memory_usage();
    assert_eq!((usage.parked, usage.granted, usage.borrowed), (0, WINDOW, 0));
    assert_flows(&mut pair, ours, theirs);
}

#[test]
fn combined_stderr_goes_behind_the_data_that_waits_and_what_comes_later_in_order() {
    let (mut pair, ours, theirs) = session();
    let say = |pair: &mut Pair, stream, text: &str| {
        server(pair, theirs).write(stream, text.as_bytes()).unwrap();
        pair.drive();
    };
    for _ in 0..40 {
        // More pieces than are kept as slices.
        say(&mut pair, Stream::Stderr, "e");
        say(&mut pair, Stream::Data, "d");
    }
    client(&mut pair, ours).set_stderr(StderrMode::Combined);
    say(&mut pair, Stream::Data, "1");
    say(&mut pair, Stream::Stderr, "2");
    client(&mut pair, ours).set_stderr(StderrMode::Separate);
    say(&mut pair, Stream::Data, "3");
    say(&mut pair, Stream::Stderr, "4");
    let expected = ["d".repeat(40), "e".repeat(40), "123".into()].concat();
    assert_eq!(read_all(&mut pair, ours, Stream::Data), expected.as_bytes());
    assert_eq!(read_all(&mut pair, ours, Stream::Stderr), b"4");
    assert_eq!(pair.client.count("Readable(Data)"), 1, "there was data all the time");
    assert_eq!(pair.client.conn.memory_usage().borrowed, 0);
}

#[test]
fn a_switch_without_stderr_or_behind_the_end_tells_nobody_and_grants_nothing() {
    let (mut pair, ours, theirs) = session();
    for how in [StderrMode::Combined, StderrMode::Discard, StderrMode::Separate] {
        client(&mut pair, ours).set_stderr(how);
        pair.drive();
    }
    assert_eq!(pair.client.count("Readable"), 0);
    server(&mut pair, theirs).write(Stream::Stderr, &[0; WINDOW]).unwrap();
    server(&mut pair, theirs).eof().unwrap();
    pair.drive();
    client(&mut pair, ours).set_stderr(StderrMode::Discard);
    pair.drive();
    assert_eq!(client(&mut pair, ours).read(Stream::Stderr, 1), Err(ReadError::Eof));
    assert_eq!(
        record::count(&pair.c2s.sent, ssh_proto::raw::number::CHANNEL_WINDOW_ADJUST),
        0,
        "nothing more comes"
    );
}

#[test]
fn stderr_combined_behind_the_end_of_the_connection_is_read_and_not_told() {
    let (mut pair, ours, theirs) = session();
    assert_eq!(fill(&mut server(&mut pair, theirs), Stream::Stderr), WINDOW);
    pair.drive();
    pair.client.conn.handle_eof(pair.now);
    pair.drive();
    assert!(pair.client.closed.is_some());
    client(&mut pair, ours).set_stderr(StderrMode::Combined);
    assert!(pair.client.conn.poll_event().is_none());
    assert_eq!(read_all(&mut pair, ours, Stream::Data).len(), WINDOW);
}
