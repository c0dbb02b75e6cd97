//! Writers whose own side ends the stream under them.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ssh_io_std::Channel;

use crate::support::{comes_back, logged_in};

#[test]
fn a_write_that_waits_for_the_window_fails_when_another_thread_ends_the_stream() {
    for what in ["the end of the input", "a close"] {
        let end = |session: &Channel| match what {
            "a close" => session.close(),
            _ => session.finish_input().unwrap(),
        };
        let (client, _closed) = logged_in();
        let session = client.open_session().unwrap();
        session.exec("hold").unwrap();
        // Nobody reads: the window is used up, and stays so. A write may also wait for what others have to take.
        session.set_write_timeout(Some(Duration::from_millis(100)));
        loop {
            let taken = client.memory_usage().output == 0;
            match (&session).write(&[0; 1 << 20]) {
                Ok(_) => {}
                Err(error) if error.kind() != ErrorKind::TimedOut => panic!("{error}"),
                Err(_) if taken => break,
                Err(_) => {}
            }
        }
        session.set_write_timeout(None);
        let (session, (sender, begun)) = (Arc::new(session), channel());
        let (writer, (done, result)) = (Arc::clone(&session), channel());
        thread::spawn(move || {
            sender.send(()).unwrap();
            done.send((&*writer).write(b"more")).unwrap();
        });
        begun.recv().unwrap();
        // While these go there and back it comes to wait, as a rule.
        (0..3).for_each(|_| drop(client.open_session().unwrap()));
        end(&session);
        let result = comes_back(what, move || result.recv().unwrap());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe, "{what}");
    }
}
