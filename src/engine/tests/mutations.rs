//! The parser and whatever a hostile author sends: an answer, never a panic.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::files::FILES;
use super::input;
use crate::engine::{Manifest, plan};

/// What breaks YAML parsers.
const SPLINTERS: &[&str] = &[
    "\n",
    "\r",
    "\t",
    " ",
    "  ",
    ":",
    ": ",
    "-",
    "- ",
    "?",
    "? ",
    "#",
    " #",
    "&a ",
    "*a",
    "!",
    "!!str ",
    "!x ",
    "|",
    "|2",
    ">",
    "%",
    "@",
    "`",
    "'",
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    "<<: ",
    "---\n",
    "...\n",
    "\0",
    "\u{feff}",
    "\u{85}",
    "é",
    "建",
    "~",
    "null",
    "0x",
    "1_0",
    ".inf",
    "\"\\x",
    "steps:\n",
    "when:\n",
    "%YAML 1.2\n",
    "%TAG ! x\n",
];

/// Parses, and renders or plans what came out.
fn digest(text: &str) {
    match Manifest::parse("fuzz.yml", text) {
        Ok(manifest) => {
            let _ = plan(&manifest, &input());
            let _ = manifest.matches(&input().trigger);
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            for problem in errors.problems() {
                assert!(
                    problem.span.line >= 1 && problem.span.column >= 1 && problem.span.width >= 1,
                    "{problem:?}"
                );
            }
            assert!(errors.render().starts_with("fuzz.yml:"));
        }
    }
}

fn splice(text: &str, at: &Index, removed: usize, inserted: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = at.index(characters.len() + 1);
    let (head, tail) = characters.split_at(at);
    head.iter().copied().chain(inserted.chars()).chain(tail.iter().copied().skip(removed)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        digest(&text);
    }

    #[test]
    fn any_heap_of_splinters_gets_an_answer(parts in prop::collection::vec(select(SPLINTERS), 0..40)) {
        digest(&parts.concat());
    }

    #[test]
    fn any_mutation_of_a_real_file_gets_an_answer(
        file in select(FILES),
        edits in prop::collection::vec((any::<Index>(), 0_usize..6, select(SPLINTERS)), 1..6),
    ) {
        let text = edits.iter().fold(file.1.to_owned(), |text, (at, removed, inserted)| splice(&text, at, *removed, inserted));
        digest(&text);
    }

    #[test]
    fn any_prefix_of_a_real_file_gets_an_answer(file in select(FILES), end in any::<Index>()) {
        let characters: Vec<char> = file.1.chars().collect();
        digest(&characters[..end.index(characters.len() + 1)].iter().collect::<String>());
    }

    #[test]
    fn values_reach_the_manifest_as_they_were_written(value in "[A-Za-z0-9_./+-]{1,20}") {
        let text = format!(
            "engine: microvm\nwhen: [{{event: manual}}]\nsteps: [{{command: x}}]\nenvironment:\n  A: '{value}'\n  B: \"{value}\"\n"
        );
        let manifest = Manifest::parse("file.yml", &text).expect("a manifest");
        for (_, seen) in &manifest.environment {
            prop_assert_eq!(seen, &value);
        }
    }
}
