//! How long a machine takes to be ready, against the bare boot of the same guest.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use creel::image::{Image, ImageStore, Kit, VolumeTemplates};
use creel::runtime::microvm::qemu::{Accel, BootFile, QemuArgs, QemuConfig, QemuFds, Vsock};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};

use super::unprepared;
use crate::api::Api;
use crate::creeld::IMAGE;
use crate::programs::installed;
use crate::row::{About, Better, Failed, Row, Trying as _};
use crate::world::World;

/// A boot that takes longer has failed.
const BOOT: Duration = Duration::from_secs(60);

/// The port of agents.
const AGENT_PORT: u32 = creel_proto::names::ports::AGENT;

/// creeld's Create against QEMU alone.
#[derive(Debug, Default)]
pub struct ColdSetup {
    ours: Option<Api>,
    peer: Option<Bare>,
}

/// What a bare boot takes.
#[derive(Debug)]
struct Bare {
    qemu: PathBuf,
    helper: PathBuf,
    image: Image,
    directory: PathBuf,
    started: u32,
}

#[async_trait]
impl Row for ColdSetup {
    fn about(&self) -> About {
        About {
            name: "cold-setup",
            unit: "s",
            better: Better::Lower,
            goal: Some(1.1),
            ours: "creel: Create to ready, emulated microVM",
            peer: Some("QEMU alone: exec to Hello"),
            meaning: "From the API's `Create` until the machine takes execs, against the same kernel, initrd, disks, devices and \
                      agent without creel: from the start of QEMU until the agent's first byte is on a bare listener. Its \
                      disk and the vsock helper are there before the clock starts.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.ours = Some(world.emulated().await?.api.clone());
        Ok(())
    }

    async fn prepare_peer(&mut self, world: &mut World) -> Result<(), Failed> {
        let directory = world.directory().join("b");
        std::fs::create_dir_all(&directory).trying("make a directory")?;
        let store = ImageStore::new(vec![world.images()?]);
        let image = store.resolve(IMAGE).trying("find the image")?;
        let helper = Kit::open(&world.programs.kit).trying("open the kit")?.vsock_helper;
        let qemu = installed("qemu-system-x86_64", &[]).ok_or_else(|| Failed::new("there is no QEMU"))?;
        self.peer = Some(Bare { qemu, helper, image, directory, started: 0 });
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let api = self.ours.as_ref().ok_or_else(unprepared)?;
        let started = Instant::now();
        let machine = api.create(IMAGE).await?;
        let took = started.elapsed();
        api.destroy(&machine).await?;
        Ok(took.as_secs_f64())
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        let took = self.peer.as_mut().ok_or_else(unprepared)?.boot().await?;
        Ok(took.as_secs_f64())
    }
}

impl Bare {
    async fn boot(&mut self) -> Result<Duration, Failed> {
        self.started += 1;
        let directory = self.directory.join(self.started.to_string());
        std::fs::create_dir(&directory).trying("make a directory")?;
        let listener = UnixListener::bind(directory.join(format!("vsock_{AGENT_PORT}")))
            .trying("listen for an agent")?;
        let templates = VolumeTemplates::new(self.directory.join("volumes"));
        let volumes = self.image.spec.volumes.iter();
        let volumes: Result<Vec<OwnedFd>, _> =
            volumes.map(|volume| templates.instantiate(volume, &directory)).collect();
        let volumes = volumes.trying("make a volume")?;
        let _helper = self.helper(&directory).await?;
        let arguments = self.arguments(&volumes)?;
        let mut qemu = Command::new(&self.qemu);
        qemu.args(arguments).current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let mut qemu = start(qemu)?;
        let hello = async {
            let (mut stream, _) = listener.accept().await.trying("accept the agent")?;
            stream.read_u8().await.trying("hear the agent")?;
            Ok(started.elapsed())
        };
        let took = tokio::select! {
            took = tokio::time::timeout(BOOT, hello) => took.trying("boot a bare machine")?,
            status = qemu.wait() => Err(Failed::new(format!("QEMU ended as {status:?} before its guest said Hello"))),
        };
        qemu.kill().await.trying("end QEMU")?;
        took
    }

    /// The vsock helper, once it listens.
    async fn helper(&self, directory: &Path) -> Result<Child, Failed> {
        let mut helper = Command::new(&self.helper);
        helper.args(["--guest-cid=3", "--socket=vhost-user", "--uds-path=vsock"]);
        helper.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let helper = start(helper)?;
        // It tells nobody when it listens. Nothing is measured yet.
        for _ in 0..500 {
            if directory.join("vhost-user").exists() {
                return Ok(helper);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Failed::new("the vsock helper does not listen"))
    }

    /// creel's own, with names of files and sockets in the place of descriptors.
    fn arguments(&self, volumes: &[OwnedFd]) -> Result<Vec<String>, Failed> {
        let spec = &self.image.spec;
        let runner = &spec.runner_config;
        let volume_fds: Vec<i32> = (20..).take(volumes.len()).collect();
        let rendered = QemuArgs::render(&QemuConfig {
            arch: spec.arch,
            machine: runner.machine.clone(),
            cpu: runner.cpu.clone(),
            console: runner.console.clone(),
            extra_args: runner.extra_args.clone(),
            virtio_transport: runner.virtio_transport,
            memory_mib: spec.memory_mib,
            vcpus: spec.vcpus,
            boot_args: spec.boot_args.clone(),
            accel: Accel::Tcg { tsc_khz: creel::host::tsc_khz() },
            agent_port: AGENT_PORT,
            fds: QemuFds {
                kernel: BootFile::Fd(10),
                initrd: BootFile::Fd(11),
                store_disk: 12,
                console: 13,
                qmp: 14,
                vsock: Vsock::Hybrid { chardev: 15 },
                volumes: volume_fds.clone(),
                source_disk: None,
            },
        });
        let rendered = rendered.trying("describe a machine to QEMU")?;
        let path = |path: &Path| path.display().to_string();
        let mut names = vec![
            ("/proc/self/fd/10".to_owned(), path(&spec.kernel)),
            ("/proc/self/fd/11".to_owned(), path(&spec.initrd)),
            ("/dev/fdset/12".to_owned(), path(&spec.store_disk)),
            ("/dev/fdset/13".to_owned(), "console".to_owned()),
            ("id=qmp0,fd=14".to_owned(), "id=qmp0,path=qmp".to_owned()),
            ("id=vsock0,fd=15".to_owned(), "id=vsock0,path=vhost-user".to_owned()),
        ];
        names.extend(volume_fds.iter().zip(volumes).map(|(fd, volume)| {
            let own = format!("/proc/{}/fd/{}", std::process::id(), volume.as_raw_fd());
            (format!("/dev/fdset/{fd}"), own)
        }));
        let mut arguments = Vec::new();
        let mut rendered = rendered.into_iter();
        while let Some(argument) = rendered.next() {
            if argument == "-add-fd" {
                rendered.next();
                continue;
            }
            arguments.push(names.iter().fold(argument, |argument, (from, to)| argument.replace(from, to)));
        }
        Ok(arguments)
    }
}

fn start(mut command: Command) -> Result<Child, Failed> {
    command.kill_on_drop(true).process_group(0).spawn().trying("start a bare machine")
}
