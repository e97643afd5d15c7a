//! Machines of a daemon: the runtime contract over the control API.
//!
//! A workflow is driven over it as over a runtime of this process. Its machines are attached: they live as long as the
//! call that created them, so that nothing of a `creel run` is left when that is killed.

mod machine;
mod runtime;
#[cfg(test)]
mod tests;

pub use runtime::RemoteRuntime;
