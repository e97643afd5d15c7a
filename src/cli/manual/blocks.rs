//! The text below the options of `--help`, taken apart.
//!
//! It consists of blocks with an empty line between them:
//!
//! ```text
//! What the command does, at more length than in the list of commands.
//!
//! Examples:
//!   creel ps -a             also the last ones that have ended
//!
//! Exit codes: 0 ended as asked, 2 bad usage.
//! Environment: CREEL_LOG filters the log.
//! ```

/// A block of help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Prose without a title.
    Prose(String),
    /// A title and what follows it on the line and below.
    Titled { title: String, text: String },
    /// A title and indented lines, to be left as they are but for the indentation.
    Lines { title: String, lines: Vec<String> },
}

/// The blocks of a command's help, in order.
pub fn blocks(command: &clap::Command) -> Vec<Block> {
    let help = command.get_after_long_help().or_else(|| command.get_after_help());
    let text = help.map(ToString::to_string).unwrap_or_default();
    let mut blocks = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut lines = paragraph.lines().filter(|line| !line.trim().is_empty()).peekable();
        while let Some(line) = lines.next() {
            let mut indented = Vec::new();
            while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
                indented.push(line[2..].to_owned());
            }
            blocks.push(match title(line) {
                Some((title, "")) if !indented.is_empty() => Block::Lines { title, lines: indented },
                Some((title, rest)) => {
                    let mut text = rest.to_owned();
                    while let Some(more) = lines.next_if(|line| self::title(line).is_none()) {
                        text = format!("{text} {}", more.trim());
                    }
                    Block::Titled { title, text }
                }
                None => {
                    let mut text = line.to_owned();
                    while let Some(more) = lines.next_if(|line| self::title(line).is_none()) {
                        text = format!("{text} {}", more.trim());
                    }
                    Block::Prose(text)
                }
            });
        }
    }
    blocks
}

/// The commands that a command's help shows, without what is said about each.
pub fn examples(command: &clap::Command) -> Vec<String> {
    let of_examples = |block| match block {
        Block::Lines { title, lines } if title == "Examples" => Some(lines),
        _ => None,
    };
    let lines = blocks(command).into_iter().filter_map(of_examples).flatten();
    // What is indented further goes on about the line above it.
    lines.filter(|line| !line.starts_with(' ')).map(|line| example(&line)).collect()
}

/// `creel ps -a    with the ended ones`: two spaces end the command.
fn example(line: &str) -> String {
    line.split("  ").next().unwrap_or_default().trim_end().to_owned()
}

/// One or two words with a capital and a colon, at the start of a line.
fn title(line: &str) -> Option<(String, &str)> {
    let (title, rest) = line.split_once(':')?;
    let capital = title.chars().next().is_some_and(char::is_uppercase);
    let short = title.split(' ').count() <= 2 && title.chars().all(|c| c.is_alphabetic() || c == ' ');
    (capital && short && (rest.is_empty() || rest.starts_with(' ')))
        .then(|| (title.to_owned(), rest.trim_start()))
}
