//! docs/configuration.md: what stands between two marks is made from the table of keys, the rest is written by hand.

use std::path::{Path, PathBuf};

use creel::config::{Config, Environment, KEYS, Key};

const BEGIN: &str =
    "<!-- From src/config/keys.rs to the next mark: UPDATE_CONFIGURATION_MD=1 cargo test --test docs -->\n";
const END: &str = "<!-- Written by hand from here on. -->\n";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")
}

/// The defaults of a user, by section and key.
fn defaults(euid: u32) -> toml::Table {
    let home = [("HOME".into(), "/home/ada".into())];
    let environment = Environment::of(euid, home);
    Config::load(&environment, Some(Path::new("/dev/null"))).unwrap().render_toml().parse().unwrap()
}

fn default_of(key: &Key) -> String {
    let of = |euid| defaults(euid).get(key.section)?.get(key.name).cloned();
    match (of(0), of(1000)) {
        (None, _) => "not set".to_owned(),
        (Some(root), user) if user.as_ref() != Some(&root) => {
            format!("`{root}` as root, see [places](#places)")
        }
        (Some(root), _) => format!("`{root}`"),
    }
}

/// In a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn tables() -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            text += &format!("\n### [{section}]\n\n| key | variable | default | meaning | value |\n");
            text += "| --- | --- | --- | --- | --- |\n";
        }
        let code = |(at, part): (usize, &str)| match at % 2 {
            0 => cell(part),
            _ => format!("`\"{part}\"`"),
        };
        let expects: String = key.expects.split('"').enumerate().map(code).collect();
        text += &format!(
            "| `{section}.{}` | `{}` | {} | {} | {expects} |\n",
            key.name,
            key.variable(),
            default_of(key),
            cell(key.meaning)
        );
    }
    text + "\n"
}

#[test]
fn the_configuration_page_says_what_the_keys_are() {
    let found = std::fs::read_to_string(page()).unwrap();
    let (head, rest) = found.split_once(BEGIN).expect("the mark before the tables is missing");
    let (_, tail) = rest.split_once(END).expect("the mark after the tables is missing");
    let expected = [head, BEGIN, &tables(), END, tail].concat();
    if std::env::var_os("UPDATE_CONFIGURATION_MD").is_some() {
        std::fs::write(page(), &expected).unwrap();
        return;
    }
    assert_eq!(
        found, expected,
        "docs/configuration.md is behind the code: UPDATE_CONFIGURATION_MD=1 cargo test --test docs"
    );
}
