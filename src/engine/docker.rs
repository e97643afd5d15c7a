//! `engine: docker`: the steps run in the image that the file names.
//!
//! Its files are read and checked; its steps can't be planned yet.

use super::{EngineKind, Location, Manifest, PlanError};

/// Says so, at the line that chose the engine.
pub(super) fn not_yet(manifest: &Manifest) -> PlanError {
    PlanError::EngineNotYet {
        engine: EngineKind::Docker,
        needs: "a container runtime",
        at: Location::new(&manifest.file_name, manifest.engine.span),
    }
}
