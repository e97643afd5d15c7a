//! Workflows: what makes one, checked, and what there is to say of one.

use std::time::Duration;

use creel_proto::v1 as wire;
use creel_proto::v1::trigger;

use super::{Malformed, required, since_epoch_us};
use crate::engine::{GitRef, PullRequestAction, Repository, RunFacts, Trigger, TriggerKind};
use crate::runtime::Tenant;
use crate::text::one_line;
use crate::workflows::{Name, Place, State, StepProgress, View};

/// Of names and DIDs.
const MAX_NAME_BYTES: usize = 200;

/// Of a trigger's texts: hosts, refs, URLs.
const MAX_TEXT_BYTES: usize = 1 << 10;

/// Of all inputs of a manual run.
const MAX_INPUTS: usize = 100;

pub(in crate::api) const MAX_MANIFEST_BYTES: usize = 256 << 10;

const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// What is shown of a step's command.
const MAX_COMMAND_BYTES: usize = 1 << 10;

/// A name, or a DID: it ends up in logs, labels and in the guest.
fn checked(text: String, field: &str, min: usize, max: usize) -> Result<String, Malformed> {
    if (min..=max).contains(&text.len()) && !text.contains(|c: char| c.is_control()) {
        return Ok(text);
    }
    Err(Malformed(format!("`{field}` must be {min} to {max} bytes without control characters")))
}

fn optional(text: String, field: &str) -> Result<Option<String>, Malformed> {
    checked(text, field, 0, MAX_TEXT_BYTES).map(|text| Some(text).filter(|text| !text.is_empty()))
}

pub(in crate::api) fn tenant(tenant: wire::WorkflowTenant) -> Result<Tenant, Malformed> {
    let owner = checked(tenant.owner, "tenant.owner", 1, MAX_NAME_BYTES)?;
    if owner.starts_with("local:") {
        return Err(Malformed(
            "`tenant.owner` must not begin with `local:`, which runs of `creel` have".into(),
        ));
    }
    let repo_did = checked(tenant.repo_did, "tenant.repo_did", 0, MAX_NAME_BYTES)?;
    Ok(Tenant { owner, repo_did })
}

pub(in crate::api) fn name(key: Option<wire::WorkflowKey>) -> Result<Name, Malformed> {
    let key = required(key, "workflow")?;
    let tenant = tenant(required(key.tenant, "workflow.tenant")?)?;
    let workflow_id = checked(key.workflow_id, "workflow.workflow_id", 1, MAX_NAME_BYTES)?;
    Ok(Name { tenant, workflow_id })
}

pub(in crate::api) fn file_name(name: String) -> Result<String, Malformed> {
    let name = checked(name, "file_name", 1, MAX_NAME_BYTES)?;
    if name.contains('/') {
        return Err(Malformed("`file_name` must be a file's name without folders".into()));
    }
    Ok(name)
}

pub(in crate::api) fn manifest(text: String) -> Result<String, Malformed> {
    if text.len() > MAX_MANIFEST_BYTES {
        return Err(Malformed(format!(
            "`manifest` has {} bytes, more than the {MAX_MANIFEST_BYTES} that it may have",
            text.len()
        )));
    }
    Ok(text)
}

pub(in crate::api) fn timeout(timeout_us: Option<u64>) -> Result<Option<Duration>, Malformed> {
    let Some(timeout) = timeout_us.map(Duration::from_micros) else { return Ok(None) };
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        let hours = MAX_TIMEOUT.as_secs() / 3600;
        return Err(Malformed(format!("`timeout_us` must be more than 0, and {hours} hours at most")));
    }
    Ok(Some(timeout))
}

