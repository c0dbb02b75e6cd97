//! Handles that are used outside of any runtime, of a connection whose driver has one.

use std::pin::pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread, ThreadId};

use ssh_io_tokio::{Asked, Client, Error, HostKeys, ServerConnection, read_key_file};
use ssh_proto::keys::HostKeyRejection;
use ssh_proto::{AuthVerdict, Entropy, KeyPair, SignRefused, Signature, Signer, ToSign};
use ssh_tests::{null, null_client, null_server};
use tokio::runtime::{Builder, Handle, Runtime};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ssh-proto/src/keys/testdata/ed25519");

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An executor that knows nothing of tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

/// Connects to a server that lets in whoever has a key, both driven by the runtime.
fn connect(runtime: &Runtime, host_keys: HostKeys) -> Result<Client, Error> {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (server, driver) = ServerConnection::start(null_server().build().unwrap(), theirs);
    runtime.spawn(driver.run());
    runtime.spawn(async move {
        while let Some(asked) = server.asked().await {
            if let Asked::Auth(request) = asked {
                let _ = request.reply(AuthVerdict::Accept);
            }
        }
    });
    let builder = Client::with_config(null_client().build().unwrap()).host_keys(host_keys);
    let (connecting, driver) = block_on(builder.start("test", 22, ours))?;
    runtime.spawn(driver.run());
    block_on(connecting.finish())
}

/// Remembers the thread it was called on.
struct OnThread(Mutex<Option<ThreadId>>);

impl Signer for OnThread {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        *self.0.lock().unwrap() = Some(thread::current().id());
        Ok(null::sign(what.key(), what.message()))
    }
}

#[test]
fn keys_and_files_are_used_outside_of_a_runtime() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let unknown = connect(&runtime, HostKeys::KnownHosts("/nowhere/known_hosts".into()));
    assert!(matches!(unknown, Err(Error::HostKey(HostKeyRejection::Unknown))), "{unknown:?}");

    let client = connect(&runtime, HostKeys::DangerousAcceptAny).unwrap();
    let missing = block_on(client.auth_key_file("me", "/nowhere/key", None));
    assert!(matches!(missing, Err(Error::Io(_))), "{missing:?}");
    assert_eq!(block_on(read_key_file(FILE, None)).unwrap().public.key_type(), "ssh-ed25519");
    let signer = Arc::new(OnThread(Mutex::default()));
    let key = KeyPair::new(null::public_key(2), Arc::clone(&signer) as _);
    block_on(client.auth_key("me", key)).unwrap();
    // It may block, and who polls has perhaps others to poll.
    assert!(signer.0.lock().unwrap().is_some_and(|thread| thread != thread::current().id()));
}

#[test]
fn a_client_that_outlives_its_runtime_is_told_how_the_connection_ended() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = connect(&runtime, HostKeys::DangerousAcceptAny).unwrap();
    drop(runtime);
    let told = block_on(client.auth_key_file("me", FILE, None));
    assert!(matches!(told, Err(Error::Closed(_))), "{told:?}");
}

/// A runtime takes no work for its threads any more.
async fn takes_no_more(handle: &Handle) {
    while handle.spawn_blocking(|| ()).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_a_runtime_that_goes_does_not_come_to_any_more_is_done_elsewhere() {
    for at_hand in [true, false] {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = connect(&runtime, HostKeys::DangerousAcceptAny).unwrap();
        // Its only worker is busy while it goes, and so the driver is there still.
        let ((begun, busy), (leave, stay)) = (channel::<()>(), channel::<()>());
        runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = stay.recv();
        });
        busy.recv().unwrap();
        let handle = runtime.handle().clone();
        let going = thread::spawn(move || drop(runtime));
        let other = Builder::new_current_thread().build().unwrap();
        other.block_on(takes_no_more(&handle));
        // The file is read: it is no key.
        let reading = client.auth_key_file("me", format!("{FILE}.pub"), None);
        let read = if at_hand { other.block_on(reading) } else { block_on(reading) };
        drop(leave);
        going.join().unwrap();
        assert!(matches!(read, Err(Error::PrivateKey(_))), "{read:?}");
    }
}
