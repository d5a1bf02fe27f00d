//! PostgreSQL for tests: a real server in a folder of its own, and a database for each test.
//!
//! The server ends with the process that started it, however that ends: a shell beside it waits for the pipe to close,
//! stops it and removes its folder. It listens on the loopback interface alone and syncs to the disk as in production.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot have a server fails")]

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::store::{AddressKeySource, PostgresUrl, Store, StorePlace, StoreSettings};

mod disk;

/// Names the folder with `initdb` and `pg_ctl`.
const BIN: &str = "MANDATE_POSTGRES_BIN";
const USER: &str = "mandate";
const TEMPLATE: &str = "mandate_template";
const ENDS: &str = r#"read -r _; cd /; "$@"; rm -rf -- "$FOLDER""#;

/// A running server.
pub struct TestPostgres {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    password: String,
    template: tokio::sync::OnceCell<()>,
    /// Its standard input is the pipe that ends the server.
    supervisor: Child,
    has_own_disk: bool,
}

impl std::fmt::Debug for TestPostgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestPostgres").field("port", &self.port).finish_non_exhaustive()
    }
}

/// The server of this test run, started by the first test that asks.
#[must_use]
pub fn shared() -> &'static TestPostgres {
    static SHARED: OnceLock<TestPostgres> = OnceLock::new();
    SHARED.get_or_init(TestPostgres::start)
}

impl TestPostgres {
    /// Starts a server of its own.
    ///
    /// # Panics
    /// When the programs are missing or the server does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a server with a disk of its own of this size, as `mount` takes it. The server takes some 60 MiB.
    ///
    /// # Panics
    /// As above, and where a process may not have mounts of its own.
    #[must_use]
    pub fn start_on_own_disk(size: &str) -> Self {
        Self::start_with(Some(size))
    }

    fn start_with(disk: Option<&str>) -> Self {
        let bin = std::env::var_os(BIN);
        let bin = PathBuf::from(bin.unwrap_or_else(|| panic!("set {BIN}: `tools/test` installs PostgreSQL for tests")));
        let folder = own_folder();
        let password = "only-for-tests".to_owned();
        fs::write(folder.join("password"), &password).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let supervisor = match disk {
            None => {
                give_away(&folder);
                supervise(Command::new("/bin/sh"), ENDS, &as_nobody(&bin.join("pg_ctl")), &folder)
            }
            Some(size) => {
                fs::create_dir(folder.join("data")).unwrap();
                let (script, stop) = (format!("{}{ENDS}", disk::MOUNT), disk::of_the_shell(&bin.join("pg_ctl")));
                let shell = supervise(disk::shell(size), &script, &stop, &folder);
                wait_for(&folder.join("mounted"));
                shell
            }
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (template, has_own_disk) = (tokio::sync::OnceCell::new(), disk.is_some());
        let server = Self { bin, folder, port, password, template, supervisor, has_own_disk };
        server.make();
        server.resume();
        server
    }

    fn make(&self) {
        let (data, password) = (self.data(), self.folder.join("password"));
        let mut initdb = self.program("initdb");
        initdb.arg("-D").arg(data).args(["-U", USER, "--auth=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]);
        // Each connection computes them (RFC 5802), which takes an unoptimised program longer than what it connects for.
        initdb.args(["--set", "scram_iterations=1"]);
        run(initdb.arg("--pwfile").arg(password), &self.folder);
    }

    /// One of its programs, as a user that it runs as.
    fn program(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        if self.has_own_disk { disk::beside(self.supervisor.id(), &program) } else { as_nobody(&program) }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts it again after [`Self::stop`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&self) {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -p {} -c unix_socket_directories={} -c max_connections=300",
            self.port,
            self.folder.display()
        );
        let mut start = self.program("pg_ctl");
        start.arg("-D").arg(self.data()).arg("-l").arg(self.folder.join("log")).args(["-w", "-o", &options, "start"]);
        run(&mut start, &self.folder);
    }

    /// Stops it: open transactions are rolled back, and nobody can connect.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(&self) {
        let mut stop = self.program("pg_ctl");
        run(stop.arg("-D").arg(self.data()).args(["-w", "-m", "fast", "stop"]), &self.folder);
    }

    /// The folder with `psql`, `pg_dump` and `pg_restore`.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.bin
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// A new database with the tables of a store, and its URL.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn database(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        self.template.get_or_init(|| self.make_template()).await;
        let name = format!("test_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        self.execute(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
        self.url(&name)
    }

    /// A new database without anything in it, and its URL.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn empty_database(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("empty_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        self.execute(format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    async fn make_template(&self) {
        self.execute(format!("CREATE DATABASE {TEMPLATE}")).await;
        let store = Store::open(settings(&self.url(TEMPLATE), AddressKeySource::Folder(self.folder.join("keys"))));
        store.await.expect("the template").close().await;
        // Each test's store has an id of its own.
        let mut template = PgConnection::connect(&self.url(TEMPLATE)).await.unwrap();
        template.execute("DELETE FROM store").await.unwrap();
        template.close().await.unwrap();
    }

    /// Runs a statement as the server's administrator.
    ///
    /// # Panics
    /// When it fails.
    pub async fn execute(&self, statement: String) {
        let mut admin = PgConnection::connect(&self.url("postgres")).await.expect("the server answers");
        admin.execute(sqlx::AssertSqlSafe(statement)).await.expect("the statement runs");
    }
}

/// How a store in this database is opened.
///
/// # Panics
/// When it is no URL of a database.
#[must_use]
pub fn settings(url: &str, address_keys: AddressKeySource) -> StoreSettings {
    let url = PostgresUrl::parse(url.to_owned().into()).expect("a url");
    StoreSettings { place: StorePlace::Postgres(url), address_keys }
}

/// PostgreSQL does not run as root.
fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn own_folder() -> PathBuf {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("mandate-postgres-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

fn give_away(folder: &Path) {
    if is_root() {
        run(Command::new("chown").args(["-R", "nobody"]).arg(folder), folder);
    }
}

fn supervise(mut shell: Command, script: &str, stop: &Command, folder: &Path) -> Child {
    shell.args(["-c", script, "supervisor"]).arg(stop.get_program()).args(stop.get_args());
    shell.arg("-D").arg(folder.join("data")).args(["-m", "immediate", "stop"]).env("FOLDER", folder);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("a shell")
}

fn wait_for(file: &Path) {
    for _ in 0..1000 {
        if file.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no disk of its own for the server: may processes have user namespaces here (user_namespaces(7))?");
}

fn run(command: &mut Command, folder: &Path) {
    // Not a pipe: the server would keep it open.
    let said = folder.join("said");
    let output = fs::File::create(&said).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).current_dir(folder);
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {}", fs::read_to_string(said).unwrap_or_default());
}
