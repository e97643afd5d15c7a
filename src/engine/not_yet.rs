//! What a plan needs and creel hasn't got: the plan stands, running it does not.

use thiserror::Error;

use super::{EngineKind, Location, Manifest};

/// Why a good file can't run here yet. A caller that starts plans asks [`super::Plan::runnable`] first.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotYet {
    #[error(
        "{at}: engine `{engine}` needs {runtime}, which creel can't use yet; engine `microvm` runs today"
    )]
    Runtime { engine: EngineKind, runtime: &'static str, at: Location },

    #[error(
        "{at}: NixOS configuration is not supported yet: `{}`; what the steps need has to be in the image",
        .keys.join("`, `")
    )]
    Nixos { keys: Vec<&'static str>, at: Location },
}

impl Manifest {
    /// What this file needs and creel hasn't got, at the line that asks for it.
    #[must_use]
    pub fn not_yet(&self) -> Option<NotYet> {
        let engine = self.engine.value;
        let runtime = match engine {
            EngineKind::Microvm => return self.nixos_not_yet(),
            EngineKind::Docker => "a container runtime (docker or podman)",
            EngineKind::Nixery => "a container runtime (docker or podman) and a Nixery server",
            EngineKind::Kubernetes => "a Kubernetes cluster",
        };
        Some(NotYet::Runtime { engine, runtime, at: Location::new(&self.file_name, self.engine.span) })
    }

    fn nixos_not_yet(&self) -> Option<NotYet> {
        let options = self.nixos_options();
        let first = options.iter().map(|option| option.span).min()?;
        let keys = options.iter().map(|option| option.key).collect();
        Some(NotYet::Nixos { keys, at: Location::new(&self.file_name, first) })
    }
}
