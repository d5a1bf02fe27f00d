//! Quarantine: what nothing may touch, whatever policy says. It is effective at once and needs no new bundle.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{AgentName, ModelName, ParseIdError, PersonId, ServerName, ToolName, ids::refused};

/// Something that can be put into quarantine: `tool:payments.refund`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum QuarantineTarget {
    /// An agent: none of its runs does anything.
    Agent(AgentName),
    /// A tool of the registry: nobody calls it.
    Tool(ToolName),
    /// A tool server: none of its tools is called.
    Server(ServerName),
    /// A configured model: nobody asks it.
    Model(ModelName),
    /// A person: nothing is done on their behalf.
    Person(PersonId),
}

impl QuarantineTarget {
    /// From [`QuarantineTarget::kind`] and [`QuarantineTarget::name`].
    ///
    /// # Errors
    /// [`ParseIdError`] for an unknown kind or a name that the kind does not allow.
    pub fn from_parts(kind: &str, name: &str) -> Result<Self, ParseIdError> {
        match kind {
            "agent" => name.parse().map(Self::Agent),
            "tool" => name.parse().map(Self::Tool),
            "server" => name.parse().map(Self::Server),
            "model" => name.parse().map(Self::Model),
            "person" => name.parse().map(Self::Person),
            _ => Err(malformed(kind)),
        }
    }

    /// What kind of thing it is, as it stands before the colon.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::Tool(_) => "tool",
            Self::Server(_) => "server",
            Self::Model(_) => "model",
            Self::Person(_) => "person",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Agent(name) => name.as_str(),
            Self::Tool(name) => name.as_str(),
            Self::Server(name) => name.as_str(),
            Self::Model(name) => name.as_str(),
            Self::Person(name) => name.as_str(),
        }
    }
}

fn malformed(text: &str) -> ParseIdError {
    refused("quarantine target", text, "write `agent:`, `tool:`, `server:`, `model:` or `person:` and the name")
}

impl fmt::Display for QuarantineTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.name())
    }
}

impl FromStr for QuarantineTarget {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (kind, name) = text.split_once(':').ok_or_else(|| malformed(text))?;
        Self::from_parts(kind, name)
    }
}

/// Something that is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// What.
    pub target: QuarantineTarget,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who put it there.
    pub by: PersonId,
    /// Since when: microseconds since 1970-01-01 UTC.
    pub since_micros: u64,
}

/// The first of the touched things that is in quarantine. In the order of `touched`, so that a step that is refused twice
/// is refused for the same reason.
#[must_use]
pub fn first_hit<'a>(quarantined: &'a [Quarantined], touched: &[QuarantineTarget]) -> Option<&'a Quarantined> {
    touched.iter().find_map(|touched| quarantined.iter().find(|quarantined| quarantined.target == *touched))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXTS: [&str; 5] =
        ["agent:acme/support/refunds", "tool:payments.refund", "server:refunds", "model:support", "person:a:b c@acme"];

    fn target(text: &str) -> QuarantineTarget {
        text.parse().unwrap()
    }

    #[test]
    fn a_target_is_written_as_kind_and_name() {
        for text in TEXTS {
            let (kind, name) = text.split_once(':').unwrap();
            assert_eq!(target(text).to_string(), text);
            assert_eq!((target(text).kind(), target(text).name()), (kind, name));
            assert_eq!(QuarantineTarget::from_parts(kind, name).unwrap(), target(text));
            assert_eq!(serde_json::to_value(target(text)).unwrap(), json!({ "kind": kind, "name": name }));
            assert_eq!(
                serde_json::from_value::<QuarantineTarget>(json!({ "kind": kind, "name": name })).unwrap(),
                target(text)
            );
        }
    }

    #[test]
    fn a_text_that_is_no_target_says_how_to_write_one() {
        for text in ["", "payments.refund", "tools:payments.refund", "Tool:payments.refund", " tool:payments.refund"] {
            let error = text.parse::<QuarantineTarget>().unwrap_err().to_string();
            assert!(error.contains("`tool:`"), "{error}");
        }
        for text in ["tool:", "tool:Payments", "agent:acme", "person: "] {
            assert!(text.parse::<QuarantineTarget>().is_err(), "{text}");
        }
        assert!(serde_json::from_value::<QuarantineTarget>(json!({ "kind": "tool", "name": "Payments" })).is_err());
    }

    #[test]
    fn the_first_touched_thing_is_hit_and_a_like_name_of_another_kind_is_not() {
        let list: Vec<_> = ["tool:payments.refund", "server:support"]
            .map(|text| Quarantined {
                target: target(text),
                reason: "leak".into(),
                by: PersonId::parse("olga@acme.example").unwrap(),
                since_micros: 1,
            })
            .into();
        let hit = |touched: &[&str]| {
            let touched: Vec<_> = touched.iter().map(|text| target(text)).collect();
            first_hit(&list, &touched).map(|hit| hit.target.to_string())
        };
        assert_eq!(hit(&["model:support", "tool:payments.read"]), None);
        assert_eq!(hit(&[]), None);
        for touched in [["server:support", "tool:payments.refund"], ["tool:payments.refund", "server:support"]] {
            assert_eq!(hit(&touched).as_deref(), Some(touched[0]));
        }
    }
}
