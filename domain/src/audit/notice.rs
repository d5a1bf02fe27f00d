//! Names of notices: which request or question the webhook is told of, and what about it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::{ParseIdError, refused};

/// One notice of a run: `r2.asked`. A run gives each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId {
    /// What it is about.
    pub about: Noticed,
    /// What there is to tell.
    pub kind: NoticeKind,
}

/// What a notice is about, by its ordinal in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Noticed {
    /// A request for approval: `r2`.
    Request(u32),
    /// A question: `q1`.
    Question(u32),
}

/// What a notice tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeKind {
    /// It waits for people.
    Asked,
    /// It still does.
    Reminder,
    /// Further people may decide.
    Escalated,
    /// Nobody decided in time.
    Expired,
}

impl NoticeKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Asked, Self::Reminder, Self::Escalated, Self::Expired];

    /// The word in ids, policies and webhooks.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Reminder => "reminder",
            Self::Escalated => "escalated",
            Self::Expired => "expired",
        }
    }
}

impl NoticeId {
    /// Of the request or question with this id, whose ordinal stands behind its first letter.
    #[must_use]
    pub fn of(id: &str, kind: NoticeKind) -> Option<Self> {
        let (ordinal, _) = id.get(1..)?.split_once('-')?;
        let ordinal = ordinal.parse().ok()?;
        let about = if id.starts_with('q') { Noticed::Question(ordinal) } else { Noticed::Request(ordinal) };
        Some(Self { about, kind })
    }
}

impl fmt::Display for NoticeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, ordinal) = match self.about {
            Noticed::Request(ordinal) => ('r', ordinal),
            Noticed::Question(ordinal) => ('q', ordinal),
        };
        write!(f, "{letter}{ordinal}.{}", self.kind.as_str())
    }
}

impl FromStr for NoticeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || refused("notice id", text, "it looks like `r2.asked` or `q1.expired`");
        let (about, kind) = text.split_once('.').ok_or_else(refused)?;
        let kind = NoticeKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or_else(refused)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| refused());
        let about = match (about.strip_prefix('r'), about.strip_prefix('q')) {
            (Some(ordinal), _) => Noticed::Request(number(ordinal)?),
            (None, Some(ordinal)) => Noticed::Question(number(ordinal)?),
            (None, None) => return Err(refused()),
        };
        let id = Self { about, kind };
        // One spelling for one id.
        if id.to_string() == text { Ok(id) } else { Err(refused()) }
    }
}

impl Serialize for NoticeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NoticeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EffectId;

    #[test]
    fn a_notice_has_one_spelling_and_is_no_other_effect() {
        for text in ["r2.asked", "q1.expired", "r12.reminder", "r1.escalated"] {
            assert_eq!(text.parse::<NoticeId>().unwrap().to_string(), text);
            assert!(matches!(text.parse::<EffectId>(), Ok(EffectId::Notice(_))), "{text}");
        }
        for bad in ["", "r.asked", "r02.asked", "x1.asked", "r1.told", "r1", "t1.0"] {
            assert!(bad.parse::<NoticeId>().is_err(), "{bad}");
        }
        assert!(matches!("t1.0".parse::<EffectId>(), Ok(EffectId::Tool(_))));
    }

    #[test]
    fn a_notice_is_named_by_what_it_is_about() {
        assert_eq!(NoticeId::of("r2-7f3a9c", NoticeKind::Asked).unwrap().to_string(), "r2.asked");
        assert_eq!(NoticeId::of("q1-7f3a9c", NoticeKind::Expired).unwrap().to_string(), "q1.expired");
        assert_eq!(NoticeId::of("nonsense", NoticeKind::Asked), None);
    }
}
