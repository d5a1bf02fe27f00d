//! Annotations of one policy: its id, its reason, and the gate that it describes.
//!
//! A gate is a `forbid` with `@decision("require_approval")` that opens when its own id is among the approved. Its
//! annotations describe the request and grant nothing.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Effect, Policy};
use miette::SourceSpan;
use serde_json::{Value, json};

use super::error::{PolicyProblem, did_you_mean};
use crate::{
    GroupName, PersonId, PolicyId,
    approval::{Escalation, Gate, OnExpiry, Party},
};

const KNOWN: [&str; 11] = [
    "id",
    "decision",
    "approvers",
    "quorum",
    "four_eyes",
    "expires",
    "remind",
    "escalate",
    "escalate_to",
    "on_expiry",
    "reason",
];
const OF_A_GATE: [&str; 8] =
    ["approvers", "quorum", "four_eyes", "expires", "remind", "escalate", "escalate_to", "on_expiry"];

const EXPIRES_SECS_DEFAULT: u64 = 24 * 3600;
const EXPIRES_SECS_MAX: u64 = 30 * 24 * 3600;

/// Members of each group of people.
pub(super) type Groups = BTreeMap<GroupName, Vec<PersonId>>;

/// What a loaded policy is to the engine.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) id: PolicyId,
    pub(super) reason: Option<String>,
    pub(super) gate: Option<Gate>,
}

/// Something that is wrong with a policy, where, and what was probably meant.
pub(super) struct Flaw {
    pub(super) span: Option<SourceSpan>,
    pub(super) problem: PolicyProblem,
    pub(super) help: Option<String>,
}

/// Reads the annotations of a policy.
pub(super) fn read(policy: &Policy, groups: &Groups) -> Result<Rule, Vec<Flaw>> {
    let mut reader = Reader { policy, flaws: Vec::new() };
    reader.refuse_unknown();
    let id = reader.id();
    let gate = match (reader.is_gate(), &id) {
        (true, Some(id)) => reader.gate(id, groups),
        (true, None) => None,
        (false, _) => {
            reader.refuse_gate_annotations();
            None
        }
    };
    match id {
        Some(id) if reader.flaws.is_empty() => {
            Ok(Rule { id, reason: policy.annotation("reason").map(str::to_owned), gate })
        }
        Some(_) | None => Err(reader.flaws),
    }
}

/// Where a policy stands in its file.
pub(super) fn span_of(policy: &Policy) -> Option<SourceSpan> {
    // The public interface has no positions; this conversion to the parser's own tree has.
    AsRef::as_ref(policy).loc().map(|loc| loc.span)
}

struct Reader<'a> {
    policy: &'a Policy,
    flaws: Vec<Flaw>,
}

