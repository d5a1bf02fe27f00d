//! From an MCP result to what the model reads. Nothing is dropped without a word: what is no text is named, and what is
//! too large is said to be.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use super::ToolAnswer;

/// Largest result, in bytes of text. The transport drops lines over 16 MiB without a word, so this stays well below.
const RESULT_BYTES_MAX: usize = 4 << 20;

/// An error that the model reads.
pub(super) fn error(text: String) -> ToolAnswer {
    ToolAnswer { text, structured: None, is_error: true }
}

/// Reads a result.
pub(super) fn read(tool: &str, result: CallToolResult) -> ToolAnswer {
    // Servers leave the flag out on success, or set it to false.
    let is_error = result.is_error == Some(true);
    let text = result.structured_content.as_ref().map_or_else(|| joined(&result.content), ToString::to_string);
    if text.len() <= RESULT_BYTES_MAX {
        return ToolAnswer { text, structured: result.structured_content, is_error };
    }
    let performed = if is_error { "reported an error" } else { "was performed" };
    let size = text.len();
    let text = format!(
        "tool `{tool}` {performed}; its result of {size} bytes is over the limit of {RESULT_BYTES_MAX} bytes and was \
         left out"
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
    use serde_json::{Value, json};

    use super::*;

    fn check(result: Value, text: &str, is_error: bool) {
        let answer = read("orders.read", serde_json::from_value(result).unwrap());
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
    fn a_result_over_the_limit_says_that_it_was_performed() {
        let large = "x".repeat(RESULT_BYTES_MAX + 1);
        check(
            json!({ "content": [{ "type": "text", "text": large }] }),
            "tool `orders.read` was performed; its result of 4194305 bytes is over the limit of 4194304 bytes and was left \
             out",
            false,
        );
    }
}
