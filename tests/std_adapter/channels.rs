//! Channels: streams, refusals, and what is left when handles are dropped.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use ssh_io_std::{Client, Error, ServerConnection};
use ssh_proto::{CloseReason, DisconnectCode, ExitStatus, OpenFailureCode, StderrMode};

use crate::support::{PASSWORD, PATIENCE, PIECE, configs, connect, logged_in, logged_in_over};

#[test]
fn many_threads_use_many_channels_of_one_connection_at_once() {
    let (client, _closed) = logged_in();
    let threads: Vec<_> = (0..8u8)
        .map(|seed| {
            let client = client.clone();
            thread::spawn(move || {
                let channel = client.open_session().unwrap();
                channel.set_timeout(Some(PATIENCE));
                channel.exec("echo").unwrap();
                let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i as u8).wrapping_mul(seed | 1)).collect();
                let (mut reader, mut writer) = channel.split();
                let expected = sent.clone();
                let sending = thread::spawn(move || writer.write_all(&sent).unwrap());
                let mut got = Vec::new();
                reader.read_to_end(&mut got).unwrap();
                sending.join().unwrap();
                assert!(got == expected, "channel {seed}");
                assert_eq!(reader.channel().wait().unwrap(), Some(ExitStatus::Code(3)));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    client.close();
}

/// Four channels of one thread, their data there and back in pieces; two of them have both streams in one.
fn both_ways(client: &Client, thread: usize, between: impl Fn(usize)) {
    let channels: Vec<_> = (0..4)
        .map(|at| {
            let channel = client.open_session().unwrap();
            channel.set_timeout(Some(PATIENCE));
            if at % 2 == 1 {
                channel.set_stderr(StderrMode::Combined);
            }
            channel.exec("both ways").unwrap();
            channel
        })
        .collect();
    let mut back = vec![0; PIECE];
    for round in 0..ROUNDS {
        let piece = |at: usize| -> Vec<u8> {
            let seed = (thread * 4 + at) * ROUNDS + round;
            (0..PIECE).map(|i| (i.wrapping_mul(seed | 1) >> 3) as u8).collect()
        };
        for (at, mut channel) in channels.iter().enumerate() {
            channel.write_all(&piece(at)).unwrap();
        }
        between(round);
        for (at, mut channel) in channels.iter().enumerate() {
            let mut piece = piece(at);
            channel.read_exact(&mut back).unwrap();
            assert!(back == piece, "thread {thread}, channel {at}, round {round}: stdout");
            piece.iter_mut().for_each(|byte| *byte = !*byte);
            match at % 2 {
                0 => channel.stderr().read_exact(&mut back).unwrap(),
                _ => channel.read_exact(&mut back).unwrap(),
            }
            assert!(back == piece, "thread {thread}, channel {at}, round {round}: stderr");
        }
    }
    for mut channel in &channels {
        channel.finish_input().unwrap();
        assert_eq!(channel.read(&mut back).unwrap(), 0);
        assert_eq!(channel.wait().unwrap(), Some(ExitStatus::Code(4)));
    }
}

/// Two MiB there and four back on each channel.
const ROUNDS: usize = 64;

#[test]
fn eight_threads_with_four_channels_each_move_megabytes_both_ways_across_rekeys() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (client, server, _closed) = logged_in_over(configs(|_| {}), ours, theirs);
    thread::scope(|scope| {
        for number in 0..8 {
            let (client, server) = (&client, &server);
            let between = move |round| match (number, round) {
                (0, 10 | 30 | 50) => client.rekey(),
                (1, 20 | 40) => server.rekey(),
                _ => {}
            };
            scope.spawn(move || both_ways(client, number, between));
        }
    });
    assert!(client.rekeys() >= 3, "{}", client.rekeys());
    client.close();
    server.join(PATIENCE);
    assert_eq!(client_left(&server), DisconnectCode::BY_APPLICATION);
}

/// The code the client left with.
fn client_left(server: &ServerConnection) -> DisconnectCode {
    match server.close_reason() {
        Some(CloseReason::PeerDisconnected { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_that_times_out_leaves_the_channel_usable() {
    let (client, _closed) = logged_in();
    let mut channel = client.open_session().unwrap();
    channel.exec("echo").unwrap();
    channel.set_read_timeout(Some(Duration::from_millis(1)));
    let error = channel.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    channel.set_read_timeout(Some(PATIENCE));
    channel.write_all(b"still here").unwrap();
    let mut got = [0; 10];
    channel.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
}

#[test]
fn stderr_is_separate_combined_or_discarded() {
    let (client, _closed) = logged_in();
    let output = client.exec("both").unwrap();
    assert_eq!(output.stdout, b"out 0\nout 1\nout 2\n");
    assert_eq!(output.stderr, b"err 0\nerr 1\nerr 2\n");
    assert_eq!(output.status, Some(ExitStatus::Code(0)));
    for (how, expected) in [
        (StderrMode::Combined, &b"out 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\n"[..]),
        (StderrMode::Discard, b"out 0\nout 1\nout 2\n"),
    ] {
        let mut channel = client.open_session().unwrap();
        channel.set_timeout(Some(PATIENCE));
        channel.set_stderr(how);
        channel.exec("both").unwrap();
        let mut got = Vec::new();
        channel.read_to_end(&mut got).unwrap();
        assert_eq!(got, expected, "{how:?}");
        assert_eq!(channel.stderr().read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn chunks_are_what_reads_give() {
    let (client, _closed) = logged_in();
    let channel = client.open_session().unwrap();
    channel.set_timeout(Some(PATIENCE));
    channel.exec("both").unwrap();
    assert!(channel.wait().is_ok());
    assert_eq!(channel.read_chunk(0).unwrap().as_deref(), Some(&b""[..]));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = channel.read_chunk(5).unwrap() {
        assert!((1..=5).contains(&chunk.len()));
        out.extend_from_slice(&chunk);
    }
    while let Some(chunk) = channel.stderr().read_chunk(usize::MAX).unwrap() {
        err.extend_from_slice(&chunk);
    }
    assert_eq!((&out[..], &err[..]), (&b"out 0\nout 1\nout 2\n"[..], &b"err 0\nerr 1\nerr 2\n"[..]));
    let (reader, _writer) = channel.split();
    assert_eq!(reader.read_chunk(1).unwrap(), None);
    // Where nothing comes it waits as a read does.
    let quiet = client.open_session().unwrap();
    quiet.exec("wait").unwrap();
    quiet.set_read_timeout(Some(Duration::from_millis(20)));
    assert!(matches!(quiet.read_chunk(1), Err(Error::TimedOut)));
    client.close();
    assert!(matches!(quiet.read_chunk(1), Err(Error::Closed(_))));
}

#[test]
fn refusals_are_errors_and_cost_only_their_request() {
    let (client, _closed) = connect();
    match client.auth_password("me", "wrong") {
        Err(Error::AuthFailed { remaining, partial: false }) => assert_eq!(remaining, ["password"]),
        other => panic!("{other:?}"),
    }
    client.auth_password("me", PASSWORD).unwrap();
    let channel = client.open_session().unwrap();
    channel.set_timeout(Some(PATIENCE));
    assert!(matches!(channel.exec("refuse"), Err(Error::RequestRefused)));
    channel.exec("echo").unwrap();
    assert!(matches!(channel.shell(), Err(Error::RequestRefused)), "one program per session");
}

#[test]
fn dropping_the_client_ends_the_connection_in_order() {
    let (client, closed) = logged_in();
    let mut channel = client.open_session().unwrap();
    channel.exec("wait").unwrap();
    drop(client);
    match closed.recv_timeout(PATIENCE).unwrap() {
        CloseReason::PeerDisconnected { code, .. } => assert_eq!(code, DisconnectCode::BY_APPLICATION),
        other => panic!("{other:?}"),
    }
    assert!(channel.read(&mut [0; 1]).is_err());
    assert!(matches!(channel.wait(), Err(Error::Closed(_))));
}

#[test]
fn dropping_a_channel_closes_it_and_frees_its_place() {
    let (client, _closed) = logged_in();
    // Far more than there are places for at once. The server's places are free when its threads let go of
    // them, which this waits for by asking again.
    let mut served = 0;
    while served < 200 {
        match client.open_session() {
            Ok(channel) => {
                channel.exec("echo").unwrap();
                served += 1;
            }
            Err(Error::OpenFailed(why)) => {
                assert_eq!(why.code, OpenFailureCode::RESOURCE_SHORTAGE);
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    while let Err(error) = client.open_session() {
        assert!(matches!(error, Error::OpenFailed(_)), "{error}");
    }
    assert_eq!(client.exec("both").unwrap().status, Some(ExitStatus::Code(0)));
}
