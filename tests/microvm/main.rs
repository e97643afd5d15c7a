//! The whole program with real microVMs: what a user was promised, asked of the program that a user runs.
//!
//! Each test has directories of its own and fails if anything of a machine is left in them ([`harness::Sandbox`]).
//! The program is `CREEL_TEST_PROGRAM`, else the one that cargo built; the kit is `CREEL_KIT__DIR`, else `target/kit`.
//! `make test` sets both. On a host without kit or QEMU the tests say so and pass, unless `CI` or
//! `CREEL_REQUIRE_MICROVM` is set.

mod harness;

mod bad_input;
mod console;
mod crowd;
mod deadlines;
mod disk_full;
mod documents;
mod guest_ends;
mod json;
mod ordinary_user;
mod output;
mod secrets;
mod selection;
mod signals;
mod step_ends;
mod sudden_death;
mod workflow;
