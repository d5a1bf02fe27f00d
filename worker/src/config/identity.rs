//! `[identity]`: how it is proved who sent a message, whose keys are whose, and whose tokens are believed.
//!
//! Claims never stand beside another way: whoever sends no proof would be believed, and the proofs of the others would
//! be worth nothing. Where others rely on the folder they prove nobody at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use mandate_activities::identity::{
    IdentitySettings, JwksSource, JwtAlgorithm, JwtSettings, LEEWAY_SECS_MAX, ParseJwksUrlError,
};
use mandate_domain::{
    Gate, PersonId, Proof, PublicKey,
    policy::{PolicyBundle, WrittenGate},
};

use super::{
    Profile,
    problems::{Place, Problems, suggestion},
    reader::{At, Table, parse, read_text},
    root::existing_file,
};

/// The claim that names the person unless configuration says otherwise.
const PERSON_CLAIM: &str = "sub";
/// Seconds by which clocks may differ unless configuration says otherwise.
const LEEWAY_SECS: u64 = 30;
/// Before the path of a file.
const FILE: &str = "file:";

/// What is accepted, and where it is written.
type Accepted = BTreeMap<Proof, Place>;

/// Reads `[identity]` of `mandate.toml`.
pub(super) fn read(root: &mut Table<'_>, profile: Profile, folder: &Path) -> IdentitySettings {
    let strict = profile == Profile::Production;
    if !root.has("identity") {
        if strict {
            undecided(root);
        }
        return IdentitySettings { strict, ..IdentitySettings::default() };
    }
    let Some(mut table) = root.table("identity") else { return IdentitySettings::default() };
    let accepted = read_accepted(&mut table, profile);
    let keys = table.table("keys").map(|table| (table.place.clone(), read_keys(table, folder)));
    let jwt = table.table("jwt").map(|table| (table.place.clone(), read_jwt(table, folder)));
    let workers = table.texts("workers");
    if let Some(accepted) = &accepted {
        check_parts(
            table.problems,
            accepted,
            &Parts {
                keys: keys.as_ref().map(|(place, keys)| (place, keys.written)),
                jwt: jwt.as_ref().map(|(place, _)| (place, true)),
                workers: workers.as_ref().map(|workers| (&workers.place, !workers.value.is_empty())),
            },
        );
    }
    let workers = workers.map(|workers| workers.value).unwrap_or_default();
    let workers = workers.into_iter().filter_map(|name| worker(table.problems, name)).collect();
    table.finish();
    IdentitySettings {
        accepted: accepted.unwrap_or_default().into_keys().collect(),
        keys: keys.map(|(_, keys)| keys.of).unwrap_or_default(),
        jwt: jwt.and_then(|(_, jwt)| jwt),
        workers,
        strict,
    }
}

/// Nobody may be believed by default where others rely on it.
fn undecided(table: &Table<'_>) {
    let message = "a production folder says how people are proved: `accept` of `[identity]` is missing";
    let help = "write `[identity]` with `accept = [\"key\"]`, `[\"jwt\"]` or `[\"principal\"]`; a folder to try things \
                out says `profile = \"development\"`";
    table.problems.at(&table.place, message, "nobody is proved", Some(help.to_owned()));
}

/// The accepted ways; none where they cannot be told.
fn read_accepted(table: &mut Table<'_>, profile: Profile) -> Option<Accepted> {
    if !table.has("accept") {
        // Asked for all the same, so that the key is known.
        let _ = table.texts("accept");
        return match profile {
            Profile::Production => {
                undecided(table);
                None
            }
            Profile::Development => Some(Accepted::from([(Proof::Claimed, table.place.clone())])),
        };
    }
    let written = table.texts("accept")?;
    let count = written.value.len();
    if count == 0 {
        let help = Some("write `accept = [\"key\"]`, `[\"jwt\"]` or `[\"principal\"]`".to_owned());
        table.problems.at(&written.place, "`accept` names no way, so nobody could be proved", "empty", help);
        return None;
    }
    let accepted: Accepted = written.value.into_iter().filter_map(|way| way_of_proof(table.problems, way)).collect();
    if let Some(place) = accepted.get(&Proof::Claimed) {
        check_claimed(table.problems, place, accepted.len(), profile);
    }
    // With one way wrong the parts that belong to it would be reported again.
    (accepted.len() == count).then_some(accepted)
}

