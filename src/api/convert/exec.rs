//! What is asked of a machine, and the bytes that come back.

use creel_proto::v1 as wire;
use creel_proto::v1::exec_event::Event;
use creel_proto::v1::exec_request::Message;
use creel_proto::v1::exec_start;

use super::shell::{checked_term, size};
use super::{Malformed, required};
use crate::machines::{Ask, News};
use crate::runtime::{InputProgress, OutputChunk, OutputOffsets, Stream, Terminal, TerminalSize, Work};

/// Of one message.
pub(in crate::api) const MAX_INPUT_BYTES: usize = 64 << 10;

/// Where a program runs that names no directory.
const DEFAULT_CWD: &str = "/workspace";

/// Empty words cost more to keep than to send.
const MAX_WORDS: usize = 1 << 14;

/// What a terminal is that nobody describes.
const DEFAULT_TERM: &str = "xterm-256color";

impl From<Work> for exec_start::Work {
    fn from(work: Work) -> Self {
        match work {
            Work::Program { argv, env, cwd, user, terminal } => {
                let env = env.into_iter().map(|(name, value)| wire::Variable { name, value }).collect();
                let terminal =
                    terminal.map(|Terminal { term, size }| wire::Terminal { term, size: Some(size.into()) });
                Self::Program(wire::Program { argv, env, cwd, user, terminal })
            }
            Work::UnpackSource { destination, user } => {
                Self::UnpackSource(wire::UnpackSource { destination, user })
            }
            Work::ReadFiles { path, user } => Self::ReadFiles(wire::ReadFiles { path, user }),
            Work::WriteFiles { destination, directory, user } => {
                Self::WriteFiles(wire::WriteFiles { destination, directory, user })
            }
        }
    }
}

impl TryFrom<exec_start::Work> for Work {
    type Error = Malformed;

    /// Fills in what the contract lets a caller leave out.
    fn try_from(work: exec_start::Work) -> Result<Self, Malformed> {
        let user_or_default = |user: String| {
            if user.is_empty() { crate::engine::WORKFLOW_USER.to_owned() } else { user }
        };
        match work {
            exec_start::Work::Program(wire::Program { argv, env, cwd, user, terminal }) => {
                if argv.len() > MAX_WORDS || env.len() > MAX_WORDS {
                    return Err(Malformed(format!(
                        "`program` has {} arguments and {} variables; it may have {MAX_WORDS} of each",
                        argv.len(),
                        env.len()
                    )));
                }
                if argv.first().is_none_or(String::is_empty) {
                    return Err(Malformed("`program.argv` names no program".into()));
                }
                let cwd = if cwd.is_empty() { DEFAULT_CWD.to_owned() } else { cwd };
                absolute(&cwd, "program.cwd")?;
                for wire::Variable { name, .. } in &env {
                    if name.is_empty() || name.contains('=') {
                        return Err(Malformed(
                            "`program.env` has a variable whose name is empty or contains `=`".into(),
                        ));
                    }
                }
                let texts =
                    argv.iter().chain(env.iter().flat_map(|variable| [&variable.name, &variable.value]));
                if texts.chain([&cwd, &user]).any(|text| text.contains('\0')) {
                    return Err(Malformed(
                        "`program` contains a NUL byte, which no program can be given".into(),
                    ));
                }
                let env = env.into_iter().map(|variable| (variable.name, variable.value)).collect();
                let terminal = terminal.map(terminal_of).transpose()?;
                Ok(Self::Program { argv, env, cwd, user: user_or_default(user), terminal })
            }
            exec_start::Work::UnpackSource(wire::UnpackSource { destination, user }) => {
                absolute(&destination, "unpack_source.destination")?;
                Ok(Self::UnpackSource { destination, user: user_or_default(user) })
            }
            exec_start::Work::ReadFiles(wire::ReadFiles { path, user }) => {
                absolute(&path, "read_files.path")?;
                Ok(Self::ReadFiles { path, user: user_or_default(user) })
            }
            exec_start::Work::WriteFiles(wire::WriteFiles { destination, directory, user }) => {
                absolute(&destination, "write_files.destination")?;
                Ok(Self::WriteFiles { destination, directory, user: user_or_default(user) })
            }
            exec_start::Work::Attach(_) => Err(Malformed("`attach` is no work that could be started".into())),
        }
    }
}

