//! From a request to a machine that is ready for execs.
//!
//! Up to the keeper's start everything is a lease, and an interrupted setup frees them by dropping
//! them. From then on there are processes to end, so an interrupt ends them first and waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, debug};

use super::cgroup::{CgroupRoot, MachineCgroup};
use super::cids::CidLease;
use super::driver::{CONSOLE_TAIL_BYTES, Driver, Parts, State};
use super::evidence::{Evidence, Finding, SETTLE, Sign};
use super::greeting::greet;
use super::handle::MicroVmMachine;
use super::interrupt::Interrupt;
use super::jail::MachineJail;
use super::keeper::{Keeper, KeeperCgroups, KeeperEvent, KeeperSpec, Ownership};
use super::launch::{CONSOLE_SIZES, Disks, Launch};
use super::leases::{CgroupPlan, Leases, Prepared, Size};
use super::qemu::{Accel, Qmp};
use super::runtime::{MicroVm, Settings};
use super::shell::{Ports, Shells};
use super::sight::Sight;
use super::signs::sign_of_keeper;
use super::vsock::{GuestEnd, VSOCK_PREFIX};
use crate::agent::{InitParameters, Patience};
use crate::error::with_causes;
use crate::failpoint;
use crate::host::uids::UidLease;
use crate::host::{Namespaces, ProcessIdentity};
use crate::runtime::{
    DestroyMode, Ledger, Machine as _, MachineFacts, Made, Outcome, Phase, SetupError, SetupEvent,
    SetupEvents, SetupFailure, SetupRequest, Verdict,
};
use crate::spans;

/// How long QEMU may take until it serves QMP: on a loaded host it is linked and started in a second.
const QMP_TIMEOUT: Duration = Duration::from_secs(15);

/// A kernel and an initrd, unpacked, and a little.
const MIN_MEMORY_MIB: u32 = 64;

/// Requests that wait for the machine's task.
const REQUEST_QUEUE: usize = 32;

/// Measures phases and reports them.
struct Phases<'a> {
    events: &'a SetupEvents,
    started: Instant,
}

impl Phases<'_> {
    fn start(&mut self, phase: Phase) {
        self.started = Instant::now();
        self.events.send(SetupEvent::Started(phase));
    }

    fn finish(&mut self, phase: Phase) {
        self.events.send(SetupEvent::Finished(phase, self.started.elapsed()));
    }
}

