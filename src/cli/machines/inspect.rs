//! `creel inspect`: all that is known of a machine.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::confinement;
use super::connect::{api_failure, find, machine_id};
use super::ps::{name, of_machine, rfc3339, short};
use crate::cli::args::InspectArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::render::summary::console_block;
use crate::exit::Exit;
use crate::host::confinement::Confinement;
use crate::machines::{Inspection, Lifetime, Summary};
use crate::runtime::{HostProcess, MachineLimits, MachineUsage};
use crate::text::one_line;

/// As much as a verdict carries.
const CONSOLE_BYTES: u32 = 8 << 10;

/// Of a text that somebody else wrote.
const MAX_TEXT_CHARS: usize = 300;

pub(in crate::cli) async fn inspect(context: &Context, arguments: InspectArgs) -> Result<Exit, Failure> {
    let id = machine_id(&arguments.id)?;
    let client = find(context, &arguments.socket, &id).await?;
    let console = arguments.console.then_some(CONSOLE_BYTES);
    let inspection = client.inspect(&id, console).await.map_err(|error| api_failure(&error))?;
    let jail = if arguments.jail { Some(jail(&inspection)?) } else { None };
    if arguments.json.json {
        let mut value = inspection_json(&inspection);
        if let Some(jail) = &jail {
            value["jail"] = jail.iter().map(confinement::to_json).collect();
        }
        println!("{value:#}");
        return Ok(Exit::Success);
    }
    for (key, text) in lines(&inspection, SystemTime::now()) {
        println!("{key:<12}{}", one_line(&text, MAX_TEXT_CHARS));
    }
    for line in jail.iter().flatten().flat_map(confinement::lines) {
        println!("{line}");
    }
    for line in inspection.console_tail.iter().flat_map(|tail| console_block(tail)) {
        println!("{line}");
    }
    Ok(Exit::Success)
}

/// # Errors
/// When there is nothing to look at, or no right to.
fn jail(inspection: &Inspection) -> Result<Vec<Confinement>, Failure> {
    let found = confinement::of_processes(&inspection.details.processes)?;
    if found.is_empty() {
        let Summary { id, state, .. } = &inspection.summary;
        let state = name(*state);
        return Err(Failure::usage(format!(
            "machine {id} is {state}: it has no processes that anything could confine"
        )));
    }
    Ok(found)
}

fn lines(inspection: &Inspection, now: SystemTime) -> Vec<(&'static str, String)> {
    let Inspection { summary, details, .. } = inspection;
    let facts = &summary.facts;
    let mut lines = vec![("id", summary.id.to_string()), ("state", name(summary.state).to_owned())];
    if let Some(verdict) = &summary.verdict {
        lines.push(("ended as", verdict.to_string()));
    }
    let digest =
        details.image_digest.as_deref().map(|digest| format!(" ({})", &digest[..digest.len().min(12)]));
    lines.push(("image", format!("{}{}", summary.image, digest.unwrap_or_default())));
    lines.push(("workflow", summary.workflow_id.clone()));
    lines.push(("creator", format!("uid {}", summary.creator_uid)));
    let age = now.duration_since(summary.created_at).unwrap_or_default();
    lines.push((
        "created",
        format!("{} ({} ago)", rfc3339(summary.created_at).unwrap_or_default(), short(age)),
    ));
    if let Some(ended_at) = summary.ended_at {
        lines.push(("ended", rfc3339(ended_at).unwrap_or_default()));
    }
    let lives = summary.ended_at.is_none();
    if lives {
        lines.push(("lives", lifetime(inspection.lifetime)));
    }
    let cid = facts.cid.map(|cid| format!(", CID {cid}")).unwrap_or_default();
    let guest = [&facts.accel, &facts.transport]
        .map(|text| if text.is_empty() { "" } else { ", " }.to_owned() + text);
    lines.push(("guest", format!("{} MiB, {} vcpus{}{cid}", facts.memory_mib, facts.vcpus, guest.concat())));
    if !details.processes.is_empty() {
        lines.push(("limits", details.limits.map_or_else(|| "none but QEMU's own".to_owned(), limits)));
    }
    let path = |path: &std::path::PathBuf| path.display().to_string();
    let optional = [
        ("cgroup", facts.cgroup.as_ref().filter(|_| lives).map(path)),
        ("directory", details.directory.as_ref().map(path)),
        ("image files", details.image_directory.as_ref().map(path)),
        ("qemu", details.qemu.as_ref().map(|(path, version)| format!("{} {version}", path.display()))),
        ("namespaces", details.namespaces.clone()),
    ];
    lines.extend(optional.into_iter().filter_map(|(key, text)| Some((key, text?))));
    lines.extend(details.processes.iter().map(|process| ("process", describe(process))));
    let phases = inspection.setup.iter().map(|record| match record.took {
        Some(took) => format!("{} {:.2}s", record.phase.label(), took.as_secs_f64()),
        None => format!("{} ...", record.phase.label()),
    });
    let phases: Vec<String> = phases.collect();
    if !phases.is_empty() {
        lines.push(("setup", phases.join(", ")));
    }
    if lives {
        lines.push(("execs", summary.execs.to_string()));
    }
    lines.extend(summary.usage.as_ref().map(|usage| ("used", used(usage))));
    lines.extend(inspection.notices.iter().map(|notice| ("note", notice.clone())));
    lines
}

