//! Two attempts at once: a worker is frozen while the tool holds its call, another one takes the next attempt, then the
//! tool answers and the first worker is thawed. Whatever the tool's kind, the effect is not doubled.

use std::fs;

use mandate_domain::{KnownBy, audit::RecordBody};
use mandate_tests::{On, Scenario, run, until};
use nix::sys::signal::Signal;

/// How long the tool holds the call, less than `settles_within_secs` below.
const HELD_MS: &str = "14000";

/// The file that lets it go.
const GO: &str = "var/go";

/// Sets the kind of `payments.refund` in the registry.
pub(crate) fn registered_as(scenario: &Scenario, lines: &str) {
    let file = "tools/payments.refund.toml";
    let text = fs::read_to_string(scenario.path(file)).unwrap();
    let kept = text.lines().filter(|line| {
        !["read_only", "destructive", "idempotent", "check", "settles_within_secs", "timeout_secs"]
            .iter()
            .any(|key| line.starts_with(key))
    });
    let text: Vec<&str> = kept.collect();
    let (head, tail) = text.split_at(text.iter().position(|line| line.starts_with("owner")).unwrap());
    scenario.write(file, &format!("{}\n{lines}\n{}\n", head.join("\n"), tail.join("\n")));
}

/// Freezes a worker while the tool holds its call, until another attempt came as far as `frozen` waits for.
async fn two_attempts(scenario: &Scenario, held: Held, frozen: impl AsyncFnMut() -> Option<()>) {
    scenario.server_command(&held.flags());
    let first = scenario.start_worker().await;
    scenario.start_run("Refund order o2").await;
    until("the tool holds the call", async || held.holds(scenario).await.then_some(())).await;
    first.signal(Signal::SIGSTOP);
    let second = scenario.start_worker().await;
    until("a second attempt", async || {
        let raw = scenario.describe().await.into_raw();
        raw.pending_activities.iter().any(|activity| activity.attempt >= 2).then_some(())
    })
    .await;
    until("the other attempt came far enough", frozen).await;
    first.signal(Signal::SIGCONT);
    // Both live on until the run ended.
    scenario.keep(first);
    scenario.keep(second);
}

/// Where the tool holds a call.
#[derive(Clone, Copy)]
enum Held {
    Read,
    BeforePayment,
    /// Until the test lets it go.
    UntilLetGo,
    AfterPayment,
}

impl Held {
    fn flags(self) -> [&'static str; 2] {
        match self {
            Self::Read => ["--delay-read-ms", HELD_MS],
            Self::BeforePayment => ["--delay-before-ms", HELD_MS],
            Self::UntilLetGo => ["--hold-before", GO],
            Self::AfterPayment => ["--delay-ms", HELD_MS],
        }
    }

    async fn holds(self, scenario: &Scenario) -> bool {
        match self {
            Self::Read => !scenario.read_calls().await.is_empty(),
            Self::BeforePayment | Self::UntilLetGo => !scenario.refund_calls().await.is_empty(),
            Self::AfterPayment => !scenario.payments().await.is_empty(),
        }
    }
}

/// The payment is there, so the tool's answer waits for the frozen worker.
async fn paid(scenario: &Scenario) -> Option<()> {
    (!scenario.payments().await.is_empty()).then_some(())
}

async fn completes_once(scenario: &Scenario) {
    let answer = scenario.answer().await;
    assert!(answer.contains("45.00 EUR for order o2"), "{answer}");
    paid_once(scenario).await;
}

async fn paid_once(scenario: &Scenario) {
    let payments = scenario.payments().await;
    assert_eq!(payments.len(), 1, "{payments:?}");
    let verified = scenario.audit_verify().await;
    assert!(verified.code == 0 && !verified.stdout.contains("doubled"), "{verified:?}");
}

/// The outcomes of a call that count, as (epoch, known by).
pub(crate) async fn outcomes(scenario: &Scenario, call: &str) -> Vec<(u32, KnownBy)> {
    let records = scenario.records().await.into_iter();
    let known = records.filter_map(|record| match record.body {
        RecordBody::Outcome { effect, epoch, known_by, .. } if effect.to_string() == call => Some((epoch, known_by)),
        _ => None,
    });
    known.collect()
}

/// The outcomes that came too late, as (epoch, whether the effect may have doubled), as soon as there is one.
pub(crate) async fn late(scenario: &Scenario, call: &str) -> Vec<(u32, bool)> {
    until("the late outcome is recorded", async || {
        let records = scenario.records().await.into_iter();
        let late = records.filter_map(|record| match record.body {
            RecordBody::LateOutcome { effect, epoch, may_have_doubled, .. } if effect.to_string() == call => {
                Some((epoch, may_have_doubled))
            }
            _ => None,
        });
        Some(late.collect::<Vec<_>>()).filter(|late| !late.is_empty())
    })
    .await
}

#[test]
fn a_read_only_tool_is_called_again() {
    run(async {
        let scenario = Scenario::new("frozen-read-only").await;
        two_attempts(&scenario, Held::Read, async || (scenario.read_calls().await.len() == 2).then_some(())).await;
        completes_once(&scenario).await;
        assert_eq!(scenario.read_calls().await.len(), 2);
        let ([(counted, KnownBy::Answer)], [(other, false)]) =
            (&outcomes(&scenario, "t1.0").await[..], &late(&scenario, "t1.0").await[..])
        else {
            panic!("{:#?}", scenario.records().await)
        };
        assert_ne!(counted, other, "each attempt has its epoch");
    });
}

