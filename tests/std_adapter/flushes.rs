//! A flush of a channel waits for the transport under it, and so do last words that leave over a channel.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use ssh_io_std::{Channel, Client, Error, Handler, HostKeys, Question, ServerConnection, Split, Transport};
use ssh_proto::{AuthRequest, AuthVerdict, ChannelConfig, OpenRequest};
use ssh_tests::{null_client, null_server};

use crate::pipe::{Hold, Side, pair};
use crate::support::{PATIENCE, comes_back, configs, logged_in_as, logged_in_over};

/// A session over a transport that takes nothing any more, with a write behind it; what keeps both sides alive.
fn held_back() -> (Side, Side, Channel, impl Sized) {
    let (ours, theirs, session, _, kept) = both_held_back();
    (ours, theirs, session, kept)
}

/// The same with another session.
fn both_held_back() -> (Side, Side, Channel, Channel, impl Sized) {
    let (ours, theirs) = pair();
    let (client, server, _) = logged_in_over(configs(|_| {}), ours.split(), theirs.split());
    let [session, other] = [(); 2].map(|()| client.open_session().unwrap());
    session.exec("wait").unwrap();
    other.exec("wait").unwrap();
    ours.outgoing.hold(Hold::Refuse);
    session.set_write_timeout(Some(Duration::from_millis(20)));
    (&session).write_all(b"what is to leave").unwrap();
    (ours, theirs, session, other, (client, server))
}

