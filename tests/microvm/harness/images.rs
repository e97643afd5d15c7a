//! The images of the tests: `tiny`, two that boot with an init of their own, and Debian for those that ask for it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use super::world::{World, required, search_path};

/// The agent is PID 1.
pub const TINY: &str = "tiny";

/// The agent is a service that nobody restarts. PID 1 is a shell that does as a step tells it: a word into
/// `/run/trigger`, and what can be waited for comes back from `/run/answer`.
pub const SERVICE: &str = "tiny-service";

/// The same, with a kernel that panics before the agent is started.
pub const SERVICE_DIES_AT_BOOT: &str = "tiny-dies-at-boot";

/// With compilers and what else projects are built with.
pub const DEBIAN: &str = "debian";

/// The base system alone: less to fetch and unpack.
pub const DEBIAN_MINIMAL: &str = "debian-minimal";

const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ -e /etc/panic-at-boot ] && echo c > /proc/sysrq-trigger
mount -t devpts -o gid=5,mode=620 devpts /dev/pts 2>/dev/null
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /run/user/970
chown 970:970 /run/user/970
chmod 0700 /run/user/970
ifconfig lo 127.0.0.1 up
mkfifo -m 0666 /run/trigger /run/answer
chmod 0666 /run/trigger /run/answer

/usr/lib/creel/creel-agent &
agent=$!

# Open for writing as well, so that the end of a step is no end of file.
exec 3<> /run/trigger
while read -r word argument <&3; do
    case $word in
        panic) echo c > /proc/sysrq-trigger ;;
        reset) echo b > /proc/sysrq-trigger ;;
        poweroff) busybox poweroff -f ;;
        kill-agent) kill -9 "$agent" ;;
        flood)
            # With a mark at the end, so that a test can tell whether the last bytes were kept.
            yes 'the quick brown fox jumps over the lazy dog, again and again' | head -c "$argument" > /dev/hvc0
            echo "end of the flood" > /dev/hvc0
            echo flooded > /run/answer
            ;;
    esac
done
exec sleep 1000000
"#;

/// busybox's own asks an init that this image does not have.
const POWEROFF: &str = "#!/bin/sh\nexec /bin/busybox poweroff -f\n";

/// Builds what is not there yet; unchanged inputs are known by their hash.
pub fn build_all(world: &World) {
    build(world, TINY, None);
    let overlays = tempfile::tempdir().expect("a directory for overlays");
    for (name, panics) in [(SERVICE, false), (SERVICE_DIES_AT_BOOT, true)] {
        let overlay = overlays.path().join(name);
        write_program(&overlay.join("sbin/init"), INIT);
        write_program(&overlay.join("sbin/poweroff"), POWEROFF);
        if panics {
            fs::create_dir_all(overlay.join("etc")).expect("a directory in the overlay");
            fs::write(overlay.join("etc/panic-at-boot"), "").expect("a flag in the overlay");
        }
        build(world, name, Some(&overlay));
    }
}

/// Builds [`DEBIAN`], unless its packages are those of last time. False, and the reason on stderr, where mmdebstrap can't
/// make a root.
///
/// # Panics
/// When it has to ([`required`]), or the build fails.
pub fn debian(world: &World) -> bool {
    static BUILT: OnceLock<bool> = OnceLock::new();
    *BUILT.get_or_init(|| build_debian(world, &["--name", DEBIAN]))
}

/// The same for [`DEBIAN_MINIMAL`].
pub fn debian_minimal(world: &World) -> bool {
    static BUILT: OnceLock<bool> = OnceLock::new();
    *BUILT.get_or_init(|| build_debian(world, &["--name", DEBIAN_MINIMAL, "--minimal"]))
}

fn build_debian(world: &World, arguments: &[&str]) -> bool {
    let program = "mmdebstrap";
    if !search_path().iter().any(|directory| directory.join(program).is_file()) {
        let why = format!("{program} is not installed; run `scripts/setup --test`");
        assert!(!required(), "no Debian image can be built here: {why}");
        eprintln!("skipped: {why}");
        return false;
    }
    let mut command = Command::new(&world.program);
    command
        .args(["image", "build", "debian"])
        .args(arguments)
        .env("CREEL_IMAGES__DIR", &world.images)
        .env("CREEL_KIT__DIR", &world.kit);
    let output = command.output().expect("creel image build starts");
    let said = String::from_utf8_lossy(&output.stderr);
    // An ordinary user needs subordinate ids, which a test can't give itself.
    if said.contains("can't be made by this user") {
        assert!(!required(), "{said}");
        eprintln!("skipped: {said}");
        return false;
    }
    assert!(output.status.success(), "{arguments:?} was not built ({}):\n{said}", output.status);
    true
}

fn build(world: &World, name: &str, overlay: Option<&Path>) {
    let mut command = Command::new(&world.program);
    command
        .args(["image", "build", "tiny", "--name", name])
        .env("CREEL_IMAGES__DIR", &world.images)
        .env("CREEL_KIT__DIR", &world.kit);
    if let Some(overlay) = overlay {
        command.arg("--overlay").arg(overlay).args(["--init", "/sbin/init"]);
    }
    let output = command.output().expect("creel image build starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "image `{name}` was not built ({}):\n{said}", output.status);
}

fn write_program(path: &Path, text: &str) {
    let directory = path.parent().expect("a file's directory");
    fs::create_dir_all(directory).expect("a directory in the overlay");
    fs::write(path, text).expect("a program in the overlay");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a program's mode");
}
