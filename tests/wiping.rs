//! Secrets go when they have done their work, and with the connection at the latest, however long its value is
//! kept.
//!
//! Keys are counted by a provider that hears of their end. Bytes are looked for in the memory of this process,
//! what was freed included, by way of `/proc/self/mem`.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ssh_proto::crypto::{
    ClientExchange, Hash, KexAlgorithm, KexError, Provider, SecretEncoding, ServerShare, SharedSecret,
    rustcrypto,
};
use ssh_proto::keys::PrivateKey;
use ssh_proto::raw::Message;
use ssh_proto::raw::auth::{Method, UserauthRequest};
use ssh_proto::{
    AuthError, AuthMethods, AuthVerdict, ClientConfig, ClientEvent, Credential, Disconnect, Entropy, KeyPair,
    Secret, ServerConfig, ServerEvent, Side,
};
use ssh_tests::null::NullSigner;
use ssh_tests::{
    Answer, Pair, Scene, Seeded, counted, either, external_key, hand, null, null_key, rustcrypto_client,
    rustcrypto_configs, rustcrypto_server, take,
};

// ----- Keys.

/// A step of a connection, and the exchanges and halves of keys it holds behind it.
type Step = (fn(&mut Scene), (usize, usize));

/// From the connection to the end of its second exchange.
fn steps(side: Side) -> Vec<Step> {
    let client: [Step; 4] = [
        (|scene| scene.kexinit(|_| {}), (1, 0)),
        (Scene::method, (0, 0)),
        (Scene::accept_host_key, (0, 2)),
        (Scene::new_keys, (0, 2)),
    ];
    let server: [Step; 3] =
        [(|scene| scene.kexinit(|_| {}), (0, 0)), (Scene::method, (0, 2)), (Scene::new_keys, (0, 2))];
    let (first, under_way) = match side {
        Side::Client => (&client[..], 1),
        Side::Server => (&server[..], 0),
    };
    let later: [Step; 6] = [
        (Scene::service, (0, 2)),
        (Scene::login, (0, 2)),
        (Scene::rekey, (0, 2)),
        (|scene| scene.kexinit(|_| {}), (under_way, 2)),
        // Both new halves, and the old one until the peer's NEWKEYS.
        (Scene::method, (0, 3)),
        (Scene::new_keys, (0, 2)),
    ];
    [&[(Scene::hello as fn(&mut Scene), (0, 0))], first, &later].concat()
}

fn counted_scene(side: Side) -> Scene {
    match side {
        Side::Client => {
            let config = ClientConfig::builder(&counted::PROVIDER);
            Scene::of_client(config.build().expect("a client"))
        }
        Side::Server => {
            let config = ServerConfig::builder(&counted::PROVIDER).host_key(null_key(1));
            Scene::of_server(config.build().expect("a server"))
        }
    }
}

