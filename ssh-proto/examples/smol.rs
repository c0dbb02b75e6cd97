//! `ssh-proto` on smol: the client and the server of the epoll example as two tasks. Nothing in the machine is
//! tied to a runtime.

mod embed;

use std::net::Shutdown;
use std::time::Duration;

use embed::{End, Outcome, now};
use smol::future::{FutureExt, or, try_zip};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::{Timer, future};
use ssh_proto::InputPool;

/// What woke the loop.
enum Woken {
    Read(usize),
    Wrote(usize),
    Deadline,
}

async fn drive(mut end: impl End, stream: TcpStream) -> Outcome {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (stream.clone(), stream);
    let mut input = InputPool::new();
    loop {
        loop {
            end.conn().handle_input(now(), input.buffer());
            let Some(event) = end.conn().poll_event() else { break };
            end.on(event)?;
        }
        let conn = end.conn();
        if conn.is_closed() && conn.output().is_empty() {
            hang_up(reader).await;
            return Ok(());
        }
        let (wants_input, deadline) = (conn.wants_input(), conn.poll_timeout());
        let room = if wants_input { input.reserve() } else { 0 };
        let filled = input.buffer().len();
        input.buffer().resize(filled + room, 0);

        let read = async {
            match wants_input {
                true => reader.read(&mut input.buffer()[filled..]).await.map(Woken::Read),
                false => future::pending().await,
            }
        };
        let write = async {
            match conn.output() {
                [] => future::pending().await,
                output => writer.write(output).await.map(Woken::Wrote),
            }
        };
        let expire = async {
            match deadline {
                Some(at) => Timer::after(at.saturating_since(now())).await,
                None => future::pending().await,
            };
            Ok(Woken::Deadline)
        };
        let woken = or(write, read).or(expire).await;

        let n = if let Ok(Woken::Read(n)) = woken { n } else { 0 };
        input.buffer().truncate(filled + n);
        let conn = end.conn();
        match woken? {
            Woken::Read(0) => conn.handle_eof(now()),
            Woken::Read(n) => input.filled(n, room),
            Woken::Wrote(n) => conn.consume_output(n),
            Woken::Deadline => conn.handle_timeout(now()),
        }
    }
}

/// Takes what is still on its way, within 2 s and 32 MiB, more than windows let through: to close a socket with bytes
/// unread is a reset, and that may destroy our DISCONNECT before it is read. The other end may be gone already.
async fn hang_up(stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let rest = async { smol::io::copy(stream.take(32 << 20), smol::io::sink()).await.map(drop) };
    let enough = async { Ok(_ = Timer::after(Duration::from_secs(2)).await) };
    let _ = or(rest, enough).await;
}

fn main() -> Outcome {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (to_server, (to_client, _)) = try_zip(TcpStream::connect(address), listener.accept()).await?;
        let (server, client) = embed::ends()?;
        try_zip(drive(server, to_client), drive(client, to_server)).await?;
        Ok(())
    })
}
