//! The examples' jump host: what is forwarded arrives, also from who lets go of the channel at once.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::loopback::Loopback;
use crate::support::comes_back;

#[test]
fn what_was_written_to_a_forwarded_channel_before_it_was_dropped_reaches_the_target() {
    const LEN: usize = 1_000_000;
    let server = Loopback::start().unwrap();
    let client = server.expect().connect("127.0.0.1", server.port).unwrap();
    Loopback::log_in(&client).unwrap();
    for _ in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = thread::spawn(move || {
            let mut got = Vec::new();
            // It keeps its own side open until the end.
            let mut stream = listener.accept().unwrap().0;
            stream.read_to_end(&mut got).unwrap();
            got.len()
        });
        let mut channel = client.open_direct_tcpip("127.0.0.1", port).unwrap();
        channel.write_all(&vec![7; LEN]).unwrap();
        channel.finish_input().unwrap();
        drop(channel);
        assert_eq!(comes_back("the target", move || target.join().unwrap()), LEN);
    }
    client.close();
    server.stop();
}

#[test]
fn a_target_that_never_reads_is_let_go_of_a_while_behind_the_end_of_its_channel() {
    /// More than windows and the buffers of sockets hold.
    const LEN: usize = 64 << 20;
    let server = Loopback::start().unwrap();
    let client = server.expect().connect("127.0.0.1", server.port).unwrap();
    Loopback::log_in(&client).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (accepted, may_talk) = channel();
    let target = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        may_talk.recv().unwrap();
        // It is told only by what it says itself.
        loop {
            if let Err(error) = stream.write_all(&[7; 65536]) {
                break error.kind();
            }
        }
    });
    let mut held_up = client.open_direct_tcpip("127.0.0.1", port).unwrap();
    held_up.set_timeout(Some(Duration::from_millis(500)));
    let error = held_up.write_all(&vec![7; LEN]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(held_up);
    accepted.send(()).unwrap();
    let told = comes_back("the target", move || target.join().unwrap());
    assert!(matches!(told, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{told:?}");
    client.close();
    server.stop();
}
