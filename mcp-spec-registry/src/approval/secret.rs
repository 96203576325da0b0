//! The secret that a human types for each decision: kept only as an argon2id hash.

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::SaltString,
};

/// Fewest characters of a secret.
pub const FEWEST_CHARACTERS: usize = 8;
/// Most bytes of a secret; more is somebody measuring how long hashing takes.
pub const MOST_BYTES: usize = 1024;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A secret that cannot be enrolled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too easily guessed.
    #[error(
        "the secret has {0} characters; use at least {FEWEST_CHARACTERS}, such as four unrelated words"
    )]
    TooShort(usize),
    /// Longer than anybody types.
    #[error("the secret has {0} bytes; use at most {MOST_BYTES}")]
    TooLong(usize),
    /// One character over and over.
    #[error("the secret is one character repeated; use for example four unrelated words")]
    OneCharacter,
    /// The operating system gave no random bytes, or hashing failed.
    #[error("the secret could not be hashed: {0}")]
    Hash(String),
}

/// Hashes a new secret, in PHC string form (`$argon2id$v=19$m=19456,t=2,p=1$…`). Takes tens of milliseconds and 19 MiB.
///
/// # Errors
/// A secret too short, too long, or of one character only.
pub fn hash(secret: &str) -> Result<String, SecretError> {
    check(secret)?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| SecretError::Hash(error.to_string()))?;
    let failed = |error: argon2::password_hash::Error| SecretError::Hash(error.to_string());
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    let hash = hasher().and_then(|hasher| {
        hasher
            .hash_password(secret.as_bytes(), &salt)
            .map(|hash| hash.to_string())
    });
    hash.map_err(failed)
}

/// Whether the secret is the one that was hashed. False also for a hash that cannot be read: nobody gets in by it.
pub fn verify(secret: &str, hash: &str) -> bool {
    if secret.len() > MOST_BYTES {
        return false;
    }
    let (Ok(hash), Ok(hasher)) = (PasswordHash::new(hash), hasher()) else {
        return false;
    };
    hasher.verify_password(secret.as_bytes(), &hash).is_ok()
}

/// Spends the time of a verification, so that an unknown name takes as long to refuse as a wrong secret.
pub fn verify_nobody(secret: &str) {
    let salt = SaltString::encode_b64(b"nobody's own salt");
    if let (Ok(salt), Ok(hasher)) = (salt, hasher()) {
        let bytes = secret.as_bytes();
        // Only the time counts.
        let _ = hasher.hash_password(&bytes[..bytes.len().min(MOST_BYTES)], &salt);
    }
}

/// Whether a secret is fit to be enrolled.
///
/// # Errors
/// Too short, too long, or of one character only.
pub fn check(secret: &str) -> Result<(), SecretError> {
    let characters = secret.chars().count();
    if characters < FEWEST_CHARACTERS {
        return Err(SecretError::TooShort(characters));
    }
    if secret.len() > MOST_BYTES {
        return Err(SecretError::TooLong(secret.len()));
    }
    let first = secret.chars().next();
    if secret.chars().all(|character| Some(character) == first) {
        return Err(SecretError::OneCharacter);
    }
    Ok(())
}

fn hasher() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_is_accepted() -> anyhow::Result<()> {
        let stored = hash("correct horse battery staple")?;
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        assert!(verify("correct horse battery staple", &stored));
        for wrong in [
            "",
            "correct horse battery stapl",
            "Correct horse battery staple",
        ] {
            assert!(!verify(wrong, &stored), "{wrong}");
        }
        assert!(!verify("correct horse battery staple", "not a hash"));
        Ok(())
    }

    #[test]
    fn two_people_with_one_secret_have_two_hashes() -> anyhow::Result<()> {
        assert_ne!(hash("the same secret")?, hash("the same secret")?);
        Ok(())
    }

    #[test]
    fn a_secret_that_is_too_easy_is_refused_with_what_would_do() {
        assert_eq!(hash("short"), Err(SecretError::TooShort(5)));
        assert_eq!(hash("aaaaaaaaaaaa"), Err(SecretError::OneCharacter));
        assert_eq!(hash(&"ab".repeat(600)), Err(SecretError::TooLong(1200)));
        let message = SecretError::TooShort(5).to_string();
        assert!(message.contains("at least 8"), "{message}");
    }
}
