//! The jail: what a machine's processes can see and do, which is next to nothing.
//!
//! Whoever escapes a guest is QEMU, and QEMU is here: in namespaces of the machine's own (the keeper is born in them), in a
//! [`root`] with the files that it reads and nothing else, as a user that nobody else is, without capabilities
//! ([`privileges`]), without a way to change any file ([`landlock`]), and without the system calls that it has no use for
//! ([`seccomp`]). No layer relies on another. The order in which a process takes them on is the list of steps in `child`.
//!
//! A step that fails ends the start: a machine whose jail is weaker than the plan says is not run.

pub(crate) mod landlock;
pub(crate) mod privileges;
pub(crate) mod root;
pub(crate) mod seccomp;
