//! `mandate key`: makes and shows the keys that people sign with.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::Context as _;
use mandate_domain::{PersonId, PublicKey, proof::SigningKey};

use crate::{
    cli::{Key, NewKey, ShowKey},
    output::{self, Exit},
};

/// Largest key file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Only the owner may read and write.
const OWNER_ONLY: u32 = 0o600;

/// Carries out a command on keys.
///
/// # Errors
/// When the file cannot be made or read, or holds no key.
pub fn key(command: &Key) -> anyhow::Result<Exit> {
    match command {
        Key::New(options) => new(options),
        Key::Show(options) => show(options),
    }
}

fn new(options: &NewKey) -> anyhow::Result<Exit> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("no random numbers from the operating system")?;
    let key = SigningKey::from_random(&random);
    write(&options.file, &key.to_pem()?)?;
    let public = key.public_key();
    output::data(line(options.person.as_ref(), &public))?;
    let file = options.file.display();
    output::note(format_args!("made {file}, fingerprint {}: keep it to yourself", public.fingerprint()));
    Ok(Exit::Done)
}

/// The line for `[identity.keys]`.
fn line(person: Option<&PersonId>, key: &PublicKey) -> String {
    let person = person.map_or("PERSON", PersonId::as_str);
    // TOML's basic strings are written as JSON's are.
    format!("{} = [\"{key}\"]", serde_json::Value::from(person))
}

fn write(path: &Path, pem: &str) -> anyhow::Result<()> {
    let file = path.display();
    let made = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path);
    let mut made = made.with_context(|| format!("cannot make `{file}`"))?;
    made.write_all(pem.as_bytes()).and_then(|()| made.sync_all()).with_context(|| format!("cannot write `{file}`"))
}

fn show(options: &ShowKey) -> anyhow::Result<Exit> {
    let key = public_key_of(&options.file)?;
    output::data(format_args!("{key}\nfingerprint {}", key.fingerprint()))?;
    Ok(Exit::Done)
}

fn public_key_of(path: &Path) -> anyhow::Result<PublicKey> {
    let text = read(path)?;
    if let Ok(public) = PublicKey::from_pem(&text) {
        return Ok(public);
    }
    let no_key = || format!("`{}` holds no Ed25519 key", path.display());
    Ok(SigningKey::from_pem(&text).with_context(no_key)?.public_key())
}

/// Reads the key that a person signs with. A file that others may read is told of: whoever reads it can sign.
///
/// # Errors
/// When the file cannot be read or holds no private key; its content is never repeated.
pub fn read_signing_key(path: &Path) -> anyhow::Result<SigningKey> {
    let text = read(path)?;
    let mode = fs::metadata(path).map_or(OWNER_ONLY, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        output::note(format_args!("warning: others may read `{0}`: chmod 600 {0}", path.display()));
    }
    SigningKey::from_pem(&text).with_context(|| format!("`{}` cannot be signed with", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let file = path.display();
    let mut text = String::new();
    let opened = fs::File::open(path).with_context(|| format!("cannot read `{file}`"))?;
    opened.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read `{file}`"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path) -> std::path::PathBuf {
        let file = folder.join("bo.pem");
        let person = Some(PersonId::parse("bo@acme.example").unwrap());
        assert_eq!(new(&NewKey { file: file.clone(), person }).unwrap(), Exit::Done);
        file
    }

    #[test]
    fn a_new_key_is_its_owners_alone_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = made(folder.path());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
        let key = read_signing_key(&file).unwrap();
        assert_eq!(public_key_of(&file).unwrap(), key.public_key());
        let public = folder.path().join("bo.pub.pem");
        fs::write(&public, key.public_key().to_pem().unwrap()).unwrap();
        assert_eq!(public_key_of(&public).unwrap(), key.public_key());
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = made(folder.path());
        let before = fs::read(&file).unwrap();
        let error = new(&NewKey { file: file.clone(), person: None }).unwrap_err();
        assert!(error.to_string().contains("bo.pem"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), before);
    }

    #[test]
    fn two_keys_are_two_keys() {
        let key = || public_key_of(&made(tempfile::tempdir().unwrap().path())).unwrap();
        assert_ne!(key(), key());
    }

    #[test]
    fn what_holds_no_key_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notes.pem");
        fs::write(&file, "0123456789").unwrap();
        for error in [public_key_of(&file).unwrap_err(), read_signing_key(&file).unwrap_err()] {
            let words = format!("{error:#}");
            assert!(words.contains("notes.pem") && words.contains("PEM") && !words.contains("012345"), "{words}");
        }
        let error = public_key_of(&folder.path().join("none.pem")).unwrap_err();
        assert!(error.to_string().contains("none.pem"), "{error}");
    }

    #[test]
    fn the_line_is_one_of_a_toml_table() {
        let key = SigningKey::from_random(&[1; 32]).public_key();
        let person = PersonId::parse("bo \"the boss\"").unwrap();
        let table: toml::Table = line(Some(&person), &key).parse().unwrap();
        assert_eq!(table["bo \"the boss\""][0].as_str(), Some(key.to_string().as_str()));
        assert!(line(None, &key).starts_with("\"PERSON\" = ["));
    }
}
