//! Code of others that panics: a provider's, and that of wakers.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use ssh_io_tokio::{Channel, Client, Error, HostKeys, ServerConnection};
use ssh_proto::crypto::{CipherAlgorithm, OpenPacket, PacketKeys, PacketShape, Provider, SealPacket};
use ssh_proto::{ChannelRequestKind, ClientConfig, CloseReason, DisconnectCode, ServerConfig, Stream};
use ssh_tests::{null, null_client, null_key, null_server};
use tokio::io::AsyncReadExt;

use crate::rig::{PASSWORD, Rig, at_once, doorman, newest, start, within};

/// A cipher that panics, over and over, when it is told to.
struct Brittle {
    cipher: &'static dyn CipherAlgorithm,
    broken: &'static AtomicBool,
}

struct BrittleSeal(Box<dyn SealPacket>, &'static AtomicBool);

impl CipherAlgorithm for Brittle {
    fn name(&self) -> &'static str {
        self.cipher.name()
    }

    fn key_len(&self) -> usize {
        self.cipher.key_len()
    }

    fn iv_len(&self) -> usize {
        self.cipher.iv_len()
    }

    fn is_aead(&self) -> bool {
        self.cipher.is_aead()
    }

    fn sealer(&self, keys: &PacketKeys<'_>) -> Box<dyn SealPacket> {
        Box::new(BrittleSeal(self.cipher.sealer(keys), self.broken))
    }

    fn opener(&self, keys: &PacketKeys<'_>) -> Box<dyn OpenPacket> {
        self.cipher.opener(keys)
    }
}

impl SealPacket for BrittleSeal {
    fn shape(&self) -> PacketShape {
        self.0.shape()
    }

    fn seal(&mut self, sequence: u32, packet: &mut [u8]) {
        assert!(!self.1.load(Ordering::SeqCst), "a cipher panics, as the test asks it to");
        self.0.seal(sequence, packet);
    }
}

/// A provider of it, and what breaks it.
fn brittle() -> (&'static Provider, &'static AtomicBool) {
    let broken: &'static AtomicBool = Box::leak(Box::default());
    let brittle = Brittle { cipher: null::PROVIDER.ciphers[0], broken };
    let ciphers: &'static [&'static dyn CipherAlgorithm] =
        Box::leak(Box::new([Box::leak(Box::new(brittle)) as _]));
    let Provider { kex, macs, signatures, .. } = null::PROVIDER;
    let provider = Provider { name: "brittle", deterministic: true, kex, ciphers, macs, signatures };
    (Box::leak(Box::new(provider)), broken)
}