#[test]
fn keys_go_with_the_connection_wherever_it_stood_and_however_it_ended() {
    type Ending = (&'static str, fn(&mut Scene));
    let endings: [Ending; 4] = [
        ("closed here", Scene::close),
        ("closed by the peer", |scene| scene.say(&hand::disconnect(11, b"bye"))),
        ("at the end of the transport", |scene| {
            let now = scene.now;
            either!(&mut scene.subject, conn => conn.handle_eof(now));
            scene.settle();
        }),
        ("over a rule", |scene| scene.say_bytes(&[0xff; 16])),
    ];
    let held = || (counted::exchanges(), counted::halves());
    for side in [Side::Client, Side::Server] {
        for stop in 1..=steps(side).len() {
            for (name, end) in endings {
                let mut scene = counted_scene(side);
                for (step, holds) in &steps(side)[..stop] {
                    step(&mut scene);
                    assert_eq!(held(), *holds, "{side:?} at {stop}");
                }
                let asks = either!(&scene.subject, conn => conn.awaits_answer());
                end(&mut scene);
                if asks && !scene.is_over() {
                    // Nothing is read while a person looks at the host key.
                    scene.close();
                }
                assert!(scene.is_over(), "{side:?} at {stop}, {name}");
                assert_eq!(held(), (0, 0), "{side:?} at {stop}, {name}");
            }
        }
    }
}

#[test]
fn a_clients_key_goes_with_its_attempt_and_with_the_connection() {
    let signer = Arc::new(NullSigner);
    let credential =
        |probe| Credential::PublicKey { key: KeyPair::new(null::public_key(2), signer.clone()), probe };
    let holders = || Arc::strong_count(&signer) - 1;
    for probe in [true, false] {
        // It waits for the exchange, and goes with the connection.
        let mut scene = Scene::client();
        scene.as_client().authenticate("user", credential(probe)).expect("a first attempt");
        assert_eq!(holders(), 1);
        scene.close();
        assert_eq!((holders(), scene.as_client().authenticate("user", credential(probe))), {
            (0, Err(AuthError::Closed))
        });

        // It waits for the answer to a question, and goes with the connection.
        let mut scene = Scene::client();
        scene.hello();
        scene.exchange();
        scene.service();
        scene.as_client().authenticate("user", credential(probe)).expect("idle");
        assert_eq!(holders(), usize::from(probe));
        scene.close();
        assert_eq!(holders(), 0);

        // It was used.
        for answer in [Answer::Yes, Answer::No] {
            let mut pair = Pair::null();
            (pair.server.policy.auth, pair.server.policy.probe) = (answer, answer);
            pair.client.conn.authenticate("user", credential(probe)).expect("a first attempt");
            pair.settle();
            assert_eq!(pair.client.authenticated, answer == Answer::Yes);
            assert_eq!((pair.client.closed.is_some(), holders()), (false, 0), "probe {probe}, {answer:?}");
        }
    }
}

// ----- Bytes.

/// The tests on bytes take turns: what one of them holds, another would find.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every byte of a secret is hidden under.
const MASK: u8 = 0xa5;
/// Bytes of a secret that are looked for at once. A cipher or hash has less than that on the stack at a time.
const PIECE: usize = 200;

/// A secret of letters that this test itself keeps nowhere in memory.
struct Hidden(Vec<u8>);

impl Hidden {
    /// One of `len` bytes, more than a piece.
    fn new(seed: u64, len: usize) -> Self {
        let mut random = Seeded::new(seed);
        Self((0..len).map(|_| (b'a' + random.below(26) as u8) ^ MASK).collect())
    }

    /// The secret itself, in memory that is wiped in its turn.
    fn reveal(&self) -> Secret<str> {
        let mut text = String::with_capacity(self.0.len());
        text.extend(self.0.iter().map(|byte| char::from(byte ^ MASK)));
        text.into()
    }

    /// How often a piece of it is in the memory of this process.
    fn found(&self) -> usize {
        static BUFFER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        const CHUNK: usize = 1 << 20;
        let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.resize(CHUNK + PIECE, 0);
        let start = buffer.as_ptr() as usize;
        let own = start..start + buffer.capacity();
        let maps = fs::read_to_string("/proc/self/maps").expect("Linux");
        let memory = File::open("/proc/self/mem").expect("Linux");
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw") && !line.ends_with("[stack]")) {
            let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let number = |text| usize::from_str_radix(text, 16).expect("an address");
            let (mut at, to) = (number(from), number(to));
            while at < to {
                // What is read ends where the buffer begins, or begins where it ends.
                if own.contains(&at) {
                    at = own.end;
                    continue;
                }
                let end = if at < own.start { to.min(own.start) } else { to };
                let len = (end - at).min(buffer.len());
                let Ok(n @ 1..) = memory.read_at(&mut buffer[..len], at as u64) else { break };
                found += self.count(&buffer[..n]);
                at += if at + n < end { n.saturating_sub(PIECE - 1).max(1) } else { n };
            }
        }
        found
    }

    fn count(&self, memory: &[u8]) -> usize {
        // From its middle: what freed memory is used for again begins at its front.
        let piece = &self.0[self.0.len() - PIECE - 1..][..PIECE];
        let first = piece[0] ^ MASK;
        let same = |window: &[u8]| window.iter().zip(piece).all(|(byte, hidden)| byte ^ MASK == *hidden);
        memory.windows(PIECE).filter(|window| window[0] == first && same(window)).count()
    }
}

#[test]
fn a_secret_that_is_kept_is_found_and_one_that_is_wiped_is_not() {
    let _turn = turn();
    let hidden = Hidden::new(1, 900);
    assert_eq!(hidden.found(), 0);
    let secret = hidden.reveal();
    assert_eq!(hidden.found(), 1);
    let copies = [secret.clone(), secret];
    assert_eq!(hidden.found(), 2);
    drop(copies);
    assert_eq!(hidden.found(), 0);
    // What was freed is looked at.
    let plain = String::from(hidden.reveal().expose());
    std::hint::black_box(&plain);
    drop(plain);
    assert_eq!(hidden.found(), 1);
}

