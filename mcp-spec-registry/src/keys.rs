//! The registry's keys: Ed25519 for audit heads and records, HMAC for codes and request states; files outside the database.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

const SIGNING_KEY: &str = "signing.key";
const HMAC_KEY: &str = "hmac.key";
const OLDER_PUBLIC_KEYS: &str = "older-public-keys";
const PUBLIC_KEY_PREFIX: &str = "ed25519:";
const KEY_BYTES: usize = 32;
const MAX_LIST_BYTES: u64 = 64 * 1024;

/// Keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It belongs to another user.
    #[error("`{path}` belongs to uid {owner}, not to uid {uid}; restore the owner's own keys")]
    ForeignOwner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// Group or others may read or enter it.
    #[error("`{path}` is open to others (mode {mode:04o}); run: chmod {wanted:o} '{path}'")]
    OpenToOthers {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// It is a link or something else.
    #[error("`{path}` is not a plain {wanted}")]
    WrongKind {
        /// The file or directory.
        path: PathBuf,
        /// `file` or `directory`.
        wanted: &'static str,
    },
    /// A key file of the wrong length.
    #[error("`{path}` holds {found} bytes, a key has {KEY_BYTES}; restore it from the backup")]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// A key that the database needs.
    #[error("the key `{0}` is missing; restore keys/ from the backup that the database is from")]
    Missing(PathBuf),
    /// A line that is no public key.
    #[error("`{0}` is not a public key; write ed25519: and 44 base64 characters")]
    NoPublicKey(String),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    NoRandomness(getrandom::Error),
    /// It cannot be read or written.
    #[error("failed to use the key file `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The secrets of a registry, and the public keys whose signatures it accepts.
pub struct Keys {
    signing: SigningKey,
    hmac: Zeroizing<[u8; KEY_BYTES]>,
    verifying: VerifyingKeys,
}

/// Public keys whose signatures are accepted: the one in use and those before it.
#[derive(Debug, Clone, Default)]
pub struct VerifyingKeys(Vec<VerifyingKey>);

impl Keys {
    /// The keys of a state directory, made where nothing is stored yet. Once a database is there, new keys could not vouch for what
    /// is in it, so missing ones are an error.
    ///
    /// # Errors
    /// As [`Keys::open`] and [`Keys::open_or_create`].
    pub fn of_state(state_dir: &Path) -> Result<Self, KeyError> {
        let dir = state_dir.join("keys");
        if state_dir.join(crate::store::sqlite::FILE_NAME).exists() {
            Self::open(&dir)
        } else {
            Self::open_or_create(&dir)
        }
    }

    /// Reads the keys in this directory.
    ///
    /// # Errors
    /// Keys that are missing, that others may read, that are not ours, or that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        for path in [dir.join(SIGNING_KEY), dir.join(HMAC_KEY)] {
            if !path
                .try_exists()
                .map_err(|source| io_error(&path, source))?
            {
                return Err(KeyError::Missing(path));
            }
        }
        Self::open_or_create(dir)
    }

    /// Reads the keys in this directory, and makes those that are missing (directory 0700, files 0400).
    ///
    /// # Errors
    /// Keys that others may read, that are not ours, or that cannot be read or made.
    pub fn open_or_create(dir: &Path) -> Result<Self, KeyError> {
        make_directory(dir)?;
        let signing = SigningKey::from_bytes(&*read_or_create(&dir.join(SIGNING_KEY))?);
        let hmac = read_or_create(&dir.join(HMAC_KEY))?;
        let mut verifying = VerifyingKeys(vec![signing.verifying_key()]);
        if let Some(older) = read_if_there(&dir.join(OLDER_PUBLIC_KEYS), MAX_LIST_BYTES)? {
            verifying
                .0
                .extend(VerifyingKeys::parse(&String::from_utf8_lossy(&older))?.0);
        }
        Ok(Self {
            signing,
            hmac,
            verifying,
        })
    }

    /// Signature over the bytes, base64.
    pub fn sign(&self, bytes: &[u8]) -> String {
        BASE64.encode(self.signing.sign(bytes).to_bytes())
    }

    /// Whether a key of this registry, the one in use or an older one, made this signature over these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &str) -> bool {
        self.verifying.verify(bytes, signature)
    }

    /// The public keys whose signatures are accepted, the one in use first.
    pub fn verifying(&self) -> &VerifyingKeys {
        &self.verifying
    }

    /// 32 bytes for codes and sealed request states.
    pub fn hmac_key(&self) -> &[u8] {
        &*self.hmac
    }

    /// The public key in use, `ed25519:<base64>`.
    pub fn public_key(&self) -> String {
        public_key_text(&self.signing.verifying_key())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.public_key()).finish()
    }
}

