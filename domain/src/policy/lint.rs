//! What a policy may not do although Cedar's validator lets it: name what is not there, overflow, speak for others.
//!
//! After strict validation (no missing attribute, no wrong type) an overflow is the one way in which a policy can still
//! fail when it is evaluated. Every integer that the runtime hands over lies within ±2^53, so the range of an arithmetic
//! expression can be computed here, and one that might not fit into 64 bits is refused.

use cedar_policy::{Effect, Policy};
use miette::SourceSpan;
use serde_json::Value;

use super::{
    bundle::{PolicyScope, PolicySource},
    error::{PolicyProblem, did_you_mean},
    gate,
    registry::Registry,
    shape::INTEGER_MAX,
};

/// Functions of Cedar that can fail on values of the right type.
const MAY_FAIL: [&str; 5] = ["offset", "durationSince", "toDate", "toTime", "getTag"];

/// Something that is wrong with a policy.
pub(super) struct Flaw {
    pub(super) problem: PolicyProblem,
    pub(super) help: Option<String>,
    span: Option<SourceSpan>,
    /// The words in the policy's text that are wrong, where they can be told.
    words: Option<String>,
}

impl Flaw {
    /// Where it stands: the wrong words, or the whole policy.
    pub(super) fn place(&self, source: &PolicySource) -> Option<SourceSpan> {
        let span = self.span?;
        let text = source.text.get(span.offset()..span.offset() + span.len());
        let at = self.words.as_ref().and_then(|words| Some((text?.find(words.as_str())?, words.len())));
        Some(at.map_or(span, |(at, length)| SourceSpan::new((span.offset() + at).into(), length)))
    }
}

/// Everything of this kind that is wrong with a policy.
pub(super) fn flaws(policy: &Policy, scope: &PolicyScope, registry: &Registry) -> Vec<Flaw> {
    let body = policy.to_json().unwrap_or(Value::Null);
    let mut linter = Linter { span: gate::span_of(policy), registry, flaws: Vec::new() };
    linter.check_scope(policy, scope, &body);
    linter.walk(&body);
    linter.flaws
}

struct Linter<'a> {
    span: Option<SourceSpan>,
    registry: &'a Registry,
    flaws: Vec<Flaw>,
}

