//! Input by the whole path: API, creeld, agent, program.

use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;

use super::{throughput, unprepared};
use crate::api::{Api, Machine};
use crate::creeld::IMAGE;
use crate::data::{BLOCK_BYTES, noise, sha256};
use crate::docker::Cli;
use crate::row::{About, Better, Failed, Row};
use crate::world::World;

const BYTES: u64 = 1 << 30;
const QUICK_BYTES: u64 = 256 << 20;

/// Hashed on both ways before anything is measured: hashing in each run would measure the hash.
const CHECKED_BLOCKS: u64 = 32;

const SWALLOW: [&str; 3] = ["/bin/sh", "-c", "cat >/dev/null"];
const HASH: [&str; 1] = ["/bin/sha256sum"];

/// `exec -i` of either.
#[derive(Debug, Default)]
pub struct Stdin {
    bytes: u64,
    block: Bytes,
    ours: Option<(Api, Machine)>,
    peer: Option<Cli>,
}

impl Stdin {
    fn blocks(&self) -> u64 {
        self.bytes / BLOCK_BYTES as u64
    }

    fn input(&self, blocks: u64) -> impl futures_util::Stream<Item = Bytes> + Send + Unpin + 'static {
        let block = self.block.clone();
        stream::iter((0..blocks).map(move |_| block.clone()))
    }

    fn check(&self, side: &str, said: &str) -> Result<(), Failed> {
        let all: Vec<u8> = (0..CHECKED_BLOCKS).flat_map(|_| self.block.to_vec()).collect();
        let (hash, said) = (sha256(&all), said.split(' ').next().unwrap_or_default());
        if said == hash {
            return Ok(());
        }
        Err(Failed::new(format!("{side} delivered other bytes: their hash is `{said}` instead of {hash}")))
    }
}

#[async_trait]
impl Row for Stdin {
    fn about(&self) -> About {
        About {
            name: "stdin",
            unit: "MiB/s",
            better: Better::Higher,
            goal: None,
            ours: "creel API, native agent",
            peer: Some("docker exec -i"),
            meaning: "1 GiB of random bytes into `cat >/dev/null`, from the call to the verdict. Both ways carry 32 MiB \
                      into `sha256sum` first, and the hashes have to be right.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.bytes = world.sized(BYTES, QUICK_BYTES);
        self.block = noise(BLOCK_BYTES);
        let creeld = world.native().await?;
        let (api, machine) = (creeld.api.clone(), creeld.api.create(IMAGE).await?);
        self.ours = Some((api.clone(), machine.clone()));
        let hashed = api.exec_with_input(&machine, &HASH, self.input(CHECKED_BLOCKS)).await?;
        self.check("creel", &String::from_utf8_lossy(&hashed.stdout))
    }

    async fn prepare_peer(&mut self, world: &mut World) -> Result<(), Failed> {
        let cli = world.docker().await?.cli.clone();
        let hashed = cli.exec_with_input(&HASH, &self.block, CHECKED_BLOCKS).await?;
        self.peer = Some(cli);
        self.check("Docker", &hashed)
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let (api, machine) = self.ours.as_ref().ok_or_else(unprepared)?;
        let started = Instant::now();
        api.exec_with_input(machine, &SWALLOW, self.input(self.blocks())).await?;
        Ok(throughput(self.bytes, started.elapsed()))
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        let cli = self.peer.as_ref().ok_or_else(unprepared)?;
        let started = Instant::now();
        cli.exec_with_input(&SWALLOW, &self.block, self.blocks()).await?;
        Ok(throughput(self.bytes, started.elapsed()))
    }

    async fn clean_up(&mut self) -> Result<(), Failed> {
        match self.ours.take() {
            Some((api, machine)) => api.destroy(&machine).await,
            None => Ok(()),
        }
    }
}
