//! What a folder accepts as proof beside keys, and other runs of the same world.

use std::sync::Arc;

use serde_json::json;

use crate::{
    Scenario, WORKER,
    keys::CLAIMS,
    tokens::{AUDIENCE, ISSUER, Issuer},
};

/// Where a folder has the keys of its identity provider.
const KEY_SET: &str = "keys/jwks.json";

impl Scenario {
    /// Lets the folder accept tokens of an identity provider of its own, and answers that provider.
    pub fn accept_tokens(&self) -> Issuer {
        let issuer = Issuer::new();
        self.write(KEY_SET, &issuer.key_set().to_string());
        let jwks = format!("file:{KEY_SET}");
        let jwt = format!(
            "[identity.jwt]\nissuer = {}\naudience = {}\njwks = {}\n",
            json!(ISSUER),
            json!(AUDIENCE),
            json!(jwks)
        );
        self.edit("mandate.toml", "\n[groups]\n", &format!("\n{jwt}\n[groups]\n"));
        self.edit("mandate.toml", CLAIMS, "accept = [\"jwt\"]");
        issuer
    }

    /// Lets the folder accept what the server itself says of who sends a message.
    pub fn accept_principals(&self) {
        self.edit("mandate.toml", CLAIMS, &format!("accept = [\"principal\"]\nworkers = [{}]", json!(WORKER)));
    }

    /// The same world, whose run is the one with this workflow id.
    #[must_use]
    pub fn of_run(&self, workflow_id: &str) -> Self {
        let (world, more) = (Arc::clone(&self.world), self.more.clone());
        Self { name: workflow_id.to_owned(), server: self.server, world, more }
    }
}
