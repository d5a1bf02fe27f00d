//! `tools/<name>.toml`: the registry of tools.

use std::{collections::BTreeMap, path::Path};

use mandate_activities::catalog::Speaks;
use mandate_domain::{BuiltinTool, ServerName, ToolDefinition, ToolName, ToolReach, tool::arguments::same_constraints};
use serde_json::{Value, json};

use super::{
    classes,
    folder::files_with_extension,
    http_tools,
    problems::{Place, Problems, suggestion},
    reader::{At, Table, read_table},
    remotes::Server,
    root::{Named, Root},
    undo,
};

/// Longest time one call may take unless the tool says otherwise, in seconds.
const TIMEOUT_SECS: u64 = 60;

/// Most that one call may cost: a million of the currency.
const COST_MICROS_MAX: u64 = 1_000_000_000_000;

/// A tool with what has to be checked against the others.
pub(super) struct Read {
    pub(super) tool: ToolDefinition,
    name: Place,
    check: Option<Place>,
    pub(super) undo: Option<Place>,
}

/// Reads every tool.
pub(super) fn read(problems: &Problems, folder: &Path, root: &Root) -> Named<ToolName, ToolDefinition> {
    let mut written = Vec::new();
    let mut tools = Vec::new();
    for path in files_with_extension(problems, folder, Path::new("tools"), "toml") {
        written.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        let Some(mut table) = read_table(problems, folder, &path) else { continue };
        let tool = read_tool(&mut table, &path, root);
        table.finish();
        tools.extend(tool);
    }
    report_wire_collisions(problems, &tools);
    report_checks(problems, &tools, &written);
    undo::report(problems, &tools, &written);
    Named { usable: tools.into_iter().map(|read| (read.tool.name.clone(), read.tool)).collect(), written }
}

fn read_tool(table: &mut Table<'_>, path: &Path, root: &Root) -> Option<Read> {
    let name = table.required_parsed::<ToolName>("name").and_then(|name| named_as_file(table, path, name));
    let description = table.required_text("description");
    let owner = table.required_parsed("owner");
    let read_only = table.flag("read_only").is_some_and(|flag| flag.value);
    let destructive = read_destructive(table, read_only);
    let idempotent = table.flag("idempotent").is_some_and(|flag| flag.value);
    let open_world = table.flag("open_world").is_none_or(|flag| flag.value);
    let check = table.parsed::<ToolName>("check");
    let settles_within_secs = read_settles(table, check.is_some());
    let undo = undo::read(table);
    let timeout_secs = read_timeout(table, root.limits.tool_timeout_max_secs);
    let reach = read_reach(table, &root.servers);
    let cost_micros = table.number_within("cost_micros", 0..=COST_MICROS_MAX, 0);
    let labels = classes::Written::take(table);
    let (reach, http) = reach.map_or((None, None), |(reach, http)| (Some(reach), http));
    let input_schema = read_schema(table, reach.as_ref().and_then(ToolReach::builtin));
    if let (Some(http), Some(schema)) = (&http, &input_schema) {
        http.check(table.problems, schema, read_only);
    }
    let labels = labels.check(table.problems, &root.data_classes.written, input_schema.as_ref());
    let (name, check_place) = (name?, check.as_ref().map(|check| check.place.clone()));
    let tool = ToolDefinition {
        name: name.value,
        description: description?.value,
        owner: owner?.value,
        read_only,
        destructive,
        idempotent,
        open_world,
        check: check.map(|check| check.value),
        settles_within_secs,
        undo: undo.as_ref().map(|undo| undo.value.clone()),
        timeout_secs,
        cost_micros,
        amounts: labels.amounts,
        argument_classes: labels.arguments,
        result_classes: labels.results,
        input_schema: input_schema?,
        reach: reach?,
    };
    Some(Read { tool, name: name.place, check: check_place, undo: undo.map(|undo| undo.place) })
}

fn named_as_file(table: &Table<'_>, path: &Path, name: At<ToolName>) -> Option<At<ToolName>> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if stem == name.value.as_str() {
        return Some(name);
    }
    let message = format!("tool `{}` stands in a file of another name, `{stem}.toml`", name.value);
    table.problems.at(&name.place, message, "differs from the file", Some(format!("rename one of them: `{stem}`?")));
    None
}

/// MCP: `destructiveHint` has a meaning only where `readOnlyHint` is false, and there it defaults to true.
fn read_destructive(table: &mut Table<'_>, read_only: bool) -> bool {
    let Some(flag) = table.flag("destructive") else { return !read_only };
    if flag.value && read_only {
        table.problems.at(&flag.place, "a `read_only` tool cannot be `destructive`", "contradicts `read_only`", None);
    }
    flag.value
}

fn read_settles(table: &mut Table<'_>, has_check: bool) -> Option<u64> {
    let settles = table.number("settles_within_secs")?;
    if !has_check {
        let message = "`settles_within_secs` says when `check` can be trusted, and there is no `check`";
        table.problems.at(&settles.place, message, "add `check` or remove this", None);
    }
    Some(settles.value)
}

fn read_timeout(table: &mut Table<'_>, longest: u64) -> u64 {
    let Some(timeout) = table.number("timeout_secs") else { return TIMEOUT_SECS.min(longest) };
    if timeout.value == 0 || timeout.value > longest {
        let help = format!("`limits.tool_timeout_max_secs` is {longest}");
        let message = format!("`timeout_secs` must be from 1 to {longest}");
        table.problems.at(&timeout.place, message, "out of range", Some(help));
    }
    timeout.value
}

