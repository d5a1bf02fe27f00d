//! From an MCP result to what the model reads. Nothing is dropped without a word: what is no text is named, and what is
//! too large is said to be.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use serde_json::Value;

use super::ToolAnswer;

/// An error that the model reads.
pub(super) fn error(text: String) -> ToolAnswer {
    ToolAnswer { text, structured: None, is_error: true }
}

/// Stands for a question that nobody is asked.
pub(super) fn asks_in_vain(tool: &str, why: &str) -> ToolAnswer {
    error(format!("error: `{tool}` {why}, and was not performed"))
}

/// Reads a result.
pub(super) fn read(result: CallToolResult) -> ToolAnswer {
    // Servers leave the flag out on success, or set it to false.
    let is_error = result.is_error == Some(true);
    let text = result.structured_content.as_ref().map_or_else(|| joined(&result.content), ToString::to_string);
    ToolAnswer { text, structured: result.structured_content, is_error }
}

/// Stands for an answer that was over the limit. What its size was is known; what it said is not.
pub(super) fn left_out(tool: &str, data: Option<&Value>) -> ToolAnswer {
    let number = |key| data.and_then(|data| data.get(key)).and_then(Value::as_u64).unwrap_or_default();
    let is_error = data.and_then(|data| data.get("is_error")).and_then(Value::as_bool).unwrap_or_default();
    let performed = if is_error { "reported an error" } else { "was performed" };
    let (bytes, limit) = (number("bytes"), number("limit"));
    let text = format!(
        "tool `{tool}` {performed}; its answer of {bytes} bytes is over the limit of {limit} bytes and was left out"
    );
    ToolAnswer { text, structured: None, is_error }
}

fn joined(content: &[ContentBlock]) -> String {
    content.iter().map(part).collect::<Vec<_>>().join("\n")
}

fn part(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => format!("[image, {}, left out]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[audio, {}, left out]", audio.mime_type),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => format!("[resource {uri}]\n{text}"),
            ResourceContents::BlobResourceContents { uri, .. } => format!("[resource {uri}, binary, left out]"),
            _ => "[resource of an unknown kind, left out]".to_owned(),
        },
        ContentBlock::ResourceLink(link) => format!("[link to {}: {}]", link.name, link.uri),
        _ => "[content of an unknown kind, left out]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(result: Value, text: &str, is_error: bool) {
        let answer = read(serde_json::from_value(result).unwrap());
        assert_eq!((answer.text.as_str(), answer.is_error), (text, is_error));
    }

    #[test]
    fn text_is_joined_and_the_rest_is_named() {
        let image = json!({ "type": "image", "data": "AAAA", "mimeType": "image/png" });
        let link = json!({ "type": "resource_link", "uri": "file:///a", "name": "a" });
        check(
            json!({ "content": [{ "type": "text", "text": "one" }, image, link] }),
            "one\n[image, image/png, left out]\n[link to a: file:///a]",
            false,
        );
        check(json!({ "content": [{ "type": "text", "text": "no" }], "isError": true }), "no", true);
    }

    #[test]
    fn structured_content_goes_before_its_text_copy() {
        check(
            json!({ "content": [{ "type": "text", "text": "copy" }], "structuredContent": { "n": 1 }, "isError": false }),
            r#"{"n":1}"#,
            false,
        );
    }

    #[test]
    fn an_answer_over_the_limit_says_that_the_call_was_performed() {
        let told = |is_error| {
            let data = json!({ "bytes": 52_428_901, "limit": 33_554_432, "is_error": is_error });
            let answer = left_out("orders.read", Some(&data));
            assert_eq!(answer.is_error, is_error);
            answer.text
        };
        let rest = "its answer of 52428901 bytes is over the limit of 33554432 bytes and was left out";
        assert_eq!(told(false), format!("tool `orders.read` was performed; {rest}"));
        assert_eq!(told(true), format!("tool `orders.read` reported an error; {rest}"));
    }
}
