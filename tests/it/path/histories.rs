//! What a Temporal server would say of executions: their starts, the messages that a test says they received, how they
//! ended, and its list of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use futures::future::BoxFuture;
use mandate_activities::executions::{Executions, Listed, LookUpError, MessageEvent, Standing, StartedExecution};
use mandate_domain::{ChainHead, Digest, Evidence, audit::FoundEnd};

type Execution = (String, String);

/// Executions by workflow id and run id.
#[derive(Default)]
pub(super) struct Histories {
    started: Mutex<BTreeMap<Execution, StartedExecution>>,
    /// By run id, name and position.
    messages: Mutex<BTreeMap<(String, String, u32), MessageEvent>>,
    /// The longest chain that an execution has seen, by run id.
    seen: Mutex<BTreeMap<String, ChainHead>>,
    /// By workflow id.
    ended: Mutex<BTreeMap<String, Standing>>,
    /// Pages of the list, each with the token of the next one.
    pages: Mutex<BTreeMap<Vec<u8>, Listed>>,
}

impl Histories {
    /// There is an execution.
    pub(super) fn know(&self, workflow_id: &str, run_id: &str, started: StartedExecution) {
        self.started.lock().unwrap().insert((workflow_id.to_owned(), run_id.to_owned()), started);
    }

    /// An execution continues another one.
    pub(super) fn continues(&self, workflow_id: &str, run_id: &str, before: &str) {
        let mut started = self.started.lock().unwrap();
        let known = started.get_mut(&(workflow_id.to_owned(), run_id.to_owned())).unwrap();
        known.continued_run_id = Some(before.to_owned());
    }

    /// The only execution of a run has ended.
    pub(super) fn end(&self, workflow_id: &str, run_id: &str, end: FoundEnd) {
        let first_run_id = Some(run_id.to_owned());
        let standing = Standing { run_id: run_id.to_owned(), first_run_id, end: Some(end), is_continued: false };
        self.ended.lock().unwrap().insert(workflow_id.to_owned(), standing);
    }

    /// An execution has seen so much of its chain.
    pub(super) fn saw(&self, run_id: &str, head: ChainHead) {
        self.seen.lock().unwrap().insert(run_id.to_owned(), head);
    }

    /// The list has a page, which is asked for with `token`.
    pub(super) fn list(&self, token: &[u8], page: Listed) {
        self.pages.lock().unwrap().insert(token.to_vec(), page);
    }

    /// An execution received a message as the first one of this name, at a time in milliseconds since 1970-01-01 UTC, and
    /// before it others with this evidence.
    pub(super) fn receive(&self, run_id: &str, name: &str, time_ms: u64, payload: &str, earlier: &[Digest]) {
        let event = MessageEvent {
            time_ms,
            principal: None,
            carries_principal: true,
            payload: payload.as_bytes().to_vec(),
            worker_principals: BTreeSet::new(),
            earlier: earlier.iter().cloned().collect(),
        };
        self.messages.lock().unwrap().insert((run_id.to_owned(), name.to_owned(), 1), event);
    }
}

impl Executions for Histories {
    fn started<'a>(
        &'a self,
        workflow_id: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<StartedExecution>, LookUpError>> {
        let key = (workflow_id.to_owned(), run_id.to_owned());
        Box::pin(async move { Ok(self.started.lock().unwrap().get(&key).cloned()) })
    }

    fn message<'a>(
        &'a self,
        _: &'a str,
        run_id: &'a str,
        name: &'a str,
        ordinal: u32,
    ) -> BoxFuture<'a, Result<Option<MessageEvent>, LookUpError>> {
        let key = (run_id.to_owned(), name.to_owned(), ordinal);
        Box::pin(async move { Ok(self.messages.lock().unwrap().get(&key).cloned()) })
    }

    fn evidence<'a>(
        &'a self,
        _: &'a str,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeSet<Digest>>, LookUpError>> {
        Box::pin(async move {
            let messages = self.messages.lock().unwrap();
            let own = messages.iter().filter(|((of, ..), _)| of == run_id);
            let once = |event: &MessageEvent| serde_json::from_slice::<Evidence>(&event.payload).ok()?.once();
            Ok(Some(own.filter_map(|(_, event)| once(event)).collect()))
        })
    }

    fn namespace_id(&self) -> BoxFuture<'_, Result<Option<String>, LookUpError>> {
        Box::pin(async { Ok(None) })
    }

    fn standing<'a>(
        &'a self,
        workflow_id: &'a str,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<Standing>, LookUpError>> {
        Box::pin(async move { Ok(self.ended.lock().unwrap().get(workflow_id).cloned()) })
    }

    fn witness<'a>(&'a self, _: &'a str, run_id: &'a str) -> BoxFuture<'a, Result<Option<ChainHead>, LookUpError>> {
        Box::pin(async move { Ok(self.seen.lock().unwrap().get(run_id).cloned()) })
    }

    fn listed<'a>(&'a self, _: &'a str, token: Vec<u8>) -> BoxFuture<'a, Result<Listed, LookUpError>> {
        Box::pin(async move { Ok(self.pages.lock().unwrap().get(&token).cloned().unwrap_or_default()) })
    }
}