impl VerifyingKeys {
    /// One `ed25519:<base64>` on each line; blank lines and lines with `#` first are skipped.
    ///
    /// # Errors
    /// A line that is no public key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(parse_public_key)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether one of the keys made this signature over these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &str) -> bool {
        let Ok(signature) = BASE64.decode(signature) else {
            return false;
        };
        let Ok(signature) = Signature::from_slice(&signature) else {
            return false;
        };
        self.0
            .iter()
            .any(|key| key.verify_strict(bytes, &signature).is_ok())
    }
}

/// Random bytes of the operating system.
///
/// # Errors
/// When it has none.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(KeyError::NoRandomness)?;
    Ok(bytes)
}

fn public_key_text(key: &VerifyingKey) -> String {
    format!("{PUBLIC_KEY_PREFIX}{}", BASE64.encode(key.as_bytes()))
}

fn parse_public_key(text: &str) -> Result<VerifyingKey, KeyError> {
    let wrong = || KeyError::NoPublicKey(text.chars().take(80).collect());
    let base64 = text.strip_prefix(PUBLIC_KEY_PREFIX).ok_or_else(wrong)?;
    let bytes: [u8; KEY_BYTES] = BASE64
        .decode(base64)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(wrong)?;
    VerifyingKey::from_bytes(&bytes).map_err(|_| wrong())
}

fn make_directory(dir: &Path) -> Result<(), KeyError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io_error(dir, error));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir).map_err(|source| io_error(dir, source))?;
    if !metadata.is_dir() {
        return Err(KeyError::WrongKind {
            path: dir.to_owned(),
            wanted: "directory",
        });
    }
    check_private(dir, &metadata, 0o700)
}

fn read_or_create(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    create(path)?;
    read_key(path)?.ok_or_else(|| io_error(path, io::ErrorKind::NotFound.into()))
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<[u8; KEY_BYTES]>>, KeyError> {
    let Some(bytes) = read_if_there(path, MAX_LIST_BYTES)? else {
        return Ok(None);
    };
    let found = bytes.len();
    let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice());
    key.map(|key| Some(Zeroizing::new(key)))
        .map_err(|_| KeyError::WrongLength {
            path: path.to_owned(),
            found,
        })
}

fn read_if_there(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(no_follow)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, error)),
    };
    let metadata = file.metadata().map_err(|source| io_error(path, source))?;
    if !metadata.is_file() {
        return Err(KeyError::WrongKind {
            path: path.to_owned(),
            wanted: "file",
        });
    }
    check_private(path, &metadata, 0o400)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| io_error(path, source))?;
    Ok(Some(bytes))
}

