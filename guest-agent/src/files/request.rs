//! A request for files as the program that answers it.

use creel_proto::agent::FilesRequest;
use creel_proto::agent::files_request::Work;

use crate::args::{FILES_DIRECTORY, FILES_READ, FILES_WRITE};

/// This program, also where it has no name any more: PID 1's was removed with the initramfs. The kernel lets a process open
/// its own, whoever it has become (proc_pid_exe(5)); between fork and exec, that is still the agent's.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    #[error("the request for files says neither what to read nor what to write")]
    NoWork,
    #[error("`{0}` is no path for files; an absolute one is needed")]
    Path(String),
}

/// The program and its arguments. It needs no environment and no directory.
///
/// # Errors
/// When the request makes no sense.
pub fn program(request: &FilesRequest) -> Result<Vec<String>, FilesError> {
    let absolute = |path: &str| match path.starts_with('/') && !path.contains('\0') {
        true => Ok(path.to_owned()),
        false => Err(FilesError::Path(path.to_owned())),
    };
    let mut argv = vec![THIS_PROGRAM.to_owned()];
    match request.work.as_ref().ok_or(FilesError::NoWork)? {
        Work::Read(read) => argv.extend([FILES_READ.to_owned(), absolute(&read.path)?]),
        Work::Write(write) => {
            argv.extend([FILES_WRITE.to_owned(), absolute(&write.destination)?]);
            argv.extend(write.directory.then(|| FILES_DIRECTORY.to_owned()));
        }
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use creel_proto::agent::{FilesRead, FilesWrite};

    use super::*;
    use crate::args::Args;
    use crate::files;

    fn parsed(work: Work) -> Args {
        let argv = program(&FilesRequest { work: Some(work) }).unwrap();
        assert_eq!(argv[0], "/proc/self/exe");
        Args::parse(argv.into_iter().skip(1)).unwrap()
    }

    #[test]
    fn a_request_is_what_the_program_understands() {
        // A path that looks like an option is one only behind a slash.
        let read = parsed(Work::Read(FilesRead { path: "/--directory".into() }));
        assert_eq!(read, Args::Files(files::Work::Read { path: "/--directory".into() }));
        for directory in [false, true] {
            let write = parsed(Work::Write(FilesWrite { destination: "/a b".into(), directory }));
            assert_eq!(write, Args::Files(files::Work::Write { destination: "/a b".into(), directory }));
        }
    }

    #[test]
    fn a_request_that_makes_no_sense_is_refused() {
        assert_eq!(program(&FilesRequest { work: None }), Err(FilesError::NoWork));
        for path in ["", "workspace", "--help", "/a\0b"] {
            let work = Some(Work::Read(FilesRead { path: path.into() }));
            assert_eq!(program(&FilesRequest { work }), Err(FilesError::Path(path.into())));
            let work = Some(Work::Write(FilesWrite { destination: path.into(), directory: true }));
            assert_eq!(program(&FilesRequest { work }), Err(FilesError::Path(path.into())));
        }
    }
}
