//! Which tools' sums the policies of an action read, so that a question carries no others: with 50 tools, handing over
//! the sums of all of them is what a decision would spend most of its time on.
//!
//! A policy reads the sums of a tool by its name alone, so a name that stands in none of its conditions is not read. What
//! cannot be told counts as read. Were a name missed here, the policy could not be evaluated, which denies.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Policy, PolicySet};
use serde_json::Value;

use super::registry::Registry;
use crate::ToolName;

/// The actions that are told facts and are no tools.
pub(super) const INVOKE_MODEL: &str = "invoke_model";
pub(super) const NOTIFY: &str = "notify";

/// The tools, by the action whose policies read their sums.
pub(super) type Reads = BTreeMap<String, BTreeSet<ToolName>>;

/// What the policies of each action read.
pub(super) fn of(policies: &PolicySet, registry: &Registry) -> Reads {
    let actions = registry.tools.keys().map(ToString::to_string).chain([INVOKE_MODEL.to_owned(), NOTIFY.to_owned()]);
    let mut reads: Reads = actions.map(|action| (action, BTreeSet::new())).collect();
    for policy in policies.policies() {
        let (actions, tools) = of_policy(policy, registry);
        let speaks_for = |action: &str| actions.as_ref().is_none_or(|actions| actions.contains(action));
        for (_, read) in reads.iter_mut().filter(|(action, _)| speaks_for(action)) {
            read.extend(tools.iter().cloned());
        }
    }
    reads
}

/// The actions of a policy, if they are tools by name, and the tools that its conditions name.
fn of_policy(policy: &Policy, registry: &Registry) -> (Option<BTreeSet<String>>, BTreeSet<ToolName>) {
    let Ok(body) = policy.to_json() else { return (None, registry.tools.keys().cloned().collect()) };
    let part = |key: &str| body.get(key).map(texts).unwrap_or_default();
    let (conditions, scope) = (part("conditions"), body.get("action").map(ids).unwrap_or_default());
    let is_tool = |name: &str| registry.tools.keys().any(|tool| tool.as_str() == name);
    // A group of actions or no action at all: whichever.
    let by_name = !scope.is_empty() && scope.iter().all(|name| is_tool(name));
    let actions = by_name.then(|| scope.into_iter().map(str::to_owned).collect());
    (actions, registry.tools.keys().filter(|tool| conditions.contains(tool.as_str())).cloned().collect())
}

/// All texts in a value, keys of objects too: an attribute is named by either.
fn texts(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::String(text) => BTreeSet::from([text.as_str()]),
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(entries) => {
            entries.iter().flat_map(|(key, value)| std::iter::once(key.as_str()).chain(texts(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => BTreeSet::new(),
    }
}

/// The ids of the entities in a value.
fn ids(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Array(items) => items.iter().flat_map(ids).collect(),
        Value::Object(entries) => {
            let own = entries.get("id").and_then(Value::as_str);
            own.into_iter().chain(entries.values().flat_map(ids)).collect()
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => BTreeSet::new(),
    }
}