/// Sets one machine up.
pub(super) async fn set_up(
    runtime: &MicroVm,
    request: SetupRequest,
    events: &SetupEvents,
    interrupt: Interrupt,
) -> Result<MicroVmMachine, SetupError> {
    let mut phases = Phases { events, started: Instant::now() };
    phases.start(Phase::Prepare);
    let id = request.id.clone();
    let settings = runtime.settings();
    tracing::Span::current().record(spans::MACHINE, id.as_str());
    let span = spans::driven_machine(&request);
    let workflow_id = request.workflow_id.clone();
    let ledger = request.ledger.clone();
    let preparing = prepare_all(runtime, request, events);
    let (prepared, accel) = tokio::select! {
        prepared = preparing => prepared?,
        outcome = interrupt.raised() => return Err(ended(Phase::Prepare, outcome)),
    };
    let Prepared { leases, size, disks, qmp_path, guest_end, agent_listener } = prepared;
    let noted = tokio::select! {
        noted = note(ledger.as_ref(), Made::Leases(leases.held()), "setup.leased") => noted,
        outcome = interrupt.raised() => Err(SetupFailure::Ended(outcome)),
    };
    if let Err(failure) = noted {
        free(leases).await;
        return Err(SetupError::new(Phase::Prepare, failure));
    }
    phases.finish(Phase::Prepare);

    phases.start(Phase::Spawn);
    let started = start(settings, &leases, (disks, guest_end), accel, size);
    let Started { keeper, mut keeper_events } = match started {
        Ok(started) => started,
        Err(error) => {
            free(leases).await;
            return Err(error);
        }
    };
    if let Err(error) = failpoint::hit("setup.keeper") {
        keeper.kill().await;
        free(leases).await;
        return Err(SetupError::new(Phase::Spawn, SetupFailure::HostCannot(error.to_string())));
    }
    // Beside QEMU's start, which takes longer.
    let noted = tokio::spawn({
        let identity = ProcessIdentity::of(keeper.pid().as_raw_pid().unsigned_abs());
        async move {
            match identity {
                Ok(identity) => note(ledger.as_ref(), Made::Keeper(identity), "setup.started").await,
                // It has ended, which is told by its events.
                Err(_) => Ok(()),
            }
        }
    });
    // The agent is awaited from the start: on a quick machine it comes before QMP's greeting is read.
    let parameters = InitParameters { job_id: workflow_id, ..InitParameters::default() };
    let greetings = greet(agent_listener, parameters, settings.agent_timeout, Patience::default());
    let mut evidence = Evidence::default();
    let connected = tokio::select! {
        connected = Qmp::connect(&qmp_path, QMP_TIMEOUT) => connected.map_err(|error| with_causes(&error)),
        event = keeper_events.recv() => {
            evidence.extend(event.map(sign_of_keeper));
            Err("the machine ended before QEMU served QMP".to_owned())
        }
        outcome = interrupt.raised() => {
            keeper.kill().await;
            let usage = leases.usage();
            free(leases).await;
            return Err(SetupError { usage, ..ended(Phase::Spawn, outcome) });
        }
    };
    let connected = connected.and_then(|qmp| match failpoint::hit("setup.qmp") {
        Ok(()) => Ok(qmp),
        Err(error) => Err(error.to_string()),
    });
    let (qmp, qmp_events) = match connected {
        Ok(connected) => connected,
        Err(why) => return Err(never_ran(keeper, keeper_events, leases, evidence, why).await),
    };
    let noted = tokio::select! {
        noted = noted => noted.unwrap_or_else(|error| Err(SetupFailure::Ended(Outcome::internal(error)))),
        outcome = interrupt.raised() => Err(SetupFailure::Ended(outcome)),
    };
    if let Err(failure) = noted {
        keeper.kill().await;
        let usage = leases.usage();
        free(leases).await;
        return Err(SetupError { usage, ..SetupError::new(Phase::Spawn, failure) });
    }
    phases.finish(Phase::Spawn);
    let facts = facts(settings, &leases, &keeper, accel, size);
    let ports = match facts.cid {
        Some(cid) => Ports::Kernel { cid },
        None => {
            let us = rustix::process::geteuid().as_raw();
            let helper_uid = leases.jail.as_ref().and_then(MachineJail::user).map_or(us, UidLease::uid);
            Ports::Hybrid { prefix: leases.directory.path().join(VSOCK_PREFIX), helper_uid }
        }
    };
    let sight = Sight::of(settings, &leases, &keeper);

    phases.start(Phase::Boot);
    let (request_sender, requests) = mpsc::channel(REQUEST_QUEUE);
    let (state_sender, state) = watch::channel(State::Booting);
    let driver = Driver::new(Parts {
        keeper,
        keeper_events,
        qmp,
        qmp_events,
        greetings,
        requests,
        state: state_sender,
        shutdown_timeout: settings.shutdown_timeout,
        leases,
    });
    tokio::spawn(driver.run().instrument(span));
    let shells = Shells::new(ports, request_sender.clone(), state.clone());
    let machine = MicroVmMachine { id, facts, sight, requests: request_sender, state, shells };
    let reached = |state: &State| !matches!(state, State::Booting);
    wait(&machine, &interrupt, Phase::Boot, reached).await?;
    phases.finish(Phase::Boot);
    phases.start(Phase::Handshake);
    let reached = |state: &State| matches!(state, State::Ready | State::Gone { .. });
    wait(&machine, &interrupt, Phase::Handshake, reached).await?;
    phases.finish(Phase::Handshake);
    if let Err(error) = failpoint::hit("setup.ready") {
        if let Err(error) = machine.destroy(DestroyMode::Kill).await {
            tracing::warn!(%error, "failed to free all of a machine that was not set up");
        }
        return Err(SetupError::new(Phase::Handshake, SetupFailure::HostCannot(error.to_string())));
    }
    Ok(machine)
}