/// Makes a key whole or not at all: a crash leaves at most a file under another name, and of two that make it one wins.
fn create(path: &Path) -> Result<(), KeyError> {
    let key = Zeroizing::new(random::<KEY_BYTES>()?);
    let unfinished = path.with_extension(format!("{}.new", shared::digest::hex(&random::<8>()?)));
    let written =
        write_new(&unfinished, &*key).and_then(|()| match fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let removed = fs::remove_file(&unfinished);
    written
        .and(removed)
        .and_then(|()| sync_directory(path))
        .map_err(|source| io_error(path, source))
}

fn write_new(path: &Path, key: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)?;
    file.write_all(key)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn check_private(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), KeyError> {
    let uid = rustix::process::geteuid().as_raw();
    if metadata.uid() != uid {
        return Err(KeyError::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            uid,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::OpenToOthers {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> KeyError {
    KeyError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_for_their_owner_alone() -> anyhow::Result<()> {
        let state = tempfile::tempdir()?;
        let dir = state.path().join("keys");
        let first = Keys::open_or_create(&dir)?;
        let again = Keys::open_or_create(&dir)?;
        assert_eq!(first.public_key(), again.public_key());
        assert_eq!(first.hmac_key(), again.hmac_key());
        assert_eq!(dir.metadata()?.mode() & 0o7777, 0o700);
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            assert_eq!(entry.metadata()?.mode() & 0o7777, 0o400);
            names.push(entry.file_name());
        }
        names.sort();
        assert_eq!(names, ["hmac.key", "signing.key"]);
        Ok(())
    }

    #[test]
    fn a_signature_holds_for_its_bytes_and_its_registry_only() -> anyhow::Result<()> {
        let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let ours = Keys::open_or_create(&one.path().join("keys"))?;
        let theirs = Keys::open_or_create(&two.path().join("keys"))?;
        let signature = ours.sign(b"plan 1");
        assert!(ours.verify(b"plan 1", &signature));
        assert!(!ours.verify(b"plan 2", &signature));
        assert!(!theirs.verify(b"plan 1", &signature));
        assert!(!ours.verify(b"plan 1", "no base64"));
        assert!(!ours.verify(b"plan 1", ""));
        Ok(())
    }

    #[test]
    fn signatures_of_an_older_key_on_the_list_are_still_accepted() -> anyhow::Result<()> {
        let state = tempfile::tempdir()?;
        let dir = state.path().join("keys");
        let old = Keys::open_or_create(&dir)?;
        let signature = old.sign(b"head");
        fs::remove_file(dir.join(SIGNING_KEY))?;
        assert!(!Keys::open_or_create(&dir)?.verify(b"head", &signature));
        let list = dir.join(OLDER_PUBLIC_KEYS);
        fs::write(&list, format!("# until spring\n{}\n", old.public_key()))?;
        fs::set_permissions(&list, fs::Permissions::from_mode(0o400))?;
        let rotated = Keys::open_or_create(&dir)?;
        assert!(rotated.verify(b"head", &signature));
        assert_ne!(rotated.public_key(), old.public_key());
        Ok(())
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_mends_it() -> anyhow::Result<()>
    {
        let state = tempfile::tempdir()?;
        let dir = state.path().join("keys");
        Keys::open_or_create(&dir)?;
        let file = dir.join(SIGNING_KEY);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440))?;
        let refused = Keys::open_or_create(&dir)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            refused.contains(&format!("chmod 400 '{}'", file.display())),
            "{refused}"
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400))?;
        Keys::open_or_create(&dir)?;
        Ok(())
    }

    #[test]
    fn missing_keys_are_not_made_anew_beside_a_database() -> anyhow::Result<()> {
        let state = tempfile::tempdir()?;
        let keys = Keys::of_state(state.path())?;
        fs::write(state.path().join(crate::store::sqlite::FILE_NAME), "")?;
        assert_eq!(
            Keys::of_state(state.path())?.public_key(),
            keys.public_key()
        );
        for name in [SIGNING_KEY, HMAC_KEY] {
            let (path, aside) = (
                state.path().join("keys").join(name),
                state.path().join("aside"),
            );
            fs::rename(&path, &aside)?;
            let refused = Keys::of_state(state.path());
            assert!(matches!(refused, Err(KeyError::Missing(missing)) if missing == path));
            assert!(!path.exists());
            fs::rename(&aside, &path)?;
        }
        Ok(())
    }

    #[test]
    fn a_linked_or_cut_key_is_refused() -> anyhow::Result<()> {
        let state = tempfile::tempdir()?;
        let dir = state.path().join("keys");
        Keys::open_or_create(&dir)?;
        let file = dir.join(HMAC_KEY);
        fs::rename(&file, state.path().join("elsewhere"))?;
        std::os::unix::fs::symlink(state.path().join("elsewhere"), &file)?;
        assert!(matches!(
            Keys::open_or_create(&dir),
            Err(KeyError::Io { .. })
        ));
        fs::remove_file(&file)?;
        fs::write(&file, b"short")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400))?;
        assert!(matches!(
            Keys::open_or_create(&dir),
            Err(KeyError::WrongLength { found: 5, .. })
        ));
        Ok(())
    }

    #[test]
    fn nothing_that_prints_keys_shows_their_secrets() -> anyhow::Result<()> {
        let state = tempfile::tempdir()?;
        let keys = Keys::open_or_create(&state.path().join("keys"))?;
        assert_eq!(
            format!("{keys:?}"),
            format!("Keys({:?})", keys.public_key())
        );
        Ok(())
    }
}
