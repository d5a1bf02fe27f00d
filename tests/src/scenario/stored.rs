//! Histories of runs, kept as examples of behaviours in `tests/histories`.

use std::fs;

use serde_json::Value;
use temporalio_client::{WorkflowFetchHistoryOptions, WorkflowHistory};

use crate::{Scenario, workspace_folder};

impl Scenario {
    /// Stores the history as an example of a behaviour, where `UPDATE_HISTORIES` is set. Names of machines and processes
    /// are left out.
    pub async fn store_history(&self, behaviour: &str) {
        self.store(self.raw_history(), behaviour).await;
    }

    /// The same for an execution that is not the newest of its run.
    pub async fn store_execution(&self, run_id: &str, behaviour: &str) {
        let handle = self.execution_handle(run_id);
        self.store(handle.fetch_history(WorkflowFetchHistoryOptions::default()), behaviour).await;
    }

    async fn store(&self, history: WorkflowHistory, behaviour: &str) {
        if std::env::var_os("UPDATE_HISTORIES").is_none() {
            return;
        }
        let json = history.to_json().await.expect("JSON");
        let mut history: Value = serde_json::from_slice(&json).expect("JSON");
        let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the machine's name");
        anonymous(&mut history, host.trim());
        let file = workspace_folder().join("tests/histories").join(format!("{behaviour}.json"));
        fs::write(file, format!("{history}\n")).expect("the history");
    }
}

fn anonymous(value: &mut Value, host: &str) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                match value {
                    Value::String(text) if name == "identity" || text.contains(host) => "worker".clone_into(text),
                    Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
                    nested @ (Value::Object(_) | Value::Array(_)) => anonymous(nested, host),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| anonymous(item, host)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
