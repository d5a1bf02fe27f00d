//! A server that is reached over HTTP: its client, its headers, and how many calls it has at a time.

use std::{sync::Arc, time::Duration};

use mandate_domain::ServerName;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::{PrepareToolError, mcp_http};
use crate::{
    catalog::{HeaderSetting, RemoteSettings, Speaks},
    egress::{Egress, LookUp},
};

/// Longest wait for a place among the calls of a server. An attempt has a minute beside the time of its tool.
const PLACE_LIMIT: Duration = Duration::from_secs(30);

/// A server.
#[derive(Debug)]
pub(super) struct Remote {
    name: ServerName,
    settings: RemoteSettings,
    /// What is wrong with its configuration is told to whoever calls it.
    egress: Result<Egress, String>,
    calls: Arc<Semaphore>,
    /// Of an MCP server. Held while connecting, as `Server` does.
    connection: Mutex<Option<Arc<mcp_http::Connection>>>,
}

/// A place among the calls that a server has at a time.
#[derive(Debug)]
pub(super) struct Place {
    _held: OwnedSemaphorePermit,
}

/// A place among the calls that a server has at a time, and what its requests carry. For one call.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) headers: HeaderMap,
    _place: Place,
}

impl Remote {
    /// Builds the client. Nothing is sent.
    pub(super) fn new(name: ServerName, settings: RemoteSettings, look_up: LookUp) -> Self {
        let calls = usize::try_from(settings.calls_max).unwrap_or(Semaphore::MAX_PERMITS);
        let egress = Egress::new(&settings, look_up);
        let calls = Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS)));
        Self { name, settings, egress, calls, connection: Mutex::new(None) }
    }

    fn unreachable(&self, reason: String) -> PrepareToolError {
        PrepareToolError::Unreachable { server: self.name.clone(), reason }
    }

    /// The client.
    pub(super) fn egress(&self) -> Result<&Egress, PrepareToolError> {
        self.egress.as_ref().map_err(|reason| self.unreachable(reason.clone()))
    }

    /// Most calls at a time.
    pub(super) fn calls_max(&self) -> usize {
        usize::try_from(self.settings.calls_max).unwrap_or(usize::MAX)
    }

    /// Longest time to connect.
    pub(super) fn connect_limit(&self) -> Duration {
        Duration::from_secs(self.settings.connect_timeout_secs)
    }

    /// What it speaks.
    pub(super) fn speaks(&self) -> Speaks {
        self.settings.speaks
    }

    /// Waits for a place among the calls, and not so long that an attempt of the call would end meanwhile.
    pub(super) async fn place(&self, wait: Duration) -> Result<Place, PrepareToolError> {
        let wait = wait.min(PLACE_LIMIT);
        let waiting = tokio::time::timeout(wait, Arc::clone(&self.calls).acquire_owned());
        let calls_max = self.settings.calls_max;
        let busy = || format!("all of its {calls_max} calls at a time were under way for {} s", wait.as_secs());
        // The semaphore is never closed.
        let held = waiting.await.ok().and_then(Result::ok).ok_or_else(|| self.unreachable(busy()))?;
        Ok(Place { _held: held })
    }

    /// Everything that a call needs and that may take time, before it is decided about: a place, the secrets, and a
    /// server that takes connections. Nothing is sent.
    pub(super) async fn ready(&self, wait: Duration) -> Result<Ready, PrepareToolError> {
        let place = self.place(wait).await?;
        let headers = self.headers().await?;
        self.reach().await?;
        Ok(Ready { headers, _place: place })
    }

    /// The connection to an MCP server: the one that there is, or a new one.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Arc<mcp_http::Connection>, PrepareToolError> {
        let mut held = self.connection.lock().await;
        // Also with a connection: a server that is gone is an outage, and no call is claimed for it.
        self.reach().await?;
        if let Some(connection) = held.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        *held = None;
        let connection = mcp_http::Connection::open(self).await.map_err(|reason| self.unreachable(reason))?;
        let connection = Arc::new(connection);
        *held = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Ends the session of an MCP server.
    pub(super) async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            connection.close().await;
        }
    }

    /// Whether it takes connections.
    pub(super) async fn reach(&self) -> Result<(), PrepareToolError> {
        self.egress()?.reach().await.map_err(|error| self.unreachable(error.to_string()))
    }

    /// What every request carries.
    pub(super) async fn headers(&self) -> Result<HeaderMap, PrepareToolError> {
        let mut headers = HeaderMap::new();
        for (name, setting) in &self.settings.headers {
            let value =
                value_of(setting).await.map_err(|reason| self.unreachable(format!("header `{name}`: {reason}")))?;
            let name = name.parse::<HeaderName>().map_err(|error| self.unreachable(error.to_string()))?;
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

async fn value_of(setting: &HeaderSetting) -> Result<HeaderValue, String> {
    let (text, is_secret) = match setting {
        HeaderSetting::Plain(text) => (text.clone(), false),
        HeaderSetting::Secret { prefix, reference } => {
            let secret = reference.resolve().await.map_err(|error| error.to_string())?;
            (format!("{prefix}{}", secret.expose_secret()), true)
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "no header can carry its value".to_owned())?;
    value.set_sensitive(is_secret);
    Ok(value)
}
