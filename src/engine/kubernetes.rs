//! `engine: kubernetes`: all steps run in one Job.
//!
//! Its files are read and checked; its steps can't be planned yet.

use super::{EngineKind, Location, Manifest, PlanError};

/// Says so, at the line that chose the engine.
pub(super) fn not_yet(manifest: &Manifest) -> PlanError {
    PlanError::EngineNotYet {
        engine: EngineKind::Kubernetes,
        needs: "a Kubernetes cluster",
        at: Location::new(&manifest.file_name, manifest.engine.span),
    }
}
