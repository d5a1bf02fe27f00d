//! Why a policy bundle cannot be loaded: what, where, and what was meant instead.

use std::fmt;

use miette::{Diagnostic, NamedSource, SourceSpan};

use crate::{GroupName, ParseIdError};

/// One thing that is wrong with a policy. Nothing was loaded; fix the text and load again.
#[derive(Debug, thiserror::Error)]
#[error("{location}: {problem}")]
pub struct LoadPolicyError {
    /// What is wrong.
    pub problem: PolicyProblem,
    location: Location,
    text: NamedSource<String>,
    span: Option<SourceSpan>,
    help: Option<String>,
}

/// Where it is wrong. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file.
    pub path: String,
    /// Line and column, where known.
    pub line_column: Option<(usize, usize)>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line_column {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// What can be wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// It is not Cedar.
    #[error("{0}")]
    NotCedar(String),
    /// It is Cedar and does not fit the registered tools.
    #[error("{0}")]
    Invalid(String),
    /// Decisions name policies, and a template is none.
    #[error("a policy template cannot be used here")]
    Template,
    /// Decisions name the policies that determined them.
    #[error("the policy has no `@id`")]
    MissingId,
    /// The id cannot be used.
    #[error("{0}")]
    BadId(ParseIdError),
    /// Two policies have one id.
    #[error("policy id `{id}` is used before, at {first}")]
    RepeatedId {
        /// The id.
        id: String,
        /// Where it was used first.
        first: Location,
    },
    /// Cedar takes any annotation, and a misspelt one would silently do nothing.
    #[error("unknown annotation `@{0}`")]
    UnknownAnnotation(String),
    /// There is one decision.
    #[error("`@decision` is `{0}`; only `require_approval` is known")]
    UnknownDecision(String),
    /// A gate is closed until it is opened.
    #[error("`@decision(\"require_approval\")` stands on a `permit`; a gate is a `forbid`")]
    GateOnPermit,
    /// Without the decision it describes nothing.
    #[error("`@{0}` describes a gate, and this policy is none: `@decision(\"require_approval\")` is missing")]
    NotAGate(&'static str),
    /// A gate that approvals cannot open would ask people in vain.
    #[error("the gate does not open: it needs `unless {{ context.approved.contains(\"{0}\") }}`")]
    GateNeverOpens(String),
    /// Approvals open their own gate and do nothing else.
    #[error("`context.approved` may only stand in a gate, once, and name the gate itself")]
    ApprovedElsewhere,
    /// Someone has to decide.
    #[error("the gate has no `@approvers`")]
    MissingApprovers,
    /// It names no group.
    #[error("{0}")]
    BadGroup(ParseIdError),
    /// The group is not configured.
    #[error("approver group `{0}` is not configured")]
    UnknownGroup(GroupName),
    /// Nobody could decide.
    #[error("approver group `{0}` has no members")]
    EmptyGroup(GroupName),
    /// It is no number of people.
    #[error("`@quorum` is `{0}`; it is a number from 1")]
    BadQuorum(String),
    /// It could never be reached.
    #[error("`@quorum` is {quorum}, and the approver groups have {members} different members")]
    QuorumOutOfReach {
        /// What is asked.
        quorum: u32,
        /// How many there are.
        members: usize,
    },
    /// It names no party of the run.
    #[error("`@four_eyes` names `{0}`; known are `requester`, `agent_owner`, `starter` and `editor`")]
    UnknownParty(String),
    /// It is no duration that can be used.
    #[error("`@expires` is `{0}`; it is an ISO 8601 duration from PT1S to P30D, such as PT24H")]
    BadExpires(String),
    /// It is no duration that can be used, or nobody would hear of it in time.
    #[error(
        "`@{annotation}` is `{text}`; it is an ISO 8601 duration from PT1S to less than that of `@expires`, such as PT8H"
    )]
    BadWait {
        /// Which annotation.
        annotation: &'static str,
        /// What it says.
        text: String,
    },
    /// One says when, the other whom.
    #[error("`@{there}` needs `@{missing}`")]
    HalfEscalation {
        /// The one that is there.
        there: &'static str,
        /// The one that is missing.
        missing: &'static str,
    },
    /// Nobody would be asked.
    #[error("`@escalate_to` names no group")]
    NobodyToAsk,
    /// There are two ends.
    #[error("`@on_expiry` is `{0}`; it is `deny` or `halt`")]
    UnknownOnExpiry(String),
    /// What a policy names has to be there, or it would silently match nothing.
    #[error("`Mandate::{kind}::\"{id}\"` is not configured")]
    UnknownEntity {
        /// The entity type.
        kind: String,
        /// The name.
        id: String,
    },
    /// An overflow is an evaluation error, and an evaluation error denies.
    #[error("the sum may overflow when it is evaluated")]
    MayOverflow,
    /// An evaluation error denies.
    #[error("`{0}` can fail when it is evaluated")]
    MayFail(String),
    /// Authority is given in the shared folder alone.
    #[error("a policy of `{0}` may only forbid: authority is given in the shared folder")]
    PermitBelow(String),
    /// A file of one part of the organisation binds no other part.
    #[error("a policy of `{0}` has to name it as its principal")]
    OutsideScope(String),
    /// The tool's name is an action of its own.
    #[error("a tool may not be called `{0}`: policies use that name for an action")]
    ReservedToolName(String),
    /// The registered tools make no Cedar schema. A defect: report it.
    #[error("the registered tools make no Cedar schema: {0}")]
    NoSchema(String),
}

impl LoadPolicyError {
    pub(super) fn new(path: &str, text: &str, span: Option<SourceSpan>, problem: PolicyProblem) -> Self {
        let line_column = span.map(|span| line_column(text, span.offset()));
        Self {
            problem,
            location: Location { path: path.to_owned(), line_column },
            text: NamedSource::new(path, text.to_owned()),
            span,
            help: None,
        }
    }

    pub(super) fn with_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// Where it is wrong.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What was probably meant.
    #[must_use]
    pub fn suggestion(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl Diagnostic for LoadPolicyError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.span.map(|_| &self.text as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let span = self.span?;
        Some(Box::new(std::iter::once(miette::LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}

fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The known word that is closest to a misspelt one, as a suggestion.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let distance = |other: &str| strsim::damerau_levenshtein(word, other);
    let best = known.into_iter().min_by_key(|other| distance(other))?;
    (distance(best) <= 1 + word.len() / 4).then(|| format!("did you mean `{best}`?"))
}
