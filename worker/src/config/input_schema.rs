//! What a tool's input schema says of single fields.
//!
//! A field is there if the schema describes it or says expressly that others are allowed. Where a schema cannot be
//! judged (`$ref`, no keyword about what is inside), the field is taken to be there.

use mandate_domain::FieldPath;
use serde_json::{Map, Value};

/// Deepest nesting of the fields that are suggested.
const DEPTH_MAX: usize = 8;

/// Keywords that combine schemas in a list.
const COMBINED: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Keywords that hold a further schema for the same value.
const CONDITIONAL: [&str; 2] = ["then", "else"];

/// Types that have something inside, and the keywords that describe it.
const NESTED: [(&str, &[&str]); 2] =
    [("object", &["properties", "patternProperties", "additionalProperties"]), ("array", &["items", "prefixItems"])];

/// Whether arguments of this schema can have the field.
pub(super) fn has_field(schema: &Value, path: &FieldPath) -> bool {
    let tokens: Vec<String> = path.tokens().collect();
    has(schema, &tokens)
}

fn has(schema: &Value, tokens: &[String]) -> bool {
    let Some(object) = schema.as_object() else { return schema.as_bool().unwrap_or_default() };
    let Some((token, rest)) = tokens.split_first() else { return true };
    if object.contains_key("$ref") || object.contains_key("$dynamicRef") {
        return true;
    }
    let mut same = same_value(object).peekable();
    let is_silent = same.peek().is_none() && NESTED.iter().all(|(_, keywords)| !has_any(object, keywords));
    if is_silent {
        return may_have_inside(object);
    }
    same.any(|schema| has(schema, tokens)) || inside(object, token).iter().any(|schema| has(schema, rest))
}

/// Schemas that speak of the same value.
fn same_value(object: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let combined = COMBINED.iter().filter_map(|keyword| object.get(*keyword)?.as_array()).flatten();
    combined.chain(CONDITIONAL.iter().filter_map(|keyword| object.get(*keyword)))
}

fn has_any(object: &Map<String, Value>, keywords: &[&str]) -> bool {
    keywords.iter().any(|keyword| object.contains_key(*keyword))
}

/// Whether a value can have fields of which the schema says nothing.
fn may_have_inside(object: &Map<String, Value>) -> bool {
    let nested = |kind: &Value| NESTED.iter().any(|(name, _)| kind == name);
    match object.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(nested),
        Some(kind) => nested(kind),
        None => !has_any(object, &["enum", "const"]),
    }
}

/// The schemas of what a token names inside a value.
fn inside<'a>(object: &'a Map<String, Value>, token: &str) -> Vec<&'a Value> {
    let of = |keyword: &str| object.get(keyword);
    let properties = of("properties").and_then(Value::as_object);
    let places = of("prefixItems").and_then(Value::as_array);
    let is_every = token == FieldPath::EVERY;
    let items = of("items").filter(|_| is_every || token.parse::<usize>().is_ok());
    let patterns = of("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let others = patterns.chain(of("additionalProperties")).chain(items);
    if is_every {
        let named = properties.into_iter().flat_map(Map::values).chain(places.into_iter().flatten());
        return named.chain(others).collect();
    }
    let place = token.parse::<usize>().ok().and_then(|index| places?.get(index));
    match properties.and_then(|properties| properties.get(token)).or(place) {
        Some(schema) => vec![schema],
        None => others.collect(),
    }
}

/// The fields that the schema names, as JSON pointers, for suggestions.
pub(super) fn field_paths(schema: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    collect(schema, "", DEPTH_MAX, &mut paths);
    paths
}

fn collect(schema: &Value, at: &str, depth: usize, paths: &mut Vec<String>) {
    let Some(object) = schema.as_object().filter(|_| depth > 0) else { return };
    for (name, member) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        paths.push(path.clone());
        collect(member, &path, depth - 1, paths);
    }
    if let Some(items) = object.get("items") {
        let path = format!("{at}/{}", FieldPath::EVERY);
        paths.push(path.clone());
        collect(items, &path, depth - 1, paths);
    }
}

/// The arguments that every call has and that are integers.
pub(super) fn required_integers(schema: &Value) -> Vec<&str> {
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let is_integer = |name: &str| match schema.get("properties").and_then(|all| all.get(name)?.get("type")) {
        Some(Value::Array(kinds)) => kinds.len() == 1 && kinds.iter().all(|kind| kind == "integer"),
        Some(kind) => kind == "integer",
        None => false,
    };
    required.filter(|name| is_integer(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_there_if_the_schema_describes_it() {
        let schema = json!({ "type": "object", "properties": {
            "id": { "type": "string" }, "a/b": {}, "kind": { "enum": ["x"] }, "open": { "type": "object" },
            "to": { "type": "object", "properties": { "name": { "type": "string" } }, "additionalProperties": false },
            "map": { "additionalProperties": { "properties": { "n": { "type": "integer" } } } },
            "list": { "items": { "properties": { "n": {} } } },
            "pair": { "prefixItems": [{ "type": "string" }, { "properties": { "n": {} } }] },
            "none": { "additionalProperties": false },
            "any": { "anyOf": [{ "type": "string" }, { "properties": { "n": { "type": "string" } } }] },
            "other": { "$ref": "#/$defs/x" } } });
        for there in [
            "",
            "/id",
            "/*",
            "/a~1b",
            "/a~1b/x",
            "/open/x",
            "/to/name",
            "/*/name",
            "/map/x/n",
            "/map/*/n",
            "/list/*",
            "/list/0/n",
            "/list/*/n",
            "/pair/1/n",
            "/pair/*/n",
            "/any/n",
            "/other/x",
        ] {
            assert!(has_field(&schema, &FieldPath::parse(there).unwrap()), "{there}");
        }
        for absent in [
            "/ide",
            "/id/x",
            "/kind/x",
            "/to/x",
            "/to/*/x",
            "/map/x/m",
            "/list/0/m",
            "/pair/0/n",
            "/pair/2",
            "/any/m",
            "/none/x",
            "/none/*",
            "/list/n",
        ] {
            assert!(!has_field(&schema, &FieldPath::parse(absent).unwrap()), "{absent}");
        }
        let named = ["/id", "/a~1b", "/to/name", "/list/*/n"];
        let paths = field_paths(&schema);
        assert!(named.iter().all(|path| paths.iter().any(|known| known == path)), "{paths:?}");
    }
}
