//! One Temporal server with authorization for the whole test run: it knows its callers by their tokens, refuses who may
//! not, and stamps on each event of a history who caused it.
//!
//! A caller sees it as a [`Server`], see [`AuthorizedServer::caller`]. It takes minutes to build, once; only tests that
//! need it ask for it.

mod config;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use config::{Ports, SERVICES};
use mandate_worker::{
    dev_server::{built_server, port_was_taken},
    search_attributes::SEARCH_ATTRIBUTES,
};
use tokio::sync::{Mutex, OnceCell};

use crate::{
    Process, Said, Server, say,
    server::{cli_program, environment, run_folder},
    tokens::Issuer,
    until,
};

/// The name in the tokens of workers.
pub const WORKER: &str = "worker-1";
/// The name in the token of whoever may do everything.
pub const ADMIN: &str = "admin";

/// How often a start is tried again because somebody else took one of the ports in between.
const START_ATTEMPTS_MAX: usize = 3;

/// The server, and who is known to it.
#[derive(Debug)]
pub struct AuthorizedServer {
    /// Who signs tokens that the server believes.
    pub issuer: Issuer,
    folder: PathBuf,
    cli: PathBuf,
    ports: Ports,
    callers: Mutex<HashMap<String, &'static Server>>,
    process: Process,
}

/// The server, started by the first test that asks for it. It ends with this process.
pub async fn authorized_server() -> &'static AuthorizedServer {
    static SERVER: OnceCell<AuthorizedServer> = OnceCell::const_new();
    SERVER.get_or_init(AuthorizedServer::start).await
}

/// What a token of somebody says that they may do. Workers have to be able to write, as the server ranks `worker` below
/// `read`.
fn permissions(person: &str) -> &'static [&'static str] {
    match person {
        WORKER => &["default:worker", "default:write"],
        ADMIN => &["temporal-system:admin"],
        _ => &["default:write"],
    }
}

impl AuthorizedServer {
    async fn start() -> Self {
        let (cli, program) = (cli_program().await, built_server().await.expect("the server is built"));
        let mut attempt = 1;
        loop {
            let mut server = Self::spawn(&program, cli.clone(), attempt).await;
            if server.makes_namespace().await {
                server.register_search_attributes().await;
                return server;
            }
            let log = server.process.log();
            assert!(attempt < START_ATTEMPTS_MAX && port_was_taken(&log), "the server ended:\n{log}");
            attempt += 1;
        }
    }

    async fn spawn(program: &Path, cli: PathBuf, attempt: usize) -> Self {
        let (folder, issuer, ports) = (run_folder(), Issuer::new(), Ports::reserve());
        let own = folder.join("authorized");
        let config = config::write(&own, ports, &issuer.key_set());
        let mut arguments = vec!["--config-file", config.to_str().expect("text"), "start"];
        arguments.extend(SERVICES.into_iter().flat_map(|service| ["--service", service]));
        let log = own.join(format!("server-{attempt}.log"));
        let process = Process::start(program, &arguments, &[], &own, log).await;
        Self { issuer, folder, cli, ports, callers: Mutex::default(), process }
    }

    async fn admin(&self, arguments: &[&str]) -> Said {
        self.cli(Some(&self.token(ADMIN, permissions(ADMIN))), arguments).await
    }

    /// Waits until the server has made the namespace. Not where it ended before.
    async fn makes_namespace(&mut self) -> bool {
        let create = ["operator", "namespace", "create", "--namespace", "default", "--retention", "24h"];
        until("the server makes the namespace", async || {
            if self.process.ended().is_some() {
                return Some(false);
            }
            // An earlier attempt may have come through without its answer.
            let said = self.admin(&create).await;
            (said.code == 0 || said.stderr.contains("already")).then_some(true)
        })
        .await
    }

    /// Done for the workers, which are not permitted to.
    async fn register_search_attributes(&self) {
        let attributes = SEARCH_ATTRIBUTES.iter().flat_map(|(name, kind)| ["--name", name, "--type", kind]);
        let create = ["operator", "search-attribute", "create", "--namespace", "default"].into_iter().chain(attributes);
        self.admin(&create.collect::<Vec<_>>()).await.ok();
        until("a query knows the search attributes", async || {
            let count = ["workflow", "count", "--query", "MandateState = 'Running'"];
            (self.admin(&count).await.code == 0).then_some(())
        })
        .await;
    }

    /// A token for a person with permissions such as `default:write`.
    #[must_use]
    pub fn token(&self, person: &str, permissions: &[&str]) -> String {
        self.issuer.token(person, permissions)
    }

    /// The server as a person meets it: the client, the CLI and what programs are told carry the person's token.
    /// [`WORKER`] and [`ADMIN`] may what their names say, everybody else may read and write.
    pub async fn caller(&'static self, person: &str) -> &'static Server {
        let mut callers = self.callers.lock().await;
        if let Some(known) = callers.get(person) {
            return known;
        }
        let server = Server::of_caller(self, self.token(person, permissions(person))).await;
        callers.entry(person.to_owned()).or_insert(Box::leak(Box::new(server)))
    }

    /// The Temporal CLI with any token, or none.
    pub async fn cli(&self, token: Option<&str>, arguments: &[&str]) -> Said {
        let env = self.env(token);
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        say(&self.cli, arguments, &env, &self.folder).await
    }

    /// What a program is told that calls with any token, or none.
    #[must_use]
    pub fn env(&self, token: Option<&str>) -> Vec<(String, String)> {
        let mut env = environment(&self.address(), &self.folder);
        if let Some(token) = token {
            // Clients take a token for a reason to use TLS, which this server has not.
            let more = [("TEMPORAL_API_KEY", token), ("TEMPORAL_TLS", "false")];
            env.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        env
    }

    /// `host:port` where callers are asked for their token.
    #[must_use]
    pub fn address(&self) -> String {
        config::address(self.ports.frontend())
    }

    /// `host:port` of the frontend for the server's own use: it takes everybody for the server itself.
    #[must_use]
    pub fn internal_address(&self) -> String {
        config::address(self.ports.internal_frontend())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn program(&self) -> &Path {
        &self.cli
    }

    /// What a worker is told.
    pub(crate) fn worker_env(&self) -> Vec<(String, String)> {
        self.env(Some(&self.token(WORKER, permissions(WORKER))))
    }
}
