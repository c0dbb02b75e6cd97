//! Connections over a channel of another one, as over a jump host.

use std::io::{ErrorKind, Read, Write, copy};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;

use ssh_io_std::{Client, Error, Handler, HostKeys, Question, Server, ServerChannel, Split, Transport};
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelKind, ChannelRequest, ExitStatus, OpenFailure,
    OpenFailureCode, OpenRequest,
};

use crate::pipe::{Hold, pair};
use crate::support::{Echo, PASSWORD, PATIENCE, comes_back, configs, logged_in_over, server_config};

/// Lets everybody in and connects to loopback ports; sessions it gives to an [`Echo`].
struct Jump(Echo);

impl Handler for Jump {
    fn auth(&mut self, request: Question<AuthRequest>) {
        request.reply(AuthVerdict::Accept).unwrap();
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        let ChannelKind::DirectTcpip { port, .. } = *request.kind() else { return self.0.open(request) };
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => forward(&request.accept(ChannelConfig::default()).unwrap(), &stream),
            Err(_) => {
                let why = OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "nobody is there");
                request.reject(why).unwrap();
            }
        }
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        self.0.request(request);
    }
}

/// Copies both ways, each until its end.
fn forward(channel: &ServerChannel, stream: &TcpStream) {
    let (mut from, mut to) = channel.clone().split();
    let (mut incoming, mut outgoing) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
    thread::spawn(move || {
        let _ = copy(&mut from, &mut outgoing);
        let _ = outgoing.shutdown(Shutdown::Write);
    });
    thread::spawn(move || copy(&mut incoming, &mut to));
}

fn echo() -> Echo {
    Echo { channels: Vec::new(), closed: channel().0 }
}

/// A server that forwards, and its port.
fn serve() -> (Server, u16) {
    let server = Server::new(server_config().0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, serving) = (listener.local_addr().unwrap().port(), server.clone());
    thread::spawn(move || serving.serve(&listener, |_, _| Jump(echo())));
    (server, port)
}

fn over(transport: impl Transport) -> Client {
    let builder = Client::builder().host_keys(HostKeys::DangerousAcceptAny).connect_timeout(PATIENCE);
    let client = builder.connect_over("target", 22, transport).unwrap();
    client.auth_password("me", PASSWORD).unwrap();
    client
}

/// Sends what comes back.
fn there_and_back(client: &Client, len: usize) {
    let session = client.open_session().unwrap();
    session.set_timeout(Some(PATIENCE));
    session.exec("echo").unwrap();
    let sent: Vec<u8> = (0..len).map(|at| ((at * 31) >> 3) as u8).collect();
    let (mut reader, mut writer) = session.split();
    let expected = sent.clone();
    let sending = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = Vec::new();
    reader.read_to_end(&mut back).unwrap();
    sending.join().unwrap();
    assert!(back == expected, "{} of {len} bytes", back.len());
    assert_eq!(reader.channel().wait().unwrap(), Some(ExitStatus::Code(3)));
}

#[test]
fn a_jump_host_is_a_connection_over_a_channel() {
    let ((jump, jump_port), (target, target_port)) = (serve(), serve());
    let outer = over(TcpStream::connect((Ipv4Addr::LOCALHOST, jump_port)).unwrap());
    let inner = over(outer.open_direct_tcpip("127.0.0.1", target_port).unwrap());
    there_and_back(&inner, 3 << 20);
    inner.rekey();
    there_and_back(&inner, 1000);
    comes_back("the inner close", move || inner.close());
    // The jump host's connection lives on.
    there_and_back(&outer, 1000);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let refused = outer.open_direct_tcpip("127.0.0.1", nobody).unwrap_err();
    assert!(
        matches!(&refused, Error::OpenFailed(why) if why.code == OpenFailureCode::CONNECT_FAILED),
        "{refused}"
    );
    // Its end takes along what runs over it.
    let inner = over(outer.open_direct_tcpip("127.0.0.1", target_port).unwrap());
    let session = inner.open_session().unwrap();
    session.exec("wait").unwrap();
    comes_back("the outer close", move || outer.close());
    assert!(comes_back("the wait", move || session.wait()).is_err());
    comes_back("the inner close", move || inner.close());
    for server in [jump, target] {
        comes_back("the shutdown", move || server.shutdown(PATIENCE));
    }
}

#[test]
fn a_channel_as_a_transport_is_ended_under_whoever_uses_it() {
    let (ours, theirs) = pair();
    let (client, _server, _closed) = logged_in_over(configs(|_| {}), ours.split(), theirs.split());
    let session = client.open_session().unwrap();
    session.exec("wait").unwrap();
    // From here on nothing comes back, no answer to a close either.
    theirs.outgoing.hold(Hold::ForEver);
    let Split { mut reader, mut writer, unblock } = Transport::split(session).unwrap();
    let reading = thread::spawn(move || reader.read(&mut [0]).unwrap());
    // The window is soon full, and then a write leaves deadlines their turn.
    let (writer, stuck) = comes_back("a write", move || {
        let error = loop {
            if let Err(error) = writer.write(&[0; 64 * 1024]) {
                break error;
            }
        };
        (writer, error.kind())
    });
    assert_eq!(stuck, ErrorKind::TimedOut);
    unblock(Shutdown::Both);
    assert_eq!(comes_back("the read", move || reading.join().unwrap()), 0);
    assert_eq!((&writer).write(&[0]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    theirs.outgoing.release();
    comes_back("the close", move || client.close());
}
