//! What the tests are written with: a place to run in, the running program, the processes of its machines.

mod capture;
mod cut;
mod daemon;
mod gate;
mod images;
mod noise;
mod ordinary_user;
mod processes;
mod repository;
mod run;
mod sandbox;
mod world;

pub use cut::cut;
pub use daemon::Daemon;
pub use images::{DEBIAN, DEBIAN_MINIMAL, SERVICE, SERVICE_DIES_AT_BOOT, TINY, debian, debian_minimal};
pub use noise::Noise;
pub use ordinary_user::OrdinaryUser;
pub use processes::{Process, machine, resident_kib, touching, wait_until};
pub use repository::Repository;
pub use run::{Ended, Run};
pub use sandbox::{Sandbox, workflow};
pub use world::{World, required};
