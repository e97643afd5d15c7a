//! Why a call on a workflow comes to nothing.

use crate::runtime::{SetupError, Verdict};
use crate::workflow::StepOrder;

use super::request::Fault;

/// Why there is no new workflow.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InitError {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(
        "tenant `{owner}` has a workflow `{workflow_id}` already, made by another request; choose another id"
    )]
    Exists { owner: String, workflow_id: String },
    #[error(
        "your user has {max} workflows, which is as many as one may have; destroy those that have stopped"
    )]
    FullOfThisUser { max: usize },
    #[error("creeld holds {max} workflows, which is as many as it may; ask again later")]
    Full { max: usize },
    #[error("no new workflows are taken, since creeld is shutting down")]
    Draining,
    /// Its record or its log could not be begun.
    #[error("the workflow can't be recorded: {0}")]
    NotRecorded(String),
}

/// Why a call on a workflow comes to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// For this caller, under this tenant.
    #[error("there is no workflow `{workflow_id}`; `Init` makes one")]
    Unknown { workflow_id: String },
    #[error(
        "{count} users have a workflow `{workflow_id}` for this tenant, and you have none: which is meant is unknown"
    )]
    Ambiguous { workflow_id: String, count: usize },
    #[error("all slots are taken, and the call may not wait for one")]
    NoSlot,
    #[error("the workflow has ended: {0}")]
    Over(Box<Verdict>),
    #[error("the workflow has ended, since creeld is shutting down")]
    Draining,
    #[error(transparent)]
    Setup(Box<SetupError>),
    #[error(transparent)]
    Order(#[from] StepOrder),
    #[error("{0}")]
    Secrets(String),
    #[error("the workflow has not ended within {seconds} s, and goes on being ended; ask again")]
    NotEnded { seconds: u64 },
    /// It has ended.
    #[error("not all that the workflow held could be freed: {0}")]
    NotFreed(String),
    #[error(
        "the workflow's log is not kept any more: `logs.keep_for`, `logs.max_total` and `logs.max_runs` bound what is"
    )]
    LogGone,
    #[error("the workflow's log or record can't be read: {0}")]
    Unreadable(String),
}
