//! What the server has heard of a client when its caller hears that connecting came to nothing.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use ssh_io_tokio::{Asked, Client, ClientBuilder, Error, HostKeys, ServerConnection};
use ssh_proto::raw::number;
use ssh_proto::{AuthVerdict, ChannelConfig, CloseReason, Side};
use ssh_tests::puppet::Heard;
use ssh_tests::{Puppet, null_client, null_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream};
use tokio::join;
use tokio::runtime::Builder;
use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::gate::{Gated, Manner, Switch, Writes};
use crate::rig::{PATIENCE, within};

/// A server that says something behind the client's share, or behind its KEXINIT, and gives what it heard last.
fn peer(mut stream: UnixStream, of_no_length: bool) -> JoinHandle<Heard> {
    thread::spawn(move || {
        let mut puppet = Puppet::null(Side::Server);
        stream.write_all(b"SSH-2.0-puppet\r\n").unwrap();
        puppet.our_init = puppet.offer().payload();
        let payload = puppet.our_init.clone();
        let kexinit = puppet.seal(&payload);
        if !of_no_length {
            stream.write_all(&kexinit).unwrap();
        }
        let (mut last, mut chunk, mut said) = (None, [0; 4096], false);
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            for heard in puppet.hear(&chunk[..n]) {
                let turn = if of_no_length { number::KEXINIT } else { number::KEX_ECDH_INIT };
                if heard.number() == turn && !said {
                    said = true;
                    let reply = match of_no_length {
                        true => vec![0xff; 16],
                        false => {
                            let reply = puppet.reply();
                            puppet.seal(&reply)
                        }
                    };
                    stream.write_all(&reply).unwrap();
                }
                last = Some(heard);
            }
        }
        last.unwrap()
    })
}

/// Remembers what is written, each time one poll late, and fails one of its flushes.
#[derive(Default)]
struct Noting {
    late: bool,
    written: Arc<Mutex<Vec<u8>>>,
    failing: Option<usize>,
}

impl Manner for Noting {
    fn write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        self.late = !self.late;
        if self.late {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(src.len()))
    }

    fn flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match &mut self.failing {
            Some(0) => return Poll::Ready(Err(io::ErrorKind::StorageFull.into())),
            Some(left) => *left -= 1,
            None => {}
        }
        Poll::Ready(Ok(true))
    }

    fn shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn took(&mut self, bytes: &[u8]) {
        self.written.lock().unwrap().extend_from_slice(bytes);
    }
}

fn builder() -> ClientBuilder {
    let builder = Client::with_config(null_client().build().unwrap());
    builder.host_keys(HostKeys::Fingerprint("SHA256:none".into()))
}

/// What comes of connecting over that to who says nothing that makes sense, and their end of it.
async fn failing_over<M: Manner + Send + 'static>(
    manner: M,
    linger: Duration,
) -> (DuplexStream, Result<Client, Error>) {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let config = null_client().with_limits(|limits| limits.linger = linger).build().unwrap();
    let connecting = within(builder().config(config).connect_over("test", 22, Gated(ours, manner)));
    let peer = async {
        theirs.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        theirs.read_u8().await.unwrap();
        theirs.write_all(&[0xff; 8]).await.unwrap();
        theirs
    };
    let (result, theirs) = join!(connecting, peer);
    (theirs, result)
}

/// The last packet among those bytes.
fn last(bytes: &[u8]) -> Heard {
    Puppet::null(Side::Server).hear(bytes).pop().unwrap()
}

