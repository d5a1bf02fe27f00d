//! Arguments against a tool's JSON Schema: what the model reads when they do not fit, and whether two schemas allow the
//! same.
//!
//! Patterns run on an engine that takes linear time, so neither a schema nor an argument can stall a worker. References
//! to other documents are never fetched.

use std::collections::BTreeSet;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use crate::{canonical, policy::shape::escape_pointer};

/// Problems that one message lists.
const PROBLEMS_MAX: usize = 5;

/// Longest text of one problem, and of a whole message, in bytes.
const PROBLEM_BYTES_MAX: usize = 180;
const MESSAGE_BYTES_MAX: usize = 1024;

/// The schema of a tool's arguments, ready to check them.
#[derive(Debug)]
pub struct ArgumentsSchema(Validator);

/// A tool's input schema that cannot be used. Fix the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input schema cannot be used: {0}")]
pub struct CompileSchemaError(String);

/// Arguments that do not fit. The text is for the model, which can correct itself; it is at most 1 KiB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidArguments(String);

/// Two schemas that do not allow the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the schemas differ at `{pointer}`")]
pub struct SchemaDiffers {
    /// Where, as a JSON pointer; empty for the root.
    pub pointer: String,
}

impl ArgumentsSchema {
    /// Compiles a JSON Schema.
    ///
    /// # Errors
    /// [`CompileSchemaError`] when it is no valid schema, or names another document.
    pub fn compile(schema: &Value) -> Result<Self, CompileSchemaError> {
        jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .offline()
            .build(schema)
            .map(Self)
            .map_err(|error| CompileSchemaError(cut(&error.to_string(), MESSAGE_BYTES_MAX)))
    }

    /// Checks arguments.
    ///
    /// # Errors
    /// [`InvalidArguments`] when they break the schema or hold a number without an exact canonical form.
    pub fn check(&self, arguments: &Map<String, Value>) -> Result<(), InvalidArguments> {
        canonical::to_canonical(arguments).map_err(|error| {
            InvalidArguments(format!("arguments cannot be used: {error}; send it as a string if the schema allows"))
        })?;
        let arguments = Value::Object(arguments.clone());
        let mut problems: Vec<String> =
            self.0.iter_errors(&arguments).take(PROBLEMS_MAX + 1).map(|error| problem(&error)).collect();
        if problems.is_empty() {
            return Ok(());
        }
        if problems.len() > PROBLEMS_MAX {
            problems.truncate(PROBLEMS_MAX);
            problems.push("and more".to_owned());
        }
        let text = format!("arguments do not match the tool's schema: {}", problems.join("; "));
        Err(InvalidArguments(cut(&text, MESSAGE_BYTES_MAX)))
    }
}

fn problem(error: &jsonschema::ValidationError<'_>) -> String {
    let at = error.instance_path().to_string();
    let at = if at.is_empty() { "arguments".to_owned() } else { cut(&format!("`{at}`"), PROBLEM_BYTES_MAX / 2) };
    // The model knows what it wrote; what it needs is the rule, so long values are left out.
    let full = error.to_string();
    let text = if full.len() > PROBLEM_BYTES_MAX / 2 { error.masked_with("the value").to_string() } else { full };
    cut(&format!("{at}: {text}"), PROBLEM_BYTES_MAX)
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max.saturating_sub('…'.len_utf8())).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", end.and_then(|end| text.get(..end)).unwrap_or_default())
}

/// Keywords that say nothing about what is allowed.
const ANNOTATIONS: [&str; 7] = ["$schema", "$id", "title", "description", "default", "examples", "$comment"];

/// Keywords whose value is a map from names to schemas or to lists of names.
const SCHEMA_MAPS: [&str; 7] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
    "dependentRequired",
    "dependencies",
];

/// Keywords whose value is a list of which the order says nothing.
const SETS: [&str; 3] = ["required", "enum", "type"];

/// Keywords whose value is data: nothing in it is a keyword.
const DATA: [&str; 1] = ["const"];

