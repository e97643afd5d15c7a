//! What creel takes of its host's memory while nothing happens.

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::unprepared;
use crate::creeld::{Creeld, IMAGE, Machines};
use crate::native::Native;
use crate::programs::Programs;
use crate::row::{About, Better, Failed, Row, Trying as _};
use crate::world::World;

const MACHINES: u64 = 32;
const QUICK_MACHINES: u64 = 8;

/// creeld alone.
#[derive(Debug, Default)]
pub struct DaemonMemory {
    place: Option<Place>,
}

/// What a machine adds to creeld and its keeper.
#[derive(Debug, Default)]
pub struct MachineMemory {
    place: Option<Place>,
    machines: u64,
}

/// Where a fresh creeld is started for each run.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    images: PathBuf,
    programs: Programs,
    native: Native,
    started: u32,
}

impl Place {
    fn new(world: &World, name: &str) -> Result<Self, Failed> {
        let directory = world.directory().join(name);
        fs::create_dir_all(&directory).trying("make a directory")?;
        let native = Native::new(&directory, &world.root()?, &world.programs)?;
        Ok(Self { directory, images: world.images()?, programs: world.programs.clone(), native, started: 0 })
    }

    async fn creeld(&mut self) -> Result<Creeld, Failed> {
        self.started += 1;
        let directory = self.directory.join(self.started.to_string());
        let machines = Machines::Native(&self.native.program);
        Creeld::start(&directory, &self.images, &self.programs, machines).await
    }
}

#[async_trait]
impl Row for DaemonMemory {
    fn about(&self) -> About {
        About {
            name: "daemon-memory",
            unit: "MiB",
            better: Better::Lower,
            goal: None,
            ours: "creeld, idle",
            peer: None,
            meaning: "Resident memory of a creeld that has just started and has no machine.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.place = Some(Place::new(world, "i")?);
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let creeld = self.place.as_mut().ok_or_else(unprepared)?.creeld().await?;
        Ok(resident_kib(creeld.service.pid())? / 1024.0)
    }
}

#[async_trait]
impl Row for MachineMemory {
    fn about(&self) -> About {
        About {
            name: "machine-memory",
            unit: "KiB",
            better: Better::Lower,
            goal: None,
            ours: "creeld's share and the keeper, a native machine",
            peer: None,
            meaning: "What creeld grows by, and its keeper's resident memory, for each of 32 idle native machines. The vsock \
                      helper, the agent and, in a real machine, QEMU come on top.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.machines = world.sized(MACHINES, QUICK_MACHINES);
        self.place = Some(Place::new(world, "j")?);
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let creeld = self.place.as_mut().ok_or_else(unprepared)?.creeld().await?;
        let before = resident_kib(creeld.service.pid())?;
        let mut keepers = 0.0;
        let mut machines = Vec::new();
        for _ in 0..self.machines {
            machines.push(creeld.api.create(IMAGE).await?);
        }
        for machine in &machines {
            let pid = machine.keeper_pid.ok_or_else(|| Failed::new("creeld names no keeper"))?;
            keepers += resident_kib(pid)?;
        }
        let grown = resident_kib(creeld.service.pid())? - before;
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let count = self.machines as f64;
        Ok((grown + keepers) / count)
    }
}

/// proc(5), VmRSS.
fn resident_kib(pid: u32) -> Result<f64, Failed> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let status = fs::read_to_string(&path).trying(&format!("read `{}`", path.display()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().split(' ').next()?.parse().ok());
    kib.ok_or_else(|| Failed::new(format!("`{}` names no VmRSS", path.display())))
}
