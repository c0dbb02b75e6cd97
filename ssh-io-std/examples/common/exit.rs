//! How a program tells how the remote one ended: by its own exit code, and else in one line.

use std::io::{self, Write};

use ssh_proto::{ExitStatus, PeerText};

/// Signal numbers of POSIX for the exit code 128+n.
const SIGNALS: [(&str, u8); 13] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("ABRT", 6),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
];

/// The exit code for how the command ended.
pub(crate) fn exit_code(status: Option<ExitStatus>) -> u8 {
    match status {
        Some(ExitStatus::Code(code)) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        Some(ExitStatus::Signal { name, .. }) => signal_code(&name).unwrap_or_else(|| {
            say(&format!("the command was ended by the signal {name}"));
            255
        }),
        None => {
            say("the server did not say how the command ended");
            255
        }
    }
}

/// The exit code for the end by a signal of POSIX.
pub(crate) fn signal_code(name: &PeerText) -> Option<u8> {
    let known = SIGNALS.iter().find(|(known, _)| known.as_bytes() == name.as_bytes());
    known.map(|(_, number)| 128 + number)
}

/// One line on stderr, for whoever still reads that.
pub(crate) fn say(reason: &str) {
    let _ =
        writeln!(io::stderr(), "{}: {}", env!("CARGO_BIN_NAME"), reason.lines().next().unwrap_or_default());
}
