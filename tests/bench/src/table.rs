//! Takes all numbers, in turn, and writes them down.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use crate::plan::{Bound, Group, Line, Target, plan};
use crate::{Failure, machine};

/// Measures everything, and gives the table.
pub(crate) fn measure(runs: usize, quick: bool, only: &str) -> Result<String, Failure> {
    let runs = if quick { 1 } else { runs.max(1) };
    let mut table = machine::describe(runs)?;
    table.push_str("| what | who | min | median | max | target | measured | met |\n");
    table.push_str("|---|---|--:|--:|--:|---|--:|---|\n");
    let (mut met, mut all) = (0, 0);
    for group in plan().iter().filter(|group| group.title.contains(only)) {
        let results = in_turn(group, runs, quick)?;
        for (at, line) in group.lines.iter().enumerate() {
            let what = if at == 0 { format!("{}, {}", group.title, group.unit) } else { String::new() };
            let held = row(&mut table, group, &results, line, &results[at], &what)?;
            met += held.iter().filter(|held| **held).count();
            all += held.len();
        }
    }
    writeln!(table, "\n{met} of {all} targets met.")?;
    Ok(table)
}

/// The numbers of each line of a group, one of a round each.
fn in_turn(group: &Group, runs: usize, quick: bool) -> Result<Vec<Vec<f64>>, Failure> {
    let mut results = vec![Vec::with_capacity(runs); group.lines.len()];
    for round in 1..=runs {
        for (line, results) in group.lines.iter().zip(&mut results) {
            eprint!("\r\x1b[K{round}/{runs} {}: {}", group.title, line.who);
            results.push(number(line, quick)?);
        }
    }
    eprint!("\r\x1b[K");
    Ok(results)
}

/// Takes one number, in a process of its own.
fn number(line: &Line, quick: bool) -> Result<f64, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(line.arguments.split(' ')).args(line.effort.arguments(quick));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", line.arguments, output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Writes a line down, and says of each of its targets whether it is met.
fn row(
    table: &mut String,
    group: &Group,
    results: &[Vec<f64>],
    line: &Line,
    numbers: &[f64],
    what: &str,
) -> Result<Vec<bool>, Failure> {
    let digits = group.digits;
    let Spread { min, median, max } = spread(numbers)?;
    write!(table, "| {what} | {} | {min:.digits$} | {median:.digits$} | {max:.digits$} |", line.who)?;
    let mut held = Vec::new();
    for target in &line.targets {
        let other = group.lines.iter().position(|other| other.who == target.than).ok_or("no such line")?;
        let ratio = ratio(numbers, &results[other])?;
        if !held.is_empty() {
            table.push_str("| | | | | |");
        }
        held.push(target.bound.holds(ratio));
        let met = if target.bound.holds(ratio) { "yes" } else { "**no**" };
        writeln!(table, " {} | {ratio:.2} | {met} |", words(target))?;
    }
    if held.is_empty() {
        table.push_str(" | | |\n");
    }
    Ok(held)
}

fn words(target: &Target) -> String {
    match target.bound {
        Bound::AtLeast(least) => format!("≥ {least} × {}", target.than),
        Bound::AtMost(most) => format!("≤ {most} × {}", target.than),
    }
}

/// The median of the ratios of each round.
fn ratio(ours: &[f64], theirs: &[f64]) -> Result<f64, Failure> {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    Ok(spread(&ratios)?.median)
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

fn spread(numbers: &[f64]) -> Result<Spread, Failure> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return Err("no numbers".into()) };
    let middle = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Ok(Spread { min: *min, median, max: *max })
}
