//! What is measured, and what is aimed at.

/// Numbers that are compared, and therefore taken in turn.
pub(crate) struct Group {
    /// What is measured.
    pub(crate) title: String,
    /// In what, as a Markdown cell.
    pub(crate) unit: &'static str,
    /// How many digits behind the point tell something.
    pub(crate) digits: usize,
    pub(crate) lines: Vec<Line>,
}

/// One number.
pub(crate) struct Line {
    /// Whose number it is.
    pub(crate) who: &'static str,
    /// This program's arguments that measure it.
    pub(crate) arguments: String,
    pub(crate) effort: Effort,
    pub(crate) targets: Vec<Target>,
}

/// How much is done for one number.
#[derive(Clone, Copy)]
pub(crate) enum Effort {
    /// Repeated for so many seconds.
    Seconds(f64),
    /// So many bytes.
    Megabytes(u64),
    /// Done once, whatever it takes.
    Once,
}

impl Effort {
    /// As arguments of this program.
    pub(crate) fn arguments(self, quick: bool) -> Vec<String> {
        match (self, quick) {
            (Self::Seconds(_), true) => vec!["--seconds".into(), "0.1".into()],
            (Self::Seconds(seconds), false) => vec!["--seconds".into(), seconds.to_string()],
            (Self::Megabytes(_), true) => vec!["--megabytes".into(), "200".into()],
            (Self::Megabytes(megabytes), false) => vec!["--megabytes".into(), megabytes.to_string()],
            (Self::Once, _) => Vec::new(),
        }
    }
}

/// What a line's number is to be, beside that of another line of its group.
pub(crate) struct Target {
    pub(crate) bound: Bound,
    /// Whose number is 1.
    pub(crate) than: &'static str,
}

/// A bound on a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// Whether a ratio is within it.
    pub(crate) fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

impl Line {
    fn new(who: &'static str, effort: Effort, arguments: String) -> Self {
        Self { who, arguments, effort, targets: Vec::new() }
    }

    fn at_least(mut self, ratio: f64, than: &'static str) -> Self {
        self.targets.push(Target { bound: Bound::AtLeast(ratio), than });
        self
    }

    fn at_most(mut self, ratio: f64, than: &'static str) -> Self {
        self.targets.push(Target { bound: Bound::AtMost(ratio), than });
        self
    }
}

const FLOOR: &str = "floor, AWS-LC";
const FLOOR_RUST: &str = "floor, RustCrypto";
const OURS: &str = "ours, AWS-LC";
const OURS_RUST: &str = "ours, RustCrypto";
const OURS_TOKIO: &str = "ours over tokio";
const OURS_STD: &str = "ours over std";
const RUSSH: &str = "russh";
const RUSSH_CHANNEL: &str = "russh, at the channel";
const PLAIN: &str = "TCP alone";
const OPENSSH: &str = "OpenSSH";

/// A number in memory.
const SHORT: Effort = Effort::Seconds(0.8);
/// A number between processes; the faster cipher needs more of it.
const GCM_BYTES: Effort = Effort::Megabytes(2000);
const CHACHA_BYTES: Effort = Effort::Megabytes(1000);

/// Everything that is measured.
pub(crate) fn plan() -> Vec<Group> {
    let mut plan = Vec::new();
    for direction in ["down", "up"] {
        plan.push(gcm_in_memory(direction));
        plan.push(chacha_in_memory(direction));
    }
    for direction in ["down", "up"] {
        plan.push(gcm_over_tcp(direction));
        plan.push(chacha_over_tcp(direction));
    }
    plan.extend([handshakes(), hybrid_handshakes(), flights(), execs(), echoes()]);
    plan
}

fn gcm_in_memory(direction: &str) -> Group {
    let bulk = |ends| format!("bulk {ends} aes128-gcm {direction}");
    let faster = if direction == "down" { 1.45 } else { 3.8 };
    Group {
        title: format!("aes128-gcm in memory, {direction}"),
        unit: "GB/s",
        digits: 2,
        lines: vec![
            Line::new(FLOOR, SHORT, "floor aws-lc aes128-gcm".into()),
            Line::new(OURS, SHORT, bulk("aws-lc")).at_least(0.8, FLOOR).at_least(faster, RUSSH),
            Line::new(RUSSH, SHORT, bulk("russh")),
            Line::new(RUSSH_CHANNEL, SHORT, bulk("russh-channel")),
            Line::new(OURS_TOKIO, SHORT, bulk("tokio")),
            Line::new(OURS_RUST, SHORT, bulk("rustcrypto")),
        ],
    }
}

fn chacha_in_memory(direction: &str) -> Group {
    let bulk = |ends| format!("bulk {ends} chacha20-poly1305 {direction}");
    Group {
        title: format!("chacha20-poly1305 in memory, {direction}"),
        unit: "GB/s",
        digits: 3,
        lines: vec![
            Line::new(FLOOR, SHORT, "floor aws-lc chacha20-poly1305".into()),
            Line::new(OURS, SHORT, bulk("aws-lc")).at_least(0.95, FLOOR).at_least(1.25, RUSSH),
            Line::new(RUSSH, SHORT, bulk("russh")),
            Line::new(RUSSH_CHANNEL, SHORT, bulk("russh-channel")),
            Line::new(OURS_TOKIO, SHORT, bulk("tokio")),
            Line::new(FLOOR_RUST, SHORT, "floor rustcrypto chacha20-poly1305".into()),
            Line::new(OURS_RUST, SHORT, bulk("rustcrypto")).at_least(0.95, FLOOR_RUST),
        ],
    }
}

