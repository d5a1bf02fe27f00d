//! How a tool's arguments look to policies: JSON Schema as Cedar types, JSON as Cedar values.
//!
//! What JSON Schema can say and Cedar cannot is left out of a tool's `input` record and listed as [`Unmapped`]: policies
//! do not see it. The same [`Shape`] that writes the schema turns arguments into Cedar values, so the two cannot differ.

use std::collections::BTreeMap;

use cedar_policy::RestrictedExpression;
use serde_json::{Map, Value};

use crate::{ToolDefinition, ToolName};

/// Deepest nesting of arguments that policies see.
const DEPTH_MAX: usize = 16;

/// Digits after the point of Cedar's `decimal`.
const DECIMAL_DIGITS: usize = 4;

/// Largest integer that every JSON number carries exactly (RFC 7493). Sums of a few of them stay within Cedar's 64 bits,
/// which is what makes an overflow impossible in a policy that loads.
pub(super) const INTEGER_MAX: i64 = 9_007_199_254_740_992;

/// A part of a tool's arguments that policies do not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmapped {
    /// The tool.
    pub tool: ToolName,
    /// Where in its input schema, as a JSON pointer.
    pub pointer: String,
    /// Why.
    pub why: &'static str,
}

/// The Cedar type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    String,
    Long,
    Bool,
    Decimal,
    Set(Box<Shape>),
    Record(RecordShape),
}

/// The Cedar record of a JSON object.
pub(super) type RecordShape = BTreeMap<String, FieldShape>;

/// One attribute of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldShape {
    pub(super) shape: Shape,
    pub(super) required: bool,
}

/// Arguments that have no Cedar form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpressError {
    #[error("argument `{at}` is no {wanted}")]
    WrongType { at: String, wanted: &'static str },
    #[error("argument `{at}` has more than {DECIMAL_DIGITS} digits after the point, so no policy can judge it exactly")]
    TooPrecise { at: String },
    #[error("argument `{at}` is too large a number for a policy")]
    TooLarge { at: String },
    #[error("argument `{at}` has no Cedar form")]
    NoForm { at: String },
}

/// What policies see of a tool's arguments, and what they do not.
pub(super) fn input_record(tool: &ToolDefinition) -> (RecordShape, Vec<Unmapped>) {
    let mut reader = Reader { tool: &tool.name, unmapped: Vec::new() };
    let root = tool.input_schema.as_object();
    let record = match root {
        Some(object) if object.contains_key("$ref") => {
            reader.skip("", "`$ref` is not followed");
            RecordShape::new()
        }
        // Arguments are an object in any case, so a missing `type` says nothing new here.
        Some(object) if object.get("type").is_none_or(|kind| kind == "object") => reader.record(object, "", 0),
        Some(_) | None => {
            reader.skip("", "the arguments are not described as an object");
            RecordShape::new()
        }
    };
    (record, reader.unmapped)
}

struct Reader<'a> {
    tool: &'a ToolName,
    unmapped: Vec<Unmapped>,
}

impl Reader<'_> {
    fn skip(&mut self, pointer: &str, why: &'static str) -> Option<Shape> {
        self.unmapped.push(Unmapped { tool: self.tool.clone(), pointer: pointer.to_owned(), why });
        None
    }

    fn shape(&mut self, schema: &Value, pointer: &str, depth: usize) -> Option<Shape> {
        let Some(object) = schema.as_object() else { return self.skip(pointer, "it has no type") };
        if depth >= DEPTH_MAX {
            return self.skip(pointer, "it is nested too deep");
        }
        // Older drafts ignore everything beside `$ref`, so a type next to it proves nothing.
        if object.contains_key("$ref") || object.contains_key("$dynamicRef") {
            return self.skip(pointer, "`$ref` is not followed");
        }
        match type_of(object) {
            Ok("string") => Some(Shape::String),
            Ok("integer") => Some(Shape::Long),
            Ok("boolean") => Some(Shape::Bool),
            Ok("number") => Some(Shape::Decimal),
            Ok("array") => self.set(object, pointer, depth),
            Ok("object") => Some(Shape::Record(self.record(object, pointer, depth))),
            Ok(_) => self.skip(pointer, "its type has no Cedar form"),
            Err(why) => self.skip(pointer, why),
        }
    }

    fn set(&mut self, object: &Map<String, Value>, pointer: &str, depth: usize) -> Option<Shape> {
        if object.contains_key("prefixItems") {
            return self.skip(pointer, "its items have different types");
        }
        let items = object.get("items").unwrap_or(&Value::Null);
        let shape = self.shape(items, &format!("{pointer}/items"), depth + 1)?;
        Some(Shape::Set(Box::new(shape)))
    }

    fn record(&mut self, object: &Map<String, Value>, pointer: &str, depth: usize) -> RecordShape {
        let required = |name: &str| {
            object.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|n| n == name))
        };
        let mut record = RecordShape::new();
        let properties = object.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            let at = format!("{pointer}/properties/{}", escape_pointer(name));
            if let Some(shape) = self.shape(schema, &at, depth + 1) {
                record.insert(name.clone(), FieldShape { shape, required: required(name) });
            }
        }
        if object.get("additionalProperties") != Some(&Value::Bool(false)) {
            self.skip(&format!("{pointer}/additionalProperties"), "properties that are not declared are allowed");
        }
        record
    }
}

