//! Names and ids. Each is a type of its own with one checked constructor, so that a workflow id can never stand where
//! a tool name is meant, and a name that reached a policy or a path is known to be harmless.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::Error as _};

/// A name or id that does not have the form its kind asks for. Fix the text; nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// Longest text an error repeats, in characters. Foreign text in messages is bounded.
const SHOWN_CHARS_MAX: usize = 80;

pub(crate) fn refused(kind: &'static str, text: &str, rule: &'static str) -> ParseIdError {
    let shown = text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect();
    ParseIdError { kind, text: shown, rule }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        // INVARIANT (checked text): the text passed `parse`; there is no other constructor.
        pub struct $name(String);

        impl $name {
            /// Checks the text and takes it.
            ///
            /// # Errors
            /// [`ParseIdError`] naming the rule that the text breaks.
            pub fn parse(text: impl Into<String>) -> Result<Self, ParseIdError> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(refused($kind, &text, $rule)) }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> { Self::parse(text) }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    };
}

fn is_slug(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_dotted(text: &str) -> bool {
    text.len() <= 64
        && text.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
}

fn is_plain(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= 1000 && !text.chars().any(char::is_control)
}

/// A JSON pointer of bounded length: each token behind its slash, `~` only in `~0` and `~1`.
fn is_field_path(text: &str) -> bool {
    (text.is_empty() || text.starts_with('/'))
        && text.len() <= 500
        && !text.chars().any(char::is_control)
        && text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

/// An ordinal of at most nine digits and six hexadecimal digits behind a letter.
fn is_numbered(text: &str, letter: char) -> bool {
    text.strip_prefix(letter).and_then(|rest| rest.split_once('-')).is_some_and(|(ordinal, hex)| {
        (1..=9).contains(&ordinal.len())
            && ordinal.bytes().all(|b| b.is_ascii_digit())
            && hex.len() == 6
            && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

name_type!(
    /// Full name of an agent: `tenant/unit/agent`, each part lower-case letters, digits and hyphens.
    AgentName, "agent name", "write it as `tenant/unit/agent` in lower-case letters, digits and hyphens",
    |text| text.split('/').count() == 3 && text.split('/').all(is_slug)
);
name_type!(
    /// Name of a tool in the registry, dotted: `payments.refund`. At most 64 bytes.
    ToolName, "tool name", "use lower-case words of letters, digits and underscores, joined by dots, at most 64 bytes",
    is_dotted
);
name_type!(
    /// Name of an organisation's group of people, `finance-leads`.
    GroupName, "group name", "use lower-case letters, digits and hyphens, at most 64 bytes", is_slug
);
name_type!(
    /// Name of a configured MCP server, `refunds`.
    ServerName, "tool server name", "use lower-case letters, digits and hyphens, at most 64 bytes", is_slug
);
name_type!(
    /// Name of a configured model, `support`: which provider and which model of it stands in the configuration.
    ModelName, "model name", "use lower-case letters, digits and hyphens, at most 64 bytes", is_slug
);
name_type!(
    /// Who receives what a model is told: the host of the provider's base URL, `api.openai.com`, or `scripted`.
    ProviderName, "provider name", "it is a host name in lower case, with a port if one is needed",
    |text| !text.is_empty() && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':' | '[' | ']'))
);
name_type!(
    /// A class of data that the organisation declares, `contact`: what policies say who may see.
    DataClass, "data class", "use lower-case letters, digits and hyphens, at most 64 bytes", is_slug
);
name_type!(
    /// Which fields of a JSON value are meant: a JSON pointer (RFC 6901) in which the token `*` stands for every item of
    /// an array and every member of an object. The empty text is the whole value. There is no way to name a member that
    /// is itself called `*`.
    FieldPath, "field path", "write a JSON pointer such as `/customer/email` or `/items/*`, at most 500 bytes",
    is_field_path
);
name_type!(
    /// The identity of a person or a service, as the organisation writes it: `ana@acme.example`.
    PersonId, "person", "it must not be empty, longer than 1000 bytes or contain control characters", is_plain
);
name_type!(
    /// The `@id` of a policy: `refund.large`. A gate is named by the id of the policy that asks.
    PolicyId, "policy id", "use letters, digits, `.`, `_` and `-`, at most 128 bytes",
    |text| !text.is_empty() && text.len() <= 128
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
);
name_type!(
    /// Id of a store, made when it is created. A run is pinned to it.
    StoreId, "store id", "it is 32 lower-case hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);
name_type!(
    /// SHA-256 in lower-case hexadecimal: for what may be public, such as the audit chain and the policy bundle.
    Digest, "SHA-256 digest", "it is 64 lower-case hexadecimal digits", is_hex64
);
name_type!(
    /// Keyed address of content: HMAC-SHA256 under the tenant's address key, in lower-case hexadecimal. It cannot be
    /// guessed back from a short value, and equal content of two tenants has different addresses.
    Address, "content address", "it is 64 lower-case hexadecimal digits", is_hex64
);
name_type!(
    /// Id of one approval request: `r2-7f3a9c`, its ordinal in the run and six hexadecimal digits of the keyed digest
    /// over run chain, call id, gate and canonical arguments.
    RequestId, "request id", "it looks like `r2-7f3a9c`",
    |text| is_numbered(text, 'r')
);
name_type!(
    /// Id of one question of an agent to people: `q1-7f3a9c`, made as a [`RequestId`] is.
    QuestionId, "question id", "it looks like `q1-7f3a9c`",
    |text| is_numbered(text, 'q')
);

macro_rules! from_hash {
    ($($name:ident),*) => { $(
        impl $name {
            /// From the 32 bytes of the hash.
            #[must_use]
            pub fn from_bytes(hash: [u8; 32]) -> Self {
                Self(hash.iter().map(|byte| format!("{byte:02x}")).collect())
            }
        }
    )* };
}
from_hash!(Digest, Address);

impl AgentName {
    /// The tenant: the part before the first slash.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The unit with its tenant: the part before the last slash, `acme/support`.
    #[must_use]
    pub fn unit(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(unit, _)| unit)
    }
}

/// What a field without a label is.
const UNCLASSIFIED: &str = "unclassified";

impl DataClass {
    /// The class of every field that has no label. It is built in and cannot be declared.
    #[must_use]
    pub fn unclassified() -> Self {
        Self(UNCLASSIFIED.to_owned())
    }

    /// Whether this is the class of what has no label.
    #[must_use]
    pub fn is_unclassified(&self) -> bool {
        self.0 == UNCLASSIFIED
    }
}

impl FieldPath {
    /// The token that stands for every item or member.
    pub const EVERY: &str = "*";

    /// The tokens from the root on, as keys and indexes are written in a value.
    pub fn tokens(&self) -> impl Iterator<Item = String> {
        self.0.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
    }
}

impl RequestId {
    /// Builds the id from the request's ordinal in its run and the keyed digest of what is asked.
    #[must_use]
    pub fn new(ordinal: u32, digest: &Address) -> Self {
        Self(format!("r{ordinal}-{}", digest.as_str().chars().take(6).collect::<String>()))
    }
}

impl QuestionId {
    /// Builds the id from the question's ordinal in its run and the keyed digest of what is asked.
    #[must_use]
    pub fn new(ordinal: u32, digest: &Address) -> Self {
        Self(format!("q{ordinal}-{}", digest.as_str().chars().take(6).collect::<String>()))
    }
}

/// Id of one tool call of a run: turn, index within the turn, revision. Ours, never the provider's: `t3.1`, and
/// `t3.1r2` for the second revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolCallId {
    /// Turn of the model reply that proposed the call; the first turn is 1.
    pub turn: u32,
    /// Position among the calls of that reply; the first is 0.
    pub index: u32,
    /// 1 for the call as the model proposed it; an edit by an approver makes the next one.
    pub revision: u32,
    /// Whether it is the call that undoes the one of the same numbers.
    pub undo: bool,
}

impl ToolCallId {
    /// The call at `index` of the reply of `turn`, as the model proposed it.
    #[must_use]
    pub fn new(turn: u32, index: u32) -> Self {
        Self { turn, index, revision: 1, undo: false }
    }
}

impl ToolCallId {
    /// The next revision of the same call: what an approver's edit makes of it.
    #[must_use]
    pub fn revised(self) -> Self {
        Self { revision: self.revision.saturating_add(1), ..self }
    }

    /// The call as the model proposed it, under whose id the model reads the result.
    #[must_use]
    pub fn proposed(self) -> Self {
        Self { revision: 1, ..self }
    }

    /// The call that undoes this one. It has one id, so it is one effect.
    #[must_use]
    pub fn undone_by(self) -> Self {
        Self { undo: true, ..self }
    }

    /// The call that this one undoes, if it undoes one.
    #[must_use]
    pub fn undoes(self) -> Option<Self> {
        self.undo.then_some(Self { undo: false, ..self })
    }
}

impl fmt::Display for ToolCallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}.{}", self.turn, self.index)?;
        if self.revision > 1 {
            write!(f, "r{}", self.revision)?;
        }
        if self.undo { f.write_str("u") } else { Ok(()) }
    }
}

