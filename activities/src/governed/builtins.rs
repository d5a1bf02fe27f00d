//! The built-in tools that need the run: reading a stored result, submitting the answer. They are called along the path
//! like any other tool, with a permit.

use mandate_domain::{BuiltinTool, EffectId, MaskedText, ToolCallId, ToolDefinition};
use serde_json::{Map, Value, json};

use super::{Admitted, ClaimRanOut, Governed, RecordedPermit};
use crate::{
    failure::ActivityFailure,
    store::{EffectState, StoreError},
    tools::ToolAnswer,
};

/// Characters of a page.
const PAGE_CHARS: usize = 4000;

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
        let stored = tx.effect(EffectId::Tool(call)).await?.and_then(|row| match row.state {
            EffectState::Settled { outcome, .. } => outcome.get("result").and_then(Value::as_str).map(str::to_owned),
            EffectState::Open | EffectState::Released | EffectState::Unknown { .. } => None,
        });
        let (Some(stored), Some(tool)) = (stored, self.tool_of(run, call).await?) else {
            return Ok(error("no call of this id has a stored result in this run"));
        };
        let address = stored.parse().map_err(|_| corrupt(call))?;
        let text = self.store.content(run.tenant(), &address).await?.ok_or_else(|| corrupt(call))?;
        let masked = self.view(&mut tx).await?.of_answer(run, tool, &text, None);
        let page = arguments.get("page").and_then(Value::as_u64).unwrap_or(1);
        Ok(page_of(call, masked, page))
    }
}

fn corrupt(call: ToolCallId) -> StoreError {
    StoreError::Corrupt { what: format!("the result of call `{call}` is missing") }
}

fn page_of(call: ToolCallId, masked: MaskedText, page: u64) -> BuiltinAnswer {
    let chars: Vec<char> = masked.text.chars().collect();
    let pages = chars.chunks(PAGE_CHARS).len().max(1);
    let at = usize::try_from(page.max(1)).unwrap_or(usize::MAX);
    if at > pages {
        return error(&format!("the result of call `{call}` has {pages} page(s)"));
    }
    let text: String = chars.chunks(PAGE_CHARS).nth(at - 1).unwrap_or_default().iter().collect();
    let text = json!({ "call": call, "page": at, "pages": pages, "text": text }).to_string();
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
        let answer = page_of(ToolCallId::new(1, 0), plain(text), page).answer;
        (answer.text, answer.is_error)
    }

    #[test]
    fn a_result_is_read_page_by_page() {
        let text = "ä".repeat(PAGE_CHARS + 1);
        let (first, _) = pages(&text, 1);
        let first: Value = serde_json::from_str(&first).unwrap();
        assert_eq!((first["page"].as_u64(), first["pages"].as_u64()), (Some(1), Some(2)));
        assert_eq!(first["text"].as_str().unwrap().chars().count(), PAGE_CHARS);
        let (last, _) = pages(&text, 2);
        assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["text"], "ä");
        assert_eq!(pages("", 1), (r#"{"call":"t1.0","page":1,"pages":1,"text":""}"#.to_owned(), false));
        assert_eq!(pages("x", 2), ("error: the result of call `t1.0` has 1 page(s)".to_owned(), true));
    }
}
