//! Peers that take their time, and such that are gone without a word.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use ssh_io_std as blocking;
use ssh_io_tokio::ServerConnection;
use ssh_proto::{CloseReason, Credential, Limits, TimeoutReason};
use ssh_tests::{End, Seeded, null_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::crowd::{comes_back, config, logged_in};
use crate::line::{FaultyStream, Line};
use crate::over_std::{self, Serves};
use crate::over_tokio::{self, runtime, serve};
use crate::session::{configs, own};
use crate::tally::{PATIENCE, STD, TOKIO, survived, turn};

/// How far a client comes before it is slow, and what it says then: this, and the same byte over and over.
#[derive(Clone, Copy)]
struct Loris {
    at_once: &'static [u8],
    /// It goes on where its keys are new, with this much of a request.
    logs_in: bool,
    slowly: Option<&'static [u8]>,
    ended_by: TimeoutReason,
}

const LORISES: [Loris; 5] = {
    let silent = Loris { at_once: b"", logs_in: false, slowly: None, ended_by: TimeoutReason::Ident };
    let greeted = Loris { at_once: b"SSH-2.0-loris\r\n", ended_by: TimeoutReason::Kex, ..silent };
    // The packet has many bytes, of which none is wrong.
    [
        silent,
        Loris { slowly: Some(b"SSH-2.0-a"), ..silent },
        Loris { slowly: Some(b"\0\0\x0f\xfc\x08\x14"), ..greeted },
        Loris { at_once: b"SSH-2.0-loris\r\n\0\0\x0f\xfc\x08\x14", slowly: Some(b""), ..greeted },
        Loris { logs_in: true, slowly: Some(b""), ended_by: TimeoutReason::Login, ..silent },
    ]
};

impl Loris {
    /// When it is ended.
    fn limit(&self, limits: &Limits) -> Duration {
        match self.ended_by {
            TimeoutReason::Ident => limits.ident_timeout,
            TimeoutReason::Kex => limits.kex_timeout,
            _ => limits.login_timeout,
        }
    }

    /// Comes so far, and gives the bytes that follow one at a time.
    async fn begin(&self, stream: &mut FaultyStream) -> Vec<u8> {
        AsyncWriteExt::write_all(stream, self.at_once).await.unwrap();
        match self.logs_in {
            true => first_request(stream).await,
            false => self.slowly.unwrap_or_default().to_vec(),
        }
    }
}

/// A client's first request under its new keys, which nobody has sent.
async fn first_request(stream: &mut FaultyStream) -> Vec<u8> {
    let now = ssh_proto::Instant::ORIGIN;
    let mut end = End::<ssh_proto::Client>::new(configs().0, Seeded::new(7));
    let mut asked = false;
    loop {
        end.turn(now);
        let output = end.conn.output().to_vec();
        if asked && !output.is_empty() {
            return output;
        }
        AsyncWriteExt::write_all(stream, &output).await.unwrap();
        end.conn.consume_output(output.len());
        if !asked && end.conn.session_id().is_some() {
            end.conn.authenticate("me", Credential::None).unwrap();
            asked = true;
        } else {
            assert!(AsyncReadExt::read_buf(stream, &mut end.input).await.unwrap() > 0, "{:?}", end.trace);
        }
    }
}

#[test]
fn ad_01_slow_lorises_of_the_asynchronous_server() {
    let _turn = turn();
    const EACH: usize = 200;
    let limits = Limits::default();
    runtime().block_on(async {
        let began = tokio::time::Instant::now();
        let mut waiting = Vec::new();
        for loris in LORISES.into_iter().flat_map(|loris| [loris; EACH]) {
            let (_line, mut ours, theirs) = Line::pair(Default::default());
            let (server, driver) = ServerConnection::start(configs().1, theirs);
            tokio::spawn(serve(server));
            let driver = tokio::spawn(driver.run());
            let trickle = tokio::spawn(async move {
                let bytes = loris.begin(&mut ours).await;
                let mut bytes = bytes.into_iter().chain(std::iter::repeat(b'a'));
                loop {
                    tokio::time::sleep(Duration::from_secs(9)).await;
                    if loris.slowly.is_some()
                        && AsyncWriteExt::write_all(&mut ours, &[bytes.next().unwrap()]).await.is_err()
                    {
                        return;
                    }
                }
            });
            waiting.push(tokio::spawn(async move {
                let reason = driver.await.unwrap();
                trickle.abort();
                (reason, began.elapsed(), loris)
            }));
        }
        // Who comes meanwhile does not even wait.
        let (_line, client, _server) = logged_in(configs().0).await;
        over_tokio::talk(client.open_session().await.unwrap()).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        let mut ended = 0;
        for waiting in waiting {
            let (reason, took, loris) = waiting.await.unwrap();
            assert_eq!(reason, CloseReason::TimedOut(loris.ended_by));
            // The deadline, the linger of the last words and the drain behind them.
            let limit = loris.limit(&limits);
            assert!(took >= limit && took <= limit + Duration::from_secs(5), "{took:?} of {limit:?}");
            ended += 1;
        }
        assert_eq!(ended, LORISES.len() * EACH);
        survived(TOKIO, "nothing, or a byte every nine seconds, at each step before the login", ended);
    });
}

/// Threads have no other time than that of the world, so that the limits are short here, and the bytes follow
/// faster.
#[test]
fn ad_01_slow_lorises_of_the_blocking_server() {
    let _turn = turn();
    const EACH: usize = 20;
    const PAUSE: Duration = Duration::from_millis(100);
    let change = |limits: &mut Limits| {
        limits.ident_timeout = Duration::from_secs(1);
        (limits.kex_timeout, limits.login_timeout) = (Duration::from_millis(1500), Duration::from_secs(2));
    };
    let mut limits = Limits::default();
    change(&mut limits);
    let config = null_server().with_limits(change).build().unwrap();
    let start = |theirs| {
        let (sender, closed) = channel();
        let handler = Serves { channels: Vec::new(), closed: sender };
        (blocking::ServerConnection::start(Arc::clone(&config), theirs, handler).unwrap(), closed)
    };
    let (runtime, mut all) = (runtime(), Vec::new());
    for loris in LORISES.into_iter().flat_map(|loris| [loris; EACH]) {
        let (_line, mut ours, theirs) = Line::pair(Default::default());
        let began = Instant::now();
        let (server, closed) = start(theirs);
        let bytes = runtime.block_on(loris.begin(&mut ours));
        let bytes = bytes.into_iter().chain(std::iter::repeat(b'a'));
        all.push((loris, ours, bytes, began, server, closed));
    }
    let good = {
        let (_line, ours, theirs) = Line::pair(Default::default());
        let (server, _) = start(theirs);
        thread::spawn(move || {
            let client = blocking::Client::with_config(configs().0)
                .host_keys(blocking::HostKeys::DangerousAcceptAny)
                .connect_over("test", 22, ours)
                .unwrap();
            client.auth_password("me", "x").unwrap();
            over_std::talk(&client.open_session().unwrap()).unwrap();
            client.close();
            server.join(PATIENCE);
        })
    };
    let (mut over, patience) = (Vec::new(), Instant::now() + PATIENCE);
    while !all.is_empty() {
        assert!(Instant::now() < patience, "{} were not ended", all.len());
        let mut wait = PAUSE;
        all.retain_mut(|(loris, ours, bytes, began, server, closed)| {
            if loris.slowly.is_some() {
                // It may be over by now.
                let _ = std::io::Write::write_all(ours, &[bytes.next().unwrap()]);
            }
            // One pause for all of them.
            let Ok(reason) = closed.recv_timeout(std::mem::take(&mut wait)) else { return true };
            assert_eq!(reason, CloseReason::TimedOut(loris.ended_by));
            assert!(began.elapsed() >= loris.limit(&limits));
            // It takes a while to end, in which the others go on.
            over.push(server.clone());
            false
        });
    }
    good.join().unwrap();
    assert_eq!(over.len(), LORISES.len() * EACH);
    for server in &over {
        server.join(PATIENCE);
        assert!(server.is_finished());
    }
    survived(STD, "nothing, or a byte at a time, at each step before the login", over.len());
}

/// What a reader is told when its peer is gone without a word.
fn gone(error: &ssh_io_tokio::Error) -> bool {
    let silence = CloseReason::TimedOut(TimeoutReason::Keepalive);
    matches!(error, ssh_io_tokio::Error::Closed(reason) if *reason == silence)
}

#[test]
fn ad_03_a_peer_that_is_gone_without_a_word() {
    let _turn = turn();
    runtime().block_on(async {
        let every = Duration::from_secs(10);
        let (line, client, _server) =
            logged_in(config(|limits| limits.keepalive_interval = Some(every))).await;
        let mut channel = client.open_session().await.unwrap();
        channel.exec("program").await.unwrap();
        let began = tokio::time::Instant::now();
        line.set_deaf(1, true);
        let error = own(channel.read(&mut [0; 1]).await.unwrap_err());
        assert!(gone(&error), "{error:?}");
        // One interval until it is asked, three more without an answer, and the linger of the last words.
        let took = began.elapsed();
        assert!(took >= 4 * every && took <= 4 * every + Duration::from_secs(5), "{took:?}");
        line.set_deaf(1, false);
    });
    survived(TOKIO, "a peer that is gone without a word", 1);
    let every = Duration::from_millis(50);
    let (line, client, _server) =
        crate::crowd::blocking(config(|limits| limits.keepalive_interval = Some(every)));
    let channel = client.open_session().unwrap();
    channel.exec("program").unwrap();
    line.set_deaf(1, true);
    let error = comes_back(move || own(std::io::Read::read(&mut &channel, &mut [0; 1]).unwrap_err()));
    assert!(gone(&error), "{error:?}");
    line.set_deaf(1, false);
    survived(STD, "a peer that is gone without a word", 1);
}
