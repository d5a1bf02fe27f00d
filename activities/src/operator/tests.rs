//! Operator acts through their API: one store, several handles.

use mandate_domain::{
    AuditRecord,
    audit::verify::{Finding, verify_own},
    canonical,
    policy::{PolicyBundle, PolicyScope, PolicySource, Registry},
};
use serde_json::json;

use super::*;
use crate::test_stores::{Home, On, on_both_engines};

async fn open(home: &Home) -> Store {
    home.open().await
}

fn operator(store: &Store) -> Operator {
    Operator::new(store.clone(), "42@desk")
}

fn digest(text: &str) -> Digest {
    canonical::sha256(text.as_bytes())
}

fn judged(judgement: Judgement) -> Judged {
    Judged { by: PersonId::parse("olga@acme.example").unwrap(), proof: Proof::Claimed, judgement }
}

/// Permitted by a policy of the bundle with this content.
fn permitted(content: Option<&str>) -> Judged {
    let policies = vec![PolicyId::parse("operators.act").unwrap()];
    judged(Judgement::Permitted { policies, bundle: content.map(digest) })
}

fn refused() -> Judged {
    let reason = "no policy permits it ".repeat(100);
    judged(Judgement::Refused { policies: vec![], bundle: Some(digest("one")), reason })
}

fn bundle(content: &str, expected_version: Option<u64>) -> BundleToApply {
    let (files, digest) = (json!({ "a.cedar": content }), digest(content));
    BundleToApply { files, digest, note: Some("ticket 7".into()), rollback: false, expected_version }
}

fn target() -> QuarantineTarget {
    "tool:payments.refund".parse().unwrap()
}

async fn findings(store: &Store) -> Vec<Finding> {
    let head = store.own_head().await.unwrap();
    verify_own(&store.own_chain(), &store.records(&store.own_chain()).await.unwrap(), Some(&head)).findings
}

/// The store's own records, whose chain holds.
async fn records(store: &Store) -> Vec<AuditRecord> {
    assert_eq!(findings(store).await, []);
    let stored = store.records(&store.own_chain()).await.unwrap();
    stored.iter().map(|record| serde_json::from_slice(&record.canonical).unwrap()).collect()
}

async fn last(store: &Store) -> RecordBody {
    records(store).await.pop().unwrap().body
}

async fn each_apply_is_a_new_version_with_its_record_and_a_rollback_too(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    let mut before = None;
    for (content, version, rollback) in [("one", 1, false), ("two", 2, false), ("one", 3, true)] {
        let expected_version = Some(version - 1);
        let bundle = BundleToApply { rollback, ..bundle(content, expected_version) };
        let applied = operator.apply(&permitted(before), &bundle).await.unwrap();
        assert_eq!(applied, Applied::Applied { version });
        let RecordBody::BundleApplied { version: recorded, digest: now, previous, rollback: back, policies, .. } =
            last(&store).await
        else {
            panic!("another record")
        };
        assert_eq!((recorded, now, previous, back), (version, digest(content), before.map(digest), rollback));
        assert_eq!(policies[0].as_str(), "operators.act");
        before = Some(content);
    }
    let records = records(&store).await;
    assert_eq!(records.len(), 3);
    assert_eq!(
        (records[0].who.on_behalf_of.as_str(), records[0].origin.worker.as_str()),
        ("olga@acme.example", "42@desk")
    );
    assert_eq!(store.active_bundle().await.unwrap().unwrap().files, json!({ "a.cedar": "one" }));
    assert_eq!(store.runs(None).await.unwrap(), []);
}

async fn the_active_bundle_applied_again_changes_nothing(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    // Whatever was expected: somebody who did not see the first answer asks again in the same words.
    for expected_version in [Some(0), Some(0), None] {
        operator.apply(&permitted(None), &bundle("one", expected_version)).await.unwrap();
    }
    let again = operator.apply(&permitted(None), &bundle("one", None)).await.unwrap();
    assert_eq!(again, Applied::AlreadyActive { version: 1 });
    assert_eq!((records(&store).await.len(), store.bundles().await.unwrap().len()), (1, 1));
}

