//! What calls of the workflow level end with.

use creel_proto::v1 as wire;
use tonic::{Code, Status};

use super::{bounded_outcome, internal, setup_failed, shortened, with_detail};
use crate::engine::PlanError;
use crate::runtime::{Outcome, Verdict};
use crate::text::one_line;
use crate::workflow::StepOrder;
use crate::workflows::{Fault, InitError, Refusal};

pub(in crate::api) const PROBLEMS_TYPE: &str = "type.googleapis.com/creel.v1.ManifestProblems";
pub(in crate::api) const VERDICT_TYPE: &str = "type.googleapis.com/creel.v1.Verdict";

/// Of all messages together, so that they fit into a trailer.
const MAX_PROBLEMS_BYTES: usize = 2 << 10;
const MAX_PROBLEM_CHARS: usize = 200;

/// What a call waits for, which decides how a workflow's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Wanted {
    /// A slot or a machine: its own deadline and cancel have codes of their own.
    Machine,
    Step,
}

pub(in crate::api) fn init_failed(error: &InitError) -> Status {
    let text = || shortened(error.to_string());
    match error {
        InitError::Fault(fault) => faulty(fault),
        InitError::Exists { .. } => Status::already_exists(text()),
        InitError::Full { .. } | InitError::FullOfThisUser { .. } => Status::resource_exhausted(text()),
        InitError::Draining => Status::unavailable(text()),
        InitError::NotRecorded(_) => internal(error),
    }
}

fn faulty(fault: &Fault) -> Status {
    let text = shortened(fault.to_string());
    match fault {
        Fault::Manifest(errors) => {
            let problems = errors.problems().iter().map(|problem| wire::ManifestProblem {
                line: u32::try_from(problem.span.line).unwrap_or(u32::MAX),
                column: u32::try_from(problem.span.column).unwrap_or(u32::MAX),
                message: one_line(&problem.message, MAX_PROBLEM_CHARS),
            });
            let problems = wire::ManifestProblems { problems: bounded(problems.collect()) };
            let first = problems.problems.first().map(|first| format!(":{}:{}", first.line, first.column));
            let (name, message) = (errors.file_name(), &errors.problems()[0].message);
            let more = match errors.problems().len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let text = format!(
                "{name}{}: {}{more}",
                first.unwrap_or_default(),
                one_line(message, MAX_PROBLEM_CHARS)
            );
            with_detail(Code::InvalidArgument, shortened(text), PROBLEMS_TYPE, &problems)
        }
        Fault::TooMuch(message) => {
            let problem = wire::ManifestProblem { line: 0, column: 0, message: message.clone() };
            let problems = wire::ManifestProblems { problems: vec![problem] };
            with_detail(Code::InvalidArgument, text, PROBLEMS_TYPE, &problems)
        }
        Fault::NotYet(_) | Fault::Plan(PlanError::NotNixos { .. }) => Status::failed_precondition(text),
        Fault::Plan(_) | Fault::BadImageName(_) => Status::invalid_argument(text),
        Fault::NoImage(_) => Status::not_found(text),
        Fault::BrokenImage(_) => Status::failed_precondition(text),
    }
}

/// As many as fit, and how many more there are.
fn bounded(problems: Vec<wire::ManifestProblem>) -> Vec<wire::ManifestProblem> {
    let (count, mut bytes) = (problems.len(), 0);
    let fits = |problem: &wire::ManifestProblem| {
        bytes += problem.message.len() + 8;
        bytes <= MAX_PROBLEMS_BYTES
    };
    let mut told: Vec<_> = problems.into_iter().take_while(fits).collect();
    if told.len() < count {
        let message = format!("and {} more problems", count - told.len());
        told.push(wire::ManifestProblem { line: 0, column: 0, message });
    }
    told
}

pub(in crate::api) fn refused(refusal: &Refusal, wanted: Wanted) -> Status {
    let text = || shortened(refusal.to_string());
    match refusal {
        Refusal::Unknown { .. } | Refusal::LogGone => Status::not_found(text()),
        Refusal::Ambiguous { .. } => Status::failed_precondition(text()),
        Refusal::NoSlot => Status::resource_exhausted(text()),
        Refusal::Over(verdict) => over(verdict, wanted),
        Refusal::Draining => Status::unavailable(text()),
        Refusal::Setup(error) => setup_failed(error),
        Refusal::Order(StepOrder::Unknown { .. }) | Refusal::Secrets(_) => Status::invalid_argument(text()),
        Refusal::Order(_) => Status::failed_precondition(text()),
        Refusal::NotEnded { .. } | Refusal::NotFreed(_) | Refusal::Unreadable(_) => internal(refusal),
    }
}

fn over(verdict: &Verdict, wanted: Wanted) -> Status {
    let code = match (&verdict.outcome, wanted) {
        (Outcome::TimedOut, Wanted::Machine) => Code::DeadlineExceeded,
        (Outcome::Cancelled, Wanted::Machine) => Code::Cancelled,
        _ => Code::FailedPrecondition,
    };
    let text = shortened(Refusal::Over(Box::new(verdict.clone())).to_string());
    let verdict = wire::Verdict {
        outcome: Some(bounded_outcome(verdict.outcome.clone().into())),
        detail: verdict.detail.clone().map(shortened),
        usage: Some(verdict.usage.clone().into()),
        console_tail: None,
    };
    with_detail(code, text, VERDICT_TYPE, &verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_fit_the_smallest_of_peers_whatever_a_file_holds() {
        let keys: String = (0..400).map(|key| format!("é{}{key}: 1\n", "ä".repeat(50))).collect();
        let errors = crate::engine::Manifest::parse("a.yml", &keys).unwrap_err();
        let faults = [
            Fault::Manifest(std::sync::Arc::new(errors)),
            Fault::TooMuch("ä".repeat(200)),
            Fault::NoImage("ä".repeat(10_000)),
        ];
        let verdict =
            Verdict { detail: Some("ä".repeat(9999)), ..Verdict::of(Outcome::internal("ü".repeat(9999))) };
        let statuses = faults.iter().map(faulty).chain([over(&verdict, Wanted::Step)]);
        for status in statuses {
            let headers = status.into_http::<()>().headers().clone();
            let size: usize =
                headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(size < 8 << 10, "{size} bytes");
        }
    }
}
