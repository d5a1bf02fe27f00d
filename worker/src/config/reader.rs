//! Reading a TOML file key by key, with the place of every value.
//!
//! Not serde: it stops at the first problem, and a person who mends a folder wants all of them. Every key that a
//! reader asked for is known; [`Table::finish`] reports the others.

use std::{collections::BTreeMap, fmt::Display, fs, ops::Range, path::Path, str::FromStr};

use serde_json::{Map, Value as Json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problems::{Place, Problems, suggestion};

/// Largest file that is read, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A TOML value with its place in the file, apart from the text.
#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Integer(Option<i64>),
    Float(Option<f64>),
    Boolean(bool),
    Datetime(String),
    List(Vec<(Value, Range<usize>)>),
    Table(BTreeMap<String, Entry>),
}

#[derive(Debug, Clone)]
struct Entry {
    key: Range<usize>,
    span: Range<usize>,
    value: Value,
}

/// A table that is being read.
pub(super) struct Table<'p> {
    pub(super) problems: &'p Problems,
    pub(super) place: Place,
    entries: BTreeMap<String, Entry>,
    known: Vec<String>,
    /// Whether the rest was let pass: nothing more is missed either.
    ignored: bool,
}

/// Reads a text file of the folder. A file that is missing, too large or not UTF-8 is a problem, and `None`.
pub(super) fn read_text(problems: &Problems, folder: &Path, path: &Path) -> Option<String> {
    let full = folder.join(path);
    if fs::metadata(&full).is_ok_and(|metadata| metadata.len() > FILE_BYTES_MAX) {
        problems.file(path, format!("the file is larger than {FILE_BYTES_MAX} bytes"), None);
        return None;
    }
    let bytes = match fs::read(&full) {
        Ok(bytes) => bytes,
        Err(error) => {
            problems.file(path, format!("the file cannot be read: {error}"), None);
            return None;
        }
    };
    String::from_utf8(bytes).map_err(|error| report_not_utf8(problems, path, &error)).ok()
}

fn report_not_utf8(problems: &Problems, path: &Path, error: &std::string::FromUtf8Error) {
    let start = error.utf8_error().valid_up_to();
    let file = problems.add_file(path, &String::from_utf8_lossy(error.as_bytes()));
    let place = Place { file, span: start..start + char::REPLACEMENT_CHARACTER.len_utf8() };
    problems.at(&place, "the file is not UTF-8 text", "not UTF-8", Some("save the file as UTF-8".to_owned()));
}

/// Reads a TOML file of the folder.
pub(super) fn read_table<'p>(problems: &'p Problems, folder: &Path, path: &Path) -> Option<Table<'p>> {
    let text = read_text(problems, folder, path)?;
    let file = problems.add_file(path, &text);
    match DeTable::parse(&text) {
        Ok(table) => {
            let entries = entries_of(table.into_inner());
            Some(Table { problems, place: Place { file, span: 0..0 }, entries, known: Vec::new(), ignored: false })
        }
        Err(error) => {
            let place = Place { file, span: error.span().unwrap_or(0..0) };
            problems.at(&place, "the file is not valid TOML", label_of(&error), None);
            None
        }
    }
}

/// The parser's words, without what it repeats of the text: that may be a secret.
fn label_of(error: &toml::de::Error) -> String {
    error.message().lines().next().unwrap_or_default().split('`').next().unwrap_or_default().trim_end().to_owned()
}

fn entries_of(table: DeTable<'_>) -> BTreeMap<String, Entry> {
    let entry = |(key, value): (Spanned<std::borrow::Cow<'_, str>>, Spanned<DeValue<'_>>)| {
        let (key_span, span) = (key.span(), value.span());
        (key.into_inner().into_owned(), Entry { key: key_span, span, value: value_of(value.into_inner()) })
    };
    table.into_iter().map(entry).collect()
}

