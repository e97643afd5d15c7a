//! `creel image build debian`: a Debian root with the tools that projects are built and tested with, by mmdebstrap from
//! the machine's own apt sources.
//!
//! ```text
//! sources     the machine's apt sources, as far as they have the suite
//! mmdebstrap  the program: as whom it runs, its end, what it says
//! packages    what apt would install now: the versions are the build's inputs
//! root        what is changed in the root before it is packed
//! ```
//!
//! The root never leaves mmdebstrap: it is packed by a hook in there, where files belong to whom they belong to also
//! when nobody is root.

mod error;
mod mmdebstrap;
mod packages;
mod packer;
mod root;
mod sources;
#[cfg(test)]
mod tests;

use std::time::Instant;

use tokio_util::sync::CancellationToken;

pub use error::DebianError;

use super::error::{BuildError, BuildEvent, Built};
use super::parts::{Description, INITRD, Resources, make_directory, readable, report_size, write_file};
use crate::image::digest::InputHasher;
use crate::image::initramfs::initramfs;
use crate::image::kit::Kit;
use crate::image::spec::SPEC_FILE;
use crate::image::staging::{StagingDir, link_or_copy};
use crate::image::store::{Entries, Entry, ImageStore, check_name};
use mmdebstrap::Mmdebstrap;
use packages::{Progress, check_package, resolved};
use packer::Packer;
use sources::Sources;

/// To be raised whenever the same inputs are to come out differently.
const BUILDER: &str = "creel debian image builder 1";
const SHELL: &str = "/bin/bash";

/// What an image is for that no other package is named for.
const PACKAGES: [&str; 8] = ["bash", "ca-certificates", "curl", "gcc", "git", "libc6-dev", "make", "python3"];
/// The least that steps run in.
const MINIMAL_PACKAGES: [&str; 1] = ["bash"];

/// What a person may choose about the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianOptions {
    pub name: String,
    /// A release's code name.
    pub suite: String,
    /// A mirror's URL, in the place of the machine's own sources.
    pub mirror: Option<String>,
    /// Packages besides those that the image always has.
    pub packages: Vec<String>,
    /// Leave out the tools, keep the base system.
    pub minimal: bool,
    pub memory_mib: u32,
    pub vcpus: u32,
    /// The disk at `/workspace`.
    pub volume_size_mib: u64,
}

impl Default for DebianOptions {
    fn default() -> Self {
        Self {
            name: "debian".to_owned(),
            suite: "bookworm".to_owned(),
            mirror: None,
            packages: Vec::new(),
            minimal: false,
            memory_mib: 1024,
            vcpus: 1,
            volume_size_mib: 4096,
        }
    }
}

impl DebianOptions {
    fn resources(&self) -> Resources {
        Resources { memory_mib: self.memory_mib, vcpus: self.vcpus, volume_size_mib: self.volume_size_mib }
    }

    /// Sorted and once each, so that their order on the command line makes no difference.
    fn all_packages(&self) -> Vec<&str> {
        let base: &[&str] = if self.minimal { &MINIMAL_PACKAGES } else { &PACKAGES };
        let mut all: Vec<&str> =
            base.iter().copied().chain(self.packages.iter().map(String::as_str)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn check(&self) -> Result<(), BuildError> {
        check_name(&self.name)?;
        self.resources().check()?;
        let refuse =
            |option, value: &str, remedy| Err(BuildError::Option { option, value: value.to_owned(), remedy });
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
        if !self.suite.starts_with(|c: char| c.is_ascii_lowercase()) || !self.suite.chars().all(plain) {
            return refuse("suite", &self.suite, "write a release's code name such as `bookworm`");
        }
        if let Some(mirror) = &self.mirror
            && (!mirror.contains("://") || mirror.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            return refuse("mirror", mirror, "write a URL");
        }
        match self.packages.iter().find(|package| !check_package(package)) {
            Some(package) => refuse("include", package, "write a package's name"),
            None => Ok(()),
        }
    }
}

/// Builds the image into the store's writable root and gives it its name. apt is asked which packages there are now;
/// if the same ones were built before, with all else the same, only the name is set. When `cancelled` is, the build
/// ends and leaves nothing behind.
pub async fn build_debian(
    kit: &Kit,
    store: &ImageStore,
    options: &DebianOptions,
    cancelled: &CancellationToken,
    on_event: &mut dyn FnMut(BuildEvent),
) -> Result<Built, BuildError> {
    let started = Instant::now();
    options.check()?;
    let recipe = Recipe {
        kit,
        options,
        packer: Packer::find()?,
        mmdebstrap: Mmdebstrap::find()?,
        sources: Sources::choose(options.mirror.as_deref(), &options.suite)?,
        initrd: initramfs(kit)?,
        overlay: root::overlay(&kit.agent)?,
    };
    let entries = Entries::under(store.writable_root()?);
    let staging = entries.stage()?;
    let packages = recipe.resolve(&staging, cancelled, on_event).await?;
    let input = recipe.input_hash(&packages)?;
    on_event(BuildEvent::Hashed { input: input.clone() });

    let (entry, cached) = match entries.by_input(&input) {
        Some(entry) => {
            on_event(BuildEvent::Cached { digest: entry.digest.clone() });
            (entry, true)
        }
        None => {
            recipe.make_disk(&staging, packages.len(), cancelled, on_event).await?;
            (recipe.store(&entries, &staging, &input, on_event)?, false)
        }
    };
    let image = store.name_entry(&staging, &options.name, &entry)?;
    Ok(Built { image, cached, elapsed: started.elapsed() })
}

/// Everything that decides the image's bytes but the packages' versions.
struct Recipe<'a> {
    kit: &'a Kit,
    options: &'a DebianOptions,
    packer: Packer,
    mmdebstrap: Mmdebstrap,
    sources: Sources,
    initrd: Vec<u8>,
    /// The files that are creel's, as a tar archive.
    overlay: Vec<u8>,
}

impl Recipe<'_> {
    /// What apt would install now, as `name version architecture`.
    async fn resolve(
        &self,
        staging: &StagingDir,
        cancelled: &CancellationToken,
        on_event: &mut dyn FnMut(BuildEvent),
    ) -> Result<Vec<String>, BuildError> {
        on_event(BuildEvent::Resolving { suite: self.options.suite.clone() });
        let mut arguments = self.arguments();
        arguments.push("--simulate".to_owned());
        let target = "/dev/null";
        let sources = self.sources.write(staging.path())?;
        let mut lines = Vec::new();
        let run = self.mmdebstrap.run(staging.path(), &arguments, &self.options.suite, target, &sources);
        run.until(cancelled, &mut |line| lines.push(line.to_owned())).await?;
        let packages = resolved(&lines);
        on_event(BuildEvent::Resolved { packages: packages.len() });
        Ok(packages)
    }

