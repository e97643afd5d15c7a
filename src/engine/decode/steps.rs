//! `steps`: what the workflow runs.

use super::environment::environment;
use super::{Field, Fields, Problems};
use crate::engine::{ManifestStep, step_name};

/// Linux takes no argument longer than this (`MAX_ARG_STRLEN`, 32 pages), and a command is one argument; what is kept
/// back is for the prologue that an engine puts before it.
const LONGEST_COMMAND_BYTES: usize = 128 * 1024 - 1024;

pub(super) fn steps(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<ManifestStep>> {
    let items = field.list(problems)?;
    if items.is_empty() {
        return problems.add(field.span, "`steps` is empty; give at least one, such as `- command: make`");
    }
    let steps: Vec<_> = items.iter().map(|item| step(item, problems)).collect();
    steps.into_iter().collect()
}

fn step(field: &Field<'_>, problems: &mut Problems) -> Option<ManifestStep> {
    let fields = Fields::of(field, &["name", "command", "environment"], problems)?;
    let name = fields.optional("name").and_then(|name| name.string(problems));
    let environment =
        fields.optional("environment").map(|field| environment(&field, problems)).unwrap_or_default();
    let command = fields
        .required("command", "say what the step runs", problems)
        .and_then(|field| command(&field, problems))?;
    let name = name.and_then(|name| step_name::given(&name)).unwrap_or_else(|| step_name::derived(&command));
    Some(ManifestStep { name, command, environment, span: field.span })
}

fn command(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let command = field.filled_string(problems)?;
    if command.contains('\0') {
        return problems.add(
            field.node.span,
            format!("`{}` contains a NUL, which no command can; remove it", field.path),
        );
    }
    if command.len() > LONGEST_COMMAND_BYTES {
        let message = format!(
            "`{}` is {} bytes long, and Linux takes {LONGEST_COMMAND_BYTES}; put it into a script in the repository",
            field.path,
            command.len()
        );
        return problems.add(field.node.span, message);
    }
    Some(command)
}
