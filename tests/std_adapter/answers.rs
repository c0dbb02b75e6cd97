//! Answers that arrived whole, of a server that is gone at once.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use ssh_io_std::{Client, HostKeys};
use ssh_proto::{
    ChannelEvent, ChannelRequestKind, Disconnect, ExitStatus, Instant, Server, ServerEvent, Stream,
};
use ssh_tests::{Answer, End, Policy, Seeded, null_client, null_server};

use crate::support::{PATIENCE, comes_back};

/// How a server ends what it says.
#[derive(Clone, Copy)]
enum Bye {
    /// It closes the channel first.
    Close,
    /// It only ends the channel's output, behind the exit.
    Eof,
    /// It only ends the channel's output, and does not say how the program ended.
    NoExit,
}

/// Answers whoever runs something, and is gone: all of it leaves in one piece.
fn answer(end: &mut End<Server>, bye: Bye) {
    for event in std::mem::take(&mut end.events) {
        let ServerEvent::Channel(id, ChannelEvent::Request(request)) = event else { continue };
        end.conn.reply_request(request, true).unwrap();
        let mut channel = end.conn.channel(id).unwrap();
        channel.write(Stream::Data, b"out").unwrap();
        channel.write(Stream::Stderr, b"err").unwrap();
        if !matches!(bye, Bye::NoExit) {
            channel.request(&ChannelRequestKind::Exit(ExitStatus::Code(5)), false).unwrap();
        }
        match bye {
            Bye::Close => channel.close(),
            Bye::Eof | Bye::NoExit => channel.eof().unwrap(),
        }
        end.conn.close(Disconnect::by_application());
    }
}

fn serve(mut transport: UnixStream, bye: Bye) {
    let mut end = End::<Server>::new(null_server().build().unwrap(), Seeded::new(1));
    end.policy = Policy { request: Answer::Keep, ..Policy::default() };
    let mut chunk = vec![0; 64 * 1024];
    while end.closed.is_none() {
        while end.turn(Instant::from_duration(std::time::Duration::ZERO)) {
            answer(&mut end, bye);
        }
        let output = end.conn.output().to_vec();
        transport.write_all(&output).unwrap();
        end.conn.consume_output(output.len());
        match transport.read(&mut chunk) {
            Ok(n @ 1..) if end.closed.is_none() => end.input.extend_from_slice(&chunk[..n]),
            _ => break,
        }
    }
}

/// A client that is logged in, of a server that ends so.
fn client(bye: Bye) -> Client {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || serve(theirs, bye));
    let builder = Client::with_config(null_client().build().unwrap());
    let builder = builder.host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    let client = builder.connect_over("test", 22, ours).unwrap();
    client.auth_password("me", "x").unwrap();
    client
}

#[test]
fn what_arrived_whole_is_told_although_the_server_is_gone() {
    for (bye, status) in
        [(Bye::Close, Some(ExitStatus::Code(5))), (Bye::Eof, Some(ExitStatus::Code(5))), (Bye::NoExit, None)]
    {
        let output = comes_back("exec", move || client(bye).exec("x")).unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out"[..], &b"err"[..]));
        assert_eq!(output.status, status);
    }
}

#[test]
fn a_known_exit_is_told_when_the_connection_is_over() {
    let client = client(Bye::Eof);
    let channel = client.open_session().unwrap();
    channel.exec("x").unwrap();
    client.closed();
    assert_eq!(channel.wait().unwrap(), Some(ExitStatus::Code(5)));
    assert_eq!(channel.wait_exit().unwrap(), Some(ExitStatus::Code(5)));
}
