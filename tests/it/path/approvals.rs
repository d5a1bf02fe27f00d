//! Which decisions count, for what, and what becomes of the others.

use mandate_domain::{RecordBody, RequestId, Review, Verdict};

use super::{
    run::{ANA, BO, EVE, Run, counted, id, refund},
    world::{Folder, on_both_engines},
};

const MEMBERS: &str = r#"finance-leads = ["bo@acme.example", "eve@acme.example"]"#;

fn refused_decision(body: &RecordBody) -> bool {
    matches!(body, RecordBody::ApprovalDecided { refused: Some(_), .. })
}

fn counted_decision(body: &RecordBody) -> bool {
    matches!(body, RecordBody::ApprovalDecided { refused: None, .. })
}

fn reason(review: Review) -> String {
    match review {
        Review::Refused { reason } => reason,
        other => panic!("{other:?}"),
    }
}

async fn an_approval_counts_for_its_own_call_and_no_other() {
    let world = Folder::proposing(&[&refund(50_000), &refund(20_000), &refund(20_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let first = run.asked("t1.0").await.remove(0);
    let second = run.asked("t1.1").await.remove(0);
    let third = run.asked("t1.2").await.remove(0);
    assert!(first.id != second.id && second.id != third.id && second.arguments == third.arguments);
    assert_eq!(run.approve(&second, BO).await, counted(1, true));
    assert_eq!(run.asked("t1.0").await, [first]);
    assert_eq!(run.asked("t1.2").await, [third]);
    assert_eq!(run.paid().await, [0; 0]);
    run.returned("t1.1").await;
    assert_eq!((run.paid().await, run.intents().await), (vec![20_000], 1));
    let consumed = |body: &RecordBody| match body {
        RecordBody::Intent { approvals, .. } => approvals.contains(&second.id),
        _ => false,
    };
    assert_eq!(run.count(consumed).await, 1);
}

const FOUR_EYES: &str = "@quorum(\"1\")\n@four_eyes(\"requester\")\n";

async fn a_stranger_the_requester_and_a_wrong_id_decide_nothing() {
    let members = r#"finance-leads = ["bo@acme.example", "ana@acme.example"]"#;
    let world = Folder::proposing(&[&refund(50_000), &refund(20_000)]).edit("mandate.toml", MEMBERS, members);
    let world = world.edit("policies/refunds.cedar", "@quorum(\"1\")\n", FOUR_EYES).with_keys().world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    let other = run.asked("t1.1").await.remove(0);
    let not_a_member = reason(run.approve(&request, EVE).await);
    assert!(not_a_member.contains(EVE) && not_a_member.contains("finance-leads"), "{not_a_member}");
    let own = reason(run.approve(&request, ANA).await);
    assert!(own.contains("four eyes"), "{own}");
    let unknown = RequestId::parse("r9-abcdef").unwrap();
    let nothing = reason(run.review(run.decision(request.call, &unknown, Verdict::Approve, BO).await).await);
    assert!(nothing.contains("r9-abcdef"), "{nothing}");
    // The right id under another call's name.
    let misplaced = reason(run.review(run.decision(other.call, &request.id, Verdict::Approve, BO).await).await);
    assert!(misplaced.contains("t1.1"), "{misplaced}");
    let nowhere = reason(run.review(run.decision(id("t7.0"), &request.id, Verdict::Reject, BO).await).await);
    assert!(nowhere.contains("t7.0"), "{nowhere}");
    assert_eq!((run.count(refused_decision).await, run.count(counted_decision).await), (5, 0));
    assert_eq!(run.asked("t1.0").await, std::slice::from_ref(&request));
    assert_eq!(run.approve(&request, BO).await, counted(1, true));
    run.returned("t1.0").await;
    assert_eq!(run.paid().await, [50_000]);
}

async fn two_people_are_two_people() {
    let two = r#"@quorum("2")"#;
    let world = Folder::proposing(&[&refund(50_000)]).edit("policies/refunds.cedar", r#"@quorum("1")"#, two);
    let world = world.with_keys().world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    assert_eq!(run.approve(&request, BO).await, counted(1, false));
    let twice = reason(run.approve(&request, BO).await);
    assert!(twice.contains(BO), "{twice}");
    assert_eq!(run.asked("t1.0").await, std::slice::from_ref(&request));
    assert_eq!(run.approve(&request, EVE).await, counted(2, true));
    run.returned("t1.0").await;
    assert_eq!((run.paid().await, run.count(refused_decision).await), (vec![50_000], 1));
}

async fn a_decided_request_is_not_decided_again_and_the_attempt_is_audited() {
    let world = Folder::proposing(&[&refund(50_000), &refund(20_000), &refund(30_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let approved = run.asked("t1.0").await.remove(0);
    let rejected = run.asked("t1.1").await.remove(0);
    let expired = run.asked("t1.2").await.remove(0);
    run.approve(&approved, BO).await;
    assert_eq!(run.reject(&approved, EVE).await, Review::AlreadyDecided);
    run.reject(&rejected, BO).await;
    assert_eq!(run.approve(&rejected, EVE).await, Review::AlreadyDecided);
    run.review(run.expiry(&expired)).await;
    assert_eq!(run.approve(&expired, EVE).await, Review::AlreadyDecided);
    run.returned("t1.0").await;
    assert_eq!(run.review(run.expiry(&approved)).await, Review::AlreadyDecided);
    assert_eq!(run.reject(&approved, EVE).await, Review::AlreadyDecided);
    assert_eq!((run.count(refused_decision).await, run.count(counted_decision).await), (4, 2));
    assert!(run.refused("t1.1").await.1.contains("rejected") && run.refused("t1.2").await.1.contains("expired"));
    assert_eq!(run.paid().await, [50_000]);
}

async fn a_rejection_ends_the_call_with_the_words_of_who_rejected() {
    let world = Folder::proposing(&[&refund(50_000)]).world().await;
    let mut run = Run::proposed(&world).await;
    let request = run.asked("t1.0").await.remove(0);
    let mut decision = run.decision(request.call, &request.id, Verdict::Reject, BO).await;
    let mandate_workflows::contract::ReviewSubject::Decision { decision: said, .. } = &mut decision.subject else {
        panic!("a decision")
    };
    said.comment = Some("the order was\nnever returned".to_owned());
    let Review::Rejected { result } = run.review(decision).await else { panic!("not rejected") };
    assert!(result.shown().contains("rejected") && result.shown().contains("never returned"), "{result:?}");
    assert!(!result.shown().contains('\n'), "{result:?}");
    assert_eq!(run.refused("t1.0").await.1, result.shown());
    run.turn().await;
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
}

const SECOND_GATE: &str = r#"@id("refund.any") @reason("the owner looks at each refund") @decision("require_approval")
    @approvers("finance-leads") @quorum("1") @expires("PT1H")
    forbid (principal, action == Mandate::Action::"payments.refund", resource)
    unless { context.approved.contains("refund.any") };"#;

/// One gate ends the call: an approval at the other one counts for nothing, whether it came before or comes after.
async fn a_rejection_or_an_expiry_at_one_gate_withdraws_the_other() {
    let folder = Folder::proposing(&[&refund(50_000), &refund(20_000)]).policy("second", SECOND_GATE);
    let world = folder.world().await;
    let mut run = Run::proposed(&world).await;
    let (first, second) = (run.asked("t1.0").await, run.asked("t1.1").await);
    assert!(matches!(run.reject(&first[0], BO).await, Review::Rejected { .. }));
    assert_eq!(run.approve(&first[1], BO).await, Review::AlreadyDecided);
    assert_eq!(run.approve(&second[0], BO).await, counted(1, true));
    assert!(matches!(run.review(run.expiry(&second[0])).await, Review::Expired { .. }), "an approval too runs out");
    assert_eq!(run.approve(&second[1], BO).await, Review::AlreadyDecided);
    run.refused("t1.0").await;
    run.refused("t1.1").await;
    assert_eq!((run.paid().await, run.intents().await), (vec![], 0));
}

async fn a_call_with_two_gates_waits_for_both() {
    let world = Folder::proposing(&[&refund(50_000)]).policy("second", SECOND_GATE).world().await;
    let mut run = Run::proposed(&world).await;
    let requests = run.asked("t1.0").await;
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(run.approve(&requests[0], BO).await, counted(1, true));
    assert_eq!(run.asked("t1.0").await, [requests[1].clone()]);
    assert_eq!(run.approve(&requests[1], BO).await, counted(1, true));
    run.returned("t1.0").await;
    assert_eq!((run.paid().await, run.intents().await), (vec![50_000], 1));
}

on_both_engines! {
    an_approval_counts_for_its_own_call_and_no_other
    a_stranger_the_requester_and_a_wrong_id_decide_nothing
    two_people_are_two_people
    a_decided_request_is_not_decided_again_and_the_attempt_is_audited
    a_rejection_ends_the_call_with_the_words_of_who_rejected
    a_rejection_or_an_expiry_at_one_gate_withdraws_the_other
    a_call_with_two_gates_waits_for_both
}
