//! What a connection of `ssh-io-std` holds.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use ssh_io_std::{Handler, HostKeys, Question, ServerChannel, ServerConnection};
use ssh_proto::{AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, OpenRequest};
use ssh_tests::{rustcrypto_client, rustcrypto_server};

use super::{PATIENCE, live, since, turn};

/// Lets everybody in, and gives back what it gets.
pub(crate) struct Echo(pub(crate) Option<ServerChannel>);

impl Handler for Echo {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.0 = Some(request.accept(ChannelConfig::default()).unwrap());
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        request.reply(true).unwrap();
        let channel = self.0.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut &channel, &mut &channel));
    }
}

const BULK: usize = 16 << 20;

/// A lot of data goes there and back.
fn bulk(client: &ssh_io_std::Client) {
    let channel = client.open_session().unwrap();
    channel.shell().unwrap();
    let (mut reader, mut writer) = channel.split();
    let sending = std::thread::spawn(move || {
        let piece = vec![7; 256 * 1024];
        (0..BULK / piece.len()).for_each(|_| writer.write_all(&piece).unwrap());
    });
    let (mut buffer, mut got) = (vec![0; 256 * 1024], 0);
    while let n @ 1.. = reader.read(&mut buffer).unwrap() {
        got += n;
    }
    sending.join().unwrap();
    assert_eq!(got, BULK);
}

#[test]
fn a_connection_with_all_of_its_adapter_is_small_again_behind_a_bulk_transfer_and_behind_its_end() {
    const LIMIT: usize = 16 * 1024;
    let _turn = turn();
    let config = rustcrypto_server().build().unwrap();
    let connect = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = ServerConnection::start(config.clone(), theirs, Echo(None)).unwrap();
        let client = ssh_io_std::Client::with_config(rustcrypto_client().build().unwrap())
            .host_keys(HostKeys::DangerousAcceptAny)
            .connect_over("test", 22, ours)
            .unwrap();
        client.auth_password("me", "x").unwrap();
        (client, server)
    };
    let end = |(client, server): (ssh_io_std::Client, ServerConnection)| {
        client.close();
        server.join(PATIENCE);
        assert!(server.is_finished());
    };
    // What the process sets up once is none of the connection's. The threads' own ends take a moment.
    end(connect());
    let before = (0..1000).map(|_| (std::thread::yield_now(), live()).1).min().unwrap();
    let both = connect();
    bulk(&both.0);
    let busy = (since(before)) / 2;
    let settled = |limit| {
        let patience = std::time::Instant::now() + PATIENCE;
        while since(before) > limit && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        since(before)
    };
    let idle = settled(2 * LIMIT) / 2;
    println!("ssh-io-std, an end's heap: {busy} bytes at the end of a bulk transfer, {idle} when idle");
    assert!(idle <= LIMIT, "{idle}");
    // However long a handle is kept.
    bulk(&both.0);
    let kept = both.1.clone();
    end(both);
    let over = settled(LIMIT);
    println!("ssh-io-std, a server's end: {over} bytes when it is over");
    assert!(over <= LIMIT, "{over}");
    drop(kept);
}
