//! What an MCP server asks for before it performs a call, and what it is told.
//!
//! Since revision 2026-07-28 of the protocol that is an answer to `tools/call` (`input_required`): the call was not
//! performed, and is made again with what people said. In revisions before that it is a request of the server's own while
//! the call is under way (`elicitation/create`). No call waits for people, so the server hears that the question was put off
//! (`cancel`); what people say then is its answer when the call is made again and it asks the same.
//!
//! Forms alone: a server gets no model (`sampling`), no folders (`roots`), and nobody who follows its links (`url`).

use std::collections::BTreeMap;

use mandate_domain::{ToolName, tool::arguments::ArgumentsSchema};
use rmcp::model::{ElicitRequestParams, ElicitationSchema, InputRequest, InputRequiredResult};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ToolAnswer;

mod client;

pub(super) use client::Governed;

/// Most bytes of all that a server asks for, with its state.
const ASKS_BYTES_MAX: usize = 64 * 1024;
/// The answer with which a person declines.
const DECLINE: &str = "decline";

/// What a server asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerAsks {
    /// Each form, by the server's own name of it.
    pub forms: BTreeMap<String, Form>,
    /// What the server wants to be told again, as it stands.
    pub state: Option<String>,
    /// What it was told before in the same call, in protocol revisions in which it asks anew each time.
    pub before: Vec<(Form, Value)>,
    /// What the call came to where the question was put off; nothing where it was not performed.
    pub answered: Option<ToolAnswer>,
}

/// A form that a person is to fill in. Foreign text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// What is asked.
    pub message: String,
    /// JSON Schema of the fields: an object of texts, numbers and truth values.
    pub schema: Value,
}

/// What a server is told when its call is made again.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// By the server's own name of each form.
    responses: BTreeMap<String, Value>,
    state: Option<String>,
    pairs: Vec<(Form, Value)>,
}

impl ServerAsks {
    /// Reads what a server asks for. An error is half a sentence: what it asks for that it does not get.
    pub(super) fn read(asked: InputRequiredResult) -> Result<Self, String> {
        let requests = asked.input_requests.unwrap_or_default();
        let forms = requests.into_iter().map(|(name, request)| Ok((name, Form::read(request)?)));
        let forms = forms.collect::<Result<BTreeMap<_, _>, String>>()?;
        let asks = Self { forms, state: asked.request_state, before: Vec::new(), answered: None };
        if asks.forms.is_empty() {
            return Err("wants to be called again and asks for nothing, which is not supported".to_owned());
        }
        asks.bounded()
    }

    fn bounded(self) -> Result<Self, String> {
        let bytes = serde_json::to_vec(&self).map_or(usize::MAX, |json| json.len());
        if bytes > ASKS_BYTES_MAX {
            return Err(format!("asks for more than {ASKS_BYTES_MAX} bytes can say"));
        }
        Ok(self)
    }

    /// What people are asked: the question, how it is answered, and what there is to choose from.
    #[must_use]
    pub fn question(&self, tool: &ToolName) -> Value {
        let message = match self.only() {
            Some((_, form)) => form.message.clone(),
            None => {
                self.forms.iter().map(|(name, form)| format!("{name}: {}", form.message)).collect::<Vec<_>>().join("\n")
            }
        };
        let how = match self.only().map(|(_, form)| (form, form.only_field())) {
            Some((_, Some((name, _)))) => format!("Answer with `{name}`."),
            Some((form, None)) => format!("Answer with JSON: {}.", form.fields()),
            None => {
                let forms = self.forms.iter().map(|(name, form)| format!("`{name}`, with {}", form.fields()));
                format!("Answer with JSON: {}.", forms.collect::<Vec<_>>().join("; "))
            }
        };
        let context =
            format!("The server of `{tool}` asks, and has not performed the call. {how} Or answer `{DECLINE}`.");
        let options = self.only().and_then(|(_, form)| form.only_field()?.1.get("enum")?.as_array().cloned());
        let options = options.filter(|options| options.iter().all(Value::is_string));
        match options {
            Some(options) => json!({ "server_of": tool, "question": message, "context": context, "options": options }),
            None => json!({ "server_of": tool, "question": message, "context": context }),
        }
    }

    /// What the server is told where a person answers this. An error says what does not fit, and may repeat the answer.
    ///
    /// # Errors
    /// A sentence: the answer is not what the server asks for.
    pub fn told(&self, text: &str) -> Result<Told, String> {
        let text = text.trim();
        let responses = if text == DECLINE {
            self.forms.keys().map(|name| (name.clone(), json!({ "action": "decline" }))).collect()
        } else if let Some((name, form)) = self.only() {
            [(name.clone(), accepted(&form.filled(text)?))].into()
        } else {
            self.all_filled(text)?
        };
        let mut pairs = self.before.clone();
        pairs.extend(self.forms.iter().filter_map(|(name, form)| Some((form.clone(), responses.get(name)?.clone()))));
        Ok(Told { responses, state: self.state.clone(), pairs })
    }

