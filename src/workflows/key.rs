//! Whose a workflow is.

use crate::runtime::Tenant;

/// What a call names a workflow by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub tenant: Tenant,
    /// The caller's choice.
    pub workflow_id: String,
}

/// One workflow of this host: two users may give theirs the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub name: Name,
    /// Who made it, by the kernel's word.
    pub creator_uid: u32,
}

/// Who asks, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub uid: u32,
    /// Whether it finds the workflows of every user.
    pub operator: bool,
}

impl Asker {
    /// Whether what `uid` made exists for it.
    pub fn sees(self, uid: u32) -> bool {
        self.operator || self.uid == uid
    }
}

impl Key {
    /// All keys of one name, by creator.
    pub(super) fn range(name: &Name) -> std::ops::RangeInclusive<Self> {
        let of = |creator_uid| Self { name: name.clone(), creator_uid };
        of(0)..=of(u32::MAX)
    }
}