/// Writes down what was made; returns once that is durable.
async fn note(ledger: Option<&Arc<dyn Ledger>>, made: Made, place: &'static str) -> Result<(), SetupFailure> {
    let Some(ledger) = ledger.cloned() else { return Ok(()) };
    let noted =
        tokio::task::spawn_blocking(move || ledger.note(made).and_then(|()| failpoint::hit(place))).await;
    noted.map_err(|error| SetupFailure::Ended(Outcome::internal(error)))?.map_err(|error| {
        let detail = with_causes(&error);
        match error.kind() {
            std::io::ErrorKind::StorageFull => SetupFailure::Ended(Outcome::HostDiskFull { detail }),
            _ => SetupFailure::HostCannot(detail),
        }
    })
}

async fn prepare_all(
    runtime: &MicroVm,
    request: SetupRequest,
    events: &SetupEvents,
) -> Result<(Prepared, Accel), SetupError> {
    let refused = |text: String| Err(SetupError::new(Phase::Prepare, SetupFailure::BadInput(text)));
    if !request.batch.is_empty() {
        return refused("runtime `microvm` takes steps one at a time, not as a batch".to_owned());
    }
    if let Some(architecture) =
        request.architecture.as_deref().filter(|wanted| *wanted != std::env::consts::ARCH)
    {
        return refused(format!(
            "architecture `{architecture}` is asked for, and this host is {}; run it on one that is",
            std::env::consts::ARCH
        ));
    }
    if let Some(why) = unfit(&request) {
        return refused(why);
    }
    let accel = runtime
        .accelerator()
        .await
        .map_err(|why| SetupError::new(Phase::Prepare, SetupFailure::HostCannot(why)))?;
    let cgroup = cgroup_plan(runtime.settings(), &request, accel, events)?;
    let confinement = runtime
        .confinement()
        .await
        .map_err(|why| SetupError::new(Phase::Prepare, SetupFailure::HostCannot(why)))?;
    let preparation = runtime
        .preparation(request, cgroup, (confinement, accel))
        .await
        .map_err(|error| SetupError::new(Phase::Prepare, SetupFailure::HostCannot(error.to_string())))?;
    let preparing = tokio::task::spawn_blocking(move || preparation.run());
    let prepared = preparing.await.map_err(|error| internal(Phase::Prepare, error))??;
    for missing in prepared.leases.cgroup.iter().flat_map(MachineCgroup::missing) {
        events.send(SetupEvent::Notice(missing.to_string()));
    }
    let image = &prepared.leases.image;
    for warning in &image.warnings {
        events.send(SetupEvent::Notice(warning.clone()));
    }
    if !image.spec.network_interfaces.is_empty() {
        let notice = format!(
            "image `{}` has network interfaces; it boots without them, there is no network yet",
            image.name
        );
        events.send(SetupEvent::Notice(notice));
    }
    if matches!(accel, Accel::Tcg { .. }) {
        events.send(SetupEvent::Notice(
            "guests are emulated (TCG), which QEMU does not promise to isolate: run only what you trust; \
             `creel doctor` says why KVM is not used"
                .to_owned(),
        ));
    }
    Ok((prepared, accel))
}

