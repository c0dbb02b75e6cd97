//! Several channels of one connection at once, each used from threads of its own.
//!
//! It brings its own server along: `cargo run -p ssh-io-std --example channels`.

#[path = "common/loopback.rs"]
mod loopback;

use std::error::Error;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::thread;

use loopback::Loopback;
use ssh_io_std::Client;

const CHANNELS: usize = 8;
const LINES: usize = 10_000;

/// Sends lines from one thread, and reads what comes back on another one: how many bytes that was.
fn talk(client: &Client, number: usize) -> Result<usize, ssh_io_std::Error> {
    let channel = client.open_session()?;
    channel.exec("give back")?;
    let (mut from, mut to) = channel.split();
    let writing = thread::spawn(move || {
        // Dropped at the end, the writing half says that nothing follows.
        (0..LINES).try_for_each(|line| writeln!(to, "line {line} of channel {number}"))
    });
    let mut back = String::new();
    from.read_to_string(&mut back)?;
    writing.join().unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")))?;
    from.channel().wait()?;
    Ok(back.len())
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = Loopback::start()?;
    let client = server.expect().connect(&Ipv4Addr::LOCALHOST.to_string(), server.port)?;
    Loopback::log_in(&client)?;
    let threads = (0..CHANNELS).map(|number| {
        let client = client.clone();
        thread::spawn(move || talk(&client, number))
    });
    // All are started before the first one is waited for.
    for (number, thread) in threads.collect::<Vec<_>>().into_iter().enumerate() {
        let bytes = thread.join().map_err(|_| "a thread panicked")??;
        println!("channel {number}: {bytes} bytes there and back");
    }
    client.close();
    server.stop();
    Ok(())
}
