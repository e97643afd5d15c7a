//! How the repository gets into the machine: from a disk, or by upstream's git commands.

use super::{CloneOptions, PlanInput, SourceKind};

/// The clone step, as far as it is the same for every engine.
pub(super) struct CloneStep {
    /// What is shown as its command.
    pub(super) shown: String,
    /// What a shell runs; `None` when the agent unpacks the source disk.
    pub(super) script: Option<String>,
}

/// The step for `input`'s source.
///
/// If the trigger's metadata is no good, the step says so and fails, as upstream's does: the log is where the author
/// looks.
pub(super) fn build(options: &CloneOptions, input: &PlanInput) -> CloneStep {
    match &input.source {
        SourceKind::Disk { commit, dirty } => {
            CloneStep { shown: unpack(commit.as_deref(), *dirty), script: None }
        }
        SourceKind::Remote { verify_tls } => {
            let script = fetch(options, input, *verify_tls)
                .unwrap_or_else(|fault| format!("echo 'failed to get clone info: {fault}' >&2; exit 1"));
            CloneStep { shown: script.clone(), script: Some(script) }
        }
    }
}

fn unpack(commit: Option<&str>, dirty: bool) -> String {
    match (commit, dirty) {
        (Some(commit), false) => format!("unpack commit {commit}"),
        (Some(commit), true) => format!("unpack the work tree (commit {commit} and uncommitted changes)"),
        (None, true) => "unpack the work tree".to_owned(),
        (None, false) => "unpack the source".to_owned(),
    }
}

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
    if let Some(sha) = input.sha() {
        if !is_object_name(sha) {
            return Err("the commit is not a git object name");
        }
        fetch.push(' ');
        fetch.push_str(sha);
    }
    // Joined so that the first failure is the step's.
    Ok(["git init", &format!("git remote add origin {url}"), &fetch, "git checkout FETCH_HEAD"].join(" &&\n"))
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
