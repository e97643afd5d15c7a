use super::*;
use proptest::prelude::*;

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).expect("a pattern").matches(text)
}

#[test]
fn one_star_stops_at_a_slash_and_two_do_not() {
    assert!(matches("release/*", "release/1.0"));
    assert!(!matches("release/*", "release/1/0"));
    assert!(matches("release/**", "release/1/0"));
    assert!(!matches("*", "feature/x"));
    assert!(matches("**", "feature/x"));
    assert!(matches("blog/**", "blog/posts/a.md"));
    assert!(!matches("blog/**", "cmd/blog/main.go"));
    assert!(matches("**/*.rs", "src/a/b.rs"));
    assert!(matches("**/*.rs", "b.rs"));
}

#[test]
fn patterns_are_anchored_and_case_counts() {
    assert!(matches("v*", "v1.2.3"));
    assert!(!matches("v*", "preview"));
    assert!(!matches("main", "Main"));
    assert!(!matches("main", "main2"));
    assert!(matches("Cargo.lock", "Cargo.lock"));
    assert!(!matches("Cargo.lock", "sub/Cargo.lock"));
    assert!(matches("{main,next}", "next"));
    assert!(matches("v[0-9].?", "v1.x"));
}

#[test]
fn what_is_no_pattern_is_refused() {
    for bad in ["", "[", "a{b", "[z-a]", &"x".repeat(LONGEST_PATTERN + 1)] {
        assert!(Pattern::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_below_a_folder_is_the_folder_too() {
    assert!(matches("blog/**", "blog"));
    assert!(matches("blog/**/**", "blog"));
    assert!(!matches("blog/**", "blogs"));
    assert!(!matches("blog/*", "blog"));
}

#[test]
fn two_stars_within_a_part_are_one() {
    assert!(matches("release-**", "release-1.0"));
    assert!(!matches("release-**", "release-1/0"));
}

#[test]
fn an_alternative_may_be_empty() {
    assert!(matches("v1{,.*}", "v1") && matches("v1{,.*}", "v1.2"));
}

/// What the documentation says, part by part.
fn model(pattern: &[&str], text: &[&str]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (["**", rest @ ..], _) => model(rest, text) || (!text.is_empty() && model(pattern, &text[1..])),
        ([part, rest @ ..], [name, names @ ..]) => model_part(part, name) && model(rest, names),
        _ => false,
    }
}

/// The same within a part, where `*` and `?` are all there is.
fn model_part(pattern: &str, name: &str) -> bool {
    let mut characters = pattern.chars();
    match characters.next() {
        None => name.is_empty(),
        Some('*') => (0..=name.len()).any(|at| model_part(characters.as_str(), &name[at..])),
        Some(wanted) => name.chars().next().is_some_and(|found| {
            (wanted == '?' || wanted == found) && model_part(characters.as_str(), &name[1..])
        }),
    }
}

proptest! {
    #[test]
    fn any_text_is_compiled_or_refused_without_a_panic(source in "[-*?{}\\[\\],!a/.\\\\]{0,40}", text in "[a/.]{0,12}") {
        if let Ok(pattern) = Pattern::new(&source) {
            let _ = pattern.matches(&text);
        }
    }

    #[test]
    fn a_pattern_matches_what_the_model_says(
        pattern in prop::collection::vec(prop_oneof!["[ab][ab.]{0,2}", "[ab*?]{1,4}", Just("**".to_owned())], 1..5),
        text in prop::collection::vec("[ab][ab.]{0,2}", 1..5),
    ) {
        let (pattern, text) = (pattern.join("/"), text.join("/"));
        let (parts, names): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), text.split('/').collect());
        prop_assert_eq!(matches(&pattern, &text), model(&parts, &names), "{} {}", pattern, text);
    }

    #[test]
    fn a_pattern_matches_what_it_was_made_from(
        text in prop::collection::vec("[ab][ab.]{0,3}", 1..6), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
    ) {
        let (from, to) = (from.index(text.len()), to.index(text.len()));
        let (from, to) = (from.min(to), from.max(to));
        let mut pattern = text.clone();
        pattern.splice(from..=to, ["**".to_owned()]);
        prop_assert!(matches(&pattern.join("/"), &text.join("/")));
        let starred: Vec<_> = text.iter().map(|part| format!("{}*", &part[..1])).collect();
        prop_assert!(matches(&starred.join("/"), &text.join("/")));
    }

    #[test]
    fn a_plain_name_matches_itself_alone(name in "[a-z][a-z0-9./-]{0,20}", other in "[a-z][a-z0-9./-]{0,20}") {
        prop_assert!(matches(&name, &name));
        prop_assert_eq!(matches(&name, &other), name == other);
    }
}
