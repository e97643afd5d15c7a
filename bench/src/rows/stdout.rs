//! Output by the whole path: agent, creeld, mask, log on disk, API, reader.

use std::time::Instant;

use async_trait::async_trait;

use super::{throughput, unprepared};
use crate::api::Api;
use crate::creeld::IMAGE;
use crate::docker::{Cli, Engine};
use crate::root::{SECRET, writing};
use crate::row::{About, Better, Failed, Row};
use crate::world::World;

const BYTES: u64 = 1 << 30;
const QUICK_BYTES: u64 = 256 << 20;

/// RunStep and a follower of its log, against a reader of an exec.
#[derive(Debug)]
pub struct Stdout {
    engine: bool,
    bytes: u64,
    runs: u32,
    ours: Option<Api>,
    peer: Option<Peer>,
}

#[derive(Debug)]
enum Peer {
    Command(Cli),
    Engine(Engine),
}

impl Stdout {
    pub fn against_command() -> Self {
        Self { engine: false, bytes: BYTES, runs: 0, ours: None, peer: None }
    }

    pub fn against_engine() -> Self {
        Self { engine: true, ..Self::against_command() }
    }
}

#[async_trait]
impl Row for Stdout {
    fn about(&self) -> About {
        let about = About {
            name: "stdout",
            unit: "MiB/s",
            better: Better::Higher,
            goal: Some(2.0),
            ours: "creel: step, mask, log, follower; native agent",
            peer: Some("docker exec"),
            meaning: "1 GiB of text that a step writes, to a follower of its log, with a secret to mask in all its forms, \
                      which stands in every MiB: from `RunStep` until verdict and last byte are there. A log that gives a byte up fails the row. \
                      `docker exec` of the same script writes into a pipe that is read and counted; it masks and stores \
                      nothing. Only the last run is remembered (`logs.max_runs`): a host that writes one such log after another \
                      is bound by its disk at last.",
        };
        match self.engine {
            false => about,
            true => About {
                name: "stdout-api",
                goal: None,
                peer: Some("Docker HTTP API"),
                meaning: "The same against Docker's own stream, read from its socket without its command between.",
                ..about
            },
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.bytes = world.sized(BYTES, QUICK_BYTES);
        self.ours = Some(world.native().await?.api.clone());
        Ok(())
    }

    async fn prepare_peer(&mut self, world: &mut World) -> Result<(), Failed> {
        let docker = world.docker().await?;
        self.peer = Some(match self.engine {
            true => Peer::Engine(docker.engine.clone()),
            false => Peer::Command(docker.cli.clone()),
        });
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let api = self.ours.as_ref().ok_or_else(unprepared)?;
        self.runs += 1;
        let id = format!("{}-{}", self.about().name, self.runs);
        let workflow = api.workflow(&id, IMAGE, &writing(self.bytes)).await?;
        let took = workflow.run_step(SECRET, self.bytes).await;
        workflow.destroy().await?;
        Ok(throughput(self.bytes, took?))
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        let script = writing(self.bytes);
        let argv = ["/bin/sh", "-c", &script];
        let started = Instant::now();
        let bytes = match self.peer.as_ref().ok_or_else(unprepared)? {
            Peer::Command(cli) => cli.exec(&argv).await?,
            Peer::Engine(engine) => engine.exec(&argv).await?,
        };
        if bytes != self.bytes {
            return Err(Failed::new(format!("Docker passed {bytes} of {} bytes on", self.bytes)));
        }
        Ok(throughput(self.bytes, started.elapsed()))
    }
}
