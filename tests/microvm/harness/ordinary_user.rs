//! The program as a user who owns nothing but a home.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::processes::of_user;
use super::sandbox::Sandbox;
use super::world::search_path;

/// Nobody's: no passwd entry, no group. Each user of the tests has the next one.
static NEXT_UID: AtomicU32 = AtomicU32::new(12345);

/// A user with a uid, a home, and a program with its kit that it may read.
#[derive(Debug)]
pub struct OrdinaryUser {
    uid: u32,
    program: PathBuf,
    home: PathBuf,
}

impl OrdinaryUser {
    /// None, and the reason on stderr, where this process can't become another user.
    pub fn create(sandbox: &Sandbox) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can become another user (all other tests ran as an ordinary one)");
            return None;
        }
        fs::set_permissions(sandbox.root(), Permissions::from_mode(0o755)).expect("a readable directory");
        // As installed: the kit is found beside the program.
        let prefix = sandbox.root().join("prefix");
        let program = prefix.join("bin/creel");
        fs::create_dir_all(prefix.join("bin")).expect("a directory for the program");
        fs::create_dir_all(prefix.join("lib/creel")).expect("a directory for the kit");
        copy(&sandbox.world().program, &program);
        copy(&sandbox.world().kit, &prefix.join("lib/creel/kit"));
        let uid = NEXT_UID.fetch_add(1, Ordering::Relaxed);
        let user = Self { uid, program, home: sandbox.home() };
        user.own(&user.home);
        Some(user)
    }

    /// The program with HOME and PATH only, started in `directory`.
    pub fn creel<T: AsRef<OsStr>>(
        &self,
        directory: &Path,
        arguments: impl IntoIterator<Item = T>,
    ) -> Command {
        let path = std::env::join_paths(search_path()).expect("PATH");
        let uid = self.uid.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--inh-caps=-all", "--"])
            .arg(&self.program)
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.home)
            // A daemon of this host is none of the test's.
            .env("CREEL_DAEMON__SOCKET", self.home.join("creel.sock"))
            .current_dir(directory);
        command
    }

    /// Gives the user all below `path`.
    pub fn own(&self, path: &Path) {
        chown(path, Some(self.uid), Some(self.uid)).expect("chown");
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            for entry in fs::read_dir(path).expect("a directory").filter_map(Result::ok) {
                self.own(&entry.path());
            }
        }
    }

    /// Where machines are, as the user has no runtime directory.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/tmp/creel-{}", self.uid))
    }

    /// # Panics
    /// When something of a machine is left.
    pub fn expect_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.run_dir())
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .map(|entry| entry.file_name())
            .filter(|name| name != "lock")
            .collect();
        assert!(left.is_empty(), "left in {}: {left:?}", self.run_dir().display());
        let processes = of_user(self.uid);
        assert!(processes.is_empty(), "processes of uid {} are left: {processes:?}", self.uid);
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        // It lies outside the sandbox.
        let _ = fs::remove_dir_all(self.run_dir());
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-rL").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "cp {} {}: {status}", from.display(), to.display());
    let status = Command::new("chmod").arg("-R").arg("a+rX").arg(to).status().expect("chmod runs");
    assert!(status.success(), "chmod {}: {status}", to.display());
}
