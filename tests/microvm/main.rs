//! The whole program with real microVMs: what a user was promised, asked of the program that a user runs.
//!
//! Each test has directories of its own and fails if anything of a machine is left in them ([`harness::Sandbox`]).
//! The program is `CREEL_TEST_PROGRAM`, else the one that cargo built; the kit is `CREEL_KIT__DIR`, else `target/kit`.
//! `make test` sets both. On a host without kit or QEMU the tests say so and pass, unless `CI` or
//! `CREEL_REQUIRE_MICROVM` is set.

mod harness;

mod attached;
mod bad_input;
mod bytes;
mod console;
mod copying;
mod crowd;
mod cuts;
mod daemon;
mod deadlines;
mod debian;
mod disk_full;
mod documents;
mod exec_ends;
mod failpoints;
mod grpc;
mod guest_ends;
mod image_care;
mod jail;
mod json;
mod keep;
mod logs;
mod ordinary_user;
mod output;
mod reach;
mod secrets;
mod selection;
mod shell;
mod signals;
mod step_ends;
mod sudden_death;
mod workflow;
