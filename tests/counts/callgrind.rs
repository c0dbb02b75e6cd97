//! This program under callgrind, and what its profile says of itself.

use std::error::Error;
use std::io::BufRead;
use std::process::{self, Command};
use std::{env, fs, io};

use super::jobs::Job;

/// The instructions of this program, without those of libraries, while it does a job so often.
pub(crate) fn run(job: Job, times: u32) -> Result<u64, Box<dyn Error>> {
    let program = env::current_exe()?;
    let profile = env::temp_dir().join(format!("ssh-counts-{}-{}-{times}", process::id(), job.name()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", profile.display()));
    let output = valgrind.arg(&program).arg(job.name()).arg(times.to_string()).output()?;
    if !output.status.success() {
        return Err(format!("valgrind: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let name = program.file_name().and_then(|name| name.to_str()).ok_or("a program without a name")?;
    let counted = own(io::BufReader::new(fs::File::open(&profile)?), name);
    fs::remove_file(&profile)?;
    counted
}

/// The costs that a profile says are those of the object of this name itself.
///
/// The format: `ob=(1) path` names the object of the lines that follow, `ob=(1)` names it again; a line of two numbers
/// is a cost, but for the one behind `calls=`, which is that of what was called.
fn own(profile: impl BufRead, name: &str) -> Result<u64, Box<dyn Error>> {
    let (mut own_number, mut is_own, mut called, mut sum) = (None, false, false, 0);
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
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split_once(' ').and_then(|(_, cost)| cost.parse::<u64>().ok());
            sum += cost.filter(|_| is_own && !called).unwrap_or(0);
            called = false;
        }
    }
    if own_number.is_none() || sum == 0 { Err("a profile without this program".into()) } else { Ok(sum) }
}
