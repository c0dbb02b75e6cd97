//! What the server hears of a client whose caller ends the runtime together with its error.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use ssh_io_tokio::{Client, Error, HostKeys};
use ssh_proto::raw::number;
use ssh_proto::{CloseReason, Side};
use ssh_tests::puppet::Heard;
use ssh_tests::{Puppet, null_client};
use tokio::runtime::Builder;

/// A server that says something behind the client's share, or behind its KEXINIT, and gives what it heard last.
fn peer(mut stream: UnixStream, of_no_length: bool) -> JoinHandle<Heard> {
    thread::spawn(move || {
        let mut puppet = Puppet::null(Side::Server);
        stream.write_all(b"SSH-2.0-puppet\r\n").unwrap();
        puppet.our_init = puppet.offer().payload();
        let payload = puppet.our_init.clone();
        let kexinit = puppet.seal(&payload);
        if !of_no_length {
            stream.write_all(&kexinit).unwrap();
        }
        let (mut last, mut chunk, mut said) = (None, [0; 4096], false);
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            for heard in puppet.hear(&chunk[..n]) {
                let turn = if of_no_length { number::KEXINIT } else { number::KEX_ECDH_INIT };
                if heard.number() == turn && !said {
                    said = true;
                    let reply = match of_no_length {
                        true => vec![0xff; 16],
                        false => {
                            let reply = puppet.reply();
                            puppet.seal(&reply)
                        }
                    };
                    stream.write_all(&reply).unwrap();
                }
                last = Some(heard);
            }
        }
        last.unwrap()
    })
}

#[test]
fn a_caller_that_ends_the_runtime_with_its_error_leaves_the_peer_our_reason() {
    for round in 0..20 {
        for (of_no_length, code) in [(true, 2), (false, 9)] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let peer = peer(theirs, of_no_length);
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let result = runtime.block_on(async {
                ours.set_nonblocking(true).unwrap();
                let ours = tokio::net::UnixStream::from_std(ours).unwrap();
                let builder = Client::with_config(null_client().build().unwrap());
                let host_keys = HostKeys::Fingerprint("SHA256:none".into());
                builder.host_keys(host_keys).connect_over("test", 22, ours).await
            });
            drop(runtime);
            match result {
                Err(Error::Closed(CloseReason::PeerMisbehaved { .. })) if of_no_length => {}
                Err(Error::HostKey(_)) if !of_no_length => {}
                other => panic!("{other:?}"),
            }
            let last = peer.join().unwrap();
            assert_eq!(last.payload[..5], [number::DISCONNECT, 0, 0, 0, code], "{round}: {last:?}");
        }
    }
}
