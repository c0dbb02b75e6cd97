//! Peers of other protocols, and one that says what we said.

use std::io::{Read, Write};
use std::thread;

use ssh_io_std as blocking;
use ssh_io_tokio::{Client, Error, HostKeys};
use ssh_proto::{CloseReason, PeerMisbehaved};
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, timeout};

use crate::crowd::comes_back;
use crate::given_up::builder;
use crate::line::{FaultyStream, Line};
use crate::over_tokio::runtime;
use crate::session::configs;
use crate::tally::{STD, TOKIO, survived, turn};

/// What servers of other protocols say, and no more.
const STRANGERS: [&[u8]; 5] = [
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"220 mail.invalid ESMTP\r\n500 what?\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"SSH-1.5-old\r\n",
    b"",
];

async fn says(stream: &mut FaultyStream, what: &[u8]) {
    AsyncWriteExt::write_all(stream, what).await.unwrap();
    AsyncWriteExt::shutdown(stream).await.unwrap();
}

fn is_strange(error: &Error) -> bool {
    let Error::Closed(reason) = error else { return false };
    matches!(reason, CloseReason::Eof | CloseReason::PeerIncompatible(_) | CloseReason::PeerMisbehaved { .. })
}

/// Whether it is told that the peer's answer to a key exchange is the beginning of one.
fn is_mirror(error: &Error) -> bool {
    let rule = PeerMisbehaved::UnexpectedMessage;
    matches!(error, Error::Closed(CloseReason::PeerMisbehaved { rule: broken, .. }) if *broken == rule)
}

#[test]
fn ad_21_strangers_and_mirrors_of_the_asynchronous_client() {
    let _turn = turn();
    runtime().block_on(async {
        for said in STRANGERS {
            let (_line, ours, mut theirs) = Line::pair(Default::default());
            says(&mut theirs, said).await;
            let result = timeout(Duration::from_secs(3600), builder().connect_over("test", 22, ours)).await;
            let error = result.expect("it hangs").unwrap_err();
            assert!(is_strange(&error), "{error:?}");
        }
        let (_line, ours, theirs) = Line::pair(Default::default());
        let (mut reader, mut writer) = tokio::io::split(theirs);
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
        let client = Client::with_config(configs().0).host_keys(HostKeys::DangerousAcceptAny);
        let result = timeout(Duration::from_secs(3600), client.connect_over("mirror", 22, ours)).await;
        let error = result.expect("it hangs").unwrap_err();
        assert!(is_mirror(&error), "{error:?}");
    });
    survived(TOKIO, "peers of other protocols, and a mirror", STRANGERS.len() + 1);
}

#[test]
fn ad_21_strangers_and_mirrors_of_the_blocking_client() {
    let _turn = turn();
    let connect = |ours| {
        let client =
            blocking::Client::with_config(configs().0).host_keys(blocking::HostKeys::DangerousAcceptAny);
        comes_back(move || client.connect_over("test", 22, ours).unwrap_err())
    };
    for said in STRANGERS {
        let (_line, ours, mut theirs) = Line::pair(Default::default());
        runtime().block_on(says(&mut theirs, said));
        let error = connect(ours);
        assert!(is_strange(&error), "{error:?}");
    }
    let (_line, ours, mut theirs) = Line::pair(Default::default());
    let mirror = thread::spawn(move || {
        let mut buffer = [0; 5000];
        while let Ok(n @ 1..) = theirs.read(&mut buffer) {
            if Write::write_all(&mut theirs, &buffer[..n]).is_err() {
                break;
            }
        }
    });
    let error = connect(ours);
    assert!(is_mirror(&error), "{error:?}");
    mirror.join().unwrap();
    survived(STD, "peers of other protocols, and a mirror", STRANGERS.len() + 1);
}
