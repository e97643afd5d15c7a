//! Output of a real microVM, against the least that could carry it out of the same guest.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

use async_trait::async_trait;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};

use super::{copy_program, throughput, unprepared};
use crate::api::{Api, Machine};
use crate::creeld::build_image;
use crate::row::{About, Better, Failed, Row, Trying as _};
use crate::world::World;

/// How long a run is to take: how much that is differs tenfold between hosts that emulate.
const RUN_SECONDS: u64 = 8;
const QUICK_RUN_SECONDS: u64 = 1;

/// What tells how fast this host is.
const PROBE_BYTES: u64 = 16 << 20;
const MAX_BYTES: u64 = 1 << 30;

/// The image, which has the copying program.
const IMAGE: &str = "copying";

/// A vsock port that creel does not serve.
const PORT: u32 = 9000;

/// What the producer writes at once.
const BLOCK_BYTES: u64 = 64 << 10;

const READ_BYTES: usize = 256 << 10;

/// An exec's output, against a copying loop's, from the same pipe.
#[derive(Debug, Default)]
pub struct GuestStdout {
    bytes: u64,
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    api: Api,
    machine: Machine,
    /// Where the guest's connections to [`PORT`] arrive: beside those that creel serves.
    socket: PathBuf,
    listener: Option<UnixListener>,
}

#[async_trait]
impl Row for GuestStdout {
    fn about(&self) -> About {
        About {
            name: "guest-stdout",
            unit: "MiB/s",
            better: Better::Higher,
            goal: Some(0.9),
            ours: "creel exec's output, emulated microVM",
            peer: Some("read(2) and write(2) into AF_VSOCK, same guest"),
            meaning: "What a program of a real microVM writes into a pipe, carried to a reader on the host: by creel's agent, \
                      creeld and the API, against a loop of 64 KiB reads and writes into a socket, in the same guest, through \
                      the same transport. From the call until verdict and last byte are there, both.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        let seconds = world.sized(RUN_SECONDS, QUICK_RUN_SECONDS);
        let overlay = world.directory().join("overlay");
        copy_program::build(&overlay)?;
        let images = world.images()?;
        build_image(&world.programs, &images, IMAGE, Some(&overlay))?;
        let creeld = world.emulated().await?;
        let machine = creeld.api.create(IMAGE).await?;
        let socket = creeld.run_dir.join(format!("m-{}/sockets/vsock_{PORT}", machine.id));
        self.made = Some(Made { api: creeld.api.clone(), machine, socket, listener: None });
        self.bytes = PROBE_BYTES;
        let started = Instant::now();
        self.ours().await?;
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let bytes = PROBE_BYTES * 1000 * seconds / milliseconds;
        // Whole blocks of the producer.
        self.bytes = bytes.clamp(PROBE_BYTES, MAX_BYTES) & !(BLOCK_BYTES - 1);
        Ok(())
    }

    async fn prepare_peer(&mut self, _world: &mut World) -> Result<(), Failed> {
        let made = self.made.as_mut().ok_or_else(unprepared)?;
        let listener = UnixListener::bind(&made.socket);
        made.listener = Some(listener.trying(&format!("listen on `{}`", made.socket.display()))?);
        // Its helper is another user.
        fs::set_permissions(&made.socket, Permissions::from_mode(0o666)).trying("open the socket")?;
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let made = self.made.as_ref().ok_or_else(unprepared)?;
        let script = producer(self.bytes);
        let started = Instant::now();
        let ended = made.api.exec(&made.machine, &["/bin/sh", "-c", &script]).await?;
        if ended.stdout_bytes != self.bytes {
            return Err(Failed::new(format!(
                "creel passed {} of {} bytes on",
                ended.stdout_bytes, self.bytes
            )));
        }
        Ok(throughput(self.bytes, started.elapsed()))
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        let made = self.made.as_ref().ok_or_else(unprepared)?;
        let listener = made.listener.as_ref().ok_or_else(unprepared)?;
        let script = format!("{} | {} {PORT}", producer(self.bytes), copy_program::PROGRAM);
        let started = Instant::now();
        let arrive = async {
            let (stream, _) = listener.accept().await.trying("accept the guest")?;
            take(stream, self.bytes).await.trying("read what the guest copies")
        };
        let argv = ["/bin/sh", "-c", &script];
        let exec = made.api.exec(&made.machine, &argv);
        tokio::try_join!(exec, arrive)?;
        Ok(throughput(self.bytes, started.elapsed()))
    }

    async fn clean_up(&mut self) -> Result<(), Failed> {
        match self.made.take() {
            Some(Made { api, machine, .. }) => api.destroy(&machine).await,
            None => Ok(()),
        }
    }
}

/// A script that writes a multiple of 64 KiB.
fn producer(bytes: u64) -> String {
    // It would count its blocks on stderr.
    format!("dd if=/dev/zero bs=64k count={} 2>/dev/null", bytes / BLOCK_BYTES)
}

/// So many bytes, and no end waited for: hybrid transports don't promise one.
async fn take(mut stream: UnixStream, bytes: u64) -> std::io::Result<()> {
    let (mut buffer, mut seen) = (vec![0; READ_BYTES], 0);
    while seen < bytes {
        match stream.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => seen += length as u64,
        }
    }
    Ok(())
}
