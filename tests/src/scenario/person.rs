//! A world on the server that knows its callers: everything is done with somebody's token.

use std::sync::Arc;

use crate::{Scenario, authorized_server};

/// Who acts where a test says nothing else: the person that runs are started for.
const USUAL: &str = "ana@acme.example";

impl Scenario {
    /// A copy of the refunds example on the server with authorization. Workers have a worker's token; everything else is
    /// done with the token of `ana@acme.example`, until [`Self::as_person`] says otherwise.
    pub async fn on_authorized(name: &str) -> Self {
        Self::on(authorized_server().await.caller(USUAL).await, name)
    }

    /// The same world, acted in with somebody else's token: starts, signals, queries, the CLI and `mandate`.
    pub async fn as_person(&self, person: &str) -> Self {
        let server = self.server.authorized().expect("the development server knows nobody");
        Self {
            name: self.name.clone(),
            server: server.caller(person).await,
            world: Arc::clone(&self.world),
            more: self.more.clone(),
        }
    }
}
