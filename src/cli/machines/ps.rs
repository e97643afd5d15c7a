//! `creel ps`: which machines and runs there are.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::connect::{Everyone, Unreached};
use super::ps_rows::{Row, merge};
use crate::cli::args::PsArgs;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, with_causes};
use crate::exit::Exit;
use crate::machines::{State, Summary};
use crate::state::records::{Listed, Record, RecordState};
use crate::text::printable;

pub(in crate::cli) async fn ps(context: &Context, arguments: PsArgs) -> Result<Exit, Failure> {
    let machines = of_everyone(context, &arguments).await?;
    let listed = context.records().list_all().unwrap_or_else(|error| {
        eprintln!("note: {}", with_causes(&error));
        Listed::default()
    });
    if arguments.all {
        for damaged in &listed.damaged {
            eprintln!("note: {}", with_causes(&damaged.error));
        }
    }
    let runs = listed.records.into_iter().filter(|run| arguments.all || run.state == RecordState::Running);
    let rows = match machines {
        Ok(machines) => merge(machines, runs),
        Err(absent) => {
            let rows = merge(Vec::new(), runs);
            if rows.is_empty() {
                absent.tell()?;
            } else if absent.0.refuses {
                eprintln!("note: {}", absent.0.failure);
            }
            rows
        }
    };
    if arguments.json.json {
        let values: Vec<Value> = rows.iter().map(as_json).collect();
        println!("{:#}", Value::from(values));
    } else {
        print!("{}", table(&rows, SystemTime::now()));
    }
    Ok(Exit::Success)
}

/// Nobody told of machines: none of that is in the way of the user's own records.
struct Absent(Unreached);

impl Absent {
    /// When there is nothing else to tell.
    fn tell(self) -> Result<(), Failure> {
        if self.0.refuses {
            return Err(self.0.failure);
        }
        eprintln!("note: {}", self.0.failure);
        Ok(())
    }
}

async fn of_everyone(context: &Context, arguments: &PsArgs) -> Result<Result<Vec<Summary>, Absent>, Failure> {
    let all = arguments.all;
    let listed = async {
        let everyone = Everyone::reach(context, &arguments.socket).await?;
        let listed = everyone.ask_those_that_answer(|client| async move { client.list(all).await }).await;
        listed.map_err(|failure| Unreached { failure, refuses: true })
    };
    match listed.await {
        Ok(listed) => Ok(Ok(listed.into_iter().flat_map(|(_, machines)| machines).collect())),
        Err(unreached) if arguments.socket.socket.is_some() => Err(unreached.failure),
        Err(unreached) => Ok(Err(Absent(unreached))),
    }
}