async fn of_two_applies_at_once_one_is_told_of_the_other(on: On) {
    let home = Home::new(on).await;
    let stores = [open(&home).await, open(&home).await];
    operator(&stores[0]).apply(&permitted(None), &bundle("one", None)).await.unwrap();
    let (left, right) = (operator(&stores[0]), operator(&stores[1]));
    let (judged, two, three) = (permitted(Some("one")), bundle("two", Some(1)), bundle("three", Some(1)));
    let (left, right) = tokio::join!(left.apply(&judged, &two), right.apply(&judged, &three));
    let (won, lost) = if left.is_ok() { (left, right) } else { (right, left) };
    assert_eq!(won.unwrap(), Applied::Applied { version: 2 });
    let lost = lost.unwrap_err();
    assert_eq!(lost.to_string(), "somebody applied a bundle meanwhile: version 2 is active, not version 1");
    assert_eq!(records(&stores[0]).await.len(), 2);
    let first = operator(&stores[1]).apply(&permitted(None), &bundle("four", Some(0))).await;
    assert!(matches!(first, Err(OperatorError::BundleMoved { expected: 0, found: 2 })), "{first:?}");
}

async fn a_permission_of_a_bundle_that_was_replaced_is_not_taken(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    operator.apply(&permitted(None), &bundle("one", None)).await.unwrap();
    operator.quarantine(&permitted(Some("one")), &target(), "leak").await.unwrap();
    operator.apply(&permitted(Some("one")), &bundle("two", None)).await.unwrap();
    let stale = permitted(Some("one"));
    let model = "model:support".parse().unwrap();
    let errors = [
        operator.apply(&stale, &bundle("three", None)).await.unwrap_err(),
        operator.quarantine(&stale, &model, "leak").await.unwrap_err(),
        operator.lift(&stale, &target()).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, OperatorError::JudgedByOther { active, .. } if *active == digest("two")), "{error:?}");
    }
    assert_eq!((records(&store).await.len(), store.quarantine_list().await.unwrap().len()), (3, 1));
    assert_eq!(store.active_bundle_version().await.unwrap(), Some(2));
}

async fn a_quarantine_is_seen_by_every_process_at_once_and_lifted_as_fast(on: On) {
    let home = Home::new(on).await;
    let (store, other) = (open(&home).await, open(&home).await);
    let operator = operator(&store);
    let run = mandate_domain::RunChain { workflow_id: "refund-1".into(), first_run_id: "run-1".into() };
    let hit = async || other.begin(&run).await.unwrap().quarantined(&[target()]).await.unwrap();
    for round in 0..2 {
        assert_eq!(hit().await, None);
        assert_eq!(operator.quarantine(&permitted(None), &target(), "leak").await.unwrap(), Acted::Done);
        assert_eq!(operator.quarantine(&permitted(None), &target(), "other").await.unwrap(), Acted::AlreadySo);
        assert_eq!(hit().await.unwrap().reason, "leak");
        assert_eq!(other.quarantine_list().await.unwrap().len(), 1);
        assert!(matches!(last(&other).await, RecordBody::Quarantined { reason, .. } if reason == "leak"));
        assert_eq!(operator.lift(&permitted(None), &target()).await.unwrap(), Acted::Done);
        assert_eq!(operator.lift(&permitted(None), &target()).await.unwrap(), Acted::AlreadySo);
        assert!(matches!(last(&other).await, RecordBody::QuarantineLifted { .. }));
        assert_eq!(records(&other).await.len(), 2 * (round + 1), "what changes nothing is not recorded");
    }
    operator.apply(&permitted(None), &bundle("one", None)).await.unwrap();
    assert_eq!(other.active_bundle_version().await.unwrap(), Some(1));
    assert_eq!(other.begin(&run).await.unwrap().active_bundle_version().await.unwrap(), Some(1));
}

