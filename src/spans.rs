//! The spans that log lines carry, and the names of their fields: whose machine and workflow a line is about.
//!
//! The journal shows a field in capitals after `CREEL_` (`CREEL_MACHINE`), JSON as it is (`machine`). What is in a span is
//! in every line below it, so there are ids in it and never contents. Ids of workflows and tenants are chosen by callers:
//! it is the log's matter (`daemon::logging`) to write them so that they stay one value.

use std::fmt;

use tracing::{Span, info_span};

use crate::runtime::{SetupRequest, Tenant};

pub const MACHINE: &str = "machine";
pub const WORKFLOW: &str = "workflow";
/// The owner; with a repository, `<owner>/<repository>`.
pub const TENANT: &str = "tenant";
/// The user who asked for it, by the kernel's word.
pub const UID: &str = "uid";
/// The index of a workflow's step.
pub const STEP: &str = "step";

/// What the task does that owns a machine.
pub fn owned_machine(request: &SetupRequest, creator_uid: u32) -> Span {
    info_span!(
        "machine",
        { MACHINE } = %request.id,
        { WORKFLOW } = %request.workflow_id,
        { TENANT } = %OneTenant(&request.tenant),
        { UID } = creator_uid,
    )
}

/// What a runtime's task does for one machine, whoever called. No child of what is current: that ends before it.
pub fn driven_machine(request: &SetupRequest) -> Span {
    info_span!(
        parent: None,
        "machine",
        { MACHINE } = %request.id,
        { WORKFLOW } = %request.workflow_id,
        { TENANT } = %OneTenant(&request.tenant),
    )
}

/// As it stands in [`TENANT`].
pub fn one(tenant: &Tenant) -> impl fmt::Display {
    OneTenant(tenant)
}

struct OneTenant<'a>(&'a Tenant);

impl fmt::Display for OneTenant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tenant { owner, repo_did } = self.0;
        f.write_str(owner)?;
        if repo_did.is_empty() { Ok(()) } else { write!(f, "/{repo_did}") }
    }
}
