//! How many flights it takes from the first byte to the first output of a command, counted from what goes over a line.
//!
//! The line is a relay that holds everything for a while, much longer than either side takes to answer. What a side sends
//! then belongs to the flight behind the last one it has got. The command says a lot, so that the flight with its
//! output is the first large one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::work::{Adapter, Cipher, Direction};
use crate::{Failure, openssh, two};

/// How long everything is on its way: processes start and answer well within it.
const FLIGHT: Duration = Duration::from_millis(250);
/// What the command says, in bytes: less than a window, and more than everything else at once.
const OUTPUT: u64 = 100_000;
const LARGE: usize = 16_384;

/// The number of the flight that brings the output.
pub(crate) fn count(adapter: Adapter) -> Result<f64, Failure> {
    let line = TcpListener::bind(("127.0.0.1", 0))?;
    let through = |port: u16| {
        let near = line.local_addr()?.port();
        let relaying = thread::spawn(move || relay(&line, port));
        Ok((near, relaying))
    };
    let relaying = match adapter {
        Adapter::Openssh => openssh::say(OUTPUT, through)?,
        _ => two::transfer(adapter, Cipher::Aes128Gcm, Direction::Down, OUTPUT, through)?,
    };
    let flights = relaying.join().map_err(|_| "the relay panicked")??;
    let output = flights.iter().find(|(_, bytes)| **bytes >= LARGE).ok_or("no output came by")?;
    Ok(*output.0 as f64)
}

/// Bytes of the server by the flight they belong to.
type Flights = BTreeMap<u64, usize>;

/// Relays one connection to a port of this machine.
fn relay(line: &TcpListener, port: u16) -> Result<Flights, Failure> {
    let (client, _) = line.accept()?;
    let server = TcpStream::connect(("127.0.0.1", port))?;
    // The last flight that each has got.
    let (at_client, at_server) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let up = scope.spawn(|| carry(&client, &at_client, &server, &at_server));
        let down = carry(&server, &at_server, &client, &at_client)?;
        up.join().map_err(|_| "the relay panicked")??;
        Ok(down)
    })
}

/// Carries bytes one way, each for the time of a flight.
fn carry(
    mut from: &TcpStream,
    at_from: &AtomicU64,
    mut to: &TcpStream,
    at_to: &AtomicU64,
) -> Result<Flights, Failure> {
    to.set_nodelay(true)?;
    let (sender, held) = mpsc::channel::<(Instant, u64, Vec<u8>)>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for (since, flight, bytes) in held {
                thread::sleep((since + FLIGHT).saturating_duration_since(Instant::now()));
                at_to.fetch_max(flight, Ordering::SeqCst);
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            // It may be gone already.
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut flights = Flights::new();
        let mut buffer = vec![0; 1 << 16];
        // A reset is an end as well.
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let flight = at_from.load(Ordering::SeqCst) + 1;
            *flights.entry(flight).or_default() += n;
            if sender.send((Instant::now(), flight, buffer[..n].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
        Ok(flights)
    })
}
