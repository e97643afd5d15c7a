//! The command line of the agent itself. By hand: a parser library would double the binary.

use crate::connect::{Endpoint, InvalidEndpoint};

pub const USAGE: &str = "\
usage: creel-agent [--connect unix:PATH | --connect vsock:CID:PORT]
       creel-agent --version | --help

Dials the host and runs what it asks for. Without --connect the host is vsock CID 2 ($SHUTTLE_HOST_CID)
at the port named by $SHUTTLE_VSOCK_PORT, by `shuttle.vsock_port=` on the kernel command line, or 10240.
With --connect the machine is left alone: asked to power off, the agent only exits.
Started by the kernel as PID 1 it boots the machine first.
";

/// What the caller wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Args {
    Serve { connect: Option<Endpoint> },
    Version,
    Help,
}

#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    #[error("unknown argument `{0}`")]
    Unknown(String),
    #[error("`--connect` needs an address")]
    MissingAddress,
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
        assert!(parse(&["--connect", "tcp:1"]).is_err_and(|error| error.contains("tcp:1")));
    }
}
