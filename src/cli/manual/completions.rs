//! `creel completions`: what a shell completes after `creel`.
//!
//! The scripts are static. clap_complete's dynamic engine would know the names of images and machines, but asks for its
//! scripts to be made anew at each start of a shell, since their protocol with the program may change with any release;
//! a package installs files.

use clap::builder::ValueHint;
use clap::{Args, CommandFactory as _, ValueEnum};

use crate::cli::args::Cli;
use crate::cli::failure::Failure;
use crate::exit::Exit;

/// Of the command itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel completions bash >~/.local/share/bash-completion/completions/creel
  creel completions zsh >~/.zfunc/_creel     with ~/.zfunc in $fpath, before compinit
  creel completions fish >~/.config/fish/completions/creel.fish
  source <(creel completions bash)           for this shell alone

The Debian package and `make install` have put them in place already.")]
pub struct CompletionsArgs {
    /// The shell that reads the script
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// The shells that Debian has directories of completions for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn completions(arguments: &CompletionsArgs) -> Result<Exit, Failure> {
    print!("{}", String::from_utf8_lossy(&script(arguments.shell)));
    Ok(Exit::Success)
}

pub(super) fn script(shell: Shell) -> Vec<u8> {
    let mut command = hinted(Cli::command());
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "creel", &mut script);
    script
}

/// Says of every argument, by the name of its value, which files it may be: without that, shells offer files for numbers.
fn hinted(command: clap::Command) -> clap::Command {
    let hint = |arg: clap::Arg| {
        let takes_value = arg.get_action().takes_values();
        let name = arg.get_value_names().and_then(|names| names.first()).filter(|_| takes_value);
        let name = name.map(ToString::to_string);
        match name.as_deref() {
            Some("FILE") => arg.value_hint(ValueHint::FilePath),
            Some("DIR") => arg.value_hint(ValueHint::DirPath),
            Some("PATH") => arg.value_hint(ValueHint::AnyPath),
            Some(_) if !arg.is_last_set() && !arg.is_trailing_var_arg_set() => {
                arg.value_hint(ValueHint::Other)
            }
            _ => arg,
        }
    };
    command.mut_args(hint).mut_subcommands(hinted)
}