#[test]
fn a_flush_that_is_tried_again_waits_for_no_more_than_the_first_one_did() {
    let (ours, _theirs, session, other, _kept) = both_held_back();
    assert_eq!((&session).flush().unwrap_err().kind(), ErrorKind::TimedOut);
    // At a byte each 5 ms, this would take longer than a test has.
    other.set_write_timeout(Some(Duration::from_millis(20)));
    (&other).write_all(&[7; 50_000]).unwrap();
    ours.outgoing.hold(Hold::Trickle);
    comes_back("the flush", move || {
        while let Err(error) = (&session).flush() {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
    });
    ours.outgoing.release();
}

#[test]
fn a_flush_waits_until_the_transport_took_what_was_written_and_for_no_longer_than_it_may() {
    for timeout in [Some(PATIENCE), None] {
        let (ours, _theirs, session, _kept) = held_back();
        assert_eq!((&session).flush().unwrap_err().kind(), ErrorKind::TimedOut);
        session.set_write_timeout(timeout);
        let flushing = session.clone();
        let flushed = thread::spawn(move || (&flushing).flush());
        ours.outgoing.release();
        comes_back("the flush", move || flushed.join().unwrap()).unwrap();
        // Nothing is left to wait for.
        ours.outgoing.hold(Hold::Refuse);
        comes_back("another flush", move || (&session).flush()).unwrap();
    }
}

#[test]
fn a_flush_ends_with_its_connection_and_with_the_transport_its_channel_is() {
    let (_ours, theirs, session, _kept) = held_back();
    session.set_write_timeout(None);
    let flushing = session.clone();
    let flushed = thread::spawn(move || (&flushing).flush());
    (theirs.split().unblock)(Shutdown::Both);
    assert!(comes_back("the flush", move || flushed.join().unwrap()).is_err());
    // Not that what was thrown away had left.
    assert!((&session).flush().is_err());

    let (_ours, _theirs, session, _kept) = held_back();
    let Split { mut writer, unblock, .. } = Transport::split(session).unwrap();
    let flushed = thread::spawn(move || writer.flush().unwrap_err().kind());
    unblock(Shutdown::Both);
    assert_eq!(comes_back("the flush", move || flushed.join().unwrap()), ErrorKind::BrokenPipe);
}

/// Hands on what it is given, and comes back later while it is told to.
struct Late<W>(W, Arc<(Mutex<Pace>, Condvar)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Normal,
    /// The next write is late,
    Late,
    /// and is so now.
    Away,
}

impl<W: Write> Write for Late<W> {
    fn write(&mut self, src: &[u8]) -> io::Result<usize> {
        let n = self.0.write(src)?;
        let (pace, changed) = &*self.1;
        let mut pace = pace.lock().unwrap();
        if *pace == Pace::Late {
            *pace = Pace::Away;
            changed.notify_all();
            drop(changed.wait_while(pace, |pace| *pace == Pace::Away).unwrap());
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A session whose words the peer has, and whose write is not back yet, and may not come back at all. The server never
/// ends its transport by itself.
struct Lagging {
    session: Channel,
    late: Arc<(Mutex<Pace>, Condvar)>,
    server: ServerConnection,
    theirs: UnixStream,
    _client: Client,
}

impl Lagging {
    fn new(linger: Duration) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let Split { reader, writer, unblock } = ours.split().unwrap();
        let late = Arc::new((Mutex::new(Pace::Normal), Condvar::new()));
        let ours = Split { reader, writer: Late(writer, Arc::clone(&late)), unblock };
        let kept = Split { unblock: Box::new(|_| {}), ..theirs.try_clone().unwrap().split().unwrap() };
        let (client, server, _) = logged_in_over(configs(|limits| limits.linger = linger), ours, kept);
        let session = client.open_session().unwrap();
        session.exec("wait").unwrap();
        session.set_write_timeout(Some(Duration::from_millis(20)));
        let (pace, changed) = &*late;
        *pace.lock().unwrap() = Pace::Late;
        (&session).write_all(b"the last that was missing").unwrap();
        let waited = changed.wait_timeout_while(pace.lock().unwrap(), PATIENCE, |pace| *pace != Pace::Away);
        assert!(!waited.unwrap().1.timed_out(), "nobody writes");
        assert_eq!((&session).flush().unwrap_err().kind(), ErrorKind::TimedOut);
        Self { session, late, server, theirs, _client: client }
    }

    fn write_comes_back(&self) {
        *self.late.0.lock().unwrap() = Pace::Normal;
        self.late.1.notify_all();
    }
}

#[test]
fn a_flush_of_what_the_peer_said_goodbye_upon_waits_for_the_thread_that_wrote_it() {
    for says_why in [true, false] {
        let lagging = Lagging::new(PATIENCE);
        match says_why {
            true => lagging.server.close(),
            false => lagging.theirs.shutdown(Shutdown::Write).unwrap(),
        }
        let session = lagging.session.clone();
        let mut reads = session.clone();
        let end = comes_back("the goodbye", move || reads.read(&mut [0])).unwrap_err();
        assert_eq!(end.to_string().contains("disconnected"), says_why, "{end}");
        assert_eq!((&session).flush().unwrap_err().kind(), ErrorKind::TimedOut, "it may have left");
        lagging.write_comes_back();
        session.set_write_timeout(Some(PATIENCE));
        comes_back("the flush", move || (&session).flush()).unwrap();
    }
}

#[test]
fn a_flush_ends_with_the_linger_behind_a_goodbye_though_a_write_does_not_come_back() {
    let lagging = Lagging::new(Duration::from_millis(50));
    let session = lagging.session.clone();
    session.set_write_timeout(None);
    let flushed = thread::spawn(move || (&session).flush());
    lagging.server.close();
    assert!(comes_back("the flush", move || flushed.join().unwrap()).is_err());
    lagging.write_comes_back();
}

#[test]
fn a_flush_ends_with_the_linger_behind_a_goodbye_though_the_transport_takes_nothing() {
    let (ours, theirs) = pair();
    let short = configs(|limits| limits.linger = Duration::from_millis(50));
    let (client, server, _) = logged_in_over(short, ours.split(), theirs.split());
    let session = client.open_session().unwrap();
    session.exec("wait").unwrap();
    ours.outgoing.hold(Hold::Refuse);
    session.set_write_timeout(Some(Duration::from_millis(20)));
    (&session).write_all(b"what is to leave").unwrap();
    assert_eq!((&session).flush().unwrap_err().kind(), ErrorKind::TimedOut);
    session.set_write_timeout(None);
    let flushed = thread::spawn(move || (&session).flush());
    server.close();
    assert!(comes_back("the flush", move || flushed.join().unwrap()).is_err());
}

/// Takes so many writes, and counts what of them was not flushed yet, and those it refused.
struct Sparing<W>(W, Arc<[AtomicUsize; 3]>);

impl<W: Write> Write for Sparing<W> {
    fn write(&mut self, src: &[u8]) -> io::Result<usize> {
        let [permits, unflushed, refused] = &*self.1;
        if permits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            refused.fetch_add(1, Ordering::SeqCst);
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = self.0.write(src)?;
        unflushed.fetch_add(n, Ordering::SeqCst);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1[1].store(0, Ordering::SeqCst);
        self.0.flush()
    }
}

#[test]
fn a_flush_does_not_wait_for_what_others_wrote_behind() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let Split { reader, writer, unblock } = ours.split().unwrap();
    let counts = Arc::new([usize::MAX, 0, 0].map(AtomicUsize::new));
    let split = Split { reader, writer: Sparing(writer, Arc::clone(&counts)), unblock };
    let (client, _server, _) = logged_in_over(configs(|_| {}), split, theirs);
    let [session, other] = [(); 2].map(|()| client.open_session().unwrap());
    let [permits, unflushed, refused] = &*counts;
    permits.store(0, Ordering::SeqCst);
    for session in [&session, &other] {
        session.set_write_timeout(Some(Duration::from_millis(20)));
    }
    // Once the writer thread has this in hand, all that follows goes in one output.
    (&session).write_all(b"first").unwrap();
    while refused.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    (&session).write_all(b"words").unwrap();
    assert_eq!((&session).flush().unwrap_err().kind(), ErrorKind::TimedOut);
    (&other).write_all(&[7; 200_000]).unwrap();
    session.set_write_timeout(Some(PATIENCE));
    permits.store(2, Ordering::SeqCst);
    let flushed = comes_back("the flush", move || (&session).flush());
    flushed.unwrap();
    assert_eq!(unflushed.load(Ordering::SeqCst), 0, "it was handed on");
    assert!(permits.load(Ordering::SeqCst) == 0 && client.memory_usage().output > 100_000);
    permits.store(usize::MAX, Ordering::SeqCst);
}

/// Refuses to take anything so often, and counts what it took then.
struct Reluctant<W>(W, Arc<[AtomicUsize; 2]>);

impl<W: Write> Write for Reluctant<W> {
    fn write(&mut self, src: &[u8]) -> io::Result<usize> {
        let [refusals, took] = &*self.1;
        if refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = self.0.write(src)?;
        took.fetch_add(n, Ordering::SeqCst);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Lets everybody in; what is opened leads to another server, and so on to the last, which lets nobody in.
struct Leads {
    further: usize,
    servers: Arc<Mutex<Vec<ServerConnection>>>,
}

impl Handler for Leads {
    fn auth(&mut self, request: Question<AuthRequest>) {
        if self.further > 0 {
            request.reply(AuthVerdict::Accept).unwrap();
        }
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        let channel = request.accept(ChannelConfig::default()).unwrap();
        let next = Self { further: self.further - 1, servers: Arc::clone(&self.servers) };
        let server = ServerConnection::start(null_server().build().unwrap(), channel, next).unwrap();
        self.servers.lock().unwrap().push(server);
    }
}

#[test]
fn who_rejects_a_key_over_jump_hosts_is_told_behind_our_last_words() {
    for hops in 1..=3 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let servers = Arc::default();
        let first = Leads { further: hops, servers: Arc::clone(&servers) };
        let first = ServerConnection::start(null_server().build().unwrap(), theirs, first).unwrap();
        let Split { reader, writer, unblock } = ours.split().unwrap();
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let split = Split { reader, writer: Reluctant(writer, Arc::clone(&counts)), unblock };
        let config = null_client().build().unwrap();
        let mut jumps = vec![logged_in_as(Arc::clone(&config), split)];
        for _ in 1..hops {
            let channel = jumps[jumps.len() - 1].open_direct_tcpip("further", 22).unwrap();
            jumps.push(logged_in_as(Arc::clone(&config), channel));
        }
        let channel = jumps[hops - 1].open_direct_tcpip("last", 22).unwrap();
        let (judging, took_before) = (Arc::clone(&counts), Arc::new(AtomicUsize::new(0)));
        let before = Arc::clone(&took_before);
        let rejects = HostKeys::ask(move |_| {
            let [refusals, took] = &*judging;
            refusals.store(50, Ordering::SeqCst);
            before.store(took.load(Ordering::SeqCst), Ordering::SeqCst);
            false
        });
        let connecting = move || {
            Client::with_config(config).host_keys(rejects).connect_over("last", 22, channel).map(drop)
        };
        let (result, took) = comes_back("the rejection", {
            let counts = Arc::clone(&counts);
            move || (connecting(), counts[1].load(Ordering::SeqCst))
        });
        assert!(matches!(result, Err(Error::HostKeyRefused)), "{result:?}");
        assert!(took > took_before.load(Ordering::SeqCst), "{hops} hops: nothing has left");
        drop((first, jumps));
    }
}
