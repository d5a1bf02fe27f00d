//! What an agent may do, as tables for people: at most 100 columns wide.

use mandate_domain::FieldPath;

use super::{Explained, Mask, OfTool, Rule, View, Word, asked};
use crate::output;

/// Widest line.
const COLUMNS_MAX: u16 = 100;

pub(super) fn text(explained: &Explained) -> String {
    let bundle: String = explained.bundle.as_str().chars().take(12).collect();
    let models = explained.models.iter().flat_map(|of| {
        let name = if of.own { format!("{} (its own)", of.model) } else { of.model.to_string() };
        with_name(&name, rule_rows(&of.rules))
    });
    let tools = explained.tools.iter().flat_map(|of| with_name(of.tool.as_str(), tool_rows(of)));
    let parts = [
        format!("{}, owner {}, policies {bundle}", explained.agent, explained.owner),
        output::table_within(COLUMNS_MAX, ["TOOL", "OUTCOME", "WHEN", "POLICY"], tools),
        output::table_within(COLUMNS_MAX, ["MODEL", "OUTCOME", "WHEN", "POLICY"], models),
        output::table_within(COLUMNS_MAX, ["WHO", "SEES", "DOES NOT SEE", "DEPENDS"], explained.views.iter().map(view)),
        "A deny wins over everything, and what nothing allows is denied.".to_owned(),
    ];
    parts.join("\n\n")
}

/// The name stands on the first row only.
fn with_name(name: &str, rows: Vec<[String; 3]>) -> Vec<[String; 4]> {
    let row = |(index, [outcome, when, policy]): (usize, [String; 3])| {
        [if index == 0 { name.to_owned() } else { String::new() }, outcome, when, policy]
    };
    rows.into_iter().enumerate().map(row).collect()
}

fn tool_rows(of: &OfTool) -> Vec<[String; 3]> {
    let mut rows = rule_rows(&of.rules);
    rows.extend(of.masked.iter().map(mask_row));
    rows
}

fn rule_rows(rules: &[Rule]) -> Vec<[String; 3]> {
    let mut rows: Vec<_> = rules.iter().map(|rule| [outcome(rule), when(rule), rule.policy.to_string()]).collect();
    if !rules.iter().any(|rule| rule.says == Word::Allow) {
        rows.push(["deny".to_owned(), "always: nothing allows it".to_owned(), String::new()]);
    }
    rows
}

fn outcome(rule: &Rule) -> String {
    match (rule.says, &rule.gate) {
        (Word::Allow, _) => "allow".to_owned(),
        (Word::RequireApproval, Some(gate)) => asked(gate),
        (Word::RequireApproval | Word::Deny, _) => "deny".to_owned(),
    }
}

fn when(rule: &Rule) -> String {
    rule.condition.clone().unwrap_or_else(|| "always".to_owned())
}

fn mask_row(mask: &Mask) -> [String; 3] {
    let fields: Vec<&str> = mask.fields.iter().map(named).collect();
    let fields = if fields.is_empty() { "fields without a label".to_owned() } else { fields.join(", ") };
    let when = match &mask.rules[..] {
        [] => format!("always: {fields}"),
        rules => format!("{fields}, unless revealed: {}", depends(rules)),
    };
    let policies: Vec<_> = mask.rules.iter().map(|rule| rule.policy.to_string()).collect();
    [format!("mask {}", mask.class), when, policies.join(", ")]
}

fn named(path: &FieldPath) -> &str {
    if path.as_str().is_empty() { "the whole result" } else { path.as_str() }
}

fn view(view: &View) -> [String; 4] {
    let names = |classes: &[mandate_domain::DataClass]| {
        let names: Vec<_> = classes.iter().map(ToString::to_string).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(", ") }
    };
    let depends: Vec<_> = view.depends.iter().map(|(class, rules)| format!("{class}: {}", depends(rules))).collect();
    [view.viewer.clone(), names(&view.sees), names(&view.does_not_see), depends.join("; ")]
}

fn depends(rules: &[Rule]) -> String {
    let rule = |rule: &Rule| format!("{} {} ({})", outcome(rule), when(rule), rule.policy);
    rules.iter().map(rule).collect::<Vec<_>>().join("; ")
}
