//! Everything can be moved to another task, and every future be spawned. What compiles here holds.

use std::future::ready;
use std::time::Duration;

use ssh_io_tokio::{
    Asked, Channel, Client, ClientBuilder, Connecting, Driver, Error, HostKeys, Server, ServerChannel,
    ServerConnection,
};
use ssh_proto::{
    ChannelConfig, ChannelKind, ChannelRequestKind, Credential, ExitStatus, KeyPair, PublicKey, SignRefused,
    TerminalModes, WindowSize,
};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;

fn send<T: Send>(_: T) {}
fn send_and_sync<T: Send + Sync>() {}

#[test]
fn handles_may_be_shared_between_tasks() {
    send_and_sync::<(Client, Channel, Server, ServerConnection, ServerChannel, Error)>();
    fn moved<T: Send>() {}
    moved::<(ClientBuilder, HostKeys, Connecting, Asked)>();
    moved::<Driver<DuplexStream, ssh_proto::Client>>();
    moved::<Driver<DuplexStream, ssh_proto::Server>>();
}

/// Never called: that it compiles is the test.
#[expect(dead_code, reason = "it is the compiler that tests here")]
fn every_future_may_be_spawned(
    builders: [ClientBuilder; 3],
    (connecting, client, channel): (Connecting, &Client, &Channel),
    (server, connection, served, listener): (&Server, &ServerConnection, &ServerChannel, TcpListener),
    (key, public, credential): (KeyPair, PublicKey, Credential),
    (stream, other): (DuplexStream, DuplexStream),
    (kind, request): (&ChannelKind, &ChannelRequestKind),
) {
    let [first, second, third] = builders;
    send(first.connect("", 22));
    send(second.connect_over("", 22, stream));
    send(third.start("", 22, other));
    send(connecting.finish());
    send(client.authenticate("", credential));
    send(client.auth_password("", ""));
    send(client.auth_key("", key));
    send(client.auth_key_with("", public, async |_| Err(SignRefused)));
    send(client.open_session());
    send(client.open_direct_tcpip("", 22));
    send(client.open(kind, ChannelConfig::default()));
    send(client.exec(""));
    send(client.closed());
    send(channel.request(request));
    send(channel.send_request(request, true));
    send(channel.exec(""));
    send(channel.shell());
    send(channel.subsystem(""));
    send(channel.request_pty("", WindowSize::default(), TerminalModes::default()));
    send(channel.env("", ""));
    send(channel.window_change(WindowSize::default()));
    send(channel.signal(""));
    send(channel.wait_exit());
    send(channel.wait());
    send(served.exit(ExitStatus::Code(0)));
    send(connection.asked());
    send(connection.closed());
    send(server.serve(listener, |_, _| ready(())));
    send(server.shutdown(Duration::ZERO));
}
