//! Logging in: in turns, and with signers that take their time.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use ssh_io_tokio::{Client, Error};
use ssh_proto::raw::State;
use ssh_proto::{AuthError, Entropy, KeyPair, SignRefused, Signature, Signer, ToSign};
use ssh_tests::{null, null_key};
use tokio::sync::Notify;

use crate::rig::{PASSWORD, Rig, at_once, check, connected, talk, within};

#[tokio::test(start_paused = true)]
async fn an_accepted_host_key_lets_the_exchange_go_on_by_itself() {
    let Rig { client: _client, remote, .. } = connected(talk).await;
    at_once(remote.until(|end| (end.conn.gate_state() == State::AuthIdle).then_some(()))).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_logins_at_once_one_is_told_that_the_other_was_enough() {
    let Rig { client, .. } = connected(talk).await;
    let (first, second) = (client.clone(), client.clone());
    let (first, second) = within(async {
        tokio::join!(first.auth_password("me", PASSWORD), second.auth_password("me", PASSWORD))
    })
    .await;
    first.unwrap();
    assert!(matches!(second, Err(Error::Auth(AuthError::Done))), "{second:?}");
    check(&client).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_logins_at_once_each_gets_its_own_answer() {
    let Rig { client, .. } = connected(talk).await;
    let (first, second) = (client.clone(), client.clone());
    let (first, second) = within(async {
        tokio::join!(first.auth_password("me", "wrong"), second.auth_password("me", PASSWORD))
    })
    .await;
    match first {
        Err(Error::AuthFailed { remaining, partial: false }) => {
            assert_eq!(remaining, ["publickey", "password"])
        }
        other => panic!("{other:?}"),
    }
    second.unwrap();
    check(&client).await;
}

/// Longer than any call takes that does not wait for the signer: a bound on failure, not a measure.
const STUCK: Duration = Duration::from_secs(10);

/// Does not come back before somebody else, on another thread, could use the client; or panics then.
struct Hesitant {
    client: Client,
    panics: bool,
}

impl Signer for Hesitant {
    fn sign(&self, what: &ToSign<'_>, _: &mut dyn Entropy) -> Result<Signature, SignRefused> {
        let ((sender, receiver), client) = (mpsc::channel(), self.client.clone());
        std::thread::spawn(move || sender.send(client.negotiated().is_some()));
        assert_eq!(receiver.recv_timeout(STUCK), Ok(true), "the client is locked while a signer is called");
        assert!(!self.panics, "a signer panics, as the test asks it to");
        Ok(null::sign(what.key(), what.message()))
    }
}

fn hesitant(client: &Client, panics: bool) -> KeyPair {
    KeyPair::new(null::public_key(2), Arc::new(Hesitant { client: client.clone(), panics }))
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_blocks_or_panics_holds_nothing_locked() {
    let Rig { client, driver, .. } = connected(talk).await;
    let (key, other) = (hesitant(&client, true), client.clone());
    let panicked = within(tokio::spawn(async move { other.auth_key("me", key).await })).await;
    assert!(panicked.unwrap_err().is_panic());
    assert!(!driver.is_finished());
    // The driver heard that the question was dropped.
    at_once(client.auth_key("me", hesitant(&client, false))).await.unwrap();
    check(&client).await;
}

#[tokio::test(start_paused = true)]
async fn a_signature_may_be_long_in_coming_or_be_given_up_or_refused() {
    let Rig { client, .. } = connected(talk).await;
    let asked = Arc::new(Notify::new());
    // On a task of its own, as applications do: the future can be sent.
    let (other, ask) = (client.clone(), Arc::clone(&asked));
    let never = tokio::spawn(async move {
        let sign = async |_: ToSign<'_>| {
            ask.notify_one();
            std::future::pending().await
        };
        other.auth_key_with("me", null::public_key(2), sign).await
    });
    within(asked.notified()).await;
    assert!(client.negotiated().is_some());
    never.abort();
    assert!(never.await.unwrap_err().is_cancelled());

    let refuses = async |_: ToSign<'_>| Err(SignRefused);
    let refused = at_once(client.auth_key_with("me", null::public_key(2), refuses)).await;
    assert!(matches!(refused, Err(Error::AuthFailed { .. })), "{refused:?}");

    let slow = async |what: ToSign<'_>| {
        tokio::time::sleep(Duration::from_secs(50)).await;
        Ok(null::sign(what.key(), what.message()))
    };
    within(client.auth_key_with("me", null::public_key(2), slow)).await.unwrap();
    check(&client).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_signer_nobody_has_is_refused() {
    let Rig { client, .. } = connected(talk).await;
    let refused = within(client.auth_key("me", null::external_key(2))).await;
    assert!(matches!(refused, Err(Error::AuthFailed { .. })), "{refused:?}");
    at_once(client.auth_key("me", null_key(2))).await.unwrap();
    check(&client).await;
}

#[tokio::test(start_paused = true)]
async fn a_login_waits_for_the_end_of_one_that_was_given_up() {
    let Rig { client, .. } = connected(talk).await;
    let other = client.clone();
    let given_up = tokio::spawn(async move { other.auth_password("me", "wrong").await });
    // It has left, and has no answer yet.
    tokio::task::yield_now().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    within(client.auth_password("me", PASSWORD)).await.unwrap();
    check(&client).await;
}
