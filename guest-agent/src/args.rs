//! The command line of the agent itself. By hand: a parser library would double the binary.

use crate::connect::{Endpoint, InvalidEndpoint};
use crate::files;

pub const USAGE: &str = "\
usage: creel-agent [--connect unix:PATH | --connect vsock:CID:PORT]
       creel-agent --version | --help

Dials the host and runs what it asks for. Without --connect the host is vsock CID 2 ($SHUTTLE_HOST_CID)
at the port named by $SHUTTLE_VSOCK_PORT, by `shuttle.vsock_port=` on the kernel command line, or 10240.
With --connect the machine is left alone: asked to power off, the agent only exits.
Started by the kernel as PID 1 it boots the machine first.
";

/// The agent's own way in, which nobody else needs: it starts itself so, as a step's user ([`files`]).
pub const FILES_READ: &str = "--files-read";
pub const FILES_WRITE: &str = "--files-write";
/// Behind the destination.
pub const FILES_DIRECTORY: &str = "--directory";

/// What the caller wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Args {
    Serve { connect: Option<Endpoint> },
    Version,
    Help,
    Files(files::Work),
}

#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    #[error("unknown argument `{0}`")]
    Unknown(String),
    #[error("`--connect` needs an address")]
    MissingAddress,
    #[error("`{0}` needs a path")]
    MissingPath(&'static str),
    #[error(transparent)]
    Address(#[from] InvalidEndpoint),
}

impl Args {
    /// Parses the arguments after the program's name.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, ArgsError> {
        let mut words = words.into_iter();
        let mut connect = None;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--version" | "-V" => return Ok(Self::Version),
                "--help" | "-h" => return Ok(Self::Help),
                FILES_READ => {
                    let path = words.next().ok_or(ArgsError::MissingPath(FILES_READ))?.into();
                    return last(words, Self::Files(files::Work::Read { path }));
                }
                FILES_WRITE => {
                    let destination = words.next().ok_or(ArgsError::MissingPath(FILES_WRITE))?.into();
                    let mut words = words.peekable();
                    let directory = words.next_if(|word| word == FILES_DIRECTORY).is_some();
                    return last(words, Self::Files(files::Work::Write { destination, directory }));
                }
                "--connect" => connect = Some(words.next().ok_or(ArgsError::MissingAddress)?.parse()?),
                _ => match word.strip_prefix("--connect=") {
                    Some(address) => connect = Some(address.parse()?),
                    None => return Err(ArgsError::Unknown(word)),
                },
            }
        }
        Ok(Self::Serve { connect })
    }
}

/// Nothing may follow.
fn last(mut words: impl Iterator<Item = String>, args: Args) -> Result<Args, ArgsError> {
    match words.next() {
        Some(word) => Err(ArgsError::Unknown(word)),
        None => Ok(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, String> {
        Args::parse(words.iter().map(ToString::to_string)).map_err(|error| error.to_string())
    }

    #[test]
    fn no_argument_means_a_service() {
        assert_eq!(parse(&[]), Ok(Args::Serve { connect: None }));
    }

    #[test]
    fn the_address_may_stand_in_either_form() {
        let unix = Ok(Args::Serve { connect: Some(Endpoint::Unix("/run/x".into())) });
        assert_eq!(parse(&["--connect", "unix:/run/x"]), unix);
        assert_eq!(parse(&["--connect=unix:/run/x"]), unix);
        assert_eq!(
            parse(&["--connect=vsock:2:824"]),
            Ok(Args::Serve { connect: Some(Endpoint::Vsock { cid: 2, port: 824 }) })
        );
    }

    #[test]
    fn wrong_words_are_named() {
        assert_eq!(parse(&["serve"]), Err("unknown argument `serve`".into()));
        assert_eq!(parse(&["--connect"]), Err("`--connect` needs an address".into()));
        assert_eq!(parse(&["--files-read"]), Err("`--files-read` needs a path".into()));
        assert_eq!(parse(&["--files-read", "/a", "/b"]), Err("unknown argument `/b`".into()));
        assert_eq!(parse(&["--files-write", "/a", "--now"]), Err("unknown argument `--now`".into()));
        assert!(parse(&["--connect", "tcp:1"]).is_err_and(|error| error.contains("tcp:1")));
    }
}
