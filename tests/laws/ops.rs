//! Commands to draw at random.

use proptest::prelude::*;
use ssh_proto::{
    ChannelConfig, ChannelId, ChannelKind, ChannelRequestKind, Disconnect, GlobalRequestKind, StderrMode,
    Stream,
};
use ssh_tests::{End, Peer};

/// So many cases, times `CASES_FACTOR` of the environment, and no files left behind.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let factor = std::env::var("CASES_FACTOR").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1);
    ProptestConfig { cases: cases * factor, failure_persistence: None, ..ProptestConfig::default() }
}

/// A command. Channels are named by their place among those the side ever had.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Open(u32),
    Write(u8, usize, Stream),
    Eof(u8),
    Close(u8),
    Abort(u8),
    Release(u8),
    Request(u8, bool),
    Exit(u8),
    Stderr(u8, StderrMode),
    Global,
    Rekey,
    Nothing,
    Disconnect,
}

pub(crate) fn stream() -> impl Strategy<Value = Stream> {
    prop_oneof![3 => Just(Stream::Data), 1 => Just(Stream::Stderr)]
}

fn stderr() -> impl Strategy<Value = StderrMode> {
    prop_oneof![Just(StderrMode::Separate), Just(StderrMode::Combined), Just(StderrMode::Discard)]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop_oneof![Just(1u32), Just(100), Just(40_000), Just(2 << 20)].prop_map(Op::Open),
        10 => (any::<u8>(), 0usize..70_000, stream()).prop_map(|(at, n, stream)| Op::Write(at, n, stream)),
        6 => (any::<u8>(), 0usize..50, stream()).prop_map(|(at, n, stream)| Op::Write(at, n, stream)),
        2 => any::<u8>().prop_map(Op::Eof),
        2 => any::<u8>().prop_map(Op::Close),
        1 => any::<u8>().prop_map(Op::Abort),
        1 => any::<u8>().prop_map(Op::Release),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(at, reply)| Op::Request(at, reply)),
        1 => any::<u8>().prop_map(Op::Exit),
        2 => (any::<u8>(), stderr()).prop_map(|(at, how)| Op::Stderr(at, how)),
        2 => Just(Op::Global),
        2 => Just(Op::Rekey),
        2 => Just(Op::Nothing),
    ]
}

/// Does it. What came of it goes to the trace, and a new channel to `channels`.
pub(crate) fn perform<R: Peer>(end: &mut End<R>, op: &Op, channels: &mut Vec<ChannelId>) {
    let accepted = end.accepted.iter().copied();
    let all: Vec<ChannelId> = channels.iter().copied().chain(accepted).collect();
    let pick = |at: u8| all.get(usize::from(at) % all.len().max(1)).copied();
    let conn = &mut end.conn;
    let mut on = |at: u8, act: &mut dyn FnMut(ssh_proto::Channel<'_>) -> String| match pick(at) {
        Some(id) => conn.channel(id).map_or_else(|error| error.to_string(), act),
        None => "no channel".into(),
    };
    let result = match *op {
        Op::Open(window) => {
            let config = ChannelConfig::default().with_window(window);
            let result = conn.open_channel(&ChannelKind::Session, config);
            channels.extend(result.iter());
            format!("{result:?}")
        }
        Op::Write(at, n, stream) => {
            let data = vec![b'd'; n];
            on(at, &mut |mut channel| format!("{:?}", channel.write(stream, &data)))
        }
        Op::Eof(at) => on(at, &mut |mut channel| format!("{:?}", channel.eof())),
        Op::Close(at) => on(at, &mut |mut channel| {
            channel.close();
            "closed".into()
        }),
        Op::Abort(at) => on(at, &mut |mut channel| format!("{}", channel.abort())),
        Op::Release(at) => on(at, &mut |channel| {
            channel.release();
            "released".into()
        }),
        Op::Request(at, reply) => on(at, &mut |mut channel| {
            let kind = ChannelRequestKind::env("A", "b");
            format!("{:?}", channel.request(&kind, reply))
        }),
        Op::Exit(at) => on(at, &mut |mut channel| {
            let kind = ChannelRequestKind::Exit(ssh_proto::ExitStatus::Code(3));
            format!("{:?}", channel.request(&kind, false))
        }),
        Op::Stderr(at, how) => on(at, &mut |mut channel| {
            channel.set_stderr(how);
            "set".into()
        }),
        Op::Global => {
            let kind = GlobalRequestKind { name: "x@ssh-tests.invalid".into(), data: vec![1, 2] };
            format!("{:?}", conn.global_request(&kind))
        }
        Op::Rekey => {
            conn.rekey();
            "rekey".into()
        }
        Op::Nothing => "nothing".into(),
        Op::Disconnect => {
            conn.close(Disconnect::by_application());
            "disconnect".into()
        }
    };
    end.trace.push(format!("{op:?} gave {result}"));
}
