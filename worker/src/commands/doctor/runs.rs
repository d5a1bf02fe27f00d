//! Is the store an older copy? The reconciler records each run whose history has seen more than the store has.

use mandate_activities::store::Store;
use mandate_domain::{audit::AuditRecord, audit::RecordBody};

use super::Finding;
use crate::{
    commands::{open_store, place_of},
    config::Config,
    output,
};

const RUNS: &str = "runs";
/// How many of them are named.
const NAMED_MAX: usize = 3;

/// One line, where the store can be asked.
pub(super) async fn checks(config: &Config) -> Option<Finding> {
    // A store that cannot be asked is the check `store`'s to tell.
    let place = place_of(&config.store).await.ok()?;
    let inspection = if place.has_store().await.ok()? { Store::inspect(&place).await.ok()? } else { return None };
    if inspection.schema != inspection.schema_known {
        return None;
    }
    Some(look(config).await.unwrap_or_else(|error| Finding::fail(RUNS, output::chain(&error), "Mend the store first")))
}

async fn look(config: &Config) -> anyhow::Result<Finding> {
    let store = open_store(config).await?;
    let mut behind = Vec::new();
    for stored in store.records(&store.own_chain()).await? {
        // What cannot be read is for `mandate audit verify` to tell.
        let Ok(record) = serde_json::from_slice::<AuditRecord>(&stored.canonical) else { continue };
        let RecordBody::StoreBehindRun { run, seen, .. } = record.body else { continue };
        let here = store.run(&run).await?.map_or(0, |row| row.head.records);
        if here < seen.records && !behind.contains(&run) {
            behind.push(run);
        }
    }
    store.close().await;
    Ok(of(&behind.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

fn of(behind: &[String]) -> Finding {
    if behind.is_empty() {
        return Finding::ok(RUNS, "the store is behind none of them");
    }
    let named = behind.iter().take(NAMED_MAX).map(|run| format!("`{run}`")).collect::<Vec<_>>().join(", ");
    let more = if behind.len() > NAMED_MAX { format!(" and {} more", behind.len() - NAMED_MAX) } else { String::new() };
    let advice = "This store is an older copy: restore the newer one. Without it, look in the systems of record for what \
                  these runs did";
    Finding::fail(RUNS, format!("store_behind_run: {named}{more}"), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_know_more_than_the_store_are_named() {
        assert_eq!(of(&[]).line(), "ok    runs: the store is behind none of them");
        let runs: Vec<_> = (1..=5).map(|number| format!("refund-{number}/run")).collect();
        let line = of(&runs).line();
        assert!(line.starts_with("fail  runs: store_behind_run: `refund-1/run`, "), "{line}");
        assert!(line.contains("`refund-3/run` and 2 more. This store is an older copy"), "{line}");
    }
}