impl Linter<'_> {
    fn flaw(&mut self, problem: PolicyProblem, words: Option<String>, help: Option<String>) {
        self.flaws.push(Flaw { problem, help, span: self.span, words });
    }

    fn check_scope(&mut self, policy: &Policy, scope: &PolicyScope, body: &Value) {
        let PolicyScope::Below(scope) = scope else { return };
        if policy.effect() == Effect::Permit {
            let help = Some("move it to the shared folder `policies/`, or turn it into a `forbid`".to_owned());
            self.flaw(PolicyProblem::PermitBelow(scope.clone()), Some("permit".to_owned()), help);
        }
        if !speaks_only_for(body.get("principal"), scope) {
            let entity = match scope.split('/').count() {
                1 => format!("principal in Mandate::Tenant::\"{scope}\""),
                2 => format!("principal in Mandate::Unit::\"{scope}\""),
                _ => format!("principal == Mandate::Agent::\"{scope}\""),
            };
            let help = Some(format!("write `{entity}`"));
            self.flaw(PolicyProblem::OutsideScope(scope.clone()), Some("principal".to_owned()), help);
        }
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Value::Object(object) => {
                if let (2, Some(Value::String(of)), Some(Value::String(id))) =
                    (object.len(), object.get("type"), object.get("id"))
                {
                    self.check_name(of, id);
                }
                for (key, inner) in object {
                    if matches!(key.as_str(), "+" | "-" | "*" | "neg") && range(value).is_none() {
                        self.flaw(PolicyProblem::MayOverflow, None, Some(HELP_OVERFLOW.to_owned()));
                        // Said once for the whole expression.
                        return;
                    }
                    if MAY_FAIL.contains(&key.as_str()) && (inner.is_array() || inner.get("left").is_some()) {
                        self.flaw(PolicyProblem::MayFail(key.clone()), Some(key.clone()), None);
                    }
                    self.walk(inner);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Things that have to be configured. People come and go without configuration, so they are not looked up.
    fn check_name(&mut self, of: &str, id: &str) {
        let Some(kind) = of.strip_prefix("Mandate::") else { return };
        let registry = self.registry;
        let known: Vec<&str> = match kind {
            "Tool" => registry.tools.keys().map(crate::ToolName::as_str).collect(),
            "ToolServer" => registry.servers().into_iter().map(crate::ServerName::as_str).collect(),
            "Model" => registry.models.keys().map(crate::ModelName::as_str).collect(),
            "Provider" => registry.models.values().map(crate::ProviderName::as_str).collect(),
            "Group" => registry.groups.keys().map(crate::GroupName::as_str).collect(),
            "Agent" => registry.agents.iter().map(crate::AgentName::as_str).collect(),
            "Unit" => registry.agents.iter().map(crate::AgentName::unit).collect(),
            "Tenant" => registry.agents.iter().map(crate::AgentName::tenant).collect(),
            "Bundle" => vec!["active"],
            "Webhook" => vec!["notifications"],
            // Actions, data classes and audiences are in the schema, which says the same with a better place.
            _ => return,
        };
        if known.contains(&id) {
            return;
        }
        let help = did_you_mean(id, known.iter().copied()).or_else(|| {
            let all: std::collections::BTreeSet<_> = known.into_iter().collect();
            (!all.is_empty()).then(|| format!("known are {}", all.into_iter().collect::<Vec<_>>().join(", ")))
        });
        let problem = PolicyProblem::UnknownEntity { kind: kind.to_owned(), id: id.to_owned() };
        self.flaw(problem, Some(format!("\"{id}\"")), help);
    }
}

const HELP_OVERFLOW: &str = "`context.facts` already counts the request being decided: compare it with a constant";

/// Whether a principal constraint lets in nobody outside of `scope`.
fn speaks_only_for(principal: Option<&Value>, scope: &str) -> bool {
    let Some(principal) = principal else { return false };
    let entity = match principal.get("op").and_then(Value::as_str) {
        Some("==" | "in") => principal.get("entity"),
        Some("is") => principal.get("in").and_then(|inner| inner.get("entity")),
        Some(_) | None => None,
    };
    let text = |key: &str| entity.and_then(|entity| entity.get(key)).and_then(Value::as_str).unwrap_or_default();
    let inside = text("id") == scope || text("id").strip_prefix(scope).is_some_and(|rest| rest.starts_with('/'));
    matches!(text("type"), "Mandate::Agent" | "Mandate::Unit" | "Mandate::Tenant") && inside
}

/// The range of an integer expression; none if it may leave Cedar's 64 bits.
fn range(expression: &Value) -> Option<(i128, i128)> {
    let (least, most) = unchecked_range(expression)?;
    (i128::from(i64::MIN) <= least && most <= i128::from(i64::MAX)).then_some((least, most))
}

fn unchecked_range(expression: &Value) -> Option<(i128, i128)> {
    let sides = |operator: &str| {
        let sides = expression.get(operator)?;
        Some((sides.get("left")?, sides.get("right")?))
    };
    if let Some((left, right)) = sides("+") {
        let ((a, b), (c, d)) = (range(left)?, range(right)?);
        return Some((a + c, b + d));
    }
    if let Some((left, right)) = sides("-") {
        let ((a, b), (c, d)) = (range(left)?, range(right)?);
        return Some((a - d, b - c));
    }
    if let Some((left, right)) = sides("*") {
        let ((a, b), (c, d)) = (range(left)?, range(right)?);
        let products = [a * c, a * d, b * c, b * d];
        return Some((products.into_iter().min()?, products.into_iter().max()?));
    }
    if let Some(inner) = expression.get("neg").and_then(|neg| neg.get("arg")) {
        let (a, b) = range(inner)?;
        return Some((-b, -a));
    }
    if let Some(choice) = expression.get("if-then-else") {
        let ((a, b), (c, d)) = (range(choice.get("then")?)?, range(choice.get("else")?)?);
        return Some((a.min(c), b.max(d)));
    }
    match expression.get("Value").and_then(Value::as_i64) {
        Some(literal) => Some((literal.into(), literal.into())),
        // An attribute: whatever the runtime fills in.
        None => Some((-i128::from(INTEGER_MAX), INTEGER_MAX.into())),
    }
}
