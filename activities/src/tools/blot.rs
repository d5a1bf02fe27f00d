//! Secrets that a server was given, and may repeat: what it says is passed on without them.

use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::ToolAnswer;

/// Shortest secret that is blotted out: a shorter one would be found by chance.
const SECRET_CHARS_MIN: usize = 6;

/// What one server was given.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Vec<SecretString>);

impl Secrets {
    /// Secrets as they were given.
    pub(super) fn new<'a>(given: impl IntoIterator<Item = &'a str>) -> Self {
        let long = given.into_iter().filter(|secret| secret.len() >= SECRET_CHARS_MIN);
        Self(long.map(SecretString::from).collect())
    }

    /// Secrets in headers, with and without the scheme before them.
    pub(super) fn in_headers(headers: &HeaderMap) -> Self {
        let sensitive = headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        let parts = sensitive.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)]);
        Self::new(parts.flatten())
    }

    /// The text with `[secret]` in place of each.
    pub(super) fn blotted(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| text.replace(secret.expose_secret(), "[secret]"))
    }

    /// A value of JSON, in whose texts a secret may have been written in many ways.
    pub(super) fn blotted_value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.blotted(text)),
            Value::Array(items) => items.into_iter().map(|item| self.blotted_value(item)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (self.blotted(name), self.blotted_value(value))).collect()
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }

    /// An answer.
    pub(super) fn blotted_answer(&self, answer: ToolAnswer) -> ToolAnswer {
        if self.0.is_empty() {
            return answer;
        }
        let ToolAnswer { text, structured, is_error } = answer;
        let structured = structured.map(|value| self.blotted_value(value));
        // The text is what the structured content says, if there is any.
        let text = structured.as_ref().map_or_else(|| self.blotted(text), Value::to_string);
        ToolAnswer { text, structured, is_error }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(value: &str, is_secret: bool) -> HeaderMap {
        let mut value = HeaderValue::from_str(value).unwrap();
        value.set_sensitive(is_secret);
        HeaderMap::from_iter([("authorization".parse().unwrap(), value)])
    }

    #[test]
    fn a_secret_is_blotted_out_wherever_it_stands() {
        let secrets = Secrets::in_headers(&headers("Bearer s3cr\"et", true));
        let structured = json!({ "s3cr\"et": ["a Bearer s3cr\"et", 1] });
        let answer = ToolAnswer { text: structured.to_string(), structured: Some(structured), is_error: false };
        let blotted = secrets.blotted_answer(answer);
        assert_eq!(blotted.text, r#"{"[secret]":["a [secret]",1]}"#);
        let words = ToolAnswer { text: "no s3cr\"et here".to_owned(), structured: None, is_error: true };
        assert_eq!(secrets.blotted_answer(words).text, "no [secret] here");
    }

    #[test]
    fn what_is_no_secret_or_short_is_left() {
        assert_eq!(Secrets::in_headers(&headers("version-2", false)).blotted("version-2".into()), "version-2");
        assert_eq!(Secrets::new(["12345"]).blotted("12345".into()), "12345");
        assert!(!format!("{:?}", Secrets::new(["s3cret"])).contains("s3cret"));
    }
}
