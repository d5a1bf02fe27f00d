//! What happened in a run so far, as policies see it: folded from its audit chain and from nothing else.
//!
//! An open intent counts as if it had been performed, so that two parallel calls cannot both pass a limit. What was
//! surely not performed (a claim given back, a person's word that it did not happen) counts no more. Whatever is
//! doubtful counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    AuditRecord, DataClass, DecisionOutcome, EffectId, RecordBody, Resolution, ToolCallId, ToolDefinition, ToolName,
};

/// Sums of a run. Saturating: an absurd number stays above every limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// Model calls whose intent was recorded.
    pub model_calls: i64,
    /// Tokens of all recorded replies, input and output.
    pub tokens: i64,
    /// Cost of all recorded replies, in millionths of the organisation's currency.
    pub model_cost_micros: i64,
    /// Calls of tools and models that policy denied.
    pub denials: i64,
    /// Classes that each reply carries: those of everything that its model had read.
    replies: BTreeMap<u32, BTreeSet<DataClass>>,
    /// Data classes that the model was shown.
    pub classes: BTreeSet<DataClass>,
    calls: BTreeMap<ToolCallId, Call>,
}

/// A tool call with an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    tool: String,
    amounts: BTreeMap<String, i64>,
    cost_micros: u64,
    /// Epochs whose claim was not given back.
    epochs: BTreeSet<u32>,
    performed: bool,
    failed: bool,
    /// Classes that the model was shown of its result.
    classes: BTreeSet<DataClass>,
}

impl Call {
    /// Whether it was performed or may have been.
    fn counts(&self) -> bool {
        self.performed || !self.epochs.is_empty()
    }
}

/// Sums of one tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolFacts {
    /// Calls that were performed or may have been.
    pub calls: i64,
    /// Those that reported an error. They count above too: an error may follow an effect.
    pub failures: i64,
    /// Sums of the arguments that the registry names as amounts.
    pub amounts: BTreeMap<String, i64>,
}

