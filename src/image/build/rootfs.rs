//! The root of the `tiny` image: busybox under all its names, the accounts steps run under, and the places programs
//! expect.

use std::path::{Path, PathBuf};

use super::tree::{Node, Tree};

/// The workflow's user has the number it has in upstream's images.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
spindle-workflow:x:970:970:workflow:/workspace:/bin/sh
";
const GROUP: &str = "\
root:x:0:
tty:x:5:
disk:x:6:
nogroup:x:65533:
nobody:x:65534:
spindle-workflow:x:970:
";
/// Steps start login shells with an environment made for them: nothing here may take its place.
const PROFILE: &str = "\
export PATH=\"${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}\"
umask 022
";
pub(super) const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
/// Where the agent serves DNS for the guest.
pub(super) const RESOLV_CONF: &str = "nameserver 127.0.0.1\n";
const OS_RELEASE: &str = "ID=creel-tiny\nNAME=\"creel tiny\"\nPRETTY_NAME=\"creel tiny (busybox)\"\n";

const DIRECTORIES: [(&str, u32); 25] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/local/sbin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
    ("workspace", 0o755),
];

/// Lays out the root. `applets` are the paths busybox wants to be known under, as `busybox --list-full` prints them.
pub(super) fn tiny_root(busybox: &Path, applets: &str, agent: &Path) -> Tree {
    let mut tree = Tree::default();
    for (path, mode) in DIRECTORIES {
        tree.add(path, Node::Directory(mode));
    }
    let texts = [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/profile", PROFILE),
        ("etc/hosts", HOSTS),
        ("etc/hostname", "creel\n"),
        ("etc/resolv.conf", RESOLV_CONF),
        ("etc/os-release", OS_RELEASE),
        ("etc/shells", "/bin/sh\n"),
    ];
    for (path, text) in texts {
        tree.add(path, Node::Text(0o644, text.to_owned()));
    }
    tree.add("var/run", Node::Link(PathBuf::from("/run")));
    tree.add("etc/mtab", Node::Link(PathBuf::from("/proc/self/mounts")));
    for applet in applets.lines().filter(|applet| is_plain_relative(applet)) {
        tree.add(applet, Node::Link(PathBuf::from("/bin/busybox")));
    }
    tree.add("bin/busybox", Node::File(0o755, busybox.to_owned()));
    // For images that are to start it as a service; the initramfs has its own copy.
    tree.add("usr/lib/creel/creel-agent", Node::File(0o755, agent.to_owned()));
    tree
}

/// Nothing that would leave the tree, whatever the program prints.
fn is_plain_relative(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}
