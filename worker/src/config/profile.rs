//! `profile`: what the operating folder is for.

use std::fmt;

use serde::Serialize;

/// What the operating folder is for. Whoever says nothing gets the strict one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// One person tries things out: convenience comes first.
    Development,
    /// Others rely on it.
    #[default]
    Production,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 2] = [Self::Development, Self::Production];

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == name)
    }

    /// How it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
