//! How the repository gets to the steps: from a disk, or by upstream's git commands.

use super::plan::{Action, Step, StepKind};
use super::{CloneOptions, Manifest, PlanInput, SourceKind, TriggerKind};

/// Upstream's names of a step that fetches.
const FETCH: &str = "Clone repository into workspace";
const FETCH_FAILS: &str = "Clone repository into workspace (error)";

/// The step that brings `input`'s source to `destination`, unless the file does without. `exec` makes an action of a
/// script.
///
/// If the trigger's metadata is no good, the step says so and fails, as upstream's does: the log is where the author
/// looks.
pub(super) fn plan(
    manifest: &Manifest,
    input: &PlanInput,
    destination: &str,
    exec: impl Fn(&str) -> Action,
) -> Option<Step> {
    if manifest.clone.skip {
        return None;
    }
    let (name, command, action) = match &input.source {
        SourceKind::Disk { commit, dirty } => {
            let action = Action::UnpackSource { destination: destination.to_owned() };
            ("clone", unpack(commit.as_deref(), *dirty), action)
        }
        SourceKind::Remote { verify_tls } => {
            let (name, script) = match fetch(&manifest.clone, input, *verify_tls) {
                Ok(script) => (FETCH, script),
                Err(fault) => (FETCH_FAILS, format!("echo 'Failed to get clone info: {fault}' && exit 1")),
            };
            let action = exec(&script);
            (name, script, action)
        }
    };
    Some(Step { index: 0, name: name.to_owned(), kind: StepKind::System, command, action })
}

fn unpack(commit: Option<&str>, dirty: bool) -> String {
    match (commit, dirty) {
        (Some(commit), false) => format!("unpack commit {commit}"),
        (Some(commit), true) => format!("unpack the work tree (commit {commit} and uncommitted changes)"),
        (None, true) => "unpack the work tree".to_owned(),
        (None, false) => "unpack the source".to_owned(),
    }
}

/// Upstream's four commands, or what is wrong with the metadata in words that a single-quoted shell word holds.
fn fetch(options: &CloneOptions, input: &PlanInput, verify_tls: bool) -> Result<String, &'static str> {
    let url = input.facts.repository.clone_url().ok_or("the repository has no URL")?;
    // What is put into a script is checked instead of quoted: nothing legitimate needs quoting.
    if !is_plain_url(&url) {
        return Err("the repository URL is not a plain http or https URL");
    }
    let mut fetch = String::from(if verify_tls { "git fetch" } else { "git -c http.sslVerify=false fetch" });
    fetch.push_str(&format!(" --depth={}", options.depth));
    if options.submodules {
        fetch.push_str(" --recurse-submodules=yes");
    }
    if options.tags {
        fetch.push_str(" --tags");
    }
    fetch.push_str(" origin");
    match (input.sha(), &input.trigger.kind) {
        (Some(sha), _) if is_object_name(sha) => {
            fetch.push(' ');
            fetch.push_str(sha);
        }
        (Some(_), _) => return Err("the commit is not a git object name"),
        // The tip of the default branch.
        (None, TriggerKind::Manual { .. }) => {}
        // Upstream would fetch the default branch here, and test something else than what was asked for.
        (None, TriggerKind::Push { .. }) => return Err("the push names no commit"),
        (None, TriggerKind::PullRequest { .. }) => return Err("the pull request names no commit"),
    }
    Ok(["git init", &format!("git remote add origin {url}"), &fetch, "git checkout FETCH_HEAD"].join("\n"))
}

fn is_plain_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~' | ':' | '/' | '%' | '@' | '+')
    };
    rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain))
}

/// SHA-1 or SHA-256, in full.
fn is_object_name(sha: &str) -> bool {
    matches!(sha.len(), 40 | 64) && sha.bytes().all(|byte| byte.is_ascii_hexdigit())
}
