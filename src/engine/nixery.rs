//! `engine: nixery`: the steps run in an image that a nixery server makes from `dependencies`.
//!
//! Its files are read and checked; its steps can't be planned yet.

use super::{EngineKind, Location, Manifest, PlanError};

/// Says so, at the line that chose the engine.
pub(super) fn not_yet(manifest: &Manifest) -> PlanError {
    PlanError::EngineNotYet {
        engine: EngineKind::Nixery,
        needs: "a container runtime and a nixery server",
        at: Location::new(&manifest.file_name, manifest.engine.span),
    }
}
