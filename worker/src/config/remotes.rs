//! `[servers.<name>]` with `url` or `base_url`: servers that are reached over HTTP.

use std::{collections::BTreeMap, path::Path};

use mandate_activities::{
    catalog::{HeaderSetting, RemoteSettings, SecretRef, ServerSettings, Speaks},
    egress::{CheckRemoteError, InternalHost, check_url},
};
use mandate_domain::ServerName;

use super::{
    problems::{Place, Problems},
    reader::{At, Table, parse},
    root::Folders,
    servers,
};

/// Longest time to connect unless the server says otherwise, in seconds.
const CONNECT_TIMEOUT_SECS: u64 = 10;
/// Most calls at a time unless the server says otherwise.
const CALLS_MAX: u64 = 8;
/// Headers that the runtime or HTTP itself states.
const TAKEN: [&str; 12] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
    "idempotency-key",
    "proxy-authorization",
];
/// What the name of a header with a secret is made of.
const SECRETIVE: [&str; 7] = ["auth", "cookie", "key", "token", "secret", "password", "credential"];

/// A server of either kind.
pub(super) enum Server {
    /// One that the worker starts.
    Started(ServerSettings),
    /// One that is reached over HTTP.
    Remote(RemoteSettings),
}

/// Reads one server: which key says how it is reached?
pub(super) fn read(table: &mut Table<'_>, folders: Folders<'_>) -> Option<Server> {
    let remote = [("base_url", Speaks::Http), ("url", Speaks::Mcp)];
    let Some((key, speaks)) = remote.into_iter().find(|(key, _)| table.has(key)) else {
        return servers::read(table, folders).map(Server::Started);
    };
    read_remote(table, key, speaks, folders.operating).map(Server::Remote)
}

fn read_remote(table: &mut Table<'_>, key: &str, speaks: Speaks, folder: &Path) -> Option<RemoteSettings> {
    let allow_internal = read_internal(table);
    let url = table.required_text(key).and_then(|url| checked(table.problems, key, url, &allow_internal));
    let headers = table.table("headers").map(|headers| read_headers(headers, folder)).unwrap_or_default();
    let connect_timeout_secs = table.number_within("connect_timeout_secs", 1..=300, CONNECT_TIMEOUT_SECS);
    let calls_max = table.number_within("calls_max", 1..=256, CALLS_MAX);
    let calls_max = u32::try_from(calls_max).unwrap_or(u32::MAX);
    Some(RemoteSettings { speaks, url: url?, headers, allow_internal, connect_timeout_secs, calls_max })
}

/// Reads `allow_internal`.
pub(super) fn read_internal(table: &mut Table<'_>) -> Vec<InternalHost> {
    let hosts = table.texts("allow_internal").map(|hosts| hosts.value).unwrap_or_default();
    hosts.into_iter().filter_map(|host| parse(table.problems, host)).map(|host: At<InternalHost>| host.value).collect()
}

fn checked(problems: &Problems, key: &str, url: At<String>, allow_internal: &[InternalHost]) -> Option<String> {
    let Err(error) = check_url(&url.value, allow_internal) else { return Some(url.value) };
    let (label, help) = match &error {
        CheckRemoteError::Credentials => {
            problems.hide(&url.place);
            ("credentials", "write `headers.authorization = \"Bearer env:NAME\"`")
        }
        CheckRemoteError::NotWeb => ("not such a URL", "write `https://…`"),
        CheckRemoteError::Rest => ("more than a place", "a tool's own path can have a query"),
        CheckRemoteError::Plain => ("not encrypted", "put TLS before it, or name its host in `allow_internal`"),
        CheckRemoteError::Internal { .. } => ("an internal address", "name it in `allow_internal` if it is meant"),
    };
    problems.at(&url.place, format!("`{key}`: {error}"), label, Some(help.to_owned()));
    None
}

fn read_headers(table: Table<'_>, folder: &Path) -> BTreeMap<String, HeaderSetting> {
    let problems = table.problems;
    let mut headers = BTreeMap::new();
    for (name, text) in table.free_texts() {
        // Whatever is wrong, a value may be a secret.
        problems.hide(&text.place);
        if let Some(setting) = read_header(problems, &name, &text, folder) {
            headers.insert(name.value, setting);
        }
    }
    headers
}

fn read_header(problems: &Problems, name: &At<String>, text: &At<String>, folder: &Path) -> Option<HeaderSetting> {
    let report = |place: &Place, message: String, label: &str| problems.at(place, message, label, None);
    let named = &name.value;
    let is_token = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if named.is_empty() || !named.chars().all(is_token) {
        report(&name.place, format!("`{named}` is no header: lower case letters, digits and `-`"), "not a header");
        return None;
    }
    if TAKEN.contains(&named.as_str()) || named.starts_with("mcp-") {
        report(&name.place, format!("header `{named}` is stated by the runtime"), "remove this");
        return None;
    }
    let is_reference = |text: &str| ["env:", "file:", "exec:"].iter().any(|scheme| text.starts_with(scheme));
    // A program has arguments after spaces; only a scheme such as `Bearer` may stand before a reference.
    let (prefix, reference) = match text.value.split_once(' ') {
        Some((scheme, rest)) if is_reference(rest) && !is_reference(&text.value) => (format!("{scheme} "), rest),
        Some(_) | None => (String::new(), text.value.as_str()),
    };
    if !is_reference(reference) {
        if SECRETIVE.iter().any(|part| named.contains(part)) {
            let message = format!("`{named}`: a secret is written as a reference, such as `Bearer env:NAME`");
            report(&text.place, message, "not a reference");
            return None;
        }
        let plain = text.value.chars().all(|c| matches!(c, ' '..='~'));
        if !plain {
            report(&text.place, format!("no header can carry the value of `{named}`"), "not a value");
        }
        return plain.then(|| HeaderSetting::Plain(text.value.clone()));
    }
    match SecretRef::parse(reference) {
        Ok(reference) => Some(HeaderSetting::Secret { prefix, reference: reference.within(folder) }),
        Err(error) => {
            report(&text.place, format!("`{named}`: {error}"), "not a reference");
            None
        }
    }
}

/// The servers of each kind.
pub(super) fn split(
    servers: BTreeMap<ServerName, Server>,
) -> (BTreeMap<ServerName, ServerSettings>, BTreeMap<ServerName, RemoteSettings>) {
    let (mut started, mut remotes) = (BTreeMap::new(), BTreeMap::new());
    for (name, server) in servers {
        match server {
            Server::Started(settings) => drop(started.insert(name, settings)),
            Server::Remote(settings) => drop(remotes.insert(name, settings)),
        }
    }
    (started, remotes)
}
