//! What a reader sees whose own side closed.

use ssh_proto::{Channel, Disconnect, ReadError, Side, Stream, WriteError};
use ssh_tests::{Pair, Policy, Scene, either, hand};

use super::{client, server};

const STREAMS: [Stream; 2] = [Stream::Data, Stream::Stderr];

/// What happens, in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Here.
    Close,
    Abort,
    Leave,
    /// By the peer.
    PeersData,
    PeersEof,
    PeersClose,
    Loss,
}
use Step::*;

fn go(scene: &mut Scene, id: ssh_proto::ChannelId, step: Step) {
    match step {
        Close => either!(&mut scene.subject, conn => conn.channel(id).unwrap().close()),
        Abort => _ = either!(&mut scene.subject, conn => conn.channel(id).unwrap().abort()),
        Leave => either!(&mut scene.subject, conn => conn.close(Disconnect::by_application())),
        PeersData => scene.say(&hand::data(0, b"late")),
        PeersEof => scene.say(&hand::eof(0)),
        PeersClose => scene.say(&hand::close(0)),
        Loss => {
            let now = scene.now;
            either!(&mut scene.subject, conn => conn.handle_eof(now));
        }
    }
    scene.settle();
}

#[test]
fn what_was_received_is_read_to_an_end_that_is_true_in_every_order_of_the_closes() {
    let (eof, reset, lost, open) = (ReadError::Eof, ReadError::Reset, ReadError::Lost, ReadError::Blocked);
    let cases: [(&[Step], ReadError); 19] = [
        (&[Close], open),
        (&[Close, PeersClose], eof),
        (&[Close, PeersEof], eof),
        (&[Close, PeersEof, PeersClose], eof),
        (&[Close, PeersData, PeersEof, PeersClose], eof),
        (&[Close, PeersEof, Loss], eof),
        (&[Close, PeersClose, Loss], eof),
        (&[Close, PeersClose, Leave], eof),
        (&[Close, Loss], lost),
        (&[Close, Leave], lost),
        (&[PeersEof, Close, PeersClose], eof),
        (&[PeersEof, Close, Loss], eof),
        (&[PeersEof, Leave], eof),
        (&[Leave], lost),
        (&[Leave, PeersEof, PeersClose, Loss], lost),
        (&[PeersClose, Close], reset),
        (&[PeersClose, Leave], reset),
        (&[Abort, PeersClose], reset),
        (&[Close, Abort, PeersClose], reset),
    ];
    for side in [Side::Client, Side::Server] {
        for (steps, end) in cases {
            let mut scene = Scene::of(side).authenticated();
            let id = scene.open_session(1 << 20);
            for stream in STREAMS {
                let message = match stream {
                    Stream::Data => hand::data(0, b"received"),
                    Stream::Stderr => hand::extended(0, 1, b"received"),
                };
                // A server is told nothing on stderr.
                if side == Side::Client || stream == Stream::Data {
                    scene.say(&message);
                }
            }
            steps.iter().for_each(|step| go(&mut scene, id, *step));
            let got = if steps.contains(&Abort) { &b""[..] } else { b"received" };
            assert_eq!(scene.read_all(id, Stream::Data), (got.to_vec(), end), "{side:?} {steps:?}");
            let got = if side == Side::Client { got } else { b"" };
            assert_eq!(scene.read_all(id, Stream::Stderr), (got.to_vec(), end), "{side:?} {steps:?}");
        }
    }
}

#[test]
fn a_reader_that_waits_behind_its_own_close_is_told_of_the_end() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    server(&mut pair, theirs).write(Stream::Data, b"all there is").unwrap();
    pair.drive();
    // The server keeps what it was going to say; its side closes because ours did.
    client(&mut pair, ours).close();
    pair.drive();
    assert!(pair.client.saw("0 } Closed"));
    for stream in STREAMS {
        let told = pair.client.received.get(&(ours, stream)).expect("a Readable at the end");
        assert_eq!(told.end, Some(ReadError::Eof), "{stream:?}");
    }
    assert_eq!(pair.client.bytes(ours, Stream::Data), b"all there is");
    assert_eq!(pair.server.received[&(theirs, Stream::Data)].end, Some(ReadError::Eof));
}

