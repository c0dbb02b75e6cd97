//! How many bytes to read next.

use bytes::BytesMut;
use ssh_proto::{Credential, Instant, Stream};
use ssh_tests::{Pair, Scene, either, rustcrypto_client, rustcrypto_server};

/// What a packet's length takes, in clear or not.
const HEAD: usize = 4;

const CIPHERS: [(&str, &str); 4] = [
    ("aes256-gcm@openssh.com", "hmac-sha2-256"),
    ("chacha20-poly1305@openssh.com", "hmac-sha2-256"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-512"),
];

#[test]
fn the_hint_is_what_the_length_needs_and_then_what_the_packet_needs() {
    for (cipher, mac) in CIPHERS {
        let client = rustcrypto_client().ciphers(&[cipher]).macs(&[mac]).build().unwrap();
        let server = rustcrypto_server().ciphers(&[cipher]).macs(&[mac]).build().unwrap();
        let mut pair = Pair::new(client, server, 1);
        pair.login_with(Credential::Password("x".into()));
        let (ours, _) = pair.open_session();
        for len in [1, 100, 3000] {
            pair.client.conn.channel(ours).unwrap().write(Stream::Data, &vec![0; len]).unwrap();
            let packet = pair.client.conn.output().to_vec();
            pair.client.conn.consume_output(packet.len());
            let (conn, mut input) = (&mut pair.server.conn, BytesMut::new());
            assert_eq!(conn.input_hint(), HEAD, "{cipher}, {mac}");
            for have in 1..packet.len() {
                input.extend_from_slice(&packet[have - 1..have]);
                conn.handle_input(Instant::ORIGIN, &mut input);
                let missing = if have < HEAD { HEAD - have } else { packet.len() - have };
                assert_eq!(conn.input_hint(), missing, "{cipher}, {mac}: {have} of {}", packet.len());
            }
            // The last byte, and the first ones of the next packet.
            input.extend_from_slice(&packet[packet.len() - 1..]);
            input.extend_from_slice(&packet[..3]);
            conn.handle_input(Instant::ORIGIN, &mut input);
            assert_eq!((input.len(), conn.input_hint()), (3, HEAD - 3), "{cipher}, {mac}");
            input.clear();
            conn.handle_input(Instant::ORIGIN, &mut input);
            assert!(conn.poll_event().is_some());
            while conn.channel(pair.server.accepted[0]).unwrap().read(Stream::Data, len).is_ok() {}
        }
    }
}

#[test]
fn the_hint_is_never_nothing() {
    let mut scene = Scene::server();
    let hint = |scene: &Scene| either!(&scene.subject, conn => conn.input_hint());
    assert!(hint(&scene) >= 1);
    for stage in [Scene::hello, Scene::exchange, Scene::service, Scene::login, Scene::close] {
        stage(&mut scene);
        assert!(hint(&scene) >= 1, "{:?}", scene.state());
    }
    // Whole packets that are not taken: the queue of events is full.
    let mut scene = Scene::server().authenticated();
    for at in 0..100 {
        let packet = scene.puppet.seal(&ssh_tests::hand::global(&format!("x-{at}"), false));
        scene.input.extend_from_slice(&packet);
    }
    let (now, input) = (scene.now, &mut scene.input);
    either!(&mut scene.subject, conn => conn.handle_input(now, input));
    assert!(!scene.input.is_empty());
    assert_eq!(hint(&scene), 1);
}
