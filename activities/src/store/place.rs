//! Where a store is.

use std::{fmt, path::PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;

/// Where a store is, which says which engine holds it.
#[derive(Debug, Clone)]
pub enum StorePlace {
    /// A file, for the processes of one machine. Made, with its folder, if it is not there.
    File(PathBuf),
    /// A PostgreSQL database, for the workers of many machines. The database has to be there; its tables are made.
    Postgres(PostgresUrl),
}

impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// The URL of a PostgreSQL database. Shown, it has neither password nor parameters.
#[derive(Clone)]
pub struct PostgresUrl {
    url: SecretString,
    shown: String,
}

/// The text is no URL of a PostgreSQL database. It is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store's url is not of the form `postgres://user:password@host:port/database`")]
pub struct ParsePostgresUrlError;

impl PostgresUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`ParsePostgresUrlError`] for a text that is none, or one of something else.
    pub fn parse(url: SecretString) -> Result<Self, ParsePostgresUrlError> {
        let text = url.expose_secret();
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(ParsePostgresUrlError);
        }
        let options: PgConnectOptions = text.parse().map_err(|_| ParsePostgresUrlError)?;
        let (host, port) = (options.get_host(), options.get_port());
        let (user, database) = (options.get_username(), options.get_database().unwrap_or(options.get_username()));
        let shown = format!("postgres://{user}@{host}:{port}/{database}");
        Ok(Self { url, shown })
    }

    pub(super) fn expose(&self) -> &str {
        self.url.expose_secret()
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_is_secret_in_it() {
        let parse = |text: &str| PostgresUrl::parse(SecretString::from(text.to_owned()));
        let url = parse("postgres://mandate:hunter2@db.example:5433/store?sslmode=verify-full").unwrap();
        assert_eq!(url.to_string(), "postgres://mandate@db.example:5433/store");
        assert_eq!(
            format!("{:?}", StorePlace::Postgres(url)),
            "Postgres(PostgresUrl(postgres://mandate@db.example:5433/store))"
        );
        for wrong in ["", "mysql://u:hunter2@h/d", "hunter2", "postgres://u:hunter2@h:port/d"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
