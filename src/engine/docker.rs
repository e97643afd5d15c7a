//! `engine: docker`: the steps run in the image that the file names.

use super::container::{self, Surroundings, home_only};
use super::{Manifest, Plan, PlanError, PlanInput};

pub(super) fn plan(manifest: &Manifest, input: &PlanInput) -> Result<Plan, PlanError> {
    container::plan(manifest, input, surroundings(manifest, false)?)
}

/// The file's image, with nothing added to it.
pub(super) fn surroundings(manifest: &Manifest, batch: bool) -> Result<Surroundings, PlanError> {
    let image = manifest.image.as_ref().ok_or_else(|| PlanError::NoImage {
        file: manifest.file_name.clone(),
        engine: manifest.engine.value,
    })?;
    Ok(Surroundings {
        image: image.value.clone(),
        architecture: manifest.architecture.as_ref().map(|architecture| architecture.value.clone()),
        batch,
        fixed_environment: home_only(),
        before_clone: Vec::new(),
        after_clone: Vec::new(),
    })
}