/// Whether two JSON Schemas are the same but for annotations.
///
/// # Errors
/// [`SchemaDiffers`] with the first place where they are not.
pub fn same_constraints(a: &Value, b: &Value) -> Result<(), SchemaDiffers> {
    same_schema(a, b, "")
}

fn same_schema(a: &Value, b: &Value, at: &str) -> Result<(), SchemaDiffers> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keywords = |object: &Map<String, Value>| -> BTreeSet<String> {
                object.keys().filter(|key| !ANNOTATIONS.contains(&key.as_str())).cloned().collect()
            };
            for keyword in keywords(a).union(&keywords(b)) {
                let at = format!("{at}/{}", escape_pointer(keyword));
                same_keyword(keyword, a.get(keyword), b.get(keyword), &at)?;
            }
            Ok(())
        }
        // `allOf` and its like: schemas in order.
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.try_for_each(|(index, (a, b))| same_schema(a, b, &format!("{at}/{index}")))
        }
        _ => same_data(a, b, at),
    }
}

fn same_keyword(keyword: &str, a: Option<&Value>, b: Option<&Value>, at: &str) -> Result<(), SchemaDiffers> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        // `required: []` asks for nothing.
        (Some(only), None) | (None, Some(only)) if keyword == "required" && *only == Value::Array(Vec::new()) => {
            return Ok(());
        }
        _ => return Err(SchemaDiffers { pointer: at.to_owned() }),
    };
    if SETS.contains(&keyword) {
        return same_set(a, b, at);
    }
    if DATA.contains(&keyword) {
        return same_data(a, b, at);
    }
    match (a, b) {
        (Value::Object(a), Value::Object(b)) if SCHEMA_MAPS.contains(&keyword) => same_map(a, b, at),
        _ => same_schema(a, b, at),
    }
}

fn same_map(a: &Map<String, Value>, b: &Map<String, Value>, at: &str) -> Result<(), SchemaDiffers> {
    for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        let at = format!("{at}/{}", escape_pointer(name));
        match (a.get(name), b.get(name)) {
            (Some(a), Some(b)) => same_schema(a, b, &at)?,
            (Some(_) | None, _) => return Err(SchemaDiffers { pointer: at }),
        }
    }
    Ok(())
}

fn same_set(a: &Value, b: &Value, at: &str) -> Result<(), SchemaDiffers> {
    let members = |value: &Value| -> Option<BTreeSet<Vec<u8>>> {
        let one = std::slice::from_ref(value);
        let items = value.as_array().map_or(one, Vec::as_slice);
        items.iter().map(|item| canonical::to_canonical(item).ok()).collect()
    };
    if a == b || members(a).is_some_and(|a| members(b) == Some(a)) {
        Ok(())
    } else {
        Err(SchemaDiffers { pointer: at.to_owned() })
    }
}

