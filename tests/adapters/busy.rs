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
use crate::given_up::{builder, polled, turn_of_others};
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

const GREEDY: usize = 10;
const ROUND_TRIPS: usize = 200;
/// What may go by, either way, while a few bytes of another channel go there and come back: what waits in the
/// buffers of either side, and a few packets of each greedy channel. Their windows have room for ten times as much.
const MOST_BETWEEN: usize = 2 << 20;

/// What goes over a line meanwhile, the way that carries more.
struct Passed<'a> {
    line: &'a Line,
    before: [usize; 2],
}

impl<'a> Passed<'a> {
    fn by(line: &'a Line) -> Self {
        Self { line, before: line.carried() }
    }

    fn most(&self) -> usize {
        let now = self.line.carried();
        now.iter().zip(self.before).map(|(now, before)| now - before).max().unwrap_or_default()
    }
}

/// Many channels that carry all they can beside one with a few bytes now and then.
#[test]
fn ad_13_a_channel_with_little_to_say_beside_greedy_ones() {
    let _turn = turn();
    runtime().block_on(async {
        let (line, client, _server) = logged_in(configs().0).await;
        for _ in 0..GREEDY {
            let (mut reader, mut writer) = client.open_session().await.unwrap().split();
            writer.channel().exec("program").await.unwrap();
            tokio::spawn(async move {
                while AsyncWriteExt::write_all(&mut writer, &[7; 100_000]).await.is_ok() {}
            });
            tokio::spawn(async move { while let Ok(1..) = reader.read(&mut [0; 100_000]).await {} });
        }
        let mut channel = client.open_session().await.unwrap();
        channel.exec("program").await.unwrap();
        for n in 0..ROUND_TRIPS {
            let (sent, mut back) = ([u8::try_from(n).unwrap(); 10], [0; 10]);
            let passed = Passed::by(&line);
            let mut round_trip = pin!(async {
                channel.write_all(&sent).await.unwrap();
                channel.read_exact(&mut back).await.unwrap();
            });
            // The others never rest, so that no time passes: what they do is counted at every step.
            while polled(1, &mut round_trip).await.is_none() {
                assert!(passed.most() <= MOST_BETWEEN, "{} and no answer yet", passed.most());
                turn_of_others().await;
            }
            assert_eq!(back, sent);
        }
        client.close();
    });
    survived(TOKIO, "round trips beside greedy channels", ROUND_TRIPS);
    let (line, client, _server) = blocking(configs().0);
    for _ in 0..GREEDY {
        let (mut reader, mut writer) = client.open_session().unwrap().split();
        writer.channel().exec("program").unwrap();
        thread::spawn(move || while Write::write_all(&mut writer, &[7; 100_000]).is_ok() {});
        thread::spawn(move || while let Ok(1..) = Read::read(&mut reader, &mut [0; 100_000]) {});
    }
    comes_back(move || {
        let channel = client.open_session().unwrap();
        channel.exec("program").unwrap();
        let mut all = 0;
        for n in 0..ROUND_TRIPS {
            let (sent, mut back) = ([u8::try_from(n).unwrap(); 10], [0; 10]);
            let passed = Passed::by(&line);
            Write::write_all(&mut &channel, &sent).unwrap();
            Read::read_exact(&mut &channel, &mut back).unwrap();
            assert_eq!(back, sent);
            all += passed.most();
        }
        // A thread may have to wait for its turn, with nothing that we could do: it is fair on the whole.
        let each = all / ROUND_TRIPS;
        assert!(each <= 2 * MOST_BETWEEN, "{each} for each");
        client.close();
    });
    survived(STD, "round trips beside greedy channels", ROUND_TRIPS);
}
