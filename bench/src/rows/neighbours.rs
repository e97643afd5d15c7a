//! What one program whose output nobody reads costs the others of its machine.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::unprepared;
use crate::api::{Api, Machine};
use crate::creeld::IMAGE;
use crate::row::{About, Better, Failed, Row};
use crate::world::World;

/// At once: with the one that is not read as many as the contract's 64.
const OTHERS: usize = 63;

/// A shell and a few lines, each in a write(2) of its own.
const TALK: [&str; 3] =
    ["/bin/sh", "-c", "i=0; while [ $i -lt 100 ]; do echo a line of output $i; i=$((i+1)); done"];

const ENDLESS: [&str; 3] = ["/bin/sh", "-c", "exec yes"];

/// Until it has filled all that there is on its way.
const FILLED: Duration = Duration::from_millis(500);

/// Many execs, with and without.
#[derive(Debug, Default)]
pub struct Neighbours {
    machine: Option<(Api, Machine)>,
}

impl Neighbours {
    async fn others(&self) -> Result<f64, Failed> {
        let (api, machine) = self.machine.as_ref().ok_or_else(unprepared)?;
        let started = Instant::now();
        try_join_all((0..OTHERS).map(|_| api.exec(machine, &TALK))).await?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

#[async_trait]
impl Row for Neighbours {
    fn about(&self) -> About {
        About {
            name: "neighbours",
            unit: "ms",
            better: Better::Lower,
            goal: Some(1.1),
            ours: "63 execs beside one that is not read",
            peer: Some("the same 63 alone"),
            meaning: "64 execs at once in one machine with a native agent. One writes without end and its reader has stopped; \
                      how long until the 63 others, which write 100 lines each, have all ended, against the same without it.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        let creeld = world.native().await?;
        self.machine = Some((creeld.api.clone(), creeld.api.create(IMAGE).await?));
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let (api, machine) = self.machine.as_ref().ok_or_else(unprepared)?;
        let unread = api.unread(machine, &ENDLESS).await?;
        tokio::time::sleep(FILLED).await;
        let took = self.others().await;
        // Its call ends, and it with that.
        drop(unread);
        took
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        // After the same pause: what has slept wakes slowly.
        tokio::time::sleep(FILLED).await;
        self.others().await
    }

    async fn clean_up(&mut self) -> Result<(), Failed> {
        match self.machine.take() {
            Some((api, machine)) => api.destroy(&machine).await,
            None => Ok(()),
        }
    }
}
