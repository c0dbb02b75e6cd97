//! Much at once: many writers while keys are renewed, and how much work that is.

use std::future::Future;
use std::io::{Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ssh_io_tokio::ServerConnection;
use ssh_proto::ClientConfig;
use ssh_tests::null_client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::crowd::{blocking, comes_back, logged_in};
use crate::given_up::builder;
use crate::line::Line;
use crate::over_tokio::{runtime, serve};
use crate::session::configs;
use crate::tally::{STD, TOKIO, survived, turn};

const WRITERS: u8 = 100;
/// What each of them sends and gets back: more than its part of the window.
const EACH: usize = 100_000;
const REKEYS: u64 = 50;

/// Renews its keys whenever so much was sent.
fn renewing() -> Arc<ClientConfig> {
    null_client().with_rekey(|rekey| rekey.bytes = 2 * 64 * 1024).build().unwrap()
}

/// A writer ends its input at once behind the last byte, whatever is under way.
#[test]
fn ad_16_a_hundred_writers_while_keys_are_renewed() {
    let _turn = turn();
    runtime().block_on(async {
        let (_line, client, server) = logged_in(renewing()).await;
        let mut all = Vec::new();
        for n in 0..WRITERS {
            let (mut reader, mut writer) = client.open_session().await.unwrap().split();
            all.push(tokio::spawn(async move {
                writer.channel().exec("program").await.unwrap();
                let (data, mut got) = (vec![n; EACH], Vec::new());
                let sending = async {
                    AsyncWriteExt::write_all(&mut writer, &data).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                tokio::join!(sending, async { reader.read_to_end(&mut got).await.unwrap() });
                assert!(got == data, "channel {n}: {} bytes", got.len());
            }));
        }
        for (n, writer) in all.into_iter().enumerate() {
            // The other side asks for new keys now and then.
            if n % 10 == 0 {
                server.rekey();
            }
            writer.await.unwrap();
        }
        assert!(client.rekeys() > REKEYS, "{}", client.rekeys());
    });
    survived(TOKIO, "writers while keys are renewed", WRITERS.into());
    let (_line, client, server) = blocking(renewing());
    let rekeys = comes_back(move || {
        let mut all = Vec::new();
        for n in 0..WRITERS {
            let (mut reader, mut writer) = client.open_session().unwrap().split();
            all.push(thread::spawn(move || {
                writer.channel().exec("program").unwrap();
                let (data, mut got) = (vec![n; EACH], Vec::new());
                let sending = thread::spawn(move || {
                    Write::write_all(&mut writer, &[n; EACH]).unwrap();
                    writer.channel().finish_input().unwrap();
                });
                Read::read_to_end(&mut reader, &mut got).unwrap();
                sending.join().unwrap();
                assert!(got == data, "channel {n}: {} bytes", got.len());
            }));
        }
        for (n, writer) in all.into_iter().enumerate() {
            if n % 10 == 0 {
                server.rekey();
            }
            writer.join().unwrap();
        }
        client.rekeys()
    });
    assert!(rekeys > REKEYS, "{rekeys}");
    survived(STD, "writers while keys are renewed", WRITERS.into());
}

/// Runs a future and counts its polls.
async fn counted<F: Future>(future: F, polls: Arc<AtomicUsize>) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(cx)
    })
    .await
}

#[test]
fn ad_13_a_driver_is_polled_for_what_there_is_to_do_alone() {
    let _turn = turn();
    const BYTES: usize = 8 << 20;
    /// Half of what a transport in memory holds; a driver that moves so much at a poll does nothing in vain.
    const PER_POLL: usize = 8 * 1024;
    runtime().block_on(async {
        let polls = Arc::new(AtomicUsize::new(0));
        let now = || polls.load(Ordering::Relaxed);
        let (_line, ours, theirs) = Line::pair(Default::default());
        let (server, driver) = ServerConnection::start(configs().1, theirs);
        tokio::spawn(driver.run());
        tokio::spawn(serve(server));
        let (connecting, driver) = builder().start("test", 22, ours).await.unwrap();
        tokio::spawn(counted(driver.run(), Arc::clone(&polls)));
        let client = connecting.finish().await.unwrap();
        client.auth_password("me", "x").await.unwrap();
        let (mut reader, mut writer) = client.open_session().await.unwrap().split();
        writer.channel().exec("program").await.unwrap();
        assert!(now() < 50, "{} for a login and a session", now());

        // Nothing to do, and keys that are not old yet.
        let before = now();
        tokio::time::sleep(Duration::from_secs(3000)).await;
        // Its deadlines may have been over with what they were for.
        assert!(now() - before <= 5, "{} for nothing", now() - before);

        // A reader beside a timer, over and over.
        let before = now();
        let sending = tokio::spawn(async move {
            AsyncWriteExt::write_all(&mut writer, &vec![7; BYTES]).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let (mut buffer, mut got) = (vec![0; 1000], 0);
        loop {
            tokio::select! {
                n = reader.read(&mut buffer) => match n.unwrap() {
                    0 => break,
                    n => got += n,
                },
                () = tokio::time::sleep(Duration::from_secs(1)) => panic!("{got} of {BYTES}, and then nothing"),
            }
        }
        sending.await.unwrap();
        assert_eq!(got, BYTES);
        let most = 2 * BYTES / PER_POLL;
        assert!(now() - before <= most, "{} polls of {most} for {BYTES} bytes there and back", now() - before);
        println!("{TOKIO}: {} polls of a driver for {BYTES} bytes there and back", now() - before);
    });
}
