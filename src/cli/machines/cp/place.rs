//! Where from and where to, as it is typed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::cli::failure::Failure;
use crate::cli::machines::connect::machine_id;
use crate::runtime::MachineId;

/// The directory that images mount for work.
const WORKSPACE: &str = "/workspace";

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The path is absolute.
    Machine(MachineId, String),
    Here(PathBuf),
    /// stdin or stdout, as an archive.
    Archive,
}

/// Both sides, one of them in a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Fetch { machine: MachineId, path: String, into: Side },
    Send { from: Side, machine: MachineId, path: String },
}

/// The side that is not in a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    Here(PathBuf),
    Archive,
}

impl Place {
    /// With a colon before any slash it is a machine's: `./a:b` is a file here.
    pub(super) fn parse(typed: &OsStr) -> Result<Self, Failure> {
        let bytes = typed.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Archive);
        }
        if bytes.is_empty() {
            return Err(Failure::usage("an empty path names nothing; `.` is the current directory"));
        }
        let colon = bytes.iter().take_while(|byte| **byte != b'/').position(|byte| *byte == b':');
        let Some(colon) = colon else { return Ok(Self::Here(typed.into())) };
        let shown = typed.to_string_lossy();
        let local = format!("a file of that name here is `./{shown}`");
        let id = OsStr::from_bytes(&bytes[..colon]).to_string_lossy();
        let machine = machine_id(&id).map_err(|failure| Failure::usage(format!("{failure}; {local}")))?;
        let path = std::str::from_utf8(&bytes[colon + 1..]).map_err(|_| {
            Failure::usage(format!("`{shown}` can't be asked for: a machine's path is UTF-8"))
        })?;
        Ok(Self::Machine(machine, absolute(path)))
    }
}

fn absolute(path: &str) -> String {
    match path {
        "" => WORKSPACE.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{WORKSPACE}/{path}"),
    }
}

impl Route {
    pub(super) fn parse(source: &OsStr, destination: &OsStr, follow_link: bool) -> Result<Self, Failure> {
        match (Place::parse(source)?, Place::parse(destination)?) {
            (Place::Machine(machine, mut path), into) => {
                if follow_link && !path.ends_with('/') {
                    // So it is said in the contract.
                    path.push('/');
                }
                Ok(Self::Fetch { machine, path, into: side(into)? })
            }
            (from, Place::Machine(machine, path)) => Ok(Self::Send { from: side(from)?, machine, path }),
            _ => Err(Failure::usage(
                "neither side is in a machine: one has to be MACHINE:PATH, such as `k3v9w0x2ma:repo/report.html`",
            )),
        }
    }
}

fn side(place: Place) -> Result<Side, Failure> {
    match place {
        Place::Here(path) => Ok(Side::Here(path)),
        Place::Archive => Ok(Side::Archive),
        Place::Machine(..) => Err(Failure::usage(
            "both sides are in machines; copy by way of this host: `creel cp A:x - | creel cp - B:y`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(typed: &str) -> Result<Place, String> {
        Place::parse(OsStr::new(typed)).map_err(|failure| failure.to_string())
    }

    fn machine(path: &str) -> Result<Place, String> {
        Ok(Place::Machine(MachineId::parse("k3v9w0x2ma").unwrap(), path.to_owned()))
    }

    fn here(path: &str) -> Result<Place, String> {
        Ok(Place::Here(path.into()))
    }

    #[test]
    fn a_colon_before_any_slash_is_a_machines() {
        let table = [
            ("k3v9w0x2ma:/etc/os-release", machine("/etc/os-release")),
            ("k3v9w0x2ma:repo/out/", machine("/workspace/repo/out/")),
            ("k3v9w0x2ma:", machine("/workspace")),
            ("k3v9w0x2ma:.", machine("/workspace/.")),
            ("k3v9w0x2ma:a:b", machine("/workspace/a:b")),
            ("k3v9w0x2ma:-", machine("/workspace/-")),
            ("k3v9w0x2ma", here("k3v9w0x2ma")),
            ("./a:b", here("./a:b")),
            ("/tmp/a:b", here("/tmp/a:b")),
            ("../k3v9w0x2ma:x", here("../k3v9w0x2ma:x")),
            ("-", Ok(Place::Archive)),
            ("./-", here("./-")),
        ];
        for (typed, expected) in table {
            assert_eq!(place(typed), expected, "{typed}");
        }
    }

    #[test]
    fn what_is_no_machine_says_how_a_file_is_written() {
        for typed in ["a b:c", ":x", "C:\\temp"] {
            let error = place(typed).unwrap_err();
            assert!(error.contains("is no machine id") && error.contains(&format!("`./{typed}`")), "{error}");
        }
        assert!(place("").unwrap_err().contains("names nothing"));
        let error = Place::parse(OsStr::from_bytes(b"k3v9w0x2ma:\xff")).unwrap_err().to_string();
        assert!(error.contains("UTF-8"), "{error}");
        assert!(matches!(Place::parse(OsStr::from_bytes(b"\xff")), Ok(Place::Here(_))));
    }

    #[test]
    fn exactly_one_side_is_in_a_machine() {
        let route = |source: &str, destination: &str| {
            Route::parse(OsStr::new(source), OsStr::new(destination), false)
                .map_err(|failure| (failure.exit.code(), failure.to_string()))
        };
        assert!(matches!(route("k3v9w0x2ma:x", "-"), Ok(Route::Fetch { into: Side::Archive, .. })));
        assert!(matches!(route("x", "k3v9w0x2ma:x"), Ok(Route::Send { from: Side::Here(_), .. })));
        let (code, text) = route("x", "-").unwrap_err();
        assert!(code == 2 && text.contains("MACHINE:PATH"), "{text}");
        let (code, text) = route("k3v9w0x2ma:x", "k3v9w0x2mb:y").unwrap_err();
        assert!(code == 2 && text.contains("creel cp A:x - | creel cp - B:y"), "{text}");
    }

    #[test]
    fn a_link_in_a_machine_is_followed_by_a_slash() {
        for (typed, expected) in [("k3v9w0x2ma:x", "/workspace/x/"), ("k3v9w0x2ma:x/", "/workspace/x/")] {
            let route = Route::parse(OsStr::new(typed), OsStr::new("."), true).unwrap();
            assert!(matches!(route, Route::Fetch { path, .. } if path == expected), "{typed}");
        }
    }
}
