//! Output that is traded away and written elsewhere, as a writer thread does it.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use ssh_proto::{CloseReason, Disconnect, DisconnectCode, Instant, Stream, TimeoutReason, WriteError};
use ssh_tests::pair::deliver;
use ssh_tests::{End, Pair, Peer, Split, Wire, null_client, null_configs, null_server, record};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The buffer of a side's writer.
#[derive(Default)]
struct Writer(BytesMut);

impl Writer {
    /// Trades when it has nothing, and writes what the wire takes.
    fn turn<R: Peer>(&mut self, now: Instant, end: &mut End<R>, wire: &mut Wire) -> bool {
        if self.0.is_empty() {
            self.0.clear();
            end.conn.swap_output(&mut self.0);
        }
        let n = wire.write(now, &self.0);
        self.0.advance(n);
        end.conn.consume_output(n);
        n > 0
    }
}

/// Until nothing moves.
fn drive(pair: &mut Pair, [ours, theirs]: &mut [Writer; 2]) {
    loop {
        let Pair { now, client, server, c2s, s2c } = pair;
        let mut busy = client.turn(*now) | server.turn(*now);
        busy |= ours.turn(*now, client, c2s) | theirs.turn(*now, server, s2c);
        busy |= deliver(*now, c2s, server) | deliver(*now, s2c, client);
        if !busy {
            return;
        }
    }
}

#[test]
fn a_session_whose_output_is_only_ever_traded_away_is_the_same_session() {
    for writes in [Split::Whole, Split::Fixed(7), Split::random(3, 5000)] {
        let (client, server) = null_configs();
        let mut pair = Pair::new(client, server, 1);
        pair.c2s.writes = writes.clone();
        pair.s2c.writes = writes;
        let mut writers = <[Writer; 2]>::default();
        pair.client.conn.authenticate("user", ssh_proto::Credential::None).unwrap();
        drive(&mut pair, &mut writers);
        let config = ssh_proto::ChannelConfig::default();
        let ours = pair.client.conn.open_channel(&ssh_proto::ChannelKind::Session, config).unwrap();
        drive(&mut pair, &mut writers);
        let theirs = pair.server.accepted[0];
        let (mut up, mut down) = (0, 0);
        while up + down < 600_000 {
            let mut channel = pair.client.conn.channel(ours).unwrap();
            up += channel.write(Stream::Data, &[1; 300_000][up..]).unwrap_or(0);
            let mut channel = pair.server.conn.channel(theirs).unwrap();
            down += channel.write(Stream::Data, &[2; 300_000][down..]).unwrap_or(0);
            pair.client.conn.rekey();
            drive(&mut pair, &mut writers);
        }
        assert!(pair.server.bytes(theirs, Stream::Data) == [1; 300_000]);
        assert!(pair.client.bytes(ours, Stream::Data) == [2; 300_000]);
        assert!(pair.client.count("Rekeyed") > 0);
        assert_eq!((&pair.client.closed, &pair.server.closed), (&None, &None));
        record::assert_clean_exchanges(&pair.c2s.sent);
        for usage in [pair.client.conn.memory_usage(), pair.server.conn.memory_usage()] {
            assert_eq!(usage.output, 0);
        }
    }
}

