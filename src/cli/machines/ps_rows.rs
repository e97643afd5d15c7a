//! The rows of `creel ps`: machines that a daemon knows, and runs that are remembered. What is both is one row.

use std::time::SystemTime;

use super::ps::{name, run_state};
use crate::machines::Summary;
use crate::runtime::MachineId;
use crate::state::records::Record;

/// One line of the table.
#[derive(Debug)]
pub(super) enum Row {
    Machine {
        machine: Box<Summary>,
        /// What this user's records say of the run that it was made for.
        run: Option<Record>,
    },
    Run(Record),
}

/// Oldest first, each run and its machine as one.
pub(super) fn merge(machines: Vec<Summary>, runs: impl IntoIterator<Item = Record>) -> Vec<Row> {
    let mut rows: Vec<Row> =
        machines.into_iter().map(|machine| Row::Machine { machine: Box::new(machine), run: None }).collect();
    for record in runs {
        let its = rows.iter_mut().find_map(|row| match row {
            Row::Machine { machine, run } if is_machine_of(machine, &record) => Some(run),
            _ => None,
        });
        match its {
            Some(run) => *run = Some(record),
            None => rows.push(Row::Run(record)),
        }
    }
    rows.sort_by_key(Row::created_at);
    rows
}

fn is_machine_of(machine: &Summary, run: &Record) -> bool {
    machine.id == run.id
        || run.machine.as_ref() == Some(&machine.id)
        || machine.workflow_id == run.workflow_id
}

impl Row {
    pub(super) fn machine(&self) -> Option<&Summary> {
        match self {
            Self::Machine { machine, .. } => Some(machine),
            Self::Run(_) => None,
        }
    }

    pub(super) fn run(&self) -> Option<&Record> {
        match self {
            Self::Machine { run, .. } => run.as_ref(),
            Self::Run(run) => Some(run),
        }
    }

    pub(super) fn id(&self) -> &MachineId {
        match self {
            Self::Machine { machine, .. } => &machine.id,
            Self::Run(run) => &run.id,
        }
    }

    pub(super) fn state(&self) -> &'static str {
        match self {
            Self::Machine { machine, .. } => name(machine.state),
            Self::Run(run) => run_state(run),
        }
    }

    pub(super) fn image(&self) -> &str {
        match self {
            Self::Machine { machine, .. } => &machine.image,
            Self::Run(run) => &run.image,
        }
    }

    /// The workflow's name.
    pub(super) fn workflow(&self) -> Option<&str> {
        self.run().map(|run| run.name.as_str())
    }

    pub(super) fn created_at(&self) -> SystemTime {
        match self {
            Self::Machine { machine, .. } => machine.created_at,
            Self::Run(run) => run.created_at.into(),
        }
    }

    /// How it ended: the run, where there is one, since its machine was only told to end.
    pub(super) fn ended_as(&self) -> Option<String> {
        let machine = self.machine().and_then(|machine| machine.verdict.as_ref()).map(ToString::to_string);
        self.run().and_then(Record::ended_as).or(machine)
    }
}