async fn a_refused_act_is_recorded_each_time_and_changes_nothing(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    let rollback = BundleToApply { rollback: true, ..bundle("one", None) };
    for bundle in [bundle("one", None), rollback] {
        let applied = operator.apply(&refused(), &bundle).await.unwrap();
        assert!(matches!(applied, Applied::Refused { reason } if reason.starts_with("no policy permits it")));
    }
    let quarantined = operator.quarantine(&refused(), &target(), "leak").await.unwrap();
    assert!(matches!(quarantined, Acted::Refused { .. }));
    for _ in 0..2 {
        assert!(matches!(operator.lift(&refused(), &target()).await.unwrap(), Acted::Refused { .. }));
    }
    let told = |record: AuditRecord| {
        let RecordBody::OperatorRefused { action, target, reason, .. } = record.body else { panic!("another record") };
        (action, target, reason.chars().count())
    };
    let told: Vec<_> = records(&store).await.into_iter().map(told).collect();
    let (bundle, tool) = (format!("bundle:{}", digest("one")), target().to_string());
    let expected = [("apply", &bundle), ("rollback", &bundle), ("quarantine", &tool), ("lift", &tool), ("lift", &tool)];
    assert_eq!(told, expected.map(|(action, target)| (action.to_owned(), target.clone(), 500)));
    assert_eq!((store.bundles().await.unwrap(), store.quarantine_list().await.unwrap()), (vec![], vec![]));
}

async fn whoever_is_in_quarantine_acts_on_nothing(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    let olga = "person:olga@acme.example".parse().unwrap();
    operator.quarantine(&permitted(None), &olga, "left").await.unwrap();
    let why = "`person:olga@acme.example` is in quarantine: left".to_owned();
    let refused = Acted::Refused { reason: why.clone() };
    assert_eq!(operator.lift(&permitted(None), &olga).await.unwrap(), refused, "not even their own quarantine");
    assert_eq!(operator.quarantine(&permitted(None), &target(), "leak").await.unwrap(), refused);
    let applied = operator.apply(&permitted(Some("one")), &bundle("one", None)).await.unwrap();
    assert_eq!(applied, Applied::Refused { reason: why.clone() });
    let RecordBody::OperatorRefused { action, policies, bundle, reason, .. } = last(&store).await else {
        panic!("another record")
    };
    assert_eq!((action.as_str(), policies, bundle, reason), ("apply", vec![], Some(digest("one")), why));
    assert_eq!((store.bundles().await.unwrap(), store.quarantine_list().await.unwrap().len()), (vec![], 1));
}

/// A bundle that loads, whose one policy has this id.
fn real(id: &str) -> BundleToApply {
    let text = format!("@id(\"{id}\") permit (principal, action in Mandate::Action::\"operate\", resource);");
    let source = PolicySource { path: "a.cedar".into(), text, scope: PolicyScope::Everybody };
    let loaded = PolicyBundle::load(&[source], &Registry::default()).unwrap();
    let (files, digest) = (serde_json::to_value(loaded.files()).unwrap(), loaded.digest().clone());
    BundleToApply { files, digest, note: None, rollback: false, expected_version: None }
}

fn permitted_by(bundle: &BundleToApply) -> Judged {
    judged(Judgement::Permitted { policies: vec![], bundle: Some(bundle.digest.clone()) })
}

async fn where_the_active_bundle_cannot_be_used_the_newest_before_it_judges(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    let (one, two) = (real("one"), real("two"));
    operator.apply(&permitted(None), &one).await.unwrap();
    operator.apply(&permitted_by(&one), &two).await.unwrap();
    // One is written in another form, one is no JSON, one bears the digest of what is to be applied.
    for (version, digest, files) in [(3, "a", "{}"), (4, "b", "{"), (5, one.digest.as_str(), "[]")] {
        let digest = if digest.len() == 1 { digest.repeat(64) } else { digest.to_owned() };
        let row = "INSERT INTO bundles VALUES (CAST($1 AS INTEGER), $2, 1, 'nobody', NULL, 'plain', $3)";
        store.damage_with(row, &[&version.to_string(), &digest, files]).await;
    }
    let usable = newest_usable(&store).await.unwrap();
    let trouble = usable.trouble.unwrap();
    assert_eq!((usable.version, usable.bundle.digest()), (2, &two.digest));
    assert_eq!((trouble.active, trouble.kept), (5, 2));
    assert!(trouble.reason.starts_with("it is written in another form"), "{}", trouble.reason);

    let stale = operator.quarantine(&permitted_by(&real("three")), &target(), "leak").await;
    assert!(matches!(stale, Err(OperatorError::JudgedByOther { .. })), "{stale:?}");
    assert_eq!(operator.quarantine(&permitted_by(&two), &target(), "leak").await.unwrap(), Acted::Done);
    let applied = operator.apply(&permitted_by(&two), &one).await.unwrap();
    assert_eq!(applied, Applied::Applied { version: 6 }, "a row that only bears the digest is replaced");
    assert_eq!(newest_usable(&store).await.unwrap().trouble, None);
}

