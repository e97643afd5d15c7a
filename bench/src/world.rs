//! What rows share: started when the first of them asks, ended when the bench does.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use crate::creeld::{Creeld, IMAGE, Machines, build_image};
use crate::docker::Docker;
use crate::native::Native;
use crate::programs::Programs;
use crate::root;
use crate::row::{Failed, Trying as _};

/// Fields end in this order: daemons before what they stand on.
#[derive(Debug)]
pub struct World {
    native: Option<Creeld>,
    emulated: Option<Creeld>,
    docker: Option<Docker>,
    native_machines: Option<Native>,
    /// What did not start does not start for the next row either.
    failures: BTreeMap<&'static str, Failed>,
    pub programs: Programs,
    /// Sizes are to be small.
    pub quick: bool,
    directory: TempDir,
}

impl World {
    /// An empty one.
    ///
    /// # Errors
    /// When there is no room for temporary files.
    pub fn new(programs: Programs, quick: bool) -> Result<Self, Failed> {
        // Sockets lie in it: its name has to be short.
        let directory =
            tempfile::Builder::new().prefix("cb").rand_bytes(4).tempdir().trying("make a directory")?;
        let failures = BTreeMap::new();
        Ok(Self {
            native: None,
            emulated: None,
            docker: None,
            native_machines: None,
            failures,
            programs,
            quick,
            directory,
        })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What `full` is in a quick run.
    pub fn sized(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    /// A creeld of native machines.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn native(&mut self) -> Result<&Creeld, Failed> {
        if self.native.is_none() {
            self.check("native")?;
            let started = self.start_native().await;
            self.native = Some(self.remember("native", started)?);
        }
        self.native.as_ref().ok_or_else(|| Failed::new("there is no creeld"))
    }

    async fn start_native(&mut self) -> Result<Creeld, Failed> {
        let (directory, programs) = (self.directory.path(), &self.programs);
        let root = shared_root(directory)?;
        let images = images(directory, programs)?;
        if self.native_machines.is_none() {
            self.native_machines = Some(Native::new(directory, &root, programs)?);
        }
        let program = self.native_machines.as_ref().map(|native| native.program.clone()).unwrap_or_default();
        Creeld::start(&directory.join("n"), &images, programs, Machines::Native(&program)).await
    }

    /// A creeld of emulated microVMs.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn emulated(&mut self) -> Result<&Creeld, Failed> {
        if self.emulated.is_none() {
            self.check("emulated")?;
            let started = async {
                let directory = self.directory.path();
                let images = images(directory, &self.programs)?;
                Creeld::start(&directory.join("v"), &images, &self.programs, Machines::Emulated).await
            };
            let started = started.await;
            self.emulated = Some(self.remember("emulated", started)?);
        }
        self.emulated.as_ref().ok_or_else(|| Failed::new("there is no creeld"))
    }

    /// A Docker.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn docker(&mut self) -> Result<&Docker, Failed> {
        if self.docker.is_none() {
            self.check("docker")?;
            let started = async {
                let directory = self.directory.path();
                Docker::start(&directory.join("d"), &shared_root(directory)?).await
            };
            let started = started.await;
            self.docker = Some(self.remember("docker", started)?);
        }
        self.docker.as_ref().ok_or_else(|| Failed::new("there is no Docker"))
    }

    /// The Docker that was started, if one was.
    pub fn docker_version(&self) -> Option<&str> {
        self.docker.as_ref().map(|docker| &*docker.version)
    }

    /// Where the image is, built when first asked for.
    ///
    /// # Errors
    /// With what the builder said.
    pub fn images(&self) -> Result<std::path::PathBuf, Failed> {
        images(self.directory.path(), &self.programs)
    }

    /// The root of machines and containers, laid out when first asked for.
    ///
    /// # Errors
    /// When it can't be.
    pub fn root(&self) -> Result<std::path::PathBuf, Failed> {
        shared_root(self.directory.path())
    }

    fn check(&self, what: &'static str) -> Result<(), Failed> {
        self.failures.get(what).map_or(Ok(()), |why| Err(why.clone()))
    }

    fn remember<T>(&mut self, what: &'static str, result: Result<T, Failed>) -> Result<T, Failed> {
        result.inspect_err(|why| {
            self.failures.insert(what, why.clone());
        })
    }
}

fn shared_root(directory: &Path) -> Result<std::path::PathBuf, Failed> {
    let root = directory.join("root");
    if !root.exists() {
        root::lay_out(&root)?;
    }
    Ok(root)
}

fn images(directory: &Path, programs: &Programs) -> Result<std::path::PathBuf, Failed> {
    let images = directory.join("images");
    if !images.exists() {
        build_image(programs, &images, IMAGE, None)?;
    }
    Ok(images)
}
