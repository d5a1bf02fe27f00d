//! What other policies would have said to what a run asked: each recorded decision, asked again with the facts as they
//! stood.
//!
//! Each decision is asked on its own, since what would have followed another answer is not on record. Tools are taken as
//! the policies that are asked describe them, and amounts of earlier calls are summed by that description where the
//! arguments are known. What cannot be asked again is reported, never left out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{PersonAction, PersonRequest, PolicyAction, PolicyBundle, PolicyDecision, PolicyRequest, RunOf};
use crate::{
    AgentName, AuditRecord, DecisionOutcome, EffectId, ModelName, PersonId, PolicyId, RecordBody, RequestId, RunFacts,
    ToolCallId, ToolDefinition, proof::InstructionKind, tool::arguments::ArgumentsSchema,
};

/// A run that is over or goes on, as the store has it.
#[derive(Debug, Clone, Copy)]
pub struct PastRun<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// Its owner.
    pub agent_owner: &'a PersonId,
    /// The person it acts for.
    pub on_behalf_of: &'a PersonId,
    /// Its workflow id.
    pub workflow_id: &'a str,
    /// The tools that it was offered.
    pub tools: &'a [ToolDefinition],
    /// Its audit records, in order.
    pub records: &'a [AuditRecord],
    /// The arguments of its calls, as far as they are known.
    pub arguments: &'a BTreeMap<ToolCallId, Map<String, Value>>,
}

/// A recorded decision, asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// What it was about: `t2.0`, `m1`, `start`, or a person's decision such as `r1-7f3a9c by bo@acme.example`.
    pub subject: String,
    /// The tool, model or agent.
    pub target: String,
    /// Position of the decision in the chain.
    pub sequence: u64,
    /// When it was recorded: microseconds since 1970-01-01 UTC.
    pub time_micros: u64,
    /// What was said then.
    pub then: Said,
    /// What would be said now; or why that cannot be told.
    pub now: Result<Said, NotReplayable>,
}

/// An answer with what determined it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The answer.
    pub outcome: DecisionOutcome,
    /// The policies.
    pub policies: BTreeSet<PolicyId>,
    /// In a sentence.
    pub reason: String,
}

/// Why a decision cannot be asked again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    /// They were erased, never stored, or are not those that were decided about.
    #[error("the arguments are not in the store")]
    NoArguments,
    /// The call would be refused before policy is asked.
    #[error("the arguments do not fit the tool's schema any more")]
    DoesNotFit,
    /// Policy had no part in it.
    #[error("a quarantine decided, not a policy")]
    Quarantine,
    /// The record refers to what is not on record.
    #[error("the record names something that is not on record")]
    Incomplete,
}

impl Replayed {
    /// Whether something else would happen now. That other policies permit or deny the same is no difference; that other
    /// gates ask is one.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.now.as_ref().is_ok_and(|now| {
            let asks = now.outcome == DecisionOutcome::RequireApproval;
            now.outcome != self.then.outcome || (asks && now.policies != self.then.policies)
        })
    }
}

/// Asks every decision that was recorded at or after `since_micros`, one answer for each subject: the first that differs,
/// or else the last. After a difference the record does not tell what would have followed.
#[must_use]
pub fn backtest(bundle: &PolicyBundle, run: &PastRun<'_>, since_micros: u64) -> Vec<Replayed> {
    let mut past = Past {
        bundle,
        run,
        facts: RunFacts::default(),
        requests: BTreeMap::new(),
        targets: BTreeMap::new(),
        questions: BTreeMap::new(),
    };
    let mut by_subject: Vec<Replayed> = Vec::new();
    for record in run.records {
        let replayed = past.ask(record);
        past.take(&record.body);
        let Some(replayed) = replayed.filter(|_| record.time_micros >= since_micros) else { continue };
        match by_subject.iter_mut().find(|known| known.subject == replayed.subject) {
            Some(known) if known.differs() => {}
            Some(known) => *known = replayed,
            None => by_subject.push(replayed),
        }
    }
    by_subject
}

/// How the reason of a refusal by quarantine reads in a record.
const IN_QUARANTINE: &str = "` is in quarantine: ";

fn is_quarantine(said: &Said) -> bool {
    said.outcome == DecisionOutcome::Deny && said.policies.is_empty() && said.reason.contains(IN_QUARANTINE)
}

fn said(outcome: DecisionOutcome, policies: &[PolicyId], reason: &str) -> Said {
    Said { outcome, policies: policies.iter().cloned().collect(), reason: reason.to_owned() }
}

