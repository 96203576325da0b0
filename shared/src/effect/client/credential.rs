//! The credential of one effect server, as `token add --kind service` writes it.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use zeroize::Zeroizing;

/// More than any credential file has.
const LARGEST_FILE_BYTES: u64 = 16 * 1024;

/// Who an effect server is to the registry, and the key it knows the registry by.
#[derive(Clone)]
pub struct ServiceCredential {
    pub(super) principal: String,
    pub(super) token: Zeroizing<String>,
    pub(super) registry_key: VerifyingKey,
}

/// A credential file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It cannot be read.
    #[error("failed to read the service credential `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else owns it.
    #[error(
        "`{path}` belongs to uid {owner}, not to uid {uid}; a service reads only a credential of its own"
    )]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// Group or others may read or change it.
    #[error(
        "`{path}` is open to others (mode {mode:04o}); run: chmod 600 '{path}', and make a new token if others use this machine"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not what `token add` writes.
    #[error(
        "`{path}` is no service credential: {reason}; make one with: mcp-spec-registry token add --kind service --name NAME --server SERVER --out FILE"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without the file's content.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    principal: String,
    kind: String,
    #[serde(rename = "server")]
    _server: String,
    token: String,
    registry_key: String,
}

impl ServiceCredential {
    /// Reads the file, which must be its owner's alone.
    ///
    /// # Errors
    /// A file of someone else, open to others, or that is no service credential.
    pub fn read(path: &Path) -> Result<Self, CredentialError> {
        let failed = |source| CredentialError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let uid = rustix::process::geteuid().as_raw();
        if metadata.uid() != uid {
            return Err(CredentialError::ForeignOwner {
                path: path.to_owned(),
                owner: metadata.uid(),
                uid,
            });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(CredentialError::OpenToOthers {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(LARGEST_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(failed)?;
        Self::parse(&text).map_err(|reason| CredentialError::Malformed {
            path: path.to_owned(),
            reason,
        })
    }

    /// The name of the service.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The reader's own message would quote the line, and with it the token.
        let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if written.kind != "service" {
            return Err("its kind is not `service`".to_owned());
        }
        let is_header_text = |byte: u8| byte.is_ascii_graphic();
        if written.token.is_empty() || !written.token.bytes().all(is_header_text) {
            return Err("its token is empty or has unusual characters".to_owned());
        }
        let registry_key = written
            .registry_key
            .strip_prefix("ed25519:")
            .and_then(|key| STANDARD.decode(key).ok())
            .and_then(|key| VerifyingKey::from_bytes(&key.try_into().ok()?).ok())
            .ok_or("its registry_key is not ed25519: and 32 bytes in base64")?;
        Ok(Self {
            principal: written.principal,
            token: Zeroizing::new(written.token),
            registry_key,
        })
    }
}

impl fmt::Debug for ServiceCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceCredential")
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    const KEY: [u8; 32] = [7; 32];

    fn written(kind: &str) -> String {
        let key = ed25519_dalek::SigningKey::from_bytes(&KEY).verifying_key();
        format!(
            "principal = \"shell\"\nkind = \"{kind}\"\nserver = \"mcp-bash-commander\"\ntoken = \"secret-token\"\nregistry_key = \"ed25519:{}\"\n",
            STANDARD.encode(key.as_bytes())
        )
    }

    #[test]
    fn a_credential_is_read_only_from_a_file_that_is_its_owners_alone() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("token.toml");
        fs::write(&path, written("service"))?;
        for mode in [0o644, 0o640, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            let refused = ServiceCredential::read(&path);
            assert!(
                matches!(refused, Err(CredentialError::OpenToOthers { .. })),
                "{mode:o}"
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        assert_eq!(ServiceCredential::read(&path)?.principal(), "shell");
        Ok(())
    }

    #[test]
    fn no_message_about_a_credential_contains_its_token() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("token.toml");
        for text in [
            written("agent"),
            written("service").replace("registry_key = \"", "registry_key = \"x"),
            written("service").replace("token = \"secret-token\"", "token = \"secret-token"),
            written("service").replace("token =", "tokens ="),
        ] {
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            let message = match ServiceCredential::read(&path) {
                Ok(credential) => format!("{credential:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(message.contains("token add"), "{message}");
            assert!(!message.contains("secret-token"), "{message}");
        }
        Ok(())
    }
}