fn same_data(a: &Value, b: &Value, at: &str) -> Result<(), SchemaDiffers> {
    // 1 and 1.0 are one number; canonical form knows that.
    let same = a == b || canonical::to_canonical(a).is_ok_and(|a| canonical::to_canonical(b).is_ok_and(|b| a == b));
    if same { Ok(()) } else { Err(SchemaDiffers { pointer: at.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refund() -> Value {
        json!({ "type": "object", "additionalProperties": false, "required": ["order", "cents"], "properties": {
            "order": { "type": "string", "pattern": "^o[0-9]+$" }, "cents": { "type": "integer", "minimum": 1 },
            "day": { "type": "string", "format": "date" }, "n": {} } })
    }

    fn check(arguments: Value) -> Result<(), String> {
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        ArgumentsSchema::compile(&refund()).unwrap().check(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_that_fit_pass() {
        assert_eq!(check(json!({ "order": "o1", "cents": 5, "day": "2026-11-21" })), Ok(()));
    }

    #[test]
    fn each_problem_names_its_place() {
        for (arguments, parts) in [
            (json!({ "order": "o1" }), &["arguments: ", "\"cents\" is a required property"][..]),
            (json!({ "order": "x", "cents": "5" }), &["`/order`: ", "`/cents`: ", "integer"]),
            (json!({ "order": "o1", "cents": 0 }), &["`/cents`: ", "minimum"]),
            (json!({ "order": "o1", "cents": 1, "day": "soon" }), &["`/day`: ", "date"]),
            (json!({ "order": "o1", "cents": 1, "extra": 1 }), &["extra"]),
            (json!({ "order": "o1", "cents": 1, "n": [9_007_199_254_740_993_u64] }), &["2^53"]),
        ] {
            let text = check(arguments.clone()).unwrap_err();
            assert!(parts.iter().all(|part| text.contains(part)), "{arguments}: {text}");
        }
    }

    #[test]
    fn the_message_is_bounded_whatever_the_arguments() {
        let mut arguments =
            json!({ "order": "é".repeat(10_000), "cents": "9".repeat(10_000), "day": "x".repeat(9000) });
        for n in 0..100 {
            arguments[format!("{n}{}", "k".repeat(500))] = json!(1);
        }
        let text = check(arguments).unwrap_err();
        assert!(text.len() <= MESSAGE_BYTES_MAX && text.contains("`/cents`"), "{} {text}", text.len());
    }

    #[test]
    fn schemas_that_cannot_be_used_are_refused() {
        for schema in [
            json!({ "type": "strnig" }),
            json!({ "$ref": "http://127.0.0.1:9/other.json" }),
            json!({ "$ref": "file:///etc/hostname" }),
            json!({ "properties": { "a": { "pattern": "(a)\\1" } } }),
        ] {
            assert!(ArgumentsSchema::compile(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn schemas_differ_by_constraints_and_not_by_annotations() {
        let same = Ok(());
        let differs = |pointer: &str| Err(SchemaDiffers { pointer: pointer.to_owned() });
        for (a, b, expect) in [
            (
                json!({ "type": "string", "title": "A", "default": 1 }),
                json!({ "$schema": "x", "type": ["string"] }),
                same.clone(),
            ),
            (json!({ "required": ["a", "b"] }), json!({ "required": ["b", "a"] }), same.clone()),
            (json!({ "required": [] }), json!({}), same.clone()),
            (json!({ "minimum": 1 }), json!({ "minimum": 1.0 }), same.clone()),
            (
                json!({ "anyOf": [{ "title": "x", "type": "string" }] }),
                json!({ "anyOf": [{ "type": "string" }] }),
                same,
            ),
            (json!({ "required": ["a"] }), json!({}), differs("/required")),
            (json!({ "minimum": 1 }), json!({ "minimum": 2 }), differs("/minimum")),
            (
                json!({ "properties": { "title": { "type": "string" } } }),
                json!({ "properties": {} }),
                differs("/properties/title"),
            ),
            (
                json!({ "properties": { "description": { "type": "string" } } }),
                json!({ "properties": { "description": { "type": "integer" } } }),
                differs("/properties/description/type"),
            ),
            (
                json!({ "properties": { "a/b": { "items": { "minimum": 1 } } } }),
                json!({ "properties": { "a/b": { "items": { "maximum": 1 } } } }),
                differs("/properties/a~1b/items/maximum"),
            ),
            (
                json!({ "dependentRequired": { "title": ["a"] } }),
                json!({ "dependentRequired": {} }),
                differs("/dependentRequired/title"),
            ),
            (json!({ "const": { "title": 1 } }), json!({ "const": { "title": 2 } }), differs("/const")),
            (json!({ "enum": [1, 2] }), json!({ "enum": [1, 3] }), differs("/enum")),
            (
                json!({ "additionalProperties": false }),
                json!({ "additionalProperties": true }),
                differs("/additionalProperties"),
            ),
            (json!({ "allOf": [{}, {}] }), json!({ "allOf": [{}] }), differs("/allOf")),
        ] {
            assert_eq!(same_constraints(&a, &b), expect, "{a} {b}");
            assert_eq!(same_constraints(&b, &a).is_ok(), expect.is_ok(), "{b} {a}");
        }
    }
}
