//! The search attributes a run carries, by name and type.
//!
//! Never personal data: these values are visible to everybody who may list workflows.

/// Name and Temporal type of every search attribute that a run sets.
pub const SEARCH_ATTRIBUTES: [(&str, &str); 6] = [
    ("MandateAgent", "Keyword"),
    ("MandateTenant", "Keyword"),
    ("MandateState", "Keyword"),
    ("MandateApprovers", "KeywordList"),
    ("MandateFailure", "Keyword"),
    ("MandateCostMicros", "Int"),
];