impl FromStr for ToolCallId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let refused = || refused("tool call id", text, "it looks like `t3.1`, `t3.1r2` or `t3.1u`");
        let (turn, rest) = text.strip_prefix('t').and_then(|rest| rest.split_once('.')).ok_or_else(refused)?;
        let (rest, undo) = rest.strip_suffix('u').map_or((rest, false), |rest| (rest, true));
        let (index, revision) = rest.split_once('r').unwrap_or((rest, "1"));
        let number = |part: &str| part.parse::<u32>().map_err(|_| refused());
        let id = Self { turn: number(turn)?, index: number(index)?, revision: number(revision)?, undo };
        // One spelling for one id: `t03.1` and `t3.1r1` are refused.
        if id.to_string() == text { Ok(id) } else { Err(refused()) }
    }
}

impl Serialize for ToolCallId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ToolCallId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What stays the same over retries, continue-as-new and resets, and is new when a workflow id is used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunChain {
    /// Workflow id, chosen by whoever started the run. Foreign text: quote it before printing.
    pub workflow_id: String,
    /// Run id of the first execution of the chain, given by the Temporal server.
    pub first_run_id: String,
}

impl fmt::Display for RunChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workflow_id, self.first_run_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_accept_their_form_and_nothing_else() {
        let agent = |text: &str| AgentName::parse(text).is_ok();
        assert!(agent("acme/support/refunds"));
        for bad in
            ["", "acme", "acme/support", "acme/support/refunds/x", "Acme/support/refunds", "acme//refunds", "a/../c"]
        {
            assert!(!agent(bad), "{bad}");
        }
        let tool = |text: &str| ToolName::parse(text).is_ok();
        assert!(tool("payments.refund") && tool("clock"));
        for bad in ["", ".", "payments.", "Payments.refund", "pay ments", "payments/refund", &"a".repeat(65)] {
            assert!(!tool(bad), "{bad}");
        }
        let request = |text: &str| RequestId::parse(text).is_ok();
        assert!(request("r2-7f3a9c"));
        for bad in ["", "r-7f3a9c", "r2-7f3a9", "r2-7F3A9C", "2-7f3a9c", "r2-7f3a9c0"] {
            assert!(!request(bad), "{bad}");
        }
    }

    #[test]
    fn a_field_path_is_a_json_pointer() {
        let tokens = |text: &str| FieldPath::parse(text).unwrap().tokens().collect::<Vec<_>>();
        assert_eq!(tokens(""), Vec::<String>::new());
        assert_eq!(tokens("/"), [""]);
        assert_eq!(tokens("/items/*/a~1b~01"), ["items", "*", "a/b~1"]);
        for bad in ["email", "#/email", "/a~", "/a~2", "/a\nb", &format!("/{}", "a".repeat(500))] {
            assert!(FieldPath::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unclassified_is_a_data_class() {
        assert_eq!(DataClass::parse("unclassified"), Ok(DataClass::unclassified()));
        assert!(DataClass::unclassified().is_unclassified() && DataClass::parse("Contact").is_err());
    }

    #[test]
    fn a_call_id_has_one_spelling() {
        let id = ToolCallId { turn: 3, index: 1, revision: 2, undo: false };
        assert_eq!(id.to_string(), "t3.1r2");
        assert_eq!("t3.1r2".parse(), Ok(id));
        assert_eq!("t3.1".parse(), Ok(ToolCallId::new(3, 1)));
        let undo = id.undone_by();
        assert_eq!((undo.to_string().as_str(), undo.undoes(), id.undoes()), ("t3.1r2u", Some(id), None));
        assert_eq!("t3.1u".parse(), Ok(ToolCallId::new(3, 1).undone_by()));
        for bad in ["t3", "3.1", "t03.1", "t3.1r1", "t3.1r", "t-3.1", "t3.1 "] {
            assert!(bad.parse::<ToolCallId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_shows_bounded_text_without_control_characters() {
        let message = AgentName::parse("a\u{1b}[31m".repeat(100)).unwrap_err().to_string();
        assert!(message.len() < 300 && !message.contains('\u{1b}'), "{message}");
    }
}
