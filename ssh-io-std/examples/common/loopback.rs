//! A server of our own on a loopback port, so that an example runs without any other. It knows one password,
//! gives back what a session sends it, and forwards to ports of this machine, as a jump host does.

use std::collections::HashMap;
use std::error::Error;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use ssh_io_std::ssh_proto::crypto::{Ed25519Signer, PROVIDER};
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ChannelRequest,
    ChannelRequestKind, ExitStatus, OpenFailure, OpenFailureCode, OpenRequest, ServerConfig,
};
use ssh_io_std::{Client, ClientBuilder, Handler, HostKeys, OsEntropy, Question, Server, ServerChannel};

const PASSWORD: &str = "correct horse";

/// The server, and how to find and recognise it.
pub(crate) struct Loopback {
    server: Server,
    pub(crate) port: u16,
    fingerprint: String,
}

impl Loopback {
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let key = Ed25519Signer::generate(&mut OsEntropy)?.key_pair();
        let fingerprint = key.public.fingerprint();
        let server = Server::new(ServerConfig::builder(&PROVIDER).host_key(key).build()?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (port, serving) = (listener.local_addr()?.port(), server.clone());
        thread::spawn(move || serving.serve(&listener, |_, _| Demo::default()));
        Ok(Self { server, port, fingerprint })
    }

    /// A client's settings for it: its host key and no other.
    pub(crate) fn expect(&self) -> ClientBuilder {
        Client::builder().host_keys(HostKeys::Fingerprint(self.fingerprint.clone()))
    }

    pub(crate) fn log_in(client: &Client) -> Result<(), ssh_io_std::Error> {
        client.auth_password("demo", PASSWORD)
    }

    pub(crate) fn stop(self) {
        self.server.shutdown(Duration::from_secs(1));
    }
}

/// Answers one client.
#[derive(Default)]
struct Demo {
    /// Those without a program so far.
    sessions: HashMap<ChannelId, ServerChannel>,
}

impl Handler for Demo {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let known = matches!(request.proof(), AuthProof::Password(given) if given.matches(PASSWORD));
        let next = AuthMethods::PASSWORD;
        let _ = request.reply(if known { AuthVerdict::Accept } else { AuthVerdict::Reject { next } });
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        if let ChannelKind::DirectTcpip { port, .. } = *request.kind() {
            // Connecting takes its time: other questions of this client do not wait for it.
            thread::spawn(move || forward(request, port));
        } else if let Ok(channel) = request.accept(ChannelConfig::default()) {
            self.sessions.insert(channel.id(), channel);
        }
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let ChannelRequestKind::Exec(_) = request.kind() else { return };
        let Some(channel) = self.sessions.remove(&request.channel()) else { return };
        let _ = request.reply(true);
        thread::spawn(move || {
            let _ = copy(&mut &channel, &mut &channel);
            let _ = channel.exit(ExitStatus::Code(0));
        });
    }

    fn channel_closed(&mut self, id: ChannelId) {
        self.sessions.remove(&id);
    }
}

/// How long a target may take to read what is left for it once the channel is closed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Connects to a port of this machine, and copies both ways until both have ended. Once the channel is closed, only
/// what came for the target is still written, and no longer than [`LAST_WORDS`].
fn forward(request: Question<OpenRequest>, port: u16) {
    let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        let _ = request.reject(OpenFailure::new(OpenFailureCode::CONNECT_FAILED, "nobody is there"));
        return;
    };
    let Ok(channel) = request.accept(ChannelConfig::default()) else { return };
    let (written, all_written) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (stream, channel) = (&stream, &channel);
        let back = scope.spawn(|| {
            let _ = copy(&mut &*stream, &mut &*channel);
            channel.finish_input()
        });
        // Whoever still waits for the target does so for nobody then.
        scope.spawn(move || {
            let _ = channel.wait();
            let _ = stream.shutdown(Shutdown::Read);
            if all_written.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Timeout) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        let _ = copy(&mut &*channel, &mut &*stream);
        drop(written);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = back.join();
        channel.close();
    });
}
