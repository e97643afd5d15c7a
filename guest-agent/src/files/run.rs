//! What `--files-read` and `--files-write` do. Nothing of the agent's runs here but this.
//!
//! Each thing that is wrong is a line on stderr. The exit code is 0 when there was none, 1 when something was left out, and 2
//! when it came to nothing: there is no such path, the archive is broken, the disk is full.

use std::fmt;
use std::io::{self, BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use creel_tree::{Destination, DestinationError, PackError, Source, SourceError, UnpackError};

/// Something was left out.
const INCOMPLETE: u8 = 1;

/// It came to nothing.
const FAILED: u8 = 2;

/// One read of the archive.
const READ_BYTES: usize = 64 << 10;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    Read { path: PathBuf },
    Write { destination: PathBuf, directory: bool },
}

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Destination(#[from] DestinationError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("failed to read the archive: {0}")]
    Rest(#[source] io::Error),
}

/// Does it, to the end of the process.
pub fn run(work: &Work) -> ExitCode {
    let complaints = match work {
        Work::Read { path } => read(path),
        Work::Write { destination, directory } => write(destination, *directory),
    };
    match complaints {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(INCOMPLETE),
        Err(error) => {
            tell(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// Returns how many complaints there were.
fn read(path: &std::path::Path) -> Result<u64, RunError> {
    let source = Source::open(path, false)?;
    let packed = creel_tree::pack(&source, io::stdout().lock(), &mut |complaint| {
        tell(&complaint);
        Ok(())
    })?;
    Ok(packed.complaints)
}

fn write(destination: &std::path::Path, directory: bool) -> Result<u64, RunError> {
    let into =
        if directory { Destination::directory(destination)? } else { Destination::resolve(destination)? };
    let mut stdin = BufReader::with_capacity(READ_BYTES, io::stdin().lock());
    let unpacked = creel_tree::unpack(&mut stdin, into, &mut |complaint| {
        tell(&complaint);
        Ok(())
    })?;
    // Archives are filled up behind their end mark, and whoever sends one should not find that nobody reads it.
    io::copy(&mut stdin, &mut io::sink()).map_err(RunError::Rest)?;
    Ok(unpacked.complaints)
}

fn tell(error: &dyn fmt::Display) {
    // There is nobody left to tell when this fails.
    let _ = writeln!(io::stderr(), "{error}");
}
