//! Takes typed fields out of a JSON object and notes what is wrong, so that one pass finds every problem.

use serde_json::{Map, Value};

use super::Problem;

/// One JSON object being taken apart. `null` counts as absent, as in Go's decoder.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// `volumes[0].`, or nothing at the top.
    prefix: String,
    known: Vec<&'static str>,
}

/// What a pass over the file has found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Findings {
    pub(super) fn problem(&mut self, field: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { field: field.to_owned(), what: what.into(), remedy: remedy.into() });
    }
}

impl<'a> Fields<'a> {
    pub(super) fn new(object: &'a Map<String, Value>, prefix: String) -> Self {
        Self { object, prefix, known: Vec::new() }
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn wrong_type(&self, findings: &mut Findings, name: &str, found: &Value, wanted: &str) {
        findings.problem(&self.path(name), format!("is {}", kind_of(found)), format!("make it {wanted}"));
    }

    /// A string, empty when absent.
    pub(super) fn string(&mut self, findings: &mut Findings, name: &'static str) -> String {
        match self.take(name) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => {
                self.wrong_type(findings, name, other, "a string");
                String::new()
            }
        }
    }

    /// A string that has to be there; `example` shows the reader what belongs here.
    pub(super) fn required(&mut self, findings: &mut Findings, name: &'static str, example: &str) -> String {
        let before = findings.problems.len();
        let text = self.string(findings, name);
        if text.is_empty() && findings.problems.len() == before {
            findings.problem(&self.path(name), "is missing", format!("set it, for example to {example}"));
        }
        text
    }

    pub(super) fn boolean(&mut self, findings: &mut Findings, name: &'static str) -> bool {
        match self.take(name) {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.wrong_type(findings, name, other, "true or false");
                false
            }
        }
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&mut self, findings: &mut Findings, name: &'static str, most: u64) -> u64 {
        let remedy = format!("set it to a whole number from 1 to {most}");
        match self.take(name) {
            None => findings.problem(&self.path(name), "is missing", remedy),
            Some(Value::Number(number)) => match number.as_u64() {
                Some(value) if (1..=most).contains(&value) => return value,
                _ => findings.problem(&self.path(name), format!("is {number}"), remedy),
            },
            Some(other) => findings.problem(&self.path(name), format!("is {}", kind_of(other)), remedy),
        }
        1
    }

    pub(super) fn object(
        &mut self,
        findings: &mut Findings,
        name: &'static str,
    ) -> Option<&'a Map<String, Value>> {
        match self.take(name)? {
            Value::Object(object) => Some(object),
            other => {
                self.wrong_type(findings, name, other, "an object");
                None
            }
        }
    }

    /// The objects of a list, each with the prefix its fields are reported under.
    pub(super) fn objects(&mut self, findings: &mut Findings, name: &'static str) -> Vec<Fields<'a>> {
        let mut found = Vec::new();
        for (index, value) in self.list(findings, name).iter().enumerate() {
            let path = format!("{}[{index}]", self.path(name));
            match value {
                Value::Object(object) => found.push(Fields::new(object, format!("{path}."))),
                other => findings.problem(&path, format!("is {}", kind_of(other)), "make it an object"),
            }
        }
        found
    }

    pub(super) fn strings(&mut self, findings: &mut Findings, name: &'static str) -> Vec<String> {
        let mut found = Vec::new();
        for (index, value) in self.list(findings, name).iter().enumerate() {
            match value {
                Value::String(text) => found.push(text.clone()),
                other => findings.problem(
                    &format!("{}[{index}]", self.path(name)),
                    format!("is {}", kind_of(other)),
                    "make it a string",
                ),
            }
        }
        found
    }

    fn list(&mut self, findings: &mut Findings, name: &'static str) -> &'a [Value] {
        match self.take(name) {
            None => &[],
            Some(Value::Array(values)) => values,
            Some(other) => {
                self.wrong_type(findings, name, other, "a list");
                &[]
            }
        }
    }

    /// Warns about every field nobody asked for.
    pub(super) fn finish(self, findings: &mut Findings) {
        for name in self.object.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let path = self.path(name);
            let near = self.known.iter().find(|known| strsim::damerau_levenshtein(known, name) <= 2);
            findings.warnings.push(match near {
                Some(near) => format!("unknown field `{path}` is ignored; did you mean `{near}`?"),
                None => format!("unknown field `{path}` is ignored"),
            });
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
