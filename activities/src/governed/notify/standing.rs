//! Whether there is something to tell: people are told while they are waited for, and when they were in vain.

use mandate_domain::audit::NoticeKind;

use crate::store::{QuestionRow, QuestionState, RequestRow, RequestState};

/// Whether there is something to tell of a request or a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    ToTell,
    /// People were to act, and it is settled.
    NotNeeded,
    /// It never came to that.
    Never,
}

/// Of a request.
pub(super) fn of_request(row: &RequestRow, kind: NoticeKind) -> Standing {
    let happened = match kind {
        NoticeKind::Asked => true,
        NoticeKind::Reminder => row.gate.remind_secs.is_some(),
        NoticeKind::Escalated => row.escalated,
        NoticeKind::Expired => row.state == RequestState::Expired,
    };
    match (happened, kind, row.state) {
        (false, _, _) => Standing::Never,
        (true, NoticeKind::Expired, _) | (true, _, RequestState::Open) => Standing::ToTell,
        (true, NoticeKind::Asked | NoticeKind::Reminder | NoticeKind::Escalated, _) => Standing::NotNeeded,
    }
}

/// Of a question.
pub(super) fn of_question(row: &QuestionRow, kind: NoticeKind) -> Standing {
    match (kind, row.state) {
        (NoticeKind::Asked, QuestionState::Open) | (NoticeKind::Expired, QuestionState::Expired) => Standing::ToTell,
        (NoticeKind::Asked, QuestionState::Answered | QuestionState::Expired | QuestionState::Withdrawn) => {
            Standing::NotNeeded
        }
        // A question reminds nobody and asks nobody else.
        (NoticeKind::Reminder | NoticeKind::Escalated, _)
        | (NoticeKind::Expired, QuestionState::Open | QuestionState::Answered | QuestionState::Withdrawn) => {
            Standing::Never
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use mandate_domain::{
        Address, Gate,
        approval::{Escalation, OnExpiry},
    };

    use super::*;

    fn address() -> Address {
        Address::from_bytes([7; 32])
    }

    /// A request of a gate that reminds and escalates.
    pub(in crate::governed::notify) fn request(state: RequestState, escalated: bool) -> RequestRow {
        RequestRow {
            id: "r1-7f3a9c".parse().unwrap(),
            ordinal: 1,
            call: "t1.0".parse().unwrap(),
            arguments: address(),
            gate: Gate {
                id: "refund.large".parse().unwrap(),
                approvers: vec!["finance-leads".parse().unwrap()],
                quorum: 1,
                four_eyes: Vec::new(),
                expires_secs: 60,
                reason: "refunds above 100 EUR need a finance lead".to_owned(),
                remind_secs: Some(10),
                escalation: Some(Escalation { after_secs: 20, to: vec!["board".parse().unwrap()] }),
                on_expiry: OnExpiry::Deny,
            },
            state,
            digest: address(),
            expires_ms: Some(1_795_254_720_000),
            escalated,
        }
    }

    pub(in crate::governed::notify) fn question(state: QuestionState) -> QuestionRow {
        QuestionRow {
            id: "q1-7f3a9c".parse().unwrap(),
            ordinal: 1,
            call: "t1.0".parse().unwrap(),
            expires_ms: 1_795_254_720_000,
            asked: r#"{"question":"Refund him?"}"#.to_owned(),
            state,
            server: None,
            answer: None,
        }
    }

    #[test]
    fn people_are_told_of_a_request_while_it_waits_and_of_its_end() {
        use Standing::{Never, NotNeeded, ToTell};
        for (state, escalated, expected) in [
            (RequestState::Open, false, [ToTell, ToTell, Never, Never]),
            (RequestState::Open, true, [ToTell, ToTell, ToTell, Never]),
            (RequestState::Approved, true, [NotNeeded, NotNeeded, NotNeeded, Never]),
            (RequestState::Rejected, true, [NotNeeded, NotNeeded, NotNeeded, Never]),
            (RequestState::Expired, true, [NotNeeded, NotNeeded, NotNeeded, ToTell]),
            (RequestState::Withdrawn, true, [NotNeeded, NotNeeded, NotNeeded, Never]),
            (RequestState::Consumed, false, [NotNeeded, NotNeeded, Never, Never]),
        ] {
            let row = request(state, escalated);
            assert_eq!(NoticeKind::ALL.map(|kind| of_request(&row, kind)), expected, "{state:?}");
        }
        let mut silent = request(RequestState::Open, false);
        silent.gate.remind_secs = None;
        assert_eq!(of_request(&silent, NoticeKind::Reminder), Never, "a reminder that no gate asks for");
    }

    #[test]
    fn people_are_told_of_a_question_while_it_waits_and_of_its_end() {
        use Standing::{Never, NotNeeded, ToTell};
        for (state, expected) in [
            (QuestionState::Open, [ToTell, Never, Never, Never]),
            (QuestionState::Answered, [NotNeeded, Never, Never, Never]),
            (QuestionState::Expired, [NotNeeded, Never, Never, ToTell]),
            (QuestionState::Withdrawn, [NotNeeded, Never, Never, Never]),
        ] {
            assert_eq!(NoticeKind::ALL.map(|kind| of_question(&question(state), kind)), expected, "{state:?}");
        }
    }
}
