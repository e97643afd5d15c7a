//! "Did you mean": the nearest word that is known.

/// Longer words are nobody's typing mistake, and comparing costs the product of the lengths.
const LONGEST_WORD: usize = 40;

/// What other CI systems call things.
const HABITS: &[(&str, &str)] = &[
    ("env", "environment"),
    ("on", "when"),
    ("packages", "dependencies"),
    ("pr", "pull_request"),
    ("run", "command"),
    ("script", "command"),
    ("virtualization", "virtualisation"),
];

/// The word of `known` that `word` was most likely meant to be.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > LONGEST_WORD {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let habit = HABITS.iter().find(|(other, _)| *other == word).map(|(_, ours)| *ours);
    let tolerated = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| match habit {
            Some(ours) if ours == candidate => (0, candidate),
            // A word that was cut short.
            _ if word.len() >= 4 && candidate.starts_with(&word) => (1, candidate),
            _ => (strsim::damerau_levenshtein(&word, candidate), candidate),
        })
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?`, or else all that would have been right.
pub(super) fn hint(guess: Option<&str>, known: &[&str], what: &str) -> String {
    match guess {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => format!("; {what}: `{}`", known.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_and_habits_find_their_word() {
        let keys = ["name", "command", "environment"];
        for (typed, meant) in
            [("comand", "command"), ("Command", "command"), ("run", "command"), ("env", "environment")]
        {
            assert_eq!(nearest(typed, keys), Some(meant), "{typed}");
        }
        assert_eq!(nearest("runs-on", ["runs_on", "steps"]), Some("runs_on"));
    }

    #[test]
    fn an_unlike_word_finds_none() {
        assert_eq!(nearest("timeout", ["name", "command"]), None);
        assert_eq!(nearest(&"command".repeat(10_000), ["command"]), None);
    }
}