/// Fills in what the contract lets a caller leave out.
fn terminal_of(terminal: wire::Terminal) -> Result<Terminal, Malformed> {
    let wire::Terminal { term, size: given } = terminal;
    let term = if term.is_empty() { DEFAULT_TERM.to_owned() } else { checked_term(term)? };
    let size = given.map_or(Ok(TerminalSize::default()), |given| size(given, "program.terminal.size"))?;
    Ok(Terminal { term, size })
}

fn absolute(path: &str, field: &str) -> Result<(), Malformed> {
    if path.starts_with('/') {
        return Ok(());
    }
    Err(Malformed(format!("`{field}` is `{}`, which is no absolute path", crate::text::one_line(path, 80))))
}

/// What follows `start`.
pub(in crate::api) fn ask(message: Message) -> Result<Ask, Malformed> {
    match message {
        Message::Start(_) => Err(Malformed("`start` may only be the first message of a call".to_owned())),
        Message::Input(wire::ExecInput { data, .. }) if data.len() > MAX_INPUT_BYTES => {
            Err(Malformed(format!(
                "`input.data` has {} bytes, more than the {MAX_INPUT_BYTES} that it may have",
                data.len()
            )))
        }
        Message::Input(wire::ExecInput { offset, data }) => Ok(Ask::Input { offset, bytes: data }),
        Message::CloseInput(wire::CloseInput {}) => Ok(Ask::CloseInput),
        Message::Resize(terminal) => size(terminal, "resize").map(Ask::Resize),
        Message::Acknowledge(wire::Acknowledge { stdout_offset: stdout, stderr_offset: stderr }) => {
            Ok(Ask::Acknowledge(OutputOffsets { stdout, stderr }))
        }
        Message::Cancel(wire::Cancel {}) => Ok(Ask::Cancel),
    }
}

impl From<Ask> for wire::ExecRequest {
    fn from(ask: Ask) -> Self {
        let message = match ask {
            Ask::Input { offset, bytes } => Message::Input(wire::ExecInput { offset, data: bytes }),
            Ask::CloseInput => Message::CloseInput(wire::CloseInput {}),
            Ask::Resize(size) => Message::Resize(size.into()),
            Ask::Acknowledge(OutputOffsets { stdout, stderr }) => {
                Message::Acknowledge(wire::Acknowledge { stdout_offset: stdout, stderr_offset: stderr })
            }
            Ask::Cancel => Message::Cancel(wire::Cancel {}),
        };
        Self { message: Some(message) }
    }
}

impl From<News> for Event {
    fn from(news: News) -> Self {
        match news {
            News::Output(chunk) => Self::Output(chunk.into()),
            News::InputWritten(InputProgress { written, closed }) => {
                Self::InputWritten(wire::InputWritten { offset: written, closed })
            }
            News::Verdict(verdict) => Self::Verdict((*verdict).into()),
        }
    }
}

impl From<OutputChunk> for wire::Output {
    fn from(chunk: OutputChunk) -> Self {
        let stream = match chunk.stream {
            Stream::Stdout => wire::Stream::Stdout,
            Stream::Stderr => wire::Stream::Stderr,
        };
        Self { stream: stream.into(), raw_offset: chunk.raw_offset, data: chunk.bytes }
    }
}

impl TryFrom<wire::Output> for OutputChunk {
    type Error = Malformed;

    fn try_from(output: wire::Output) -> Result<Self, Malformed> {
        let stream = match wire::Stream::try_from(output.stream) {
            Ok(wire::Stream::Stdout) => Stream::Stdout,
            Ok(wire::Stream::Stderr) => Stream::Stderr,
            Ok(wire::Stream::Unspecified) | Err(_) => {
                return Err(Malformed::unknown("output.stream", output.stream));
            }
        };
        Ok(Self { stream, raw_offset: output.raw_offset, bytes: output.data })
    }
}

impl TryFrom<Option<exec_start::Work>> for Work {
    type Error = Malformed;

    fn try_from(work: Option<exec_start::Work>) -> Result<Self, Malformed> {
        required(work, "work")?.try_into()
    }
}
