//! What a connection of `ssh-io-std` allocates: nothing for a data packet, and little that it keeps.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ssh_io_std::{Client, Handler, HostKeys, Question, ServerChannel, ServerConnection};
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelRequest, ClientConfig, OpenRequest, ServerConfig,
};

use super::providers::Real;
use super::{IDLE, PATIENCE, allocations, live, since, turn};

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

/// What a channel leaves at most with an idle end. A buffer of input is larger.
const CHANNEL: usize = 3 * 1024;

/// A lot of data goes there and back.
fn bulk(client: &Client) {
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

/// A little data goes there and back.
fn little(client: &Client) {
    let mut channel = client.open_session().unwrap();
    channel.shell().unwrap();
    channel.write_all(&[7; 100]).unwrap();
    channel.read_exact(&mut [0; 100]).unwrap();
}

/// A client and its server with an adapter each, logged in.
fn connected(config: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> (Client, ServerConnection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = ServerConnection::start(Arc::clone(server), theirs, Echo(None)).unwrap();
    let client = Client::with_config(Arc::clone(config))
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect_over("test", 22, ours)
        .unwrap();
    client.auth_password("me", "x").unwrap();
    (client, server)
}

fn end((client, server): (Client, ServerConnection)) {
    client.close();
    server.join(PATIENCE);
    assert!(server.is_finished());
}

#[test]
fn a_data_packet_costs_the_threads_of_the_std_adapter_no_allocation() {
    /// What moves each way in a try.
    const PIECES: usize = 50;
    let _turn = turn();
    for real in Real::both() {
        let config = real.client().ciphers(&["aes128-gcm@openssh.com"]).build().unwrap();
        let ends = connected(&config, &real.server().build().unwrap());
        let mut channel = ends.0.open_session().unwrap();
        channel.shell().unwrap();
        // Part of a packet, and several on their way at a time, of which no reader is so many behind that they are copied
        // together. All threads wait in between, and are woken.
        for size in [1000, 64 * 1024] {
            let (piece, mut back) = (vec![7; size], vec![0; size]);
            let mut least = usize::MAX;
            for _ in 0..16 {
                let before = allocations();
                for _ in 0..PIECES {
                    channel.write_all(&piece).unwrap();
                    channel.read_exact(&mut back).unwrap();
                }
                least = least.min(allocations() - before);
                if least == 0 {
                    break;
                }
            }
            println!("{}: {least} allocations for {PIECES} pieces of {size} bytes", real.provider.name);
            assert_eq!(least, 0, "{}, {size} bytes", real.provider.name);
        }
        drop(channel);
        end(ends);
    }
}

#[test]
fn a_connection_with_all_of_its_adapter_is_small_again_behind_a_bulk_transfer_and_behind_its_end() {
    let _turn = turn();
    for real in Real::both() {
        small_again(&real);
    }
}

fn small_again(real: &Real) {
    let name = real.provider.name;
    let (config, server) = (real.client().build().unwrap(), real.server().build().unwrap());
    let connect = || connected(&config, &server);
    // What the process sets up once is none of the connection's. The threads' own ends take a moment.
    end(connect());
    let before = (0..1000).map(|_| (std::thread::yield_now(), live()).1).min().unwrap();
    let settled = |limit| {
        let patience = std::time::Instant::now() + PATIENCE;
        while since(before) > limit && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        // The threads' last steps take a moment.
        (0..10_000).map(|_| (std::thread::yield_now(), since(before)).1).min().unwrap()
    };
    let both = connect();
    let new = settled(2 * IDLE) / 2;
    // An input buffer is given back once nothing came for a while.
    let limit = new + CHANNEL;
    little(&both.0);
    let used = settled(2 * limit) / 2;
    bulk(&both.0);
    let busy = since(before) / 2;
    let idle = settled(2 * limit) / 2;
    println!(
        "ssh-io-std, {name}, an end's heap: {busy} bytes at the end of a bulk transfer, {idle} when idle behind it, \
         {new} behind the login, {used} behind a little data"
    );
    assert!(new.max(used).max(idle) <= IDLE && used.max(idle) <= limit, "{name}: {new}, {used}, {idle}");
    // However long a handle is kept.
    bulk(&both.0);
    let kept = both.1.clone();
    end(both);
    let over = settled(IDLE);
    println!("ssh-io-std, {name}, a server's end: {over} bytes when it is over");
    assert!(over <= IDLE, "{name}: {over}");
    drop(kept);
}
