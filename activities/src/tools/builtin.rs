//! The tools that are part of the worker itself.

use mandate_domain::BuiltinTool;
use serde_json::json;

use super::ToolAnswer;

/// Performs a built-in tool. The governed path checked the arguments against the registry's schema.
pub(super) fn call(tool: BuiltinTool) -> ToolAnswer {
    match tool {
        BuiltinTool::CurrentTime => current_time(jiff::Timestamp::now()),
        // The governed path performs these, which need the run.
        BuiltinTool::ReadResult | BuiltinTool::SubmitAnswer | BuiltinTool::AskHuman => {
            ToolAnswer { text: "error: this tool is only called by a run".to_owned(), structured: None, is_error: true }
        }
    }
}

fn current_time(now: jiff::Timestamp) -> ToolAnswer {
    let value = json!({ "utc": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() });
    ToolAnswer { text: value.to_string(), structured: Some(value), is_error: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_utc_in_whole_seconds() {
        let answer = current_time("2026-11-21T10:52:00.25+01:00".parse().unwrap());
        assert_eq!(answer.text, r#"{"utc":"2026-11-21T09:52:00Z"}"#);
    }
}