fn lifetime(lifetime: Lifetime) -> String {
    match lifetime {
        Lifetime::Attached => "as long as its creator".to_owned(),
        Lifetime::Detached { max_age: None } => "until it is ended".to_owned(),
        Lifetime::Detached { max_age: Some(max_age) } => {
            format!("until it is ended, or {} old", short(max_age))
        }
    }
}

fn limits(limits: MachineLimits) -> String {
    let cpu = limits.cpu_quota.map_or_else(String::new, |quota| {
        let cpus = quota.as_secs_f64() / limits.cpu_period.as_secs_f64().max(f64::MIN_POSITIVE);
        format!(", {cpus:.1} CPUs")
    });
    format!(
        "{} MiB, {} processes and threads{cpu}; weights: CPU {}, I/O {}",
        limits.memory_bytes >> 20,
        limits.pids,
        limits.cpu_weight,
        limits.io_weight
    )
}

fn describe(process: &HostProcess) -> String {
    let HostProcess { pid, name, threads, resident_bytes } = process;
    format!("{pid} {name}, {threads} threads, {} MiB resident", resident_bytes.div_ceil(1 << 20))
}

fn used(usage: &MachineUsage) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let mut text = format!("CPU {:.1}s", usage.cpu.as_secs_f64());
    if let Some(kib) = usage.peak_memory_kib {
        text += &format!(", at most {} MiB", kib.div_ceil(1 << 10));
    }
    if let Some(pids) = usage.peak_pids {
        text += &format!(", at most {pids} processes and threads");
    }
    text + &format!(", read {} MiB, written {} MiB", mib(usage.read_bytes), mib(usage.written_bytes))
}

