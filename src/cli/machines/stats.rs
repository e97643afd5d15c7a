//! `creel stats`: what machines take of this host.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use futures_util::stream::{Stream, StreamExt as _, select_all, unfold};
use serde_json::{Value, json};

use super::connect::{Everyone, api_failure, bounded, machine_id};
use super::ps::{name, rfc3339};
use crate::api::{ApiError, Client, StatsStream};
use crate::cli::args::StatsArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::exit::Exit;
use crate::machines::MachineStats;
use crate::runtime::MachineId;

const INTERVAL: Duration = Duration::from_secs(1);

/// What somebody told, by his number; `None`: he has ended.
type Told = (usize, Result<Option<Round>, ApiError>);
type Round = (SystemTime, Vec<MachineStats>);

pub(in crate::cli) async fn stats(context: &Context, arguments: StatsArgs) -> Result<Exit, Failure> {
    let ids: Vec<MachineId> = arguments.ids.iter().map(|id| machine_id(id)).collect::<Result<_, _>>()?;
    let everyone = Everyone::reach(context, &arguments.socket).await?;
    let asked = whom_to_ask(&everyone, &ids).await?;
    let interval = arguments.watch.then_some(INTERVAL);
    let mut streams = Vec::new();
    for (number, (client, ids)) in asked.iter().enumerate() {
        match bounded(client, client.stats(ids, interval)).await {
            Ok(stream) => streams.push(told(number, stream)),
            // A run that has ended since has no machines.
            Err(error) if asked.len() > 1 => eprintln!("creel: note: {}", api_failure(&error)),
            Err(error) => return Err(api_failure(&error)),
        }
    }
    let mut screen = Screen::new(arguments.json.json, arguments.watch);
    let mut latest: Vec<Option<Round>> = vec![None; asked.len()];
    let mut waited_for = streams.len();
    let mut all = select_all(streams);
    while let Some((number, round)) = all.next().await {
        match round {
            // Each has told once, or once more: whoever is first begins the next picture.
            Ok(Some(round)) => {
                latest[number] = Some(round);
                waited_for = waited_for.saturating_sub(1);
            }
            Ok(None) if arguments.watch => latest[number] = None,
            Ok(None) => {}
            Err(error) => {
                latest[number] = None;
                eprintln!("creel: note: {}", api_failure(&error));
            }
        }
        let first = number == latest.iter().position(Option::is_some).unwrap_or(number);
        if arguments.watch && waited_for == 0 && first && !screen.show(&latest)? {
            return Ok(Exit::Success);
        }
    }
    if !arguments.watch {
        screen.show(&latest)?;
    }
    Ok(Exit::Success)
}

/// Each with the machines that it is asked for; none: for all.
async fn whom_to_ask(
    everyone: &Everyone,
    ids: &[MachineId],
) -> Result<Vec<(Client, Vec<MachineId>)>, Failure> {
    if ids.is_empty() {
        return Ok(everyone.clients().iter().map(|client| (client.clone(), Vec::new())).collect());
    }
    let mut asked: Vec<(Client, Vec<MachineId>)> = Vec::new();
    for id in ids {
        let client = everyone.find(id).await?;
        match asked.iter_mut().find(|(other, _)| other.path() == client.path()) {
            Some((_, ids)) => ids.push(id.clone()),
            None => asked.push((client, vec![id.clone()])),
        }
    }
    Ok(asked)
}

fn told(number: usize, stream: StatsStream) -> Pin<Box<dyn Stream<Item = Told> + Send>> {
    Box::pin(unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        let round = stream.next().await;
        let goes_on = matches!(round, Ok(Some(_)));
        Some(((number, round), goes_on.then_some(stream)))
    }))
}

/// Draws one picture over the last one on a terminal, and one below the last one elsewhere.
struct Screen {
    json: bool,
    watch: bool,
    redraws: bool,
    /// Of the last picture.
    lines: usize,
    /// CPU time of each machine in the last picture, and when that was.
    before: HashMap<MachineId, (SystemTime, Duration)>,
}

impl Screen {
    fn new(json: bool, watch: bool) -> Self {
        let redraws = watch && !json && io::stdout().is_terminal();
        Self { json, watch, redraws, lines: 0, before: HashMap::new() }
    }

