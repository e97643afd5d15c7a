//! Places at which a test may end this process, let a step fail, or hold it up, so that each prefix of the work is shown to
//! be cleaned up. Only in builds with debug assertions: in a release they are nothing, and the variable is not read.
//!
//! `CREEL_FAILPOINTS` names them: `setup.keeper=kill`, `setup.leased=error`, `destroy.processes=delay:500` (milliseconds), several
//! with a `;` between them. `kill` is SIGKILL: no destructor runs.

use std::io;

/// Every place, in the order in which a machine comes by.
pub const PLACES: [&str; 14] = [
    "setup.recorded",
    "setup.directory",
    "setup.cgroup",
    "setup.jail",
    "setup.vsock",
    "setup.leased",
    "setup.keeper",
    "setup.started",
    "setup.qmp",
    "setup.ready",
    "destroy.recorded",
    "destroy.processes",
    "destroy.leases",
    "destroy.unrecorded",
];

/// Does what is asked for at this place.
///
/// # Errors
/// When that is to fail.
#[cfg(debug_assertions)]
pub fn hit(place: &'static str) -> io::Result<()> {
    use std::sync::LazyLock;

    static ASKED: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
        let text = std::env::var("CREEL_FAILPOINTS").unwrap_or_default();
        let parts = text.split(';').filter(|part| !part.is_empty());
        parts.map(|part| part.split_once('=').unwrap_or((part, "error"))).map(owned).collect()
    });
    fn owned((place, act): (&str, &str)) -> (String, String) {
        assert!(PLACES.contains(&place), "CREEL_FAILPOINTS: there is no place `{place}`");
        (place.to_owned(), act.to_owned())
    }

    match ASKED.iter().find(|(asked, _)| asked == place).map(|(_, act)| act.as_str()) {
        None => Ok(()),
        Some("kill") => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            Ok(())
        }
        Some("error") => Err(io::Error::other(format!("failpoint `{place}`"))),
        Some(other) => {
            let milliseconds = other.strip_prefix("delay:").and_then(|text| text.parse().ok());
            let milliseconds =
                milliseconds.unwrap_or_else(|| panic!("CREEL_FAILPOINTS: no `{other}` can be done"));
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
            Ok(())
        }
    }
}

/// Nothing.
///
/// # Errors
/// Never.
#[cfg(not(debug_assertions))]
pub fn hit(_place: &'static str) -> io::Result<()> {
    Ok(())
}

/// Where nothing can fail.
pub fn pass(place: &'static str) {
    let _ = hit(place);
}
