//! Opens that are refused while others take their places, and host keys that are.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use ssh_io_std::{Client, Error, Handler, HostKeys, Question, ServerConnection, Split, Transport};
use ssh_proto::raw::number;
use ssh_proto::{AuthRequest, AuthVerdict, OpenFailure, OpenFailureCode, OpenRequest, Side};
use ssh_tests::{Puppet, null_client, null_server};

use crate::support::comes_back;

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
    let builder = Client::with_config(null_client().build().unwrap());
    let client = builder.host_keys(HostKeys::DangerousAcceptAny).connect_over("test", 22, ours).unwrap();
    client.auth_password("me", "x").unwrap();
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
