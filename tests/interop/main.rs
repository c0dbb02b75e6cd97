//! Against other implementations, in both directions: OpenSSH, dropbear, paramiko and asyncssh.
//!
//! `tests/interop/setup.sh` installs them. A missing peer fails the tests; none is left out silently.

/// Ends a check with a message unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

mod client_side;
mod clients;
mod examples;
mod keys;
#[path = "../../ssh-io-std/examples/common/leader.rs"]
mod leader;
mod matrix;
mod our_client;
mod our_server;
mod peers;
mod process;
#[path = "../../ssh-io-std/examples/common/program.rs"]
mod program;
mod server_side;
mod servers;
mod summary;
mod support;
#[path = "../../ssh-io-tokio/examples/common/program.rs"]
mod tokio_program;

use our_client::TokioClient;
use our_server::{StdServer, TokioServer};
use peers::Peer;
use ssh_io_std::Client as StdClient;

macro_rules! with_each_peer {
    ($($name:ident: $peer:expr;)+) => {$(
        mod $name {
            use super::*;

            with_each_client! { $peer, std_client: StdClient; tokio_client: TokioClient; }

            with_each_server! { $peer, std_server: StdServer; tokio_server: TokioServer; }
        }
    )+};
}

macro_rules! with_each_client {
    ($peer:expr, $($name:ident: $client:ty;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn takes_every_combination() {
                client_side::every_combination::<$client>($peer);
            }

            #[test]
            fn runs_sessions_and_is_refused() {
                client_side::sessions_and_refusals::<$client>($peer);
            }

            #[test]
            fn guesses_the_key_exchange() {
                client_side::guesses::<$client>($peer);
            }

            #[test]
            fn renews_keys_under_load() {
                client_side::renewed_keys::<$client>($peer);
            }
        }
    )+};
}

macro_rules! with_each_server {
    ($peer:expr, $($name:ident: $server:ty;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn takes_every_combination() {
                server_side::every_combination::<$server>($peer);
            }

            #[test]
            fn runs_sessions_and_refuses_logins() {
                server_side::sessions_and_refusals::<$server>($peer);
            }

            #[test]
            fn renews_keys_under_load() {
                server_side::renewed_keys::<$server>($peer);
            }
        }
    )+};
}

with_each_peer! {
    openssh: Peer::OpenSsh;
    dropbear: Peer::Dropbear;
    paramiko: Peer::Paramiko;
    asyncssh: Peer::AsyncSsh;
}