    fn all_filled(&self, text: &str) -> Result<BTreeMap<String, Value>, String> {
        let Ok(Value::Object(answers)) = serde_json::from_str(text) else {
            let names: Vec<_> = self.forms.keys().map(|name| format!("`{name}`")).collect();
            return Err(format!("it is to be a JSON object with {}", names.join(" and ")));
        };
        let filled = |(name, form): (&String, &Form)| {
            let content =
                answers.get(name).and_then(Value::as_object).ok_or_else(|| format!("it has no object `{name}`"))?;
            Ok((name.clone(), accepted(&form.checked(content.clone())?)))
        };
        self.forms.iter().map(filled).collect()
    }

    /// The form, where there is one.
    fn only(&self) -> Option<(&String, &Form)> {
        self.forms.first_key_value().filter(|_| self.forms.len() == 1)
    }
}

fn accepted(content: &Map<String, Value>) -> Value {
    json!({ "action": "accept", "content": content })
}

impl Form {
    fn read(request: InputRequest) -> Result<Self, String> {
        match request {
            InputRequest::Elicitation(request) => Self::of(request.params),
            InputRequest::CreateMessage(_) => Err("asks for a model, which it does not get".to_owned()),
            InputRequest::ListRoots(_) => Err("asks for folders, which it does not get".to_owned()),
            _ => Err("asks for something unknown".to_owned()),
        }
    }

    fn of(asked: ElicitRequestParams) -> Result<Self, String> {
        match asked {
            ElicitRequestParams::FormElicitationParams { message, requested_schema, .. } => {
                Self::new(message, &requested_schema)
            }
            ElicitRequestParams::UrlElicitationParams { .. } => {
                Err("asks for somebody to follow a link, which nobody does".to_owned())
            }
            _ => Err("asks in a way that is not known".to_owned()),
        }
    }

    fn new(message: String, schema: &ElicitationSchema) -> Result<Self, String> {
        let schema =
            serde_json::to_value(schema).map_err(|error| format!("asks with a form that cannot be read: {error}"))?;
        ArgumentsSchema::compile(&schema).map_err(|error| format!("asks with a form that cannot be used: {error}"))?;
        Ok(Self { message, schema })
    }

    fn properties(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    }

    /// The field, where there is one: an answer need not name it.
    fn only_field(&self) -> Option<(&str, &Value)> {
        let mut properties = self.properties();
        let first = properties.next()?;
        properties.next().is_none().then_some((first.0.as_str(), first.1))
    }

    /// Names and types, for people.
    fn fields(&self) -> String {
        let required = self.schema.get("required").and_then(Value::as_array);
        let field = |(name, schema): (&String, &Value)| {
            let kind = schema.get("type").and_then(Value::as_str).unwrap_or("text");
            let needed = required.is_some_and(|required| required.iter().any(|one| one == name.as_str()));
            format!("`{name}` ({kind}{})", if needed { "" } else { ", may be left out" })
        };
        self.properties().map(field).collect::<Vec<_>>().join(", ")
    }

    /// An answer as the fields that it fills in.
    fn filled(&self, text: &str) -> Result<Map<String, Value>, String> {
        if let Ok(Value::Object(content)) = serde_json::from_str(text) {
            return self.checked(content);
        }
        let Some((name, schema)) = self.only_field() else {
            return Err(format!("it is to be a JSON object with {}", self.fields()));
        };
        self.checked(Map::from_iter([(name.to_owned(), value_of(schema, text))]))
    }

    fn checked(&self, content: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let schema = ArgumentsSchema::compile(&self.schema).map_err(|error| error.to_string())?;
        schema.check(&content).map_err(|invalid| invalid.to_string())?;
        Ok(content)
    }
}

/// A text as a value of a field's type. One that is none stays a text, which the schema refuses.
fn value_of(schema: &Value, text: &str) -> Value {
    let parsed = match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" => Some(Value::Bool(true)),
            "false" | "no" => Some(Value::Bool(false)),
            _ => None,
        },
        Some("integer" | "number") => serde_json::from_str(text).ok().filter(Value::is_number),
        Some("array") => serde_json::from_str(text).ok().filter(Value::is_array),
        Some(_) | None => None,
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

