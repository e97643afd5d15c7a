//! Who may do what: decided by the kernel's word on the peer, never by anything in a message.

use std::io;
use std::path::{Path, PathBuf};

use super::places::Standing;
use crate::host::PeerCredentials;

/// Its members operate creeld.
pub const OPERATOR_GROUP: &str = "creel";

/// Its members have the workflow level.
pub const SPINDLE_GROUP: &str = "creel-spindle";

/// Where groups are looked up.
///
/// The file itself, not getgrnam(3): that loads the host's name service modules into a root daemon for two names which
/// the package creates locally, and blocks on whatever these modules talk to.
const GROUP_FILE: &str = "/etc/group";

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Operator,
    /// The workflow level.
    Spindle,
    /// Ask whether creeld is healthy.
    Stranger,
}

/// Failed to learn who the groups are.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {}, which says who may use the control API: {source}", path.display())]
pub struct GroupsError {
    path: PathBuf,
    source: io::Error,
}

/// Gives peers their roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolePolicy {
    /// Operators whatever their groups.
    pub operator_uids: Vec<u32>,
    /// `None` where there is no such group.
    pub operator_gid: Option<u32>,
    pub spindle_gid: Option<u32>,
}

impl RolePolicy {
    /// The host's groups; operators are also root and the user that this process runs as.
    ///
    /// # Errors
    /// When the groups can't be read.
    pub fn of_this_host() -> Result<Self, GroupsError> {
        let path = Path::new(GROUP_FILE);
        let groups = std::fs::read(path).map_err(|source| GroupsError { path: path.to_owned(), source })?;
        Ok(Self::from_groups(&String::from_utf8_lossy(&groups), rustix::process::geteuid().as_raw()))
    }

    /// `groups` in the form of group(5).
    fn from_groups(groups: &str, own_uid: u32) -> Self {
        let mut operator_uids = vec![0, own_uid];
        operator_uids.dedup();
        Self {
            operator_uids,
            operator_gid: gid_of(groups, OPERATOR_GROUP),
            spindle_gid: gid_of(groups, SPINDLE_GROUP),
        }
    }

    pub fn role(&self, peer: &PeerCredentials) -> Role {
        let member = |gid: Option<u32>| gid.is_some_and(|gid| peer.is_in_group(gid));
        if self.operator_uids.contains(&peer.uid) || member(self.operator_gid) {
            Role::Operator
        } else if member(self.spindle_gid) {
            Role::Spindle
        } else {
            Role::Stranger
        }
    }

    /// What a peer may take of what there is little of.
    pub(super) fn standing(&self, peer: &PeerCredentials) -> Standing {
        match self.role(peer) {
            Role::Operator if self.operator_uids.contains(&peer.uid) => Standing::Foremost,
            Role::Operator => Standing::Operator,
            Role::Spindle => Standing::Spindle,
            Role::Stranger => Standing::Guest,
        }
    }
}

/// group(5): `name:password:gid:members`. The first of a name counts, as in getgrnam(3).
fn gid_of(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str =
        "root:x:0:\n# creel:x:7:\ncreel-spindle:x:991:git\ncreel:x:992:ann,bob\ncreel:x:1:\n";

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> PeerCredentials {
        PeerCredentials { uid, gid, groups: groups.to_vec(), pid: Some(1) }
    }

    #[test]
    fn roles_come_from_uid_and_any_group() {
        let policy = RolePolicy::from_groups(GROUPS, 0);
        let table = [
            (peer(0, 0, &[]), Role::Operator),
            (peer(1000, 992, &[]), Role::Operator),
            (peer(1000, 1000, &[4, 992]), Role::Operator),
            (peer(1000, 991, &[992]), Role::Operator),
            (peer(1000, 991, &[]), Role::Spindle),
            (peer(1000, 1000, &[991]), Role::Spindle),
            (peer(1000, 1000, &[4]), Role::Stranger),
            // Root's group is not root.
            (peer(1000, 0, &[0, 1, 7]), Role::Stranger),
        ];
        for (peer, role) in table {
            assert_eq!(policy.role(&peer), role, "{peer:?}");
        }
    }

    #[test]
    fn only_root_and_oneself_come_before_other_operators() {
        let policy = RolePolicy::from_groups(GROUPS, 1000);
        let table = [
            (peer(0, 0, &[]), Standing::Foremost),
            (peer(1000, 1000, &[]), Standing::Foremost),
            (peer(1001, 992, &[]), Standing::Operator),
            (peer(1001, 991, &[]), Standing::Spindle),
            (peer(1001, 1001, &[]), Standing::Guest),
        ];
        for (peer, standing) in table {
            assert_eq!(policy.standing(&peer), standing, "{peer:?}");
        }
    }

    #[test]
    fn without_the_groups_only_root_and_oneself_operate() {
        let policy = RolePolicy::from_groups("root:x:0:\n", 1000);
        assert_eq!(
            policy,
            RolePolicy { operator_uids: vec![0, 1000], operator_gid: None, spindle_gid: None }
        );
        assert_eq!(policy.role(&peer(1000, 1000, &[])), Role::Operator);
        assert_eq!(policy.role(&peer(1001, 1000, &[0])), Role::Stranger);
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        for groups in ["creel", "creel:x", "creel:x:many:", "", "creel:x:-1:"] {
            assert_eq!(gid_of(groups, "creel"), None, "{groups}");
        }
    }
}