#[test]
fn who_connects_in_vain_is_told_behind_our_last_words_and_may_end_the_runtime() {
    let runtimes = [Builder::new_current_thread, || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    }];
    for (round, (of_no_length, code)) in [(true, 2), (false, 9)].into_iter().cycle().take(80).enumerate() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = peer(theirs, of_no_length);
        let written = Arc::new(Mutex::new(Vec::new()));
        let runtime = runtimes[round / 2 % 2]().enable_all().build().unwrap();
        let (result, by_then) = runtime.block_on(async {
            ours.set_nonblocking(true).unwrap();
            let ours = tokio::net::UnixStream::from_std(ours).unwrap();
            let line = Gated(ours, Noting { written: Arc::clone(&written), ..Noting::default() });
            let buffers = round / 4 % 2 == 0;
            // On a task, as on that of who blocks it would be behind the driver more often than not.
            let connecting = tokio::spawn(async move {
                let result = match buffers {
                    true => builder().connect_over("test", 22, BufStream::new(line)).await,
                    false => builder().connect_over("test", 22, line).await,
                };
                let by_then = written.lock().unwrap().clone();
                (result, by_then)
            });
            connecting.await.unwrap()
        });
        drop(runtime);
        match result {
            Err(Error::Closed(CloseReason::PeerMisbehaved { .. })) if of_no_length => {}
            Err(Error::HostKey(_)) if !of_no_length => {}
            other => panic!("{other:?}"),
        }
        for last in [last(&by_then), peer.join().unwrap()] {
            assert_eq!(last.payload[..5], [number::DISCONNECT, 0, 0, 0, code], "{round}: {last:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_reason_is_told_in_time_whether_or_not_the_last_words_leave() {
    const LINGER: Duration = Duration::from_secs(10);
    for (limit, expected) in [(Some(Duration::from_secs(3)), Duration::from_secs(3)), (None, LINGER)] {
        // Too narrow for our KEXINIT, and nobody reads.
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff").await.unwrap();
        let config = null_client().with_limits(|limits| limits.linger = LINGER).build().unwrap();
        let builder = builder().config(config);
        let builder = match limit {
            Some(limit) => builder.connect_timeout(limit),
            None => builder,
        };
        let began = Instant::now();
        let result = within(builder.connect_over("test", 22, ours)).await;
        assert!(matches!(result, Err(Error::Closed(CloseReason::PeerMisbehaved { .. }))), "{result:?}");
        let took = began.elapsed();
        let slack = Duration::from_secs(2);
        assert!((expected..=expected + slack).contains(&took), "{limit:?}: {took:?}");
    }
}

/// Takes nothing until a time.
struct Shut(Pin<Box<Sleep>>);

impl Manner for Shut {
    fn write(&mut self, cx: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll(cx).map(|()| Ok(src.len()))
    }
}

#[tokio::test(start_paused = true)]
async fn last_words_linger_in_a_transport_that_buffers_as_well() {
    let second = Duration::from_secs(1);
    for (shut, heard) in [(8 * second, true), (20 * second, false)] {
        for buffers in [false, true] {
            let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
            theirs.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff").await.unwrap();
            let line = Gated(ours, Shut(Box::pin(sleep(shut))));
            let config = null_client().with_limits(|limits| limits.linger = 10 * second).build().unwrap();
            let builder = builder().config(config);
            let began = Instant::now();
            let result = within(async {
                match buffers {
                    true => builder.connect_over("test", 22, BufStream::new(line)).await,
                    false => builder.connect_over("test", 22, line).await,
                }
            });
            assert!(matches!(result.await, Err(Error::Closed(CloseReason::PeerMisbehaved { .. }))));
            let took = began.elapsed();
            let expected = if heard { shut..=shut + second } else { 10 * second..=13 * second };
            assert!(expected.contains(&took), "{shut:?}, buffers {buffers}: {took:?}");
            let mut said = Vec::new();
            within(theirs.read_to_end(&mut said)).await.unwrap();
            let mut puppet = Puppet::null(Side::Server);
            let last = if said.is_empty() { None } else { puppet.hear(&said).pop() };
            assert_eq!(
                last.is_some_and(|last| last.number() == number::DISCONNECT),
                heard,
                "buffers {buffers}"
            );
        }
    }
}

/// What a transport takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    All,
    /// All, and flushes none of it.
    AllAndKeeps,
    /// A little, once, which it keeps. More it waits with.
    Little,
    /// A little, once, which it keeps. More breaks it.
    LittleAndBreaks,
}

/// Never gets to the end of its shutdown.
struct Stuck {
    takes: Takes,
    took: bool,
}

