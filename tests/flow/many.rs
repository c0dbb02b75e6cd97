//! As many channels over one connection as a configuration allows.

use ssh_proto::{ChannelConfig, ChannelKind, ChannelRequestKind, ClientEvent, ExitStatus, OpenError, Stream};
use ssh_tests::{Pair, null_configs_with, take};

use super::{client, server};

const CHANNELS: usize = 10_000;
const WINDOW: usize = 4096;

#[test]
fn ten_thousand_channels_are_opened_used_and_closed() {
    let (ours, theirs) = null_configs_with(
        |limits| {
            limits.max_channels = CHANNELS;
            (limits.min_window, limits.recv_budget) = (WINDOW, CHANNELS * WINDOW);
        },
        |_| {},
    );
    let mut pair = Pair::new(ours, theirs, 1);
    pair.login();
    let window = ChannelConfig::default().with_window(u32::try_from(WINDOW).unwrap());
    pair.server.policy.channel = window;
    let channels: Vec<_> = (0..CHANNELS).map(|_| pair.open_session_with(window)).collect();
    let more = pair.client.conn.open_channel(&ChannelKind::Session, window);
    assert_eq!(more, Err(OpenError::TooMany));
    // Each has a program that says its number, back to the first.
    for (n, (ours, theirs)) in channels.iter().enumerate().rev() {
        client(&mut pair, *ours).request(&ChannelRequestKind::exec("program"), true).unwrap();
        let said = n.to_string();
        pair.drive();
        let mut program = server(&mut pair, *theirs);
        assert_eq!(program.write(Stream::Data, said.as_bytes()), Ok(said.len()));
        let status = ChannelRequestKind::Exit(ExitStatus::Code(u32::try_from(n).unwrap()));
        program.request(&status, false).unwrap();
        program.close();
    }
    pair.drive();
    for (n, (ours, _)) in channels.iter().enumerate() {
        assert_eq!(pair.client.bytes(*ours, Stream::Data), n.to_string().as_bytes());
    }
    assert_eq!(pair.client.count("Exit"), CHANNELS);
    for (ours, theirs) in &channels {
        client(&mut pair, *ours).release();
        server(&mut pair, *theirs).release();
    }
    pair.drive();
    for usage in [pair.client.conn.memory_usage(), pair.server.conn.memory_usage()] {
        assert_eq!((usage.channels, usage.granted, usage.parked), (0, 0, 0), "{usage:?}");
    }
    // There is room again.
    let id = pair.client.conn.open_channel(&ChannelKind::Session, window).unwrap();
    pair.drive();
    take!(pair.client, ClientEvent::Opened(opened) if opened == id => ());
}