fn value_of(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => Value::Float(number.as_str().parse().ok()),
        DeValue::Boolean(flag) => Value::Boolean(flag),
        DeValue::Datetime(time) => Value::Datetime(time.to_string()),
        DeValue::Array(items) => {
            let item = |item: Spanned<DeValue<'_>>| {
                let span = item.span();
                (value_of(item.into_inner()), span)
            };
            Value::List(items.into_iter().map(item).collect())
        }
        DeValue::Table(table) => Value::Table(entries_of(table)),
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }

    fn into_json(self) -> Json {
        match self {
            Self::Text(text) | Self::Datetime(text) => Json::String(text),
            Self::Integer(number) => number.into(),
            Self::Float(number) => number.into(),
            Self::Boolean(flag) => Json::Bool(flag),
            Self::List(items) => Json::Array(items.into_iter().map(|(item, _)| item.into_json()).collect()),
            Self::Table(entries) => Json::Object(json_of(entries)),
        }
    }
}

fn json_of(entries: BTreeMap<String, Entry>) -> Map<String, Json> {
    entries.into_iter().map(|(key, entry)| (key, entry.value.into_json())).collect()
}

impl<'p> Table<'p> {
    fn spot(&self, span: Range<usize>) -> Place {
        Place { file: self.place.file, span }
    }

    fn take(&mut self, key: &str) -> Option<(Value, Place)> {
        self.known.push(key.to_owned());
        let entry = self.entries.remove(key)?;
        let place = self.spot(entry.span);
        Some((entry.value, place))
    }

    fn wrong_type(&self, place: &Place, key: &str, expected: &str, found: &Value) {
        let message = format!("`{key}` must be {expected}, not {}", found.kind());
        self.problems.at(place, message, format!("expected {expected}"), None);
    }

    /// Says that a key is missing.
    pub(super) fn missing(&self, key: &str) {
        if !self.ignored {
            self.problems.at(&self.place, format!("`{key}` is missing"), format!("add `{key} = …`"), None);
        }
    }

    /// Whether the key stands in the table.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Text that may be absent.
    pub(super) fn text(&mut self, key: &str) -> Option<At<String>> {
        match self.take(key)? {
            (Value::Text(value), place) => Some(At { value, place }),
            (other, place) => {
                self.wrong_type(&place, key, "a string", &other);
                None
            }
        }
    }

    /// Text that may be a secret: whatever else stands there is not shown.
    pub(super) fn secret_text(&mut self, key: &str) -> Option<At<String>> {
        if let Some(entry) = self.entries.get(key).filter(|entry| !matches!(entry.value, Value::Text(_))) {
            self.problems.hide(&self.spot(entry.span.clone()));
        }
        self.text(key)
    }

    /// One such text or a list of them.
    pub(super) fn secret_texts(&mut self, key: &str) -> Option<At<Vec<At<String>>>> {
        let list = self.entries.get(key).filter(|entry| matches!(entry.value, Value::List(_)));
        let Some(place) = list.map(|entry| self.spot(entry.span.clone())) else {
            let text = self.secret_text(key)?;
            return Some(At { place: text.place.clone(), value: vec![text] });
        };
        let texts = self.texts(key);
        if texts.is_none() {
            // With one item wrong nobody looks at the others.
            self.problems.hide(&place);
        }
        texts
    }

    /// Lets every other key pass: they cannot be judged.
    pub(super) fn ignore_rest(&mut self) {
        self.entries.clear();
        self.ignored = true;
    }

    /// Text that must be there and not be blank.
    pub(super) fn required_text(&mut self, key: &str) -> Option<At<String>> {
        if !self.has(key) {
            self.known.push(key.to_owned());
            self.missing(key);
            return None;
        }
        let text = self.text(key)?;
        if text.value.trim().is_empty() {
            self.problems.at(&text.place, format!("`{key}` is empty"), "say something here", None);
            return None;
        }
        Some(text)
    }

