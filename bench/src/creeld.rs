//! A creeld of the bench's own: its machines, its directories, its socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::api::Api;
use crate::programs::Programs;
use crate::row::{Failed, Trying as _};
use crate::service::{Service, tied};

const READY: Duration = Duration::from_secs(20);

/// The one image there is.
pub const IMAGE: &str = "tiny";

/// Which machines it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines<'a> {
    /// With this in QEMU's place.
    Native(&'a Path),
    Emulated,
}

/// A running creeld; dropped, it ends with its machines.
#[derive(Debug)]
pub struct Creeld {
    pub api: Api,
    pub service: Service,
    /// `creel` of the same build, told to use it.
    pub socket: PathBuf,
    pub run_dir: PathBuf,
}

impl Creeld {
    /// Starts one whose directories are all below `directory`, which has to be short: sockets lie in it.
    ///
    /// # Errors
    /// Why it did not start.
    pub async fn start(
        directory: &Path,
        images: &Path,
        programs: &Programs,
        machines: Machines<'_>,
    ) -> Result<Self, Failed> {
        fs::create_dir_all(directory).trying("make creeld's directory")?;
        let (socket, run_dir) = (directory.join("s"), directory.join("run"));
        let mut configuration = format!(
            "[daemon]\nsocket = {socket:?}\nmax_machines = 1100\n[machine]\naccel = \"tcg\"\nallow_tcg = true\n\
             transport = \"hybrid\"\n[cgroups]\nmode = \"auto\"\nroot = {:?}\n[images]\ndir = {images:?}\n\
             [scheduler]\nslots = 4\n[logs]\nmax_step = \"4096MiB\"\nmax_total = \"4096MiB\"\nmax_runs = 1\n[kit]\ndir = {:?}\n\
             [run]\ndir = {run_dir:?}\n[state]\ndir = {:?}\n[cache]\ndir = {:?}\n",
            directory.join("no-cgroup"),
            programs.kit,
            directory.join("state"),
            directory.join("cache"),
        );
        if let Machines::Native(program) = machines {
            // A script: it is no QEMU, and takes what a jail would not let it have.
            configuration.push_str(&format!("[qemu]\npath = {program:?}\n[jail]\nmode = \"off\"\n"));
        }
        let file = directory.join("creel.toml");
        fs::write(&file, configuration).trying("write creeld's configuration")?;
        let mut command = tied(&programs.creeld);
        command.arg("--config").arg(&file);
        let service = Service::start("creeld", command, directory, READY).await?;
        let api = Api::connect(&socket).await?;
        Ok(Self { api, service, socket, run_dir })
    }
}

/// Builds an image of busybox into `images`, with what is in `overlay`.
///
/// # Errors
/// With what `creel` said.
pub fn build_image(
    programs: &Programs,
    images: &Path,
    name: &str,
    overlay: Option<&Path>,
) -> Result<(), Failed> {
    let output = Command::new(&programs.creel)
        .args(["image", "build", "tiny", "--name", name])
        .args(overlay.map(|_| "--overlay"))
        .args(overlay)
        .env("CREEL_IMAGES__DIR", images)
        .env("CREEL_KIT__DIR", &programs.kit)
        .stdin(Stdio::null())
        .output()
        .trying("run `creel image build`")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failed::new(format!("`creel image build tiny` failed: {}", said.trim())))
}
