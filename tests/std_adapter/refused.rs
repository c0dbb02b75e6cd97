//! Opens that are refused while others take their places, and host keys that are.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ssh_io_std::{Client, Error, Handler, HostKeys, Question, ServerConnection, Split, Transport};
use ssh_proto::raw::number;
use ssh_proto::{
    AuthRequest, AuthVerdict, CloseReason, Limits, OpenFailure, OpenFailureCode, OpenRequest, Side,
};
use ssh_tests::{Puppet, null_client, null_server};

use crate::support::{PATIENCE, comes_back, logged_in_as};

/// Lets everybody in, and opens nothing.
struct Refuses;

impl Handler for Refuses {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        request.reject(OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "nobody is there")).unwrap();
    }
}

#[test]
fn every_open_that_is_refused_is_told_so() {
    const OPENS: usize = 200;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _server = ServerConnection::start(null_server().build().unwrap(), theirs, Refuses).unwrap();
    let client = logged_in_as(null_client().build().unwrap(), ours);
    let refused = comes_back("the refusals", move || {
        let opening =
            || (0..OPENS).filter(|_| matches!(client.open_session(), Err(Error::OpenFailed(_)))).count();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(opening)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    });
    assert_eq!(refused, [OPENS; 4]);
}

/// Remembers what is written.
struct Noting<W>(W, Arc<Mutex<Vec<u8>>>);

impl<W: Write> Write for Noting<W> {
    fn write(&mut self, src: &[u8]) -> std::io::Result<usize> {
        let n = self.0.write(src)?;
        self.1.lock().unwrap().extend_from_slice(&src[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn who_hears_of_a_rejected_host_key_may_end_the_process() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _server = ServerConnection::start(null_server().build().unwrap(), theirs, Refuses).unwrap();
    let Split { reader, writer, unblock } = ours.split().unwrap();
    let written = Arc::new(Mutex::new(Vec::new()));
    let split = Split { reader, writer: Noting(writer, Arc::clone(&written)), unblock };
    let builder = Client::with_config(null_client().build().unwrap());
    let refused =
        builder.host_keys(HostKeys::Fingerprint("SHA256:none".into())).connect_over("test", 22, split);
    let written = written.lock().unwrap().clone();
    assert!(matches!(refused, Err(Error::HostKey(_))), "{refused:?}");
    let last = Puppet::null(Side::Server).hear(&written).pop().unwrap();
    assert_eq!(last.payload[..5], [number::DISCONNECT, 0, 0, 0, 9], "{last:?}");
}

/// Takes nothing.
struct Never;

impl Write for Never {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_reason_is_told_in_time_though_the_last_words_do_not_leave() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // A length that no packet has.
    theirs.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    let Split { reader, writer: _kept, unblock } = ours.split().unwrap();
    let linger = |limits: &mut Limits| limits.linger = 10 * PATIENCE;
    let builder = Client::with_config(null_client().with_limits(linger).build().unwrap());
    let builder = builder.host_keys(HostKeys::DangerousAcceptAny).connect_timeout(Duration::from_millis(100));
    let connecting =
        move || builder.connect_over("test", 22, Split { reader, writer: Never, unblock }).map(drop);
    let refused = comes_back("the reason", connecting);
    assert!(matches!(refused, Err(Error::Closed(CloseReason::PeerMisbehaved { .. }))), "{refused:?}");
}

/// Gives its key, and something of no length right behind it, and reads to the end.
fn misbehaves(mut stream: UnixStream) {
    let mut puppet = Puppet::null(Side::Server);
    stream.write_all(b"SSH-2.0-puppet\r\n").unwrap();
    puppet.our_init = puppet.offer().payload();
    let payload = puppet.our_init.clone();
    stream.write_all(&puppet.seal(&payload)).unwrap();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        if puppet.hear(&chunk[..n]).iter().any(|heard| heard.number() == number::KEX_ECDH_INIT) {
            let reply = puppet.reply();
            stream.write_all(&[puppet.seal(&reply), vec![0xff; 16]].concat()).unwrap();
            // What comes from here on is under keys it does not take.
            puppet.deaf = true;
        }
    }
}

#[test]
fn who_accepts_the_key_of_a_server_that_misbehaves_behind_it_is_told_behind_our_last_words() {
    for _ in 0..50 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || misbehaves(theirs));
        let Split { reader, writer, unblock } = ours.split().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let split = Split { reader, writer: Noting(writer, Arc::clone(&written)), unblock };
        let builder = Client::with_config(null_client().build().unwrap());
        let result = builder.host_keys(HostKeys::DangerousAcceptAny).connect_over("test", 22, split);
        let by_then = written.lock().unwrap().len();
        // Where the key is accepted before the rest is looked at, there is a client, which hears of it.
        let connected = result.is_ok();
        drop(result);
        peer.join().unwrap();
        assert!(connected || by_then == written.lock().unwrap().len(), "more left behind the error");
    }
}
