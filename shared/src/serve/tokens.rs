//! The file that says which bearer tokens are whose. It holds hashes only.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    digest::hex,
    principal::{Kind, Principal, Via},
};

/// Larger files are no token files.
const MAX_BYTES: u64 = 1024 * 1024;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose token it is.
    pub principal: String,
    /// What he may do.
    pub kind: Kind,
    /// SHA-256 of the token, 64 hex digits.
    pub sha256: String,
}

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<Token>,
}

/// A token file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("failed to read the tokens in `{path}`: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could add themselves.
    #[error("`{path}` can be changed by others (mode {mode:04o}); run: chmod go-w '{path}'")]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user could add himself.
    #[error("`{path}` belongs to uid {owner}, neither to you nor to root")]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It is not in the form.
    #[error("`{path}` is no token file: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        reason: String,
    },
}

/// The tokens of a server.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    known: Vec<([u8; 32], Principal)>,
}

impl Tokens {
    /// Reads a token file.
    ///
    /// # Errors
    /// A file that others may change, or that is not in the form.
    pub fn load(path: &Path) -> Result<Self, TokensError> {
        let unreadable = |source| TokensError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(TokensError::Writable {
                path: path.to_owned(),
                mode,
            });
        }
        if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(TokensError::ForeignOwner {
                path: path.to_owned(),
                owner: metadata.uid(),
            });
        }
        let mut text = String::new();
        Read::by_ref(&mut file)
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Self::parse(&text).map_err(|reason| TokensError::Form {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: TokenFile = toml::from_str(text).map_err(|error| error.to_string())?;
        if file.token.is_empty() {
            return Err("it names no [[token]]".to_owned());
        }
        let known = file.token.iter().map(|token| {
            let hash = unhex(&token.sha256)
                .ok_or_else(|| format!("sha256 of `{}` is not 64 hex digits", token.principal))?;
            if token.principal.is_empty()
                || token.principal.len() > 128
                || token.principal.chars().any(char::is_control)
            {
                return Err(
                    "a principal has 1 to 128 characters, none of them control characters"
                        .to_owned(),
                );
            }
            Ok((
                hash,
                Principal::new(token.principal.as_str(), token.kind, Via::Token),
            ))
        });
        Ok(Self {
            known: known.collect::<Result<_, _>>()?,
        })
    }

    /// Whose token this is. Every known token is compared, in constant time.
    pub fn principal(&self, token: &str) -> Option<&Principal> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (known, principal) in &self.known {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(principal);
            }
        }
        found
    }
}

/// The text of a token file for these tokens.
///
/// # Errors
/// What TOML cannot hold.
pub fn to_file(tokens: Vec<Token>) -> Result<String, toml::ser::Error> {
    toml::to_string(&TokenFile { token: tokens })
}

/// The SHA-256 that stands for a token in files and stores, 64 hex digits.
pub fn sha256_of(token: &str) -> String {
    hex(&Sha256::digest(token))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn file_of(token: &str) -> anyhow::Result<String> {
        let entry = Token {
            principal: "claude".to_owned(),
            kind: Kind::Agent,
            sha256: sha256_of(token),
        };
        Ok(to_file(vec![entry])?)
    }

    #[test]
    fn a_token_names_its_principal_and_no_other_does() -> anyhow::Result<()> {
        let text = file_of("right")?;
        let tokens = Tokens::parse(&text).map_err(anyhow::Error::msg)?;
        let expected = Principal::new("claude", Kind::Agent, Via::Token);
        assert_eq!(tokens.principal("right"), Some(&expected));
        assert_eq!(tokens.principal("wrong"), None);
        assert_eq!(tokens.principal(""), None);
        assert!(!text.contains("right"), "only the hash is in the file");
        Ok(())
    }

    #[test]
    fn a_file_that_others_may_change_is_refused() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("tokens.toml");
        fs::write(&path, file_of("right")?)?;
        for (mode, refused) in [(0o600, false), (0o644, false), (0o620, true), (0o602, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            assert_eq!(
                matches!(Tokens::load(&path), Err(TokensError::Writable { .. })),
                refused,
                "{mode:o}"
            );
        }
        Ok(())
    }

    #[test]
    fn unknown_keys_and_half_a_hash_are_errors() {
        let hash = sha256_of("x");
        for wrong in [
            format!("[[token]]\nprincipal='a'\nkind='agent'\nsha256='{hash}'\nadmin=true\n"),
            format!("[[tokens]]\nprincipal='a'\nkind='agent'\nsha256='{hash}'\n"),
            format!("[[token]]\nprincipal='a'\nkind='root'\nsha256='{hash}'\n"),
            "[[token]]\nprincipal='a'\nkind='agent'\nsha256='abcd'\n".to_owned(),
            format!("[[token]]\nprincipal=''\nkind='agent'\nsha256='{hash}'\n"),
            String::new(),
        ] {
            assert!(Tokens::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
