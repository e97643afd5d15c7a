//! What this host gives the tests: the program, a kit, QEMU, images.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::images;

/// Found once, the same for all tests.
#[derive(Debug)]
pub struct World {
    pub program: PathBuf,
    pub kit: PathBuf,
    /// Where the tests' images are, built before the first test gets this.
    pub images: PathBuf,
}

impl World {
    /// None, and the reason on stderr, where there can be no microVM.
    ///
    /// # Panics
    /// When there has to be one: `CI` or `CREEL_REQUIRE_MICROVM` is set.
    pub fn get() -> Option<&'static Self> {
        static WORLD: OnceLock<Result<World, String>> = OnceLock::new();
        match WORLD.get_or_init(Self::find) {
            Ok(world) => Some(world),
            Err(why) => {
                assert!(!required(), "no microVM can run here: {why}");
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    fn find() -> Result<Self, String> {
        let program = match env::var_os("CREEL_TEST_PROGRAM") {
            Some(program) => PathBuf::from(program),
            None => PathBuf::from(env!("CARGO_BIN_EXE_creel")),
        };
        let kit = match env::var_os("CREEL_KIT__DIR") {
            Some(kit) => PathBuf::from(kit),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kit"),
        };
        if !kit.join("kernel").is_dir() {
            return Err(format!("there is no kit in `{}`; run `make kit`", kit.display()));
        }
        let qemu = format!("qemu-system-{}", env::consts::ARCH);
        if !search_path().iter().any(|directory| directory.join(&qemu).is_file()) {
            return Err(format!("{qemu} is not installed; run `scripts/setup`"));
        }
        let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("microvm-images");
        let world = Self { program, kit, images };
        images::build_all(&world);
        Ok(world)
    }
}

/// Whether a test that can't run is a failed one.
pub fn required() -> bool {
    ["CI", "CREEL_REQUIRE_MICROVM"]
        .into_iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0"))
}

/// `PATH`, and where programs of an administrator are that ordinary users' `PATH` leaves out (mke2fs).
pub fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(extra).collect()
}
