//! `engine: kubernetes`: as `docker`, but all steps run in one Job, on a node of the `architecture` that the file names.

use super::{Manifest, Plan, PlanError, PlanInput, container, docker};

pub(super) fn plan(manifest: &Manifest, input: &PlanInput) -> Result<Plan, PlanError> {
    container::plan(manifest, input, docker::surroundings(manifest, true)?)
}
