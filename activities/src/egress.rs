//! The way out to a server over HTTP: one host, one client, and a guard against internal addresses.
//!
//! Promises: a connection is made to an address that was looked at, and to no other, since the client resolves names by
//! the guard itself; an internal one is reached only if configuration names its host; nothing is repeated, no redirect
//! followed, no proxy asked; each request has a connection of its own, and where making it took longer than the claim,
//! nothing is sent over it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

use crate::catalog::RemoteSettings;

mod address;
mod deadline;
mod host;
pub(crate) mod retry_after;
mod unanswered;

use address::Internal;
pub(crate) use deadline::{PastDeadline, sent_by};
use host::literal;
pub use host::{InternalHost, ParseInternalHostError};
pub(crate) use unanswered::Unanswered;

/// Looks a name up. Tests have one of their own.
pub(crate) type LookUp = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The look-up of the system.
pub(crate) fn system() -> LookUp {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// The URL of a server cannot be used. Correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckRemoteError {
    /// It is no URL of a web server.
    #[error("it must be a URL that starts with `https://`")]
    NotWeb,
    /// They would stand in configuration.
    #[error("it carries credentials; a header by secret reference can")]
    Credentials,
    /// Requests are below it, so these would be lost.
    #[error("it has a query or a fragment")]
    Rest,
    /// Whoever is on the way could read and change what is sent.
    #[error("it must start with `https://`: `http://` is for hosts of `allow_internal` alone")]
    Plain,
    /// It is an internal address.
    #[error("its host `{host}` is {what}, and `allow_internal` does not name it")]
    Internal {
        /// The host.
        host: String,
        /// What kind of address.
        what: &'static str,
    },
}

/// Why a server was not reached. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReachError {
    #[error("`{host}` has the address `{address}`, which is {what}, and `allow_internal` does not name it")]
    Internal { host: String, address: IpAddr, what: &'static str },
    #[error("`{host}` has no address: {reason}")]
    NotFound { host: String, reason: String },
    #[error("another host was to be reached: `{host}`")]
    OtherHost { host: String },
    #[error("no connection to `{host}`: {reason}")]
    NoConnection { host: String, reason: String },
}

/// Checks the URL of a server against what may be reached.
///
/// # Errors
/// [`CheckRemoteError`].
pub fn check_url(url: &str, allow_internal: &[InternalHost]) -> Result<(), CheckRemoteError> {
    checked_url(url, allow_internal).map(drop)
}

fn checked_url(text: &str, allow_internal: &[InternalHost]) -> Result<(Url, Route), CheckRemoteError> {
    let url = Url::parse(text).map_err(|_| CheckRemoteError::NotWeb)?;
    let is_web = matches!(url.scheme(), "http" | "https");
    let host = url.host_str().filter(|_| is_web).ok_or(CheckRemoteError::NotWeb)?.to_owned();
    let port = url.port_or_known_default().ok_or(CheckRemoteError::NotWeb)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CheckRemoteError::Credentials);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(CheckRemoteError::Rest);
    }
    let allowed = allow_internal.iter().any(|named| named.names(&host, port));
    if url.scheme() == "http" && !allowed {
        return Err(CheckRemoteError::Plain);
    }
    if let Some(address) = literal(&host)
        && let Some(internal) = address::internal(address)
        && !allowed
    {
        return Err(CheckRemoteError::Internal { host, what: internal.as_str() });
    }
    Ok((url, Route { host, port, allowed }))
}

/// The one host of a server, and whether it may be internal.
#[derive(Debug, Clone)]
struct Route {
    host: String,
    port: u16,
    allowed: bool,
}

impl Route {
    /// The host's addresses, all of which may be connected to. With one of them internal none is: whoever mixes them
    /// tries something.
    async fn addresses(&self, look_up: &LookUp) -> Result<Vec<SocketAddr>, ReachError> {
        let socket = |address| SocketAddr::new(address, self.port);
        if let Some(address) = literal(&self.host) {
            // Looked at when the URL was read.
            return Ok(vec![socket(address)]);
        }
        let host = || self.host.clone();
        let not_found = |reason: String| ReachError::NotFound { host: host(), reason };
        let found = look_up(host()).await.map_err(|error| not_found(error.to_string()))?;
        if found.is_empty() {
            return Err(not_found("its look-up is empty".to_owned()));
        }
        for address in &found {
            if let Some(internal) = address::internal(*address).filter(|internal| !self.may_be(*internal)) {
                return Err(ReachError::Internal { host: host(), address: *address, what: internal.as_str() });
            }
        }
        Ok(found.into_iter().map(socket).collect())
    }

    /// A name that configuration allows may have the addresses of an organisation's networks, and never those that no
    /// server of it has: the metadata services of clouds are link-local.
    fn may_be(&self, internal: Internal) -> bool {
        self.allowed && internal.may_be_named()
    }
}

/// The guard of another client than a server's: looks at the URL's host if it is an address, and resolves it if it is a
/// name. The error says what the address is.
pub(crate) fn guard(url: &Url, allowed: bool) -> Result<Arc<dyn Resolve>, &'static str> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let internal = literal(&host).and_then(address::internal).filter(|_| !allowed);
    if let Some(internal) = internal {
        return Err(internal.as_str());
    }
    let route = Route { host, port: url.port_or_known_default().unwrap_or_default(), allowed };
    Ok(Arc::new(Guarded { route, look_up: system() }))
}

/// Resolves for the client: what is looked at here is what it connects to.
struct Guarded {
    route: Route,
    look_up: LookUp,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (route, look_up) = (self.route.clone(), Arc::clone(&self.look_up));
        Box::pin(async move {
            if name.as_str() != route.host {
                return Err(ReachError::OtherHost { host: name.as_str().to_owned() }.into());
            }
            let addresses = route.addresses(&look_up).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// A server's client.
pub(crate) struct Egress {
    pub(crate) http: reqwest::Client,
    pub(crate) url: Url,
    route: Route,
    look_up: LookUp,
    connect_limit: Duration,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("route", &self.route).finish_non_exhaustive()
    }
}

impl Egress {
    /// Builds the client. Nothing is sent. An error is a sentence: configuration was checked before.
    pub(crate) fn new(settings: &RemoteSettings, look_up: LookUp) -> Result<Self, String> {
        let (url, route) =
            checked_url(&settings.url, &settings.allow_internal).map_err(|error| format!("its URL: {error}"))?;
        let connect_limit = Duration::from_secs(settings.connect_timeout_secs);
        let http = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(connect_limit)
            // A connection that was kept may be closed by the other side just as a request goes out on it, and nobody could
            // tell then whether it arrived.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("mandate/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Guarded { route: route.clone(), look_up: Arc::clone(&look_up) }))
            .connector_layer(deadline::DeadlineLayer)
            .build()
            .map_err(|error| format!("cannot build an HTTP client: {error}"))?;
        Ok(Self { http, url, route, look_up, connect_limit })
    }

    /// Whether a connection can be had now: one is made and dropped, and nothing is sent.
    pub(crate) async fn reach(&self) -> Result<(), ReachError> {
        let no_connection = |reason: String| ReachError::NoConnection { host: self.route.host.clone(), reason };
        let connecting = async {
            let addresses = self.route.addresses(&self.look_up).await?;
            tokio::net::TcpStream::connect(addresses.as_slice())
                .await
                .map(drop)
                .map_err(|error| no_connection(error.to_string()))
        };
        let late = || no_connection(format!("none within {} s", self.connect_limit.as_secs()));
        tokio::time::timeout(self.connect_limit, connecting).await.map_err(|_| late())?
    }
}

#[cfg(test)]
mod tests;
