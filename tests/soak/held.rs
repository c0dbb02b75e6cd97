//! What a process holds, as the kernel has it.

use std::fs;
use std::path::Path;

use crate::Outcome;

#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// Resident memory, in bytes.
    pub(crate) resident: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Held {
    pub(crate) fn by(process: u32) -> Outcome<Self> {
        let directory = Path::new("/proc").join(process.to_string());
        let status = fs::read_to_string(directory.join("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kibibytes: u64 = resident.trim().trim_end_matches(" kB").parse()?;
        let count = |name| Ok::<_, std::io::Error>(fs::read_dir(directory.join(name))?.count());
        Ok(Self { resident: kibibytes << 10, descriptors: count("fd")?, threads: count("task")? })
    }
}

/// The slope of the line through these points that has the least squares.
pub(crate) fn slope(points: &[(u64, u64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(u64, u64)) -> u64| points.iter().map(|point| of(point) as f64).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let (mut above, mut below) = (0.0, 0.0);
    for point in points {
        let dx = point.0 as f64 - x;
        above += dx * (point.1 as f64 - y);
        below += dx * dx;
    }
    if below > 0.0 { above / below } else { 0.0 }
}
