//! creeld: the process around the API. It is started and stopped by a service manager or by hand, holds the sockets, and
//! knows neither requests nor machines.
//!
//! - `entry`: the `creeld` program: command line (`args`), configuration (`check`), log (`logging`), exit code (`failure`);
//! - `life`: all parts put together; `serving`: the loop, on `signals`, to the end;
//! - `sockets`: inherited from systemd or bound here, `ports` those of guests; `lock` keeps a second daemon away;
//! - `service`: the seam to what is served; `runtime`: the microVM runtime, found out about in the background and made
//!   anew when the configuration is; `left`: what the machines' records of creelds before this one come to;
//! - `manager`: what systemd is told, `status` in which words;
//! - `scrape`: the metrics, over HTTP.
//!
//! Nothing of systemd is needed: whatever it would give is done here where it is missing.

mod args;
mod check;
mod entry;
mod failure;
mod left;
mod life;
mod lock;
mod logging;
mod manager;
mod ports;
mod runtime;
mod scrape;
mod service;
mod serving;
mod signals;
mod sockets;
mod status;

pub use args::command_line;
pub use entry::main;
pub use runtime::{DaemonRuntime, Readiness};
pub use service::Service;
