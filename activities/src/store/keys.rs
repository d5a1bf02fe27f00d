//! Address keys: one file a tenant. A key is made once and never rotated, since every address depends on it.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use mandate_domain::AddressKey;

use super::StoreError;

/// Where address keys come from.
#[derive(Debug, Clone)]
pub enum AddressKeySource {
    /// One file a tenant, `<folder>/<tenant>.key`: 64 hexadecimal digits, readable by its owner alone. Made when a
    /// tenant first appears.
    Folder(PathBuf),
    /// The same key for every tenant. For tests.
    Fixed(AddressKey),
}

impl AddressKeySource {
    /// The key of a tenant. It is made only when `new_tenant`: a known tenant whose key is lost must not get another.
    pub(super) fn load(&self, tenant: &str, whether: IfMissing) -> Result<AddressKey, StoreError> {
        match self {
            Self::Fixed(key) => Ok(key.clone()),
            Self::Folder(folder) => load_file(folder, tenant, whether),
        }
    }
}

/// What to do about a key that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// Make it: the tenant is new to the store.
    Make,
    /// Refuse: the store has content under a key that is gone.
    Refuse,
}

fn load_file(folder: &Path, tenant: &str, if_missing: IfMissing) -> Result<AddressKey, StoreError> {
    if tenant.is_empty() || !tenant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(StoreError::BadTenant { tenant: tenant.to_owned() });
    }
    let path = folder.join(format!("{tenant}.key"));
    let unusable = |source| StoreError::AddressKey { path: path.clone(), source };
    if if_missing == IfMissing::Make && !path.try_exists().map_err(unusable)? {
        make(folder, &path).map_err(unusable)?;
    }
    let file = fs::File::open(&path).map_err(unusable)?;
    let mode = file.metadata().map_err(unusable)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::AddressKeyExposed { path, mode });
    }
    let text = io::read_to_string(file).map_err(unusable)?;
    parse(text.trim_end()).map(AddressKey::new).ok_or(StoreError::AddressKeyMalformed { path })
}

/// Makes the key under a name of its own and links it into place: of two processes that race, the first one's key
/// stands and both read that one. A crash leaves a stray temporary file and never half a key.
fn make(folder: &Path, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let key: [u8; 32] = random()?;
    let temporary = folder.join(format!(".{}.tmp", hex(&random::<8>()?)));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{}", hex(&key))?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    fs::File::open(folder)?.sync_all()?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
}

fn parse(text: &str) -> Option<[u8; 32]> {
    if !text.is_ascii() || text.len() != 64 {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        (0..32).map(|i| text.get(2 * i..2 * i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok())).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let home = tempfile::tempdir().unwrap();
        let source = AddressKeySource::Folder(home.path().join("keys"));
        let address = |whether| source.load("acme", whether).map(|key| key.address(b"x"));
        assert!(matches!(address(IfMissing::Refuse), Err(StoreError::AddressKey { .. })));
        let made = address(IfMissing::Make).unwrap();
        assert_eq!(made, address(IfMissing::Refuse).unwrap());
        assert_ne!(made, source.load("other", IfMissing::Make).unwrap().address(b"x"));
        let path = home.path().join("keys/acme.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = address(IfMissing::Make).unwrap_err().to_string();
            assert!(message.contains("acme.key"), "{message}");
        }
    }

    #[test]
    fn processes_that_race_agree_on_one_key() {
        let home = tempfile::tempdir().unwrap();
        let source = AddressKeySource::Folder(home.path().to_owned());
        let addresses: Vec<_> = std::thread::scope(|scope| {
            let load = || source.load("acme", IfMissing::Make).unwrap().address(b"x");
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(addresses.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_no_key_or_no_tenant_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let source = AddressKeySource::Folder(home.path().to_owned());
        for text in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            let path = home.path().join("acme.key");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let loaded = source.load("acme", IfMissing::Make);
            assert!(matches!(loaded, Err(StoreError::AddressKeyMalformed { .. })), "{text}");
        }
        for tenant in ["", "../acme", "a/b", "Acme"] {
            assert!(matches!(source.load(tenant, IfMissing::Make), Err(StoreError::BadTenant { .. })), "{tenant}");
        }
    }
}
