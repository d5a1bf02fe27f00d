//! One Temporal server for the whole test run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mandate_worker::dev_server::{DevServer, DevServerOptions, Found, find};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, envconfig::ClientConfigProfile};
use tokio::sync::OnceCell;

use crate::{Said, binaries, say};

/// The server and a client of it.
#[derive(Debug)]
pub struct Server {
    /// A connected client.
    pub client: Client,
    /// Folder of this test run.
    pub folder: PathBuf,
    program: PathBuf,
    dev: DevServer,
}

/// The server, started by the first test that asks for it. It ends with this process.
pub async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(Server::start).await
}

impl Server {
    async fn start() -> Self {
        let folder = run_folder();
        let program = match find().await.expect("a Temporal server") {
            Found::Program(program) => program,
            Found::Existing { address, .. } => {
                panic!("the tests start a server of their own; unset TEMPORAL_ADDRESS and TEMPORAL_PROFILE ({address})")
            }
        };
        let options = DevServerOptions {
            database: Some(folder.join("temporal.db")),
            ui: true,
            log_file: folder.join("temporal.log"),
        };
        let dev = DevServer::start(&program, options).await.expect("the Temporal server starts");
        let mut profile = ClientConfigProfile::default();
        profile.address = Some(format!("http://{}", dev.address()));
        let options = ConnectionOptions::try_from(profile).expect("options");
        let connection = Connection::connect(options).await.expect("a connection");
        let client = Client::new(connection, ClientOptions::new("default").build()).expect("a client");
        Self { client, folder, program, dev }
    }

    /// `host:port` of the server.
    #[must_use]
    pub fn address(&self) -> String {
        self.dev.address()
    }

    /// The page of a run in the Web UI.
    #[must_use]
    pub fn page(&self, workflow: &str, run: &str) -> String {
        self.dev.workflow_url("default", workflow, run).expect("the Web UI is served")
    }

    /// What every program of a test is told: this server, and nobody's own profile.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        vec![
            ("TEMPORAL_ADDRESS".to_owned(), self.address()),
            ("TEMPORAL_NAMESPACE".to_owned(), "default".to_owned()),
            ("TEMPORAL_CONFIG_FILE".to_owned(), self.folder.join("temporal.toml").display().to_string()),
        ]
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

/// A folder of this test run below the target folder; those of runs that ended are removed.
fn run_folder() -> PathBuf {
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
