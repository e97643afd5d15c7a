//! What an operator or user may set, where creel finds its things, and every default.
//!
//! - `environment`: what of the process environment matters here; read in one place, handed in everywhere else.
//! - `settings`: the values, typed, with their defaults.
//! - `keys`: the name, meaning and parser of each value. `--print-config` and the documentation come from it.
//! - `load`: file and environment into settings; every mistake with its line.
//! - `problem`: a mistake, and how it is shown.
//! - `observe`: values for what watches creeld: its log and its metrics.
//! - `places`: the directories.
//! - `units`: durations and sizes as people write them.

mod environment;
mod keys;
mod load;
mod observe;
mod places;
mod problem;
mod settings;
mod units;

pub use environment::Environment;
pub use keys::{KEYS, Key, Kind};
pub use load::ConfigError;

pub use observe::{LogFilter, LogFormat, MetricsAddress};
pub use places::{Places, PlacesError};
pub use problem::{Place, Problem};
pub use settings::{Accel, CgroupMode, Config, JailMode, Transport, VsockPorts};
pub use units::{ByteSize, Period, UnitError};

#[cfg(test)]
mod tests;
