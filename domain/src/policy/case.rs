//! One case of a policy test: what is asked, what is expected, and what the policies say to it.
//!
//! A case is asked in the same words as the governed path asks. Deliberately absent: whether the arguments fit the
//! tool's schema, and where cases are read from.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

use super::{
    PersonAction, PersonRequest, PolicyAction, PolicyBundle, PolicyDecision, PolicyRequest, RunOf, Viewer, engine,
    question,
};
use crate::{
    AgentName, DataClass, DecisionOutcome, GroupName, ModelName, PersonId, PolicyId, QuarantineTarget, RunFacts,
    ToolCallId, ToolDefinition, Verdict,
};

/// The call that a case asks about. No recorded call has this number.
const ASKED: ToolCallId = ToolCallId { turn: u32::MAX, index: 0, revision: 1, undo: false };

/// A case.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyCase {
    /// What is asked.
    pub asked: Asked,
    /// The answer that is expected.
    pub expected: Answered,
    /// The policies that have to determine the answer, if the case says which.
    pub policies: Option<BTreeSet<PolicyId>>,
    /// A part of the reason, if the case says one.
    pub reason: Option<String>,
}

/// What a case asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Whether an agent may call a tool.
    CallTool {
        /// The run.
        run: CaseRun,
        /// The tool.
        tool: Box<ToolDefinition>,
        /// Arguments that fit its schema.
        arguments: Map<String, Value>,
        /// What happened before the call.
        before: RunFacts,
        /// The gates that are open.
        approved: BTreeSet<PolicyId>,
    },
    /// Whether an agent may call a model.
    InvokeModel {
        /// The run.
        run: CaseRun,
        /// The model.
        model: ModelName,
        /// What happened before the call.
        before: RunFacts,
    },
    /// Whether a person may do something.
    Act {
        /// The person.
        person: PersonId,
        /// What they do.
        act: CaseAct,
    },
    /// Which classes somebody may see.
    Reveal {
        /// Who looks.
        viewer: CaseViewer,
        /// The person that the run acts for.
        on_behalf_of: PersonId,
        /// The classes.
        classes: BTreeSet<DataClass>,
    },
}

/// What it is about, in a few words: `payments.refund`, `model support`, `apply`, `reveal to history`.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CallTool { tool, .. } => write!(f, "{}", tool.name),
            Self::InvokeModel { model, .. } => write!(f, "model {model}"),
            Self::Act { act, .. } => act.fmt(f),
            Self::Reveal { viewer, .. } => write!(f, "reveal to {viewer}"),
        }
    }
}

/// The run that a case is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseRun {
    /// The agent.
    pub agent: AgentName,
    /// Its owner.
    pub agent_owner: PersonId,
    /// The person it acts for.
    pub on_behalf_of: PersonId,
    /// Its workflow id.
    pub workflow_id: String,
}

/// What a person does in a case.
#[derive(Debug, Clone, PartialEq)]
pub enum CaseAct {
    /// Start a run.
    StartRun(CaseRun),
    /// Decide about a request.
    Decide {
        /// The run.
        run: CaseRun,
        /// The call's tool.
        tool: Box<ToolDefinition>,
        /// The gate.
        gate: PolicyId,
        /// What they say.
        verdict: Verdict,
    },
    /// Say what became of a call.
    Resolve {
        /// The run.
        run: CaseRun,
        /// The call's tool.
        tool: Box<ToolDefinition>,
    },
    /// Answer a question.
    Answer {
        /// The run.
        run: CaseRun,
        /// The tool that asks.
        tool: Box<ToolDefinition>,
    },
    /// Give a further instruction.
    Steer(CaseRun),
    /// Keep a run from beginning anything new.
    Pause(CaseRun),
    /// Let a paused run go on.
    Resume(CaseRun),
    /// Put something into quarantine.
    Quarantine(QuarantineTarget),
    /// Take something out of quarantine.
    LiftQuarantine(QuarantineTarget),
    /// Make a bundle the active one.
    Apply {
        /// Whether it was active before.
        rollback: bool,
    },
}

