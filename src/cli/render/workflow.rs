//! Shows one workflow: its events while the machine comes up, then what its log says.
//!
//! Steps are shown from the log alone, so that what stands on the screen is what was stored, in the
//! order in which it was stored.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::palette::Colour;
use super::screen::{Screen, Style};
use crate::config::Period;
use crate::runtime::{MachineId, Phase, SetupEvent};
use crate::state::log::{
    Control, FollowError, Follower, LineSplitter, LogLine, Payload, Record, SETUP_STEP, StepStatus,
};
use crate::text::printable;
use crate::workflow::{LetGo, WorkflowEvent};

/// Renders one workflow of a run.
#[derive(Debug)]
pub struct WorkflowRenderer {
    screen: Arc<Screen>,
    workflow: String,
    /// Several workflows run at once: each line says whose it is.
    labelled: bool,
    step_names: Vec<String>,
    lines: LineSplitter,
    /// The run, if it is remembered.
    recorded_as: Option<MachineId>,
    /// A machine that is kept, until that is told: not before all output that led to it.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    machine: MachineId,
    limit: Duration,
    log_end: u64,
}

impl WorkflowRenderer {
    pub fn new(screen: Arc<Screen>, workflow: String, labelled: bool, step_names: Vec<String>) -> Self {
        let lines = LineSplitter::default();
        Self { screen, workflow, labelled, step_names, lines, recorded_as: None, kept: None }
    }

    /// `creel logs` knows the run as this.
    #[must_use]
    pub fn recorded_as(mut self, run: Option<MachineId>) -> Self {
        self.recorded_as = run;
        self
    }

    /// Shows everything until the log ends.
    ///
    /// # Errors
    /// When stdout can't be written, or the log not read.
    pub async fn show(
        &mut self,
        mut events: mpsc::UnboundedReceiver<WorkflowEvent>,
        mut log: Follower,
    ) -> io::Result<()> {
        loop {
            if let Some(kept) = self.kept.take_if(|kept| kept.log_end <= log.position()) {
                self.finish_lines().await?;
                self.tell_kept(&kept).await?;
            }
            tokio::select! {
                // What happened first is shown first: setup's events, then the steps' records.
                biased;
                Some(event) = events.recv() => self.event(event),
                record = log.next() => match record {
                    None => break,
                    Some(Ok(record)) => self.record(&record).await?,
                    Some(Err(FollowError::Expired(range))) => {
                        self.finish_lines().await?;
                        self.expired(&LogLine::expired(&range, Timestamp::now())).await?;
                    }
                    Some(Err(FollowError::Log(error))) => return Err(io::Error::other(error)),
                },
            }
        }
        self.finish_lines().await?;
        // The log may be seen to end before the last of what happened is heard of.
        while let Some(event) = events.recv().await {
            self.event(event);
        }
        self.still();
        Ok(())
    }

    /// Shows the lines that never ended.
    async fn finish_lines(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        self.lines.finish(|line| rest.push(line));
        self.lines(&rest).await
    }

    fn event(&mut self, event: WorkflowEvent) {
        match event {
            WorkflowEvent::Setup(SetupEvent::Started(phase)) => {
                let doing = match phase {
                    Phase::Prepare => "preparing the machine",
                    Phase::Spawn => "starting QEMU",
                    Phase::Boot => "booting",
                    Phase::Handshake => "waiting for the agent",
                };
                self.busy(doing);
            }
            WorkflowEvent::Setup(SetupEvent::Finished(..)) => {}
            WorkflowEvent::Setup(SetupEvent::Notice(notice)) => {
                let text = format!("{} {notice}", self.screen.palette.paint(Colour::Yellow, "note:"));
                self.note(&text);
            }
            WorkflowEvent::SetupEnded { .. } => self.still(),
            WorkflowEvent::TeardownStarted => self.busy("ending the machine"),
            WorkflowEvent::Kept { machine, limit, log_end } => {
                self.kept = Some(Kept { machine, limit, log_end });
            }
            WorkflowEvent::LetGo(why) => {
                self.kept = None;
                self.still();
                match why {
                    LetGo::Cancelled => {}
                    LetGo::TimeLimit => self.note("the machine was kept long enough"),
                    LetGo::Ended(outcome) => {
                        self.note(&format!("the machine that was kept has ended: {outcome}"))
                    }
                }
            }
            WorkflowEvent::StepStarted { .. } | WorkflowEvent::StepEnded { .. } => {}
        }
    }