impl RunFacts {
    /// The facts of a whole chain.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a AuditRecord>) -> Self {
        let mut facts = Self::default();
        for record in records {
            facts.add(&record.body);
        }
        facts
    }

    /// Takes in the next record of the chain.
    pub fn add(&mut self, body: &RecordBody) {
        match body {
            RecordBody::Intent { effect: EffectId::Model(_), .. } => {
                self.model_calls = self.model_calls.saturating_add(1);
            }
            RecordBody::Intent { effect: EffectId::Tool(call), target, amounts, cost_micros, epoch, .. } => {
                self.call(*call, target, amounts, *cost_micros).epochs.insert(*epoch);
            }
            RecordBody::NotSent { effect: EffectId::Model(_), .. } => {
                self.model_calls = self.model_calls.saturating_sub(1);
            }
            RecordBody::NotSent { effect: EffectId::Tool(call), epoch, .. } => {
                if let Some(call) = self.calls.get_mut(call) {
                    call.epochs.remove(epoch);
                }
            }
            RecordBody::Resolved { effect, resolution: Resolution::DidNotHappen, refused: None, .. } => {
                if let Some(call) = self.known(*effect) {
                    call.epochs.clear();
                }
            }
            // It happened after all, whatever was said before.
            RecordBody::LateOutcome { effect, .. } => {
                if let Some(call) = self.known(*effect) {
                    call.performed = true;
                }
            }
            RecordBody::Outcome { effect, is_error, usage, classes, .. } => {
                self.classes.extend(classes.iter().cloned());
                if let Some(usage) = usage {
                    self.tokens = self.tokens.saturating_add(as_long(usage.tokens()));
                    self.model_cost_micros = self.model_cost_micros.saturating_add(as_long(usage.cost_micros));
                }
                match effect {
                    EffectId::Model(turn) => {
                        self.replies.insert(*turn, classes.iter().cloned().collect());
                    }
                    EffectId::Notice(_) => {}
                    EffectId::Tool(call) => {
                        if let Some(call) = self.calls.get_mut(call) {
                            call.performed = true;
                            call.failed = *is_error;
                            call.classes = classes.iter().cloned().collect();
                        }
                    }
                }
            }
            RecordBody::Decision {
                effect: EffectId::Tool(_) | EffectId::Model(_),
                outcome: DecisionOutcome::Deny,
                ..
            } => {
                self.denials = self.denials.saturating_add(1);
            }
            // Nobody is limited in being told, so what is about a notice counts for nothing.
            RecordBody::Intent { effect: EffectId::Notice(_), .. }
            | RecordBody::NotSent { effect: EffectId::Notice(_), .. }
            | RecordBody::Decision { .. }
            | RecordBody::Resolved { .. }
            | RecordBody::RunOpened { .. }
            | RecordBody::CallRefused { .. }
            | RecordBody::OutcomeUnknown { .. }
            | RecordBody::ApprovalRequested { .. }
            | RecordBody::ApprovalDecided { .. }
            | RecordBody::ApprovalExpired { .. }
            | RecordBody::ApprovalEscalated { .. }
            | RecordBody::CallRevised { .. }
            | RecordBody::QuestionAsked { .. }
            | RecordBody::QuestionExpired { .. }
            | RecordBody::Instructed { .. }
            | RecordBody::CallAbandoned { .. }
            | RecordBody::MessagesRefused { .. }
            | RecordBody::Intrusion { .. }
            | RecordBody::Halted { .. }
            | RecordBody::BundleApplied { .. }
            | RecordBody::Quarantined { .. }
            | RecordBody::QuarantineLifted { .. }
            | RecordBody::OperatorRefused { .. }
            | RecordBody::RunReconciled { .. }
            | RecordBody::RunReset { .. }
            | RecordBody::StoreBehindRun { .. }
            | RecordBody::RunClosed { .. } => {}
        }
    }

    /// The facts as they would stand if this call were performed. A call that counts already counts once.
    #[must_use]
    pub fn with_call(&self, call: ToolCallId, tool: &ToolDefinition, amounts: &BTreeMap<String, i64>) -> Self {
        let mut facts = self.clone();
        facts.call(call, tool.name.as_str(), amounts, tool.cost_micros).performed = true;
        facts
    }

    /// The facts with earlier calls of a tool: what a policy case says of a run that never was.
    #[must_use]
    pub fn with_earlier_calls(&self, tool: &ToolDefinition, sums: &ToolFacts) -> Self {
        let mut facts = self.clone();
        let taken = u32::try_from(facts.calls.len()).unwrap_or(u32::MAX);
        for index in 0..u32::try_from(sums.calls).unwrap_or_default() {
            // No recorded call has turn 0. The sums stand with the first call.
            let amounts = if index == 0 { sums.amounts.clone() } else { BTreeMap::new() };
            let id = ToolCallId::new(0, taken.saturating_add(index));
            let call = facts.call(id, tool.name.as_str(), &amounts, tool.cost_micros);
            call.performed = true;
            call.failed = i64::from(index) < sums.failures;
        }
        facts
    }

    /// The facts as they would stand if the model were called once more.
    #[must_use]
    pub fn with_model_call(&self) -> Self {
        Self { model_calls: self.model_calls.saturating_add(1), ..self.clone() }
    }

    /// Classes that the model was shown of a call's result, whichever revision of it was performed: the model knows the
    /// call under the id of the first.
    #[must_use]
    pub fn classes_of_call(&self, call: ToolCallId) -> BTreeSet<DataClass> {
        let revisions = self.calls.iter().filter(|(id, _)| id.proposed() == call.proposed());
        revisions.flat_map(|(_, call)| call.classes.clone()).collect()
    }

    /// Classes that the reply of a turn carries.
    #[must_use]
    pub fn classes_of_reply(&self, turn: u32) -> BTreeSet<DataClass> {
        self.replies.get(&turn).cloned().unwrap_or_default()
    }

    /// Tool calls that were performed or may have been.
    #[must_use]
    pub fn tool_calls(&self) -> i64 {
        as_long(self.counted().count() as u64)
    }

    /// Tool calls that reported an error. They count as calls too: an error may follow an effect.
    #[must_use]
    pub fn failures(&self) -> i64 {
        as_long(self.counted().filter(|call| call.failed).count() as u64)
    }

    /// Cost of models and tools, in millionths of the organisation's currency.
    #[must_use]
    pub fn cost_micros(&self) -> i64 {
        self.counted().map(|call| as_long(call.cost_micros)).fold(self.model_cost_micros, i64::saturating_add)
    }

    /// The sums of one tool.
    #[must_use]
    pub fn of_tool(&self, tool: &ToolName) -> ToolFacts {
        let mut facts = ToolFacts::default();
        for call in self.counted().filter(|call| call.tool == tool.as_str()) {
            facts.calls += 1;
            facts.failures += i64::from(call.failed);
            for (name, amount) in &call.amounts {
                let sum: &mut i64 = facts.amounts.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
        facts
    }

    fn counted(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().filter(|call| call.counts())
    }

    fn known(&mut self, effect: EffectId) -> Option<&mut Call> {
        match effect {
            EffectId::Model(_) | EffectId::Notice(_) => None,
            EffectId::Tool(call) => self.calls.get_mut(&call),
        }
    }

    fn call(&mut self, id: ToolCallId, tool: &str, amounts: &BTreeMap<String, i64>, cost_micros: u64) -> &mut Call {
        self.calls.entry(id).or_insert_with(|| Call {
            tool: tool.to_owned(),
            amounts: amounts.clone(),
            cost_micros,
            epochs: BTreeSet::new(),
            performed: false,
            failed: false,
            classes: BTreeSet::new(),
        })
    }
}

fn as_long(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