/// Sizes asked for that no machine can have here. What an image asks for is its maker's business.
fn unfit(request: &SetupRequest) -> Option<String> {
    let total_mib = rustix::system::sysinfo().totalram / (1 << 20);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    match (request.memory_mib, request.vcpus) {
        (Some(mib), _) if mib < MIN_MEMORY_MIB => {
            Some(format!("`memory_mib` is {mib}, and no guest boots in less than {MIN_MEMORY_MIB}"))
        }
        (Some(mib), _) if u64::from(mib) > total_mib as u64 => {
            Some(format!("`memory_mib` is {mib}, and this host has {total_mib} MiB"))
        }
        (_, Some(0)) => Some("`vcpus` is 0".to_owned()),
        (_, Some(vcpus)) if vcpus as usize > cpus => {
            Some(format!("`vcpus` is {vcpus}, and this host has {cpus}"))
        }
        _ => None,
    }
}

/// Where the machine's cgroup will be made, or what it means that there is none.
fn cgroup_plan(
    settings: &Settings,
    request: &SetupRequest,
    accel: Accel,
    events: &SetupEvents,
) -> Result<Option<CgroupPlan>, SetupError> {
    let memory_limit_mib = request.memory_limit_mib;
    let cannot = |text: String| Err(SetupError::new(Phase::Prepare, SetupFailure::HostCannot(text)));
    let root = match &settings.cgroups {
        None => Err("only machines of creeld have a cgroup".to_owned()),
        Some(settings) => CgroupRoot::open(&settings.root)
            .map(|root| (root, settings.clone()))
            .map_err(|error| with_causes(&error)),
    };
    match (root, &settings.cgroups) {
        (Ok((root, settings)), _) => {
            let emulated = matches!(accel, Accel::Tcg { .. });
            Ok(Some(CgroupPlan { root, settings, memory_limit_mib, emulated }))
        }
        (Err(why), Some(cgroups)) if cgroups.required => {
            cannot(format!("{why}; or set `cgroups.mode` to \"auto\" to run machines without limits"))
        }
        (Err(why), _) if memory_limit_mib.is_some() => {
            cannot(format!("a memory limit is asked for, and the machine would have no cgroup: {why}"))
        }
        (Err(why), Some(_)) => {
            events.send(SetupEvent::Notice(format!(
                "the machine has no cgroup, so the host's memory, CPUs, disks and number of processes are not protected from \
                 it, and it ends with creeld: {why}"
            )));
            Ok(None)
        }
        (Err(_), None) => Ok(None),
    }
}

/// What could not be freed is told where it can be heard: the setup's own error says why there is no machine.
async fn free(leases: Leases) {
    for failure in leases.free().await {
        tracing::warn!(%failure, "failed to free all of a machine that was not set up");
    }
}

fn facts(settings: &Settings, leases: &Leases, keeper: &Keeper, accel: Accel, size: Size) -> MachineFacts {
    let cgroup = leases.cgroup.as_ref();
    MachineFacts {
        image: leases.image.name.clone(),
        memory_mib: size.memory_mib,
        vcpus: size.vcpus,
        accel: accel.name().to_owned(),
        transport: settings.transport.to_string(),
        cid: leases.cid.as_ref().map(CidLease::cid),
        keeper_pid: u32::try_from(keeper.pid().as_raw_pid()).ok(),
        cgroup: cgroup.map(|cgroup| cgroup.path().to_owned()),
        memory_limit_mib: cgroup.map(|cgroup| cgroup.limits().memory_max_bytes >> 20),
    }
}

struct Started {
    keeper: Keeper,
    keeper_events: mpsc::Receiver<KeeperEvent>,
}

