//! Ours over std's sockets, between two processes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use ssh_io_std::{ChannelOf, Client, Handler, HostKeys, Question, ServerChannel, ServerConnection};
use ssh_proto::adapter::AdapterRole;
use ssh_proto::{
    AuthRequest, AuthVerdict, ChannelConfig, ChannelId, ChannelKind, ChannelRequest, ChannelRequestKind,
    ExitStatus, OpenRequest,
};

use crate::Failure;
use crate::commands::{Command, Configs};
use crate::work::{CHUNK, Cipher, Direction, Kex, Library, USER, WINDOW};

/// Lets everybody in, and moves data.
#[derive(Default)]
struct Mover {
    channels: HashMap<ChannelId, ServerChannel>,
}

impl Handler for Mover {
    fn auth(&mut self, request: Question<AuthRequest>) {
        let _ = request.reply(AuthVerdict::Accept);
    }

    fn open(&mut self, request: Question<OpenRequest>) {
        if let Ok(channel) = request.accept(ChannelConfig::default().with_window(WINDOW)) {
            self.channels.insert(channel.id(), channel);
        }
    }

    fn request(&mut self, request: Question<ChannelRequest>) {
        let ChannelRequestKind::Exec(line) = request.kind() else { return };
        let Some(Command::Move(direction, bytes)) = Command::parse(line) else { return };
        let Some(channel) = self.channels.remove(&request.channel()) else { return };
        let _ = request.reply(true);
        thread::spawn(move || run(channel, direction, bytes));
    }
}

fn run(mut channel: ServerChannel, direction: Direction, bytes: u64) -> Result<(), Failure> {
    match direction {
        Direction::Down => write(&mut channel, bytes)?,
        Direction::Up => take(&channel, bytes)?,
    }
    channel.exit(ExitStatus::Code(0))?;
    channel.close();
    Ok(())
}

/// Writes so many bytes.
pub(crate) fn write(to: &mut impl Write, bytes: u64) -> Result<(), Failure> {
    let data = vec![7; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        to.write_all(&data[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// Reads so many bytes.
pub(crate) fn read(from: &mut impl Read, bytes: u64) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        match from.read(&mut buffer)? as u64 {
            0 => return Err("an early end".into()),
            n => left = left.checked_sub(n).ok_or("too much data")?,
        }
    }
    Ok(())
}

/// Reads so many bytes where they are.
fn take<R: AdapterRole>(from: &ChannelOf<R>, bytes: u64) -> Result<(), Failure> {
    let mut left = bytes;
    while left > 0 {
        let chunk = from.read_chunk(CHUNK)?.ok_or("an early end")?;
        left = left.checked_sub(chunk.len() as u64).ok_or("too much data")?;
    }
    Ok(())
}

/// Serves one client of a listener.
pub(crate) fn serve_one(cipher: Cipher, listener: &TcpListener) -> Result<(), Failure> {
    let configs = Configs::new(Library::AwsLc, cipher, Kex::Curve25519, 1)?;
    let (stream, _) = listener.accept()?;
    ServerConnection::start(configs.server, stream, Mover::default())?.closed();
    Ok(())
}

/// Moves so many bytes, with a server at this port.
pub(crate) fn transfer(cipher: Cipher, direction: Direction, port: u16, bytes: u64) -> Result<(), Failure> {
    let configs = Configs::new(Library::AwsLc, cipher, Kex::Curve25519, 1)?;
    let client = Client::with_config(configs.client)
        .host_keys(HostKeys::DangerousAcceptAny)
        .connect("127.0.0.1", port)?;
    client.auth_key(USER, configs.user_key)?;
    let mut channel = client.open(&ChannelKind::Session, ChannelConfig::default().with_window(WINDOW))?;
    channel.exec(Command::Move(direction, bytes).line())?;
    match direction {
        Direction::Down => take(&channel, bytes)?,
        Direction::Up => write(&mut channel, bytes)?,
    }
    if channel.wait()? != Some(ExitStatus::Code(0)) {
        return Err("the transfer failed".into());
    }
    client.close();
    Ok(())
}

/// Serves one client of a listener, without SSH. It says in a byte where the data goes, and then how much it is.
pub(crate) fn serve_plain(listener: &TcpListener) -> Result<(), Failure> {
    let (mut stream, _) = listener.accept()?;
    let mut asked = [0; 9];
    stream.read_exact(&mut asked)?;
    let [direction, bytes @ ..] = asked;
    let bytes = u64::from_be_bytes(bytes);
    if direction == 0 { write(&mut stream, bytes) } else { read(&mut stream, bytes) }
}

/// Moves so many bytes, with such a server at this port.
pub(crate) fn transfer_plain(direction: Direction, port: u16, bytes: u64) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(&[u8::from(direction == Direction::Up)])?;
    stream.write_all(&bytes.to_be_bytes())?;
    match direction {
        Direction::Down => read(&mut stream, bytes)?,
        Direction::Up => write(&mut stream, bytes)?,
    }
    stream.shutdown(Shutdown::Both)?;
    Ok(())
}
