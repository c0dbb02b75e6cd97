//! Transports that stand still or fail.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ssh_io_std::{Client, HostKeys, OsEntropy, ServerConnection, Split, Transport};
use ssh_proto::crypto::rustcrypto::{Ed25519Signer, PROVIDER};
use ssh_proto::{CloseReason, ExitStatus, KeyPair, ServerConfig, TimeoutReason};

use crate::support::{Echo, PASSWORD, PATIENCE, client_config, logged_in_over, server_config};

/// A reader that stands still while it is told to, as a peer does that takes nothing any more.
struct Stoppable<R>(R, Arc<(Mutex<bool>, Condvar)>);

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, dst: &mut [u8]) -> std::io::Result<usize> {
        let (stopped, wake) = &*self.1;
        drop(wake.wait_while(stopped.lock().unwrap(), |stopped| *stopped).unwrap());
        self.0.read(dst)
    }
}

/// A writer that fails once it is told to.
struct Breakable<W>(W, Arc<AtomicBool>);

impl<W: Write> Write for Breakable<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::BrokenPipe.into()),
            false => self.0.write(src),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn ad_07_a_peer_that_never_reads_is_given_up_on_while_a_thread_is_stuck_writing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let key: KeyPair = Ed25519Signer::generate(&mut OsEntropy).unwrap().key_pair();
    let config = ServerConfig::builder(&PROVIDER).host_key(key).with_limits(|limits| {
        limits.write_stall = Duration::from_millis(200);
        limits.linger = Duration::from_millis(200);
    });
    let (sender, closed) = channel();
    let handler = Echo { channels: Vec::new(), closed: sender };
    let server = ServerConnection::start(config.build().unwrap(), theirs, handler).unwrap();
    let stop = Arc::new((Mutex::new(false), Condvar::new()));
    let (writer, control) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    let client = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_over(
            "test",
            22,
            Split {
                reader: Stoppable(ours, Arc::clone(&stop)),
                writer,
                unblock: Box::new(move |how| drop(control.shutdown(how))),
            },
        )
        .unwrap();
    client.auth_password("me", PASSWORD).unwrap();
    let channel = client.open_session().unwrap();
    channel.exec("flood").unwrap();
    *stop.0.lock().unwrap() = true;
    let reason = closed.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reason, CloseReason::TimedOut(TimeoutReason::WriteStall));
    server.join(PATIENCE);
    assert!(server.is_finished(), "the stuck thread came home, and the transport is gone");
    *stop.0.lock().unwrap() = false;
    stop.1.notify_all();
}

#[test]
fn what_came_before_a_failed_write_is_still_read() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (config, _) = server_config();
    let handler = Echo { channels: Vec::new(), closed: channel().0 };
    let _server = ServerConnection::start(config, theirs, handler).unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let (writer, control) = (ours.try_clone().unwrap(), ours.try_clone().unwrap());
    let client = Client::builder()
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_over(
            "test",
            22,
            Split {
                reader: ours,
                writer: Breakable(writer, Arc::clone(&broken)),
                unblock: Box::new(move |how| drop(control.shutdown(how))),
            },
        )
        .unwrap();
    client.auth_password("me", PASSWORD).unwrap();
    let mut channel = client.open_session().unwrap();
    channel.exec("both").unwrap();
    broken.store(true, Ordering::SeqCst);
    let _ = channel.write(b"lost");
    let mut got = String::new();
    let _ = channel.read_to_string(&mut got);
    assert_eq!(got, "out 0\nout 1\nout 2\n");
    assert_eq!(channel.exit_status(), Some(ExitStatus::Code(0)));
}

/// A writer that keeps what it is given until it is flushed, and takes its time for that.
struct Buffering<W> {
    inner: W,
    kept: Vec<u8>,
    patience: u32,
}

impl<W: Write> Write for Buffering<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        assert!(self.kept.is_empty(), "written to while it is being flushed");
        self.kept.extend(src);
        Ok(src.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.patience = (self.patience + 1) % 3;
        match self.patience {
            0 => self.inner.write_all(&std::mem::take(&mut self.kept)),
            1 => Err(std::io::ErrorKind::TimedOut.into()),
            _ => Err(std::io::ErrorKind::Interrupted.into()),
        }
    }
}

#[test]
fn a_flush_that_takes_longer_sends_nothing_twice() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Split { reader, writer, unblock } = ours.split().unwrap();
    let writer = Buffering { inner: writer, kept: Vec::new(), patience: 0 };
    let (client, _server, _closed) =
        logged_in_over(client_config(|_| {}), Split { reader, writer, unblock }, theirs);
    assert_eq!(client.exec("both").unwrap().stdout, b"out 0\nout 1\nout 2\n");
    client.close();
}