fn inspection_json(inspection: &Inspection) -> Value {
    let Inspection { summary, lifetime, setup, notices, details, console_tail } = inspection;
    let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let (lifetime, max_age) = match lifetime {
        Lifetime::Attached => ("attached", None),
        Lifetime::Detached { max_age } => ("detached", *max_age),
    };
    let setup: Vec<Value> = setup
        .iter()
        .map(|record| {
            json!({
                "phase": record.phase.label(),
                "started_at": rfc3339(record.started_at),
                "took_us": record.took.map(microseconds),
            })
        })
        .collect();
    let processes: Vec<Value> = details
        .processes
        .iter()
        .map(|process| {
            let HostProcess { pid, name, threads, resident_bytes } = process;
            json!({ "pid": pid, "name": name, "threads": threads, "resident_bytes": resident_bytes })
        })
        .collect();
    let limits = details.limits.map(|limits| {
        json!({
            "memory_bytes": limits.memory_bytes,
            "pids": limits.pids,
            "cpu_quota_us": limits.cpu_quota.map(microseconds),
            "cpu_period_us": microseconds(limits.cpu_period),
            "cpu_weight": limits.cpu_weight,
            "io_weight": limits.io_weight,
        })
    });
    let details = json!({
        "lifetime": lifetime,
        "max_age_us": max_age.map(microseconds),
        "setup": setup,
        "notices": notices,
        "directory": details.directory,
        "image_directory": details.image_directory,
        "image_digest": details.image_digest,
        "qemu_path": details.qemu.as_ref().map(|(path, _)| path),
        "qemu_version": details.qemu.as_ref().map(|(_, version)| version),
        "namespaces": details.namespaces,
        "limits": limits,
        "processes": processes,
        "console_tail": console_tail.as_ref().map(|tail| String::from_utf8_lossy(tail).into_owned()),
    });
    let mut value = of_machine(summary);
    if let (Value::Object(value), Value::Object(details)) = (&mut value, details) {
        value.extend(details);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::{PhaseRecord, State};
    use crate::runtime::{MachineDetails, MachineFacts, MachineId, Outcome, Phase, Verdict};

    fn inspection() -> Inspection {
        let created_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let phase = |phase, took| PhaseRecord { phase, started_at: created_at, took };
        Inspection {
            summary: Summary {
                id: MachineId::parse("k3v9w0x2ma").unwrap(),
                state: State::Ready,
                image: "tiny".into(),
                workflow_id: "w".into(),
                creator_uid: 1000,
                created_at,
                facts: MachineFacts {
                    image: "tiny".into(),
                    memory_mib: 256,
                    vcpus: 1,
                    accel: "kvm".into(),
                    transport: "kernel".into(),
                    cid: Some(4096),
                    keeper_pid: Some(70),
                    cgroup: Some("/sys/fs/cgroup/creel.slice/m-k3v9w0x2ma".into()),
                    memory_limit_mib: Some(416),
                },
                execs: 2,
                usage: Some(MachineUsage {
                    cpu: Duration::from_millis(1250),
                    peak_memory_kib: Some(128_000),
                    read_bytes: 9 << 20,
                    ..MachineUsage::default()
                }),
                verdict: None,
                ended_at: None,
            },
            lifetime: Lifetime::Detached { max_age: Some(Duration::from_secs(7200)) },
            setup: vec![phase(Phase::Prepare, Some(Duration::from_millis(12))), phase(Phase::Spawn, None)],
            notices: vec!["guests are\nemulated".into()],
            details: MachineDetails {
                directory: Some("/run/creel/m-k3v9w0x2ma".into()),
                image_directory: Some("/var/lib/creel/images/.store/ab".into()),
                image_digest: Some("0123456789abcdef".into()),
                qemu: Some(("/usr/bin/qemu-system-x86_64".into(), "7.2.22".into())),
                namespaces: Some("pid".into()),
                limits: Some(MachineLimits {
                    memory_bytes: 416 << 20,
                    pids: 512,
                    cpu_quota: Some(Duration::from_millis(200)),
                    cpu_period: Duration::from_millis(100),
                    cpu_weight: 100,
                    io_weight: 100,
                }),
                processes: vec![HostProcess {
                    pid: 71,
                    name: "qemu-system-x86".into(),
                    threads: 4,
                    resident_bytes: 120 << 20,
                }],
            },
            console_tail: None,
        }
    }

    fn rendered(inspection: &Inspection) -> String {
        let now = inspection.summary.created_at + Duration::from_secs(61);
        let lines = lines(inspection, now).into_iter();
        lines.map(|(key, text)| format!("{key:<12}{}\n", one_line(&text, MAX_TEXT_CHARS))).collect()
    }

    #[test]
    fn a_living_machine_is_shown_with_all_that_is_known() {
        insta::assert_snapshot!(rendered(&inspection()), @"
        id          k3v9w0x2ma
        state       ready
        image       tiny (0123456789ab)
        workflow    w
        creator     uid 1000
        created     1970-01-12T13:46:40Z (61s ago)
        lives       until it is ended, or 2h old
        guest       256 MiB, 1 vcpus, kvm, kernel, CID 4096
        limits      416 MiB, 512 processes and threads, 2.0 CPUs; weights: CPU 100, I/O 100
        cgroup      /sys/fs/cgroup/creel.slice/m-k3v9w0x2ma
        directory   /run/creel/m-k3v9w0x2ma
        image files /var/lib/creel/images/.store/ab
        qemu        /usr/bin/qemu-system-x86_64 7.2.22
        namespaces  pid
        process     71 qemu-system-x86, 4 threads, 120 MiB resident
        setup       prepare 0.01s, spawn ...
        execs       2
        used        CPU 1.2s, at most 125 MiB, read 9 MiB, written 0 MiB
        note        guests are emulated
        ");
    }

    #[test]
    fn an_ended_machine_is_shown_with_its_verdict_and_without_what_is_gone() {
        let mut inspection = inspection();
        inspection.summary.state = State::Ended;
        inspection.summary.verdict = Some(Verdict::of(Outcome::TimedOut));
        inspection.summary.ended_at = Some(inspection.summary.created_at + Duration::from_secs(60));
        inspection.details = MachineDetails::default();
        insta::assert_snapshot!(rendered(&inspection), @"
        id          k3v9w0x2ma
        state       ended
        ended as    timed out
        image       tiny
        workflow    w
        creator     uid 1000
        created     1970-01-12T13:46:40Z (61s ago)
        ended       1970-01-12T13:47:40Z
        guest       256 MiB, 1 vcpus, kvm, kernel, CID 4096
        setup       prepare 0.01s, spawn ...
        used        CPU 1.2s, at most 125 MiB, read 9 MiB, written 0 MiB
        note        guests are emulated
        ");
    }
}