fn way_of_proof(problems: &Problems, way: At<String>) -> Option<(Proof, Place)> {
    if let Ok(proof) = way.value.parse() {
        return Some((proof, way.place));
    }
    let help = suggestion(&way.value, Proof::ALL.map(Proof::as_str));
    problems.at(&way.place, format!("unknown way of proof `{}`", way.value), "unknown way", Some(help));
    None
}

fn check_claimed(problems: &Problems, place: &Place, ways: usize, profile: Profile) {
    if profile == Profile::Production {
        let message = "`claimed` proves nobody, and this is a production folder";
        let help =
            "accept `key`, `jwt` or `principal`, or write `profile = \"development\"` in a folder to try things out";
        problems.at(place, message, "not in production", Some(help.to_owned()));
    } else if ways > 1 {
        let message = "`claimed` stands beside other ways: whoever sends no proof would be believed";
        problems.at(place, message, "defeats the others", Some("remove `claimed`, or the others".to_owned()));
    }
}

/// The parts of `[identity]` that belong to one way each: where they stand, and whether there is something in them.
struct Parts<'a> {
    keys: Option<(&'a Place, bool)>,
    jwt: Option<(&'a Place, bool)>,
    workers: Option<(&'a Place, bool)>,
}

fn check_parts(problems: &Problems, accepted: &Accepted, parts: &Parts<'_>) {
    let each = [
        (
            Proof::Key,
            parts.keys,
            "nobody has a key",
            "[identity.keys]",
            "`mandate key new FILE` makes a key and prints its line",
        ),
        (
            Proof::Jwt,
            parts.jwt,
            "no identity provider is named",
            "[identity.jwt]",
            "it names `issuer`, `audience` and `jwks`",
        ),
        (
            Proof::Principal,
            parts.workers,
            "no principal of a worker is named",
            "workers",
            "a worker's credentials can send signals, so their names are told apart from those of people",
        ),
    ];
    for (way, part, missing, name, why) in each {
        match (accepted.get(&way), part) {
            (Some(place), None | Some((_, false))) => {
                let message = format!("`{way}` is accepted and {missing}");
                problems.at(place, message, "not usable", Some(format!("add `{name}`: {why}")));
            }
            (None, Some((place, _))) => {
                let help = format!("add `\"{way}\"` to `accept`, or remove `{name}`");
                problems.at(
                    place,
                    format!("`{name}` is for `{way}`, which is not accepted"),
                    "does nothing",
                    Some(help),
                );
            }
            (Some(_), Some((_, true))) | (None, None) => {}
        }
    }
}

fn worker(problems: &Problems, name: At<String>) -> Option<String> {
    if name.value.trim().is_empty() {
        problems.at(&name.place, "this names no principal", "empty", None);
        return None;
    }
    Some(name.value)
}

/// The usable keys, and whether any stands there.
struct Keys {
    of: BTreeMap<PersonId, Vec<PublicKey>>,
    written: bool,
}

fn read_keys(mut table: Table<'_>, folder: &Path) -> Keys {
    let mut keys = Keys { of: BTreeMap::new(), written: false };
    let mut known: Vec<(PublicKey, PersonId)> = Vec::new();
    for name in table.names() {
        keys.written = true;
        let texts = table.texts(&name.value);
        let (Some(person), Some(texts)) = (parse::<PersonId>(table.problems, name), texts) else { continue };
        if texts.value.is_empty() {
            table.problems.at(&texts.place, format!("`{}` has no key", person.value), "name at least one", None);
        }
        for text in texts.value {
            let place = text.place.clone();
            let Some(key) = read_key(table.problems, &text, folder) else { continue };
            if let Some((_, owner)) = known.iter().find(|(one, _)| *one == key) {
                let message = format!("key {} is `{owner}`'s already: a key is one person's, once", key.fingerprint());
                table.problems.at(&place, message, "listed twice", None);
                continue;
            }
            known.push((key, person.value.clone()));
            keys.of.entry(person.value.clone()).or_default().push(key);
        }
    }
    keys
}

fn read_key(problems: &Problems, text: &At<String>, folder: &Path) -> Option<PublicKey> {
    let read = match text.value.strip_prefix(FILE) {
        Some(path) => {
            let path = At { value: path.to_owned(), place: text.place.clone() };
            existing_file(problems, folder, &path)?;
            PublicKey::from_pem(&read_text(problems, folder, Path::new(&path.value))?)
        }
        None => text.value.parse(),
    };
    read.map_err(|error| {
        if !text.value.starts_with(FILE) {
            // It may be the secret one.
            problems.hide(&text.place);
        }
        let help = "`mandate key show FILE` prints the public key of a key file";
        problems.at(&text.place, error.to_string(), "not a public key", Some(help.to_owned()));
    })
    .ok()
}

fn read_jwt(mut table: Table<'_>, folder: &Path) -> Option<JwtSettings> {
    let issuer = table.required_text("issuer");
    let audience = table.required_text("audience");
    let jwks = table.required_text("jwks").and_then(|jwks| read_jwks(table.problems, &jwks, folder));
    let person_claim =
        if table.has("person_claim") { table.required_text("person_claim").map(|claim| claim.value) } else { None };
    let leeway_secs = table.number_within("leeway_secs", 0..=LEEWAY_SECS_MAX, LEEWAY_SECS);
    let algorithms = table.texts("algorithms").map_or_else(JwtAlgorithm::usual, |names| read_algorithms(&table, names));
    table.finish();
    Some(JwtSettings {
        issuer: issuer?.value,
        audience: audience?.value,
        jwks: jwks?,
        person_claim: person_claim.unwrap_or_else(|| PERSON_CLAIM.to_owned()),
        leeway_secs,
        algorithms,
    })
}

fn read_jwks(problems: &Problems, text: &At<String>, folder: &Path) -> Option<JwksSource> {
    if let Some(path) = text.value.strip_prefix(FILE) {
        let path = At { value: path.to_owned(), place: text.place.clone() };
        return existing_file(problems, folder, &path).map(JwksSource::File);
    }
    let refused = match text.value.parse() {
        Ok(url) => return Some(JwksSource::Url(url)),
        Err(refused) => refused,
    };
    match refused {
        ParseJwksUrlError::Credentials => problems.hide(&text.place),
        ParseJwksUrlError::NoUrl | ParseJwksUrlError::NotHttps => {}
    }
    let help = "write `file:PATH`, or the `https://` URL at which the identity provider publishes its keys";
    problems.at(&text.place, format!("`jwks`: {refused}"), "not usable", Some(help.to_owned()));
    None
}

fn read_algorithms(table: &Table<'_>, names: At<Vec<At<String>>>) -> BTreeSet<JwtAlgorithm> {
    if names.value.is_empty() {
        table.problems.at(&names.place, "`algorithms` names none, so no token could be verified", "empty", None);
    }
    let algorithm = |name: At<String>| {
        let known = name.value.parse().ok();
        if known.is_none() {
            let help = suggestion(&name.value, JwtAlgorithm::ALL.map(JwtAlgorithm::as_str));
            let message = format!("tokens signed with `{}` are not verified here", name.value);
            table.problems.at(&name.place, message, "unknown algorithm", Some(help));
        }
        known
    };
    names.value.into_iter().filter_map(algorithm).collect()
}

/// Refuses gates that claims cannot hold: several people, or somebody else than the requester, are one person who
/// claims to be each of them.
pub(super) fn check_gates(problems: &Problems, settings: &IdentitySettings, policy: &PolicyBundle) {
    if !settings.accepts(Proof::Claimed) {
        return;
    }
    for WrittenGate { gate, source, span } in policy.gates() {
        let Some(asks_for) = beyond_claims(gate) else { continue };
        let file = problems.add_file(Path::new(&source.path), &source.text);
        let message =
            format!("gate `{}` asks for {asks_for}, and where people are `claimed` one can be all of them", gate.id);
        let help = "accept `key`, `jwt` or `principal` in `[identity]` of mandate.toml, or take it out of the policy";
        problems.at(&Place { file, span }, message, "held by nobody", Some(help.to_owned()));
    }
}

fn beyond_claims(gate: &Gate) -> Option<String> {
    let people = (gate.quorum > 1).then(|| format!("{} people", gate.quorum));
    let eyes = (!gate.four_eyes.is_empty()).then(|| "four eyes".to_owned());
    let asked: Vec<_> = people.into_iter().chain(eyes).collect();
    (!asked.is_empty()).then(|| asked.join(" and "))
}