    /// A name or id that may be absent.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<At<T>> {
        let text = self.text(key)?;
        parse(self.problems, text)
    }

    /// A name or id that must be there.
    pub(super) fn required_parsed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Option<At<T>> {
        let text = self.required_text(key)?;
        parse(self.problems, text)
    }

    /// A boolean that may be absent.
    pub(super) fn flag(&mut self, key: &str) -> Option<At<bool>> {
        match self.take(key)? {
            (Value::Boolean(value), place) => Some(At { value, place }),
            (other, place) => {
                self.wrong_type(&place, key, "`true` or `false`", &other);
                None
            }
        }
    }

    /// A whole number, zero or more, that may be absent.
    pub(super) fn number(&mut self, key: &str) -> Option<At<u64>> {
        match self.take(key)? {
            (Value::Integer(Some(value)), place) if value >= 0 => Some(At { value: value.unsigned_abs(), place }),
            (Value::Integer(_), place) => {
                self.problems.at(&place, format!("`{key}` must be a whole number from 0"), "out of range", None);
                None
            }
            (other, place) => {
                self.wrong_type(&place, key, "an integer", &other);
                None
            }
        }
    }

    /// A whole number in a range, or the default.
    pub(super) fn number_within(&mut self, key: &str, range: std::ops::RangeInclusive<u64>, default: u64) -> u64 {
        let Some(number) = self.number(key) else { return default };
        if !range.contains(&number.value) {
            let bounds = format!("from {} to {}", range.start(), range.end());
            self.problems.at(&number.place, format!("`{key}` must be {bounds}"), bounds, None);
        }
        number.value
    }

    /// A list of texts that may be absent. With one item wrong there is none: half a list would only be reported again.
    pub(super) fn texts(&mut self, key: &str) -> Option<At<Vec<At<String>>>> {
        let (value, place) = self.take(key)?;
        let Value::List(items) = value else {
            self.wrong_type(&place, key, "an array of strings", &value);
            return None;
        };
        let (written, mut texts) = (items.len(), Vec::new());
        for (item, span) in items {
            let spot = self.spot(span);
            if let Value::Text(value) = item {
                texts.push(At { value, place: spot });
            } else {
                self.wrong_type(&spot, key, "an array of strings", &item);
            }
        }
        (texts.len() == written).then_some(At { value: texts, place })
    }

    /// A list of texts that must be there; it may be empty.
    pub(super) fn required_texts(&mut self, key: &str) -> Option<At<Vec<At<String>>>> {
        if !self.has(key) {
            self.known.push(key.to_owned());
            self.missing(key);
            return None;
        }
        self.texts(key)
    }

    /// A table inside that may be absent.
    pub(super) fn table(&mut self, key: &str) -> Option<Table<'p>> {
        let (value, place) = self.take(key)?;
        let Value::Table(entries) = value else {
            self.wrong_type(&place, key, "a table", &value);
            return None;
        };
        Some(Table { problems: self.problems, place, entries, known: Vec::new(), ignored: false })
    }

    /// The tables of an array of tables, `[[key]]`. None if there is none.
    pub(super) fn tables(&mut self, key: &str) -> Vec<Table<'p>> {
        let Some((value, place)) = self.take(key) else { return Vec::new() };
        let Value::List(items) = value else {
            self.wrong_type(&place, key, "an array of tables", &value);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (item, span) in items {
            let place = self.spot(span);
            if let Value::Table(entries) = item {
                tables.push(Table { problems: self.problems, place, entries, known: Vec::new(), ignored: false });
            } else {
                self.wrong_type(&place, key, "an array of tables", &item);
            }
        }
        tables
    }

    /// The names that stand in a table of named things, with their places.
    pub(super) fn names(&mut self) -> Vec<At<String>> {
        let name = |(key, entry): (&String, &Entry)| At { value: key.clone(), place: self.spot(entry.key.clone()) };
        self.entries.iter().map(name).collect()
    }

    /// Each key with its place and, where it is text, its value. For tables whose keys are free.
    pub(super) fn free_texts(mut self) -> Vec<(At<String>, At<String>)> {
        let names = self.names();
        names.into_iter().filter_map(|name| self.text(&name.value).map(|text| (name, text))).collect()
    }

    /// The rest as JSON.
    pub(super) fn into_json(self) -> Map<String, Json> {
        json_of(self.entries)
    }

    /// Reports every key that nothing asked for.
    pub(super) fn finish(self) {
        for (key, entry) in &self.entries {
            let help = suggestion(key, self.known.iter().map(String::as_str));
            let place = self.spot(entry.key.clone());
            self.problems.at(&place, format!("unknown key `{key}`"), "unknown key", Some(help));
        }
    }
}

/// Parses text into a name or id; what it breaks is a problem.
pub(super) fn parse<T: FromStr<Err: Display>>(problems: &Problems, text: At<String>) -> Option<At<T>> {
    match text.value.parse() {
        Ok(value) => Some(At { value, place: text.place }),
        Err(error) => {
            problems.at(&text.place, error.to_string(), "not valid", None);
            None
        }
    }
}
