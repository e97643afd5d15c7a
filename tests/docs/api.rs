//! The `.proto` files of the API are its documentation: all that they declare says what it is.

use std::path::Path;

const DIRECTORY: &str = "proto/proto/creel/v1";

/// Whether code declares a service, a call, a message, an enum, a choice, a field or a value.
fn declares(code: &str) -> bool {
    let keyword = code.split_whitespace().next().unwrap_or_default();
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    matches!(keyword, "service" | "rpc" | "message" | "enum" | "oneof")
        || code.split_once(" = ").is_some_and(|(_, number)| is_number(number))
}

/// How much a text declares, and the lines that do so without a comment above them or behind.
fn declared(text: &str) -> (usize, Vec<usize>) {
    let (mut count, mut silent) = (0, Vec::new());
    let mut said = false;
    for (index, line) in text.lines().enumerate() {
        let (code, comment) = line.split_once("//").unwrap_or((line, ""));
        let says = !comment.trim().is_empty();
        if declares(code) {
            count += 1;
            if !said && !says {
                silent.push(index + 1);
            }
        }
        said = says && code.trim().is_empty();
    }
    (count, silent)
}

#[test]
fn every_field_of_the_api_says_what_it_is() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIRECTORY);
    let (mut seen, mut silent) = (0, Vec::new());
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().display();
        let (count, lines) = declared(&std::fs::read_to_string(&path).unwrap());
        seen += count;
        silent.extend(lines.iter().map(|line| format!("{DIRECTORY}/{name}:{line}")));
    }
    assert!(seen > 400, "the API declares {seen} things");
    assert!(silent.is_empty(), "no comment says what is declared at\n{}", silent.join("\n"));
}

#[test]
fn what_has_no_comment_is_found() {
    let text = "// Of the file.\nsyntax = \"proto3\";\n\n// One.\n\nmessage M {\n  //\n  string a = 1;\n  // Is said.\n  \
                int32 b = 2;\n  oneof c {\n    M d = 3; // Is said.\n  }\n}\nenum E { // Is said.\n  X = 0;\n}\n";
    assert_eq!(declared(text), (7, vec![6, 8, 11, 16]));
}
