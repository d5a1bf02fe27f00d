//! `tenants/<tenant>/<unit>/<agent>/`: the agents, named by where they stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use mandate_domain::{AgentDefinition, AgentName, CompensateOn, ModelName, ToolDefinition, ToolName};

use super::{
    folder::entries,
    limits::{self, Base},
    policies,
    problems::{Problems, suggestion},
    reader::{At, Table, parse, read_table, read_text},
    root::{Named, Root},
};

/// Largest instructions, in bytes.
const INSTRUCTIONS_BYTES_MAX: usize = 64 * 1024;

/// Depth of an agent's folder below `tenants`.
const AGENT_DEPTH: usize = 3;

/// Deepest folder that is searched for agents that stand wrong.
const DEPTH_MAX: usize = 6;

const AGENT_FILE: &str = "agent.toml";
const WHERE: &str = "an agent stands in `tenants/<tenant>/<unit>/<agent>/agent.toml`";

/// What agents refer to.
pub(super) struct Known<'a> {
    pub(super) root: &'a Root,
    pub(super) tools: &'a Named<ToolName, ToolDefinition>,
}

/// Reads every agent.
pub(super) fn read(problems: &Problems, folder: &Path, known: &Known<'_>) -> BTreeMap<AgentName, AgentDefinition> {
    let mut agents = BTreeMap::new();
    let mut folders = vec![(PathBuf::from("tenants"), 0)];
    while let Some((path, depth)) = folders.pop() {
        let inside = entries(problems, folder, &path);
        let has_agent = |at: &Path| folder.join(at).join(AGENT_FILE).exists();
        // A folder that only leads to an agent further down is reported there.
        let leads_deeper = !has_agent(&path) && inside.iter().any(|entry| has_agent(entry));
        if depth == AGENT_DEPTH && !leads_deeper {
            agents.extend(read_agent(problems, folder, &path, known).map(|agent| (agent.name.clone(), agent)));
        } else if depth != AGENT_DEPTH && has_agent(&path) {
            problems.file(&path.join(AGENT_FILE), "an agent stands at the wrong depth", Some(WHERE));
        }
        if depth < DEPTH_MAX {
            let is_policies = |entry: &Path| entry.file_name().is_some_and(|name| name == policies::FOLDER);
            let subfolders = inside.into_iter().filter(|entry| folder.join(entry).is_dir() && !is_policies(entry));
            folders.extend(subfolders.map(|entry| (entry, depth + 1)));
        }
    }
    agents
}

/// Most calls of an agent whose effects are undone: a run carries along what there is to undo, and names each.
const UNDONE_MAX: u32 = 500;

fn read_agent(problems: &Problems, folder: &Path, path: &Path, known: &Known<'_>) -> Option<AgentDefinition> {
    let file = path.join(AGENT_FILE);
    if !folder.join(&file).exists() {
        problems.file(&file, "the file is missing", Some(WHERE));
        return None;
    }
    let name = read_name(problems, path);
    let instructions = read_instructions(problems, folder, &path.join("instructions.md"));
    let mut table = read_table(problems, folder, &file)?;
    let agent = read_definition(&mut table, known);
    table.finish();
    Some(AgentDefinition { name: name?, instructions: instructions?, ..agent? })
}

fn read_name(problems: &Problems, path: &Path) -> Option<AgentName> {
    let parts: Vec<_> = path.iter().skip(1).map(|part| part.to_string_lossy()).collect();
    AgentName::parse(parts.join("/")).map_err(|error| problems.file(path, error.to_string(), Some(WHERE))).ok()
}

fn read_instructions(problems: &Problems, folder: &Path, path: &Path) -> Option<String> {
    let text = read_text(problems, folder, path)?;
    if text.trim().is_empty() {
        problems.file(path, "the instructions are empty", Some("say what the agent is to do and how"));
        return None;
    }
    if text.len() > INSTRUCTIONS_BYTES_MAX {
        problems.file(path, format!("the instructions are longer than {INSTRUCTIONS_BYTES_MAX} bytes"), None);
        return None;
    }
    Some(text)
}

