use serde_json::json;

use super::*;

fn tree(text: &str) -> Node {
    let loaded = load(text, &Limits::default());
    assert_eq!(loaded.problems, []);
    loaded.root.expect("a document")
}

fn problem(text: &str) -> String {
    let loaded = load(text, &Limits::default());
    assert!(loaded.root.is_none(), "{:?}", loaded.root);
    loaded.problems.first().expect("a problem").message.clone()
}

#[test]
fn every_value_knows_its_place() {
    let root = tree("a: one\nbé:\n  - x\n  -   'y z'\n");
    let Tree::Map(entries) = &root.tree else { panic!("a map") };
    assert_eq!(entries[1].key.span, Span { line: 2, column: 1, width: 2 });
    let Tree::List(items) = &entries[1].value.tree else { panic!("a list") };
    assert_eq!(items[1].span, Span { line: 4, column: 7, width: 5 });
}

#[test]
fn a_byte_order_mark_moves_nothing() {
    assert_eq!(tree("\u{feff}a: b").get("a").expect("a").span, Span { line: 1, column: 4, width: 1 });
}

#[test]
fn plain_scalars_are_read_as_upstream_reads_them() {
    let json = to_json(&tree(
        "null: [~, null, '', 'null']\nbool: [true, FALSE, yes, 'true']\nint: [1, -7, +7, 0x1F, 0o17, 0b101, 0777, 1_000, \
         18446744073709551615]\nfloat: [1.5, .5, 1e3, -1., 08]\ntext: [1.2.3, 0x, '1', 1e, nan, 2024-01-02, '0x1', 1-2]\n",
    ));
    let expected = json!({
        "null": [null, null, "", "null"],
        "bool": [true, false, "yes", "true"],
        "int": [1, -7, 7, 31, 15, 5, 511, 1000, 18_446_744_073_709_551_615_u64],
        "float": [1.5, 0.5, 1000.0, -1.0, 8.0],
        "text": ["1.2.3", "0x", "1", "1e", "nan", "2024-01-02", "0x1", "1-2"],
    });
    assert_eq!(json, Ok(expected));
}

#[test]
fn blocks_and_tags_are_text() {
    let root = tree("a: |\n  1\nb: !!str 1\nc: >-\n  x\n  y\n");
    assert_eq!(to_json(&root), Ok(json!({"a": "1\n", "b": "1", "c": "x y"})));
}

#[test]
fn what_json_cannot_say_is_refused_with_its_place() {
    let error = to_json(&tree("a:\n  b: .nan\n")).expect_err("no JSON");
    assert_eq!((error.text.as_str(), error.span.line), (".nan", 2));
}

#[test]
fn an_alias_is_a_copy_at_its_own_place() {
    let root = tree("a: &e {x: 1}\nb: *e\n");
    let copy = root.get("b").expect("b");
    assert_eq!(to_json(copy), Ok(json!({"x": 1})));
    assert_eq!(copy.span.line, 2);
}

#[test]
fn a_billion_laughs_end_early() {
    let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..20 {
        let copies = vec![format!("*a{}", n - 1); 9].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{copies}]\n"));
    }
    assert!(problem(&text).contains("more than 20000 values"));
}

#[test]
fn long_texts_cannot_be_multiplied() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 100].join(", "));
    assert!(problem(&text).contains("more than 4194304 bytes of text"));
}

#[test]
fn aliases_cannot_dig_deeper_than_the_limit() {
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    assert!(load(&format!("a: {deep}\n"), &Limits::default()).problems.is_empty());
    let text = format!("a: &a {deep}\nb: {}*a{}\n", "[".repeat(40), "]".repeat(40));
    assert!(problem(&text).contains("more than 64 levels"));
    assert!(problem(&"[".repeat(100)).contains("more than 64 levels"));
}

#[test]
fn a_huge_file_is_not_read() {
    assert!(problem(&"a".repeat((1 << 20) + 1)).contains("1048576 is the limit"));
}

#[test]
fn keys_stay_unique_and_the_first_counts() {
    let loaded = load("a: 1\nb: 2\na: 3\n", &Limits::default());
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(
        loaded.problems[0].message,
        "duplicate key `a`, which is already set on line 1; remove one of the two"
    );
    assert_eq!(to_json(&loaded.root.expect("a map")), Ok(json!({"a": 1, "b": 2})));
}

#[test]
fn a_quoted_merge_sign_is_a_key() {
    assert_eq!(to_json(&tree("'<<': 1\n")), Ok(json!({"<<": 1})));
}

#[test]
fn a_nul_does_not_end_the_file_unseen() {
    for text in ["a: b\n\0c: d\n", "a: |\n  x\0y\n", "# x\0\na: b\n", "\0a: b\n"] {
        assert!(problem(text).contains("this character may not stand in a YAML file"), "{text:?}");
    }
}

#[test]
fn a_tab_is_named_as_what_it_is() {
    for text in ["a:\n\t- b\n", "a:\n\tb: c\n", "a: |\n\tb\n"] {
        assert!(problem(text).contains("a tab is used as indentation"), "{text:?}: {}", problem(text));
    }
}
