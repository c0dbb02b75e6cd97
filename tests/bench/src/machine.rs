//! On what, with what and when a table was made.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use crate::Failure;

/// The lines above a table.
pub(crate) fn describe(runs: usize) -> Result<String, Failure> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(format!(
        "{date}; {model}, {cores} cores, Linux {kernel}; {rustc}, russh {russh}, aws-lc-rs {aws_lc}, {openssh}. \
         Of {runs} runs in turn; a ratio is the median of those of each run.\n\n",
        date = said(Command::new("date").args(["-u", "+%F"]))?,
        model = model.map_or("unknown CPU", |(_, model)| model),
        cores = available_parallelism()?,
        kernel = said(Command::new("uname").arg("-r"))?,
        rustc = said(Command::new("rustc").arg("-V"))?,
        russh = locked("russh"),
        aws_lc = locked("aws-lc-rs"),
        openssh = said(Command::new("ssh").arg("-V"))?,
    ))
}

/// The first line a program says, on either output.
fn said(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

/// The version of a package this program was built with.
fn locked(package: &str) -> &'static str {
    let entry = format!("name = \"{package}\"\nversion = \"");
    let lock = include_str!("../Cargo.lock");
    lock.split_once(&entry).and_then(|(_, rest)| rest.split('"').next()).unwrap_or("unknown")
}
