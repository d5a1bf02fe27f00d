//! One Temporal server for the whole test run, and how a test sees it or the one with authorization.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mandate_worker::dev_server::{DevServer, DevServerOptions, Found, find};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, envconfig::ClientConfigProfile};
use temporalio_common::envconfig::ClientConfigTLS;
use tokio::sync::OnceCell;

use crate::{AuthorizedServer, Said, binaries, say};

/// A server as one caller sees it, and a client of it.
#[derive(Debug)]
pub struct Server {
    /// A connected client.
    pub client: Client,
    /// Folder of this test run.
    pub folder: PathBuf,
    program: PathBuf,
    ground: Ground,
}

/// Which server it is.
#[derive(Debug)]
enum Ground {
    /// The development server, which takes every caller.
    Open(DevServer),
    /// The server that knows its callers, called with a token.
    Authorized { server: &'static AuthorizedServer, token: String },
}

/// The server, started by the first test that asks for it. It ends with this process.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(Server::start).await
}

impl Server {
    async fn start() -> Self {
        let (folder, program) = (run_folder(), cli_program().await);
        let options = DevServerOptions {
            database: Some(folder.join("temporal.db")),
            ui: true,
            log_file: folder.join("temporal.log"),
        };
        let dev = DevServer::start(&program, options).await.expect("the Temporal server starts");
        let client = connect(&dev.address(), None).await;
        Self { client, folder, program, ground: Ground::Open(dev) }
    }

    /// The server with authorization, as whoever has the token sees it.
    pub(crate) async fn of_caller(server: &'static AuthorizedServer, token: String) -> Self {
        let client = connect(&server.address(), Some(&token)).await;
        let (folder, program) = (server.folder().to_owned(), server.program().to_owned());
        Self { client, folder, program, ground: Ground::Authorized { server, token } }
    }

    /// `host:port` of the server.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.ground {
            Ground::Open(dev) => dev.address(),
            Ground::Authorized { server, .. } => server.address(),
        }
    }

    /// The page of a run in the Web UI.
    #[must_use]
    pub fn page(&self, workflow: &str, run: &str) -> String {
        match &self.ground {
            Ground::Open(dev) => dev.workflow_url("default", workflow, run).expect("the Web UI is served"),
            Ground::Authorized { .. } => panic!("the server with authorization has no Web UI"),
        }
    }

    /// What every program of a test is told: this server, and nobody's own profile.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        match &self.ground {
            Ground::Open(dev) => environment(&dev.address(), &self.folder),
            Ground::Authorized { server, token } => server.env(Some(token)),
        }
    }

    /// What a worker of a test is told, whoever starts it.
    #[must_use]
    pub fn worker_env(&self) -> Vec<(String, String)> {
        match &self.ground {
            Ground::Open(_) => self.env(),
            Ground::Authorized { server, .. } => server.worker_env(),
        }
    }

    /// The server that knows its callers, if this is one of its views.
    #[must_use]
    pub fn authorized(&self) -> Option<&'static AuthorizedServer> {
        match &self.ground {
            Ground::Open(_) => None,
            Ground::Authorized { server, .. } => Some(server),
        }
    }

    /// The Temporal CLI's program.
    #[must_use]
    pub fn cli(&self) -> &Path {
        &self.program
    }

    /// Runs a script in a shell.
    pub async fn shell(&self, script: &str) -> Said {
        let env = self.env();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        say(Path::new("/bin/sh"), &["-c", script], &env, &self.folder).await
    }

    /// The Temporal CLI, as a person uses it.
    pub async fn temporal(&self, arguments: &[&str]) -> Said {
        let env = self.env();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        say(&self.program, arguments, &env, &self.folder).await
    }
}

/// The Temporal CLI's program.
pub(crate) async fn cli_program() -> PathBuf {
    match find().await.expect("a Temporal server") {
        Found::Program(program) => program,
        Found::Existing { address, .. } => {
            panic!("the tests start a server of their own; unset TEMPORAL_ADDRESS and TEMPORAL_PROFILE ({address})")
        }
    }
}

/// What names a server to a program.
pub(crate) fn environment(address: &str, folder: &Path) -> Vec<(String, String)> {
    vec![
        ("TEMPORAL_ADDRESS".to_owned(), address.to_owned()),
        ("TEMPORAL_NAMESPACE".to_owned(), "default".to_owned()),
        ("TEMPORAL_CONFIG_FILE".to_owned(), folder.join("temporal.toml").display().to_string()),
    ]
}

async fn connect(address: &str, token: Option<&str>) -> Client {
    let mut profile = ClientConfigProfile::default();
    profile.address = Some(format!("http://{address}"));
    profile.api_key = token.map(str::to_owned);
    // A token alone would be a reason to use TLS.
    profile.tls = token.map(|_| ClientConfigTLS::builder().disabled(true).build());
    let options = ConnectionOptions::try_from(profile).expect("options");
    let connection = Connection::connect(options).await.expect("a connection");
    Client::new(connection, ClientOptions::new("default").build()).expect("a client")
}

/// A folder of this test run below the target folder; those of runs that ended are removed.
pub(crate) fn run_folder() -> PathBuf {
    let parent = binaries::target_folder().join("tmp");
    for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("it-")
            && !Path::new("/proc").join(pid).exists()
        {
            // Another run may be removing it as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let folder = parent.join(format!("it-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("temporal.toml"), "").expect("an empty profile");
    folder
}
