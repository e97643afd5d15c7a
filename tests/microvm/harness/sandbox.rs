//! Directories of one test's own, and the promise that nothing of a machine stays in them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::gate::Permit;
use super::processes::{touching, wait_until};
use super::run::Run;
use super::world::{World, search_path};

/// A home, and directories for machines, caches and state. Dropped, it checks that they are as empty as promised.
#[derive(Debug)]
pub struct Sandbox {
    world: &'static World,
    root: TempDir,
    _permit: Permit,
}

impl Sandbox {
    /// For one machine at a time.
    pub fn new(world: &'static World) -> Self {
        Self::with(world, Permit::one())
    }

    /// While it exists no other test runs machines.
    pub fn alone(world: &'static World) -> Self {
        Self::with(world, Permit::all())
    }

    fn with(world: &'static World, permit: Permit) -> Self {
        // Not TMPDIR, which can be long: sockets have 108 bytes for their path (unix(7)).
        let root = tempfile::Builder::new().prefix("creel-").tempdir_in("/tmp").expect("a test's directory");
        for name in ["home", "run", "cache", "state", "work"] {
            fs::create_dir(root.path().join(name)).expect("a directory of the test");
        }
        let sandbox = Self { world, root, _permit: permit };
        for private in [sandbox.run_dir(), sandbox.home()] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(private, mode).expect("a private directory");
        }
        sandbox
    }

    pub fn world(&self) -> &'static World {
        self.world
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.root().join("run")
    }

    pub fn cache_dir(&self) -> PathBuf {
        self.root().join("cache")
    }

    /// Where `creel` looks for a daemon, and a test's own creeld serves.
    pub fn daemon_socket(&self) -> PathBuf {
        self.root().join("creel.sock")
    }

    /// Where the program is started; in no repository.
    pub fn work_dir(&self) -> PathBuf {
        self.root().join("work")
    }

    /// The program, with an environment that is the test's alone.
    pub fn creel<T: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = T>) -> Command {
        let mut command = Command::new(&self.world.program);
        self.settle_in(&mut command);
        command.args(arguments);
        command
    }

    /// Gives a command the environment and working directory that [`Self::creel`] has.
    pub fn settle_in(&self, command: &mut Command) {
        let path = std::env::join_paths(search_path()).expect("PATH");
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home())
            .env("CREEL_KIT__DIR", &self.world.kit)
            .env("CREEL_IMAGES__DIR", &self.world.images)
            .env("CREEL_RUN__DIR", self.run_dir())
            .env("CREEL_CACHE__DIR", self.cache_dir())
            .env("CREEL_STATE__DIR", self.root().join("state"))
            // A daemon of this host is none of the test's.
            .env("CREEL_DAEMON__SOCKET", self.daemon_socket())
            .current_dir(self.work_dir());
    }

    /// Writes a workflow file and gives `creel run -f` of it, to which arguments can be added.
    pub fn workflow(&self, text: &str) -> Command {
        let path = self.work_dir().join("ci.yml");
        fs::write(&path, text).expect("a workflow file");
        let mut command = self.creel(["run", "-f"]);
        command.arg(path);
        command
    }

    /// Starts a workflow of one step.
    pub fn start_step(&self, image: &str, command: &str) -> Run {
        Run::start(self.workflow(&workflow(image, &[("step", command)])))
    }

    /// # Panics
    /// When something of a machine is still there after `limit`.
    pub fn expect_nothing_left_within(&self, limit: Duration) {
        wait_until(limit, "nothing is left", || {
            let left = self.left_over();
            if !left.is_empty() {
                eprintln!("left: {left:#?}");
            }
            left.is_empty()
        });
    }

    /// # Panics
    /// When a process of a machine still lives after `limit`.
    pub fn expect_no_process_within(&self, limit: Duration) {
        wait_until(limit, "no process is left", || touching(self.root()).is_empty());
    }

    /// The machine's directory, once there is one.
    pub fn machine_directory(&self) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.run_dir()).ok()?.filter_map(Result::ok);
        entries.find(|entry| entry.file_name().to_string_lossy().starts_with("m-")).map(|entry| entry.path())
    }

    /// Processes, and files that are neither the run directory's lock nor worth keeping in a cache.
    fn left_over(&self) -> Vec<String> {
        let users = touching(self.root());
        let users = users.into_iter().map(|user| {
            format!("process {} ({:?}) with {}", user.pid.as_raw_nonzero(), user.argv, user.why.display())
        });
        let files = files_below(self.root()).into_iter().filter(|path| {
            let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            let below = |directory: &Path| path.strip_prefix(directory).ok();
            let kept = match (below(&self.run_dir()), below(&self.cache_dir())) {
                (Some(path), _) => path == Path::new("lock") || path == Path::new("creeld.lock"),
                (_, Some(path)) => {
                    path == Path::new("kvm-proof.json")
                        || path.starts_with("volumes") && path.to_string_lossy().contains("/ext4-")
                }
                // Whatever the test itself has put there.
                _ => !is_socket,
            };
            !kept
        });
        users.chain(files.map(|path| format!("file {}", path.display()))).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let left = self.left_over();
            assert!(left.is_empty(), "left behind: {left:#?}");
        }
    }
}

/// A workflow for manual runs, without a clone step.
pub fn workflow(image: &str, steps: &[(&str, &str)]) -> String {
    let mut text =
        format!("engine: microvm\nimage: {image}\nwhen:\n  - event: manual\nclone:\n  skip: true\nsteps:\n");
    for (name, command) in steps {
        text += &format!("  - name: {name}\n    command: |\n");
        for line in command.lines() {
            text += &format!("      {line}\n");
        }
    }
    text
}

/// All that is no directory, and directories that are empty but belong to a machine.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries
        .flat_map(|entry| {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let is_machine = entry.file_name().to_string_lossy().starts_with("m-");
            match (is_directory, is_machine) {
                (true, false) => files_below(&path),
                _ => vec![path],
            }
        })
        .collect()
}