fn gcm_over_tcp(direction: &str) -> Group {
    let tcp = |adapter| format!("tcp {adapter} aes128-gcm {direction}");
    let line =
        |who, adapter| Line::new(who, GCM_BYTES, tcp(adapter)).at_most(0.75, RUSSH).at_most(0.22, OPENSSH);
    Group {
        title: format!("aes128-gcm over loopback TCP, {direction}"),
        unit: "CPU s/GB",
        digits: 3,
        lines: vec![
            line(OURS_STD, "std"),
            Line::new(RUSSH, GCM_BYTES, tcp("russh")),
            line(OURS_TOKIO, "tokio"),
            Line::new(OPENSSH, GCM_BYTES, tcp("openssh")),
            Line::new(PLAIN, GCM_BYTES, tcp("plain")),
        ],
    }
}

fn chacha_over_tcp(direction: &str) -> Group {
    let tcp = |adapter| format!("tcp {adapter} chacha20-poly1305 {direction}");
    let line = |who, adapter| Line::new(who, CHACHA_BYTES, tcp(adapter)).at_most(0.9, RUSSH);
    Group {
        title: format!("chacha20-poly1305 over loopback TCP, {direction}"),
        unit: "CPU s/GB",
        digits: 3,
        lines: vec![
            line(OURS_STD, "std"),
            Line::new(RUSSH, CHACHA_BYTES, tcp("russh")),
            line(OURS_TOKIO, "tokio"),
            Line::new(OPENSSH, CHACHA_BYTES, tcp("openssh")),
        ],
    }
}

fn handshakes() -> Group {
    let handshake = |ends| format!("handshake {ends} curve25519");
    Group {
        title: "handshakes, curve25519 and Ed25519".into(),
        unit: "per second",
        digits: 0,
        lines: vec![
            Line::new(OURS, SHORT, handshake("aws-lc")).at_least(2.0, RUSSH),
            Line::new(RUSSH, SHORT, handshake("russh")),
            Line::new(OURS_RUST, SHORT, handshake("rustcrypto")).at_least(1.4, RUSSH),
            Line::new(OURS_TOKIO, SHORT, handshake("tokio")),
            Line::new(OPENSSH, SHORT, handshake("openssh")),
        ],
    }
}

fn hybrid_handshakes() -> Group {
    let handshake = |ends| format!("handshake {ends} mlkem768x25519");
    Group {
        title: "handshakes, mlkem768x25519 and Ed25519".into(),
        unit: "per second",
        digits: 0,
        lines: vec![
            Line::new(OURS, SHORT, handshake("aws-lc")).at_least(2.3, RUSSH),
            Line::new(RUSSH, SHORT, handshake("russh")),
            Line::new(OURS_RUST, SHORT, handshake("rustcrypto")),
            Line::new(OURS_TOKIO, SHORT, handshake("tokio")),
        ],
    }
}

fn flights() -> Group {
    let line = |who, adapter| Line::new(who, Effort::Once, format!("flights {adapter}"));
    let fewest = |line: Line| line.at_most(1.0, RUSSH).at_most(1.0, OPENSSH);
    Group {
        title: "flights to the first output of exec".into(),
        unit: "counted",
        digits: 0,
        lines: vec![
            fewest(line(OURS_STD, "std")),
            fewest(line(OURS_TOKIO, "tokio")),
            line(RUSSH, "russh"),
            line(OPENSSH, "openssh"),
        ],
    }
}

fn execs() -> Group {
    Group {
        title: "exec in memory".into(),
        unit: "µs",
        digits: 2,
        lines: vec![
            Line::new(OURS, SHORT, "exec aws-lc".into()).at_most(0.5, RUSSH),
            Line::new(RUSSH, SHORT, "exec russh".into()),
            Line::new(OURS_TOKIO, SHORT, "exec tokio".into()),
        ],
    }
}

fn echoes() -> Group {
    const OURS_MANY: &str = "ours, AWS-LC, 1000 channels";
    const RUSSH_MANY: &str = "russh, 1000 channels";
    let echo = |ends, channels| format!("echo {ends} {channels}");
    Group {
        title: "echo of 64 bytes in memory".into(),
        unit: "µs",
        digits: 2,
        lines: vec![
            Line::new(OURS, SHORT, echo("aws-lc", 1)).at_most(0.5, RUSSH),
            Line::new(RUSSH, SHORT, echo("russh", 1)),
            Line::new(OURS_MANY, SHORT, echo("aws-lc", 1000)).at_most(0.4, RUSSH_MANY).at_most(1.2, OURS),
            Line::new(RUSSH_MANY, SHORT, echo("russh", 1000)),
            Line::new(OURS_TOKIO, SHORT, echo("tokio", 1)),
            Line::new("ours over tokio, 1000 channels", SHORT, echo("tokio", 1000)),
        ],
    }
}