/// How it is reached, and what is to be checked of an HTTP tool when the schema is known.
fn read_reach(
    table: &mut Table<'_>,
    servers: &Named<ServerName, Server>,
) -> Option<(ToolReach, Option<http_tools::Written>)> {
    let (mcp, http, builtin) = (table.table("mcp"), table.table("http"), table.text("builtin"));
    let stated = [mcp.is_some(), http.is_some(), builtin.is_some()].into_iter().filter(|is_stated| *is_stated).count();
    if stated == 0 {
        let message = "nothing says how the tool is reached: `[mcp]`, `[http]` or `builtin` is missing";
        table.problems.at(&table.place, message, "add one of them", None);
    } else if stated > 1 {
        let second = builtin.as_ref().map(|builtin| &builtin.place).or(http.as_ref().map(|http| &http.place));
        let message = "a tool has one of `[mcp]`, `[http]` and `builtin`, not both";
        table.problems.at(second.unwrap_or(&table.place), message, "keep one of them", None);
    }
    match (mcp, http, builtin) {
        (Some(mcp), _, _) => Some((read_mcp(mcp, servers)?, None)),
        (None, Some(http), _) => {
            let written = http_tools::read(http, servers)?;
            Some((written.reach.clone(), Some(written)))
        }
        (None, None, Some(builtin)) => Some((read_builtin(table, &builtin)?, None)),
        (None, None, None) => None,
    }
}

fn read_mcp(mut table: Table<'_>, servers: &Named<ServerName, Server>) -> Option<ToolReach> {
    let server = table.required_parsed::<ServerName>("server");
    let tool = table.required_text("tool");
    let problems = table.problems;
    table.finish();
    let (server, tool) = (server?, tool?);
    http_tools::check_server(problems, &server, servers, Speaks::Mcp);
    Some(ToolReach::Mcp { server: server.value, tool: tool.value })
}

fn read_builtin(table: &Table<'_>, name: &At<String>) -> Option<ToolReach> {
    let found = BuiltinTool::ALL.iter().find(|(known, _)| *known == name.value);
    if found.is_none() {
        let help = suggestion(&name.value, BuiltinTool::ALL.iter().map(|(known, _)| *known));
        let message = format!("unknown built-in tool `{}`", name.value);
        table.problems.at(&name.place, message, "unknown built-in", Some(help));
    }
    found.map(|(_, tool)| ToolReach::Builtin { tool: *tool })
}

/// A built-in tool has a schema of its own, which may be left out.
fn read_schema(table: &mut Table<'_>, builtin: Option<BuiltinTool>) -> Option<Value> {
    if let (Some(builtin), false) = (builtin, table.has("input_schema")) {
        return Some(builtin.input_schema());
    }
    if !table.has("input_schema") {
        table.missing("input_schema");
        return None;
    }
    let schema = table.table("input_schema")?;
    let (problems, place) = (schema.problems, schema.place.clone());
    let schema = Value::Object(schema.into_json());
    if schema.get("type") != Some(&json!("object")) {
        problems.at(&place, "`input_schema` must have `type = \"object\"`", "not an object schema", None);
        return None;
    }
    if let Some(differs) = builtin.and_then(|builtin| same_constraints(&schema, &builtin.input_schema()).err()) {
        let message = format!("`input_schema` is not that of the built-in tool: {differs}");
        problems.at(&place, message, "differs", Some("leave it out".to_owned()));
        return None;
    }
    match validator(&schema) {
        Ok(_) => Some(schema),
        Err(error) => {
            problems.at(&place, format!("`input_schema` is not a JSON Schema: {error}"), "does not compile", None);
            None
        }
    }
}

fn validator(schema: &Value) -> Result<jsonschema::Validator, String> {
    let patterns = jsonschema::PatternOptions::regex();
    jsonschema::options().with_pattern_options(patterns).build(schema).map_err(|error| error.to_string())
}

/// The name that a model sees: providers refuse dots.
fn wire_name(name: &ToolName) -> String {
    name.as_str().replace('.', "_")
}

fn report_wire_collisions(problems: &Problems, tools: &[Read]) {
    let mut taken: BTreeMap<String, &ToolName> = BTreeMap::new();
    for read in tools {
        let wire = wire_name(&read.tool.name);
        if let Some(other) = taken.get(&wire) {
            let message = format!("tool `{}` and tool `{other}` are both `{wire}` to a model", read.tool.name);
            problems.at(&read.name, message, "collides", Some("rename one of them".to_owned()));
        }
        taken.insert(wire, &read.tool.name);
    }
}

fn report_checks(problems: &Problems, tools: &[Read], written: &[String]) {
    for read in tools {
        let (Some(check), Some(place)) = (&read.tool.check, &read.check) else { continue };
        match tools.iter().find(|other| other.tool.name == *check) {
            Some(other) => report_unusable_check(problems, &other.tool, place),
            None if written.iter().any(|name| name == check.as_str()) => {}
            None => {
                let help = suggestion(check.as_str(), written.iter().map(String::as_str));
                problems.at(place, format!("unknown tool `{check}`"), "unknown tool", Some(help));
            }
        }
    }
}

fn report_unusable_check(problems: &Problems, check: &ToolDefinition, place: &Place) {
    if !check.read_only {
        let message = format!("check tool `{}` is not `read_only`: asking it could change something", check.name);
        problems.at(place, message, "not read-only", None);
    }
    let question = json!({"idempotency_key": "workflow/run/t1.0"});
    if !validator(&check.input_schema).is_ok_and(|schema| schema.is_valid(&question)) {
        let message = format!("check tool `{}` does not take the one argument `idempotency_key`", check.name);
        problems.at(place, message, "cannot be asked", None);
    }
}