fn table(rows: &[Row], now: SystemTime) -> String {
    let mut text = format!(
        "{:<12} {:<10} {:<16} {:<16} {:>6} {:>5} {:>8} {:>8} {:>5}  ENDED AS\n",
        "ID", "STATE", "IMAGE", "WORKFLOW", "AGE", "VCPUS", "MEMORY", "PEAK", "EXECS"
    );
    for row in rows {
        let age = short(now.duration_since(row.created_at()).unwrap_or_default());
        // Others chose these.
        let workflow = printable(row.workflow().unwrap_or("-"));
        let [vcpus, memory, peak, execs] = match row.machine() {
            Some(machine) => [
                machine.facts.vcpus.to_string(),
                format!("{}MiB", machine.facts.memory_mib),
                machine
                    .usage
                    .as_ref()
                    .and_then(|usage| usage.peak_memory_kib)
                    .map_or_else(|| "-".to_owned(), |kib| format!("{}MiB", kib >> 10)),
                machine.execs.to_string(),
            ],
            None => ["-"; 4].map(str::to_owned),
        };
        let line = format!(
            "{:<12} {:<10} {:<16} {workflow:<16} {age:>6} {vcpus:>5} {memory:>8} {peak:>8} {execs:>5}  {}",
            row.id().as_str(),
            row.state(),
            printable(row.image()),
            printable(&row.ended_as().unwrap_or_default()),
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}

pub(super) fn name(state: State) -> &'static str {
    match state {
        State::SettingUp => "setting-up",
        State::Ready => "ready",
        State::Ending => "ending",
        State::Ended => "ended",
    }
}

/// The largest unit alone: nobody reads seconds of a day.
pub(super) fn short(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn as_json(row: &Row) -> Value {
    let mut value = match row {
        Row::Machine { machine, .. } => of_machine(machine),
        Row::Run(run) => of_run(run),
    };
    value["workflow"] = row.workflow().into();
    value["run"] = row.run().map(|run| run.id.as_str()).into();
    value["run_ended_as"] = row.run().and_then(Record::ended_as).into();
    value
}

pub(super) fn of_machine(machine: &Summary) -> Value {
    let facts = &machine.facts;
    json!({
        "kind": "machine",
        "id": machine.id.as_str(),
        "state": name(machine.state),
        "image": machine.image,
        "workflow_id": machine.workflow_id,
        "creator_uid": machine.creator_uid,
        "created_at": rfc3339(machine.created_at),
        "ended_at": machine.ended_at.map(rfc3339),
        "memory_mib": facts.memory_mib,
        "vcpus": facts.vcpus,
        "accel": facts.accel,
        "transport": facts.transport,
        "cid": facts.cid,
        "keeper_pid": facts.keeper_pid,
        "cgroup": facts.cgroup.as_ref().map(|path| path.display().to_string()),
        "memory_limit_mib": facts.memory_limit_mib,
        "execs": machine.execs,
        "usage": machine.usage,
        "verdict": machine.verdict,
        "ended_as": machine.verdict.as_ref().map(ToString::to_string),
    })
}

/// The same fields: nobody knows those of its machine any more.
fn of_run(run: &Record) -> Value {
    json!({
        "kind": "run",
        "id": run.id.as_str(),
        "state": run_state(run),
        "image": run.image,
        "workflow_id": run.workflow_id,
        "creator_uid": run.creator_uid,
        "created_at": run.created_at.to_string(),
        "ended_at": run.ended_at.map(|time| time.to_string()),
        "memory_mib": null,
        "vcpus": null,
        "accel": null,
        "transport": null,
        "cid": null,
        "keeper_pid": null,
        "cgroup": null,
        "memory_limit_mib": null,
        "execs": null,
        "usage": run.verdict.as_ref().and_then(|verdict| verdict.usage.machine.clone()),
        "verdict": run.verdict,
        "ended_as": run.ended_as(),
    })
}

pub(super) fn run_state(run: &Record) -> &'static str {
    match run.state {
        RecordState::Running => "running",
        RecordState::Ended => "ended",
    }
}

pub(super) fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{MachineFacts, MachineId, MachineUsage, OutOfMemory, Outcome, Tenant, Verdict};

    #[test]
    fn living_and_ended_machines_are_listed_with_what_is_known() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let machine = |id: &str, state, age_seconds| Summary {
            id: MachineId::parse(id).unwrap(),
            state,
            image: "tiny".into(),
            workflow_id: "w".into(),
            creator_uid: 0,
            created_at: now - Duration::from_secs(age_seconds),
            facts: MachineFacts { vcpus: 1, memory_mib: 256, ..MachineFacts::default() },
            execs: 2,
            usage: None,
            verdict: None,
            ended_at: None,
        };
        let scope = OutOfMemory::MachineLimit { limit_mib: 200, peak_mib: 200 };
        let ended = Summary {
            execs: 0,
            usage: Some(MachineUsage { peak_memory_kib: Some(200 << 10), ..MachineUsage::default() }),
            verdict: Some(Verdict::of(Outcome::OutOfMemory { scope })),
            ..machine("zzzzzzzzzz", State::Ended, 7300)
        };
        let run = |id: &str, workflow_id: &str, name: &str, age_seconds: u64| Record {
            version: 1,
            id: MachineId::parse(id).unwrap(),
            workflow_id: workflow_id.into(),
            tenant: Tenant::local(0),
            name: name.into(),
            engine: "microvm".into(),
            image: "debian".into(),
            creator_uid: 0,
            state: RecordState::Ended,
            created_at: (now - Duration::from_secs(age_seconds)).try_into().unwrap(),
            ended_at: None,
            steps: Vec::new(),
            verdict: Some(Verdict::of(Outcome::Exited { code: 2 })),
            setup_error: None,
            machine: None,
            lost: false,
        };
        let of_run =
            Summary { workflow_id: "aaaaaaaaaa-lint".into(), ..machine("mmmmmmmmmm", State::Ended, 500) };
        let rows = merge(
            vec![machine("k3v9w0x2ma", State::Ready, 61), ended, of_run],
            [
                run("aaaaaaaaaa", "aaaaaaaaaa-lint", "lint", 500),
                run("bbbbbbbbbb", "bbbbbbbbbb-test", "test", 400_000),
            ],
        );
        insta::assert_snapshot!(table(&rows, now), @r"
        ID           STATE      IMAGE            WORKFLOW            AGE VCPUS   MEMORY     PEAK EXECS  ENDED AS
        bbbbbbbbbb   ended      debian           test                 4d     -        -        -     -  exited with code 2
        zzzzzzzzzz   ended      tiny             -                    2h     1   256MiB   200MiB     0  out of memory (the machine's limit of 200 MiB; peak 200 MiB)
        mmmmmmmmmm   ended      tiny             lint                 8m     1   256MiB        -     2  exited with code 2
        k3v9w0x2ma   ready      tiny             -                   61s     1   256MiB        -     2
        ");
        let of = |row: &Row| {
            let value = as_json(row);
            format!(
                "{} {} {} {} {}",
                value["kind"], value["id"], value["run"], value["workflow"], value["ended_as"]
            )
        };
        insta::assert_snapshot!(rows.iter().map(of).collect::<Vec<_>>().join("\n"), @r#"
        "run" "bbbbbbbbbb" "bbbbbbbbbb" "test" "exited with code 2"
        "machine" "zzzzzzzzzz" null null "out of memory (the machine's limit of 200 MiB; peak 200 MiB)"
        "machine" "mmmmmmmmmm" "aaaaaaaaaa" "lint" null
        "machine" "k3v9w0x2ma" null null null
        "#);
    }
}
