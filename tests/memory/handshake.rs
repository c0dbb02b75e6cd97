//! What a handshake allocates: both ends, from nothing to a login and the close.

use std::sync::Arc;

use ssh_proto::{
    AuthVerdict, Client, ClientConfig, ClientEvent, Credential, Disconnect, KeyPair, Server, ServerConfig,
    ServerEvent,
};
use ssh_tests::Adapter;

use super::providers::Real;
use super::{NOW, allocations, turn};

/// Connects, exchanges keys and logs in with a key, in one thread over buffers that both adapters would have.
pub(crate) fn logged_in(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    key: &KeyPair,
) -> (Adapter<Client>, Adapter<Server>) {
    let mut client = Adapter::<Client>::new(Arc::clone(client), 1);
    let mut server = Adapter::<Server>::new(Arc::clone(server), 2);
    client.conn.authenticate("user", Credential::PublicKey { key: key.clone(), probe: false }).unwrap();
    let mut logged_in = [false; 2];
    loop {
        let mut busy = client.take(NOW, &mut server.conn) | server.take(NOW, &mut client.conn);
        client.conn.handle_input(NOW, client.pool.buffer());
        server.conn.handle_input(NOW, server.pool.buffer());
        while let Some(event) = client.conn.poll_event() {
            busy = true;
            match event {
                ClientEvent::HostKey(check) => client.conn.accept_host_key(check).unwrap(),
                ClientEvent::Authenticated => logged_in[0] = true,
                _ => {}
            }
        }
        while let Some(event) = server.conn.poll_event() {
            busy = true;
            match event {
                ServerEvent::Auth(request) => server.conn.reply_auth(request, AuthVerdict::Accept).unwrap(),
                ServerEvent::Authenticated(_) => logged_in[1] = true,
                _ => {}
            }
        }
        if !busy {
            break;
        }
    }
    assert_eq!(logged_in, [true; 2]);
    (client, server)
}

/// The same, and closes.
fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, key: &KeyPair) {
    let (mut client, mut server) = logged_in(client, server, key);
    client.conn.close(Disconnect::by_application());
    while server.take(NOW, &mut client.conn) {}
}

#[test]
fn a_handshake_of_both_ends_takes_few_allocations() {
    let _turn = turn();
    for real in Real::both() {
        let name = real.provider.name;
        for kex in ["curve25519-sha256", "mlkem768x25519-sha256", "ecdh-sha2-nistp256"] {
            let (client, server) =
                (real.client().kex(&[kex]).build().unwrap(), real.server().build().unwrap());
            let mut least = usize::MAX;
            for _ in 0..5 {
                let before = allocations();
                handshake(&client, &server, &real.key);
                least = least.min(allocations() - before);
            }
            println!("{name} {kex}: {least} allocations for a handshake, both ends");
            assert!(least <= 100, "{name} {kex}: {least}");
        }
    }
}