/// The agent without name and instructions, which stand elsewhere.
fn read_definition(table: &mut Table<'_>, known: &Known<'_>) -> Option<AgentDefinition> {
    let purpose = table.required_text("purpose");
    let owner = table.required_parsed("owner");
    let connected_systems = table.required_texts("connected_systems");
    let memory = table.required_text("memory");
    let permission_scope = table.required_text("permission_scope");
    let escalation_path = table.required_text("escalation_path");
    let model = read_model(table, &known.root.models.written);
    let tools = read_tools(table, &known.tools.written);
    let limits = limits::read(table.table("limits"), &Base::NoMoreThan(known.root.limits));
    let compensate = read_compensate(table, tools.as_deref().unwrap_or_default(), known.tools, limits.tool_calls_max);
    Some(AgentDefinition {
        name: AgentName::parse("tenant/unit/agent").ok()?,
        purpose: purpose?.value,
        owner: owner?.value,
        connected_systems: connected_systems?.value.into_iter().map(|text| text.value).collect(),
        memory: memory?.value,
        permission_scope: permission_scope?.value,
        escalation_path: escalation_path?.value,
        model: model?,
        tools: tools?,
        instructions: String::new(),
        limits,
        compensate,
    })
}

/// The kinds of end at which the agent's effects are undone. They are for tools that can be undone.
fn read_compensate(
    table: &mut Table<'_>,
    offered: &[ToolName],
    tools: &Named<ToolName, ToolDefinition>,
    tool_calls_max: u32,
) -> Vec<CompensateOn> {
    let Some(words) = table.texts("compensate") else { return Vec::new() };
    let mut kinds = BTreeSet::new();
    for word in words.value {
        let found = CompensateOn::ALL.into_iter().find(|kind| kind.as_str() == word.value);
        if found.is_none() {
            let help = suggestion(&word.value, CompensateOn::ALL.map(CompensateOn::as_str));
            let message = format!("`{}` is no end of a run at which calls are undone", word.value);
            table.problems.at(&word.place, message, "unknown word", Some(help));
        }
        kinds.extend(found);
    }
    let undoes = |name: &ToolName| tools.usable.get(name).is_some_and(|tool| tool.undo.is_some());
    let all_read = offered.iter().all(|name| tools.usable.contains_key(name));
    if !kinds.is_empty() && all_read && !offered.iter().any(undoes) {
        let message = "`compensate` undoes nothing: none of the agent's tools has an `[undo]`";
        table.problems.at(&words.place, message, "nothing to undo", None);
    }
    if !kinds.is_empty() && tool_calls_max > UNDONE_MAX {
        let message = format!(
            "an agent with `compensate` makes at most {UNDONE_MAX} tool calls, and {tool_calls_max} are allowed"
        );
        table.problems.at(
            &words.place,
            message,
            "too many to undo",
            Some("set `tool_calls_max` in `[limits]`".to_owned()),
        );
    }
    kinds.into_iter().collect()
}

fn read_model(table: &mut Table<'_>, models: &[String]) -> Option<ModelName> {
    let text = table.required_text("model")?;
    report_unknown(table.problems, "model", &text, models)?;
    parse(table.problems, text).map(|model| model.value)
}

fn read_tools(table: &mut Table<'_>, tools: &[String]) -> Option<Vec<ToolName>> {
    let texts = table.required_texts("tools")?;
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for text in texts.value {
        if !seen.insert(text.value.clone()) {
            table.problems.at(&text.place, format!("tool `{}` is listed twice", text.value), "again", None);
        }
        if report_unknown(table.problems, "tool", &text, tools).is_some() {
            names.extend(parse(table.problems, text).map(|tool| tool.value));
        }
    }
    Some(names)
}

fn report_unknown(problems: &Problems, kind: &str, text: &At<String>, known: &[String]) -> Option<()> {
    if known.contains(&text.value) {
        return Some(());
    }
    let help = suggestion(&text.value, known.iter().map(String::as_str));
    problems.at(&text.place, format!("unknown {kind} `{}`", text.value), format!("unknown {kind}"), Some(help));
    None
}
