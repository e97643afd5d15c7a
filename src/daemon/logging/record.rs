//! One event with the fields of the spans around it: what every form of the log is written from.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What a field may have, so that an entry stays small whatever somebody calls his workflow.
const MAX_VALUE_BYTES: usize = 4 << 10;

/// A guest's console is the longest that is ever said.
const MAX_MESSAGE_BYTES: usize = 32 << 10;

const MESSAGE: &str = "message";

/// Fields in the order in which they were given; no name twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields(pub Vec<(&'static str, Value)>);

impl Fields {
    fn put(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }
}

/// One event.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub time: Timestamp,
    pub metadata: &'a Metadata<'a>,
    /// The outermost first.
    pub spans: Vec<(&'static str, Fields)>,
    pub message: String,
    pub fields: Fields,
}

impl Record<'_> {
    /// The fields of spans and event as one list. Of two that have one name, the inner one counts.
    pub(super) fn all_fields(&self) -> Fields {
        let mut all = Fields::default();
        for fields in self.spans.iter().map(|(_, fields)| fields).chain([&self.fields]) {
            for (name, value) in &fields.0 {
                all.put(name, value.clone());
            }
        }
        all
    }
}

/// Takes records somewhere. Must not log.
pub(super) trait Output: Send + Sync + 'static {
    fn write(&self, record: &Record<'_>);
}

impl Output for Box<dyn Output> {
    fn write(&self, record: &Record<'_>) {
        (**self).write(record);
    }
}

/// Makes records of events.
#[derive(Debug)]
pub(super) struct Recorder<O> {
    output: O,
}

impl<O: Output> Recorder<O> {
    pub(super) fn new(output: O) -> Self {
        Self { output }
    }
}

impl<S, O> Layer<S> for Recorder<O>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    O: Output,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut Reader { message: None, fields: &mut fields });
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Values<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(&mut Reader { message: None, fields });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let (mut message, mut fields) = (String::new(), Fields::default());
        event.record(&mut Reader { message: Some(&mut message), fields: &mut fields });
        let mut spans = Vec::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            spans.push((span.name(), span.extensions().get::<Fields>().cloned().unwrap_or_default()));
        }
        let (time, metadata) = (Timestamp::now(), event.metadata());
        self.output.write(&Record { time, metadata, spans, message, fields });
    }
}

/// Reads fields. A span has no message: one of that name is a field as any other.
struct Reader<'a> {
    message: Option<&'a mut String>,
    fields: &'a mut Fields,
}

impl Reader<'_> {
    fn put_text(&mut self, field: &Field, text: String) {
        match &mut self.message {
            Some(message) if field.name() == MESSAGE => **message = cut(text, MAX_MESSAGE_BYTES),
            _ => self.fields.put(field.name(), cut(text, MAX_VALUE_BYTES).into()),
        }
    }
}

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.put(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.put(field.name(), value.into());
    }
}

fn cut(mut text: String, max_bytes: usize) -> String {
    const MARK: char = '…';
    if text.len() > max_bytes {
        let end = max_bytes - MARK.len_utf8();
        text.truncate((0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default());
        text.push(MARK);
    }
    text
}
