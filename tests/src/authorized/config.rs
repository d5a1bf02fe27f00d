//! What the server with authorization is told: files of the test run. YAML is written as the JSON that it contains.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mandate_worker::dev_server::free_ports;
use serde_json::{Map, Value, json};

/// All services in one process. The server's own worker has no token, so it has a frontend of its own.
pub(super) const SERVICES: [&str; 5] = ["frontend", "internal-frontend", "history", "matching", "worker"];

/// For each service a port for calls and one for finding each other, all on the loopback address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    calls: [u16; SERVICES.len()],
    membership: [u16; SERVICES.len()],
}

impl Ports {
    pub(super) fn reserve() -> Self {
        let ports: [u16; 2 * SERVICES.len()] = free_ports().expect("free ports");
        let (calls, membership) = ports.split_at(SERVICES.len());
        Self { calls: calls.try_into().expect("half"), membership: membership.try_into().expect("half") }
    }

    pub(super) fn frontend(&self) -> u16 {
        self.calls[0]
    }

    pub(super) fn internal_frontend(&self) -> u16 {
        self.calls[1]
    }
}

/// A port as `host:port`.
pub(super) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Writes the configuration and what it refers to. Where the configuration is.
pub(super) fn write(folder: &Path, ports: Ports, key_set: &Value) -> PathBuf {
    fs::create_dir_all(folder).expect("a folder");
    let file = |name: &str, content: &Value| {
        let path = folder.join(name);
        fs::write(&path, content.to_string()).expect("the file");
        path
    };
    let keys = file("jwks.json", key_set);
    let dynamic = file("dynamic.yaml", &dynamic_config());
    file("server.yaml", &config(ports, &folder.join("temporal.db"), &keys, &dynamic))
}

/// Settings that the server reads anew now and then.
fn dynamic_config() -> Value {
    let on = json!([{ "value": true }]);
    json!({
        "frontend.enablePrincipalPropagation": on,
        "activity.enableStandalone": on,
        // As the development server is started.
        "system.enableActivityEagerExecution": on,
        "system.forceSearchAttributesCacheRefreshOnRead": on,
    })
}

fn config(ports: Ports, database: &Path, keys: &Path, dynamic: &Path) -> Value {
    let services = SERVICES.iter().zip(ports.calls).zip(ports.membership).map(|((name, calls), membership)| {
        let rpc = json!({ "grpcPort": calls, "membershipPort": membership, "bindOnLocalHost": true });
        ((*name).to_owned(), json!({ "rpc": rpc }))
    });
    let store = json!({ "sql": {
        "pluginName": "sqlite",
        "databaseName": database,
        "connectAddr": "localhost",
        "connectProtocol": "tcp",
        // `setup` makes the tables.
        "connectAttributes": { "cache": "private", "setup": "true", "journal_mode": "wal", "synchronous": "2" },
        "maxConns": 1,
        "maxIdleConns": 1,
    } });
    json!({
        "log": { "stdout": true, "level": "error" },
        "persistence": {
            "defaultStore": "store",
            "visibilityStore": "visibility",
            "numHistoryShards": 1,
            "datastores": { "store": store, "visibility": store },
        },
        "global": {
            "membership": { "maxJoinDuration": "30s", "broadcastAddress": "127.0.0.1" },
            "authorization": {
                "authorizer": "default",
                "claimMapper": "default",
                "permissionsClaimName": "permissions",
                "jwtKeyProvider": {
                    "keySourceURIs": [format!("file://{}", keys.display())],
                    "refreshInterval": "1m",
                },
            },
        },
        "services": services.collect::<Map<_, _>>(),
        "clusterMetadata": {
            "enableGlobalNamespace": false,
            "failoverVersionIncrement": 10,
            "masterClusterName": "active",
            "currentClusterName": "active",
            "clusterInformation": { "active": {
                "enabled": true,
                "initialFailoverVersion": 1,
                "rpcName": "frontend",
                "rpcAddress": address(ports.frontend()),
            } },
        },
        "dcRedirectionPolicy": { "policy": "noop" },
        "dynamicConfigClient": { "filepath": dynamic, "pollInterval": "10s" },
    })
}
