//! Reads OpenMetrics text as strictly as the specification has it (OpenMetrics 1.0, "Text format"), where scrapers are
//! lenient.

use std::collections::{BTreeMap, BTreeSet};

/// One family: its type, help, and samples by name and labels, as they are written.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub kind: String,
    pub help: String,
    unit: Option<String>,
    pub samples: Vec<Sample>,
}

type Labels = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// All families in order.
///
/// # Panics
/// On any breach of the format.
pub(super) fn parse(text: &str) -> Vec<(String, Family)> {
    let mut families: Vec<(String, Family)> = Vec::new();
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    assert!(!body.contains("# EOF") && !body.contains("\n\n") && !body.contains('\r'));
    for line in body.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let (keyword, rest) = metadata.split_once(' ').unwrap();
            let (name, value) = rest.split_once(' ').unwrap();
            assert_name(name);
            if families.last().is_none_or(|(last, _)| last != name) {
                assert!(!families.iter().any(|(known, _)| known == name), "{name} comes in two places");
                families.push((name.to_owned(), Family::default()));
            }
            let (_, family) = families.last_mut().unwrap();
            assert!(family.samples.is_empty(), "metadata behind samples: {line}");
            let slot = match keyword {
                "TYPE" => &mut family.kind,
                "HELP" => &mut family.help,
                "UNIT" => family.unit.get_or_insert_default(),
                _ => panic!("{line}"),
            };
            assert!(slot.is_empty() && !value.is_empty(), "{line}");
            value.clone_into(slot);
        } else {
            let (name, family) = families.last_mut().expect("a sample has a family");
            let sample = sample(line);
            let suffix =
                sample.name.strip_prefix(name.as_str()).unwrap_or_else(|| panic!("{line} in {name}"));
            let allowed: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                kind => panic!("{name} is a {kind:?}"),
            };
            assert!(allowed.contains(&suffix), "{line} in a {}", family.kind);
            assert!(family.kind == "gauge" || sample.value >= 0.0, "{line}");
            family.samples.push(sample);
        }
    }
    for (name, family) in &families {
        check(name, family);
    }
    families
}

fn check(name: &str, family: &Family) {
    assert!(!family.kind.is_empty() && family.help.ends_with('.'), "{name}: {family:?}");
    if let Some(unit) = &family.unit {
        assert!(name.ends_with(&format!("_{unit}")), "{name} is in {unit}");
    }
    let mut seen = BTreeSet::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        labels.sort();
        assert!(labels.windows(2).all(|pair| pair[0].0 != pair[1].0), "{sample:?}");
        assert!(seen.insert((sample.name.clone(), labels)), "{sample:?} comes twice");
    }
    if family.kind == "histogram" {
        check_histogram(name, family);
    }
}

/// Buckets rise, and the last is the count.
fn check_histogram(name: &str, family: &Family) {
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in family.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let (le, others): (Vec<_>, Vec<_>) =
            sample.labels.iter().cloned().partition(|(name, _)| name == "le");
        let [(_, le)] = &le[..] else { panic!("{sample:?}") };
        buckets.entry(others).or_default().push((number(le), sample.value));
    }
    let counts = family.samples.iter().filter(|sample| sample.name == format!("{name}_count"));
    assert_eq!(counts.clone().count(), buckets.len(), "{name}");
    for count in counts {
        let buckets = &buckets[&count.labels];
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{count:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count.value)), "{count:?}");
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (series, ""),
    };
    assert_name(name);
    Sample { name: name.to_owned(), labels: read_labels(labels), value: number(value) }
}

fn read_labels(mut text: &str) -> Labels {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        assert_name(name);
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{text} is not closed")) {
                (at, '"') => break at,
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    other => panic!("{text}: {other:?} is no escape"),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        _ => text.parse().unwrap_or_else(|_| panic!("{text} is no number")),
    }
}

fn assert_name(name: &str) {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    assert!(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(valid), "{name:?}");
}
