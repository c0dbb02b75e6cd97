//! The peers, and the place with keys and accounts that a run needs.

use std::env;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::matrix::Combo;
use crate::process::kill_inside;

/// The one account that every server knows.
pub(crate) const USER: &str = "interop";
/// Its password.
pub(crate) const PASSWORD: &str = "correct horse";
/// The same as `crypt(3)` has it.
const PASSWORD_HASH: &str =
    "$6$interop$SA27CQnjhyZ8nbkeBh/euiWGEMLWsdFLvleXeFGmLDMjRZeqT.Xq94dVMYxOAMHdmmJ/bmGpV9vxPlDRtRKP5.";

/// The types of the key files, as `ssh-keygen -t` takes them.
const KEY_TYPES: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

/// An SSH implementation to test against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    OpenSsh,
    Dropbear,
    Paramiko,
    AsyncSsh,
}

impl Peer {
    /// The name in the summary and in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenSsh => "openssh",
            Self::Dropbear => "dropbear",
            Self::Paramiko => "paramiko",
            Self::AsyncSsh => "asyncssh",
        }
    }
}

/// What a peer offers: comma-separated names, or its defaults.
///
/// dropbear takes none of it but `cipher` and `mac`, and those as a client
/// only; its server shows just the host keys that it is given.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) kex: Option<&'a str>,
    pub(crate) cipher: Option<&'a str>,
    pub(crate) mac: Option<&'a str>,
    pub(crate) host_key: Option<&'a str>,
    /// The signature algorithm of a client's key.
    pub(crate) user_key: Option<&'a str>,
    /// Bytes after which the peer asks for new keys.
    pub(crate) rekey: Option<u64>,
}

impl From<&Combo> for Offer<'static> {
    fn from(combo: &Combo) -> Self {
        Self {
            kex: Some(combo.kex),
            cipher: Some(combo.cipher),
            mac: combo.mac,
            host_key: Some(combo.host_key),
            user_key: Some(combo.user_key),
            rekey: None,
        }
    }
}

/// A private key file in OpenSSH's format, with others made of it.
#[derive(Clone, Debug)]
pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The file with the public key, one line.
    pub(crate) fn public_path(&self) -> PathBuf {
        self.0.with_extension("pub")
    }

    /// Type and base64 of the public key, without a comment.
    pub(crate) fn public_line(&self) -> String {
        let line = read(&self.public_path());
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// The private key in dropbear's format.
    pub(crate) fn dropbear_path(&self) -> PathBuf {
        self.0.with_extension("dropbear")
    }

    fn generate(dir: &Path, role: &str, kind: &str) {
        let key = Self(dir.join(format!("{role}_{kind}")));
        let mut keygen = Command::new("/usr/bin/ssh-keygen");
        keygen.args(["-q", "-N", "", "-C", role, "-t", kind]);
        match kind {
            "rsa" => drop(keygen.args(["-b", "2048"])),
            "ecdsa" => drop(keygen.args(["-b", "256"])),
            _ => (),
        }
        run(keygen.arg("-f").arg(key.path()));
        run(Command::new("/usr/bin/dropbearconvert")
            .args(["openssh", "dropbear"])
            .args([key.path(), &key.dropbear_path()]));
    }
}

/// A directory with keys and accounts, removed in the end unless the test
/// fails; servers and clients are started from here.
pub(crate) struct Rig {
    dir: PathBuf,
    python: PathBuf,
    serial: AtomicUsize,
    /// A test that used it failed.
    failed: AtomicBool,
}

/// A test's part in the rig that all tests of a process share.
pub(crate) struct Share(Arc<Rig>);

impl Deref for Share {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

impl Rig {
    /// The rig that other tests use at this time, or a new one.
    pub(crate) fn share() -> Share {
        static SHARED: Mutex<Weak<Rig>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let rig = shared.upgrade().unwrap_or_else(|| Arc::new(Self::new()));
        *shared = Arc::downgrade(&rig);
        Share(rig)
    }