impl Reader<'_> {
    /// The annotation, or the whole policy where it has none of that name.
    fn span(&self, annotation: &str) -> Option<SourceSpan> {
        AsRef::as_ref(self.policy)
            .annotations()
            .find(|(key, _)| key.to_string() == annotation)
            .and_then(|(_, value)| value.loc.as_ref())
            .map_or_else(|| span_of(self.policy), |loc| Some(loc.span))
    }

    fn flaw(&mut self, annotation: &str, problem: PolicyProblem) {
        self.flaw_with_help(annotation, problem, None);
    }

    fn flaw_with_help(&mut self, annotation: &str, problem: PolicyProblem, help: Option<String>) {
        self.flaws.push(Flaw { span: self.span(annotation), problem, help });
    }

    fn refuse_unknown(&mut self) {
        let unknown =
            self.policy.annotations().map(|(key, _)| key.to_owned()).filter(|key| !KNOWN.contains(&key.as_str()));
        for key in unknown.collect::<Vec<_>>() {
            let help = did_you_mean(&key, KNOWN).or_else(|| Some(format!("known are {}", KNOWN.join(", "))));
            self.flaw_with_help(&key, PolicyProblem::UnknownAnnotation(key.clone()), help);
        }
    }

    fn refuse_gate_annotations(&mut self) {
        for key in OF_A_GATE {
            if self.policy.annotation(key).is_some() {
                self.flaw(key, PolicyProblem::NotAGate(key));
            }
        }
        if !approved_uses(&body(self.policy)).is_empty() {
            self.flaw("", PolicyProblem::ApprovedElsewhere);
        }
    }

    fn id(&mut self) -> Option<PolicyId> {
        let Some(text) = self.policy.annotation("id") else {
            self.flaw("", PolicyProblem::MissingId);
            return None;
        };
        PolicyId::parse(text).map_err(|error| self.flaw("id", PolicyProblem::BadId(error))).ok()
    }

    fn is_gate(&mut self) -> bool {
        match (self.policy.annotation("decision"), self.policy.effect()) {
            (None, _) => false,
            (Some("require_approval"), Effect::Forbid) => true,
            (Some("require_approval"), Effect::Permit) => {
                self.flaw("decision", PolicyProblem::GateOnPermit);
                true
            }
            (Some(other), _) => {
                let help = did_you_mean(other, ["require_approval"]);
                self.flaw_with_help("decision", PolicyProblem::UnknownDecision(other.to_owned()), help);
                true
            }
        }
    }

    fn gate(&mut self, id: &PolicyId, groups: &Groups) -> Option<Gate> {
        self.require_opening(id);
        let approvers = self.groups("approvers", groups);
        if list(self.policy.annotation("approvers")).is_empty() {
            self.flaw("approvers", PolicyProblem::MissingApprovers);
        }
        let quorum = self.quorum(&approvers, groups);
        let four_eyes = self.four_eyes();
        let expires_secs = self.expires_secs();
        let remind_secs = self.wait_secs("remind", expires_secs);
        let escalation = self.escalation(groups, expires_secs);
        let on_expiry = self.on_expiry();
        let reason =
            self.policy.annotation("reason").map_or_else(|| format!("policy {id} asks for approval"), str::to_owned);
        let (id, quorum, expires_secs) = (id.clone(), quorum?, expires_secs?);
        Some(Gate { id, approvers, quorum, four_eyes, expires_secs, reason, remind_secs, escalation, on_expiry })
    }

    fn require_opening(&mut self, id: &PolicyId) {
        let body = body(self.policy);
        let opening = json!({ "contains": { "left": approved(), "right": { "Value": id.as_str() } } });
        let opens = |condition: &Value| {
            condition.get("kind").is_some_and(|kind| kind == "unless") && condition.get("body") == Some(&opening)
        };
        let conditions = body.get("conditions").and_then(Value::as_array);
        if !conditions.is_some_and(|conditions| conditions.iter().any(opens)) {
            self.flaw("", PolicyProblem::GateNeverOpens(id.to_string()));
        } else if approved_uses(&body).len() > 1 {
            self.flaw("", PolicyProblem::ApprovedElsewhere);
        }
    }

    /// The groups that an annotation names, each configured and with members.
    fn groups(&mut self, annotation: &str, groups: &Groups) -> Vec<GroupName> {
        let mut named = Vec::new();
        for name in list(self.policy.annotation(annotation)) {
            match GroupName::parse(name).map_err(PolicyProblem::BadGroup).and_then(|name| configured(name, groups)) {
                Ok(name) => named.push(name),
                Err(problem) => {
                    let help = did_you_mean(name, groups.keys().map(GroupName::as_str));
                    self.flaw_with_help(annotation, problem, help);
                }
            }
        }
        named
    }

    fn quorum(&mut self, approvers: &[GroupName], groups: &Groups) -> Option<u32> {
        let text = self.policy.annotation("quorum").unwrap_or("1");
        let Some(quorum) = text.parse::<u32>().ok().filter(|quorum| *quorum >= 1) else {
            self.flaw("quorum", PolicyProblem::BadQuorum(text.to_owned()));
            return None;
        };
        let members = approvers.iter().filter_map(|name| groups.get(name)).flatten().collect::<BTreeSet<_>>().len();
        // Without approvers that is said already.
        if !approvers.is_empty() && members < usize::try_from(quorum).unwrap_or(usize::MAX) {
            self.flaw("quorum", PolicyProblem::QuorumOutOfReach { quorum, members });
        }
        Some(quorum)
    }

    fn four_eyes(&mut self) -> Vec<Party> {
        let mut parties = Vec::new();
        for name in list(self.policy.annotation("four_eyes")) {
            if let Some(party) = Party::ALL.into_iter().find(|party| party.as_str() == name) {
                parties.push(party);
            } else {
                let help = did_you_mean(name, Party::ALL.map(Party::as_str));
                self.flaw_with_help("four_eyes", PolicyProblem::UnknownParty(name.to_owned()), help);
            }
        }
        if parties.is_empty() && self.policy.annotation("four_eyes").is_some_and(|text| list(Some(text)).is_empty()) {
            self.flaw("four_eyes", PolicyProblem::UnknownParty(String::new()));
        }
        parties
    }

    fn expires_secs(&mut self) -> Option<u64> {
        let Some(text) = self.policy.annotation("expires") else { return Some(EXPIRES_SECS_DEFAULT) };
        let secs = duration_secs(text).filter(|secs| (1..=EXPIRES_SECS_MAX).contains(secs));
        if secs.is_none() {
            self.flaw("expires", PolicyProblem::BadExpires(text.to_owned()));
        }
        secs
    }

    /// A time within that of the request.
    fn wait_secs(&mut self, annotation: &'static str, expires_secs: Option<u64>) -> Option<u64> {
        let text = self.policy.annotation(annotation)?.to_owned();
        let end = expires_secs.unwrap_or(EXPIRES_SECS_MAX);
        let secs = duration_secs(&text).filter(|secs| (1..end).contains(secs));
        if secs.is_none() {
            self.flaw(annotation, PolicyProblem::BadWait { annotation, text });
        }
        secs
    }

    fn escalation(&mut self, groups: &Groups, expires_secs: Option<u64>) -> Option<Escalation> {
        let (after, to) = ("escalate", "escalate_to");
        match (self.policy.annotation(after).is_some(), self.policy.annotation(to).is_some()) {
            (false, false) => None,
            (true, true) => {
                if list(self.policy.annotation(to)).is_empty() {
                    self.flaw(to, PolicyProblem::NobodyToAsk);
                }
                let (after_secs, to) = (self.wait_secs(after, expires_secs), self.groups(to, groups));
                Some(Escalation { after_secs: after_secs?, to })
            }
            (true, false) => {
                self.flaw(after, PolicyProblem::HalfEscalation { there: after, missing: to });
                None
            }
            (false, true) => {
                self.flaw(to, PolicyProblem::HalfEscalation { there: to, missing: after });
                None
            }
        }
    }

    fn on_expiry(&mut self) -> OnExpiry {
        match self.policy.annotation("on_expiry") {
            None | Some("deny") => OnExpiry::Deny,
            Some("halt") => OnExpiry::Halt,
            Some(other) => {
                let help = did_you_mean(other, ["deny", "halt"]);
                self.flaw_with_help("on_expiry", PolicyProblem::UnknownOnExpiry(other.to_owned()), help);
                OnExpiry::Deny
            }
        }
    }
}

