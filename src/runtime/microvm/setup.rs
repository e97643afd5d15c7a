//! From a request to a machine that is ready for execs.
//!
//! Up to the keeper's start everything is a lease, and an interrupted setup frees them by dropping
//! them. From then on there are processes to end, so an interrupt ends them first and waits.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, debug};

use super::driver::{CONSOLE_TAIL_BYTES, Driver, Parts, State, sign_of_keeper};
use super::evidence::{Evidence, Finding, SETTLE, Sign};
use super::greeting::greet;
use super::handle::MicroVmMachine;
use super::interrupt::Interrupt;
use super::keeper::{Keeper, KeeperEvent, KeeperSpec, Ownership};
use super::launch::{CONSOLE_SIZES, Disks, Launch};
use super::leases::{Leases, Prepared};
use super::qemu::{Accel, Qmp};
use super::runtime::{AGENT_PORT, MicroVm};
use super::vsock::GuestEnd;
use crate::agent::InitParameters;
use crate::error::with_causes;
use crate::host::Namespaces;
use crate::runtime::{
    DestroyMode, Machine as _, MachineId, Outcome, Phase, SetupError, SetupEvent, SetupEvents, SetupFailure,
    SetupRequest,
};

/// How long QEMU may take until it serves QMP: on a loaded host it is linked and started in a second.
const QMP_TIMEOUT: Duration = Duration::from_secs(15);

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
    let id = MachineId::random().map_err(|error| internal(Phase::Prepare, error))?;
    tracing::Span::current().record("machine", id.as_str());
    let workflow_id = request.workflow_id.clone();
    let size = Size { memory_mib: request.memory_mib, vcpus: request.vcpus };
    let preparing = prepare_all(runtime, id.clone(), request, events);
    let (prepared, accel) = tokio::select! {
        prepared = preparing => prepared?,
        outcome = interrupt.raised() => return Err(ended(Phase::Prepare, outcome)),
    };
    phases.finish(Phase::Prepare);

    phases.start(Phase::Spawn);
    let Prepared { leases, disks, qmp_path, guest_end, agent_listener } = prepared;
    let Started { keeper, mut keeper_events } = start(runtime, &leases, (disks, guest_end), accel, &size)?;
    // The agent is awaited from the start: on a quick machine it comes before QMP's greeting is read.
    let parameters = InitParameters { job_id: workflow_id, ..InitParameters::default() };
    let greetings = greet(agent_listener, parameters, runtime.settings().agent_timeout);
    let mut evidence = Evidence::default();
    let connected = tokio::select! {
        connected = Qmp::connect(&qmp_path, QMP_TIMEOUT) => connected.map_err(|error| with_causes(&error)),
        event = keeper_events.recv() => {
            evidence.extend(event.map(sign_of_keeper));
            Err("the machine ended before QEMU served QMP".to_owned())
        }
        outcome = interrupt.raised() => {
            keeper.kill().await;
            return Err(ended(Phase::Spawn, outcome));
        }
    };
    let (qmp, qmp_events) = match connected {
        Ok(connected) => connected,
        Err(why) => return Err(never_ran(keeper, keeper_events, evidence, why).await),
    };
    phases.finish(Phase::Spawn);

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
        shutdown_timeout: runtime.settings().shutdown_timeout,
        leases,
    });
    let span = tracing::info_span!(parent: None, "machine", machine = %id);
    tokio::spawn(driver.run().instrument(span));
    let machine = MicroVmMachine { id, requests: request_sender, state };
    let reached = |state: &State| !matches!(state, State::Booting);
    wait(&machine, &interrupt, Phase::Boot, reached).await?;
    phases.finish(Phase::Boot);
    phases.start(Phase::Handshake);
    let reached = |state: &State| matches!(state, State::Ready | State::Gone { .. });
    wait(&machine, &interrupt, Phase::Handshake, reached).await?;
    phases.finish(Phase::Handshake);
    Ok(machine)
}

/// What a request asks for over the image's own.
struct Size {
    memory_mib: Option<u32>,
    vcpus: Option<u32>,
}

async fn prepare_all(
    runtime: &MicroVm,
    id: MachineId,
    request: SetupRequest,
    events: &SetupEvents,
) -> Result<(Prepared, Accel), SetupError> {
    let refused = |text: String| Err(SetupError::new(Phase::Prepare, SetupFailure::BadInput(text)));
    if !request.batch.is_empty() {
        return refused("runtime `microvm` takes steps one at a time, not as a batch".to_owned());
    }
    if let Some(architecture) = request.architecture.filter(|wanted| wanted != std::env::consts::ARCH) {
        return refused(format!(
            "architecture `{architecture}` is asked for, and this host is {}; run it on one that is",
            std::env::consts::ARCH
        ));
    }
    let accel = runtime
        .accelerator()
        .await
        .map_err(|why| SetupError::new(Phase::Prepare, SetupFailure::HostCannot(why)))?;
    let preparation = runtime
        .preparation(id, request.image, request.source)
        .await
        .map_err(|error| SetupError::new(Phase::Prepare, SetupFailure::HostCannot(error.to_string())))?;
    let preparing = tokio::task::spawn_blocking(move || preparation.run());
    let prepared = preparing.await.map_err(|error| internal(Phase::Prepare, error))??;
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

struct Started {
    keeper: Keeper,
    keeper_events: mpsc::Receiver<KeeperEvent>,
}

fn start(
    runtime: &MicroVm,
    leases: &Leases,
    (disks, guest_end): (Disks, GuestEnd),
    accel: Accel,
    size: &Size,
) -> Result<Started, SetupError> {
    let settings = runtime.settings();
    let spec = &leases.image.spec;
    let launch = Launch {
        kit: &settings.kit,
        qemu: &settings.qemu,
        spec,
        accel,
        memory_mib: size.memory_mib.unwrap_or(spec.memory_mib),
        vcpus: size.vcpus.unwrap_or(spec.vcpus),
        agent_port: AGENT_PORT,
    };
    let cannot = |text: String| SetupError::new(Phase::Spawn, SetupFailure::HostCannot(text));
    let processes = launch.processes(disks, guest_end).map_err(|error| {
        cannot(format!("image `{}` can't be started: {}", leases.image.name, with_causes(&error)))
    })?;
    let mut keeper = Keeper::start(KeeperSpec {
        program: settings.kit.keeper.clone(),
        namespaces: Namespaces::preferred(),
        ownership: Ownership::Embedded,
        directory: &leases.directory,
        processes,
        console: CONSOLE_SIZES,
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
    evidence.add(Sign::QmpClosed);
    let outcome = match evidence.finding() {
        Finding::Ended(outcome) => outcome,
        Finding::Alive | Finding::Unsettled => Outcome::internal(why),
    };
    SetupError { console_tail: Some(keeper.console_tail(CONSOLE_TAIL_BYTES)), ..ended(Phase::Spawn, outcome) }
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
            return Err(ended(phase, outcome));
        }
    }
    let gone = matches!(&*machine.state.borrow(), State::Gone { .. });
    if !gone {
        return Ok(());
    }
    let (outcome, console_tail) = machine.ended().await;
    Err(SetupError { console_tail: Some(console_tail), ..ended(phase, outcome) })
}

fn ended(phase: Phase, outcome: Outcome) -> SetupError {
    SetupError::new(phase, SetupFailure::Ended(outcome))
}

fn internal(phase: Phase, error: impl std::fmt::Display) -> SetupError {
    ended(phase, Outcome::internal(error))
}