#[test]
fn a_password_is_nowhere_in_memory_once_it_did_its_work() {
    let _turn = turn();
    for (at, cipher) in rustcrypto::PROVIDER.ciphers.iter().enumerate() {
        for answer in [Answer::Yes, Answer::No] {
            let client = rustcrypto_client().ciphers(&[cipher.name()]).build().expect("a client");
            let server = rustcrypto_server().ciphers(&[cipher.name()]).build().expect("a server");
            let mut pair = Pair::new(client, server, 1);
            pair.server.policy.auth = Answer::Keep;
            let password = Hidden::new(100 + at as u64, 900);
            let credential = Credential::Password(password.reveal());
            pair.client.conn.authenticate("user", credential).expect("a first attempt");
            pair.drive();
            // With whom it was sent to, and with nobody else.
            assert_eq!(password.found(), 1, "{}", cipher.name());
            let request = take!(pair.server, ServerEvent::Auth(request) => request);
            let verdict = match answer {
                Answer::Yes => AuthVerdict::Accept,
                _ => AuthVerdict::Reject { next: AuthMethods::PASSWORD },
            };
            pair.server.conn.reply_auth(request, verdict).expect("it is open");
            pair.settle();
            assert_eq!(pair.client.authenticated, answer == Answer::Yes);
            assert_eq!(password.found(), 0, "{}", cipher.name());
        }
    }
}

#[test]
fn a_password_that_was_not_sent_goes_with_the_connection() {
    let _turn = turn();
    let password = Hidden::new(200, 900);
    let mut pair = Pair::null();
    pair.client.policy.host_key = Answer::Keep;
    pair.client.conn.authenticate("user", Credential::Password(password.reveal())).expect("a first attempt");
    pair.drive();
    assert_eq!(password.found(), 1);
    pair.client.conn.close(Disconnect::by_application());
    assert_eq!(password.found(), 0);
    assert!(!pair.client.conn.is_closed(), "nobody has even looked");
}

#[test]
fn a_password_of_any_length_leaves_nothing_behind_at_its_sender() {
    let _turn = turn();
    for len in (PIECE + 2..1024).step_by(31) {
        let (client, server) = rustcrypto_configs();
        let mut pair = Pair::new(client, server, 1);
        let password = Hidden::new(len as u64, len);
        pair.handshake();
        // The buffer grows to what the request takes.
        let mut sent = bytes::BytesMut::new();
        pair.client.conn.swap_output(&mut sent);
        pair.login_with(Credential::Password(password.reveal()));
        assert_eq!(password.found(), 0, "{len} bytes");
    }
}

#[test]
fn a_private_key_file_leaves_nothing_behind_whichever_adapter_reads_it() {
    let _turn = turn();
    let mut random = Seeded::new(500);
    let key = PrivateKey::generate_ed25519(&mut random).expect("entropy");
    let text = key.to_openssh("", &mut random).expect("entropy");
    let hidden = Hidden(text.expose().bytes().map(|byte| byte ^ MASK).collect());
    let file = std::env::temp_dir().join(format!("ssh-wiping-{}", std::process::id()));
    fs::write(&file, text.expose()).expect("a place for it");
    drop(text);
    assert_eq!(hidden.found(), 0);
    let read = ssh_io_std::read_key_file(&file, None).expect("a key");
    assert_eq!((&read.public, hidden.found()), (key.public(), 0));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let read = runtime.block_on(ssh_io_tokio::read_key_file(&file, None)).expect("a key");
    assert_eq!((&read.public, hidden.found()), (key.public(), 0));
    fs::remove_file(&file).expect("it is there");
}

/// Sends a request with this password, whatever the client thinks of it.
fn send_password(pair: &mut Pair, user: &str, password: &Hidden) {
    let secret = password.reveal();
    let method = Method::Password { password: secret.expose().as_bytes(), new: None };
    let request = UserauthRequest { user, service: "ssh-connection", method };
    let mut payload = Vec::with_capacity(request.size());
    request.encode(&mut payload);
    pair.client.conn.send_raw(&payload);
    payload.fill(0);
    std::hint::black_box(&payload);
}

