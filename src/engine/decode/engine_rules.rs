//! Which keys go with which engine.
//!
//! Upstream ignores a key that its engine does not know; here that is an error, since a workflow that asks for
//! `services` and gets none fails later and less clearly. `architecture` and `runs_on` are hints, fine everywhere.

use super::Problems;
use crate::engine::diagnostic::quote;
use crate::engine::{Dependencies, EngineKind, Manifest};

/// `image_given` also holds for an image that could not be read, and has been complained about.
pub(super) fn check(manifest: &Manifest, image_given: bool, problems: &mut Problems) {
    image(manifest, image_given, problems);
    dependencies(manifest, problems);
    let engine = manifest.engine.value;
    if engine == EngineKind::Microvm {
        return;
    }
    let options = [
        ("services", &manifest.services),
        ("virtualisation", &manifest.virtualisation),
        ("registry", &manifest.registry),
    ];
    for (key, option) in options {
        if let Some(option) = option {
            problems.add::<()>(option.span, not_for(engine, key));
        }
    }
}

/// What is wrong with a key that only engine `microvm` has.
pub(super) fn not_for(engine: EngineKind, key: &str) -> String {
    format!("`{key}` belongs to engine `microvm`; engine `{}` has no use for it: remove it", engine.as_str())
}

fn image(manifest: &Manifest, given: bool, problems: &mut Problems) {
    match (manifest.engine.value, &manifest.image) {
        (EngineKind::Microvm, Some(image)) => {
            if let Some(fault) = image_name_fault(&image.value) {
                let message = format!(
                    "{} is no image name: {fault}; give the name of an installed image, as `creel image ls` lists it",
                    quote(&image.value)
                );
                problems.add::<()>(image.span, message);
            }
        }
        (EngineKind::Nixery, Some(image)) => {
            let message =
                "engine `nixery` makes its image from `dependencies`; remove `image`, or use engine `docker`";
            problems.add::<()>(image.span, message);
        }
        (engine @ (EngineKind::Docker | EngineKind::Kubernetes), None) if !given => {
            let message = format!(
                "missing key `image`; name the one that engine `{}` runs the steps in",
                engine.as_str()
            );
            problems.add::<()>(manifest.engine.span, message);
        }
        _ => {}
    }
}

fn dependencies(manifest: &Manifest, problems: &mut Problems) {
    let Some(dependencies) = &manifest.dependencies else { return };
    let message = match (manifest.engine.value, &dependencies.value) {
        (EngineKind::Microvm, Dependencies::Packages(_))
        | (EngineKind::Nixery, Dependencies::ByRegistry(_)) => return,
        (EngineKind::Microvm, Dependencies::ByRegistry(_)) => {
            "`dependencies` must be a list for engine `microvm`, found a map, which is the form of engine `nixery`; \
             write other registries as `flakeref#attribute`"
        }
        (EngineKind::Nixery, Dependencies::Packages(_)) => {
            "`dependencies` must be a map of registry to packages for engine `nixery`, found a list; \
             put `nixpkgs:` above it"
        }
        (EngineKind::Docker | EngineKind::Kubernetes, _) => {
            "`dependencies` belongs to engines `microvm` and `nixery`; remove it: here the packages come with `image`"
        }
    };
    problems.add::<()>(dependencies.span, message);
}

/// Upstream's rule: an image name is one plain file name.
fn image_name_fault(name: &str) -> Option<&'static str> {
    if name.starts_with('/') {
        Some("it is a path")
    } else if name.contains('/') {
        Some("it contains `/`")
    } else if name == "." || name == ".." {
        Some("it names a folder")
    } else if name.contains('\0') {
        Some("it contains a NUL")
    } else {
        None
    }
}
