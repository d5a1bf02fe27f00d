//! `[undo]` of a tool's file: which tool undoes its calls, with which arguments, and whether that can work.

use std::collections::BTreeSet;

use mandate_domain::{ToolDefinition, ToolName, Undo};
use serde_json::{Map, Value};

use super::{
    problems::{Place, Problems, suggestion},
    reader::{At, Table},
    tools::Read,
};

/// Reads `[undo]`.
pub(super) fn read(table: &mut Table<'_>) -> Option<At<Undo>> {
    let mut undo = table.table("undo")?;
    let tool = undo.required_parsed::<ToolName>("tool");
    if !undo.has("arguments") {
        undo.missing("arguments");
    }
    let arguments = undo.table("arguments").map(Table::free_texts);
    undo.finish();
    let (tool, arguments) = (tool?, arguments?);
    let arguments = arguments.into_iter().map(|(name, pointer)| (name.value, pointer.value)).collect();
    Some(At { value: Undo { tool: tool.value, arguments }, place: tool.place })
}

/// Reports every undo that cannot work.
pub(super) fn report(problems: &Problems, tools: &[Read], written: &[String]) {
    for read in tools {
        let (Some(undo), Some(place)) = (&read.tool.undo, &read.undo) else { continue };
        match tools.iter().find(|other| other.tool.name == undo.tool) {
            Some(by) => {
                for (message, label) in unusable(&read.tool, undo, &by.tool, tools) {
                    problems.at(place, message, label, None);
                }
            }
            None if written.iter().any(|name| name == undo.tool.as_str()) => {}
            None => unknown(problems, place, &undo.tool, written),
        }
    }
}

fn unknown(problems: &Problems, place: &Place, tool: &ToolName, written: &[String]) {
    let help = suggestion(tool.as_str(), written.iter().map(String::as_str));
    problems.at(place, format!("unknown tool `{tool}`"), "unknown tool", Some(help));
}

/// What keeps an undo from working, with a label for the place.
fn unusable(tool: &ToolDefinition, undo: &Undo, by: &ToolDefinition, tools: &[Read]) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    if tool.read_only {
        found.push((format!("tool `{}` is `read_only`: there is nothing to undo", tool.name), "nothing to undo"));
    }
    if by.read_only || by.reach.builtin().is_some() {
        found.push((format!("tool `{}` changes nothing, so it undoes nothing", by.name), "undoes nothing"));
    }
    if goes_round(tool, tools) {
        found.push((format!("tool `{}` is undone by itself in the end", tool.name), "goes round"));
    }
    found.extend(undo.arguments.iter().filter_map(|(name, pointer)| unfit(tool, by, name, pointer)));
    let missing = required(&by.input_schema).filter(|name| !undo.arguments.contains_key(*name));
    found.extend(
        missing.map(|name| (format!("tool `{}` needs the argument `{name}`", by.name), "an argument is missing")),
    );
    found
}

/// Whether following the undos leads back to a tool.
fn goes_round(tool: &ToolDefinition, tools: &[Read]) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = Some(tool);
    while let Some(tool) = next {
        if !seen.insert(&tool.name) {
            return true;
        }
        let by = tool.undo.as_ref().map(|undo| &undo.tool);
        next = tools.iter().map(|read| &read.tool).find(|other| Some(&other.name) == by);
    }
    false
}

/// What is wrong with one argument: its name, or where it is taken from.
fn unfit(tool: &ToolDefinition, by: &ToolDefinition, name: &str, pointer: &str) -> Option<(String, &'static str)> {
    if !properties(&by.input_schema).is_some_and(|known| known.contains_key(name)) {
        return Some((format!("tool `{}` has no argument `{name}`", by.name), "no such argument"));
    }
    if let Some(argument) = pointer.strip_prefix("/arguments/") {
        let first = argument.split('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~");
        let known = properties(&tool.input_schema).is_some_and(|known| known.contains_key(&first));
        return (!known).then(|| (format!("tool `{}` has no argument `{first}`", tool.name), "no such argument"));
    }
    if pointer.starts_with("/result/") {
        return None;
    }
    if pointer == "/result" {
        // Where a tool did not answer itself, a sentence of the runtime stands in its place.
        let message = format!("`{name}` is taken from all of the result: name a field of it, such as `/result/id`");
        return Some((message, "no field of the result"));
    }
    let message = format!("`{name}` is taken from `{pointer}`, which is neither in `/arguments` nor in `/result`");
    Some((message, "not a place in the call"))
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
