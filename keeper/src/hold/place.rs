//! Where in the file system this process's own cgroup is. Pure but for [`own_unit`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::subtree::KEEP;

/// Where the unified hierarchy is by convention; elsewhere may be copies in chroots and containers.
const USUAL: &str = "/sys/fs/cgroup";

/// Why the own cgroup has no place.
#[derive(Debug, Error)]
pub(crate) enum PlaceError {
    #[error("failed to read `{path}`")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("/proc/self/cgroup names no cgroup v2: the kernel has none")]
    NoVersion2,
    #[error("no mount of type cgroup2 shows the cgroup `{path}`: mount one at {USUAL}")]
    NotMounted { path: String },
}

/// The directory of the unit's cgroup. A holder that is in `keep` already (systemd's `DelegateSubgroup=`, 254) belongs to
/// the one above.
pub(crate) fn own_unit() -> Result<PathBuf, PlaceError> {
    // Lossy: paths of other mounts may be anything.
    let read = |path| match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) => Err(PlaceError::Read { path, source }),
    };
    let own = directory(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
    Ok(unit_of(&own).to_owned())
}

fn unit_of(own: &Path) -> &Path {
    match own.parent() {
        Some(parent) if own.ends_with(KEEP) => parent,
        _ => own,
    }
}

/// The directory of the cgroup that `cgroup` (`/proc/PID/cgroup`) names, through a mount of `mountinfo`. Both formats are
/// those of proc(5).
fn directory(cgroup: &str, mountinfo: &str) -> Result<PathBuf, PlaceError> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or(PlaceError::NoVersion2)?;
    let mut seen: Vec<PathBuf> =
        mountinfo.lines().filter_map(mount_of_version_2).filter_map(|mount| mount.directory(path)).collect();
    let usual = seen.iter().position(|directory| directory.starts_with(USUAL)).unwrap_or(0);
    match seen.is_empty() {
        true => Err(PlaceError::NotMounted { path: path.into() }),
        false => Ok(seen.swap_remove(usual)),
    }
}

struct Mount {
    /// The cgroup that is at the mount point.
    root: String,
    point: String,
}

impl Mount {
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = path.strip_prefix(self.root.trim_end_matches('/'))?;
        let whole_names = below.is_empty() || below.starts_with('/');
        // Joining an empty name would leave a slash at the end.
        let mut directory = PathBuf::from(&self.point);
        directory.extend(below.split('/').filter(|name| !name.is_empty()));
        whole_names.then_some(directory)
    }
}

fn mount_of_version_2(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    if file_system.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some(Mount { root: unescape(fields.next()?), point: unescape(fields.next()?) })
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text += before;
        let byte = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 master:2 - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn the_own_cgroup_is_found_where_it_is_mounted() {
        let found =
            |cgroup: &str, mounts: &str| directory(cgroup, mounts).expect("found").display().to_string();
        let unit = "/creel.slice/creel-machines.service";
        let unified = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:3 - cgroup2 cgroup2 rw\n";
        assert_eq!(found(&format!("0::{unit}\n"), unified), format!("/sys/fs/cgroup{unit}"));
        assert_eq!(found("0::/\n", unified), "/sys/fs/cgroup");
        let hybrid = format!("9:name=systemd:/other\n4:memory:/x\n0::{unit}\n");
        assert_eq!(found(&hybrid, HYBRID), format!("/sys/fs/cgroup/unified{unit}"));
        let copy_first = format!("60 20 0:22 / /srv/chroot/cg rw - cgroup2 none rw\n{unified}");
        assert_eq!(found("0::/a\n", &copy_first), "/sys/fs/cgroup/a");
        // Only a part of the hierarchy is mounted.
        let part = "61 20 0:22 /a /cg rw - cgroup2 none rw\n";
        assert_eq!(found("0::/a/b\n", part), "/cg/b");
        assert_eq!(found("0::/a\n", part), "/cg");
    }

    #[test]
    fn a_cgroup_that_no_mount_shows_is_an_error_with_its_name() {
        let error = |cgroup: &str, mounts: &str| directory(cgroup, mounts).expect_err("nowhere").to_string();
        let part = "61 20 0:22 /a /cg rw - cgroup2 none rw\n";
        assert!(error("0::/ab\n", part).contains("no mount of type cgroup2 shows the cgroup `/ab`"));
        assert!(
            error("0::/a\n", HYBRID.lines().next().expect("a line")).contains("mount one at /sys/fs/cgroup")
        );
        assert_eq!(
            error("4:memory:/x\n", HYBRID),
            "/proc/self/cgroup names no cgroup v2: the kernel has none"
        );
    }

    #[test]
    fn a_holder_in_its_subgroup_belongs_to_the_unit_above() {
        assert_eq!(
            unit_of(Path::new("/sys/fs/cgroup/u.service/keep")),
            Path::new("/sys/fs/cgroup/u.service")
        );
        assert_eq!(unit_of(Path::new("/sys/fs/cgroup/u.service")), Path::new("/sys/fs/cgroup/u.service"));
    }

    proptest! {
        #[test]
        fn mount_points_with_any_characters_come_back(
            point in "/[ -~\t]{0,20}[!-.0-~]", below in "(/[a-z@\\\\.-]{1,8}){0,3}"
        ) {
            let escape = |text: &str| -> String {
                text.chars().fold(String::new(), |text, character| match character {
                    ' ' | '\t' | '\n' | '\\' => text + &format!("\\{:03o}", u32::from(character)),
                    other => text + &other.to_string(),
                })
            };
            let mounts = format!("41 31 0:38 / {} rw - cgroup2 c rw", escape(&point));
            let found = directory(&format!("0::{below}"), &mounts).expect("found");
            prop_assert_eq!(found, PathBuf::from(format!("{point}{below}")));
        }

        #[test]
        fn no_text_makes_it_panic(cgroup in "(0::)?\\PC*", mounts in "[0-9 /\\\\a-z-]{0,40}( - cgroup2 )?\\PC*") {
            let _ = directory(&cgroup, &mounts);
        }
    }
}
