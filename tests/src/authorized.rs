//! One Temporal server with authorization for the whole test run: it knows its callers by their tokens, refuses who may
//! not, and stamps on each event of a history who caused it.
//!
//! A caller sees it as a [`Server`], see [`AuthorizedServer::caller`]. It takes minutes to build, once; only tests that
//! need it ask for it.

mod config;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use config::{Ports, SERVICES};
use mandate_worker::{
    dev_server::{built_server, port_was_taken},
    search_attributes::SEARCH_ATTRIBUTES,
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::{Mutex, OnceCell},
};

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
        let folder = run_folder();
        let issuer = Issuer::new();
        let (ports, process) = started(&program, &folder.join("authorized"), &issuer.key_set()).await;
        let server = Self { issuer, folder, cli, ports, callers: Mutex::default(), process };
        server.prepare().await;
        server
    }

    /// Makes the namespace and its search attributes, which workers are not permitted to.
    async fn prepare(&self) {
        let token = self.token(ADMIN, permissions(ADMIN));
        let admin = async |arguments: &[&str]| self.cli(Some(&token), arguments).await;
        let mut said = None;
        let made = crate::until_within(crate::LONG, async || {
            let create = admin(&["operator", "namespace", "create", "--namespace", "default", "--retention", "24h"]).await;
            let made = create.code == 0 || create.stderr.contains("already");
            said = Some(create);
            made.then_some(())
        });
        assert!(made.await.is_some(), "no namespace: {said:?}\n{}", self.process.log());
        let attributes = SEARCH_ATTRIBUTES.iter().flat_map(|(name, kind)| ["--name", name, "--type", kind]);
        let create = ["operator", "search-attribute", "create", "--namespace", "default"].into_iter().chain(attributes);
        admin(&create.collect::<Vec<_>>()).await.ok();
        until("a query knows the search attributes", async || {
            (admin(&["workflow", "count", "--query", "MandateState = 'Running'"]).await.code == 0).then_some(())
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

/// Starts the program on free ports and waits until it takes connections.
async fn started(program: &Path, folder: &Path, key_set: &Value) -> (Ports, Process) {
    fs::create_dir_all(folder).expect("a folder");
    let mut attempt = 1;
    loop {
        let ports = Ports::reserve();
        let config = config::write(folder, ports, key_set);
        let mut arguments = vec!["--config-file", config.to_str().expect("text"), "start"];
        arguments.extend(SERVICES.into_iter().flat_map(|service| ["--service", service]));
        let log = folder.join(format!("server-{attempt}.log"));
        let mut process = Process::start(program, &arguments, &[], folder, log).await;
        let listens = until("the server listens", async || match process.ended() {
            Some(_) => Some(false),
            None => TcpStream::connect(config::address(ports.frontend())).await.is_ok().then_some(true),
        });
        if listens.await {
            return (ports, process);
        }
        let retry = attempt < START_ATTEMPTS_MAX && port_was_taken(&process.log());
        assert!(retry, "the server ended:\n{}", process.log());
        attempt += 1;
    }
}