#[test]
fn a_password_that_nobody_is_asked_about_is_nowhere_in_memory() {
    let _turn = turn();
    // Of a user who is refused, of another user than before, and too long.
    for (user, len, is_end) in [("-user", 900, false), ("other", 900, true), ("user", 1100, false)] {
        let (client, server) = rustcrypto_configs();
        let mut pair = Pair::new(client, server, 1);
        pair.server.policy.auth = Answer::No;
        if is_end {
            pair.client.conn.authenticate("user", Credential::None).expect("a first attempt");
        }
        pair.settle();
        let asked = pair.server.count("Auth");
        let password = Hidden::new(300, len);
        send_password(&mut pair, user, &password);
        assert_eq!(password.found(), 0, "sealed in place");
        pair.drive();
        assert_eq!((pair.server.count("Auth"), pair.server.closed.is_some()), (asked, is_end), "{user}");
        assert_eq!(password.found(), 0, "{user}");
    }
}

// ----- The shared secret.

/// A key exchange whose secret is this one.
struct KnownKex;

const SECRET: u64 = 400;
const SECRET_LEN: usize = 900;

static KNOWN: Provider = Provider {
    name: "known",
    deterministic: true,
    kex: &[&KnownKex],
    ciphers: null::PROVIDER.ciphers,
    macs: null::PROVIDER.macs,
    signatures: null::PROVIDER.signatures,
};

fn known_secret() -> SharedSecret {
    let secret = Hidden::new(SECRET, SECRET_LEN).reveal();
    SharedSecret::new(secret.expose().as_bytes().to_vec().into(), SecretEncoding::String)
}

impl KexAlgorithm for KnownKex {
    fn name(&self) -> &'static str {
        null::NAME
    }

    fn hash(&self) -> &'static dyn Hash {
        rustcrypto::PROVIDER.kex[0].hash()
    }

    fn start(&self, _: &mut dyn Entropy) -> Result<Box<dyn ClientExchange>, KexError> {
        Ok(Box::new(Self))
    }

    fn respond(&self, _: &[u8], _: &mut dyn Entropy) -> Result<ServerShare, KexError> {
        Ok(ServerShare { share: b"server".to_vec(), secret: known_secret() })
    }
}

impl ClientExchange for KnownKex {
    fn share(&self) -> &[u8] {
        b"client"
    }

    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, KexError> {
        Ok(known_secret())
    }
}

#[test]
fn a_shared_secret_is_kept_for_a_question_and_no_longer() {
    let _turn = turn();
    let secret = Hidden::new(SECRET, SECRET_LEN);
    for close in [false, true] {
        let client = ClientConfig::builder(&KNOWN).ciphers(&[null::CIPHER]).build().expect("a client");
        let server = ServerConfig::builder(&KNOWN).ciphers(&[null::CIPHER]).host_key(external_key(1));
        let mut pair = Pair::new(client, server.build().expect("a server"), 1);
        (pair.client.policy.host_key, pair.server.policy.sign) = (Answer::Keep, Answer::Keep);
        pair.drive();
        assert_eq!(secret.found(), 1, "it waits for the server's signature");
        let sign = take!(pair.server, ServerEvent::Sign(request) => request);
        if close {
            pair.server.conn.close(Disconnect::by_application());
            assert_eq!(secret.found(), 0);
            continue;
        }
        let signature = null::sign(sign.to_sign().key(), sign.to_sign().message());
        pair.server.conn.provide_signature(sign, Ok(signature)).expect("it is open");
        assert_eq!(secret.found(), 0);
        pair.drive();
        assert_eq!(secret.found(), 1, "it waits for the client's word on the host key");
        let check = take!(pair.client, ClientEvent::HostKey(check) => check);
        pair.client.conn.accept_host_key(check).expect("it is open");
        assert_eq!(secret.found(), 0);
        pair.login();
        pair.client.conn.rekey();
        pair.server.policy.sign = Answer::Yes;
        pair.drive();
        assert_eq!((pair.client.count("Rekeyed"), secret.found()), (1, 0));
    }
    // At the client a close does the same.
    let client = ClientConfig::builder(&KNOWN).ciphers(&[null::CIPHER]).build().expect("a client");
    let server = ServerConfig::builder(&KNOWN).ciphers(&[null::CIPHER]).host_key(null_key(1));
    let mut pair = Pair::new(client, server.build().expect("a server"), 1);
    pair.client.policy.host_key = Answer::Keep;
    pair.drive();
    assert_eq!(secret.found(), 1);
    pair.client.conn.close(Disconnect::by_application());
    assert_eq!(secret.found(), 0);
}
