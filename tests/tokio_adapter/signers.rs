//! Signers that block, on a runtime of one thread.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use ssh_io_tokio::{Client, Error, HostKeys, ServerConnection};
use ssh_proto::{CloseReason, Entropy, KeyPair, ServerConfig, SignRefused, Signature, Signer, ToSign};
use ssh_tests::{null, null_client};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{spawn_blocking, yield_now};

use crate::rig::{PASSWORD, check, connected, talk, within};

/// Says that it is asked, and waits for a word.
struct Blocks(UnboundedSender<()>, Mutex<Receiver<bool>>);

impl Signer for Blocks {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        self.0.send(()).unwrap();
        // Nobody there, it panics.
        let willing = self.1.lock().unwrap().recv().expect("a signer panics, as the test asks it to");
        if willing { Ok(null::sign(what.key(), what.message())) } else { Err(SignRefused) }
    }
}

/// A key that blocks, what tells that it does, and the word.
fn blocking(name: u32) -> (KeyPair, UnboundedReceiver<()>, std::sync::mpsc::Sender<bool>) {
    let ((ask, asked), (say, word)) = (unbounded_channel(), channel());
    (KeyPair::new(null::public_key(name), Arc::new(Blocks(ask, Mutex::new(word)))), asked, say)
}

#[tokio::test(start_paused = true)]
async fn a_host_keys_signer_that_blocks_leaves_the_runtime_to_others_and_decides() {
    for word in [Some(true), Some(false), None] {
        let (key, mut asked, say) = blocking(1);
        let config = ServerConfig::builder(&null::PROVIDER).ciphers(&[null::CIPHER]).host_key(key);
        let config = config.build().unwrap();
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let (server, driver) = ServerConnection::start(config, theirs);
        let driver = tokio::spawn(driver.run());
        let builder = Client::with_config(null_client().build().unwrap());
        let builder = builder.host_keys(HostKeys::DangerousAcceptAny);
        let client = tokio::spawn(builder.connect_over("test", 22, ours));
        within(asked.recv()).await.unwrap();
        // This very line is the progress; and nothing is locked.
        assert!(server.negotiated().is_some());
        assert!(!client.is_finished());
        match word {
            Some(word) => say.send(word).unwrap(),
            None => drop(say),
        }
        let connected = within(client).await.unwrap();
        if word == Some(true) {
            connected.unwrap();
        } else {
            assert!(matches!(connected, Err(Error::Closed(_))), "{connected:?}");
            assert!(matches!(within(driver).await.unwrap(), CloseReason::SignatureRefused), "{word:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_users_signer_that_blocks_leaves_the_runtime_to_others_and_one_that_was_given_up_is_refused() {
    let rig = connected(talk).await;
    for given_up in [true, false] {
        let (key, mut asked, say) = blocking(2);
        let client = rig.client.clone();
        let login = tokio::spawn(async move { client.auth_key("me", key).await });
        within(asked.recv()).await.unwrap();
        assert!(rig.client.negotiated().is_some());
        if given_up {
            login.abort();
            say.send(true).unwrap();
            assert!(within(login).await.unwrap_err().is_cancelled());
        } else {
            say.send(true).unwrap();
            within(login).await.unwrap().unwrap();
        }
    }
    check(&rig.client).await;
}

/// More turns than anything takes that need not wait for a thread. Time does not pass while one is at work.
const TURNS: usize = 1000;

#[test]
fn a_signer_that_no_thread_came_to_before_its_login_was_given_up_is_not_called() {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let rig = connected(talk).await;
        let (leave, stay) = channel::<()>();
        let occupied = spawn_blocking(move || stay.recv());
        let (key, mut asked, say) = blocking(2);
        say.send(true).unwrap();
        let client = rig.client.clone();
        let login = tokio::spawn(async move { client.auth_key("me", key).await });
        for _ in 0..TURNS {
            yield_now().await;
        }
        login.abort();
        assert!(login.await.unwrap_err().is_cancelled());
        // The next one need not wait for the thread.
        let client = rig.client.clone();
        let next = tokio::spawn(async move { client.auth_password("me", PASSWORD).await });
        for _ in 0..TURNS {
            yield_now().await;
        }
        let waited = !next.is_finished();
        drop(leave);
        occupied.await.unwrap().unwrap_err();
        next.await.unwrap().unwrap();
        // There is one thread, which came to all that was there before.
        spawn_blocking(|| ()).await.unwrap();
        assert!(asked.try_recv().is_err(), "a signer is called for nobody");
        assert!(!waited, "the next login waits for a thread");
    });
}