impl Told {
    /// What stands in the parameters of the call.
    pub(super) fn params(&self) -> (BTreeMap<String, Value>, Option<String>) {
        (self.responses.clone(), self.state.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn form(message: &str, properties: &Value, required: &[&str]) -> Form {
        let schema = json!({ "type": "object", "properties": properties, "required": required });
        Form { message: message.to_owned(), schema }
    }

    fn asks(forms: &[(&str, Form)]) -> ServerAsks {
        let forms = forms.iter().map(|(name, form)| ((*name).to_owned(), form.clone())).collect();
        ServerAsks { forms, state: Some("s1".to_owned()), before: Vec::new(), answered: None }
    }

    pub(super) fn account() -> Form {
        form("Which account?", &json!({ "account": { "type": "string", "enum": ["main", "reserve"] } }), &["account"])
    }

    fn told(asks: &ServerAsks, text: &str) -> Result<Value, String> {
        asks.told(text).map(|told| serde_json::to_value(told.params().0).unwrap())
    }

    #[test]
    fn one_field_is_answered_by_its_value_and_more_by_json() {
        let one = asks(&[("a", account())]);
        let accepted = |content: Value| Ok(json!({ "a": { "action": "accept", "content": content } }));
        assert_eq!(told(&one, " main\n"), accepted(json!({ "account": "main" })));
        assert_eq!(told(&one, r#"{"account":"reserve"}"#), accepted(json!({ "account": "reserve" })));
        assert!(told(&one, "other").is_err());
        let number = asks(&[("a", form("How many?", &json!({ "n": { "type": "integer" } }), &["n"]))]);
        assert_eq!(told(&number, "3"), accepted(json!({ "n": 3 })));
        assert!(told(&number, "three").is_err());
        let sure = asks(&[("a", form("Sure?", &json!({ "sure": { "type": "boolean" } }), &["sure"]))]);
        assert_eq!(told(&sure, "Yes"), accepted(json!({ "sure": true })));
        let fields = json!({ "n": { "type": "integer" }, "note": { "type": "string" } });
        let two = asks(&[("a", form("?", &fields, &["n"]))]);
        assert_eq!(told(&two, r#"{"n":1}"#), accepted(json!({ "n": 1 })));
        assert_eq!(
            told(&two, "1").unwrap_err(),
            "it is to be a JSON object with `n` (integer), `note` (string, may be left out)"
        );
    }

    #[test]
    fn several_forms_are_answered_together() {
        let both =
            asks(&[("a", account()), ("b", form("Sure?", &json!({ "sure": { "type": "boolean" } }), &["sure"]))]);
        let answer = r#"{"a":{"account":"main"},"b":{"sure":true}}"#;
        assert_eq!(told(&both, answer).unwrap()["b"], json!({ "action": "accept", "content": { "sure": true } }));
        assert_eq!(told(&both, r#"{"a":{"account":"main"}}"#).unwrap_err(), "it has no object `b`");
        assert_eq!(told(&both, "main").unwrap_err(), "it is to be a JSON object with `a` and `b`");
        assert_eq!(
            told(&both, "decline").unwrap(),
            json!({ "a": { "action": "decline" }, "b": { "action": "decline" } })
        );
    }

    #[test]
    fn people_see_what_is_asked_by_whom_and_how_it_is_answered() {
        let shown = asks(&[("a", account())]).question(&ToolName::parse("payments.refund").unwrap());
        assert_eq!(
            (shown["question"].as_str(), &shown["options"]),
            (Some("Which account?"), &json!(["main", "reserve"]))
        );
        let context = shown["context"].as_str().unwrap();
        assert!(context.contains("The server of `payments.refund` asks") && context.contains("Answer with `account`."));
    }

    #[test]
    fn only_forms_are_asked_of_people() {
        let read = |request: Value| {
            let asked = json!({ "resultType": "input_required", "inputRequests": { "a": request } });
            ServerAsks::read(serde_json::from_value(asked).unwrap())
        };
        let form =
            json!({ "mode": "form", "message": "Which?", "requestedSchema": { "type": "object", "properties": {} } });
        assert!(read(json!({ "method": "elicitation/create", "params": form })).is_ok());
        let link = json!({ "mode": "url", "message": "Look", "url": "https://example.com", "elicitationId": "e" });
        assert!(read(json!({ "method": "elicitation/create", "params": link })).unwrap_err().contains("follow a link"));
        let roots = read(json!({ "method": "roots/list" }));
        assert!(roots.unwrap_err().contains("folders"));
        let nothing = json!({ "resultType": "input_required", "requestState": "s" });
        assert!(ServerAsks::read(serde_json::from_value(nothing).unwrap()).unwrap_err().contains("asks for nothing"));
    }
}