    /// Whether somebody still looks.
    fn show(&mut self, latest: &[Option<Round>]) -> Result<bool, Failure> {
        let rounds = || latest.iter().flatten();
        let mut text = String::new();
        if self.json {
            let values =
                rounds().flat_map(|(at, machines)| machines.iter().map(|machine| as_json(*at, machine)));
            let values = Value::from(values.collect::<Vec<_>>());
            let _ = if self.watch { writeln!(text, "{values}") } else { writeln!(text, "{values:#}") };
        } else {
            if self.redraws && self.lines > 0 {
                // To the first line of the last picture, and everything from there on away (ECMA-48, CUU and ED).
                let _ = write!(text, "\x1b[{}A\x1b[J", self.lines);
            }
            // Once where pictures stand below each other.
            let rows = self.rows(latest);
            let with_header = self.redraws || self.lines == 0;
            self.lines = rows.len() + usize::from(with_header);
            for line in with_header.then(header).into_iter().chain(rows) {
                text += line.trim_end();
                text.push('\n');
            }
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::internal(format!("failed to write: {error}"))),
        }
    }

    fn rows(&mut self, latest: &[Option<Round>]) -> Vec<String> {
        let mut rows = Vec::new();
        let mut now = HashMap::new();
        for (at, machines) in latest.iter().flatten() {
            for machine in machines {
                let cpu = machine.load.as_ref().and_then(|load| load.cpu);
                let share = cpu.and_then(|cpu| {
                    let (before, cpu_before) = self.before.get(&machine.id)?;
                    let passed = at.duration_since(*before).ok().filter(|passed| !passed.is_zero())?;
                    Some(cpu.saturating_sub(*cpu_before).as_secs_f64() / passed.as_secs_f64())
                });
                rows.push(row(machine, share));
                now.extend(cpu.map(|cpu| (machine.id.clone(), (*at, cpu))));
            }
        }
        self.before = now;
        rows
    }
}

fn header() -> String {
    format!(
        "{:<12} {:<10} {:>6} {:>8} {:>8} {:>8} {:>5} {:>8} {:>8} {:>18} {:>5}",
        "ID", "STATE", "CPU%", "CPU", "MEMORY", "LIMIT", "PIDS", "READ", "WRITTEN", "WAITED", "EXECS"
    )
}

fn row(machine: &MachineStats, cpu_share: Option<f64>) -> String {
    let load = machine.load.clone().unwrap_or_default();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let pressures = [load.cpu_pressure, load.memory_pressure, load.io_pressure];
    let waited = pressures
        .iter()
        .any(Option::is_some)
        .then(|| pressures.map(|waited| or_dash(waited.map(seconds))).join("/"));
    format!(
        "{:<12} {:<10} {:>6} {:>8} {:>8} {:>8} {:>5} {:>8} {:>8} {:>18} {:>5}",
        machine.id.as_str(),
        name(machine.state),
        or_dash(cpu_share.map(|share| format!("{:.0}%", share * 100.0))),
        or_dash(load.cpu.map(seconds)),
        or_dash(load.memory_bytes.map(mebibytes)),
        or_dash(machine.memory_limit_mib.map(|mib| format!("{mib}MiB"))),
        or_dash(load.pids.map(|pids| pids.to_string())),
        or_dash(load.read_bytes.map(mebibytes)),
        or_dash(load.written_bytes.map(mebibytes)),
        or_dash(waited),
        machine.execs,
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{}MiB", bytes.div_ceil(1 << 20))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn as_json(at: SystemTime, machine: &MachineStats) -> Value {
    let load = machine.load.clone().unwrap_or_default();
    let microseconds = |duration: Option<Duration>| {
        duration.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    };
    json!({
        "at": rfc3339(at),
        "id": machine.id.as_str(),
        "state": name(machine.state),
        "execs": machine.execs,
        "memory_bytes": load.memory_bytes,
        "memory_limit_mib": machine.memory_limit_mib,
        "cpu_us": microseconds(load.cpu),
        "pids": load.pids,
        "read_bytes": load.read_bytes,
        "written_bytes": load.written_bytes,
        "cpu_pressure_us": microseconds(load.cpu_pressure),
        "memory_pressure_us": microseconds(load.memory_pressure),
        "io_pressure_us": microseconds(load.io_pressure),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::State;
    use crate::runtime::MachineLoad;

    #[test]
    fn a_share_of_cpu_is_seen_from_the_second_picture_on() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let machine = |cpu_ms| MachineStats {
            id: MachineId::parse("k3v9w0x2ma").unwrap(),
            state: State::Ready,
            execs: 1,
            memory_limit_mib: Some(416),
            load: Some(MachineLoad {
                memory_bytes: Some(100 << 20),
                cpu: Some(Duration::from_millis(cpu_ms)),
                pids: Some(9),
                read_bytes: Some(1),
                written_bytes: Some(0),
                cpu_pressure: Some(Duration::from_millis(1500)),
                memory_pressure: None,
                io_pressure: Some(Duration::ZERO),
            }),
        };
        let setting_up = MachineStats {
            id: MachineId::parse("zzzzzzzzzz").unwrap(),
            state: State::SettingUp,
            execs: 0,
            memory_limit_mib: None,
            load: None,
        };
        let mut screen = Screen::new(false, true);
        let first = screen.rows(&[Some((at(10), vec![machine(2000), setting_up])), None]);
        let second = screen.rows(&[Some((at(12), vec![machine(5000)])), None]);
        let text = [vec![header()], first, second].concat().join("\n");
        insta::assert_snapshot!(text, @"
        ID           STATE        CPU%      CPU   MEMORY    LIMIT  PIDS     READ  WRITTEN             WAITED EXECS
        k3v9w0x2ma   ready           -     2.0s   100MiB   416MiB     9     1MiB     0MiB        1.5s/-/0.0s     1
        zzzzzzzzzz   setting-up      -        -        -        -     -        -        -                  -     0
        k3v9w0x2ma   ready        150%     5.0s   100MiB   416MiB     9     1MiB     0MiB        1.5s/-/0.0s     1
        ");
    }
}
