//! Shows one workflow: its events while the machine comes up, then what its log says.
//!
//! Steps are shown from the log alone, so that what stands on the screen is what was stored, in the
//! order in which it was stored.

use std::io;
use std::sync::Arc;

use indicatif::ProgressBar;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::screen::{Colour, Screen, Style};
use crate::runtime::{Phase, SetupEvent};
use crate::state::log::{
    Control, FollowError, Follower, LineSplitter, LogLine, Payload, Record, SETUP_STEP, StepStatus,
};
use crate::workflow::WorkflowEvent;

/// Renders one workflow of a run.
#[derive(Debug)]
pub struct WorkflowRenderer {
    screen: Arc<Screen>,
    workflow: String,
    /// Several workflows run at once: each line says whose it is.
    labelled: bool,
    step_names: Vec<String>,
    lines: LineSplitter,
    spinner: Option<ProgressBar>,
}

impl WorkflowRenderer {
    pub fn new(screen: Arc<Screen>, workflow: String, labelled: bool, step_names: Vec<String>) -> Self {
        Self { screen, workflow, labelled, step_names, lines: LineSplitter::default(), spinner: None }
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
            tokio::select! {
                // What happened first is shown first: setup's events, then the steps' records.
                biased;
                Some(event) = events.recv() => self.event(event),
                record = log.next() => match record {
                    None => break,
                    Some(Ok(record)) => self.record(&record)?,
                    Some(Err(FollowError::Expired(range))) => self.expired(&LogLine::expired(&range, Timestamp::now()))?,
                    Some(Err(FollowError::Log(error))) => return Err(io::Error::other(error)),
                },
            }
        }
        let mut rest = Vec::new();
        std::mem::take(&mut self.lines).finish(|line| rest.push(line));
        rest.iter().try_for_each(|line| self.line(line))?;
        self.still();
        Ok(())
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
                let text = format!("{} {notice}", self.screen.paint(Colour::Yellow, "note:"));
                self.note(&text);
            }
            WorkflowEvent::SetupEnded { .. } => self.still(),
            WorkflowEvent::TeardownStarted => self.busy("ending the machine"),
            WorkflowEvent::StepStarted { .. } | WorkflowEvent::StepEnded { .. } => {}
        }
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        if self.screen.style() == Style::Json || self.labelled {
            let mut lines = Vec::new();
            self.lines.push(record, |line| lines.push(line));
            lines.iter().try_for_each(|line| self.line(line))?;
        } else if let Payload::Data { bytes, .. } = &record.payload {
            self.screen.output(bytes)?;
        }
        if let Payload::Control(control) = &record.payload
            && self.screen.style() == Style::Text
        {
            self.control(record.step, control);
        }
        Ok(())
    }

    fn line(&self, line: &LogLine) -> io::Result<()> {
        match self.screen.style() {
            Style::Json => {
                let mut value = serde_json::to_value(line)?;
                value["workflow"] = self.workflow.clone().into();
                self.screen.output(format!("{value}\n").as_bytes())
            }
            Style::Text if line.stream.is_some() => {
                self.screen.output(format!("[{}] {}\n", self.workflow, line.content).as_bytes())
            }
            Style::Text => Ok(()),
        }
    }

    fn expired(&self, line: &LogLine) -> io::Result<()> {
        match self.screen.style() {
            Style::Json => self.line(line),
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
            StepStatus::Start => self.note(&self.screen.paint(Colour::Bold, &format!("==> {name}"))),
            StepStatus::End if control.content == "ok" => {}
            StepStatus::End => {
                let text = format!("step `{name}`: {}", control.content);
                self.note(&self.screen.paint(Colour::Red, &text));
            }
        }
    }

    fn note(&self, text: &str) {
        if self.labelled {
            self.screen.note(&format!("[{}] {text}", self.workflow));
        } else {
            self.screen.note(text);
        }
    }

    fn busy(&mut self, doing: &str) {
        let text = if self.labelled { format!("[{}] {doing}", self.workflow) } else { doing.to_owned() };
        match &self.spinner {
            Some(spinner) => spinner.set_message(text),
            None => self.spinner = Some(self.screen.spinner(text)),
        }
    }

    fn still(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for WorkflowRenderer {
    fn drop(&mut self) {
        self.still();
    }
}
