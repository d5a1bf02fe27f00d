//! From our transcript to the body of a Chat Completions request.

use mandate_domain::{Arguments, Message, ModelRequest, OfferedTool, ProposedCall};
use serde_json::{Value, json};

/// Longest name of a tool on the wire.
const NAME_CHARS_MAX: usize = 64;

/// Names of tools as the wire allows them: letters, digits, `_` and `-`, no dots.
#[derive(Debug, Default)]
pub(super) struct WireNames(Vec<(String, String)>);

impl WireNames {
    /// One name a tool, none twice.
    pub(super) fn of(tools: &[OfferedTool]) -> Self {
        let mut names = Self::default();
        for tool in tools {
            let plain = wire(&tool.name);
            let numbered = (2..).map(|n| format!("{}_{n}", plain.chars().take(NAME_CHARS_MAX - 4).collect::<String>()));
            let free = std::iter::once(plain.clone()).chain(numbered).find(|name| names.ours(name).is_none());
            names.0.push((tool.name.clone(), free.unwrap_or(plain)));
        }
        names
    }

    fn wire(&self, ours: &str) -> String {
        self.0.iter().find(|(name, _)| name == ours).map_or_else(|| wire(ours), |(_, wire)| wire.clone())
    }

    /// Our name for a name on the wire, if it was offered.
    pub(super) fn ours(&self, wire: &str) -> Option<&str> {
        self.0.iter().find(|(_, name)| name == wire).map(|(ours, _)| ours.as_str())
    }
}

fn wire(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let name: String = name.chars().take(NAME_CHARS_MAX).map(plain).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// The body.
pub(super) fn body(request: &ModelRequest, names: &WireNames, model: &str, max_output_tokens: u64) -> Value {
    let mut body = json!({
        "model": model,
        "messages": messages(&request.messages, names),
        "max_completion_tokens": max_output_tokens,
    });
    // An empty list is refused by the provider.
    if let Some(fields) = body.as_object_mut().filter(|_| !request.tools.is_empty()) {
        let tools = request.tools.iter().map(|tool| {
            let (name, parameters) = (names.wire(&tool.name), &tool.input_schema);
            let function = json!({ "name": name, "description": tool.description, "parameters": parameters });
            json!({ "type": "function", "function": function })
        });
        fields.insert("tools".to_owned(), tools.collect());
    }
    body
}

fn messages(messages: &[Message], names: &WireNames) -> Vec<Value> {
    let mut turn = 0;
    // Ids of the calls of the latest reply: a result answers one of these.
    let mut ids: Vec<String> = Vec::new();
    let wire = messages.iter().map(|message| match message {
        Message::System { text } => json!({ "role": "system", "content": text }),
        Message::User { text } => json!({ "role": "user", "content": text }),
        Message::Assistant { text, calls } => {
            turn += 1;
            ids = calls.iter().enumerate().map(|(index, call)| id_of(call, turn, index)).collect();
            assistant(text.as_deref(), calls, &ids, names)
        }
        Message::Tool { call, text, is_error: _ } => {
            let index = usize::try_from(call.index).unwrap_or(usize::MAX);
            let id = ids.get(index).cloned().unwrap_or_else(|| made_id(call.turn, index));
            json!({ "role": "tool", "tool_call_id": id, "content": text })
        }
    });
    wire.collect()
}

fn assistant(text: Option<&str>, calls: &[ProposedCall], ids: &[String], names: &WireNames) -> Value {
    if calls.is_empty() {
        return json!({ "role": "assistant", "content": text.unwrap_or_default() });
    }
    let calls = calls.iter().zip(ids).map(|(call, id)| {
        let arguments = match &call.arguments {
            Arguments::Object(arguments) => Value::Object(arguments.clone()).to_string(),
            Arguments::Malformed(text) => text.clone(),
        };
        let function = json!({ "name": names.wire(&call.tool), "arguments": arguments });
        json!({ "id": id, "type": "function", "function": function })
    });
    json!({ "role": "assistant", "content": text, "tool_calls": calls.collect::<Vec<_>>() })
}

fn id_of(call: &ProposedCall, turn: u32, index: usize) -> String {
    call.provider_id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| made_id(turn, index))
}

fn made_id(turn: u32, index: usize) -> String {
    format!("call_{turn}_{index}")
}
