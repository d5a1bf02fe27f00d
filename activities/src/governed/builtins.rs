//! The built-in tools that need the run: reading a stored result, submitting the answer. They are called along the path
//! like any other tool, with a permit.

use mandate_domain::{BuiltinTool, EffectId, MaskedText, ToolCallId, ToolDefinition, reveal};
use serde_json::{Map, Value, json};

use super::{Admitted, ClaimRanOut, Governed, RecordedPermit};
use crate::{
    failure::ActivityFailure,
    store::{EffectState, StoreError},
    tools::ToolAnswer,
};

/// Largest page in bytes of its text.
const PAGE_BYTES_MAX: usize = 16 * 1024;

/// What a built-in tool answered, and how much of it the model may read, where the tool's own labels do not say it.
pub(super) struct BuiltinAnswer {
    pub(super) answer: ToolAnswer,
    pub(super) masked: Option<MaskedText>,
}

impl Governed {
    /// Performs a built-in tool that needs the run; none for every other tool.
    pub(super) async fn call_builtin(
        &self,
        run: &Admitted,
        tool: &ToolDefinition,
        permit: &RecordedPermit,
        arguments: &Map<String, Value>,
    ) -> Result<Option<Result<BuiltinAnswer, ClaimRanOut>>, ActivityFailure> {
        let builtin = match tool.reach.builtin() {
            Some(builtin @ (BuiltinTool::ReadResult | BuiltinTool::SubmitAnswer)) => builtin,
            Some(BuiltinTool::CurrentTime | BuiltinTool::AskHuman) | None => return Ok(None),
        };
        if let Err(late) = permit.may_send() {
            return Ok(Some(Err(late)));
        }
        let answered = match builtin {
            BuiltinTool::ReadResult => self.read_result(run, arguments).await?,
            BuiltinTool::SubmitAnswer | BuiltinTool::CurrentTime | BuiltinTool::AskHuman => submitted(arguments),
        };
        Ok(Some(Ok(answered)))
    }

    async fn read_result(
        &self,
        run: &Admitted,
        arguments: &Map<String, Value>,
    ) -> Result<BuiltinAnswer, ActivityFailure> {
        let named = arguments.get("call").and_then(Value::as_str).unwrap_or_default();
        let Ok(call) = named.parse::<ToolCallId>() else {
            return Ok(error("`call` is the id of an earlier call of this run, such as `t1.0`"));
        };
        let mut tx = self.begin(run).await?;
        let outcome = tx.effect(EffectId::Tool(call)).await?.and_then(|row| match row.state {
            EffectState::Settled { outcome, .. } => Some(outcome),
            EffectState::Open | EffectState::Released | EffectState::Unknown { .. } => None,
        });
        let stored = outcome.as_ref().and_then(|outcome| outcome.get("result")).and_then(Value::as_str);
        let (Some(stored), Some(tool)) = (stored, self.tool_of(run, call).await?) else {
            return Ok(error("no call of this id has a stored result in this run"));
        };
        let address = stored.parse().map_err(|_| corrupt(call))?;
        let text = self.store.content(run.tenant(), &address).await?.ok_or_else(|| corrupt(call))?;
        let facts = tx.facts().await?;
        // The labels are those of the tool whose call it is. What an error or a tool of the runtime repeats, a page of another
        // call among it, was written by others, and carries what that call was found to carry.
        let is_error =
            outcome.as_ref().and_then(|outcome| outcome.get("is_error")).and_then(Value::as_bool) != Some(false);
        let mut carried = facts.classes_of_call(call);
        if is_error || tool.reach.builtin().is_some() {
            carried.extend(facts.classes.iter().cloned());
        }
        let view = self.view(&mut tx).await?;
        let mut masked = if view.agent_sees(run, &carried) {
            view.of_answer(run, tool, &text, None)
        } else {
            let hidden = reveal::withheld_text(&carried);
            MaskedText { text: hidden, shown: [].into(), withheld: carried.clone() }
        };
        if masked.withheld.is_empty() {
            masked.shown.extend(carried);
        }
        let page = arguments.get("page").and_then(Value::as_u64).unwrap_or(1);
        let most = usize::try_from(run.row.opened.limits.result_max_bytes).unwrap_or(usize::MAX);
        // As JSON a text grows, and a page is a result that is cut like any other.
        Ok(page_of(call, masked, page, (most / 2).clamp(1, PAGE_BYTES_MAX)))
    }
}

fn corrupt(call: ToolCallId) -> StoreError {
    StoreError::Corrupt { what: format!("the result of call `{call}` is missing") }
}

/// A page holds so many bytes, and one character's bytes less where it would be cut through.
fn page_of(call: ToolCallId, masked: MaskedText, page: u64, page_bytes: usize) -> BuiltinAnswer {
    let bytes = masked.text.len();
    let pages = bytes.div_ceil(page_bytes).max(1);
    let at = usize::try_from(page.max(1)).unwrap_or(usize::MAX);
    if at > pages {
        return error(&format!("the result of call `{call}` has {pages} page(s)"));
    }
    let bound = |page: usize| masked.text.floor_char_boundary(page.saturating_mul(page_bytes));
    let text = masked.text.get(bound(at - 1)..bound(at)).unwrap_or_default();
    let text = json!({ "call": call, "page": at, "pages": pages, "bytes": bytes, "text": text }).to_string();
    let answer = ToolAnswer { text: text.clone(), structured: None, is_error: false };
    BuiltinAnswer { answer, masked: Some(MaskedText { text, ..masked }) }
}

/// An error that only repeats what the runtime knows.
fn error(text: &str) -> BuiltinAnswer {
    let answer = ToolAnswer { text: format!("error: {text}"), structured: None, is_error: true };
    let masked = plain(&answer.text);
    BuiltinAnswer { answer, masked: Some(masked) }
}

/// The model wrote it: it carries what the run has read, which its rendering looks at.
fn submitted(arguments: &Map<String, Value>) -> BuiltinAnswer {
    let text = arguments.get("answer").and_then(Value::as_str).unwrap_or_default().to_owned();
    let masked = plain(&text);
    BuiltinAnswer { answer: ToolAnswer { text, structured: None, is_error: false }, masked: Some(masked) }
}

fn plain(text: &str) -> MaskedText {
    MaskedText { text: text.to_owned(), shown: [].into(), withheld: [].into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(text: &str, page: u64) -> (String, bool) {
        let answer = page_of(ToolCallId::new(1, 0), plain(text), page, 9).answer;
        (answer.text, answer.is_error)
    }

    #[test]
    fn a_result_is_read_page_by_page_and_no_character_is_cut() {
        let text = "äöü€ßxy🦀z!";
        let mut read = String::new();
        for page in 1..=3 {
            let (answer, is_error) = pages(text, page);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let numbers = (answer["page"].as_u64(), answer["pages"].as_u64(), answer["bytes"].as_u64());
            assert_eq!((numbers, is_error), ((Some(page), Some(3), Some(19)), false), "{answer}");
            read += answer["text"].as_str().unwrap();
        }
        assert_eq!(read, text);
        let empty: Value = serde_json::from_str(&pages("", 1).0).unwrap();
        assert_eq!(empty, json!({ "bytes": 0, "call": "t1.0", "page": 1, "pages": 1, "text": "" }));
        assert_eq!(pages("x", 2), ("error: the result of call `t1.0` has 1 page(s)".to_owned(), true));
    }
}
