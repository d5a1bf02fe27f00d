//! `mandate.toml`: profile, store, Temporal, reconciler, limits, groups, data classes, tool servers, models, identity, webhook.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    str::FromStr,
};

use mandate_activities::{
    catalog::{ModelSettings, NotifySettings, SecretRef},
    identity::IdentitySettings,
};
use mandate_domain::{DataClass, GroupName, ModelName, PersonId, RunLimits, ServerName};

use super::{
    Profile, ReconcilerSettings, StoreSettings, classes, identity,
    limits::{self, Base},
    models, notify,
    problems::{Problems, suggestion},
    reader::{At, Table, parse, read_table},
    reconciler,
    remotes::{self, Server},
    store,
};

/// The file that makes a folder an operating folder.
pub(super) const ROOT_FILE: &str = "mandate.toml";

/// What `mandate.toml` says.
pub(super) struct Root {
    pub(super) profile: Profile,
    pub(super) store: StoreSettings,
    pub(super) task_queue: String,
    pub(super) reconciler: ReconcilerSettings,
    pub(super) limits: RunLimits,
    pub(super) groups: BTreeMap<GroupName, Vec<PersonId>>,
    pub(super) data_classes: Named<DataClass, String>,
    pub(super) servers: Named<ServerName, Server>,
    pub(super) models: Named<ModelName, ModelSettings>,
    pub(super) identity: IdentitySettings,
    pub(super) notify: Option<NotifySettings>,
}

/// Named things: the usable ones, and every name that was written, so that one that is wrong itself is not reported
/// as unknown elsewhere too.
pub(super) struct Named<K, V> {
    pub(super) usable: BTreeMap<K, V>,
    pub(super) written: Vec<String>,
}

impl<K, V> Default for Named<K, V> {
    fn default() -> Self {
        Self { usable: BTreeMap::new(), written: Vec::new() }
    }
}

/// Where things are looked for.
#[derive(Clone, Copy)]
pub(super) struct Folders<'a> {
    /// The operating folder.
    pub(super) operating: &'a Path,
    /// The folder of the running executable.
    pub(super) programs: &'a Path,
}

/// Reads `mandate.toml`.
pub(super) fn read(problems: &Problems, folders: Folders<'_>) -> Option<Root> {
    let mut table = read_table(problems, folders.operating, Path::new(ROOT_FILE))?;
    let profile = read_profile(&mut table);
    let root = Root {
        profile,
        store: store::read(table.table("store"), folders.operating),
        task_queue: read_task_queue(table.table("temporal")),
        reconciler: reconciler::read(table.table("reconciler")),
        limits: limits::read(table.table("limits"), &Base::Defaults),
        groups: read_groups(table.table("groups")),
        data_classes: classes::read_declared(table.table("data_classes")),
        servers: read_named(table.table("servers"), |table| remotes::read(table, folders)),
        models: read_named(table.table("models"), |table| models::read(table, folders.operating)),
        identity: identity::read(&mut table, profile, folders.operating),
        notify: notify::read(table.table("notify"), folders.operating),
    };
    table.finish();
    Some(root)
}

/// Reads only where the store is.
pub(super) fn read_store_alone(problems: &Problems, folder: &Path) -> Option<StoreSettings> {
    let mut table = read_table(problems, folder, Path::new(ROOT_FILE))?;
    Some(store::read(table.table("store"), folder))
}

fn read_profile(table: &mut Table<'_>) -> Profile {
    let Some(text) = table.text("profile") else { return Profile::default() };
    Profile::named(&text.value).unwrap_or_else(|| {
        let (name, help) = (&text.value, suggestion(&text.value, Profile::ALL.map(Profile::as_str)));
        table.problems.at(&text.place, format!("unknown profile `{name}`"), "unknown profile", Some(help));
        Profile::default()
    })
}

/// Reads a secret reference. A plain value is blotted out wherever the file is shown.
pub(super) fn read_secret(table: &mut Table<'_>, key: &str, folder: &Path) -> Option<At<SecretRef>> {
    let text = table.secret_text(key)?;
    secret_of(table.problems, key, text, folder)
}

/// The reference in a text.
pub(super) fn secret_of(problems: &Problems, key: &str, text: At<String>, folder: &Path) -> Option<At<SecretRef>> {
    match SecretRef::parse(&text.value) {
        Ok(reference) => Some(At { value: reference.within(folder), place: text.place }),
        Err(error) => {
            problems.hide(&text.place);
            let help = format!("put the secret elsewhere and write `{key} = \"env:NAME\"`");
            problems.at(&text.place, format!("`{key}`: {error}"), "not a reference", Some(help));
            None
        }
    }
}

fn read_task_queue(table: Option<Table<'_>>) -> String {
    let default = "mandate".to_owned();
    let Some(mut table) = table else { return default };
    let queue = if table.has("task_queue") { table.required_text("task_queue").map(|text| text.value) } else { None };
    table.finish();
    queue.unwrap_or(default)
}

fn read_groups(table: Option<Table<'_>>) -> BTreeMap<GroupName, Vec<PersonId>> {
    let Some(mut table) = table else { return BTreeMap::new() };
    let mut groups = BTreeMap::new();
    for name in table.names() {
        let members = table.texts(&name.value);
        let (Some(group), Some(members)) = (parse::<GroupName>(table.problems, name), members) else { continue };
        if members.value.is_empty() {
            let message = format!("group `{}` has no members, so nobody could decide for it", group.value);
            table.problems.at(&members.place, message, "name at least one person", None);
        }
        let people = members.value.into_iter().filter_map(|text| parse(table.problems, text));
        groups.insert(group.value, people.map(|person: At<PersonId>| person.value).collect());
    }
    groups
}

fn read_named<'p, K, V>(table: Option<Table<'p>>, read: impl Fn(&mut Table<'p>) -> Option<V>) -> Named<K, V>
where
    K: FromStr<Err: Display> + Ord,
{
    let Some(mut table) = table else { return Named::default() };
    let mut named = Named::default();
    for name in table.names() {
        named.written.push(name.value.clone());
        let Some(mut inner) = table.table(&name.value) else { continue };
        let value = read(&mut inner);
        inner.finish();
        if let (Some(key), Some(value)) = (parse(table.problems, name), value) {
            named.usable.insert(key.value, value);
        }
    }
    named
}

/// A path of the operating folder that has to be a file.
pub(super) fn existing_file(problems: &Problems, folder: &Path, path: &At<String>) -> Option<PathBuf> {
    let full = folder.join(&path.value);
    if full.is_file() {
        return Some(full);
    }
    problems.at(&path.place, format!("file `{}` does not exist", path.value), "no such file", None);
    None
}
