//! russh on any transport: in memory, and between two processes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use russh::client::Handle;
use russh::{ChannelMsg, Disconnect};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::commands::Command;
use crate::over_tokio::runtime;
use crate::work::{Cipher, Direction, ECHO, Kex, OUTPUT, WIRE, rate, repeat_async};

mod ends;

pub(crate) use ends::By;
use ends::{Client, Configs, Server, count, leave, log_in, serve, start, write};

/// A client, and a server in the same runtime whose bytes go to the same meter.
async fn in_memory(
    configs: &Configs,
    by: By,
) -> Result<(Client, Handle<Client>, JoinHandle<Result<(), russh::Error>>), Failure> {
    let (near, far) = tokio::io::duplex(WIRE);
    let handler = Client::new(by);
    let server = tokio::spawn(serve(configs.clone(), Server::new(handler.meter.clone(), by), far));
    let client = log_in(configs, handler.clone(), near).await?;
    Ok((handler, client, server))
}

/// Channel data, in GB/s.
pub(crate) fn bulk(by: By, cipher: Cipher, direction: Direction, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(cipher, Kex::Curve25519);
    runtime()?.block_on(async {
        let (handler, client, _server) = in_memory(&configs, by).await?;
        let (reader, writer) = start(&client, Command::Move(direction, u64::MAX)).await?.split();
        match (by, direction) {
            (By::Channel, Direction::Down) => drop(tokio::spawn(count(reader, handler.meter.clone()))),
            // Nobody would empty it.
            _ => drop(reader),
        }
        if direction == Direction::Up {
            tokio::spawn(async move { write(&writer, u64::MAX).await });
        }
        rate(|| handler.meter.load(Ordering::Relaxed), seconds).await
    })
}

/// Handshakes per second.
pub(crate) fn handshakes(kex: Kex, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Cipher::Aes128Gcm, kex);
    let mean = runtime()?.block_on(repeat_async(seconds, async || {
        let (_, client, server) = in_memory(&configs, By::Handler).await?;
        leave(client, server).await
    }))?;
    Ok(1.0 / mean)
}

/// A command, in microseconds.
pub(crate) fn execs(seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Cipher::Aes128Gcm, Kex::Curve25519);
    runtime()?.block_on(async {
        let (_, client, _server) = in_memory(&configs, By::Handler).await?;
        let mean = repeat_async(seconds, async || {
            let mut channel = start(&client, Command::Say).await?;
            let (mut output, mut exit) = (0, None);
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => output += data.len(),
                    ChannelMsg::ExitStatus { exit_status } => exit = Some(exit_status),
                    _ => {}
                }
            }
            if output == OUTPUT.len() && exit == Some(0) { Ok(()) } else { Err("a command failed".into()) }
        });
        Ok(mean.await? * 1e6)
    })
}

/// An echo, in microseconds.
pub(crate) fn echoes(channels: usize, seconds: f64) -> Result<f64, Failure> {
    let configs = Configs::new(Cipher::Aes128Gcm, Kex::Curve25519);
    runtime()?.block_on(async {
        let (_, client, _server) = in_memory(&configs, By::Handler).await?;
        let mut open = Vec::new();
        for _ in 0..channels {
            open.push(start(&client, Command::Echo).await?);
        }
        let mut turn = 0;
        let mean = repeat_async(seconds, async || {
            let channel = &mut open[turn];
            turn = (turn + 1) % channels;
            channel.data_bytes(Bytes::from_static(&ECHO)).await?;
            let mut left = ECHO.len();
            while left > 0 {
                match channel.wait().await {
                    Some(ChannelMsg::Data { data }) => left = left.saturating_sub(data.len()),
                    Some(_) => {}
                    None => return Err("no echo".into()),
                }
            }
            Ok(())
        });
        Ok(mean.await? * 1e6)
    })
}

/// Serves one client of a listener.
pub(crate) fn serve_one(cipher: Cipher, listener: std::net::TcpListener) -> Result<(), Failure> {
    let configs = Configs::new(cipher, Kex::Curve25519);
    runtime()?.block_on(async {
        listener.set_nonblocking(true)?;
        let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
        stream.set_nodelay(true)?;
        let _ = serve(configs, Server::new(Arc::default(), By::Handler), stream).await;
        Ok(())
    })
}

/// Moves so many bytes, with a server at this port.
pub(crate) fn transfer(cipher: Cipher, direction: Direction, port: u16, bytes: u64) -> Result<(), Failure> {
    let configs = Configs::new(cipher, Kex::Curve25519);
    runtime()?.block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let handler = Client::new(By::Handler);
        let client = log_in(&configs, handler.clone(), stream).await?;
        let (_, writer) = start(&client, Command::Move(direction, bytes)).await?.split();
        if direction == Direction::Up {
            write(&writer, bytes).await?;
        }
        handler.closed.notified().await;
        if direction == Direction::Down && handler.meter.load(Ordering::Relaxed) != bytes {
            return Err("data was lost".into());
        }
        client.disconnect(Disconnect::ByApplication, "", "").await?;
        let _ = client.await;
        Ok(())
    })
}
