//! How many instructions the machine takes for what it does most and how many bytes it copies, compared with before.
//!
//! `counts` without arguments runs itself under `valgrind` for each job: once with none of it, and once with all. The
//! difference is the job. Counted are the instructions of this program alone, since those of the C library depend on the
//! processor, over the null provider, since those of the real ones do as well, and with seeded entropy; the null
//! provider's own are left out. What the C library copies is counted in bytes instead; what it clears, compares and
//! allocates is not counted. A count is that of both ends, and of what carries the bytes between them.
//!
//! `--record` writes the result to `baseline`; without it, a job that takes over five percent more of either than is
//! written there is a failure, and so is an echo or a command that costs over twenty percent more among a thousand
//! channels than alone. The baseline is of one compiler: with another one nothing is compared, and that is said.

mod jobs;
mod valgrind;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use jobs::Job;

/// What a job may take more than before, in percent.
const MAY_GROW: u64 = 5;
/// What a job among a thousand channels may take of one alone, in percent.
const AMONG_MANY: u64 = 120;
/// Jobs alone, and the same among a thousand channels.
const PAIRS: [(Job, Job); 2] = [(Job::Echo, Job::EchoAmongMany), (Job::Exec, Job::ExecAmongMany)];
/// What the line of the compiler in the baseline begins with.
const COMPILER: &str = "rustc";
/// The exit code when there is nothing to compare with.
const NOT_COMPARED: u8 = 3;

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counts/baseline")
}

fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The instructions of a job, and the bytes that it copies.
type Counts = [u64; 2];

/// What the baseline has: its compiler, and the counts of each job by name.
///
/// A line each, of fields with tabs between them.
fn read(path: &Path) -> Result<(String, BTreeMap<String, Counts>), Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    let (mut compiler, mut counts) = (String::new(), BTreeMap::new());
    for line in text.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [COMPILER, version] => version.clone_into(&mut compiler),
            [name, instructions, copied] => {
                counts.insert(name.to_owned(), [instructions.parse()?, copied.parse()?]);
            }
            _ => return Err(format!("in the baseline: {line}").into()),
        }
    }
    Ok((compiler, counts))
}

fn count(job: Job) -> Result<Counts, Box<dyn Error>> {
    let each = |none: u64, all: u64| {
        let all = all.checked_sub(none).ok_or("less for all of it than for none")?;
        Ok::<_, Box<dyn Error>>(all / u64::from(job.times()))
    };
    let times = job.times();
    Ok([
        each(valgrind::instructions(job, 0)?, valgrind::instructions(job, times)?)?,
        each(valgrind::copied(job, 0)?, valgrind::copied(job, times)?)?,
    ])
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    match &args[..] {
        [job, times] => {
            let job = Job::ALL.into_iter().find(|known| known.name() == job).ok_or("no such job")?;
            job.run(times.parse()?);
            return Ok(ExitCode::SUCCESS);
        }
        [] => {}
        [record] if record == "--record" => {}
        _ => return Err("counts [--record | JOB TIMES]".into()),
    }
    let mut counted = BTreeMap::new();
    for job in Job::ALL {
        counted.insert(job, count(job)?);
    }
    let compiler = compiler()?;
    if !args.is_empty() {
        let mut text = format!("{COMPILER}\t{compiler}\n");
        for (job, [instructions, copied]) in &counted {
            text += &format!("{}\t{instructions}\t{copied}\n", job.name());
        }
        fs::write(baseline(), text)?;
        println!("recorded");
    }
    let (recorded, before) = read(&baseline())?;
    let comparable = recorded == compiler;
    let mut grown = false;
    println!("{:>25} {:>25}", "instructions", "bytes copied");
    println!("{:>12} {:>12} {:>12} {:>12}  for each", "before", "now", "before", "now");
    for (job, now) in &counted {
        let before = before.get(job.name()).ok_or("the baseline lacks a job")?;
        let mut over = false;
        for (before, now) in before.iter().zip(now) {
            over |= comparable && *now > before + before * MAY_GROW / 100;
            print!("{before:>12} {now:>12} ");
        }
        println!(" {}{}", job.name(), if over { "  GROWN" } else { "" });
        grown |= over;
    }
    for (alone, among) in PAIRS {
        let ([alone_takes, _], [among_takes, _]) = (counted[&alone], counted[&among]);
        let over = among_takes * 100 > alone_takes * AMONG_MANY;
        let percent = among_takes * 100 / alone_takes;
        println!("{}: {percent} % of {}{}", among.name(), alone.name(), if over { "  TOO MUCH" } else { "" });
        grown |= over;
    }
    if grown {
        return Ok(ExitCode::FAILURE);
    }
    if !comparable {
        println!(
            "not compared: the baseline is of {}",
            if recorded.is_empty() { "nothing" } else { &recorded }
        );
        return Ok(ExitCode::from(NOT_COMPARED));
    }
    Ok(ExitCode::SUCCESS)
}
