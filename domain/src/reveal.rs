//! What of a value may be shown: each field has a data class, and a field whose class is not revealed is replaced.
//!
//! Everything here fails closed. A field without a label is [`DataClass::unclassified`]; a value nested too deep is
//! withheld whatever is revealed; text that cannot be read field by field is shown as a whole or not at all.
//!
//! A key of an object tells which field it is, and stays. It is data itself only where a label says `*` of an object
//! and no label names the key, as in `{"ana@acme.example": 3}` with the label `/*`: such a key has the class of its
//! value and is replaced like it. To label all fields of an object with fixed keys, label the object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{DataClass, FieldPath};

#[cfg(test)]
mod tests;
mod transcript;

pub use transcript::transcript;

/// How what stands in place of something begins.
const WITHHELD: &str = "[withheld: ";
/// Deepest nesting that is shown. What is parsed from text is never deeper.
const DEPTH_MAX: usize = 128;

/// The classes of the fields of a value. A label covers everything below it, and the most specific one wins: the longer
/// path, then the one that has a name where the other has `*`, from the root on.
pub type FieldClasses = BTreeMap<FieldPath, DataClass>;

/// A value of which only the revealed classes are shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Masked {
    /// The value, with `[withheld: contact]` for what is not shown.
    pub value: Value,
    /// Classes of which something is shown.
    pub shown: BTreeSet<DataClass>,
    /// Classes of which something is withheld.
    pub withheld: BTreeSet<DataClass>,
}

/// A text of which only the revealed classes are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedText {
    /// The text as it was if nothing is withheld; else compact JSON, or `[withheld: contact]`.
    pub text: String,
    /// Classes of which something is shown.
    pub shown: BTreeSet<DataClass>,
    /// Classes of which something is withheld.
    pub withheld: BTreeSet<DataClass>,
}

/// The classes of the fields that are there. An empty object or array is a field like any other, since it says that
/// there is nothing.
#[must_use]
pub fn classes_in(value: &Value, labels: &FieldClasses) -> BTreeSet<DataClass> {
    mask(value, labels, &BTreeSet::new()).withheld
}

/// Replaces each field whose class is not revealed. An object or array under a label that is not revealed is replaced
/// as a whole if nothing inside is shown.
#[must_use]
pub fn mask(value: &Value, labels: &FieldClasses, revealed: &BTreeSet<DataClass>) -> Masked {
    let labels = Label::sorted(labels);
    let mut masking = Masking { revealed, shown: BTreeSet::new(), withheld: BTreeSet::new() };
    let value = masking.field(value, &Scope::root(&labels)).value;
    Masked { value, shown: masking.shown, withheld: masking.withheld }
}

/// Masks what a tool answered: its structured content, or text that is a JSON object or array, field by field; other
/// text as a whole, by the label of the root.
///
/// Text beside structured content is shown only if it is the same value, or all of it may be shown. Text that looks
/// like JSON and cannot be taken as such (cut off, nested too deep, a key that occurs twice) may hold any labelled
/// field, so it is shown only if all of them are revealed.
#[must_use]
pub fn mask_text(
    text: &str,
    structured: Option<&Value>,
    labels: &FieldClasses,
    revealed: &BTreeSet<DataClass>,
) -> MaskedText {
    let written = parse(text);
    let fields = structured.or(written.as_ref().filter(|value| value.is_object() || value.is_array()));
    let Some(fields) = fields else { return mask_whole(text, labels, revealed) };
    let mut masked = mask(fields, labels, revealed);
    let beside = if written.as_ref() == Some(fields) { BTreeSet::new() } else { classes_of_text(text, labels) };
    masked.withheld.extend(beside.difference(revealed).cloned());
    let text = if masked.withheld.is_empty() {
        masked.shown.extend(beside);
        text.to_owned()
    } else {
        masked.value.as_str().map_or_else(|| masked.value.to_string(), str::to_owned)
    };
    MaskedText { text, shown: masked.shown, withheld: masked.withheld }
}

