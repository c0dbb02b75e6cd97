//! Channels whose stderr is to go another way when the window is full of it already.

use std::io::Read;
use std::thread;

use ssh_io_std::Channel;
use ssh_proto::{ChannelConfig, ChannelKind, ExitStatus, StderrMode};

use crate::support::{WINDOW, comes_back, logged_in};

fn read_all(session: &Channel) -> Vec<u8> {
    let mut all = Vec::new();
    let mut session = session;
    session.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_late_switch_of_stderr_lets_the_other_side_go_on_also_under_a_reader_that_waits() {
    for (how, waits) in
        [StderrMode::Combined, StderrMode::Discard].into_iter().flat_map(|how| [(how, false), (how, true)])
    {
        let (client, _closed) = logged_in();
        let config = ChannelConfig::default().with_window(u32::try_from(WINDOW).unwrap());
        let session = client.open(&ChannelKind::Session, config).unwrap();
        session.exec("errors first").unwrap();
        let full = client.clone();
        comes_back("a full window", move || {
            while full.memory_usage().parked < WINDOW {
                thread::yield_now();
            }
        });
        let reader = session.clone();
        let reading = waits.then(|| thread::spawn(move || read_all(&reader)));
        // While these go there and back it comes to wait, as a rule.
        (0..3).for_each(|_| drop(client.open_session().unwrap()));
        session.set_stderr(how);
        let reader = session.clone();
        let all = comes_back("the reader", move || match reading {
            Some(reading) => reading.join().unwrap(),
            None => read_all(&reader),
        });
        let errors = all.iter().take_while(|byte| **byte == b'e').count();
        assert_eq!(errors, if how == StderrMode::Combined { WINDOW + 1 } else { 0 }, "{how:?} {waits}");
        assert_eq!(&all[errors..], b"done", "{how:?} {waits}");
        assert_eq!(session.wait().unwrap(), Some(ExitStatus::Code(5)));
    }
}

#[test]
fn a_switch_of_stderr_alone_lets_the_other_side_go_on() {
    let (client, _closed) = logged_in();
    let config = ChannelConfig::default().with_window(u32::try_from(WINDOW).unwrap());
    let session = client.open(&ChannelKind::Session, config).unwrap();
    session.exec("errors first").unwrap();
    let full = client.clone();
    comes_back("a full window", move || {
        while full.memory_usage().parked < WINDOW {
            thread::yield_now();
        }
    });
    session.set_stderr(StderrMode::Discard);
    // Nobody reads.
    let status = comes_back("the end", move || session.wait());
    assert_eq!(status.unwrap(), Some(ExitStatus::Code(5)));
}
