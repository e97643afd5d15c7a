//! creel runs CI workflows in disposable microVMs.
//!
//! ARCHITECTURE.md draws how the modules hang together; arrows point down only:
//! `bin -> cli, daemon -> api -> workflows -> {workflow, machines} -> {engine, runtime, state}`,
//! `runtime -> {agent, image} -> transport, host`.

pub mod agent;
pub mod api;
pub mod assembly;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod exit;
pub mod failpoint;
pub mod host;
pub mod image;
pub mod machines;
pub mod metrics;
pub mod runtime;
pub mod spans;
pub mod state;
pub mod text;
pub mod transport;
pub mod workflow;
pub mod workflows;
