//! What a machine's jail adds to its start, beside so many that run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use creel::host::Namespaces;
use creel::host::uids::{UidLease, UidRange};
use creel::image::{ImageStore, Kit};
use creel::runtime::microvm::directory::{MachineDirectory, RunDir};
use creel::runtime::microvm::keeper::{
    ConsoleSizes, Keeper, KeeperEvent, KeeperSpec, Ownership, ProcessEnd, ProcessSpec,
};
use creel::runtime::microvm::{Contents, JailSettings, Layers, MachineJail};

use super::unprepared;
use crate::creeld::IMAGE;
use crate::figures::median;
use crate::programs::installed;
use crate::row::{About, Better, Failed, Row, Trying as _};
use crate::world::World;

/// What was promised, in milliseconds.
const BOUND_MS: f64 = 5.0;

/// Starts of each kind, in turn, for one figure.
const STARTS: usize = 20;
const QUICK_STARTS: usize = 5;

/// A start that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);

const CONSOLE: ConsoleSizes = ConsoleSizes { head_bytes: 4096, tail_bytes: 4096 };

/// As creeld has them by default.
const USERS: UidRange = UidRange { first: 2_000_000_000, count: 65_536 };

/// Starts in a jail, against a bound.
#[derive(Debug)]
pub struct Jail {
    name: &'static str,
    running: usize,
    starts: usize,
    place: Option<Place>,
    // Dropped, they end.
    beside: Vec<Machine>,
}

#[derive(Debug)]
struct Place {
    run_dir: RunDir,
    keeper: PathBuf,
    layers: Layers,
    contents: Contents,
    kernel: (PathBuf, File),
    initrd: (PathBuf, File),
    started: u32,
}

#[derive(Debug)]
struct Machine {
    keeper: Keeper,
    _jail: Option<MachineJail>,
    _directory: MachineDirectory,
}

impl Jail {
    pub fn beside(name: &'static str, running: usize) -> Self {
        Self { name, running, starts: 0, place: None, beside: Vec::new() }
    }
}

#[async_trait]
impl Row for Jail {
    fn about(&self) -> About {
        About {
            name: self.name,
            unit: "ms",
            better: Better::Lower,
            goal: Some(1.0),
            ours: "what the jail adds to a machine's start",
            peer: Some("its bound"),
            meaning: "From before the user is leased until `true`, in QEMU's place, has run and the keeper has recorded its end: the \
                      median of 20 starts in the whole jail (with all that QEMU has in its root) less that of 20 without, in turn, \
                      beside as many jailed machines as the name says. The bound is what was promised, and no measurement.",
        }
    }

    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed> {
        self.starts = usize::try_from(world.sized(STARTS as u64, QUICK_STARTS as u64)).unwrap_or(STARTS);
        let directory = world.directory().join(self.name);
        let kit = Kit::open(&world.programs.kit).trying("open the kit")?;
        let qemu = installed("qemu-system-x86_64", &[]).ok_or_else(|| Failed::new("there is no QEMU"))?;
        let layers = Layers::find();
        if let Some(missing) = layers.missing().first() {
            return Err(Failed::new(missing));
        }
        let programs = [qemu.as_path(), &kit.vsock_helper, Path::new("/bin/true"), Path::new("/bin/sleep")];
        let programs = programs.map(|program| program.canonicalize().unwrap_or_else(|_| program.to_owned()));
        let contents = Contents::of(&programs.each_ref().map(PathBuf::as_path)).trying("find libraries")?;
        let image = ImageStore::new(vec![world.images()?]).resolve(IMAGE).trying("find the image")?;
        let open = |path: &Path| -> Result<(PathBuf, File), Failed> {
            Ok((path.to_owned(), File::open(path).trying(&format!("open `{}`", path.display()))?))
        };
        let mut place = Place {
            run_dir: RunDir::open(&directory).trying("make a directory")?,
            keeper: kit.keeper,
            layers,
            contents,
            kernel: open(&image.spec.kernel)?,
            initrd: open(&image.spec.initrd)?,
            started: 0,
        };
        for _ in 0..self.running {
            self.beside.push(place.start(true, &programs[3], &["1000"])?);
        }
        self.place = Some(place);
        Ok(())
    }

    async fn ours(&mut self) -> Result<f64, Failed> {
        let place = self.place.as_mut().ok_or_else(unprepared)?;
        let (mut jailed, mut free) = (Vec::new(), Vec::new());
        for _ in 0..self.starts {
            jailed.push(place.life(true).await?);
            free.push(place.life(false).await?);
        }
        let median = |figures: &[f64]| median(figures).ok_or_else(unprepared);
        Ok(median(&jailed)? - median(&free)?)
    }

    async fn peer(&mut self) -> Result<f64, Failed> {
        Ok(BOUND_MS)
    }

    async fn clean_up(&mut self) -> Result<(), Failed> {
        for machine in self.beside.drain(..) {
            machine.keeper.kill().await.ok_or_else(|| Failed::new("a keeper can't be killed"))?;
        }
        Ok(())
    }
}

impl Place {
    /// Milliseconds from nothing to the recorded end of a program that does nothing.
    async fn life(&mut self, jailed: bool) -> Result<f64, Failed> {
        let program = Path::new("/bin/true").canonicalize().trying("find `true`")?;
        let started = Instant::now();
        let mut machine = self.start(jailed, &program, &[])?;
        let mut events = machine.keeper.events().ok_or_else(unprepared)?;
        let ended = tokio::time::timeout(LIMIT, events.recv()).await.trying("wait for a machine")?;
        let took = started.elapsed();
        match ended {
            Some(KeeperEvent::ProcessEnded(record)) if record.end == (ProcessEnd::Exited { code: 0 }) => {}
            other => return Err(Failed::new(format!("`true` ended otherwise: {other:?}"))),
        }
        machine.keeper.wait_gone(LIMIT).await.ok_or_else(|| Failed::new("a keeper does not end"))?;
        Ok(took.as_secs_f64() * 1000.0)
    }

    fn start(&mut self, jailed: bool, program: &Path, arguments: &[&str]) -> Result<Machine, Failed> {
        self.started += 1;
        let id = format!("j{}", self.started);
        let directory = MachineDirectory::acquire(&self.run_dir, &id).trying("make a machine's directory")?;
        let settings =
            JailSettings { mode: creel::config::JailMode::Required, uids: USERS, max_processes: 576 };
        let boot = [(self.kernel.0.as_path(), &self.kernel.1), (self.initrd.0.as_path(), &self.initrd.1)];
        let jail = match jailed {
            true => Some(
                MachineJail::acquire(self.layers, settings, &self.contents, boot, false)
                    .trying("make a jail")?,
            ),
            false => None,
        };
        let mut process = ProcessSpec::new("qemu", program);
        process.args(arguments.iter().copied());
        process.ends_machine = true;
        process.jail = jail.as_ref().map(|jail| jail.of_qemu(1 << 30));
        let keeper = Keeper::start(KeeperSpec {
            program: self.keeper.clone(),
            namespaces: jail.as_ref().map_or_else(Namespaces::preferred, MachineJail::namespaces),
            root: jail.as_ref().map(MachineJail::root),
            held: jail.as_ref().and_then(MachineJail::user).map(UidLease::fd).into_iter().collect(),
            ownership: Ownership::Embedded,
            directory: &directory,
            processes: vec![process],
            console: CONSOLE,
            cgroups: None,
        });
        let keeper = keeper.trying("start a keeper")?;
        Ok(Machine { keeper, _jail: jail, _directory: directory })
    }
}
