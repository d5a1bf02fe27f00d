//! Compensation: what a tool registers to undo its calls, when an agent wants that, and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{EndReason, ToolCallId, ToolName};

/// How calls of a tool are undone: by a call of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The tool that undoes them.
    pub tool: ToolName,
    /// Its arguments by name: each a JSON pointer into `{"arguments": …, "result": …}` of the call that is undone.
    pub arguments: BTreeMap<String, String>,
}

impl Undo {
    /// The arguments for undoing a call.
    ///
    /// # Errors
    /// Which argument has nothing to be formed from. The words repeat no value.
    pub fn form(&self, arguments: &Map<String, Value>, result: &Value) -> Result<Map<String, Value>, String> {
        let call = json!({ "arguments": arguments, "result": result });
        let form = |(name, pointer): (&String, &String)| -> Result<(String, Value), String> {
            let value = call.pointer(pointer).filter(|value| !value.is_null());
            let missing = || format!("`{name}` is taken from `{pointer}`, and the call has nothing there");
            Ok((name.clone(), value.cloned().ok_or_else(missing)?))
        };
        self.arguments.iter().map(form).collect()
    }
}

/// What the model's reply says of the undo of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoSummary {
    /// The tool that would undo it.
    pub tool: String,
    /// Longest time that it may take, in seconds.
    pub timeout_secs: u64,
}

/// A kind of end at which an agent's effects are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompensateOn {
    /// The run could not go on.
    Failure,
    /// A person halted it.
    Halt,
    /// Its workflow execution was cancelled.
    Cancel,
    /// A bound stopped it, or a request that nobody decided about in time.
    Bound,
}

impl CompensateOn {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Failure, Self::Halt, Self::Cancel, Self::Bound];

    /// The word in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Halt => "halt",
            Self::Cancel => "cancel",
            Self::Bound => "bound",
        }
    }

    /// The kind of an end.
    #[must_use]
    pub fn of(reason: EndReason) -> Self {
        match reason {
            EndReason::Halted => Self::Halt,
            EndReason::Cancelled => Self::Cancel,
            EndReason::ApprovalExpired
            | EndReason::TurnsExhausted
            | EndReason::ToolCallsExhausted
            | EndReason::TokensExhausted => Self::Bound,
            EndReason::Unavailable
            | EndReason::InvalidInput
            | EndReason::RefusedStart
            | EndReason::ModelFailed
            | EndReason::ModelDenied
            | EndReason::Refused
            | EndReason::Terminated
            | EndReason::TimedOut
            | EndReason::Lost
            | EndReason::Internal => Self::Failure,
        }
    }
}

/// What came of undoing a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoneCall {
    /// The call that was to be undone.
    pub call: ToolCallId,
    /// The tool that was to undo it. Foreign text.
    pub tool: String,
    /// What came of it.
    pub state: UndoState,
    /// Why it is not undone, or what is known. Foreign text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a call is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoState {
    /// It is.
    Undone,
    /// It is not.
    NotUndone,
    /// Nobody knows.
    Unknown,
}

impl UndoState {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undone => "undone",
            Self::NotUndone => "not undone",
            Self::Unknown => "perhaps undone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(pointer: &str) -> Undo {
        let arguments = [("refund_id".to_owned(), pointer.to_owned())].into();
        Undo { tool: "payments.cancel_refund".parse().unwrap(), arguments }
    }

    #[test]
    fn arguments_are_taken_from_the_call_and_its_result() {
        let arguments: Map<String, Value> = serde_json::from_value(json!({ "order_id": "o1", "note": null })).unwrap();
        let result = json!({ "refund": { "id": "rf-1" }, "amount": 5 });
        let formed = |pointer: &str| undo(pointer).form(&arguments, &result);
        let expected = |value: Value| Ok(Map::from_iter([("refund_id".to_owned(), value)]));
        assert_eq!(formed("/result/refund/id"), expected("rf-1".into()));
        assert_eq!(formed("/arguments/order_id"), expected("o1".into()));
        assert_eq!(formed("/result/amount"), expected(5.into()));
        for missing in ["/result/id", "/arguments/note", "/other"] {
            let why = formed(missing).unwrap_err();
            assert!(why.contains(missing) && why.contains("refund_id"), "{why}");
        }
        assert!(undo("/result/id").form(&arguments, &"it was paid".into()).is_err(), "a plain text has no fields");
    }

    #[test]
    fn each_kind_of_end_is_written_as_it_is_read() {
        for on in CompensateOn::ALL {
            assert_eq!(serde_json::to_value(on).unwrap(), on.as_str());
        }
        assert_eq!(CompensateOn::of(EndReason::Halted), CompensateOn::Halt);
        assert_eq!(CompensateOn::of(EndReason::TurnsExhausted), CompensateOn::Bound);
        assert_eq!(CompensateOn::of(EndReason::Unavailable), CompensateOn::Failure);
    }
}