#[tokio::test(start_paused = true)]
async fn a_panic_under_a_handle_ends_the_connection_and_all_who_wait_are_told() {
    let (provider, broken) = brittle();
    let config = ClientConfig::builder(provider).ciphers(&[null::CIPHER]);
    let Rig { client, driver, .. } = start(config, null_server(), doorman).log_in().await;
    let (held, waits) = (client.open_session().await.unwrap(), client.open_session().await.unwrap());
    let waiting = tokio::spawn(async move { waits.wait().await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    broken.store(true, Ordering::SeqCst);
    let other = client.clone();
    let opening = tokio::spawn(async move {
        let opened = other.open_session().await.map(drop);
        drop(held);
        opened
    });
    assert!(!matches!(at_once(opening).await, Ok(Ok(()))));
    let over = CloseReason::Local(DisconnectCode::BY_APPLICATION);
    let told = at_once(waiting).await.unwrap();
    assert!(matches!(&told, Err(Error::Closed(reason)) if *reason == over), "{told:?}");
    assert_eq!(within(client.closed()).await, over);
    assert_eq!(within(driver).await.unwrap(), over);
    assert!(matches!(client.open_session().await, Err(Error::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_driver_ends_the_connection_and_not_the_process() {
    let (provider, broken) = brittle();
    let config = ServerConfig::builder(provider).ciphers(&[null::CIPHER]).host_key(null_key(1));
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (server, driver) = ServerConnection::start(config.build().unwrap(), theirs);
    let driver = tokio::spawn(driver.run());
    let builder = Client::with_config(null_client().build().unwrap());
    let builder = builder.host_keys(HostKeys::DangerousAcceptAny);
    let client = at_once(builder.connect_over("test", 22, ours)).await.unwrap();
    let clone = server.clone();
    // What is asked is dropped, and the driver refuses it.
    let asking = tokio::spawn(async move { while clone.asked().await.is_some() {} });
    tokio::time::sleep(Duration::from_millis(1)).await;
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(within(client.auth_password("me", PASSWORD)).await, Err(Error::Closed(_))));
    assert!(at_once(driver).await.unwrap_err().is_panic());
    at_once(asking).await.unwrap();
    assert_eq!(at_once(server.closed()).await, CloseReason::Local(DisconnectCode::BY_APPLICATION));
    assert!(server.asked().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn those_a_panic_met_on_the_way_to_being_woken_are_told() {
    let (provider, broken) = brittle();
    let config = ClientConfig::builder(provider).ciphers(&[null::CIPHER]);
    let Rig { client, driver, remote, .. } = start(config, null_server(), doorman).log_in().await;
    let mut channel = client.open_session().await.unwrap();
    let id = newest(&remote).await;
    let reading = tokio::spawn(async move { channel.read(&mut [0; 9]).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    broken.store(true, Ordering::SeqCst);
    // In one piece: data, for which the reader is taken from those who wait, and what is to be refused.
    remote.with(|end| {
        let mut channel = end.conn.channel(id).unwrap();
        channel.write(Stream::Data, b"data").unwrap();
        let kind = ChannelRequestKind::Other { name: "x@ssh-tests.invalid".into(), data: Vec::new() };
        channel.request(&kind, true).unwrap();
    });
    assert!(at_once(driver).await.unwrap_err().is_panic());
    // Of a machine that panicked nothing more is taken.
    let error = at_once(reading).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
}

/// Drops it on the way out of a panic that is nothing to the connection.
async fn drop_in_a_panic(held: impl Send + 'static) {
    let dropping = tokio::spawn(async move {
        let _held = held;
        panic!("whoever holds a handle panics, as the test asks it to");
    });
    assert!(at_once(dropping).await.unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn a_handle_dropped_in_a_panic_of_its_owner_does_not_let_out_one_of_the_provider() {
    // What is dropped, and what of the connection is kept.
    type Parts = (Box<dyn Send>, Option<Channel>);
    let handles: [fn(Channel, &mut Option<Client>) -> Parts; 4] = [
        |channel, _| (Box::new(channel), None),
        |channel, _| {
            let other = channel.clone();
            (Box::new(channel.split().1), Some(other))
        },
        |channel, client| (Box::new(client.take()), Some(channel)),
        |channel, client| (Box::new((channel, client.take())), None),
    ];
    for handle in handles {
        let (provider, broken) = brittle();
        let config = ClientConfig::builder(provider).ciphers(&[null::CIPHER]);
        let Rig { client, driver, .. } = start(config, null_server(), doorman).log_in().await;
        let (channel, other) = (client.open_session().await.unwrap(), client.open_session().await.unwrap());
        let waiting = tokio::spawn(async move { other.wait().await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        broken.store(true, Ordering::SeqCst);
        let mut client = Some(client);
        let (held, kept) = handle(channel, &mut client);
        drop_in_a_panic(held).await;
        let over = CloseReason::Local(DisconnectCode::BY_APPLICATION);
        let told = at_once(waiting).await.unwrap();
        assert!(matches!(&told, Err(Error::Closed(reason)) if *reason == over), "{told:?}");
        assert_eq!(within(driver).await.unwrap(), over);
        assert!(kept.is_none_or(|channel| channel.finish_input().is_err()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_and_a_driver_dropped_over_a_provider_that_panics_end_the_connection() {
    for driver_first in [true, false] {
        let (provider, broken) = brittle();
        let config = ServerConfig::builder(provider).ciphers(&[null::CIPHER]).host_key(null_key(1));
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let (server, driver) = ServerConnection::start(config.build().unwrap(), theirs);
        let driver = tokio::spawn(driver.run());
        let builder = Client::with_config(null_client().build().unwrap());
        let builder = builder.host_keys(HostKeys::DangerousAcceptAny);
        let client = at_once(builder.connect_over("test", 22, ours)).await.unwrap();
        broken.store(true, Ordering::SeqCst);
        let over = CloseReason::Local(DisconnectCode::BY_APPLICATION);
        if driver_first {
            driver.abort();
            assert!(at_once(driver).await.unwrap_err().is_cancelled());
            assert_eq!(at_once(server.closed()).await, over);
        } else {
            drop_in_a_panic(server).await;
            assert_eq!(within(driver).await.unwrap(), over);
        }
        assert_eq!(within(client.closed()).await, CloseReason::Eof);
    }
}

/// A waker that panics, as that of an executor that is full may.
struct Full;

impl Wake for Full {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics, as the test asks it to");
    }
}

#[tokio::test(start_paused = true)]
async fn those_behind_a_waker_that_panics_are_woken_all_the_same() {
    for in_a_panic in [false, true] {
        let Rig { client, driver, remote, .. } = start(null_client(), null_server(), doorman).log_in().await;
        let (mut first, mut second) =
            (client.open_session().await.unwrap(), client.open_session().await.unwrap());
        let ids = remote.with(|end| end.accepted.clone());
        let waker = Waker::from(Arc::new(Full));
        let mut buffer = [0; 9];
        let mut unlucky = pin!(first.read(&mut buffer));
        assert!(unlucky.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let reading = tokio::spawn(async move { second.read(&mut [0; 9]).await });
        tokio::task::yield_now().await;
        if in_a_panic {
            // The process lives on.
            drop_in_a_panic(client).await;
            assert!(at_once(reading).await.unwrap().is_err());
            within(driver).await.unwrap();
        } else {
            // In one piece, so that both are woken in one turn.
            remote.with(|end| {
                for id in ids {
                    end.conn.channel(id).unwrap().write(Stream::Data, b"data").unwrap();
                }
            });
            assert_eq!(at_once(reading).await.unwrap().unwrap(), 4);
            // A driver that is dropped tells all of them as well, and whoever asks later.
            let closed = tokio::spawn(async move { client.closed().await });
            tokio::task::yield_now().await;
            assert!(unlucky.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
            let mut unlucky = pin!(first.read(&mut buffer));
            assert!(unlucky.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            driver.abort();
            assert!(driver.await.unwrap_err().is_cancelled());
            assert!(matches!(at_once(closed).await.unwrap(), CloseReason::Local(_)));
        }
    }
}