async fn where_no_bundle_can_be_used_one_that_permits_itself_is_applied_and_nothing_else_done(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    assert!(matches!(newest_usable(&store).await, Err(OpenPolicyError::Nothing)));
    operator.apply(&permitted(None), &bundle("broken", None)).await.unwrap();
    assert!(matches!(newest_usable(&store).await, Err(OpenPolicyError::Unusable { version: 1, .. })));
    let one = real("one");
    let locked = operator.quarantine(&permitted_by(&one), &target(), "leak").await;
    assert!(matches!(locked, Err(OperatorError::JudgedByOther { .. })), "{locked:?}");
    let other = operator.apply(&permitted_by(&real("two")), &one).await;
    assert!(matches!(other, Err(OperatorError::JudgedByOther { .. })), "{other:?}");
    assert_eq!(operator.apply(&permitted_by(&one), &one).await.unwrap(), Applied::Applied { version: 2 });
}

async fn a_bundle_that_is_too_large_is_not_applied(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let large = BundleToApply { files: json!(["x".repeat(BUNDLE_BYTES_MAX)]), ..bundle("one", None) };
    let error = operator(&store).apply(&permitted(None), &large).await.unwrap_err();
    assert!(matches!(error, OperatorError::BundleTooLarge { bytes } if bytes == BUNDLE_BYTES_MAX + 4), "{error:?}");
    assert_eq!(store.active_bundle().await.unwrap(), None);
}

async fn intrusions_and_acts_stand_in_one_chain_and_a_changed_record_is_found(on: On) {
    let home = Home::new(on).await;
    let store = open(&home).await;
    let operator = operator(&store);
    let origin = mandate_domain::Origin { run_id: "r".into(), activity_id: "1".into(), attempt: 1, worker: "w".into() };
    store.record_intrusion(&origin, "call_tool", "foreign workflow").await.unwrap();
    operator.apply(&permitted(None), &bundle("one", None)).await.unwrap();
    operator.quarantine(&permitted(Some("one")), &target(), "leak").await.unwrap();
    assert_eq!(records(&store).await.len(), 3);
    let statements = [
        "UPDATE records SET canonical = replace(canonical, 'leak', 'none') WHERE sequence = 3",
        "UPDATE records SET canonical = replace(canonical, 'none', 'leak') WHERE sequence = 3",
        "DELETE FROM records WHERE sequence = 3",
    ];
    let mut found = Vec::new();
    for statement in statements {
        assert_eq!(store.damage(statement).await, 1);
        found.push(findings(&open(&home).await).await);
    }
    assert_eq!(found, [vec![Finding::Edited { sequence: 3 }], vec![], vec![Finding::CutOff { sequence: 3 }]]);
}

on_both_engines! {
    each_apply_is_a_new_version_with_its_record_and_a_rollback_too
    the_active_bundle_applied_again_changes_nothing
    of_two_applies_at_once_one_is_told_of_the_other
    a_permission_of_a_bundle_that_was_replaced_is_not_taken
    a_quarantine_is_seen_by_every_process_at_once_and_lifted_as_fast
    a_refused_act_is_recorded_each_time_and_changes_nothing
    whoever_is_in_quarantine_acts_on_nothing
    where_the_active_bundle_cannot_be_used_the_newest_before_it_judges
    where_no_bundle_can_be_used_one_that_permits_itself_is_applied_and_nothing_else_done
    a_bundle_that_is_too_large_is_not_applied
    intrusions_and_acts_stand_in_one_chain_and_a_changed_record_is_found
}