fn configured(name: GroupName, groups: &Groups) -> Result<GroupName, PolicyProblem> {
    match groups.get(&name) {
        None => Err(PolicyProblem::UnknownGroup(name)),
        Some(members) if members.is_empty() => Err(PolicyProblem::EmptyGroup(name)),
        Some(_) => Ok(name),
    }
}

fn list(text: Option<&str>) -> Vec<&str> {
    text.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// The policy in Cedar's JSON form. One that has none matches nothing below, and is refused for it.
fn body(policy: &Policy) -> Value {
    policy.to_json().unwrap_or(Value::Null)
}

fn approved() -> Value {
    json!({ ".": { "left": { "Var": "context" }, "attr": "approved" } })
}

/// Every place where the text reads `context.approved`.
fn approved_uses(value: &Value) -> Vec<&Value> {
    let nested: Vec<&Value> = match value {
        Value::Array(items) => items.iter().flat_map(approved_uses).collect(),
        Value::Object(entries) => entries.values().flat_map(approved_uses).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    if *value == approved() { vec![value] } else { nested }
}

/// Seconds of an ISO 8601 duration of whole days, hours, minutes and seconds: `P1DT12H`, `PT30M`.
fn duration_secs(text: &str) -> Option<u64> {
    let (date, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None => (text.strip_prefix('P')?, ""),
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    parts(date, &[('D', 86_400)])?.checked_add(parts(time, &[('H', 3600), ('M', 60), ('S', 1)])?)
}

fn parts(mut text: &str, units: &[(char, u64)]) -> Option<u64> {
    let mut total = 0_u64;
    for (unit, secs) in units {
        if let Some((digits, rest)) = text.split_once(*unit) {
            // `parse` takes a sign, the standard does not.
            let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok())??;
            total = total.checked_add(number.checked_mul(*secs)?)?;
            text = rest;
        }
    }
    text.is_empty().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::duration_secs;

    #[test]
    fn a_duration_is_days_hours_minutes_seconds_in_that_order() {
        for (text, secs) in [("PT24H", 86_400), ("P2D", 172_800), ("PT30M", 1800), ("P1DT1H1M1S", 90_061), ("PT0S", 0)]
        {
            assert_eq!(duration_secs(text), Some(secs), "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "P1DT",
            "24H",
            "PT1M1H",
            "PT-1H",
            "PT+1H",
            "PTH",
            "P1W",
            "P1H",
            "PT1.5H",
            "PT99999999999999999999H",
        ] {
            assert_eq!(duration_secs(text), None, "{text}");
        }
    }
}