fn type_of(object: &Map<String, Value>) -> Result<&str, &'static str> {
    match object.get("type") {
        Some(Value::String(kind)) => Ok(kind),
        Some(Value::Array(kinds)) => match kinds.as_slice() {
            [Value::String(kind)] => Ok(kind),
            _ => Err("it has several types"),
        },
        Some(_) => Err("its type is not a name"),
        None => type_of_values(object),
    }
}

fn type_of_values(object: &Map<String, Value>) -> Result<&str, &'static str> {
    let strings = object.get("enum").and_then(Value::as_array).is_some_and(|all| all.iter().all(Value::is_string));
    if strings || object.get("const").is_some_and(Value::is_string) {
        return Ok("string");
    }
    let combined = ["anyOf", "oneOf", "allOf"].iter().any(|keyword| object.contains_key(*keyword));
    Err(if combined { "it combines schemas" } else { "it has no type" })
}

/// A reference token of a JSON pointer (RFC 6901).
pub(crate) fn escape_pointer(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

pub(super) fn record_text(record: &RecordShape) -> String {
    let fields = record.iter().map(|(name, field)| {
        let mark = if field.required { "" } else { "?" };
        format!("{}{mark}: {}", quoted(name), field.shape.text())
    });
    format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
}

impl Shape {
    fn text(&self) -> String {
        match self {
            Self::String => "String".to_owned(),
            Self::Long => "Long".to_owned(),
            Self::Bool => "Bool".to_owned(),
            Self::Decimal => "decimal".to_owned(),
            Self::Set(items) => format!("Set<{}>", items.text()),
            Self::Record(record) => record_text(record),
        }
    }

    fn express(&self, value: &Value, at: &str) -> Result<RestrictedExpression, ExpressError> {
        let wrong = |wanted| ExpressError::WrongType { at: at.to_owned(), wanted };
        match self {
            Self::String => {
                value.as_str().map(|text| RestrictedExpression::new_string(text.to_owned())).ok_or(wrong("string"))
            }
            Self::Bool => value.as_bool().map(RestrictedExpression::new_bool).ok_or(wrong("boolean")),
            Self::Long => long(value, at).map(RestrictedExpression::new_long),
            Self::Decimal => decimal(value, at).map(RestrictedExpression::new_decimal),
            Self::Set(items) => {
                let values = value.as_array().ok_or(wrong("array"))?;
                let each = values.iter().enumerate().map(|(index, item)| items.express(item, &format!("{at}/{index}")));
                Ok(RestrictedExpression::new_set(each.collect::<Result<Vec<_>, _>>()?))
            }
            Self::Record(record) => express_record(record, value.as_object().ok_or(wrong("object"))?, at),
        }
    }
}

/// Arguments as the Cedar record `input`. What the record does not have is left out; a missing required attribute is
/// refused by Cedar.
pub(super) fn express_record(
    record: &RecordShape,
    arguments: &Map<String, Value>,
    at: &str,
) -> Result<RestrictedExpression, ExpressError> {
    let mut fields = Vec::new();
    for (name, field) in record {
        if let Some(value) = arguments.get(name) {
            let at = format!("{at}/{}", escape_pointer(name));
            fields.push((name.clone(), field.shape.express(value, &at)?));
        }
    }
    RestrictedExpression::new_record(fields).map_err(|_| ExpressError::NoForm { at: at.to_owned() })
}

pub(crate) fn long(value: &Value, at: &str) -> Result<i64, ExpressError> {
    let number = value.as_number().ok_or(ExpressError::WrongType { at: at.to_owned(), wanted: "integer" })?;
    let too_large = || ExpressError::TooLarge { at: at.to_owned() };
    let integer = match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => integer,
        (None, Some(float)) if float.fract() != 0.0 => {
            return Err(ExpressError::WrongType { at: at.to_owned(), wanted: "integer" });
        }
        // JSON Schema counts 5.0 as an integer. Rust writes it without point and exponent.
        (None, Some(float)) => format!("{float}").parse().map_err(|_| too_large())?,
        (None, None) => return Err(too_large()),
    };
    if (-INTEGER_MAX..=INTEGER_MAX).contains(&integer) { Ok(integer) } else { Err(too_large()) }
}

fn decimal(value: &Value, at: &str) -> Result<String, ExpressError> {
    let number = value.as_number().ok_or(ExpressError::WrongType { at: at.to_owned(), wanted: "number" })?;
    let too_large = || ExpressError::TooLarge { at: at.to_owned() };
    let text = match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => integer.to_string(),
        // Rust writes the shortest digits that give the same double, never an exponent.
        (None, Some(float)) => format!("{float}"),
        (None, None) => return Err(too_large()),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    if fraction.len() > DECIMAL_DIGITS {
        return Err(ExpressError::TooPrecise { at: at.to_owned() });
    }
    // Cedar keeps a decimal as an i64 of ten-thousandths.
    format!("{whole}{fraction:0<DECIMAL_DIGITS$}").parse::<i64>().map_err(|_| too_large())?;
    Ok(format!("{whole}.{fraction}"))
}
