//! The store's own chain, as `mandate audit verify` tells of it.

use mandate_activities::{
    operator::{Judged, Judgement, Operator},
    store::{AddressKeySource, Store, StorePlace, StoreSettings},
};
use mandate_domain::Proof;
use mandate_tests::{Scenario, run};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// Puts a tool into quarantine and answers the store's id.
async fn quarantine(scenario: &Scenario) -> String {
    let settings = StoreSettings {
        place: StorePlace::File(scenario.path("var/mandate.db")),
        address_keys: AddressKeySource::Folder(scenario.path("var/keys")),
    };
    let store = Store::open(settings).await.unwrap();
    let id = store.id().to_string();
    let judgement = Judgement::Permitted { policies: vec![], bundle: None };
    let judged = Judged { by: "olga@acme.example".parse().unwrap(), proof: Proof::Claimed, judgement };
    let operator = Operator::new(store.clone(), "test");
    operator.quarantine(&judged, &"tool:payments.refund".parse().unwrap(), "leak").await.unwrap();
    store.close().await;
    id
}

#[test]
fn a_changed_record_of_an_operator_act_is_found() {
    run(async {
        let scenario = Scenario::new("store-chain").await;
        let id = quarantine(&scenario).await;
        let verify = ["audit", "verify", "--witness", "none"];
        let said = scenario.mandate(&verify).await.ok();
        assert!(said.starts_with(&format!("holds  store {id}: 1 records, head ")), "{said}");

        let options = SqliteConnectOptions::new().filename(scenario.path("var/mandate.db"));
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let edit = "UPDATE records SET canonical = replace(canonical, 'leak', 'none')";
        assert_eq!(sqlx::query(edit).execute(&mut database).await.unwrap().rows_affected(), 1);
        let said = scenario.mandate(&[&verify[..], &["--output", "json"]].concat()).await;
        let verdicts: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((said.code, &verdicts[0]["store"]), (1, &id.into()), "{said:?}");
        let violation = verdicts[0]["violations"][0].as_str().unwrap_or_default();
        assert!(violation.starts_with("record 1: edited"), "{said:?}");
    });
}
