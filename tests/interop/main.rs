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

use ssh_io_std::Client as StdClient;

use peers::Peer;

macro_rules! with_each_peer {
    ($($name:ident: $peer:expr;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn server_takes_every_combination() {
                client_side::every_combination::<StdClient>($peer);
            }

            #[test]
            fn server_runs_sessions_and_refuses_logins() {
                client_side::sessions_and_refusals::<StdClient>($peer);
            }

            #[test]
            fn server_renews_keys_under_load() {
                client_side::renewed_keys::<StdClient>($peer);
            }

            #[test]
            fn client_takes_every_combination() {
                server_side::every_combination($peer);
            }

            #[test]
            fn client_runs_sessions_and_is_refused() {
                server_side::sessions_and_refusals($peer);
            }

            #[test]
            fn client_renews_keys_under_load() {
                server_side::renewed_keys($peer);
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