fn start(
    settings: &Settings,
    leases: &Leases,
    (disks, guest_end): (Disks, GuestEnd),
    accel: Accel,
    size: Size,
) -> Result<Started, SetupError> {
    let spec = &leases.image.spec;
    let launch = Launch {
        kit: &settings.kit,
        qemu: &settings.qemu,
        spec,
        accel,
        memory_mib: size.memory_mib,
        vcpus: size.vcpus,
        agent_port: settings.agent_port,
        jail: leases.jail.as_ref(),
    };
    let cannot = |text: String| SetupError::new(Phase::Spawn, SetupFailure::HostCannot(text));
    let processes = launch.processes(disks, guest_end).map_err(|error| {
        cannot(format!("image `{}` can't be started: {}", leases.image.name, with_causes(&error)))
    })?;
    let mut keeper = Keeper::start(KeeperSpec {
        program: settings.kit.keeper.clone(),
        namespaces: leases.jail.as_ref().map_or_else(Namespaces::preferred, MachineJail::namespaces),
        root: leases.jail.as_ref().map(MachineJail::root),
        held: leases.jail.as_ref().and_then(MachineJail::user).map(UidLease::fd).into_iter().collect(),
        // A machine that nothing could find again must not outlive its owner.
        ownership: if leases.cgroup.is_some() { Ownership::Daemon } else { Ownership::Embedded },
        directory: &leases.directory,
        processes,
        console: CONSOLE_SIZES,
        cgroups: leases
            .cgroup
            .as_ref()
            .map(|cgroup| KeeperCgroups { keeper: cgroup.keeper(), machine: cgroup.vm() }),
    })
    .map_err(|error| cannot(with_causes(&error)))?;
    debug!(pid = ?keeper.pid(), namespaces = ?keeper.namespaces(), "keeper started");
    let keeper_events = keeper.events().ok_or_else(|| internal(Phase::Spawn, "the keeper has no events"))?;
    Ok(Started { keeper, keeper_events })
}

/// QEMU or its helper ended, or never served QMP: collects what the keeper recorded.
async fn never_ran(
    keeper: Keeper,
    mut events: mpsc::Receiver<KeeperEvent>,
    leases: Leases,
    mut evidence: Evidence,
    why: String,
) -> SetupError {
    let collect = async {
        while let Some(event) = events.recv().await {
            let gone = matches!(event, KeeperEvent::Gone(_));
            evidence.add(sign_of_keeper(event));
            if gone {
                break;
            }
        }
    };
    let _ = timeout(SETTLE, collect).await;
    keeper.kill().await;
    evidence.extend(leases.signs());
    evidence.add(Sign::QmpClosed);
    let outcome = match evidence.finding() {
        Finding::Ended(outcome) => outcome,
        Finding::Alive | Finding::Unsettled => Outcome::internal(why),
    };
    let console_tail = Some(keeper.console_tail(CONSOLE_TAIL_BYTES));
    let usage = leases.usage();
    free(leases).await;
    SetupError { console_tail, usage, ..ended(Phase::Spawn, outcome) }
}

/// Waits for a state, or for the machine's end, or for an interrupt, and then for the end that it causes.
async fn wait(
    machine: &MicroVmMachine,
    interrupt: &Interrupt,
    phase: Phase,
    reached: impl Fn(&State) -> bool,
) -> Result<(), SetupError> {
    let mut state = machine.state.clone();
    tokio::select! {
        // An error means that the machine's task is gone, which `Gone` below tells as well.
        _ = async { state.wait_for(reached).await.map(drop) } => {}
        outcome = interrupt.raised() => {
            if let Err(error) = machine.destroy(DestroyMode::Kill).await {
                tracing::warn!(%error, "failed to free all of an interrupted machine");
            }
            return Err(SetupError { usage: machine.usage().map(Box::new), ..ended(phase, outcome) });
        }
    }
    let gone = matches!(&*machine.state.borrow(), State::Gone { .. });
    if !gone {
        return Ok(());
    }
    let Verdict { outcome, console_tail, usage, .. } = machine.last_words().await;
    Err(SetupError { console_tail, usage: usage.machine, ..ended(phase, outcome) })
}

fn ended(phase: Phase, outcome: Outcome) -> SetupError {
    SetupError::new(phase, SetupFailure::Ended(outcome))
}

fn internal(phase: Phase, error: impl std::fmt::Display) -> SetupError {
    ended(phase, Outcome::internal(error))
}
