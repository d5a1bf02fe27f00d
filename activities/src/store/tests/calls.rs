//! Effects, ends of calls, approval requests.

use super::*;

const CALL: ToolCallId = ToolCallId { turn: 1, index: 0, revision: 1, undo: false };
const EFFECT: EffectId = EffectId::Tool(CALL);

async fn send_by(tx: &mut Tx) -> BootTime {
    tx.now().await.unwrap().plus(Duration::from_secs(4))
}

/// Walks an effect through steps and tells what came of each.
async fn check(on: On, steps: &[&str], expected: &[&str]) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut seen = vec![];
    for text in steps {
        let mut tx = store.begin(&chain()).await.unwrap();
        let came = step(&mut tx, text).await.unwrap_or_else(|error| error.to_string());
        tx.commit().await.unwrap();
        seen.push(came);
    }
    assert_eq!(seen, expected, "{steps:?}");
}

async fn step(tx: &mut Tx, text: &str) -> Result<String, StoreError> {
    let words: Vec<_> = text.split(' ').collect();
    let epoch = || words[1].parse().unwrap();
    Ok(match words[0] {
        "claim" => {
            let send_by = send_by(tx).await;
            tx.claim(EFFECT, words[1], &address(words[2]), "w1", &send_by).await?.epoch.to_string()
        }
        "release" => tx.release(EFFECT, epoch()).await?.to_string(),
        "settle" => format!("{:?}", tx.settle(EFFECT, epoch(), &json!(words[2]), KnownBy::Answer).await?),
        "unknown" => tx.mark_unknown(EFFECT, "lost").await.map(|()| "parked".to_owned())?,
        "state" => match tx.effect(EFFECT).await? {
            None => "none".to_owned(),
            Some(row) => format!("{} {:?}", row.epoch, row.state),
        },
        other => panic!("{other}"),
    })
}

async fn an_effect_is_claimed_once_at_a_time_and_its_first_outcome_counts(on: On) {
    let settled = r#"2 Settled { outcome: String("ok"), epoch: 2, known_by: Answer }"#;
    let over = "effect `t1.0` is settled and cannot be claimed or parked";
    check(on, &["state", "claim pay a", "state"], &["none", "1", "1 Open"]).await;
    check(on, &["claim pay a", "release 1", "release 1", "state"], &["1", "true", "false", "1 Released"]).await;
    check(on, &["claim pay a", "release 1", "claim pay a", "release 1"], &["1", "true", "2", "false"]).await;
    check(
        on,
        &[
            "claim pay a",
            "claim pay a",
            "settle 2 ok",
            "settle 2 ok",
            "settle 1 no",
            "release 2",
            "state",
            "claim pay a",
        ],
        &["1", "2", "First", "First", "Late", "false", settled, over],
    )
    .await;
    check(on, &["claim pay a", "settle 1 ok", "unknown"], &["1", "First", over]).await;
    let earlier = r#"2 Settled { outcome: String("ok"), epoch: 1, known_by: Answer }"#;
    check(
        on,
        &["claim pay a", "claim pay a", "settle 1 ok", "settle 2 ok", "state"],
        &["1", "2", "First", "Late", earlier],
    )
    .await;
}