    /// Makes the keys and files of a run below `$SSH_INTEROP_DIR` (by default
    /// `target/interop`), where `setup.sh` has put the Python environment.
    fn new() -> Self {
        static RIGS: AtomicUsize = AtomicUsize::new(0);
        let base = base_dir();
        let base = base.canonicalize().unwrap_or(base);
        let python = base.join("venv/bin/python");
        assert!(python.exists(), "{} is missing: run tests/interop/setup.sh first", python.display());
        let serial = RIGS.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("run-{}-{serial}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("home/.ssh")).expect("run directory");
        let rig = Self { dir, python, serial: AtomicUsize::new(0), failed: AtomicBool::new(false) };
        for role in ["host", "user", "stranger"] {
            for kind in KEY_TYPES {
                KeyFile::generate(&rig.dir, role, kind);
            }
        }
        rig.write_account();
        rig
    }

    pub(crate) fn python(&self) -> &Path {
        &self.python
    }

    /// The account's home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The public keys that may log in, in the format of OpenSSH.
    pub(crate) fn authorized_keys(&self) -> PathBuf {
        self.home().join(".ssh/authorized_keys")
    }

    /// The servers' key for a signature algorithm.
    pub(crate) fn host_key(&self, algorithm: &str) -> KeyFile {
        self.key("host", algorithm)
    }

    /// One key of each type.
    pub(crate) fn host_keys(&self) -> Vec<KeyFile> {
        KEY_TYPES.map(|kind| KeyFile(self.dir.join(format!("host_{kind}")))).into()
    }

    /// The account's key for a signature algorithm.
    pub(crate) fn user_key(&self, algorithm: &str) -> KeyFile {
        self.key("user", algorithm)
    }

    /// A key that no server has and no account accepts.
    pub(crate) fn stranger_key(&self, algorithm: &str) -> KeyFile {
        self.key("stranger", algorithm)
    }

    fn key(&self, role: &str, algorithm: &str) -> KeyFile {
        let kind = match algorithm {
            "ssh-ed25519" => "ed25519",
            "ecdsa-sha2-nistp256" => "ecdsa",
            "rsa-sha2-256" | "rsa-sha2-512" => "rsa",
            _ => panic!("no key for {algorithm}"),
        };
        KeyFile(self.dir.join(format!("{role}_{kind}")))
    }

    /// A new directory for the files of one process.
    pub(crate) fn fresh_dir(&self, name: &str) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("{serial:04}-{name}"));
        fs::create_dir(&dir).expect("fresh directory");
        dir
    }

    /// sshd and dropbear know accounts of the system only, so they are run
    /// with nss_wrapper, which shows them these files in place of the real
    /// ones: one account more, with the rights of who runs the test.
    fn write_account(&self) {
        let authorized: String = KEY_TYPES
            .map(|kind| KeyFile(self.dir.join(format!("user_{kind}"))).public_line() + "\n")
            .concat();
        write(&self.authorized_keys(), &authorized);
        // dropbear refuses directories that others may write to.
        for dir in [self.home(), self.home().join(".ssh")] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("chmod");
        }
        let id = |flag| run(Command::new("id").arg(flag)).trim().to_owned();
        let home = self.home();
        let account = format!("{USER}:x:{}:{}::{}:/bin/sh\n", id("-u"), id("-g"), home.display());
        write(&self.dir.join("passwd"), &(account + &read(Path::new("/etc/passwd"))));
        write(&self.dir.join("group"), &read(Path::new("/etc/group")));
        write(&self.dir.join("shadow"), &format!("{USER}:{PASSWORD_HASH}:19000:0:99999:7:::\n"));
    }

    /// Makes a server see the account.
    pub(crate) fn with_account(&self, command: &mut Command) {
        command.env("LD_PRELOAD", "libnss_wrapper.so");
        for file in ["passwd", "group", "shadow"] {
            let name = format!("NSS_WRAPPER_{}", file.to_uppercase());
            command.env(name, self.dir.join(file));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        kill_inside(&self.dir);
        if self.failed.load(Ordering::Relaxed) {
            eprintln!("the files of this run are in {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Where the Python environment, the runs' files and the summary are.
pub(crate) fn base_dir() -> PathBuf {
    match env::var_os("SSH_INTEROP_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop"),
    }
}

/// Runs a short command that must succeed, and returns its output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

pub(crate) fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
