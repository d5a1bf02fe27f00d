//! How Temporal reports an execution whose run is still open in the store.

use serde::{Deserialize, Serialize};

use crate::EndReason;

/// How an execution ended, in Temporal's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundEnd {
    /// Somebody terminated it.
    Terminated,
    /// It ran out of its own time.
    TimedOut,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It completed.
    Completed,
    /// Temporal does not know it any more: it was deleted, or kept for as long as the namespace keeps executions.
    Gone,
}

impl FoundEnd {
    /// Every way.
    pub const ALL: [Self; 6] =
        [Self::Terminated, Self::TimedOut, Self::Failed, Self::Cancelled, Self::Completed, Self::Gone];

    /// The word in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminated => "terminated",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::Gone => "gone",
        }
    }

    /// Why a run that is found so has ended. An execution that completed or failed without closing its run is a run that
    /// was lost on the way.
    #[must_use]
    pub fn reason(self) -> EndReason {
        match self {
            Self::Terminated => EndReason::Terminated,
            Self::TimedOut => EndReason::TimedOut,
            Self::Cancelled => EndReason::Cancelled,
            Self::Failed | Self::Completed | Self::Gone => EndReason::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunState;

    #[test]
    fn what_is_found_is_written_as_it_is_said_and_ends_the_run() {
        for found in FoundEnd::ALL {
            assert_eq!(serde_json::to_value(found).unwrap(), found.as_str());
            assert!(found.reason().state().is_terminal() && found.reason().state() != RunState::Completed);
        }
        let states = [RunState::Stopped, RunState::Failed, RunState::Failed, RunState::Cancelled];
        let found = FoundEnd::ALL.into_iter().map(|found| found.reason().state());
        assert_eq!(found.take(4).collect::<Vec<_>>(), states);
    }
}
