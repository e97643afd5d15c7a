//! What a step is called when its author gave no name, or one that a line can't hold.

use crate::text::printable;

/// Characters of a command that become its name.
const DERIVED_CHARACTERS: usize = 60;

/// Characters of a given name that are kept: it stands in lists and tables.
const GIVEN_CHARACTERS: usize = 200;

/// A given name, as one printable line; `None` if nothing is left of it.
pub(super) fn given(name: &str) -> Option<String> {
    let words: Vec<_> = name.split_whitespace().collect();
    let line = cut(printable(&words.join(" ")), GIVEN_CHARACTERS);
    (!line.is_empty()).then_some(line)
}

fn cut(line: String, characters: usize) -> String {
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

/// The first line of a command that says something, shortened.
pub(super) fn derived(command: &str) -> String {
    let says_something = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let mut lines = command.lines().map(str::trim);
    let line = lines
        .clone()
        .find(says_something)
        .or_else(|| lines.find(|line| !line.is_empty()))
        .unwrap_or_default();
    cut(printable(line), DERIVED_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_line_that_says_something() {
        assert_eq!(derived("\n# build it\n  make all\nmake test"), "make all");
        assert_eq!(derived("# nothing but this"), "# nothing but this");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let name = derived(&"é".repeat(100));
        assert_eq!(name, format!("{}…", "é".repeat(60)));
        assert_eq!(given(&"é".repeat(1000)), Some(format!("{}…", "é".repeat(200))));
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(given(" two\nlines\t\u{1b}[2J "), Some("two lines \u{fffd}[2J".to_owned()));
        assert_eq!(given(" \n "), None);
    }
}
