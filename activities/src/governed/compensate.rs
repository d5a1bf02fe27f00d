//! What undoes a call: another call, whose tool and arguments follow from the registry and from what is recorded of the
//! first one. From there on it walks the same path as every call.

use std::collections::BTreeSet;

use mandate_domain::{Arguments, DataClass, EffectId, ProposedCall, ToolCallId, ToolDefinition, UndoSummary};
use serde_json::{Map, Value};

use super::{Admitted, Governed};
use crate::{
    failure::ActivityFailure,
    store::{EffectState, StoreError, Tx},
};

impl Admitted {
    /// How a call of this tool would be undone, where the agent wants that.
    pub(super) fn undo_summary(&self, tool: &ToolDefinition) -> Option<UndoSummary> {
        let undo = tool.undo.as_ref().filter(|_| !self.row.opened.compensate.is_empty())?;
        let by = self.row.tools.iter().find(|by| by.name == undo.tool)?;
        Some(UndoSummary { tool: by.name.to_string(), timeout_secs: by.timeout_secs })
    }

    /// Whether undoing has begun. It never does for an agent that does not want it.
    pub(super) async fn is_undoing(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        Ok(!self.row.opened.compensate.is_empty() && tx.is_undoing().await?)
    }
}

impl Governed {
    /// The call that undoes another one. None for a call that did not complete, whose tool has no undo, or of an agent that
    /// does not want it: there is nothing to undo then, whoever asks.
    pub(super) async fn undo_of(
        &self,
        run: &Admitted,
        undone: ToolCallId,
    ) -> Result<Option<ProposedCall>, ActivityFailure> {
        if run.row.opened.compensate.is_empty() {
            return Ok(None);
        }
        let Some(call) = self.proposed_call(run, undone).await? else { return Ok(None) };
        let Some(tool) = run.row.tools.iter().find(|tool| tool.name.as_str() == call.tool) else { return Ok(None) };
        let (Some(undo), Arguments::Object(arguments)) = (&tool.undo, &call.arguments) else { return Ok(None) };
        let Some(result) = self.result_of(run, undone).await? else { return Ok(None) };
        let arguments = match undo.form(arguments, &result) {
            Ok(formed) => Arguments::Object(formed),
            Err(why) => Arguments::Malformed(why),
        };
        Ok(Some(ProposedCall { tool: undo.tool.to_string(), arguments, ..call }))
    }

    /// What the arguments of an undo carry: what the call that it undoes was given and answered, also where the model was
    /// never shown it. Nothing for any other call.
    pub(super) async fn undone_classes(
        &self,
        run: &Admitted,
        call: ToolCallId,
    ) -> Result<BTreeSet<DataClass>, ActivityFailure> {
        let Some(undone) = call.undoes() else { return Ok(BTreeSet::new()) };
        let Some(tool) = self.tool_of(run, undone).await? else { return Ok(BTreeSet::new()) };
        Ok(tool.argument_classes.values().chain(tool.result_classes.values()).cloned().collect())
    }

    /// What a call answered, as the store has it; nothing in it where only a person knows that it happened. None for a call
    /// that did not complete.
    async fn result_of(&self, run: &Admitted, call: ToolCallId) -> Result<Option<Value>, ActivityFailure> {
        let effect = self.begin(run).await?.effect(EffectId::Tool(call)).await?;
        let Some(EffectState::Settled { outcome, .. }) = effect.map(|row| row.state) else { return Ok(None) };
        if let Some(word) = outcome.get("person") {
            return Ok((word == "happened").then_some(Value::Object(Map::new())));
        }
        if outcome.get("is_error").and_then(Value::as_bool) != Some(false) {
            return Ok(None);
        }
        let Some(address) = outcome.get("result").and_then(Value::as_str).and_then(|text| text.parse().ok()) else {
            return Ok(None);
        };
        let text = self.store.content(run.tenant(), &address).await?.unwrap_or_default();
        Ok(Some(serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}
