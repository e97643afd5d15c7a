use std::process::Command as Process;

use clap::{Command, CommandFactory as _};

use super::*;
use crate::cli::args::Cli;

/// Every command of both programs, as clap has built it. `help` is clap's own.
fn commands() -> Vec<Command> {
    fn walk(command: &Command, found: &mut Vec<Command>) {
        found.push(command.clone());
        command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| walk(sub, found));
    }
    let mut found = Vec::new();
    for mut root in [Cli::command(), crate::daemon::command_line()] {
        root.build();
        walk(&root, &mut found);
    }
    found
}

fn name(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

#[test]
fn every_command_and_argument_is_explained() {
    let mut missing = Vec::new();
    for command in commands() {
        let name = name(&command);
        if command.get_about().is_none() {
            missing.push(format!("{name}: what it does"));
        }
        if !command.has_subcommands() && examples(&command).is_empty() {
            missing.push(format!("{name}: an after_help with a block `Examples:`"));
        }
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let id = argument.get_id();
            if argument.get_help().is_none_or(|help| help.to_string().trim().is_empty()) {
                missing.push(format!("{name} {id}: what it is for"));
            }
            let takes_values = argument.get_num_args().is_some_and(|range| range.takes_values());
            if takes_values && argument.get_value_names().is_none_or(<[_]>::is_empty) {
                missing.push(format!("{name} {id}: the name of its value"));
            }
        }
    }
    assert!(missing.is_empty(), "the help lacks\n{}", missing.join("\n"));
}

#[test]
fn help_fits_a_hundred_columns() {
    for command in commands() {
        let raw = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let rendered = command.clone().term_width(100).render_long_help().to_string();
        for line in raw.lines().chain(rendered.lines()) {
            assert!(line.chars().count() <= 100, "{}: {line}", name(&command));
        }
    }
}

#[test]
fn the_help_of_a_run_and_of_all() {
    let mut root = Cli::command();
    root.build();
    let run = root.find_subcommand("run").unwrap();
    assert!(run.get_after_help().is_some());
    let taught = run.clone().render_help().to_string();
    for part in ["/workspace/repo", "Examples:", "Options of every command:", "--event <EVENT>"] {
        assert!(taught.contains(part), "{part} is not in\n{taught}");
    }
}

#[test]
fn help_is_taken_apart() {
    let help = "What it is\nat length: all of it.\n\nExamples:\n  creel ps -a    all\n                 of them\n  creel ps\n\n\
                Exit codes: 0 as asked,\n2 not.\nEnvironment: A";
    let command = Command::new("x").after_help(help);
    insta::assert_debug_snapshot!(blocks(&command), @r#"
    [
        Prose(
            "What it is at length: all of it.",
        ),
        Lines {
            title: "Examples",
            lines: [
                "creel ps -a    all",
                "               of them",
                "creel ps",
            ],
        },
        Titled {
            title: "Exit codes",
            text: "0 as asked, 2 not.",
        },
        Titled {
            title: "Environment",
            text: "A",
        },
    ]
    "#);
    assert_eq!(examples(&command), ["creel ps -a", "creel ps"]);
}

#[test]
fn there_is_a_page_for_every_command_with_all_that_its_help_says() {
    let pages = pages().unwrap();
    let commands = commands();
    assert_eq!(pages.len(), commands.len());
    for command in commands {
        let name = name(&command).replace(' ', "-");
        let section = if name == "creeld" { 8 } else { 1 };
        let page = pages.iter().find(|page| page.name == format!("{name}.{section}"));
        let page = page.unwrap_or_else(|| panic!("{name} has no page"));
        let text = page.text.replace("\\-", "-");
        assert!(text.contains(&format!(".SH NAME\n{name} - ")), "{text}");
        for flag in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if let Some(long) = flag.get_long() {
                assert!(text.contains(&format!("\\fB--{long}\\fR")), "{}: --{long}", page.name);
            }
        }
        for block in blocks(&command) {
            if let Block::Titled { title, .. } | Block::Lines { title, .. } = block {
                assert!(
                    text.contains(&format!(".SH \"{}\"", title.to_uppercase())),
                    "{}: {title}",
                    page.name
                );
            }
        }
        // What begins with one of these is a command to troff.
        let odd = page.text.lines().find(|line| line.starts_with('\'') || line.starts_with(".\\"));
        assert_eq!(odd, None, "{}", page.name);
    }
}

#[test]
fn a_short_page_in_full() {
    let pages = pages().unwrap();
    let page = pages.iter().find(|page| page.name == "creel-rm.1").unwrap();
    insta::assert_snapshot!(page.text.replace(env!("CARGO_PKG_VERSION"), "<version>"));
}

/// What bash offers for the last of the words.
fn completed(words: &[&str]) -> Vec<String> {
    let script = format!(
        "source /dev/stdin <<'EOF'\n{}EOF\nCOMP_WORDS=({}); COMP_CWORD={}\n\
         _creel creel \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        String::from_utf8(completions::script(completions::Shell::Bash)).unwrap(),
        words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
        words.len() - 1
    );
    // `compopt` wants to be called by readline.
    let output =
        Process::new("bash").args(["-c", &format!("compopt() {{ :; }}\n{script}")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    assert_eq!(completed(&["creel", "ru"]), ["run"]);
    assert_eq!(completed(&["creel", "image", "build", "ti"]), ["tiny"]);
    assert_eq!(completed(&["creel", "run", "--event", "pu"]), ["push", "pull_request"]);
    assert_eq!(completed(&["creel", "run", "--eve"]), ["--event"]);
    assert_eq!(completed(&["creel", "create", "--memory-mib", ""]), [""], "no files for a number");
}

#[test]
fn each_shells_script_knows_every_command() {
    for shell in [completions::Shell::Bash, completions::Shell::Zsh, completions::Shell::Fish] {
        let script = String::from_utf8(completions::script(shell)).unwrap();
        for command in commands().iter().filter(|command| command.get_name() != "creeld") {
            assert!(script.contains(command.get_name()), "{shell:?} does not know {}", name(command));
        }
    }
}
