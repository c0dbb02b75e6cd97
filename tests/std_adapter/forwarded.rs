//! The examples' jump host: what is forwarded arrives, also from who lets go of the channel at once.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

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
