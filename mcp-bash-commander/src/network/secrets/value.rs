//! The secret itself: read when it is used, never shown.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Source;

/// A shorter one would be found by chance all over an answer.
const SHORTEST: usize = 8;
const LONGEST: usize = 4096;
/// The mode bits of anybody but the owner.
const OTHERS: u32 = 0o077;

/// Why a secret cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is no such variable.
    #[error("the environment variable `{0}` is not set for the server")]
    NotSet(String),
    /// There is no such file, or it cannot be read.
    #[error("`{path}` cannot be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read or change it.
    #[error(
        "`{path}` is open to others or not a file (mode {mode:04o}, uid {owner}); let this user or root own it, and run: chmod 600 '{path}'",
        path = path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// It cannot stand in a header.
    #[error("it is not one line of {SHORTEST} to {LONGEST} printable ASCII characters")]
    NoLine,
}

/// A secret.
pub struct SecretValue(String);

/// Nothing of it.
impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretValue(hidden)")
    }
}

impl SecretValue {
    /// The secret; for headers and for finding it in what must not hold it.
    pub(in crate::network) fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn read(source: &Source) -> Result<Self, Unusable> {
        let bytes = match source {
            Source::FromEnv(variable) => std::env::var_os(variable)
                .ok_or_else(|| Unusable::NotSet(variable.clone()))?
                .into_encoded_bytes(),
            Source::FromFile(path) => read_file(path)?,
        };
        Self::of_line(bytes).ok_or(Unusable::NoLine)
    }

    fn of_line(bytes: Vec<u8>) -> Option<Self> {
        let text = String::from_utf8(bytes).ok()?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_sound = (SHORTEST..=LONGEST).contains(&line.len())
            && line.bytes().all(|byte| matches!(byte, b' '..=b'~'))
            && line.trim() == line;
        is_sound.then(|| Self(line.to_owned()))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Unusable> {
    let failed = |source| Unusable::Io {
        path: path.to_owned(),
        source,
    };
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::CLOEXEC
        // What is no file must not hold up who looks.
        | rustix::fs::OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(failed)?;
    let uid = rustix::process::geteuid().as_raw();
    let is_owned = metadata.uid() == uid || metadata.uid() == 0;
    if !metadata.is_file() || !is_owned || metadata.mode() & OTHERS != 0 {
        return Err(Unusable::Open {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
        });
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(LONGEST + 3).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_one_line_and_never_shown() {
        for (text, is_sound) in [
            ("canary-5127", true),
            ("canary-5127\n", true),
            ("canary-5127\r\n", true),
            ("Token of 8", true),
            ("short", false),
            ("", false),
            ("canary-5127\n\n", false),
            ("canary\n5127", false),
            (" canary-5127", false),
            ("canary-5127\u{e9}", false),
            ("canary-5127\0", false),
        ] {
            let value = SecretValue::of_line(text.as_bytes().to_vec());
            assert_eq!(value.is_some(), is_sound, "{text:?}");
            assert!(!format!("{value:?}").contains("canary"));
        }
        assert!(SecretValue::of_line(vec![b'x'; LONGEST + 1]).is_none());
    }

    #[test]
    fn a_file_that_others_can_read_is_no_place_for_a_secret() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("token");
        std::fs::write(&path, "canary-5127\n")?;
        let source = Source::FromFile(path.clone());
        for (mode, is_sound) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            let read = SecretValue::read(&source);
            assert_eq!(read.is_ok(), is_sound, "{mode:o}");
            if let Err(error) = read {
                let text = error.to_string();
                assert!(
                    text.contains("chmod 600") && !text.contains("canary"),
                    "{text}"
                );
            }
        }
        for none in [folder.path().to_owned(), folder.path().join("none")] {
            assert!(SecretValue::read(&Source::FromFile(none)).is_err());
        }
        let unset = SecretValue::read(&Source::FromEnv("NO_SUCH_SECRET".to_owned()));
        assert!(matches!(unset, Err(Unusable::NotSet(_))));
        Ok(())
    }
}