fn mask_whole(text: &str, labels: &FieldClasses, revealed: &BTreeSet<DataClass>) -> MaskedText {
    let classes = classes_of_text(text, labels);
    let closed: Vec<&str> = classes.difference(revealed).map(DataClass::as_str).collect();
    if closed.is_empty() {
        return MaskedText { text: text.to_owned(), shown: classes, withheld: BTreeSet::new() };
    }
    MaskedText { text: placeholder(&closed.join(", ")), shown: BTreeSet::new(), withheld: classes }
}

/// The classes that text may hold whose fields are not known.
fn classes_of_text(text: &str, labels: &FieldClasses) -> BTreeSet<DataClass> {
    let root = labels.iter().find(|(path, _)| path.as_str().is_empty()).map(|(_, class)| class.clone());
    let mut classes = BTreeSet::from([root.unwrap_or_else(DataClass::unclassified)]);
    if looks_like_json(text) {
        classes.extend(labels.values().cloned());
    }
    classes
}

fn looks_like_json(text: &str) -> bool {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    // Prose may begin with a bracket too: `[withheld: contact]`.
    let begins_item = |c: char| matches!(c, '{' | '[' | '"' | '-') || c.is_ascii_digit();
    text.starts_with('{') || text.strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(begins_item))
}

/// The value of a JSON text. `None` if a key occurs twice in one object: one of the two would be shown and never looked
/// at.
fn parse(text: &str) -> Option<Value> {
    let value = serde_json::from_str(text).ok()?;
    (members(&value) == colons(text)).then_some(value)
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(entries) => entries.values().map(|member| 1 + members(member)).sum(),
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Colons outside of strings: in a JSON text, one for each member that is written.
fn colons(text: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b':' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// What stands in place of something that carries these classes.
#[must_use]
pub fn withheld_text(classes: &BTreeSet<DataClass>) -> String {
    placeholder(&classes.iter().map(DataClass::as_str).collect::<Vec<_>>().join(", "))
}

fn placeholder(classes: &str) -> String {
    format!("{WITHHELD}{classes}]")
}

/// Whether something in a value may stand in place of what is withheld. A value that merely looks so is taken for one:
/// nobody may change or answer for what they have not seen.
#[must_use]
pub fn may_be_masked(value: &Value) -> bool {
    let marked = |text: &str| text.contains(WITHHELD);
    match value {
        Value::String(text) => marked(text),
        Value::Array(items) => items.iter().any(may_be_masked),
        Value::Object(members) => members.iter().any(|(key, member)| marked(key) || may_be_masked(member)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// One label, its path taken apart.
struct Label<'a> {
    tokens: Vec<String>,
    class: &'a DataClass,
}

impl<'a> Label<'a> {
    /// All labels; of two that match one place, the more specific one comes first.
    fn sorted(labels: &'a FieldClasses) -> Vec<Self> {
        let label = |(path, class): (&FieldPath, &'a DataClass)| Self { tokens: path.tokens().collect(), class };
        let mut labels: Vec<_> = labels.iter().map(label).collect();
        labels.sort_by_cached_key(|label| label.tokens.iter().map(|token| is_every(token)).collect::<Vec<_>>());
        labels
    }
}

fn is_every(token: &str) -> bool {
    token == FieldPath::EVERY
}

/// A place in the value, and what the labels say of it.
struct Scope<'a> {
    depth: usize,
    /// The labels of this place and of places below it.
    labels: Vec<&'a Label<'a>>,
    /// The class of the nearest label, here or above.
    class: Option<&'a DataClass>,
}

impl<'a> Scope<'a> {
    fn root(labels: &'a [Label<'a>]) -> Self {
        Self::new(0, labels.iter().collect(), None)
    }

    fn new(depth: usize, labels: Vec<&'a Label<'a>>, above: Option<&'a DataClass>) -> Self {
        let own = labels.iter().find(|label| label.tokens.len() == depth).map(|label| label.class);
        Self { depth, labels, class: own.or(above) }
    }

    /// The place of a member or item.
    fn step(&self, token: &str) -> Self {
        let matches = |next: &String| is_every(next) || next == token;
        let below = self.labels.iter().filter(|label| label.tokens.get(self.depth).is_some_and(matches));
        Self::new(self.depth + 1, below.copied().collect(), self.class)
    }

    /// Whether a key that stands here is data.
    fn is_data(&self, key: &str) -> bool {
        let mut next = self.labels.iter().filter_map(|label| label.tokens.get(self.depth));
        let every = next.clone().any(|token| is_every(token));
        every && !next.any(|token| token == key && !is_every(token))
    }

    fn class(&self) -> DataClass {
        self.class.cloned().unwrap_or_else(DataClass::unclassified)
    }
}

/// A field after masking.
struct Field {
    value: Value,
    /// Something of it is shown.
    is_shown: bool,
}

impl Field {
    fn withheld(class: &DataClass) -> Self {
        Self { value: Value::String(placeholder(class.as_str())), is_shown: false }
    }
}

/// What was seen so far.
struct Masking<'a> {
    revealed: &'a BTreeSet<DataClass>,
    shown: BTreeSet<DataClass>,
    withheld: BTreeSet<DataClass>,
}

impl Masking<'_> {
    /// Takes in that something of this class is there. True if it is revealed.
    fn see(&mut self, class: DataClass) -> bool {
        let is_revealed = self.revealed.contains(&class);
        if is_revealed {
            self.shown.insert(class)
        } else {
            self.withheld.insert(class)
        };
        is_revealed
    }

    fn field(&mut self, value: &Value, scope: &Scope<'_>) -> Field {
        match value {
            Value::Array(items) if !items.is_empty() => self.nested(scope, |masking| masking.array(items, scope)),
            Value::Object(members) if !members.is_empty() => {
                self.nested(scope, |masking| masking.object(members, scope))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                self.leaf(value, scope)
            }
        }
    }

    fn leaf(&mut self, value: &Value, scope: &Scope<'_>) -> Field {
        let class = scope.class();
        let field = Field::withheld(&class);
        if self.see(class) { Field { value: value.clone(), is_shown: true } } else { field }
    }

    fn nested(&mut self, scope: &Scope<'_>, inside: impl FnOnce(&mut Self) -> Field) -> Field {
        if scope.depth >= DEPTH_MAX {
            let class = DataClass::unclassified();
            self.withheld.insert(class.clone());
            return Field::withheld(&class);
        }
        let field = inside(self);
        match scope.class {
            Some(class) if !field.is_shown && !self.revealed.contains(class) => Field::withheld(class),
            Some(_) | None => field,
        }
    }

    fn array(&mut self, items: &[Value], scope: &Scope<'_>) -> Field {
        let fields = items.iter().enumerate().map(|(index, item)| self.field(item, &scope.step(&index.to_string())));
        let fields: Vec<Field> = fields.collect();
        let is_shown = fields.iter().any(|field| field.is_shown);
        Field { value: fields.into_iter().map(|field| field.value).collect(), is_shown }
    }

    fn object(&mut self, members: &Map<String, Value>, scope: &Scope<'_>) -> Field {
        let (mut shown, mut nameless, mut is_shown) = (Map::new(), Vec::new(), false);
        for (key, member) in members {
            let inner = scope.step(key);
            let is_data = scope.is_data(key);
            let has_key = !is_data || self.see(inner.class());
            let field = self.field(member, &inner);
            is_shown |= field.is_shown || (is_data && has_key);
            if has_key {
                shown.insert(key.clone(), field.value);
            } else {
                nameless.push((placeholder(inner.class().as_str()), field.value));
            }
        }
        for (index, (name, value)) in nameless.into_iter().enumerate() {
            let free = free_name(&shown, name, index + 1);
            shown.insert(free, value);
        }
        Field { value: Value::Object(shown), is_shown }
    }
}

/// The name of the member with this number among those whose keys are withheld: no member replaces another.
fn free_name(taken: &Map<String, Value>, name: String, number: usize) -> String {
    if number == 1 && !taken.contains_key(&name) {
        return name;
    }
    let mut numbered = (number.max(2)..).map(|number| format!("{name} {number}"));
    numbered.find(|name| !taken.contains_key(name)).unwrap_or(name)
}