async fn a_parked_effect_waits_for_its_outcome_and_a_foreign_one_is_refused(on: On) {
    let parked = "effect `t1.0` is unknown and cannot be claimed or parked";
    check(
        on,
        &["claim pay a", "unknown", "unknown", "state", "claim pay a", "settle 1 ok"],
        &["1", "parked", "parked", r#"1 Unknown { reason: "lost" }"#, parked, "First"],
    )
    .await;
    let conflict = "effect `t1.0` is recorded already for another target or input";
    check(on, &["claim pay a", "claim pay b", "claim mail a"], &["1", conflict, conflict]).await;
    let never = "epoch 2 of effect `t1.0` is not in the store";
    check(on, &["claim pay a", "settle 2 ok"], &["1", never]).await;
    check(on, &["settle 1 ok"], &["effect `t1.0` of run `refund-1/run-1` is not in the store"]).await;
}

async fn a_row_tells_who_holds_the_claim_and_until_when(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let send_by = send_by(&mut tx).await;
    tx.claim(EFFECT, "pay", &address("a"), "w1", &send_by).await.unwrap();
    let row = tx.effect(EFFECT).await.unwrap().unwrap();
    let expected = EffectRow {
        effect: EFFECT,
        target: "pay".into(),
        input: address("a"),
        epoch: 1,
        holder: "w1".into(),
        send_by,
        state: EffectState::Open,
    };
    assert_eq!(row, expected);
}

async fn the_first_end_of_a_call_counts(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let outcome =
        |text| ToolCallOutcome::Returned { result: Content::describe(address(text), text, 100), is_error: false };
    let mut tx = store.begin(&chain()).await.unwrap();
    assert_eq!(tx.call_end(CALL).await.unwrap(), None);
    assert_eq!(tx.end_call(CALL, &address("a"), &outcome("a")).await.unwrap(), EndedCall::First);
    let first = CallEndRow { message: address("a"), outcome: outcome("a") };
    assert_eq!(tx.end_call(CALL, &address("b"), &outcome("b")).await.unwrap(), EndedCall::AlreadyEnded(first.clone()));
    assert_eq!(tx.call_end(CALL).await.unwrap(), Some(first));
}

fn gate(id: &str) -> Gate {
    Gate {
        id: id.parse().unwrap(),
        approvers: vec!["finance-leads".parse().unwrap()],
        quorum: 2,
        four_eyes: vec![],
        expires_secs: 60,
        reason: "large".into(),
        remind_secs: None,
        escalation: None,
        on_expiry: OnExpiry::Deny,
    }
}

const NOW: u64 = 1_000;
const WAIT_MAX_SECS: u64 = 3600;

async fn made(
    tx: &mut Tx,
    call: ToolCallId,
    gates: &[Gate],
    arguments: &Address,
) -> Result<Vec<RequestId>, StoreError> {
    let made = tx.make_requests(call, gates, arguments, NOW, WAIT_MAX_SECS).await?;
    Ok(made.into_iter().map(|made| made.id).collect())
}

fn ordinals(ids: &[RequestId]) -> Vec<String> {
    ids.iter().map(|id| id.as_str().split_once('-').unwrap().0.to_owned()).collect()
}

async fn a_live_request_is_not_made_again_and_an_approval_is_used_once(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let (gates, a) = ([gate("large"), gate("abroad")], address("a"));
    let ids = made(&mut tx, CALL, &gates, &a).await.unwrap();
    assert_eq!(ordinals(&ids), ["r1", "r2"]);
    assert_eq!(made(&mut tx, CALL, &gates, &a).await.unwrap(), ids);
    let row = tx.request(&ids[1]).await.unwrap().unwrap();
    let expected = RequestRow {
        id: ids[1].clone(),
        ordinal: 2,
        call: CALL,
        arguments: a.clone(),
        gate: gate("abroad"),
        state: RequestState::Open,
        digest: row.digest.clone(),
        expires_ms: Some(NOW + 60_000),
        escalated: false,
    };
    assert!(row.digest.as_str().starts_with(ids[1].as_str().split_once('-').unwrap().1), "the id is of the digest");
    assert_eq!(row, expected);
    tx.set_request_state(&ids[0], RequestState::Approved).await.unwrap();
    assert_eq!(made(&mut tx, CALL, &gates, &a).await.unwrap(), ids);
    let approved = tx.approved_gates(CALL, &a, NOW).await.unwrap();
    assert_eq!(approved.iter().map(mandate_domain::PolicyId::as_str).collect::<Vec<_>>(), ["large"]);
    assert!(tx.approved_gates(CALL, &address("b"), NOW).await.unwrap().is_empty(), "bound to the arguments");
    assert!(tx.approved_gates(ToolCallId::new(1, 1), &a, NOW).await.unwrap().is_empty(), "bound to the call");
    assert_eq!(tx.consume_approvals(CALL).await.unwrap(), ids[..1]);
    assert!(tx.consume_approvals(CALL).await.unwrap().is_empty());
    assert_eq!(
        tx.approved_gates(CALL, &a, NOW).await.unwrap(),
        approved,
        "a lost call is made again without asking again"
    );
    let again = made(&mut tx, CALL, &gates, &a).await.unwrap();
    assert_eq!(ordinals(&again), ["r3", "r2"], "used up: asked again; still open: not");
    assert_eq!(ordinals(&made(&mut tx, CALL, &gates[..1], &address("b")).await.unwrap()), ["r4"]);
    tx.commit().await.unwrap();
    assert_eq!(store.run(&chain()).await.unwrap().unwrap().requests_made, 4);
}

async fn an_approval_is_good_until_the_time_of_its_request_is_over(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let (gates, a) = ([gate("large")], address("a"));
    let short = tx.make_requests(CALL, &gates, &a, NOW, 5).await.unwrap().remove(0);
    assert_eq!(short.expires_ms, Some(NOW + 5_000), "never longer than the run lets people wait");
    tx.approve_request(&short.id, NOW - 500).await.unwrap();
    assert_eq!(tx.approved_gates(CALL, &a, NOW + 4_999).await.unwrap().len(), 1);
    assert!(tx.approved_gates(CALL, &a, NOW + 5_000).await.unwrap().is_empty());
    assert!(tx.lapse_requests(CALL, NOW + 4_999).await.unwrap().is_empty());
    assert_eq!(tx.lapse_requests(CALL, NOW + 5_000).await.unwrap(), std::slice::from_ref(&short.id));
    let again = tx.make_requests(CALL, &gates, &a, NOW + 5_000, 5).await.unwrap().remove(0);
    assert_ne!((&again.id, again.digest), (&short.id, short.digest), "a request made later is another one");
    // Accepted in time, and taken in when that was over: it can be used for a moment.
    tx.approve_request(&again.id, NOW + 60_000).await.unwrap();
    assert_eq!(tx.approved_gates(CALL, &a, NOW + 64_999).await.unwrap().len(), 1);
    assert!(tx.approved_gates(CALL, &a, NOW + 65_000).await.unwrap().is_empty());
}

async fn a_proof_is_good_for_one_record_of_one_run(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let digest = mandate_domain::canonical::sha256(b"signature");
    let mut tx = store.begin(&chain()).await.unwrap();
    assert!(tx.use_proof(&digest, "r1-aaaaaa/decided/1").await.unwrap());
    assert!(tx.use_proof(&digest, "r1-aaaaaa/decided/1").await.unwrap(), "the same record again");
    assert!(!tx.use_proof(&digest, "r1-aaaaaa/decided/2").await.unwrap());
    tx.commit().await.unwrap();
    let other = RunChain { workflow_id: "other".into(), first_run_id: "run-9".into() };
    let mut tx = store.begin(&other).await.unwrap();
    assert!(!tx.use_proof(&digest, "r1-aaaaaa/decided/1").await.unwrap());
}

async fn an_instruction_is_read_at_one_turn_and_in_order(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let (a, b, bo) = (address("a"), address("b"), person("bo@acme.example"));
    for (ordinal, content) in [(3, &a), (4, &b), (5, &a)] {
        tx.accept_instruction(ordinal, content, &bo).await.unwrap();
    }
    let numbers =
        |rows: Option<Vec<InstructionRow>>| rows.map(|rows| rows.iter().map(|row| row.ordinal).collect::<Vec<_>>());
    let twice = [a.clone(), b.clone(), a.clone()];
    assert_eq!(numbers(tx.deliver_instructions(2, &twice).await.unwrap()), Some(vec![3, 4, 5]));
    assert_eq!(numbers(tx.deliver_instructions(2, &twice).await.unwrap()), Some(vec![3, 4, 5]), "the same turn again");
    assert_eq!(numbers(tx.deliver_instructions(3, &[a]).await.unwrap()), None, "it was read before");
    assert_eq!(numbers(tx.deliver_instructions(3, &[]).await.unwrap()), Some(vec![]));
}

async fn a_call_asks_one_question_and_has_a_last_revision(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let input = address("a");
    let asks = |expires_ms| NewQuestion { call: CALL, input: &input, asked: "{}", expires_ms, server: None };
    let question = tx.make_question(asks(9_000)).await.unwrap();
    assert_eq!(tx.make_question(asks(10_000)).await.unwrap(), question);
    tx.set_question_state(&question.id, QuestionState::Answered).await.unwrap();
    assert_eq!(tx.question_by_ordinal(1).await.unwrap().unwrap().state, QuestionState::Answered);
    let request = RequestId::parse("r1-aaaaaa").unwrap();
    let arguments = json!({ "amount_cents": 1 }).as_object().cloned().unwrap();
    let (bo, eve) = (person("bo@acme.example"), person("eve@acme.example"));
    assert_eq!(tx.last_revision(CALL).await.unwrap(), CALL);
    tx.put_revision(CALL.revised(), &request, &bo, &arguments).await.unwrap();
    tx.put_revision(CALL.revised(), &request, &bo, &arguments).await.unwrap();
    assert!(tx.put_revision(CALL.revised(), &request, &eve, &arguments).await.is_err());
    assert_eq!(tx.last_revision(CALL).await.unwrap(), CALL.revised());
    tx.commit().await.unwrap();
    assert_eq!(store.revision(&chain(), CALL.revised()).await.unwrap().unwrap().arguments, arguments);
}

async fn a_server_asks_again_when_it_is_answered(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let input = address("a");
    let asks = NewQuestion { call: CALL, input: &input, asked: "{}", expires_ms: 9_000, server: Some("{}") };
    let first = tx.make_question(asks).await.unwrap();
    assert_eq!(tx.make_question(asks).await.unwrap(), first, "it waits");
    tx.answer_server(&first.id, "yes").await.unwrap();
    let answered = tx.question_of_call(CALL).await.unwrap().unwrap();
    assert_eq!((answered.state, answered.answer.as_deref()), (QuestionState::Answered, Some("yes")));
    let second = tx.make_question(asks).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(tx.question_of_call(CALL).await.unwrap().unwrap(), second, "the last one");
    assert_eq!(tx.questions_of_call(CALL).await.unwrap(), 2);
    assert_eq!(tx.question(&first.id).await.unwrap().unwrap().answer.as_deref(), Some("yes"));
    let unknown = QuestionId::parse("q9-000000").unwrap();
    assert!(matches!(tx.answer_server(&unknown, "yes").await, Err(StoreError::NotFound { .. })));
}

async fn a_person_votes_once(on: On) {
    let home = Home::new(on).await;
    let store = opened(&home).await;
    let mut tx = store.begin(&chain()).await.unwrap();
    let id = made(&mut tx, CALL, &[gate("large")], &address("a")).await.unwrap().remove(0);
    let (bo, eve) = (person("bo@acme.example"), person("eve@acme.example"));
    assert!(tx.vote(&id, &eve).await.unwrap() && tx.vote(&id, &bo).await.unwrap());
    assert!(!tx.vote(&id, &bo).await.unwrap());
    assert_eq!(tx.votes(&id).await.unwrap(), [bo.clone(), eve]);
    let unknown = RequestId::parse("r9-000000").unwrap();
    assert_eq!(tx.request(&unknown).await.unwrap(), None);
    assert!(matches!(tx.vote(&unknown, &bo).await, Err(StoreError::NotFound { .. })));
    let moved = tx.set_request_state(&unknown, RequestState::Expired).await;
    assert!(matches!(moved, Err(StoreError::NotFound { .. })));
}

on_both_engines! {
    an_effect_is_claimed_once_at_a_time_and_its_first_outcome_counts
    a_parked_effect_waits_for_its_outcome_and_a_foreign_one_is_refused
    a_row_tells_who_holds_the_claim_and_until_when
    the_first_end_of_a_call_counts
    a_live_request_is_not_made_again_and_an_approval_is_used_once
    an_approval_is_good_until_the_time_of_its_request_is_over
    a_proof_is_good_for_one_record_of_one_run
    an_instruction_is_read_at_one_turn_and_in_order
    a_call_asks_one_question_and_has_a_last_revision
    a_server_asks_again_when_it_is_answered
    a_person_votes_once
}
