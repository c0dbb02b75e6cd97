//! Ends that meet: both sides close at once, and a server is shut down while keys are exchanged.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use ssh_io_std as blocking;
use ssh_io_tokio as asynchronous;
use ssh_proto::{CloseReason, DisconnectCode};
use tokio::runtime::Builder;

use crate::crowd::{blocking as pair, comes_back, waits_until};
use crate::over_std::Serves;
use crate::over_tokio::serve;
use crate::session::configs;
use crate::tally::{PATIENCE, STD, TOKIO, given_up, survived, turn};

/// Whoever is first says why, and the other one reads it, unless it was as quick.
pub(crate) fn is_orderly(reason: &CloseReason) -> bool {
    let by_application = DisconnectCode::BY_APPLICATION;
    match reason {
        CloseReason::Local(code) | CloseReason::PeerDisconnected { code, .. } => *code == by_application,
        _ => false,
    }
}

/// In the asynchronous adapter they do so at each step of a session, among what is dropped there.
#[test]
fn ad_15_both_sides_of_the_blocking_adapter_close_at_once() {
    let _turn = turn();
    const ROUNDS: usize = 300;
    for round in 0..ROUNDS {
        let (line, client, server) = pair(configs().0);
        let mut session = client.open_session().unwrap();
        session.exec("program").unwrap();
        session.write_all(&[7; 3000]).unwrap();
        let mut reader = session.clone();
        let reading = thread::spawn(move || reader.read_to_end(&mut Vec::new()));
        // Some end between keys, and some with both sides asking for new ones.
        if round % 4 > 0 {
            client.rekey();
        }
        if round % 4 > 1 {
            server.rekey();
        }
        let barrier = Arc::new(Barrier::new(2));
        let (ours, theirs) = (Arc::clone(&barrier), server.clone());
        let client_reason = comes_back(move || {
            let closing = thread::spawn(move || {
                barrier.wait();
                theirs.close();
            });
            ours.wait();
            for _ in 0..round / 4 {
                thread::yield_now();
            }
            // What the handle knew last.
            let end = thread::spawn(move || session.wait());
            client.close();
            closing.join().unwrap();
            end.join().unwrap()
        });
        assert!(
            matches!(&client_reason, Err(blocking::Error::Closed(reason)) if is_orderly(reason)),
            "{client_reason:?}"
        );
        comes_back(move || drop(reading.join().unwrap()));
        server.join(PATIENCE);
        assert!(server.is_finished());
        let reason = server.closed();
        assert!(is_orderly(&reason), "{reason}");
        drop(server);
        waits_until("the end of all threads", || Arc::strong_count(&line) == 1);
    }
    given_up(STD, "both sides closed at once", ROUNDS);
}

/// A client that begins a key exchange and says no more: what it reads until the end.
fn begins(at: std::net::SocketAddr, begun: impl FnOnce()) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"SSH-2.0-half-way\r\n").unwrap();
    let mut read = vec![0; 1];
    while read.last() != Some(&b'\n') {
        read.push(0);
        let end = read.len() - 1;
        stream.read_exact(&mut read[end..]).unwrap();
    }
    // Its packets are in clear so far.
    let mut packets = vec![0; 6];
    stream.read_exact(&mut packets).unwrap();
    begun();
    stream.read_to_end(&mut packets).unwrap();
    let _ = stream.shutdown(Shutdown::Both);
    packets
}

/// The messages of packets in clear.
fn messages(mut packets: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = packets.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let padding = usize::from(rest[0]);
        messages.push(&rest[1..length - padding]);
        packets = &rest[length..];
    }
    messages
}

/// KEXINIT, and a DISCONNECT with the reason, and nothing behind it.
fn check_told(packets: &[u8]) {
    let messages = messages(packets);
    let [kexinit, disconnect] = messages[..] else { panic!("{messages:?}") };
    assert_eq!((kexinit[0], disconnect[0]), (20, 1));
    let code = u32::from_be_bytes(disconnect[1..5].try_into().unwrap());
    assert_eq!(code, DisconnectCode::BY_APPLICATION.0);
}

#[test]
fn ad_15_a_shutdown_while_keys_are_exchanged() {
    let _turn = turn();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = blocking::Server::new(configs().1);
    let serving = server.clone();
    let serving = thread::spawn(move || {
        serving.serve(&listener, |_, _| Serves { channels: Vec::new(), closed: channel().0 })
    });
    let packets = begins(at, || comes_back(move || server.shutdown(Duration::ZERO)));
    check_told(&packets);
    serving.join().unwrap().unwrap();
    survived(STD, "shut down while keys are exchanged", 1);

    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let packets = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = asynchronous::Server::new(configs().1);
        let serving = server.clone();
        let serving =
            tokio::spawn(async move { serving.serve(listener, |connection, _| serve(connection)).await });
        let (sender, begun) = tokio::sync::oneshot::channel();
        let client = tokio::task::spawn_blocking(move || begins(at, || sender.send(()).unwrap()));
        begun.await.unwrap();
        tokio::time::timeout(PATIENCE, server.shutdown(Duration::ZERO)).await.expect("it hangs");
        serving.await.unwrap().unwrap();
        client.await.unwrap()
    });
    check_told(&packets);
    survived(TOKIO, "shut down while keys are exchanged", 1);
}
