//! The table of `oracle.txt`, written apart from the code it judges.

use ssh_proto::Side;
use ssh_proto::raw::{AuthMethod, KexStep, State, Verdict};

/// One line: a role in a state, with or without strict key exchange.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) side: Side,
    pub(crate) state: State,
    /// `None` when it makes no difference.
    pub(crate) strict: Option<bool>,
    pub(crate) verdicts: [Verdict; 256],
}

impl Row {
    /// The kinds of peer the line speaks of.
    pub(crate) fn kinds(&self) -> Vec<bool> {
        self.strict.map_or(vec![true, false], |strict| vec![strict])
    }
}

const STATES: [State; 28] = [
    State::AwaitKexInit,
    State::KexSkipGuess,
    State::Kex(KexStep::Single),
    State::Kex(KexStep::GexFirst),
    State::Kex(KexStep::GexSecond),
    State::HostKeyPending,
    State::KexSignPending,
    State::AwaitNewKeys,
    State::ServiceFirst,
    State::Service,
    State::AuthIdle,
    State::AuthSignPending,
    State::AuthSent(AuthMethod::None),
    State::AuthSent(AuthMethod::Password),
    State::AuthSent(AuthMethod::PublicKeyProbe),
    State::AuthSent(AuthMethod::PublicKeySigned),
    State::AuthSent(AuthMethod::KeyboardInteractive),
    State::AuthPrompted,
    State::AuthDecisionPending,
    State::Authed,
    State::RekeySent,
    State::RekeySkipGuess,
    State::RekeyKex(KexStep::Single),
    State::RekeyKex(KexStep::GexFirst),
    State::RekeyKex(KexStep::GexSecond),
    State::RekeySignPending,
    State::RekeyAwaitNewKeys,
    State::Closing,
];

fn state(name: &str) -> State {
    let found = STATES.into_iter().find(|state| format!("{state:?}") == name);
    found.unwrap_or_else(|| panic!("no state {name}"))
}

fn verdict(letter: &str) -> Verdict {
    match letter {
        "D" => Verdict::Violation,
        "T" => Verdict::Terminate,
        "A" => Verdict::Accept,
        "A?" => Verdict::AcceptIf,
        "I" => Verdict::Ignore,
        "I?" => Verdict::UseIfAwaited,
        "U" => Verdict::Unimplemented,
        "S" => Verdict::Skip,
        "N" => Verdict::NotRead,
        "X" => Verdict::Discard,
        other => panic!("no verdict {other}"),
    }
}

fn row(line: &str) -> Row {
    let mut fields = line.split(' ');
    let mut field = || fields.next().unwrap_or_else(|| panic!("{line} is too short"));
    let side = match field() {
        "client" => Side::Client,
        "server" => Side::Server,
        other => panic!("no role {other}"),
    };
    let state = state(field());
    let strict = match field() {
        "yes" => Some(true),
        "no" => Some(false),
        "any" => None,
        other => panic!("neither yes, no nor any: {other}"),
    };
    let mut verdicts = Vec::new();
    for run in fields {
        let (numbers, letter) = run.split_once(':').unwrap_or_else(|| panic!("{run} is no run"));
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        assert_eq!(first, verdicts.len(), "{line}: a gap or an overlap at {run}");
        verdicts.resize(last + 1, verdict(letter));
    }
    let verdicts = verdicts.try_into().unwrap_or_else(|_| panic!("{line} does not end at 255"));
    Row { side, state, strict, verdicts }
}

/// The whole table.
pub(crate) fn rows() -> Vec<Row> {
    let lines = include_str!("oracle.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(row).collect()
}