impl fmt::Display for CaseAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartRun(run) => write!(f, "start_run {}", run.agent),
            Self::Decide { tool, verdict: Verdict::Approve, .. } => write!(f, "approve {}", tool.name),
            Self::Decide { tool, verdict: Verdict::Reject, .. } => write!(f, "reject {}", tool.name),
            Self::Resolve { tool, .. } => write!(f, "resolve {}", tool.name),
            Self::Answer { tool, .. } => write!(f, "answer {}", tool.name),
            Self::Steer(run) => write!(f, "steer {}", run.agent),
            Self::Pause(run) => write!(f, "pause {}", run.agent),
            Self::Resume(run) => write!(f, "resume {}", run.agent),
            Self::Quarantine(target) => write!(f, "quarantine {target}"),
            Self::LiftQuarantine(target) => write!(f, "lift_quarantine {target}"),
            Self::Apply { rollback: false } => f.write_str("apply"),
            Self::Apply { rollback: true } => f.write_str("rollback"),
        }
    }
}

/// Who looks in a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaseViewer {
    /// The agent, through a model.
    Agent {
        /// The agent.
        agent: AgentName,
        /// Its owner.
        agent_owner: PersonId,
        /// The model.
        model: ModelName,
    },
    /// The people of a group.
    Group(GroupName),
    /// Whoever reads the event history.
    History,
    /// Whoever reads the final answer.
    Answer,
}

impl fmt::Display for CaseViewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { agent, model, .. } => write!(f, "{agent} through model {model}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::History => f.write_str("history"),
            Self::Answer => f.write_str("answer"),
        }
    }
}

/// An answer in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// To whether something may be done.
    Decided(DecisionOutcome),
    /// To what may be seen.
    Revealed(BTreeSet<DataClass>),
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decided(outcome) => f.write_str(outcome.as_str()),
            Self::Revealed(classes) if classes.is_empty() => f.write_str("nothing revealed"),
            Self::Revealed(classes) => {
                let names: Vec<_> = classes.iter().map(DataClass::as_str).collect();
                write!(f, "revealed {}", names.join(", "))
            }
        }
    }
}

/// What the policies say to a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseAnswer {
    /// The answer.
    pub answered: Answered,
    /// The policies that determined it.
    pub policies: BTreeSet<PolicyId>,
    /// In a sentence.
    pub reason: String,
}

impl PolicyCase {
    /// What the policies say, and each way in which that is not what the case expects.
    #[must_use]
    pub fn check(&self, bundle: &PolicyBundle) -> (CaseAnswer, Vec<String>) {
        let answer = self.asked.answer(bundle);
        let mut wrong = Vec::new();
        if answer.answered != self.expected {
            wrong.push(format!("expected {}, got {}", self.expected, answer.answered));
        }
        if let Some(policies) = self.policies.as_ref().filter(|policies| **policies != answer.policies) {
            wrong.push(format!("expected by {}, got by {}", named(policies), named(&answer.policies)));
        }
        if let Some(reason) = self.reason.as_ref().filter(|reason| !answer.reason.contains(reason.as_str())) {
            wrong.push(format!("expected a reason with `{reason}`, got `{}`", answer.reason));
        }
        (answer, wrong)
    }
}

/// Policies in a sentence.
fn named(policies: &BTreeSet<PolicyId>) -> String {
    let names: Vec<_> = policies.iter().map(PolicyId::as_str).collect();
    if names.is_empty() { "no policy".to_owned() } else { names.join(", ") }
}

