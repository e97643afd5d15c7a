//! creel runs CI workflows in disposable microVMs.
//!
//! ARCHITECTURE.md draws how the modules hang together; arrows point down only:
//! `bin -> cli -> workflow -> {engine, runtime, state}`, `runtime -> {agent, image} -> transport, host`.

pub mod agent;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
pub mod host;
pub mod image;
pub mod runtime;
pub mod state;
pub mod text;
pub mod transport;
pub mod workflow;
