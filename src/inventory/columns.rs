//! Rows as JSON objects: reading columns one by one, and keeping those of other owners.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::str::FromStr;
use uuid::Uuid;

/// A JSON column, as text with sorted keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Json(String);

impl Json {
    /// The text of `value`.
    pub fn new(value: &Value) -> Self {
        Self(value.to_string())
    }

    /// An object of the entries there are; `None` when there are none.
    pub fn object<'a>(
        entries: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Option<Self> {
        let object: Map<String, Value> = entries
            .into_iter()
            .filter_map(|(key, text)| Some((key.to_owned(), Value::from(text?))))
            .collect();
        (!object.is_empty()).then(|| Self::new(&Value::Object(object)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value; `null` if the text is none, which only a damaged file can bring about.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The value as an object; empty when it is none.
    pub fn entries(&self) -> Map<String, Value> {
        match self.value() {
            Value::Object(entries) => entries,
            _ => Map::new(),
        }
    }
}

/// Columns that belong to other programs, kept word for word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others(Option<Json>);

impl Others {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Takes one column out, if it is there and `read` makes something of it.
    pub(crate) fn take<T>(&mut self, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let mut columns = self.0.as_ref()?.entries();
        let value = read(&columns.remove(name)?)?;
        self.0 = (!columns.is_empty()).then(|| Json::new(&Value::Object(columns)));
        Some(value)
    }

    /// Puts them beside our own; the `expected` ones are there even when nobody wrote them.
    pub(super) fn show(&self, columns: &mut Map<String, Value>, expected: &[&str]) {
        for name in expected {
            columns.entry(*name).or_insert(Value::Null);
        }
        if let Some(json) = &self.0 {
            columns.extend(json.entries());
        }
    }
}

/// Columns as JSON text, in the order in which they come: those of a first load are written once for each row.
pub(super) struct ColumnText(String);

impl ColumnText {
    pub(super) fn new() -> Self {
        Self(String::with_capacity(256))
    }

    /// Adds a column, if there is a value.
    pub(super) fn add(&mut self, name: &str, value: Option<impl Serialize>) {
        let Some(text) = value.and_then(|value| serde_json::to_string(&value).ok()) else {
            return;
        };
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        for part in ["\"", name, "\":", &text] {
            self.0.push_str(part);
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Why an object is not a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {what}")]
pub struct ColumnError {
    column: String,
    what: String,
}

impl ColumnError {
    /// The column it is about.
    pub fn column(&self) -> &str {
        &self.column
    }
}

/// Takes columns out of an object; what is left belongs to others.
pub(super) struct Columns(Map<String, Value>);

impl Columns {
    pub(super) fn of(value: Value) -> Result<Self, ColumnError> {
        match value {
            Value::Object(columns) => Ok(Self(columns)),
            _ => Err(wrong("(row)", "is not an object")),
        }
    }

    /// `None` when the column is absent or null.
    pub(super) fn json(&mut self, column: &str) -> Option<Value> {
        self.0.remove(column).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, column: &str) -> Result<Option<String>, ColumnError> {
        match self.json(column) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(column, "is not text")),
        }
    }

    /// The same for columns of which there are many.
    pub(super) fn short_text(&mut self, column: &str) -> Result<Option<SmolStr>, ColumnError> {
        Ok(self.text(column)?.map(SmolStr::from))
    }

    /// Text that reads itself as a value.
    pub(super) fn parsed<T: FromStr<Err: ToString>>(
        &mut self,
        column: &str,
    ) -> Result<Option<T>, ColumnError> {
        let read = |text: String| {
            text.parse()
                .map_err(|e: T::Err| wrong(column, &e.to_string()))
        };
        self.text(column)?.map(read).transpose()
    }

    /// The same, empty text meaning none.
    pub(super) fn parsed_or_empty<T: FromStr<Err: ToString>>(
        &mut self,
        column: &str,
    ) -> Result<Option<T>, ColumnError> {
        if self.0.get(column).and_then(Value::as_str) == Some("") {
            self.0.remove(column);
        }
        self.parsed(column)
    }

    pub(super) fn id(&mut self, column: &str) -> Result<Uuid, ColumnError> {
        self.parsed(column)?
            .ok_or_else(|| wrong(column, "is missing"))
    }

    /// Zero when absent.
    pub(super) fn integer(&mut self, column: &str) -> Result<i64, ColumnError> {
        match self.json(column) {
            None => Ok(0),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| wrong(column, "is not a 64-bit integer")),
        }
    }

    pub(super) fn needed<T>(column: &str, value: Option<T>) -> Result<T, ColumnError> {
        value.ok_or_else(|| wrong(column, "is missing"))
    }

    /// What nobody took, nulls left out.
    pub(super) fn others(self) -> Others {
        let rest: Map<String, Value> = self.0.into_iter().filter(|(_, v)| !v.is_null()).collect();
        Others((!rest.is_empty()).then(|| Json::new(&Value::Object(rest))))
    }
}

pub(super) fn wrong(column: &str, what: &str) -> ColumnError {
    ColumnError {
        column: column.to_owned(),
        what: what.to_owned(),
    }
}