    /// Names the result before it is made. What this program makes itself goes in as made, so that a change of the
    /// program changes the name.
    fn input_hash(&self, packages: &[String]) -> Result<String, BuildError> {
        let mut hasher = InputHasher::new(BUILDER);
        hasher.part(&self.initrd);
        hasher.part(&self.overlay);
        let kernel = &self.kit.kernel.path;
        hasher.file(kernel).map_err(BuildError::io("read", kernel))?;
        hasher.part(&self.describe().json()?);
        hasher.part(self.packer.version().as_bytes());
        hasher.part(self.mmdebstrap.version().as_bytes());
        hasher.part(root::finish(&self.packer.command()).as_bytes());
        self.sources.hash(&mut hasher);
        for text in self.arguments().iter().chain(packages) {
            hasher.part(text.as_bytes());
        }
        Ok(hasher.finish())
    }

    async fn make_disk(
        &self,
        staging: &StagingDir,
        packages: usize,
        cancelled: &CancellationToken,
        on_event: &mut dyn FnMut(BuildEvent),
    ) -> Result<(), BuildError> {
        let image = staging.path().join("image");
        make_directory(&image)?;
        let overlay = staging.path().join("overlay.tar");
        write_file(&overlay, &self.overlay)?;
        let disk = image.join(self.packer.disk());

        let mut arguments = self.arguments();
        arguments.push("--format=null".to_owned());
        // Of a root that is thrown away, there is nothing to clean.
        arguments.push("--skip=cleanup".to_owned());
        arguments.push(format!("--essential-hook={}", root::ADD_USER));
        arguments.push(format!("--customize-hook=tar-in {} /", mmdebstrap::quoted(&overlay)));
        arguments.push(format!("--customize-hook={}", root::finish(&self.packer.command())));
        let packed = format!("/{}/{}", root::PACKED, self.packer.disk());
        arguments.push(format!("--customize-hook=download {packed} {}", mmdebstrap::quoted(&disk)));

        let sources = self.sources.write(staging.path())?;
        let mut progress = Progress::new(packages);
        let run = self.mmdebstrap.run(staging.path(), &arguments, &self.options.suite, "-", &sources);
        run.until(cancelled, &mut |line| {
            if line == root::PACKING {
                on_event(BuildEvent::Packing { program: self.packer.program() });
            } else if let Some(event) = progress.line(line) {
                on_event(event);
            }
        })
        .await?;
        readable(&disk)?;
        report_size(&disk, self.packer.disk(), on_event)
    }

    fn store(
        &self,
        entries: &Entries,
        staging: &StagingDir,
        input: &str,
        on_event: &mut dyn FnMut(BuildEvent),
    ) -> Result<Entry, BuildError> {
        let image = staging.path().join("image");
        write_file(&image.join(INITRD), &self.initrd)?;
        report_size(&image.join(INITRD), INITRD, on_event)?;
        let kernel = image.join(self.kit.kernel.format.file_name());
        link_or_copy(&self.kit.kernel.path, &kernel, 0o644).map_err(BuildError::io("write", &kernel))?;
        write_file(&image.join(SPEC_FILE), &self.describe().json()?)?;
        let entry = entries.publish(staging, &image, input)?;
        on_event(BuildEvent::Stored { digest: entry.digest.clone() });
        Ok(entry)
    }

    /// What mmdebstrap is told, whether it is to say what it would do or to do it.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--verbose".to_owned(),
            "--variant=minbase".to_owned(),
            // The root is thrown away once it is packed: no crash can leave half of it to anybody.
            "--dpkgopt=force-unsafe-io".to_owned(),
            format!("--include={}", self.options.all_packages().join(",")),
        ];
        // Nobody reads them in a machine that is gone in a minute; licences stay with what they are for.
        for path in ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/man/*", "/usr/share/locale/*"] {
            arguments.push(format!("--dpkgopt=path-exclude={path}"));
        }
        arguments.push("--dpkgopt=path-include=/usr/share/doc/*/copyright".to_owned());
        arguments.extend(self.sources.apt_options().iter().map(|option| format!("--aptopt={option}")));
        arguments
    }

    fn describe(&self) -> Description<'_> {
        Description {
            kit: self.kit,
            resources: self.options.resources(),
            store_disk: self.packer.disk(),
            store_disk_type: self.packer.disk_type(),
            shell: SHELL,
            init: None,
        }
    }
}