#[test]
fn an_eof_that_crosses_our_close_is_told_to_who_waits_for_the_end() {
    let mut pair = Pair::logged_in();
    let (ours, theirs) = pair.open_session();
    pair.client.policy = Policy { read: false, ..Policy::default() };
    pair.c2s.stalled = true;
    assert_eq!(client(&mut pair, ours).read(Stream::Data, 1), Err(ReadError::Blocked));
    client(&mut pair, ours).close();
    server(&mut pair, theirs).eof().unwrap();
    pair.drive();
    // The CLOSE behind it may never come.
    let told = ["Readable(Data)", "Readable(Stderr)", "0 } Eof", "0 } Closed"];
    assert_eq!(told.map(|words| pair.client.count(words)), [1, 1, 0, 0]);
    for stream in STREAMS {
        assert_eq!(client(&mut pair, ours).read(stream, 1), Err(ReadError::Eof));
    }
    pair.c2s.stalled = false;
    pair.drive();
    assert_eq!(told.map(|words| pair.client.count(words)), [1, 1, 0, 1]);
}

#[test]
fn an_abort_cuts_what_was_not_read_and_takes_back_no_end_that_was_told() {
    for before in [&[PeersEof][..], &[PeersEof, PeersClose], &[Close, PeersEof], &[Close, PeersClose]] {
        for after in [&[][..], &[PeersClose], &[Loss]] {
            let mut scene = Scene::client().authenticated();
            let id = scene.open_session(1 << 20);
            scene.say(&hand::data(0, b"received"));
            before.iter().for_each(|step| go(&mut scene, id, *step));
            let told = (Vec::new(), ReadError::Eof);
            assert_eq!(scene.read_all(id, Stream::Stderr), told, "{before:?}");
            assert_eq!(scene.as_client().channel(id).unwrap().read_into(Stream::Data, &mut [0; 3]), Ok(3));
            assert_eq!(scene.as_client().channel(id).unwrap().abort(), 5, "{before:?}");
            after.iter().for_each(|step| go(&mut scene, id, *step));
            let cut = (Vec::new(), ReadError::Reset);
            assert_eq!(scene.read_all(id, Stream::Data), cut, "{before:?} {after:?}");
            assert_eq!(scene.read_all(id, Stream::Stderr), told, "{before:?} {after:?}");
        }
    }
}

#[test]
fn a_writer_that_waits_is_told_when_its_own_side_ends_the_stream() {
    let ends: [fn(&mut Channel<'_>); 3] =
        [|channel| channel.eof().unwrap(), |channel| channel.close(), |channel| _ = channel.abort()];
    for end in ends {
        for stream in STREAMS {
            let mut scene = Scene::client().authenticated();
            let id = scene.open_session(1);
            let told = |scene: &mut Scene| {
                let events = scene.take_events();
                events.iter().filter(|event| format!("{event:?}").contains("Writable")).count()
            };
            let mut channel = scene.as_client().channel(id).unwrap();
            assert_eq!(channel.write(stream, b"ab"), Ok(1));
            end(&mut channel);
            assert_eq!(told(&mut scene), 1, "{stream:?}");
            let again = scene.as_client().channel(id).unwrap().write(stream, b"b");
            assert_eq!(again, Err(WriteError::Closed));
            scene.say(&hand::adjust(0, 100));
            assert_eq!(told(&mut scene), 0, "once is enough");
        }
    }
}

#[test]
fn nobody_is_told_of_an_end_who_does_not_wait() {
    for written in [&b"ab"[..], b"a", b""] {
        let mut scene = Scene::client().authenticated();
        let id = scene.open_session(2);
        let taken = scene.as_client().channel(id).unwrap().write(Stream::Data, written);
        assert_eq!(taken, Ok(written.len()));
        scene.as_client().channel(id).unwrap().close();
        assert!(scene.take_events().is_empty(), "{written:?}");
    }
}

#[test]
fn a_writer_is_told_of_nothing_behind_the_end_of_its_channel() {
    let mut scene = Scene::client().authenticated();
    let id = scene.open_session(1);
    assert_eq!(scene.as_client().channel(id).unwrap().write(Stream::Data, b"ab"), Ok(1));
    scene.say(&hand::close(0));
    let told = scene.take_events();
    assert!(format!("{:?}", told.last()).contains("Closed"), "{told:?}");
    scene.as_client().channel(id).unwrap().abort();
    assert!(scene.take_events().is_empty());
}
