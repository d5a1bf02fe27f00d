//! `[case.facts]`: what happened in the run before what is asked.

use std::collections::BTreeMap;

use mandate_domain::{RunFacts, ToolDefinition, ToolFacts, ToolName};

use super::Reader;
use crate::config::{
    problems::suggestion,
    reader::{Table, parse},
};

/// Most earlier calls of one tool in a case.
const CALLS_MAX: u64 = 10_000;

impl Reader<'_> {
    pub(super) fn facts(&self, table: &mut Table<'_>) -> Option<RunFacts> {
        let mut facts = RunFacts::default();
        let Some(mut table) = table.table("facts") else { return Some(facts) };
        facts.model_calls = number(&mut table, "model_calls");
        facts.tokens = number(&mut table, "tokens");
        facts.model_cost_micros = number(&mut table, "model_cost_micros");
        facts.denials = number(&mut table, "denials");
        facts.classes = table.texts("classes").map(|classes| self.classes(classes.value)).unwrap_or_default();
        let tools = table.table("tools");
        table.finish();
        match tools {
            Some(tools) => self.earlier_calls(facts, tools),
            None => Some(facts),
        }
    }

    fn earlier_calls(&self, facts: RunFacts, mut tools: Table<'_>) -> Option<RunFacts> {
        let mut facts = Some(facts);
        for name in tools.names() {
            let inner = tools.table(&name.value);
            let tool = parse::<ToolName>(self.problems, name).and_then(|name| {
                let tools = &self.config.catalog.tools;
                self.known("tool", &name, tools.keys().map(ToolName::as_str));
                tools.get(&name.value)
            });
            let sums = inner.zip(tool).map(|(inner, tool)| (tool, self.sums(inner, tool)));
            facts = facts.zip(sums).map(|(facts, (tool, sums))| facts.with_earlier_calls(tool, &sums));
        }
        facts
    }

    fn sums(&self, mut table: Table<'_>, tool: &ToolDefinition) -> ToolFacts {
        let calls = table.number_within("calls", 1..=CALLS_MAX, 1);
        let failures = table.number_within("failures", 0..=calls.min(CALLS_MAX), 0);
        let amounts = table.table("amounts").map(|amounts| self.amounts(amounts, tool)).unwrap_or_default();
        table.finish();
        let long = |n: u64| i64::try_from(n.min(CALLS_MAX)).unwrap_or_default();
        ToolFacts { calls: long(calls), failures: long(failures), amounts }
    }

    fn amounts(&self, mut table: Table<'_>, tool: &ToolDefinition) -> BTreeMap<String, i64> {
        let mut amounts = BTreeMap::new();
        for name in table.names() {
            if !tool.amounts.contains(&name.value) {
                let help = suggestion(&name.value, tool.amounts.iter().map(String::as_str));
                let message = format!("`{}` is no amount of tool `{}`", name.value, tool.name);
                self.problems.at(&name.place, message, "not an amount", Some(help));
            }
            amounts.insert(name.value.clone(), number(&mut table, &name.value));
        }
        amounts
    }
}

fn number(table: &mut Table<'_>, key: &str) -> i64 {
    table.number(key).map_or(0, |number| i64::try_from(number.value).unwrap_or(i64::MAX))
}
