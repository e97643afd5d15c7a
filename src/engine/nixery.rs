//! `engine: nixery`: the steps run in an image that a Nixery server makes from `dependencies`.
//!
//! Nixery knows one nixpkgs. Packages of other registries are installed by a step, which needs a Nix that works in a
//! container; so the first step configures it.

use super::container::{self, HOME, Surroundings, SystemStep};
use super::{Dependencies, Manifest, Plan, PlanError, PlanInput};

/// Upstream's default server.
const SERVER: &str = "nixery.tangled.sh";
/// In every image, after what the file asks for.
const ALWAYS: [&str; 4] = ["bash", "git", "coreutils", "nix"];
/// The registry that Nixery serves itself.
const NIXPKGS: &str = "nixpkgs";

/// Without root's build users and without a sandbox, as a container wants it. Builds that run unsandboxed leave their
/// stand-in for a home behind, and the next one refuses to start: the hook removes it.
const CONFIGURE: &str = "\
mkdir -p /etc/nix
cat >> /etc/nix/nix.conf <<'END'
extra-experimental-features = nix-command flakes
build-users-group =
sandbox = false
post-build-hook = /etc/nix/post-build-hook.sh
END
printf '#!/bin/sh\\nrm -rf /homeless-shelter\\n' > /etc/nix/post-build-hook.sh
chmod +x /etc/nix/post-build-hook.sh";

pub(super) fn plan(manifest: &Manifest, input: &PlanInput) -> Result<Plan, PlanError> {
    let architecture = manifest.architecture.as_ref().map(|architecture| architecture.value.clone());
    let dependencies = match manifest.dependencies.as_ref().map(|spanned| &spanned.value) {
        Some(Dependencies::ByRegistry(registries)) => registries.as_slice(),
        Some(Dependencies::Packages(_)) | None => &[],
    };
    let path = format!(
        "{HOME}/.nix-profile/bin:/nix/var/nix/profiles/default/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:\
         /sbin:/bin"
    );
    let surroundings = Surroundings {
        image: image(dependencies, architecture.as_deref()),
        architecture,
        batch: false,
        fixed_environment: vec![("HOME".to_owned(), HOME.to_owned()), ("PATH".to_owned(), path)],
        before_clone: vec![SystemStep {
            name: "Configure Nix",
            script: CONFIGURE.to_owned(),
            environment: Vec::new(),
        }],
        after_clone: install(dependencies).into_iter().collect(),
    };
    container::plan(manifest, input, surroundings)
}

/// `server/[arm64/]package/…/package`.
fn image(dependencies: &[(String, Vec<String>)], architecture: Option<&str>) -> String {
    let packages = dependencies
        .iter()
        .filter(|(registry, _)| registry == NIXPKGS)
        .flat_map(|(_, packages)| packages)
        .flat_map(|package| package.split('/'))
        // A reference with such parts would name another image.
        .filter(|part| !matches!(*part, "" | "." | ".."));
    let arm = matches!(architecture, Some("arm64" | "aarch64")).then_some("arm64");
    let parts: Vec<_> = [SERVER].into_iter().chain(arm).chain(packages).chain(ALWAYS).collect();
    parts.join("/")
}

/// The step that installs what other registries have; a registry without packages is a package itself.
fn install(dependencies: &[(String, Vec<String>)]) -> Option<SystemStep> {
    let wanted: Vec<_> = dependencies
        .iter()
        .filter(|(registry, _)| registry != NIXPKGS)
        .flat_map(|(registry, packages)| match packages.as_slice() {
            [] => vec![quoted(registry)],
            packages => packages.iter().map(|package| quoted(&format!("{registry}#{package}"))).collect(),
        })
        .collect();
    let quiet = [("NIX_NO_COLOR", "1"), ("NIX_SHOW_DOWNLOAD_PROGRESS", "0")];
    (!wanted.is_empty()).then(|| SystemStep {
        name: "Install custom dependencies",
        script: format!(
            "nix --extra-experimental-features 'nix-command flakes' profile add {}",
            wanted.join(" ")
        ),
        environment: quiet.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    })
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