#[test]
fn swapped_bytes_are_output_to_the_limit_of_writers_until_they_are_consumed() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.c2s.stalled = true;
    let mut held = BytesMut::new();
    let write = |pair: &mut Pair| pair.client.conn.channel(ours).unwrap().write(Stream::Data, &[0; 400_000]);
    write(&mut pair).unwrap();
    let output = pair.client.conn.output().len();
    assert!(output >= 256 * 1024);
    pair.client.conn.swap_output(&mut held);
    assert_eq!((held.len(), pair.client.conn.output().len()), (output, 0));
    assert_eq!(pair.client.conn.memory_usage().output, output);
    assert_eq!(write(&mut pair), Err(WriteError::Blocked));
    pair.drive();
    assert_eq!(pair.client.count("Writable"), 0);

    pair.client.conn.consume_output(output - 1000);
    assert_eq!(pair.client.conn.memory_usage().output, 1000);
    pair.drive();
    assert_eq!(pair.client.count("Writable"), 1);
    write(&mut pair).unwrap();
    // Its own bytes show, and are not traded while the others are on their way.
    let newer = pair.client.conn.output().len();
    assert!(newer >= 140_000, "{newer}");
    let mut other = BytesMut::new();
    pair.client.conn.swap_output(&mut other);
    assert_eq!((other.len(), pair.client.conn.output().len()), (0, newer));
    assert_eq!(pair.client.conn.memory_usage().output, newer + 1000);
    pair.client.conn.consume_output(usize::MAX);
    assert_eq!((pair.client.conn.memory_usage().output, pair.client.conn.output().len()), (0, 0));
}

#[test]
fn swapped_bytes_that_are_never_consumed_are_a_stall_and_consumed_ones_are_none() {
    let stall = |limits: &mut ssh_proto::Limits| {
        limits.write_stall = secs(120);
        limits.ident_timeout = secs(1_000_000);
        limits.kex_timeout = secs(1_000_000);
    };
    let (client, server) = (null_client().with_limits(stall), null_server().with_limits(stall));
    let mut pair = Pair::new(client.build().unwrap(), server.build().unwrap(), 1);
    (pair.c2s.stalled, pair.s2c.stalled) = (true, true);
    let mut held = BytesMut::new();
    pair.drive();
    pair.client.conn.swap_output(&mut held);
    assert!(pair.client.conn.output().is_empty() && held.len() > 10);
    assert_eq!(pair.client.conn.timeout_reason(), Some(TimeoutReason::WriteStall));
    // A byte is progress, wherever in its time it goes; the next deadline is a whole one.
    for _ in 0..5 {
        pair.advance(secs(119));
        pair.client.conn.consume_output(1);
        pair.advance(secs(1));
        assert_eq!(pair.client.closed, None);
    }
    pair.advance(secs(120) - Duration::from_millis(1));
    assert_eq!(pair.client.closed, None);
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.client.closed, Some(CloseReason::TimedOut(TimeoutReason::WriteStall)));
}

#[test]
fn swapped_bytes_that_were_all_consumed_are_no_stall() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.c2s.stalled = true;
    let mut held = BytesMut::new();
    pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"gone").unwrap();
    pair.client.conn.swap_output(&mut held);
    pair.client.conn.consume_output(held.len());
    pair.advance(secs(1_000));
    assert_eq!(pair.client.closed, None);
}

#[test]
fn the_last_output_is_dropped_at_its_deadline_also_where_it_was_traded_away() {
    let mut pair = Pair::logged_in();
    let (ours, _) = pair.open_session();
    pair.c2s.stalled = true;
    let mut held = BytesMut::new();
    pair.client.conn.channel(ours).unwrap().write(Stream::Data, b"stuck").unwrap();
    pair.client.conn.swap_output(&mut held);
    pair.client.conn.close(Disconnect::by_application());
    pair.drive();
    assert_eq!(pair.client.closed, Some(CloseReason::Local(DisconnectCode::BY_APPLICATION)));
    let said = pair.client.conn.output().len();
    assert!(said > 0 && !held.is_empty());
    pair.advance(Duration::from_millis(1_999));
    assert_eq!(pair.client.conn.memory_usage().output, held.len() + said);
    pair.advance(Duration::from_millis(1));
    assert_eq!((pair.client.conn.output().len(), pair.client.conn.memory_usage().output), (0, 0));
    assert_eq!(pair.client.conn.poll_timeout(), None);
    // The writer comes back late.
    pair.client.conn.consume_output(held.len());
    held.clear();
    pair.client.conn.swap_output(&mut held);
    assert!(held.is_empty() && pair.client.conn.output().is_empty());
}