/// What was said to a person's act: only a refusal is recorded in words.
fn act(policies: &[PolicyId], refused: Option<&str>) -> Said {
    let outcome = if refused.is_some() { DecisionOutcome::Deny } else { DecisionOutcome::Allow };
    said(outcome, policies, refused.unwrap_or_default())
}

impl From<PolicyDecision> for Said {
    fn from(decision: PolicyDecision) -> Self {
        said(decision.outcome.recorded(), &decision.policies, &decision.reason)
    }
}

/// What the chain says up to a record.
struct Past<'a> {
    bundle: &'a PolicyBundle,
    run: &'a PastRun<'a>,
    facts: RunFacts,
    /// The gate of each request.
    requests: BTreeMap<RequestId, PolicyId>,
    /// The tool of each call.
    targets: BTreeMap<EffectId, String>,
    /// The call of each question.
    questions: BTreeMap<String, EffectId>,
}

impl Past<'_> {
    fn take(&mut self, body: &RecordBody) {
        if let RecordBody::ApprovalRequested { request, gate, .. } = body {
            self.requests.insert(request.clone(), gate.id.clone());
        }
        if let RecordBody::QuestionAsked { question, effect, .. } = body {
            self.questions.insert(question.to_string(), *effect);
        }
        if let RecordBody::Decision { effect, target, .. } = body {
            self.targets.insert(*effect, target.clone());
        }
        self.facts.add(&self.as_described(body));
    }

    /// The record with the amounts and the cost of a call as the tool's description has them now.
    fn as_described(&self, body: &RecordBody) -> RecordBody {
        let mut body = body.clone();
        if let RecordBody::Intent { effect: EffectId::Tool(call), target, amounts, cost_micros, .. } = &mut body
            && let (Some(tool), Some(arguments)) = (self.tool(target), self.run.arguments.get(call))
        {
            *amounts = tool.amounts_of(arguments);
            *cost_micros = tool.cost_micros;
        }
        body
    }

    /// The tool as the asked policies describe it, or as the run was offered it.
    fn tool(&self, name: &str) -> Option<&ToolDefinition> {
        let known = self.bundle.registry().tools.values().find(|tool| tool.name.as_str() == name);
        known.or_else(|| self.run.tools.iter().find(|tool| tool.name.as_str() == name))
    }

    fn ask(&self, record: &AuditRecord) -> Option<Replayed> {
        let (subject, target, then, now) = match &record.body {
            RecordBody::Decision { effect, target, outcome, policies, approved, reason, .. } => {
                let then = said(*outcome, policies, reason);
                (effect.to_string(), target.clone(), then, self.ask_effect(*effect, target, approved))
            }
            // Without a bundle no policy was asked.
            RecordBody::ApprovalDecided {
                request, effect, verdict, by, policies, bundle: Some(_), refused, ..
            } => {
                let now =
                    match (self.tool_of(*effect), self.requests.get(request)) {
                        (Some(tool), Some(gate)) => Ok(self
                            .ask_person(by, PersonAction::Decide { run: self.about(), tool, gate, verdict: *verdict })),
                        (None, _) | (_, None) => Err(NotReplayable::Incomplete),
                    };
                (format!("{request} by {by}"), self.target_of(*effect), act(policies, refused.as_deref()), now)
            }
            RecordBody::Resolved { effect, by, policies, bundle: Some(_), refused, .. } => {
                let action = self.tool_of(*effect).map(|tool| PersonAction::Resolve { run: self.about(), tool });
                let now = action.map(|action| self.ask_person(by, action)).ok_or(NotReplayable::Incomplete);
                (format!("{effect} by {by}"), self.target_of(*effect), act(policies, refused.as_deref()), now)
            }
            RecordBody::Instructed { instruction, about, by, policies, bundle: Some(_), refused, .. } => {
                let action = self.instruction(*instruction, about.as_deref());
                let now = action.map(|action| self.ask_person(by, action)).ok_or(NotReplayable::Incomplete);
                let target = self.run.agent.to_string();
                (format!("{} by {by}", instruction.as_str()), target, act(policies, refused.as_deref()), now)
            }
            RecordBody::RunOpened { started_by, policies, .. } => {
                let by = started_by.as_ref().unwrap_or(self.run.on_behalf_of);
                let now = self.ask_person(by, PersonAction::StartRun { run: self.about() });
                ("start".to_owned(), self.run.agent.to_string(), act(policies, None), Ok(now))
            }
            RecordBody::ApprovalDecided { bundle: None, .. }
            | RecordBody::Resolved { bundle: None, .. }
            | RecordBody::Instructed { bundle: None, .. }
            | RecordBody::CallRefused { .. }
            | RecordBody::Intent { .. }
            | RecordBody::Outcome { .. }
            | RecordBody::LateOutcome { .. }
            | RecordBody::NotSent { .. }
            | RecordBody::OutcomeUnknown { .. }
            | RecordBody::ApprovalRequested { .. }
            | RecordBody::ApprovalExpired { .. }
            | RecordBody::ApprovalEscalated { .. }
            | RecordBody::CallRevised { .. }
            | RecordBody::QuestionAsked { .. }
            | RecordBody::QuestionExpired { .. }
            | RecordBody::CallAbandoned { .. }
            | RecordBody::MessagesRefused { .. }
            | RecordBody::Intrusion { .. }
            | RecordBody::Halted { .. }
            | RecordBody::RunReconciled { .. }
            | RecordBody::RunReset { .. }
            | RecordBody::StoreBehindRun { .. }
            | RecordBody::RunClosed { .. }
            | RecordBody::BundleApplied { .. }
            | RecordBody::Quarantined { .. }
            | RecordBody::QuarantineLifted { .. }
            | RecordBody::OperatorRefused { .. } => return None,
        };
        let now = if is_quarantine(&then) { Err(NotReplayable::Quarantine) } else { now };
        Some(Replayed { subject, target, sequence: record.sequence, time_micros: record.time_micros, then, now })
    }

    fn ask_effect(&self, effect: EffectId, target: &str, approved: &[PolicyId]) -> Result<Said, NotReplayable> {
        let approved: BTreeSet<PolicyId> = approved.iter().cloned().collect();
        match effect {
            EffectId::Model(_) => {
                let model = ModelName::parse(target).map_err(|_| NotReplayable::Incomplete)?;
                let facts = self.facts.with_model_call();
                Ok(self.decide(PolicyAction::InvokeModel { model: &model }, &facts, &approved))
            }
            EffectId::Notice(notice) => {
                let action = PolicyAction::Notify { kind: notice.kind };
                Ok(self.decide(action, &self.facts, &approved))
            }
            EffectId::Tool(call) => {
                let tool = self.tool(target).ok_or(NotReplayable::Incomplete)?;
                let arguments = self.run.arguments.get(&call).ok_or(NotReplayable::NoArguments)?;
                let schema = ArgumentsSchema::compile(&tool.input_schema).map_err(|_| NotReplayable::DoesNotFit)?;
                schema.check(arguments).map_err(|_| NotReplayable::DoesNotFit)?;
                let facts = self.facts.with_call(call, tool, &tool.amounts_of(arguments));
                Ok(self.decide(PolicyAction::CallTool { tool, arguments }, &facts, &approved))
            }
        }
    }

    fn decide(&self, action: PolicyAction<'_>, facts: &RunFacts, approved: &BTreeSet<PolicyId>) -> Said {
        let PastRun { agent, agent_owner, on_behalf_of, workflow_id, .. } = *self.run;
        let request = PolicyRequest { agent, agent_owner, on_behalf_of, workflow_id, action, facts, approved };
        self.bundle.decide(&request).into()
    }

    fn ask_person(&self, person: &PersonId, action: PersonAction<'_>) -> Said {
        self.bundle.decide_person(&PersonRequest { person, action }).into()
    }

    fn about(&self) -> RunOf<'_> {
        let PastRun { agent, agent_owner, on_behalf_of, workflow_id, .. } = *self.run;
        RunOf { agent, agent_owner, on_behalf_of, workflow_id }
    }

    fn instruction(&self, kind: InstructionKind, about: Option<&str>) -> Option<PersonAction<'_>> {
        let run = self.about();
        match kind {
            InstructionKind::Steer => Some(PersonAction::Steer { run }),
            InstructionKind::Pause => Some(PersonAction::Pause { run }),
            InstructionKind::Resume => Some(PersonAction::Resume { run }),
            InstructionKind::Answer => {
                let effect = self.questions.get(about?)?;
                self.tool_of(*effect).map(|tool| PersonAction::Answer { run, tool })
            }
            // Each has a record of its own.
            InstructionKind::Resolve | InstructionKind::Halt => None,
        }
    }

    fn tool_of(&self, effect: EffectId) -> Option<&ToolDefinition> {
        self.tool(self.targets.get(&effect)?)
    }

    fn target_of(&self, effect: EffectId) -> String {
        self.targets.get(&effect).cloned().unwrap_or_default()
    }
}
