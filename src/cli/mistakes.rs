//! What somebody is told who mistypes a command: clap's words, and what would have been right where clap is at a loss.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Parser as _};

use super::args::Cli;
use super::manual::examples;

/// Reads a command line, the program's name first.
///
/// # Errors
/// That of clap, with tips; to be shown by [`clap::Error::exit`].
pub(super) fn parse<T: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = T>,
) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    Cli::try_parse_from(&arguments).map_err(|error| {
        let mut root = Cli::command();
        root.build();
        explain(error, named(&root, &arguments[1..]))
    })
}

/// The innermost command that the words name. Options are passed over, and so are their values, which can't be told from
/// words that name nothing.
fn named<'c>(root: &'c Command, arguments: &[OsString]) -> &'c Command {
    let words = arguments.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    words.fold(root, |command, word| command.find_subcommand(word).unwrap_or(command))
}

fn explain(mut error: clap::Error, command: &Command) -> clap::Error {
    let mut tips = Vec::new();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let known = command.get_subcommands().map(Command::get_name).filter(|name| *name != "help");
            let known: Vec<&str> = known.collect();
            let typed = text(&error, ContextKind::InvalidSubcommand);
            if let Some(near) = nearest(&typed, known.iter().copied()) {
                suggest(&mut error, ContextKind::SuggestedSubcommand, near);
            } else if error.get(ContextKind::SuggestedSubcommand).is_none() {
                tips.push(format!("`{}` knows: {}", full_name(command), known.join(", ")));
            }
        }
        ErrorKind::UnknownArgument => {
            let typed = text(&error, ContextKind::InvalidArg);
            if typed.starts_with("--") {
                let known = command.get_arguments().filter_map(clap::Arg::get_long);
                let near = nearest(typed.trim_start_matches('-'), known);
                if let Some(near) = near.filter(|_| error.get(ContextKind::SuggestedArg).is_none()) {
                    suggest(&mut error, ContextKind::SuggestedArg, &format!("--{near}"));
                }
            } else if !typed.starts_with('-') {
                tips.push(misplaced(command, &typed));
            }
        }
        ErrorKind::MissingRequiredArgument => tips.extend(example(command, |_| true)),
        ErrorKind::ValueValidation => {
            tips.extend(number(&text(&error, ContextKind::InvalidArg)).filter(|_| is_of_a_number(&error)));
        }
        _ => {}
    }
    if !tips.is_empty() {
        let mut all = match error.get(ContextKind::Suggested) {
            Some(ContextValue::StyledStrs(known)) => known.clone(),
            _ => Vec::new(),
        };
        all.extend(tips.into_iter().map(StyledStr::from));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(all));
    }
    error
}

/// A word where the command takes none.
fn misplaced(command: &Command, typed: &str) -> String {
    let name = full_name(command);
    if command.get_positionals().any(clap::Arg::is_last_set) {
        return format!("what is run in the machine comes after `--`: {name} ID -- {typed}");
    }
    if command.get_positionals().next().is_none() {
        let shown = example(command, |example| example.contains(" --"));
        let shown = shown.map(|shown| format!("; {shown}")).unwrap_or_default();
        return format!("`{name}` takes options, and no words without one{shown}");
    }
    format!("`{name} --help` says what it takes")
}

/// The first of the command's own examples of which `fits` is true.
fn example(command: &Command, fits: impl Fn(&str) -> bool) -> Option<String> {
    let shown = examples(command).into_iter().find(|example| fits(example))?;
    Some(format!("for example: {shown}"))
}

/// What a number is of, which the standard library's message does not say.
fn number(argument: &str) -> Option<String> {
    let unit = argument.split_once('<')?.1.trim_end_matches(['>', '.']);
    Some(match unit {
        "MIB" => "write a whole number of MiB, without a unit, such as 1024".to_owned(),
        _ => "write a whole number, such as 2".to_owned(),
    })
}

fn is_of_a_number(error: &clap::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::num::ParseIntError>())
}

/// The known name that takes the fewest slips of the finger, if those are few for its length. clap's measure, Jaro's, finds
/// `rnu` as far from `run` as from anything.
fn nearest<'n>(typed: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = (typed.chars().count() / 2).clamp(1, 3);
    let scored = known.map(|known| (strsim::osa_distance(typed, known), known));
    let letters = |name: &str| {
        let mut letters: Vec<char> = name.chars().collect();
        letters.sort_unstable();
        letters
    };
    // Of `ps` and `cp`, `sp` is a swap in the one and another letter in the other.
    let best = scored.min_by_key(|(distance, known)| (*distance, letters(known) != letters(typed)))?;
    (best.0 <= allowed).then_some(best.1)
}

/// Puts a name in front of what clap suggests.
fn suggest(error: &mut clap::Error, kind: ContextKind, name: &str) {
    let mut names = match error.get(kind) {
        Some(ContextValue::String(known)) => vec![known.clone()],
        Some(ContextValue::Strings(known)) => known.clone(),
        _ => Vec::new(),
    };
    names.retain(|known| known != name);
    names.insert(0, name.to_owned());
    let value = match &names[..] {
        [one] => ContextValue::String(one.clone()),
        _ => ContextValue::Strings(names),
    };
    error.insert(kind, value);
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn full_name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        let error = parse(line.split(' ')).map(|_| ()).unwrap_err();
        format!(
            "$ {line}\n{}",
            error.render().to_string().replace("\n\nFor more information, try '--help'.", "")
        )
    }

    #[test]
    fn mistakes_at_the_prompt() {
        let lines = [
            "creel rnu",
            "creel image biuld tiny",
            "creel image build tyni",
            "creel run --evnt push",
            "creel run --event psuh",
            "creel run --timeout 10",
            "creel exec k3v9w0x2ma ls",
            "creel exec k3v9w0x2ma",
            "creel rm",
            "creel create tiny",
            "creel create --memory-mib 1G",
            "creel image rm",
            "creel completions csh",
        ];
        insta::assert_snapshot!(lines.map(told).join("\n"));
    }

    #[test]
    fn a_name_far_from_all_is_answered_with_all() {
        let error = told("creel image frobnicate");
        for name in ["ls", "build", "inspect", "rm"] {
            assert!(error.contains(name), "{error}");
        }
    }

    /// Every command, wherever it stands, with two neighbouring letters swapped.
    #[test]
    fn a_swap_of_two_letters_is_understood() {
        fn walk(command: &Command, path: &str) {
            for sub in command.get_subcommands() {
                let name = sub.get_name();
                for at in 1..name.len() {
                    let mut letters: Vec<char> = name.chars().collect();
                    letters.swap(at - 1, at);
                    let typed: String = letters.into_iter().collect();
                    if command.find_subcommand(&typed).is_none() {
                        let told = told(&format!("{path} {typed}"));
                        assert!(told.contains(&format!("'{name}'")), "{told}");
                    }
                }
                walk(sub, &format!("{path} {name}"));
            }
        }
        walk(&Cli::command(), "creel");
    }
}