impl Manner for Stuck {
    fn write(&mut self, _: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        match (self.takes, self.took) {
            (Takes::All | Takes::AllAndKeeps, _) => Poll::Ready(Ok(src.len())),
            (_, false) => Poll::Ready(Ok(src.len().min(10))),
            (Takes::Little, true) => Poll::Pending,
            (Takes::LittleAndBreaks, true) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.takes == Takes::All { Poll::Ready(Ok(true)) } else { Poll::Pending }
    }

    fn shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn took(&mut self, _: &[u8]) {
        self.took = true;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_lingers_for_words_that_left_or_cannot_leave() {
    for takes in [Takes::LittleAndBreaks, Takes::All] {
        let linger = 100 * PATIENCE;
        let (_theirs, result) = failing_over(Stuck { takes, took: false }, linger).await;
        assert!(matches!(result, Err(Error::Closed(_) | Error::Io(_))), "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn words_a_transport_holds_back_have_what_is_left_of_the_linger_and_a_while_at_least() {
    let second = Duration::from_secs(1);
    let while_at_least = 2 * second;
    for linger in [Duration::ZERO, second, 10 * second] {
        for (takes, expected) in [
            // Nothing more leaves, and from then on what was taken is waited for.
            (Takes::Little, linger + while_at_least),
            (Takes::AllAndKeeps, linger.max(while_at_least)),
        ] {
            let began = Instant::now();
            let (_theirs, result) = failing_over(Stuck { takes, took: false }, linger).await;
            assert!(matches!(result, Err(Error::Closed(CloseReason::PeerMisbehaved { .. }))), "{result:?}");
            let took = began.elapsed();
            assert!(
                (expected..expected + second / 10).contains(&took),
                "{linger:?}, not {expected:?}: {took:?}"
            );
        }
    }
}

/// Says each other time that it was interrupted, and flushes nothing before its end.
struct Odd {
    interrupts: bool,
    swallows: bool,
    turn: bool,
}

impl Odd {
    fn interrupt(&mut self) -> io::Result<()> {
        self.turn = !self.turn;
        if self.interrupts && self.turn { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl Manner for Odd {
    fn flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<bool>> {
        Poll::Ready(self.interrupt().map(|()| !self.swallows))
    }

    fn read(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.interrupt())
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_writes_all_it_has_before_it_reads_hears_our_last_words() {
    for case in 0..12 {
        let (interrupts, how) = (case % 2 == 1, case / 2 % 3);
        let odd = |swallows| Odd { interrupts, swallows, turn: case / 6 == 1 };
        // Either way no more than this is on its way.
        let (ours, mut theirs) = tokio::io::duplex(64);
        let written = Arc::new(Mutex::new(Vec::new()));
        let line = Gated(ours, Noting { written: Arc::clone(&written), ..Noting::default() });
        let peer = async {
            theirs.write_all(b"SSH-2.0-x\r\n").await.unwrap();
            theirs.write_all(&[0xff; 50_000]).await.unwrap();
            let mut said = Vec::new();
            theirs.read_to_end(&mut said).await.unwrap();
            said
        };
        let began = Instant::now();
        let connecting = async {
            let result = match how {
                0 => builder().connect_over("test", 22, Gated(line, odd(false))).await,
                buffers => {
                    let line = Gated(BufStream::new(line), odd(buffers == 2));
                    builder().connect_over("test", 22, line).await
                }
            };
            (result, written.lock().unwrap().clone())
        };
        let ((result, by_then), said) = within(async { join!(connecting, peer) }).await;
        assert!(matches!(result, Err(Error::Closed(CloseReason::PeerMisbehaved { .. }))), "{result:?}");
        assert_eq!(began.elapsed(), Duration::ZERO, "{case}");
        assert_eq!(last(&said).number(), number::DISCONNECT, "{case}");
        if how < 2 {
            assert_eq!(last(&by_then).number(), number::DISCONNECT, "{case}");
        }
    }
}

/// Lets everybody in; what is opened leads to another server.
fn lead(server: ServerConnection) {
    tokio::spawn(async move {
        while let Some(asked) = server.asked().await {
            match asked {
                Asked::Auth(request) => request.reply(AuthVerdict::Accept).unwrap(),
                Asked::Open(request) => {
                    let channel = request.accept(ChannelConfig::default()).unwrap();
                    let (next, driver) = ServerConnection::start(null_server().build().unwrap(), channel);
                    tokio::spawn(driver.run());
                    lead(next);
                }
                _ => {}
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn who_rejects_a_key_over_jump_hosts_is_told_behind_our_last_words() {
    let shut = Duration::from_millis(300);
    for hops in 1..=3 {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (server, driver) = ServerConnection::start(null_server().build().unwrap(), theirs);
        tokio::spawn(driver.run());
        lead(server);
        let switch = Switch::default();
        let any = || builder().host_keys(HostKeys::DangerousAcceptAny);
        let mut jumps = vec![any().connect_over("jump", 22, Gated(ours, switch.clone())).await.unwrap()];
        loop {
            let last = &jumps[jumps.len() - 1];
            last.auth_password("me", "x").await.unwrap();
            if jumps.len() == hops {
                break;
            }
            let channel = last.open_direct_tcpip("further", 22).await.unwrap();
            jumps.push(any().connect_over("further", 22, channel).await.unwrap());
        }
        let channel = jumps[hops - 1].open_direct_tcpip("last", 22).await.unwrap();
        let rejects = HostKeys::ask(async move |_| {
            switch.set(Writes::Stall);
            tokio::spawn(async move {
                sleep(shut).await;
                switch.set(Writes::Pass);
            });
            false
        });
        let began = Instant::now();
        let result = within(builder().host_keys(rejects).connect_over("last", 22, channel)).await;
        assert!(matches!(result, Err(Error::HostKeyRefused)), "{result:?}");
        assert_eq!(began.elapsed(), shut, "{hops} hops");
    }
}

#[tokio::test(start_paused = true)]
async fn who_rejects_the_key_of_a_connection_that_failed_meanwhile_is_told() {
    let mut rejected = 0;
    for failing in 0..4 {
        for _ in 0..20 {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let (_server, driver) = ServerConnection::start(null_server().build().unwrap(), theirs);
            tokio::spawn(driver.run());
            let line = Gated(ours, Noting { failing: Some(failing), ..Noting::default() });
            let began = Instant::now();
            // What happens to have come of it by then depends on whose turn it is.
            match within(builder().connect_over("test", 22, line)).await {
                Err(Error::HostKey(_)) => rejected += 1,
                Err(Error::Io(_) | Error::Closed(_)) => {}
                other => panic!("{other:?}"),
            }
            // What the peer says behind a failed write is read for so long.
            assert!(began.elapsed() <= Duration::from_secs(4), "{:?}", began.elapsed());
        }
    }
    assert!(rejected > 0);
}
