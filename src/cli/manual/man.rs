//! Man pages from the command line's definition: clap_mangen's sections, and what the help says below the options.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;

use super::blocks::{Block, blocks};
use crate::cli::args::Cli;
use crate::cli::failure::Failure;
use crate::exit::Exit;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel debug man --output /tmp/man
  man -M /tmp/man creel-run")]
pub struct ManArgs {
    /// The directory to write them to, in its man1 and man8
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

/// A man page.
#[derive(Debug)]
pub struct Page {
    /// Its file: `creel-run.1`.
    pub name: String,
    /// 1 of commands, 8 of daemons.
    pub section: &'static str,
    /// Source for troff with the man macros (man(7)).
    pub text: String,
}

/// Writes all pages: what `make install` and the Debian package call.
pub fn man(arguments: &ManArgs) -> Result<Exit, Failure> {
    let directory = &arguments.output;
    let failed = |error: io::Error| {
        Failure::host(format!("failed to write man pages to `{}`: {error}", directory.display()))
    };
    for page in pages().map_err(Failure::internal)? {
        let section = directory.join(format!("man{}", page.section));
        fs::create_dir_all(&section).map_err(failed)?;
        fs::write(section.join(&page.name), page.text).map_err(failed)?;
    }
    Ok(Exit::Success)
}

/// Those of creel, each subcommand and creeld.
///
/// # Errors
/// Whatever clap_mangen has of a writer that is memory.
pub fn pages() -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    for (command, section) in [(Cli::command(), "1"), (crate::daemon::command_line(), "8")] {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        add(&command, None, section, &mut pages)?;
    }
    Ok(pages)
}

fn add(
    command: &Command,
    parent: Option<&str>,
    section: &'static str,
    pages: &mut Vec<Page>,
) -> io::Result<()> {
    let page = Man::new(command.clone()).section(section);
    let name = page.get_filename();
    let title = name.rsplit_once('.').map_or(name.as_str(), |(title, _)| title).to_owned();

    // clap_mangen leaves an empty date out, and what follows it moves to its place.
    let version = env!("CARGO_PKG_VERSION");
    let header = format!(".TH {} {section} \"\" \"creel {version}\" \"creel\"\n", heading(&title));
    let mut text = header.into_bytes();
    page.render_name_section(&mut text)?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    text.extend_from_slice(format!(".SH SYNOPSIS\n\\&{}\n", escape(usage)).as_bytes());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    text.extend_from_slice(format!(".SH DESCRIPTION\n\\&{}.\n", escape(&about)).as_bytes());
    let blocks = blocks(command);
    let (prose, titled): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| matches!(block, Block::Prose(_)));
    prose.iter().for_each(|block| text.extend_from_slice(below_options(block).as_bytes()));
    page.render_options_section(&mut text)?;
    let shown: Vec<_> = command.get_subcommands().filter(|sub| !sub.is_hide_set()).collect();
    if !shown.is_empty() {
        page.render_subcommands_section(&mut text)?;
    }
    titled.iter().for_each(|block| text.extend_from_slice(below_options(block).as_bytes()));
    text.extend_from_slice(see_also(&title, parent).as_bytes());

    let text = String::from_utf8_lossy(&text);
    pages.push(Page { name, section, text: tidy(&text) });
    for sub in shown {
        add(sub, Some(&title), section, pages)?;
    }
    Ok(())
}

/// A block of the help in troff. A line that is not filled begins with no control character, whatever it shows.
fn below_options(block: &Block) -> String {
    match block {
        Block::Prose(text) => format!(".PP\n\\&{}\n", escape(text)),
        Block::Titled { title, text } => format!(".SH {}\n\\&{}\n", heading(title), escape(text)),
        Block::Lines { title, lines } => {
            let lines: String = lines.iter().map(|line| format!("\\&{}\n", escape(line))).collect();
            format!(".SH {}\n.nf\n{lines}.fi\n", heading(title))
        }
    }
}

fn heading(title: &str) -> String {
    format!("\"{}\"", title.to_uppercase())
}

fn see_also(title: &str, parent: Option<&str>) -> String {
    let pages = match (title, parent) {
        ("creeld", _) => "creel(1)".to_owned(),
        (_, None) => "creeld(8)".to_owned(),
        (_, Some("creel")) => "creel(1), creeld(8)".to_owned(),
        (_, Some(parent)) => format!("{}(1), creel(1), creeld(8)", escape(parent)),
    };
    let files = "/usr/share/doc/creel/configuration.md, /usr/share/doc/creel/operations.md";
    format!(".SH \"SEE ALSO\"\n{pages}\n.PP\n{files}\n")
}

/// What troff would read as something else (groff_man_style(7), "Portability"): a reader copies commands out of the page.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// clap_mangen begins every section with the definition of an apostrophe, and leaves backticks, which troff makes opening
/// quotes of.
fn tidy(text: &str) -> String {
    let mut seen = std::collections::BTreeSet::new();
    let preamble = |line: &str| line.starts_with(".ie \\n(.g") || line.starts_with(".el .ds Aq");
    let lines =
        text.lines().filter(|line| !line.is_empty() && (!preamble(line) || seen.insert((*line).to_owned())));
    lines.map(|line| line.trim_end().replace('`', "\\(ga") + "\n").collect()
}
