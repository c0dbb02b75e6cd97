//! How many instructions the machine takes for what it does most, compared with what it took before.
//!
//! `counts` without arguments runs itself under `valgrind --tool=callgrind` for each job, twice: once with none of it,
//! and once with all. The difference is the job. Counted are the instructions of this program alone, since those of
//! the C library depend on the processor, over the null provider, since those of the real ones do as well, and with
//! seeded entropy. `--record` writes the result to `baseline`; without it, a job that takes over five percent more
//! than is written there is a failure, and so is an echo that costs over twenty percent more among a thousand channels
//! than alone. The baseline is of one compiler: with another one nothing is compared, and that is said.

mod callgrind;
mod jobs;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use jobs::Job;

/// What a job may take more than before, in percent.
const MAY_GROW: u64 = 5;
/// What an echo among a thousand channels may take of one alone, in percent.
const AMONG_MANY: u64 = 120;
/// The exit code when there is nothing to compare with.
const NOT_COMPARED: u8 = 3;

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counts/baseline")
}

fn compiler() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A line each: a name, a tab, and what belongs to it.
fn read(path: &Path) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    let fields = text.lines().filter_map(|line| line.split_once('\t'));
    Ok(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn count(job: Job) -> Result<u64, Box<dyn Error>> {
    let (none, all) = (callgrind::run(job, 0)?, callgrind::run(job, job.times())?);
    Ok(all.checked_sub(none).ok_or("less for all of it than for none")? / u64::from(job.times()))
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
        let mut text = format!("rustc\t{compiler}\n");
        counted.iter().for_each(|(job, count)| text += &format!("{}\t{count}\n", job.name()));
        fs::write(baseline(), text)?;
        println!("recorded");
    }
    let before = read(&baseline())?;
    let comparable = before.get("rustc") == Some(&compiler);
    let mut grown = false;
    println!("{:>12} {:>12}  instructions for each", "before", "now");
    for (job, now) in &counted {
        let before = before.get(job.name()).ok_or("the baseline lacks a job")?.parse::<u64>()?;
        let over = comparable && *now > before + before * MAY_GROW / 100;
        println!("{before:>12} {now:>12}  {}{}", job.name(), if over { "  GROWN" } else { "" });
        grown |= over;
    }
    let (alone, among) = (counted[&Job::Echo], counted[&Job::EchoAmongMany]);
    println!("an echo among a thousand channels: {} % of one alone", among * 100 / alone);
    if grown || among * 100 > alone * AMONG_MANY {
        return Ok(ExitCode::FAILURE);
    }
    if !comparable {
        println!(
            "not compared: the baseline is of {}",
            before.get("rustc").map_or("nothing", String::as_str)
        );
        return Ok(ExitCode::from(NOT_COMPARED));
    }
    Ok(ExitCode::SUCCESS)
}
