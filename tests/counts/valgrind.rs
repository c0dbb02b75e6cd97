//! This program under valgrind, and what the profiles say of it.
//!
//! What the null provider does is none of the machine's: its functions are left out by their name. None of them becomes
//! a part of another function, since the machine calls them through traits alone.

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{self, Command};
use std::{env, fs};

use super::jobs::Job;

/// What the names of the provider's functions contain.
const PROVIDER: &str = "ssh_tests::null::";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The instructions of this program while it does a job so often, without those of libraries and of the provider.
pub(crate) fn instructions(job: Job, times: u32) -> Result<u64> {
    let program = env::current_exe()?;
    let name = program.file_name().and_then(|name| name.to_str()).ok_or("a program without a name")?;
    machines(own(profile(&["--tool=callgrind"], "callgrind", job, times)?, name)?, times)
}

/// The bytes that `memcpy` and its like copy meanwhile, without those that the provider has them copy.
pub(crate) fn copied(job: Job, times: u32) -> Result<u64> {
    machines(copies(profile(&["--tool=dhat", "--mode=copy"], "dhat", job, times)?)?, times)
}

/// What a profile counts of the machine and of the provider.
struct Counted {
    machine: u64,
    provider: u64,
}

/// The machine's. Whatever is done, the provider has a part in it: else it went by another name.
fn machines(Counted { machine, provider }: Counted, times: u32) -> Result<u64> {
    if provider == 0 && times > 0 { Err("a profile without the provider".into()) } else { Ok(machine) }
}

fn profile(tool: &[&str], name: &str, job: Job, times: u32) -> Result<BufReader<File>> {
    let path = env::temp_dir().join(format!("ssh-counts-{}-{}-{times}", process::id(), job.name()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(tool).arg("--quiet").arg(format!("--{name}-out-file={}", path.display()));
    let output = valgrind.arg(env::current_exe()?).arg(job.name()).arg(times.to_string()).output()?;
    if !output.status.success() {
        return Err(format!("valgrind: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let file = File::open(&path)?;
    // It can be read as long as it is open.
    fs::remove_file(&path)?;
    Ok(BufReader::new(file))
}

/// The costs that a profile of callgrind says are those of the object of this name itself.
///
/// The format: `ob=(1) path` names the object of the lines that follow, `ob=(1)` names it again, and `fn=` a function
/// in the same way; a line of two numbers is a cost, but for the one behind `calls=`, which is that of what was called.
fn own(profile: impl BufRead, name: &str) -> Result<Counted> {
    let (mut own_number, mut is_own, mut called) = (None, false, false);
    let (mut provider, mut is_provider) = (HashSet::new(), false);
    let mut counted = Counted { machine: 0, provider: 0 };
    for line in profile.lines() {
        let line = line?;
        if let Some(object) = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob=")) {
            let (number, path) = object.split_once(' ').unwrap_or((object, ""));
            if path.ends_with(name) {
                own_number = Some(number.to_owned());
            }
            if line.starts_with("ob=") {
                is_own = own_number.as_deref() == Some(number);
            }
        } else if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if name.contains(PROVIDER) {
                provider.insert(number.to_owned());
            }
            if line.starts_with("fn=") {
                is_provider = provider.contains(number);
            }
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split_once(' ').and_then(|(_, cost)| cost.parse::<u64>().ok());
            let cost = cost.filter(|_| is_own && !called).unwrap_or(0);
            *(if is_provider { &mut counted.provider } else { &mut counted.machine }) += cost;
            called = false;
        }
    }
    if counted.machine == 0 { Err("a profile without this program".into()) } else { Ok(counted) }
}

/// The bytes that a profile of DHAT says were copied.
///
/// The format: `"tb":` has the bytes of a place, `"fs":[` behind it the numbers of its frames, and `"ftbl":` behind them
/// all the frames by number, one a line.
fn copies(profile: impl BufRead) -> Result<Counted> {
    let (mut places, mut bytes) = (Vec::new(), 0);
    let (mut frames, mut in_frames) = (Vec::new(), false);
    for line in profile.lines() {
        let line = line?;
        let line = line.trim_start_matches([' ', ',', '[', '{']);
        if in_frames {
            frames.push(line.contains(PROVIDER));
        } else if let Some(place) = line.strip_prefix("\"tb\":") {
            bytes = place.split(',').next().unwrap_or_default().parse::<u64>()?;
        } else if let Some(numbers) = line.strip_prefix("\"fs\":[") {
            let numbers = numbers.trim_end_matches(']').split(',').map(str::parse::<usize>);
            places.push((bytes, numbers.collect::<std::result::Result<Vec<_>, _>>()?));
        } else {
            in_frames = line.starts_with("\"ftbl\":");
        }
    }
    let mut counted = Counted { machine: 0, provider: 0 };
    for (bytes, numbers) in places {
        let is_provider = numbers.iter().any(|number| frames.get(*number) == Some(&true));
        *(if is_provider { &mut counted.provider } else { &mut counted.machine }) += bytes;
    }
    if frames.is_empty() { Err("a profile without frames".into()) } else { Ok(counted) }
}
