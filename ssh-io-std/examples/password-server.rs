//! A server that lets users in by password or by key, and greets them.
//!
//! Without arguments it is visited by a client of its own, once each way. `password-server PORT USER KEYS` serves
//! on a loopback port whoever has a key in the file `KEYS`, in the format of `authorized_keys`, or the password in
//! the environment variable `PASSWORD`.

use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, thread};

use sha2::{Digest, Sha256};
use ssh_io_std::ssh_proto::crypto::{Ed25519Signer, PROVIDER};
use ssh_io_std::ssh_proto::keys::AuthorizedKeys;
use ssh_io_std::ssh_proto::{
    AuthMethods, AuthProof, AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelRequest,
    ChannelRequestKind, ExitStatus, KeyProbe, OpenRequest, PublicKey, Secret, ServerConfig,
};
use ssh_io_std::{Client, Handler, HostKeys, OsEntropy, Question, Server, ServerChannel};

const USAGE: &str = "usage: password-server PORT USER KEYS";

/// Who may come in, and by what.
struct Account {
    user: String,
    /// Its digest. A real server keeps one that is salted and takes long to compute.
    password: Option<[u8; 32]>,
    keys: AuthorizedKeys,
}

fn digest(password: &Secret<str>) -> [u8; 32] {
    Sha256::digest(password.expose()).into()
}

impl Account {
    fn has_key(&self, user: &str, key: &PublicKey) -> bool {
        self.user == user && self.keys.contains(key)
    }

    fn has_password(&self, user: &str, given: &Secret<str>) -> bool {
        self.password == Some(digest(given)) && self.user == user
    }
}

/// One client.
struct Greeter {
    account: Arc<Account>,
    sessions: Vec<ServerChannel>,
}

impl Handler for Greeter {
    fn probe(&mut self, probe: Question<KeyProbe>) {
        let acceptable = self.account.has_key(probe.user().as_str(), probe.key());
        let _ = probe.reply(acceptable);
    }

    fn auth(&mut self, request: Question<AuthRequest>) {
        let user = request.user().as_str();
        let right = match request.proof() {
            // Its signature is verified.
            AuthProof::PublicKey { key, .. } => self.account.has_key(user, key),
            AuthProof::Password(given) => self.account.has_password(user, given),
            _ => false,
        };
        let next = AuthMethods::PUBLICKEY.and(AuthMethods::PASSWORD);
        let _ = request.reply(if right { AuthVerdict::Accept } else { AuthVerdict::Reject { next } });
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        self.sessions.extend(request.accept(ChannelConfig::default()));
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        if !matches!(request.kind(), ChannelRequestKind::Exec(_) | ChannelRequestKind::Shell) {
            return;
        }
        let id = request.channel();
        let Some(at) = self.sessions.iter().position(|session| session.id() == id) else { return };
        let (mut session, user) = (self.sessions.swap_remove(at), self.account.user.clone());
        let _ = request.reply(true);
        // On a thread of its own: a write waits for whoever does not read. Dropped, the channel closes.
        thread::spawn(move || {
            let _ = write!(session, "hello, {user}\r\n");
            let _ = session.exit(ExitStatus::Code(0));
        });
    }

    fn channel_closed(&mut self, id: ChannelId) {
        self.sessions.retain(|session| session.id() != id);
    }
}

/// Serves until it is shut down; gives the host key's fingerprint and the server.
fn server(account: Account, listener: TcpListener) -> Result<(String, Server), Box<dyn Error>> {
    // A real server keeps its host key: `ssh_io_std::read_key_file`.
    let key = Ed25519Signer::generate(&mut OsEntropy)?.key_pair();
    let fingerprint = key.public.fingerprint();
    let methods = AuthMethods::PUBLICKEY.and(AuthMethods::PASSWORD);
    let server = Server::new(ServerConfig::builder(&PROVIDER).auth_methods(methods).host_key(key).build()?);
    let (serving, account) = (server.clone(), Arc::new(account));
    let greeter = move |_, _| Greeter { account: Arc::clone(&account), sessions: Vec::new() };
    thread::spawn(move || serving.serve(&listener, greeter));
    Ok((fingerprint, server))
}

/// Visits a server of our own by password, by key, and with a wrong password.
fn demo() -> Result<(), Box<dyn Error>> {
    let key = Ed25519Signer::generate(&mut OsEntropy)?.key_pair();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let keys = AuthorizedKeys::parse(key.public.to_line().as_bytes());
    let account = Account { user: "demo".into(), password: Some(digest(&"correct horse".into())), keys };
    let (fingerprint, server) = server(account, listener)?;
    let connect =
        || Client::builder().host_keys(HostKeys::Fingerprint(fingerprint.clone())).connect("127.0.0.1", port);
    let greeting = |client: Client| {
        let output = client.exec("greet")?;
        client.close();
        Ok::<_, ssh_io_std::Error>(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    };
    let client = connect()?;
    println!("wrong password: {}", client.auth_password("demo", "wrong").err().ok_or("it was let in")?);
    client.auth_password("demo", "correct horse")?;
    println!("by password: {}", greeting(client)?);
    let client = connect()?;
    client.auth_key("demo", key)?;
    println!("by key: {}", greeting(client)?);
    server.shutdown(Duration::from_secs(1));
    Ok(())
}

fn serve(port: &str, user: &str, file: &str) -> Result<(), Box<dyn Error>> {
    let port: u16 = port.parse().map_err(|_| USAGE)?;
    let password = env::var("PASSWORD").ok();
    if password.as_deref() == Some("") {
        return Err("PASSWORD is empty: unset, there is none".into());
    }
    let password = password.map(|password| digest(&Secret::from(password)));
    let keys = AuthorizedKeys::parse(&fs::read(file).map_err(|error| format!("{file}: {error}"))?);
    for skipped in keys.skipped() {
        eprintln!("{file}: line {} is not used: {}", skipped.line, skipped.reason);
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    let address = listener.local_addr()?;
    let (fingerprint, _server) = server(Account { user: user.into(), password, keys }, listener)?;
    println!("listening on {address}, host key {fingerprint}");
    loop {
        thread::park();
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let done = match &args[..] {
        [] => demo(),
        [port, user, keys] => serve(port, user, keys),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("password-server: {error}");
            ExitCode::FAILURE
        }
    }
}
