//! `creel image build tiny`: the least that runs a workflow. A root of busybox, the kit's kernel, and the agent as
//! PID 1, from packages that are installed, in a second.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::erofs::{self, Packer};
use super::error::{BuildError, BuildEvent, Built};
use super::parts::{Description, INITRD, Resources, make_directory, readable, report_size, write_file};
use super::rootfs::tiny_root;
use super::tree::Tree;
use crate::image::digest::InputHasher;
use crate::image::initramfs::initramfs;
use crate::image::kernel::is_static_elf;
use crate::image::kit::Kit;
use crate::image::program::Program;
use crate::image::spec::SPEC_FILE;
use crate::image::staging::{StagingDir, link_or_copy};
use crate::image::store::{Entries, Entry, ImageStore, check_name};

/// To be raised whenever the same inputs are to come out differently.
const BUILDER: &str = "creel tiny image builder 1";
const STORE_DISK: &str = "store.erofs";
const SHELL: &str = "/bin/sh";

/// What a person may choose about the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TinyOptions {
    pub name: String,
    pub memory_mib: u32,
    pub vcpus: u32,
    /// The disk at `/workspace`.
    pub volume_size_mib: u64,
    /// A directory whose files are added to the root, with their modes, owned by root.
    pub overlay: Option<PathBuf>,
    /// A program in the image to run as PID 1 in the agent's place.
    pub init: Option<String>,
    /// A static busybox.
    pub busybox: PathBuf,
}

impl Default for TinyOptions {
    fn default() -> Self {
        Self {
            name: "tiny".to_owned(),
            memory_mib: 256,
            vcpus: 1,
            volume_size_mib: 1024,
            overlay: None,
            init: None,
            busybox: PathBuf::from("/bin/busybox"),
        }
    }
}

impl TinyOptions {
    fn resources(&self) -> Resources {
        Resources { memory_mib: self.memory_mib, vcpus: self.vcpus, volume_size_mib: self.volume_size_mib }
    }
}

/// Builds the image into the store's writable root and gives it its name. If the same inputs were built before, only
/// the name is set.
pub fn build_tiny(
    kit: &Kit,
    store: &ImageStore,
    options: &TinyOptions,
    on_event: &mut dyn FnMut(BuildEvent),
) -> Result<Built, BuildError> {
    let started = Instant::now();
    check(options)?;
    let packer = Packer::find()?;
    let root = root_tree(kit, options)?;
    let recipe = Recipe { kit, options, packer, root, initrd: initramfs(kit)? };
    let input = recipe.input_hash()?;
    on_event(BuildEvent::Hashed { input: input.clone() });

    let entries = Entries::under(store.writable_root()?);
    let staging = entries.stage()?;
    let (entry, cached) = match entries.by_input(&input) {
        Some(entry) => {
            on_event(BuildEvent::Cached { digest: entry.digest.clone() });
            (entry, true)
        }
        None => (recipe.build(&entries, &staging, &input, on_event)?, false),
    };
    let image = store.name_entry(&staging, &options.name, &entry)?;
    Ok(Built { image, cached, elapsed: started.elapsed() })
}

fn check(options: &TinyOptions) -> Result<(), BuildError> {
    check_name(&options.name)?;
    options.resources().check()?;
    match &options.init {
        Some(init)
            if !init.starts_with('/') || init.contains(|c: char| c.is_whitespace() || c.is_control()) =>
        {
            let remedy = "write an absolute path without spaces";
            Err(BuildError::Option { option: "init", value: init.clone(), remedy })
        }
        _ => Ok(()),
    }
}

fn root_tree(kit: &Kit, options: &TinyOptions) -> Result<Tree, BuildError> {
    let path = &options.busybox;
    let unusable = |why| BuildError::Busybox { path: path.clone(), why };
    let program = fs::read(path).map_err(|_| unusable("can't be read"))?;
    if !is_static_elf(&program) {
        return Err(unusable("needs libraries that the image won't have"));
    }
    let applets = Program::at("busybox", path).run(["--list-full"], &[])?;
    let mut tree = tiny_root(path, &applets, &kit.agent);
    if let Some(overlay) = &options.overlay {
        tree.overlay(overlay)?;
    }
    Ok(tree)
}

/// Everything that decides the image's bytes, and nothing else: not its name, not when or where it is built.
struct Recipe<'a> {
    kit: &'a Kit,
    options: &'a TinyOptions,
    packer: Packer,
    root: Tree,
    initrd: Vec<u8>,
}

impl Recipe<'_> {
    /// Names the result before it is made. What this program makes itself goes in as made, so that a change of the
    /// program changes the name.
    fn input_hash(&self) -> Result<String, BuildError> {
        let mut hasher = InputHasher::new(BUILDER);
        hasher.part(&self.initrd);
        let kernel = &self.kit.kernel.path;
        hasher.file(kernel).map_err(BuildError::io("read", kernel))?;
        self.root.hash(&mut hasher)?;
        hasher.part(&describe(self.kit, self.options).json()?);
        hasher.part(self.packer.version.as_bytes());
        for argument in self.packer.arguments() {
            hasher.part(argument.as_bytes());
        }
        Ok(hasher.finish())
    }

    fn build(
        &self,
        entries: &Entries,
        staging: &StagingDir,
        input: &str,
        on_event: &mut dyn FnMut(BuildEvent),
    ) -> Result<Entry, BuildError> {
        let (tree, image) = (staging.path().join("root"), staging.path().join("image"));
        for directory in [&tree, &image] {
            // The image's root takes its mode from this directory.
            make_directory(directory)?;
        }
        self.root.write(&tree)?;
        on_event(BuildEvent::RootStaged { entries: self.root.len() });

        on_event(BuildEvent::Packing { program: erofs::PROGRAM });
        let disk = image.join(STORE_DISK);
        self.packer.pack(&tree, &disk)?;
        readable(&disk)?;
        report_size(&disk, STORE_DISK, on_event)?;

        write_file(&image.join(INITRD), &self.initrd)?;
        report_size(&image.join(INITRD), INITRD, on_event)?;
        let kernel = image.join(self.kit.kernel.format.file_name());
        link_or_copy(&self.kit.kernel.path, &kernel, 0o644).map_err(BuildError::io("write", &kernel))?;
        write_file(&image.join(SPEC_FILE), &describe(self.kit, self.options).json()?)?;

        let entry = entries.publish(staging, &image, input)?;
        on_event(BuildEvent::Stored { digest: entry.digest.clone() });
        Ok(entry)
    }
}

fn describe<'a>(kit: &'a Kit, options: &'a TinyOptions) -> Description<'a> {
    Description {
        kit,
        resources: options.resources(),
        store_disk: STORE_DISK,
        store_disk_type: "erofs",
        shell: SHELL,
        init: options.init.as_deref(),
    }
}