    /// That the machine stays, for how long, and how to get at it and what it left.
    async fn tell_kept(&self, kept: &Kept) -> io::Result<()> {
        let Kept { machine, limit, .. } = kept;
        let limit_text =
            Period::try_from(*limit).map_or_else(|_| format!("{limit:?}"), |limit| limit.to_string());
        if self.screen.style() == Style::Json {
            let value = serde_json::json!({
                "kind": "kept",
                "workflow": self.workflow,
                "id": self.recorded_as.as_ref().map(MachineId::as_str),
                "machine": machine.as_str(),
                "keep_us": u64::try_from(limit.as_micros()).unwrap_or(u64::MAX),
            });
            return self.screen.output(format!("{value}\n").into_bytes()).await;
        }
        self.note(&format!("machine {machine} is kept for {limit_text}; Ctrl-C ends it. To look into it:"));
        self.note(&format!("  creel exec {machine} -- CMD"));
        self.note(&format!("  creel shell {machine}"));
        if let Some(run) = &self.recorded_as {
            self.note(&format!("  creel logs {run}"));
        }
        self.busy("keeping the machine");
        Ok(())
    }

    async fn record(&mut self, record: &Record) -> io::Result<()> {
        if self.screen.style() == Style::Json || self.labelled {
            let mut lines = Vec::new();
            self.lines.push(record, |line| lines.push(line));
            self.lines(&lines).await?;
        } else if let Payload::Data { bytes, .. } = &record.payload {
            self.screen.output(bytes.to_vec()).await?;
        }
        if let Payload::Control(control) = &record.payload
            && self.screen.style() == Style::Text
        {
            self.control(record.step, control);
        }
        Ok(())
    }

    async fn lines(&self, lines: &[LogLine]) -> io::Result<()> {
        for line in lines {
            match self.screen.style() {
                Style::Json => {
                    let mut value = serde_json::to_value(line)?;
                    value["workflow"] = self.workflow.clone().into();
                    self.screen.output(format!("{value}\n").into_bytes()).await?;
                }
                Style::Text if line.stream.is_some() => {
                    // A carriage return could write over the label, and so claim another workflow's line.
                    let content = line.content.split('\t').map(printable).collect::<Vec<_>>().join("\t");
                    self.screen.output(format!("[{}] {content}\n", self.workflow).into_bytes()).await?;
                }
                Style::Text => {}
            }
        }
        Ok(())
    }

    async fn expired(&self, line: &LogLine) -> io::Result<()> {
        match self.screen.style() {
            Style::Json => self.lines(std::slice::from_ref(line)).await,
            Style::Text => {
                self.note(&line.content);
                Ok(())
            }
        }
    }

    fn control(&self, step: i32, control: &Control) {
        if step == SETUP_STEP {
            return;
        }
        let name = usize::try_from(step).ok().and_then(|step| self.step_names.get(step));
        let name = name.map_or("", String::as_str);
        match control.step_status {
            StepStatus::Start => self.note(&self.screen.palette.paint(Colour::Bold, &format!("==> {name}"))),
            StepStatus::End if control.content == "ok" => {}
            StepStatus::End => {
                let text = format!("step `{name}`: {}", control.content);
                self.note(&self.screen.palette.paint(Colour::Red, &text));
            }
        }
    }

    fn note(&self, text: &str) {
        if self.labelled {
            self.screen.note(format!("[{}] {text}", self.workflow));
        } else {
            self.screen.note(text);
        }
    }

    fn busy(&self, doing: &str) {
        if self.labelled {
            self.screen.busy(&self.workflow, &format!("[{}] {doing}", self.workflow));
        } else {
            self.screen.busy(&self.workflow, doing);
        }
    }

    fn still(&self) {
        self.screen.still(&self.workflow);
    }
}

impl Drop for WorkflowRenderer {
    fn drop(&mut self) {
        self.still();
    }
}
