//! `ssh-proto` driven by hand: a client and a server on one thread, in one loop around epoll (kqueue and the
//! like elsewhere), without an adapter or a runtime.

mod embed;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use embed::{End, Failure, Outcome, now};
use polling::{Event, Events, Poller};
use ssh_proto::InputPool;

/// One end and its socket.
struct Driven<'a, E> {
    end: E,
    stream: TcpStream,
    input: InputPool,
    key: usize,
    poller: &'a Poller,
}

impl<E> Drop for Driven<'_, E> {
    fn drop(&mut self) {
        let _ = self.poller.delete(&self.stream);
    }
}

impl<'a, E: End> Driven<'a, E> {
    fn new(end: E, stream: TcpStream, key: usize, poller: &'a Poller) -> Result<Self, Failure> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        #[expect(unsafe_code, reason = "the poller must not be left with a source that is closed")]
        // SAFETY: `Drop` deletes the stream from the poller before the stream is closed; no one else owns it.
        unsafe {
            poller.add(&stream, Event::none(key))?;
        }
        Ok(Self { end, stream, input: InputPool::new(), key, poller })
    }

    /// Does all that can be done now: input, events, output, until nothing moves any more.
    fn turn(&mut self, readable: bool) -> Outcome {
        if readable {
            self.read()?;
        }
        loop {
            self.end.conn().handle_input(now(), self.input.buffer());
            let event = self.end.conn().poll_event();
            let moved = event.is_some();
            if let Some(event) = event {
                self.end.on(event)?;
            }
            if !self.write()? && !moved {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> Outcome {
        if !self.end.conn().wants_input() {
            return Ok(());
        }
        let room = self.input.reserve();
        let buffer = self.input.buffer();
        let filled = buffer.len();
        buffer.resize(filled + room, 0);
        let result = self.stream.read(&mut buffer[filled..]);
        buffer.truncate(filled + result.as_ref().copied().unwrap_or(0));
        match result {
            Ok(0) => self.end.conn().handle_eof(now()),
            Ok(n) => self.input.filled(n, room),
            Err(error) if is_no_fault(error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether anything left.
    fn write(&mut self) -> Result<bool, Failure> {
        let conn = self.end.conn();
        let mut moved = false;
        while !conn.output().is_empty() {
            match self.stream.write(conn.output()) {
                Ok(n) => conn.consume_output(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Says what to be woken for.
    fn arm(&mut self) -> Outcome {
        let conn = self.end.conn();
        let interest = Event::new(self.key, conn.wants_input(), !conn.output().is_empty());
        Ok(self.poller.modify(&self.stream, interest)?)
    }

    fn timeout(&mut self) -> Option<Duration> {
        self.end.conn().poll_timeout().map(|at| at.saturating_since(now()))
    }

    fn tick(&mut self) {
        if self.timeout().is_some_and(|left| left.is_zero()) {
            self.end.conn().handle_timeout(now());
        }
    }

    /// Closed, and the last words are on their way.
    fn is_done(&mut self) -> bool {
        let conn = self.end.conn();
        conn.is_closed() && conn.output().is_empty()
    }

    /// Takes what is still on its way, within 2 s and 32 MiB, more than windows let through: to close a socket with
    /// bytes unread is a reset, and that may destroy our DISCONNECT before it is read.
    fn hang_up(mut self) -> Outcome {
        self.stream.set_nonblocking(false)?;
        let until = now() + Duration::from_secs(2);
        let (mut left, mut chunk) = (32 << 20, [0; 4096]);
        while left > 0 && until > now() {
            self.stream
                .set_read_timeout(Some(until.saturating_since(now()).max(Duration::from_millis(1))))?;
            match self.stream.read(&mut chunk) {
                Ok(n @ 1..) => left -= n.min(left),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        Ok(())
    }
}

fn is_no_fault(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn main() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to_server = TcpStream::connect(listener.local_addr()?)?;
    let (to_client, _) = listener.accept()?;

    let poller = Poller::new()?;
    let (server, client) = embed::ends()?;
    let mut server = Driven::new(server, to_client, 0, &poller)?;
    let mut client = Driven::new(client, to_server, 1, &poller)?;

    let mut events = Events::new();
    let (mut server_readable, mut client_readable) = (false, false);
    loop {
        server.turn(server_readable)?;
        client.turn(client_readable)?;
        if client.is_done() && server.is_done() {
            break;
        }
        server.arm()?;
        client.arm()?;
        events.clear();
        poller.wait(&mut events, server.timeout().into_iter().chain(client.timeout()).min())?;
        server_readable = events.iter().any(|event| event.key == server.key && event.readable);
        client_readable = events.iter().any(|event| event.key == client.key && event.readable);
        server.tick();
        client.tick();
    }
    for stream in [&server.stream, &client.stream] {
        // The other end may be gone already.
        let _ = stream.shutdown(Shutdown::Write);
    }
    server.hang_up()?;
    client.hang_up()
}
