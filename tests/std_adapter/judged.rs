//! Connections that end while their host key is judged.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use ssh_io_std::{Client, Error, HostKeys, ServerConnection, Split, Transport};

use crate::support::{Echo, PATIENCE, comes_back, server_config};

/// Whether a client's first bytes go so far that the server's next ones are the host key.
fn asks_for_the_host_key(bytes: &[u8]) -> bool {
    const ECDH_INIT: u8 = 30;
    let ident = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
    let mut rest = &bytes[ident..];
    while let Some((head, _)) = rest.split_first_chunk::<6>() {
        if head[5] == ECDH_INIT {
            return true;
        }
        let length = usize::try_from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).unwrap();
        rest = rest.get(4 + length..).unwrap_or_default();
    }
    false
}

/// A writer that has asked for the host key when it fails, and only while that is judged.
struct Fails<W> {
    inner: W,
    written: Vec<u8>,
    judging: Receiver<()>,
    panics: bool,
}

impl<W: Write> Write for Fails<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(src)?;
        self.written.extend(&src[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !asks_for_the_host_key(&self.written) {
            return Ok(());
        }
        self.judging.recv_timeout(PATIENCE).unwrap();
        assert!(!self.panics, "a writer panics, as the test asks it to");
        Err(ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn an_end_while_the_host_key_is_judged_is_told_with_its_reason() {
    for panics in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let handler = Echo { channels: Vec::new(), closed: channel().0 };
        let _server = ServerConnection::start(server_config().0, theirs, handler).unwrap();
        let Split { reader, writer, unblock } = ours.split().unwrap();
        let [(judges, judging), (ends, ended)] = [channel(), channel()];
        let ends = Mutex::new(Some(ends));
        let split = Split {
            reader,
            writer: Fails { inner: writer, written: Vec::new(), judging, panics },
            unblock: Box::new(move |how| {
                unblock(how);
                if how == Shutdown::Both {
                    drop(ends.lock().unwrap().take());
                }
            }),
        };
        let judge = HostKeys::ask(move |_| {
            judges.send(()).unwrap();
            // Until the transport is ended for it.
            ended.recv_timeout(PATIENCE).is_err()
        });
        let connecting = move || Client::builder().host_keys(judge).connect_over("test", 22, split).map(drop);
        let error = comes_back("the client", connecting).unwrap_err();
        match (&error, panics) {
            (Error::Io(error), false) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
            (Error::Io(error), true) => assert!(error.to_string().contains("writer panicked"), "{error:?}"),
            _ => panic!("{error:?}"),
        }
    }
}