impl Asked {
    fn answer(&self, bundle: &PolicyBundle) -> CaseAnswer {
        match self {
            Self::CallTool { run, tool, arguments, before, approved } => {
                let facts = before.with_call(ASKED, tool, &tool.amounts_of(arguments));
                let action = PolicyAction::CallTool { tool, arguments };
                decided(bundle.decide(&run.request(action, &facts, approved)))
            }
            Self::InvokeModel { run, model, before } => {
                let (facts, approved) = (before.with_model_call(), BTreeSet::new());
                decided(bundle.decide(&run.request(PolicyAction::InvokeModel { model }, &facts, &approved)))
            }
            Self::Act { person, act } => decided(bundle.decide_person(&PersonRequest { person, action: act.action() })),
            Self::Reveal { viewer, on_behalf_of, classes } => {
                let mut answer = CaseAnswer {
                    answered: Answered::Decided(DecisionOutcome::Deny),
                    policies: BTreeSet::new(),
                    reason: String::new(),
                };
                let (mut seen, mut reasons) = (BTreeSet::new(), Vec::new());
                for class in classes {
                    let decision = bundle.decide_reveal(&viewer.viewer(), on_behalf_of, class);
                    if decision.is_allowed() {
                        seen.insert(class.clone());
                    }
                    answer.policies.extend(decision.policies);
                    reasons.push(format!("{class}: {}", decision.reason));
                }
                CaseAnswer { answered: Answered::Revealed(seen), reason: reasons.join("; "), ..answer }
            }
        }
    }
}

fn decided(decision: PolicyDecision) -> CaseAnswer {
    CaseAnswer {
        answered: Answered::Decided(decision.outcome.recorded()),
        policies: decision.policies.into_iter().collect(),
        reason: decision.reason,
    }
}

impl CaseRun {
    fn request<'a>(
        &'a self,
        action: PolicyAction<'a>,
        facts: &'a RunFacts,
        approved: &'a BTreeSet<PolicyId>,
    ) -> PolicyRequest<'a> {
        PolicyRequest {
            agent: &self.agent,
            agent_owner: &self.agent_owner,
            on_behalf_of: &self.on_behalf_of,
            workflow_id: &self.workflow_id,
            action,
            facts,
            approved,
        }
    }

    fn about(&self) -> RunOf<'_> {
        RunOf {
            agent: &self.agent,
            agent_owner: &self.agent_owner,
            on_behalf_of: &self.on_behalf_of,
            workflow_id: &self.workflow_id,
        }
    }
}

impl CaseAct {
    fn action(&self) -> PersonAction<'_> {
        match self {
            Self::StartRun(run) => PersonAction::StartRun { run: run.about() },
            Self::Decide { run, tool, gate, verdict } => {
                PersonAction::Decide { run: run.about(), tool, gate, verdict: *verdict }
            }
            Self::Resolve { run, tool } => PersonAction::Resolve { run: run.about(), tool },
            Self::Answer { run, tool } => PersonAction::Answer { run: run.about(), tool },
            Self::Steer(run) => PersonAction::Steer { run: run.about() },
            Self::Pause(run) => PersonAction::Pause { run: run.about() },
            Self::Resume(run) => PersonAction::Resume { run: run.about() },
            Self::Quarantine(target) => PersonAction::Quarantine(target),
            Self::LiftQuarantine(target) => PersonAction::LiftQuarantine(target),
            Self::Apply { rollback } => PersonAction::Apply { rollback: *rollback },
        }
    }
}

impl CaseViewer {
    /// As policy is asked.
    #[must_use]
    pub fn viewer(&self) -> Viewer<'_> {
        match self {
            Self::Agent { agent, agent_owner, model } => Viewer::Agent { agent, agent_owner, model },
            Self::Group(group) => Viewer::Group(group),
            Self::History => Viewer::History,
            Self::Answer => Viewer::Answer,
        }
    }
}

impl PolicyBundle {
    /// Whether the viewer may see one class, and why.
    #[must_use]
    pub fn decide_reveal(&self, viewer: &Viewer<'_>, on_behalf_of: &PersonId, class: &DataClass) -> PolicyDecision {
        engine::decide_at_once(self, question::of_viewer(self, viewer, on_behalf_of, class))
    }
}