/// What set it off, and what is known of the run by that.
pub(in crate::api) fn trigger(
    message: Option<wire::Trigger>,
    pipeline_id: String,
) -> Result<(Trigger, RunFacts), Malformed> {
    let message = required(message, "trigger")?;
    let (kind, sha) = match required(message.kind, "trigger.kind")? {
        trigger::Kind::Push(push) => {
            commit(&push.old_sha, "trigger.push.old_sha")?;
            let git_ref = git_ref(push.r#ref, "trigger.push.ref")?;
            let sha = required(commit(&push.new_sha, "trigger.push.new_sha")?, "trigger.push.new_sha")?;
            (TriggerKind::Push { git_ref }, Some(sha))
        }
        trigger::Kind::PullRequest(request) => {
            let field = "trigger.pull_request.source_sha";
            let sha = required(commit(&request.source_sha, field)?, field)?;
            let target = optional(request.target_branch, "trigger.pull_request.target_branch")?;
            let kind = TriggerKind::PullRequest {
                source_branch: optional(request.source_branch, "trigger.pull_request.source_branch")?,
                target_branch: required(target, "trigger.pull_request.target_branch")?,
                action: action(&request.action)?,
            };
            (kind, Some(sha))
        }
        trigger::Kind::Manual(manual) => {
            if manual.inputs.len() > MAX_INPUTS {
                return Err(Malformed(format!("`trigger.manual.inputs` has more than {MAX_INPUTS} entries")));
            }
            let git_ref = optional(manual.r#ref, "trigger.manual.ref")?;
            let inputs = manual.inputs.into_iter().map(|input| (input.name, input.value));
            let kind = TriggerKind::Manual {
                git_ref: git_ref.as_deref().map(GitRef::parse),
                inputs: inputs.collect(),
            };
            (kind, commit(&manual.sha, "trigger.manual.sha")?)
        }
    };
    let repository = message.repository.map(repository).transpose()?.unwrap_or_default();
    let pipeline_id = optional(pipeline_id, "pipeline_id")?;
    Ok((Trigger { kind, changed_paths: None }, RunFacts { pipeline_id, repository, sha }))
}

fn repository(message: wire::TriggerRepository) -> Result<Repository, Malformed> {
    Ok(Repository {
        knot: optional(message.knot, "trigger.repository.knot")?,
        owner_did: optional(message.did, "trigger.repository.did")?,
        repo_did: optional(message.repo_did, "trigger.repository.repo_did")?,
        name: optional(message.name, "trigger.repository.name")?,
        default_branch: optional(message.default_branch, "trigger.repository.default_branch")?,
        url: optional(message.url, "trigger.repository.url")?,
    })
}

fn git_ref(text: String, field: &str) -> Result<GitRef, Malformed> {
    Ok(GitRef::parse(&required(optional(text, field)?, field)?))
}

/// A git object name in full, SHA-1 or SHA-256; `None` if it is left out.
fn commit(sha: &str, field: &str) -> Result<Option<String>, Malformed> {
    match sha.len() {
        0 => Ok(None),
        40 | 64 if sha.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Some(sha.to_owned())),
        _ => Err(Malformed(format!("`{field}` is not a commit: those have 40 or 64 hexadecimal digits"))),
    }
}

fn action(text: &str) -> Result<Option<PullRequestAction>, Malformed> {
    if text.is_empty() {
        return Ok(None);
    }
    let found = PullRequestAction::ALL.into_iter().find(|action| action.as_str() == text);
    found.map(Some).ok_or_else(|| {
        let known: Vec<_> = PullRequestAction::ALL.iter().map(|action| action.as_str()).collect();
        let known = known.join("`, `");
        Malformed(format!("`trigger.pull_request.action` is `{}`, none of `{known}`", one_line(text, 40)))
    })
}

impl From<&Name> for wire::WorkflowKey {
    fn from(name: &Name) -> Self {
        let Tenant { owner, repo_did } = name.tenant.clone();
        let tenant = Some(wire::WorkflowTenant { owner, repo_did });
        Self { tenant, workflow_id: name.workflow_id.clone() }
    }
}

fn state(state: State, slot: Option<Place>) -> wire::WorkflowState {
    match (state, slot) {
        (State::Pending, Some(Place::Waiting { .. })) => wire::WorkflowState::Waiting,
        (State::Pending, _) => wire::WorkflowState::Pending,
        (State::SettingUp, _) => wire::WorkflowState::SettingUp,
        (State::Running, _) => wire::WorkflowState::Running,
        (State::Stopped, _) => wire::WorkflowState::Stopped,
        (State::Ended, _) => wire::WorkflowState::Ended,
    }
}

impl From<View> for wire::Workflow {
    fn from(view: View) -> Self {
        let running = view.running;
        let steps = view.steps.into_iter().enumerate();
        Self {
            key: Some((&view.key.name).into()),
            machine_id: view.machine_id.to_string(),
            name: view.name,
            engine: view.engine,
            image: view.image,
            state: state(view.state, view.slot).into(),
            creator_uid: view.key.creator_uid,
            created_at_us: since_epoch_us(view.created_at),
            deadline_us: view.deadline_at.map_or(0, since_epoch_us),
            steps: steps.map(|(index, step)| planned_step(step, running == Some(index))).collect(),
            verdict: view.verdict.map(Into::into),
            ended_at_us: view.ended_at.map(since_epoch_us),
            has_slot: view.slot == Some(Place::Held),
        }
    }
}

fn planned_step(step: StepProgress, running: bool) -> wire::PlannedStep {
    let StepProgress { name, kind, mut command, verdict } = step;
    if command.len() > MAX_COMMAND_BYTES {
        let end = (0..=MAX_COMMAND_BYTES).rev().find(|end| command.is_char_boundary(*end));
        command.truncate(end.unwrap_or(0));
    }
    wire::PlannedStep { name, kind, command, verdict: verdict.map(Into::into), running }
}

/// As one of many: consoles would make a listing larger than a message may be, and commands, too.
pub(in crate::api) fn listed(mut view: View) -> wire::Workflow {
    let verdicts = view.steps.iter_mut().filter_map(|step| step.verdict.as_mut());
    verdicts.chain(view.verdict.as_mut()).for_each(|verdict| verdict.console_tail = None);
    view.steps.iter_mut().for_each(|step| step.command.clear());
    view.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(push: wire::PushTrigger) -> Result<(Trigger, RunFacts), Malformed> {
        let kind = Some(trigger::Kind::Push(push));
        super::trigger(Some(wire::Trigger { kind, repository: None }), String::new())
    }

    fn push(r#ref: &str, new_sha: &str) -> wire::PushTrigger {
        wire::PushTrigger { r#ref: r#ref.into(), new_sha: new_sha.into(), old_sha: String::new() }
    }

    #[test]
    fn a_push_says_what_runs() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let (trigger, facts) = pushed(push("refs/tags/v1.0", sha)).unwrap();
        assert_eq!(trigger, Trigger::push(GitRef::Tag("v1.0".into())));
        assert_eq!(facts.sha.as_deref(), Some(sha));
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_field() {
        let sha = "a".repeat(40);
        let request = |action: &str| {
            let kind = Some(trigger::Kind::PullRequest(wire::PullRequestTrigger {
                target_branch: "main".into(),
                source_sha: sha.clone(),
                action: action.into(),
                ..Default::default()
            }));
            trigger(Some(wire::Trigger { kind, repository: None }), String::new()).map(drop)
        };
        let key = |owner: &str, id: &str| {
            let tenant = Some(wire::WorkflowTenant { owner: owner.into(), repo_did: String::new() });
            name(Some(wire::WorkflowKey { tenant, workflow_id: id.into() })).map(drop)
        };
        let repository = |knot: &str| {
            let repository = wire::TriggerRepository { knot: knot.into(), ..Default::default() };
            let kind = Some(trigger::Kind::Manual(wire::ManualTrigger::default()));
            trigger(Some(wire::Trigger { kind, repository: Some(repository) }), String::new()).map(drop)
        };
        let refusals = [
            trigger(None, String::new()).map(drop),
            trigger(Some(wire::Trigger::default()), String::new()).map(drop),
            pushed(push("", &sha)).map(drop),
            pushed(push("main", "")).map(drop),
            pushed(push("main", "main; rm -rf /")).map(drop),
            pushed(push("ma\nin", &sha)).map(drop),
            request("\u{1b}[2Jlabelled"),
            repository("knot\0"),
            name(None).map(drop),
            name(Some(wire::WorkflowKey::default())).map(drop),
            key("", "w"),
            key("local:0", "w"),
            key("did:plc:a", ""),
            key("did:plc:a", &"w".repeat(201)),
            key("did:plc:a", "w\t"),
            file_name("../test.yml".into()).map(drop),
            manifest("a".repeat(MAX_MANIFEST_BYTES + 1)).map(drop),
            timeout(Some(0)).map(drop),
            timeout(Some(u64::MAX)).map(drop),
        ];
        let told: Vec<_> = refusals.into_iter().map(|refusal| refusal.unwrap_err().0).collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
