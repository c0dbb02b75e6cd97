//! How much an adapter reads of a peer that has not logged in: room for one packet, and 4 KiB.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ssh_io_std::{ServerConnection, Split};
use ssh_tests::{hand, null_server};
use tokio::io::{AsyncRead, ReadBuf, join, sink};
use tokio::runtime::Builder;

use super::over_std::Echo;
use super::{PATIENCE, plain, turn};

/// The largest packet before authentication, and what may be read behind it.
const LIMIT: usize = 35_000 + 4096;

/// Gives whatever room there is for it, but of a packet as large as one may be all but the last byte.
struct Greedy {
    greeting: &'static [u8],
    packet: Vec<u8>,
    given: usize,
    /// It was asked for more.
    over: bool,
    /// What would have been held by then, were each read's buffer filled.
    most: Arc<Mutex<usize>>,
}

impl Greedy {
    fn new() -> Self {
        // Eight bytes more would be too long.
        let packet = plain(&hand::ignore(34_985));
        assert_eq!(packet.len(), 35_000);
        Self { greeting: b"SSH-2.0-greedy\r\n", packet, given: 0, over: false, most: Arc::default() }
    }

    fn give(&mut self, room: usize) -> &[u8] {
        if !self.greeting.is_empty() {
            assert!(room >= self.greeting.len());
            return std::mem::take(&mut self.greeting);
        }
        if !self.over {
            let mut most = self.most.lock().unwrap();
            *most = (*most).max(self.given + room);
        }
        let from = self.given;
        self.over = from == self.packet.len() - 1;
        self.given = (from + room).min(self.packet.len() - 1);
        &self.packet[from..self.given]
    }
}

impl Read for Greedy {
    fn read(&mut self, dst: &mut [u8]) -> io::Result<usize> {
        let some = self.give(dst.len());
        dst[..some.len()].copy_from_slice(some);
        Ok(some.len())
    }
}

impl AsyncRead for Greedy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        dst: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = dst.remaining();
        dst.put_slice(self.give(room));
        Poll::Ready(Ok(()))
    }
}

#[test]
fn dos_no_more_is_read_of_an_unauthenticated_peer_than_its_packet_and_4_kib() {
    let _turn = turn();
    let config = null_server().build().unwrap();
    let most_over = |adapter: &str, most: &Mutex<usize>| {
        let most = *most.lock().unwrap();
        println!("{adapter}: {most} bytes at most");
        assert!((35_000..=LIMIT).contains(&most), "{adapter}: {most}");
    };

    let greedy = Greedy::new();
    let most = Arc::clone(&greedy.most);
    let split = Split { reader: greedy, writer: io::sink(), unblock: Box::new(|_| ()) };
    let server = ServerConnection::start(config.clone(), split, Echo(None)).unwrap();
    server.join(PATIENCE);
    assert!(server.is_finished());
    most_over("std", &most);

    let greedy = Greedy::new();
    let most = Arc::clone(&greedy.most);
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (_server, driver) = ssh_io_tokio::ServerConnection::start(config, join(greedy, sink()));
        driver.run().await;
    });
    most_over("tokio", &most);
}
