//! What `exec` and its sibling over tokio show: who talks to whom and how, and a bulk transfer in figures.

use std::error::Error;
use std::io::{self, Write, stdout};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use ssh_proto::adapter::Output;
use ssh_proto::{ExitStatus, Negotiated, PeerText};

/// What the embedded server is to run first.
pub(crate) const COMMAND: &str = "echo hello from the other end; echo and a word aside >&2; exit 7";
/// What it answers to with the SHA-256 of its input.
pub(crate) const HASH: &[u8] = b"sha256";
const BULK: u64 = 256 << 20;
const PIECE: usize = 256 * 1024;

/// Says who talks to whom, and how.
pub(crate) fn describe(
    out: &mut impl Write,
    (ours, theirs): (String, PeerText),
    negotiated: Option<Negotiated>,
) -> io::Result<()> {
    writeln!(out, "client version:  {ours}\nserver version:  {theirs}")?;
    if let Some(chosen) = negotiated {
        let mac = |name: Option<&'static str>| name.unwrap_or("(in the cipher)");
        writeln!(out, "key exchange:    {}", chosen.kex)?;
        writeln!(out, "host key:        {}", chosen.host_key)?;
        writeln!(
            out,
            "cipher c→s, s→c: {}, {}",
            chosen.cipher_client_to_server, chosen.cipher_server_to_client
        )?;
        let (to_server, to_client) = (chosen.mac_client_to_server, chosen.mac_server_to_client);
        writeln!(out, "MAC c→s, s→c:    {}, {}", mac(to_server), mac(to_client))?;
        writeln!(out, "strict kex:      {}", if chosen.strict_kex { "yes" } else { "no" })?;
    }
    Ok(())
}

/// Shows what [`COMMAND`] did, which must be what is expected.
pub(crate) fn show(output: &Output) -> Result<(), Box<dyn Error>> {
    let mut out = stdout();
    write!(out, "stdout: {}", String::from_utf8_lossy(&output.stdout))?;
    write!(out, "stderr: {}", String::from_utf8_lossy(&output.stderr))?;
    writeln!(out, "status: {:?}\n", output.status)?;
    if output.status != Some(ExitStatus::Code(7)) || output.stdout.is_empty() || output.stderr.is_empty() {
        return Err("the command did not run as expected".into());
    }
    Ok(())
}

/// What is sent in bulk, and its figures.
pub(crate) struct Bulk {
    bar: ProgressBar,
    hash: Sha256,
    buffer: Vec<u8>,
    counter: u64,
    left: u64,
    begin: Instant,
}

impl Bulk {
    pub(crate) fn begin() -> Result<Self, Box<dyn Error>> {
        let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec}")?;
        Ok(Self {
            bar: ProgressBar::new(BULK).with_style(style),
            hash: Sha256::new(),
            buffer: vec![0; PIECE],
            counter: 0,
            left: BULK,
            begin: Instant::now(),
        })
    }

    /// The next piece to be sent.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let len = self.buffer.len() as u64;
        self.bar.set_position(BULK - self.left);
        self.left = self.left.checked_sub(len)?;
        fill(&mut self.buffer, &mut self.counter);
        self.hash.update(&self.buffer);
        Some(&self.buffer)
    }

    /// Shows the figures; the digest must be that of the other end.
    pub(crate) fn finish(self, theirs: &[u8]) -> Result<(), Box<dyn Error>> {
        let seconds = self.begin.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        let ours = self.hash.finalize();
        let agree = theirs == &ours[..];
        let mut out = stdout();
        writeln!(
            out,
            "{} MiB through one channel in {seconds:.2} s: {:.0} MB/s, hashed at both ends on the way",
            BULK >> 20,
            BULK as f64 / 1e6 / seconds,
        )?;
        writeln!(out, "SHA-256 {}: {}", hex(&ours), if agree { "agrees" } else { "DIFFERS" })?;
        if agree { Ok(()) } else { Err("the digests differ".into()) }
    }
}

/// Bytes that do not repeat within a window: a counter, multiplied.
fn fill(buffer: &mut [u8], counter: &mut u64) {
    for chunk in buffer.chunks_mut(8) {
        *counter = counter.wrapping_add(1);
        let word = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let n = chunk.len();
        chunk.copy_from_slice(&word[..n]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
