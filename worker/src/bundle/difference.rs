//! What would change if another bundle became the active one: policies, tools, groups, models, data classes, agents.
//!
//! Deliberately absent: what the change means. Two policies with other texts may decide alike.

use std::{collections::BTreeMap, fmt::Display};

use mandate_domain::{
    AgentName, ToolDefinition,
    policy::{PolicyBundle, Registry},
    render,
};
use serde::Serialize;
use serde_json::{Map, Value};
use similar::{ChangeTag, TextDiff};

/// Lines around a change that are shown with it.
const CONTEXT: usize = 1;

/// What would change, kind by kind.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Policies, by id.
    pub policies: Section,
    /// Registered tools.
    pub tools: Section,
    /// Groups of people.
    pub groups: Section,
    /// Models.
    pub models: Section,
    /// Data classes.
    pub data_classes: Section,
    /// Agents.
    pub agents: Section,
}

/// What would change of one kind, each by name.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What there was not before.
    pub added: Vec<Entry>,
    /// What there is no more.
    pub removed: Vec<Entry>,
    /// What is another.
    pub changed: Vec<Entry>,
}

/// One thing, and in lines what is to be said of it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its content, or what changes in it.
    pub lines: Vec<String>,
}

impl Difference {
    /// What has to change to get from one bundle, or from none, to another.
    #[must_use]
    pub fn between(before: Option<&PolicyBundle>, after: &PolicyBundle) -> Self {
        let (old, new) = (before.map(PolicyBundle::registry), after.registry());
        let texts = before.map(PolicyBundle::policy_texts);
        let same = |name: &str| vec![name.to_owned()];
        Self {
            policies: section(
                texts.as_ref(),
                &after.policy_texts(),
                |text| text_lines(text),
                |a, b| text_difference(a, b),
            ),
            tools: section(old.map(|old| &old.tools), &new.tools, |tool| same(&tool.description), tool_difference),
            groups: section(
                old.map(|old| &old.groups),
                &new.groups,
                |group| names(group),
                |a, b| members(&names(a), &names(b)),
            ),
            models: section(old.map(|old| &old.models), &new.models, |provider| same(provider.as_str()), arrow),
            data_classes: section(old.map(|old| &old.data_classes), &new.data_classes, |text| same(text), arrow),
            agents: section(old.map(agents).as_ref(), &agents(new), |_| Vec::new(), |_, _| Vec::new()),
        }
    }

    /// Whether nothing that can be named changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For people: a line for each thing, what is to be said of it below.
    #[must_use]
    pub fn text(&self) -> String {
        let sections = [
            ("policy", &self.policies),
            ("tool", &self.tools),
            ("group", &self.groups),
            ("model", &self.models),
            ("data class", &self.data_classes),
            ("agent", &self.agents),
        ];
        let mut lines = Vec::new();
        for (kind, section) in sections {
            for (sign, entries) in [("-", &section.removed), ("+", &section.added), ("~", &section.changed)] {
                for entry in entries {
                    lines.push(format!("{sign} {kind} {}", entry.name));
                    lines.extend(entry.lines.iter().map(|line| format!("    {line}")));
                }
            }
        }
        lines.iter().map(|line| render::escape_line(line).trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

fn section<K: Ord + Display, V: PartialEq>(
    before: Option<&BTreeMap<K, V>>,
    after: &BTreeMap<K, V>,
    content: impl Fn(&V) -> Vec<String>,
    difference: impl Fn(&V, &V) -> Vec<String>,
) -> Section {
    let mut section = Section::default();
    for (name, value) in before.into_iter().flatten().filter(|(name, _)| !after.contains_key(name)) {
        section.removed.push(Entry { name: name.to_string(), lines: content(value) });
    }
    for (name, value) in after {
        match before.and_then(|before| before.get(name)) {
            None => section.added.push(Entry { name: name.to_string(), lines: content(value) }),
            Some(old) if old != value => {
                section.changed.push(Entry { name: name.to_string(), lines: difference(old, value) });
            }
            Some(_) => {}
        }
    }
    section
}

fn agents(registry: &Registry) -> BTreeMap<&AgentName, &AgentName> {
    registry.agents.iter().map(|agent| (agent, agent)).collect()
}

fn text_lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn names(items: &[impl Display]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn arrow(before: &impl Display, after: &impl Display) -> Vec<String> {
    vec![format!("{before} → {after}")]
}

fn members(before: &[String], after: &[String]) -> Vec<String> {
    let only = |sign: &str, these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|name| !those.contains(name)).map(|name| format!("{sign} {name}")).collect()
    };
    let changed = [only("-", before, after), only("+", after, before)].concat();
    if changed.is_empty() { vec!["the same members in another order".to_owned()] } else { changed }
}

/// Lines that go and lines that come, with what stands around them.
pub(crate) fn text_difference(before: &str, after: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(before, after);
    let mut lines = Vec::new();
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            lines.push("…".to_owned());
        }
        for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
            let sign = match change.tag() {
                ChangeTag::Equal => " ",
                ChangeTag::Delete => "-",
                ChangeTag::Insert => "+",
            };
            lines.push(format!("{sign} {}", change.value().trim_end_matches('\n')));
        }
    }
    lines
}

/// The attributes that differ.
fn tool_difference(before: &ToolDefinition, after: &ToolDefinition) -> Vec<String> {
    let (before, after) = (attributes(before), attributes(after));
    let missing = Value::Null;
    let mut lines = Vec::new();
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        let (old, new) = (before.get(name).unwrap_or(&missing), after.get(name).unwrap_or(&missing));
        if old != new {
            lines.extend(attribute_difference(name, old, new));
        }
    }
    lines
}

fn attributes(tool: &ToolDefinition) -> Map<String, Value> {
    match serde_json::to_value(tool) {
        Ok(Value::Object(attributes)) => attributes,
        // A definition is always an object.
        Ok(_) | Err(_) => Map::new(),
    }
}

fn attribute_difference(name: &str, before: &Value, after: &Value) -> Vec<String> {
    let nested = |value: &Value| value.is_object() || value.is_array();
    if !nested(before) && !nested(after) {
        return vec![format!("{name}: {} → {}", plain(before), plain(after))];
    }
    let pretty = |value: &Value| if value.is_null() { String::new() } else { format!("{value:#}\n") };
    let lines = text_difference(&pretty(before), &pretty(after));
    std::iter::once(format!("{name}:")).chain(lines.into_iter().map(|line| format!("  {line}"))).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests;
