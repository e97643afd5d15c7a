//! A Docker of the bench's own: its daemon, one container, and the two ways of running something in it.

mod http;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::programs::installed;
use crate::root::WORKFLOW_UID;
use crate::row::{Failed, Trying as _};
use crate::service::{Service, tied};

pub use http::Engine;

const READY: Duration = Duration::from_secs(60);

/// The container's name, and its image's.
const CONTAINER: &str = "bench";

/// Reads of whoever counts output.
const READ_BYTES: usize = 256 << 10;

/// A running dockerd with a running container.
#[derive(Debug)]
pub struct Docker {
    /// First, so that it ends before its directory goes.
    _service: Service,
    pub cli: Cli,
    pub engine: Engine,
    pub version: String,
}

/// The `docker` command, told where its daemon is.
#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    host: String,
    /// Instead of the user's own: nothing of his settings is to matter.
    configuration: PathBuf,
}

impl Docker {
    /// Starts both; the container's root is a copy of `root`. Nothing of it is seen from outside of `directory`, and the
    /// host's network is left alone.
    ///
    /// # Errors
    /// What is missing, or did not start.
    pub async fn start(directory: &Path, root: &Path) -> Result<Self, Failed> {
        let missing = |name: &str| Failed::new(format!("there is no {name}; run `scripts/setup --bench`"));
        let daemon = installed("dockerd", &["/usr/sbin", "/usr/bin"]).ok_or_else(|| missing("dockerd"))?;
        let program = installed("docker", &["/usr/bin"]).ok_or_else(|| missing("docker"))?;
        fs::create_dir_all(directory).trying("make Docker's directory")?;
        let socket = directory.join("s");
        let mut command = tied(daemon);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(directory.join(name));
        }
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false"]);
        command.args(["--ip-forward=false", "--ip-masq=false", "--log-level", "warn"]);
        // It looks for containerd and runc there, which an ordinary user's path lacks.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let service = Service::start("dockerd", command, directory, READY)
            .await
            .map_err(|why| Failed::new(format!("dockerd did not start: {why}")))?;
        let configuration = directory.join("cli");
        let cli = Cli { program, host: format!("unix://{}", socket.display()), configuration };
        import(&cli, root)?;
        let user = format!("{WORKFLOW_UID}:{WORKFLOW_UID}");
        // Its first process heeds no SIGTERM.
        let quiet = ["--network", "none", "--stop-signal", "KILL"];
        let named = ["--user", &user, "--name", CONTAINER, CONTAINER];
        let run = ["run", "--detach"].into_iter().chain(quiet).chain(named);
        cli.ask(run.chain(["/bin/sleep", "86400"]))?;
        let version = cli.ask(["version", "--format", "{{.Server.Version}}"])?;
        Ok(Self { _service: service, cli, engine: Engine::new(socket, CONTAINER), version })
    }
}

/// Makes an image of a directory, without a registry.
fn import(cli: &Cli, root: &Path) -> Result<(), Failed> {
    let mut tar = Command::new("tar")
        .args(["--create", "--numeric-owner", "--directory"])
        .arg(root)
        .arg(".")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .trying("run tar")?;
    let archive = tar.stdout.take().ok_or_else(|| Failed::new("tar has no output"))?;
    let output = cli.command(["import", "-", CONTAINER]).stdin(archive).output();
    let packed = tar.wait().trying("wait for tar")?;
    let output = output.trying("run `docker import`")?;
    if packed.success() && output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failed::new(format!("`docker import` failed: {}", said.trim())))
}

impl Cli {
    fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.configuration).args(["--host", &self.host]).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// What a short command answers.
    fn ask<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<String, Failed> {
        let output = self.command(words).output().trying("run docker")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failed::new(format!("docker failed: {}", said.trim())))
    }

    /// `docker exec` to its successful end; how much it wrote.
    ///
    /// # Errors
    /// Any other end.
    pub async fn exec(&self, argv: &[&str]) -> Result<u64, Failed> {
        let mut command = tokio::process::Command::from(self.command(["exec", CONTAINER]));
        command.args(argv).stdout(Stdio::piped()).kill_on_drop(true);
        run_counting(command).await
    }

    /// `docker exec --interactive`, with `block` so many times as its input; how much it wrote, and what, if that is short.
    ///
    /// # Errors
    /// Any other end.
    pub async fn exec_with_input(&self, argv: &[&str], block: &[u8], times: u64) -> Result<String, Failed> {
        let mut command = tokio::process::Command::from(self.command(["exec", "--interactive", CONTAINER]));
        command.args(argv).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().trying("run `docker exec`")?;
        let mut input = child.stdin.take().ok_or_else(|| Failed::new("docker has no input"))?;
        let feed = async {
            for _ in 0..times {
                input.write_all(block).await.trying("write to `docker exec`")?;
            }
            drop(input);
            Ok(())
        };
        let end = async { child.wait_with_output().await.trying("wait for `docker exec`") };
        let ((), output) = tokio::try_join!(feed, end)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(Failed::new(format!("`docker exec` ended as {}", output.status)))
    }
}

/// Runs a command to its successful end; how much it wrote on stdout.
///
/// # Errors
/// Any other end.
pub async fn run_counting(mut command: tokio::process::Command) -> Result<u64, Failed> {
    let mut child = command.spawn().trying("run a command")?;
    let output = child.stdout.take().ok_or_else(|| Failed::new("the command has no output"))?;
    let bytes = count(output).await.trying("read a command's output")?;
    let status = child.wait().await.trying("wait for a command")?;
    if status.success() { Ok(bytes) } else { Err(Failed::new(format!("the command ended as {status}"))) }
}

async fn count(mut output: impl AsyncRead + Unpin) -> std::io::Result<u64> {
    let (mut buffer, mut bytes) = (vec![0; READ_BYTES], 0);
    loop {
        match output.read(&mut buffer).await? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}
