//! Approval: what people are asked, what they answer, and the rules by which an answer counts.

use serde::{Deserialize, Serialize};

use crate::{Address, Content, GroupName, PersonId, PolicyId, RequestId, ToolCallId};

/// A gate as its policy describes it. The description grants nothing: after the decisions policy is evaluated again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// The id of the policy that asks.
    pub id: PolicyId,
    /// Groups whose members may decide.
    pub approvers: Vec<GroupName>,
    /// How many different people have to approve.
    pub quorum: u32,
    /// Who is excluded although a member.
    pub four_eyes: Vec<Party>,
    /// How long the request stays open, in seconds.
    pub expires_secs: u64,
    /// Why the policy asks.
    pub reason: String,
}

/// A party to a run that a gate may exclude from deciding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The person the run acts for (`on_behalf_of`), who asked for the effect.
    Requester,
    /// The owner of the agent.
    AgentOwner,
}

/// One request for approval: one gate of one call, bound to the digest of its canonical arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequest {
    /// Its id, which every decision has to name.
    pub id: RequestId,
    /// The call that waits.
    pub call: ToolCallId,
    /// The tool.
    pub tool: String,
    /// Address of the canonical arguments.
    pub arguments: Address,
    /// The gate.
    pub gate: Gate,
    /// The arguments as they may be shown, as canonical JSON, at most 4 KiB. Foreign text: escape before showing.
    pub arguments_shown: String,
}

/// A decision as a person sent it: nothing in it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDecision {
    /// The request it names.
    pub request: RequestId,
    /// What was decided.
    pub verdict: Verdict,
    /// Who says that they decided. A claim.
    pub by: PersonId,
    /// Their words, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Do it.
    Approve,
    /// Do not.
    Reject,
}

/// What the review of a decision, or of an expiry, came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "review", rename_all = "snake_case")]
pub enum Review {
    /// The approval counts.
    Counted {
        /// Different people who approved so far.
        votes: u32,
        /// Whether that is enough.
        quorum_reached: bool,
    },
    /// The rejection counts: the call ends with this result.
    Rejected {
        /// What the model reads.
        result: Content,
    },
    /// Nobody decided in time: the call ends with this result.
    Expired {
        /// What the model reads.
        result: Content,
    },
    /// The decision does not count, and the request stays open.
    Refused {
        /// Why.
        reason: String,
    },
    /// The request was decided before. Nothing changes.
    AlreadyDecided,
}

/// Why a decision does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefuseDecision {
    /// Only members of the gate's groups decide.
    #[error("`{by}` is in none of the approver groups ({groups})")]
    NotAnApprover {
        /// Who tried.
        by: PersonId,
        /// The groups, joined.
        groups: String,
    },
    /// Separation of duties.
    #[error("`{by}` is {role} and may not decide this request (four eyes)")]
    FourEyes {
        /// Who tried.
        by: PersonId,
        /// Their part in the run.
        role: &'static str,
    },
    /// One person, one vote.
    #[error("`{by}` has approved this request already")]
    SecondVote {
        /// Who tried.
        by: PersonId,
    },
}

/// The parties of a run, for separation of duties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// The person the run acts for.
    pub requester: PersonId,
    /// The owner of the agent.
    pub agent_owner: PersonId,
}

/// Whether `by` may decide at `gate`: a member of a named group, not excluded, not counted before.
///
/// # Errors
/// The first rule that is broken.
pub fn admit_decision(
    gate: &Gate,
    by: &PersonId,
    member_of: &[GroupName],
    parties: &Parties,
    approved_by: &[PersonId],
) -> Result<(), RefuseDecision> {
    if !gate.approvers.iter().any(|group| member_of.contains(group)) {
        let groups = gate.approvers.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ");
        return Err(RefuseDecision::NotAnApprover { by: by.clone(), groups });
    }
    for party in &gate.four_eyes {
        let (person, role) = match party {
            Party::Requester => (&parties.requester, "the person the run acts for"),
            Party::AgentOwner => (&parties.agent_owner, "the owner of the agent"),
        };
        if person == by {
            return Err(RefuseDecision::FourEyes { by: by.clone(), role });
        }
    }
    if approved_by.contains(by) {
        return Err(RefuseDecision::SecondVote { by: by.clone() });
    }
    Ok(())
}

/// How a person says what became of a call whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It happened. The model is told so.
    Happened,
    /// It did not happen. The model is told so and may propose it again.
    DidNotHappen,
    /// Unknown for good. The run goes on without it.
    Skip,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(text: &str) -> PersonId {
        PersonId::parse(text).unwrap()
    }

    fn check(by: &str, groups: &[&str], approved_by: &[&str]) -> Result<(), String> {
        let gate = Gate {
            id: PolicyId::parse("refund.large").unwrap(),
            approvers: vec![GroupName::parse("finance-leads").unwrap()],
            quorum: 2,
            four_eyes: vec![Party::Requester, Party::AgentOwner],
            expires_secs: 60,
            reason: "large".into(),
        };
        let parties = Parties { requester: person("ana"), agent_owner: person("owner") };
        let groups: Vec<_> = groups.iter().map(|g| GroupName::parse(*g).unwrap()).collect();
        let approved: Vec<_> = approved_by.iter().map(|p| person(p)).collect();
        admit_decision(&gate, &person(by), &groups, &parties, &approved).map_err(|error| error.to_string())
    }

    #[test]
    fn a_member_decides_once_and_the_parties_never() {
        assert_eq!(check("bo", &["finance-leads"], &[]), Ok(()));
        assert_eq!(check("bo", &["finance-leads"], &["eve"]), Ok(()));
        assert_eq!(check("bo", &["finance-leads"], &["bo"]), Err("`bo` has approved this request already".into()));
        assert_eq!(check("bo", &["sales"], &[]), Err("`bo` is in none of the approver groups (finance-leads)".into()));
        assert_eq!(
            check("ana", &["finance-leads"], &[]),
            Err("`ana` is the person the run acts for and may not decide this request (four eyes)".into())
        );
        assert!(check("owner", &["finance-leads"], &[]).is_err());
    }
}