#[test]
fn an_idempotent_tool_is_called_again_with_the_same_key() {
    run(async {
        let scenario = Scenario::new("frozen-idempotent").await;
        registered_as(&scenario, "read_only = false\nidempotent = true");
        // The first worker stays frozen until the second call was received: else its answer may settle the effect first.
        let twice = async || (scenario.refund_calls().await.len() >= 2).then_some(());
        two_attempts(&scenario, Held::BeforePayment, twice).await;
        completes_once(&scenario).await;
        let keys: Vec<_> = scenario.refund_calls().await.into_iter().map(|call| call.key).collect();
        assert!(keys.len() >= 2 && keys[0].is_some(), "it is called again: {keys:?}");
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "{keys:?}");
    });
}

const CHECKABLE: &str =
    "read_only = false\nidempotent = false\ncheck = \"payments.refund_status\"\nsettles_within_secs = 30";

#[test]
fn a_checkable_tool_is_asked_and_not_called_again() {
    run(async {
        let scenario = Scenario::new("frozen-checkable").await;
        registered_as(&scenario, CHECKABLE);
        two_attempts(&scenario, Held::BeforePayment, async || paid(&scenario).await).await;
        completes_once(&scenario).await;
        assert_eq!(scenario.refund_calls().await.len(), 1, "the refund is sent once");
        assert_eq!(outcomes(&scenario, "t2.0").await.len(), 1);
    });
}

#[test]
fn a_checkable_tool_that_paid_and_did_not_answer_is_settled_by_the_check() {
    run(async {
        let scenario = Scenario::new("frozen-paid").await;
        registered_as(&scenario, CHECKABLE);
        two_attempts(&scenario, Held::AfterPayment, async || {
            (!outcomes(&scenario, "t2.0").await.is_empty()).then_some(())
        })
        .await;
        assert_eq!(outcomes(&scenario, "t2.0").await, [(1, KnownBy::Check)]);
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));
        assert_eq!(late(&scenario, "t2.0").await, [(1, false)], "one performance that two sources told of");
        paid_once(&scenario).await;
        assert_eq!(scenario.refund_calls().await.len(), 1, "the refund is sent once");
    });
}

#[test]
fn a_plain_tool_is_never_called_again_and_its_late_answer_settles_it() {
    run(never_called_again(On::Sqlite, "frozen-plain"));
}

#[test]
fn a_plain_tool_on_a_database_is_never_called_again_and_its_late_answer_settles_it() {
    run(never_called_again(On::Postgres, "frozen-plain-postgres"));
}

async fn never_called_again(on: On, name: &str) {
    let scenario = Scenario::on(on, name).await;
    // The time of the call runs out while its worker is frozen: the answer in the pipe counts all the same.
    registered_as(&scenario, "read_only = false\nidempotent = false\ntimeout_secs = 10");
    two_attempts(&scenario, Held::BeforePayment, async || {
        paid(&scenario).await?;
        (scenario.attribute("MandateState").await? == "OutcomeUnknown").then_some(())
    })
    .await;
    let unknown = scenario.records_where(|body| matches!(body, RecordBody::OutcomeUnknown { .. })).await;
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    until("the thawed worker records the answer", async || {
        (outcomes(&scenario, "t2.0").await == [(1, KnownBy::Answer)]).then_some(())
    })
    .await;
    // The person looks at an older state of things: the recorded outcome stands.
    let word = r#"{"call":"t2.0","resolution":"did_not_happen","by":"bo@acme.example"}"#;
    scenario.signal("resolve", word).await.ok();
    completes_once(&scenario).await;
    let resolved = scenario.records_where(|body| matches!(body, RecordBody::Resolved { .. })).await;
    let [RecordBody::Resolved { refused: Some(reason), .. }] =
        &resolved.iter().map(|r| r.body.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{resolved:#?}")
    };
    assert!(reason.contains("an outcome had come in meanwhile"), "{reason}");
    if on == On::Sqlite {
        scenario.store_history("unknown-outcome").await;
    }
    assert_eq!(scenario.refund_calls().await.len(), 1, "the refund is sent once");
}

/// The registry states that what has not happened after a second never will, which is not so: two requests are performed.
#[test]
fn a_check_that_is_believed_too_soon_doubles_the_effect_and_audit_verify_says_so() {
    run(async {
        let scenario = Scenario::new("frozen-doubled").await;
        let lines =
            "read_only = false\nidempotent = false\ncheck = \"payments.refund_status\"\nsettles_within_secs = 1";
        registered_as(&scenario, lines);
        let twice = async || (scenario.refund_calls().await.len() == 2).then_some(());
        two_attempts(&scenario, Held::UntilLetGo, twice).await;
        scenario.write(GO, "");
        scenario.wait_closed().await;
        let late = late(&scenario, "t2.0").await;
        let [(other, true)] = late[..] else { panic!("{late:?}") };
        let counted = outcomes(&scenario, "t2.0").await;
        let [(epoch, KnownBy::Answer)] = counted[..] else { panic!("{counted:?}") };
        assert_ne!(epoch, other);
        let verified = scenario.audit_verify().await;
        assert!(verified.code == 1 && verified.stdout.contains("performed twice"), "{verified:?}");
        // The server knew the key: the money moved once all the same.
        assert_eq!(scenario.payments().await.len(), 1);
    });
}
