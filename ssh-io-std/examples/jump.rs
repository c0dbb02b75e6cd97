//! A connection over a channel of another one: the way through a jump host.
//!
//! It brings both servers along: `cargo run -p ssh-io-std --example jump`.

#[path = "common/loopback.rs"]
mod loopback;

use std::error::Error;
use std::io::{Read, Write};

use loopback::Loopback;

const HERE: &str = "127.0.0.1";

fn main() -> Result<(), Box<dyn Error>> {
    let (jump_host, target) = (Loopback::start()?, Loopback::start()?);

    let outer = jump_host.expect().connect(HERE, jump_host.port)?;
    Loopback::log_in(&outer)?;
    println!("logged in to the jump host, port {}", jump_host.port);

    // The jump host connects and passes bytes on; it sees neither the password nor what is said.
    let channel = outer.open_direct_tcpip(HERE, target.port)?;
    let inner = target.expect().connect_over(HERE, target.port, channel)?;
    Loopback::log_in(&inner)?;
    println!("logged in to the target behind it, port {}", target.port);

    let mut session = inner.open_session()?;
    session.exec("give back")?;
    session.write_all(b"hello through both")?;
    session.finish_input()?;
    let mut back = String::new();
    session.read_to_string(&mut back)?;
    println!("it says: {back}");

    // From the inside out: the inner one's last words need the outer one.
    inner.close();
    outer.close();
    target.stop();
    jump_host.stop();
    Ok(())
}
