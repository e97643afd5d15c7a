//! What docs/logs.md shows is what comes.

use std::path::Path;

use super::*;

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md");
    std::fs::read_to_string(page).unwrap()
}

#[test]
fn the_lines_in_the_docs_are_lines_of_a_log() {
    let page = page();
    let lines: Vec<_> = page.lines().filter(|line| line.starts_with('{')).collect();
    assert!(lines.len() > 3);
    for line in lines {
        let read: LogLine = serde_json::from_str(line).unwrap();
        assert_eq!(read.to_json_line().trim_end(), line);
    }
}

#[test]
fn the_table_of_the_docs_says_what_is_masked() {
    let page = page();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix("` |")?.split("` | `").collect();
        <[&str; 3]>::try_from(cells).ok()
    });
    let mut seen = 0;
    for [secret, output, stored] in rows {
        let masked = Mask::new(&[secret]).unwrap().apply(output.as_bytes());
        assert_eq!(String::from_utf8(masked).unwrap(), stored, "{secret} in {output}");
        seen += 1;
    }
    assert_eq!(seen, 7);
}
