//! Approval: what people are asked, what they answer, and the rules by which an answer counts.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Address, Content, GroupName, PersonId, PolicyId, RequestId, ToolCallId, audit::Proof, proof::Evidence};

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
    /// After how many seconds people are reminded, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_secs: Option<u64>,
    /// Who is asked as well, after a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
    /// What the end of its time leads to.
    #[serde(default, skip_serializing_if = "OnExpiry::is_deny")]
    pub on_expiry: OnExpiry,
}

/// Further people who may decide when nobody has after a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// After how many seconds.
    pub after_secs: u64,
    /// Groups whose members may decide from then on, beside the gate's own.
    pub to: Vec<GroupName>,
}

/// What it leads to that nobody decided in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The call is not performed, and the model reads why.
    #[default]
    Deny,
    /// The call is not performed, and the run stops.
    Halt,
}

impl OnExpiry {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    fn is_deny(&self) -> bool {
        *self == Self::Deny
    }
}

impl Gate {
    /// The groups whose members may decide now.
    #[must_use]
    pub fn deciders(&self, escalated: bool) -> Vec<GroupName> {
        let mut groups = self.approvers.clone();
        for group in self.escalation.iter().filter(|_| escalated).flat_map(|escalation| &escalation.to) {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        groups
    }
}

/// A party to a run that a gate may exclude from deciding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The person the run acts for (`on_behalf_of`), who asked for the effect.
    Requester,
    /// The owner of the agent.
    AgentOwner,
    /// Whoever started the run.
    Starter,
    /// Whoever changed the arguments that are decided about.
    Editor,
}

impl Party {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Requester, Self::AgentOwner, Self::Starter, Self::Editor];

    /// The word in `@four_eyes`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requester => "requester",
            Self::AgentOwner => "agent_owner",
            Self::Starter => "starter",
            Self::Editor => "editor",
        }
    }
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
    /// The keyed digest over run chain, call, gate, arguments and expiry, which a signature covers and which a token's
    /// `nonce` has to be. Its first digits stand in the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Address>,
    /// Until when it can be decided, in milliseconds since 1970-01-01 UTC by the Temporal server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

/// A decision as a person sent it: nothing in it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDecision {
    /// The request it names.
    pub request: RequestId,
    /// What was decided.
    pub verdict: Verdict,
    /// Who says that they decided. A claim, and none is needed where the proof names the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<PersonId>,
    /// Their words, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Other arguments, with which the call is to be judged afresh in place of the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Map<String, Value>>,
    /// What proves who they are.
    #[serde(flatten)]
    pub evidence: Evidence,
}

/// Where and when a person's message came in: enough to find its event in the history of that execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Run id of the execution.
    pub run_id: String,
    /// Name of the signal or update.
    pub name: String,
    /// Its position among those of that name in the execution; the first is 1.
    pub ordinal: u32,
    /// Workflow time at which it was taken in, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
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

impl Verdict {
    /// The word in payloads and statements.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

/// What the review of a decision, of an expiry or of an escalation came to.
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
    /// The arguments were changed: the call ended, and this revision of it is judged afresh.
    Revised {
        /// The revision.
        call: ToolCallId,
    },
    /// Nobody decided in time: the call ends with this result.
    Expired {
        /// What the model reads.
        result: Content,
    },
    /// Further people may decide.
    Escalated {
        /// The arguments as all who may decide now may see them.
        arguments_shown: String,
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
    /// Whoever said who they are could be anybody, also the person who decides.
    #[error("it is not proved who {role} is, so nobody can be told apart from them (four eyes)")]
    UnprovedParty {
        /// Their part in the run.
        role: &'static str,
    },
    /// One person, one vote.
    #[error("`{by}` has approved this request already")]
    SecondVote {
        /// Who tried.
        by: PersonId,
    },
    /// A claim cannot tell two people apart.
    #[error(
        "this gate asks for {asks}, and the word of whoever sends a decision cannot prove that; configure `[identity]`"
    )]
    Unproved {
        /// What the gate asks for.
        asks: &'static str,
    },
}

/// The parties of a run, for separation of duties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// The person the run acts for.
    pub requester: PersonId,
    /// The owner of the agent.
    pub agent_owner: PersonId,
    /// Whoever started the run.
    pub starter: PersonId,
    /// Whoever changed the arguments that are decided about.
    pub editor: Option<PersonId>,
    /// Those of them that nothing but their own word names.
    pub unproved: Vec<Party>,
}

impl Parties {
    fn person(&self, party: Party) -> (Option<&PersonId>, &'static str) {
        match party {
            Party::Requester => (Some(&self.requester), "the person the run acts for"),
            Party::AgentOwner => (Some(&self.agent_owner), "the owner of the agent"),
            Party::Starter => (Some(&self.starter), "the person who started the run"),
            Party::Editor => (self.editor.as_ref(), "the person who changed the arguments"),
        }
    }
}

/// Who decides, and how that was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider<'a> {
    /// Who.
    pub by: &'a PersonId,
    /// How that was proved.
    pub proof: Proof,
    /// The groups they are in.
    pub member_of: &'a [GroupName],
    /// What they decided.
    pub verdict: Verdict,
}

/// What a gate asks for that claims cannot hold: more than one person, or one who is no party.
#[must_use]
pub fn needs_proof(gate: &Gate) -> Option<&'static str> {
    if gate.quorum > 1 {
        Some("more than one approver")
    } else if gate.four_eyes.is_empty() {
        None
    } else {
        Some("four eyes")
    }
}

/// Whether somebody may decide at `gate`: proved where the gate needs it, a member of a named group, not excluded, not
/// counted before.
///
/// # Errors
/// Every rule that is broken, the most telling first.
pub fn admit_decision(
    gate: &Gate,
    escalated: bool,
    decider: Decider<'_>,
    parties: &Parties,
    approved_by: &[PersonId],
) -> Result<(), Vec<RefuseDecision>> {
    let by = decider.by;
    let mut broken = Vec::new();
    let groups = gate.deciders(escalated);
    if !groups.iter().any(|group| decider.member_of.contains(group)) {
        let groups = groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ");
        broken.push(RefuseDecision::NotAnApprover { by: by.clone(), groups });
    }
    for party in &gate.four_eyes {
        let (person, role) = parties.person(*party);
        if person == Some(by) {
            broken.push(RefuseDecision::FourEyes { by: by.clone(), role });
        } else if decider.verdict == Verdict::Approve && parties.unproved.contains(party) {
            broken.push(RefuseDecision::UnprovedParty { role });
        }
    }
    // Whoever approved may still reject: one rejection ends it.
    if decider.verdict == Verdict::Approve && approved_by.contains(by) {
        broken.push(RefuseDecision::SecondVote { by: by.clone() });
    }
    if let Some(asks) = needs_proof(gate).filter(|_| decider.proof == Proof::Claimed) {
        broken.push(RefuseDecision::Unproved { asks });
    }
    if broken.is_empty() { Ok(()) } else { Err(broken) }
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

impl Resolution {
    /// The word in payloads and statements.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Happened => "happened",
            Self::DidNotHappen => "did_not_happen",
            Self::Skip => "skip",
        }
    }
}

#[cfg(test)]
mod tests;
