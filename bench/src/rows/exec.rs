//! How long `true` takes, from the call to its verdict: a program that keeps a connection, and commands.

use std::time::Instant;

use async_trait::async_trait;

use super::unprepared;
use crate::api::{Api, Machine};
use crate::creeld::IMAGE;
use crate::docker::{Cli, Engine, run_counting};
use crate::figures::median;
use crate::row::{About, Better, Failed, Row};
use crate::world::World;

const TRUE: [&str; 1] = ["/bin/true"];

/// A run is the median of so many, since one exec in a hundred meets something else on the host.
const EXECS: u64 = 40;
const QUICK_EXECS: u64 = 10;

const GOAL: f64 = 0.1;

/// The API of either.
#[derive(Debug)]
pub struct Exec {
    emulated: bool,
    execs: u64,
    ours: Option<(Api, Machine)>,
    peer: Option<Engine>,
}

impl Exec {
    pub fn native() -> Self {
        Self { emulated: false, execs: EXECS, ours: None, peer: None }
    }

    pub fn emulated() -> Self {
        Self { emulated: true, ..Self::native() }
    }
}

#[async_trait]
impl Row for Exec {
    fn about(&self) -> About {
        let about = About {
            name: "exec",
            unit: "ms",
            better: Better::Lower,
            goal: Some(GOAL),
            ours: "creel API, native agent",
            peer: Some("Docker HTTP API"),
            meaning: "`true` from the call to its verdict, by a client that keeps its connection: creel.v1 `Exec` against \
                      Docker's exec create, start and inspect. Creel's agent is a process of this host, as the \
                      container is.",
        };
        match self.emulated {
            false => about,
            true => About {
                name: "exec-vm",
                ours: "creel API, emulated microVM",
                meaning: "The same into a real microVM, whose processor is emulated here: the guest's fork and exec are \
                          most of it.",
                ..about
            },
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.execs = world.sized(EXECS, QUICK_EXECS);
        let creeld = if self.emulated { world.emulated().await? } else { world.native().await? };
        let machine = creeld.api.create(IMAGE).await?;
        self.ours = Some((creeld.api.clone(), machine));
        Ok(())
    }

    async fn prepare_peer(&mut self, world: &mut World) -> Result<(), Failed> {
        self.peer = Some(world.docker().await?.engine.clone());
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let (api, machine) = self.ours.as_ref().ok_or_else(unprepared)?;
        milliseconds(self.execs, || async { api.exec(machine, &TRUE).await.map(drop) }).await
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        let engine = self.peer.as_ref().ok_or_else(unprepared)?;
        milliseconds(self.execs, || async { engine.exec(&TRUE).await.map(drop) }).await
    }

    async fn clean_up(&mut self) -> Result<(), Failed> {
        match self.ours.take() {
            Some((api, machine)) => api.destroy(&machine).await,
            None => Ok(()),
        }
    }
}

/// The commands of either.
#[derive(Debug, Default)]
pub struct Commands {
    execs: u64,
    ours: Option<OurCommand>,
    peer: Option<Cli>,
}

#[derive(Debug)]
struct OurCommand {
    program: std::path::PathBuf,
    socket: std::path::PathBuf,
    api: Api,
    machine: Machine,
}

#[async_trait]
impl Row for Commands {
    fn about(&self) -> About {
        About {
            name: "exec-command",
            unit: "ms",
            better: Better::Lower,
            goal: Some(GOAL),
            ours: "creel exec, native agent",
            peer: Some("docker exec"),
            meaning: "The same as commands: `creel exec ID -- true` against `docker exec ID true`. Both start a program, \
                      which connects, asks, and exits with the verdict.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.execs = world.sized(EXECS, QUICK_EXECS);
        let program = world.programs.creel.clone();
        let creeld = world.native().await?;
        let machine = creeld.api.create(IMAGE).await?;
        self.ours =
            Some(OurCommand { program, socket: creeld.socket.clone(), api: creeld.api.clone(), machine });
        Ok(())
    }

    async fn prepare_peer(&mut self, world: &mut World) -> Result<(), Failed> {
        self.peer = Some(world.docker().await?.cli.clone());
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let OurCommand { program, socket, machine, .. } = self.ours.as_ref().ok_or_else(unprepared)?;
        let exec = || async {
            let mut command = tokio::process::Command::new(program);
            command.args(["exec", "--socket"]).arg(socket).args([&*machine.id, "--"]).args(TRUE);
            command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
            command.kill_on_drop(true);
            run_counting(command).await.map(drop)
        };
        milliseconds(self.execs, exec).await
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        let cli = self.peer.as_ref().ok_or_else(unprepared)?;
        milliseconds(self.execs, || async { cli.exec(&TRUE).await.map(drop) }).await
    }

    async fn clean_up(&mut self) -> Result<(), Failed> {
        match self.ours.take() {
            Some(OurCommand { api, machine, .. }) => api.destroy(&machine).await,
            None => Ok(()),
        }
    }
}

/// The median of `count` calls, one after the other.
async fn milliseconds<F>(count: u64, call: impl Fn() -> F) -> Result<f64, Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    let mut took = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        call().await?;
        took.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    median(&took).ok_or_else(unprepared)
}
