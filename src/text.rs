//! Text of others, made fit to be shown.
//!
//! A workflow's author, the guest and QEMU all write text that ends up on somebody's terminal. What a terminal would
//! obey is replaced, and what has no end is cut.

/// The text with every character that a terminal or a reader's eye would obey replaced by U+FFFD: controls (C0, C1) and
/// the bidirectional overrides (Unicode TR 36, section 2.6).
pub fn printable(text: &str) -> String {
    let obeyed = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// One printable line of at most `max_chars` characters, line breaks as spaces.
pub fn one_line(text: &str, max_chars: usize) -> String {
    let flat = text.trim().replace(['\n', '\r', '\t'], " ");
    let mut line = printable(&flat);
    if let Some((end, _)) = line.char_indices().nth(max_chars) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\u{202e}d é"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d é");
    }

    #[test]
    fn a_line_is_one_and_has_an_end() {
        assert_eq!(one_line(" a\nb\x07 ", 10), "a b\u{fffd}");
        assert_eq!(one_line("äöü", 2), "äö…");
    }
}
