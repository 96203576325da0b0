//! The sources of a server, from its file or its command line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::embedder::EmbedderSettings;
use crate::source::{ClientCertificate, Engine, Limits, Mode, Password, Settings, Special, Tls};
use crate::table::Budget;

/// Most rows that a reply may hold.
pub const MOST_ROWS: usize = 5_000;
/// Most bytes of rows that a reply may hold.
pub const MOST_BYTES: usize = 1 << 20;
/// Longest time that a statement may be allowed.
pub const LONGEST_TIMEOUT: Duration = Duration::from_mins(5);
/// Most calls that a source may carry out at once.
const MOST_CONCURRENT: usize = 64;
/// Most sources.
const MOST_SOURCES: usize = 64;
/// Longest file, in bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// Sources that cannot be used as they are written.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// The file cannot be read.
    #[error("the sources in `{path}` cannot be read: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is no TOML, or has a key that there is not.
    #[error("`{path}` is wrong: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// Nothing to serve.
    #[error("there is no source; give --sources FILE with a [[source]], or --url URL")]
    None,
    /// A name that cannot be used.
    #[error("`{0}` is no id of a source: 1 to 40 of a-z, 0-9, `_` and `-`, each only once")]
    Id(String),
    /// A value that cannot be used.
    #[error("source `{id}`: {reason}")]
    Value {
        /// Source.
        id: String,
        /// Which, why, and what would be right.
        reason: String,
    },
}

/// What a server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Each database.
    pub sources: Vec<Settings>,
    /// What makes vectors of texts, if anything does.
    pub embedder: Option<EmbedderSettings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    embedder: Option<EmbedderSettings>,
    #[serde(default)]
    source: Vec<Written>,
}

/// A source as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    url: String,
    engine: Option<Engine>,
    #[serde(default)]
    mode: Mode,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    tls: Option<TlsWord>,
    ca_file: Option<PathBuf>,
    client_cert_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
    max_rows: Option<usize>,
    max_bytes: Option<usize>,
    timeout_ms: Option<u64>,
    max_timeout_ms: Option<u64>,
    concurrent: Option<usize>,
    allow_superuser: Option<bool>,
    allow_functions: Option<Vec<String>>,
    search_path: Option<String>,
    key_prefix: Option<String>,
    streams: Option<Vec<String>>,
    read_preference: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TlsWord {
    Verify,
    Disable,
}

/// The sources of a file; relative paths in it start at its folder.
///
/// # Errors
/// What in it cannot be used, by source and key.
pub fn of_file(path: &Path) -> Result<Sources, SourcesError> {
    let unreadable = |reason: String| SourcesError::File {
        path: path.to_owned(),
        reason,
    };
    let length = std::fs::metadata(path)
        .map_err(|error| unreadable(error.to_string()))?
        .len();
    if length > LONGEST_FILE {
        return Err(unreadable(format!("it has {length} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let file: File = toml::from_str(&text).map_err(|error| SourcesError::Syntax {
        path: path.to_owned(),
        reason: told_without_values(&error, &text),
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    if file.source.is_empty() {
        return Err(SourcesError::None);
    }
    let mut ids = BTreeSet::new();
    let mut sources = Vec::with_capacity(file.source.len());
    for written in file.source {
        if !is_id(&written.id) || !ids.insert(written.id.clone()) || ids.len() > MOST_SOURCES {
            return Err(SourcesError::Id(written.id));
        }
        sources.push(settings(written, folder)?);
    }
    let embedder = file.embedder.map(|embedder| EmbedderSettings {
        key_file: embedder.key_file.map(|file| folder.join(file)),
        ..embedder
    });
    Ok(Sources { sources, embedder })
}

/// The one source of a command line, named `main`.
///
/// # Errors
/// A URL of no engine.
pub fn of_url(url: &str, password: Option<Password>, mode: Mode) -> Result<Sources, SourcesError> {
    let id = "main".to_owned();
    let engine = engine_of(url).ok_or_else(|| unknown_scheme(&id))?;
    let settings = Settings {
        id,
        engine,
        url: url.to_owned(),
        password,
        mode,
        tls: Tls::default(),
        limits: Limits::default(),
        special: Special::default(),
    };
    Ok(Sources {
        sources: vec![settings],
        embedder: None,
    })
}

/// The place and the cause, but not the line, which may have a secret in it.
fn told_without_values(error: &toml::de::Error, text: &str) -> String {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].lines().count().max(1));
    match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

fn is_id(id: &str) -> bool {
    let is_part =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=40).contains(&id.len()) && id.bytes().all(is_part)
}

fn engine_of(url: &str) -> Option<Engine> {
    Some(match url.split_once("://")?.0 {
        "postgres" | "postgresql" => Engine::Postgres,
        "redis" | "rediss" | "valkey" | "valkeys" => Engine::Redis,
        "mongodb" | "mongodb+srv" => Engine::Mongodb,
        "bolt" | "bolt+s" | "neo4j" | "neo4j+s" => Engine::Neo4j,
        _ => return None,
    })
}

fn unknown_scheme(id: &str) -> SourcesError {
    wrong(
        id,
        "its url begins with no scheme of postgres://, redis://, mongodb:// or neo4j://",
    )
}

fn wrong(id: &str, reason: impl Into<String>) -> SourcesError {
    SourcesError::Value {
        id: id.to_owned(),
        reason: reason.into(),
    }
}

fn settings(written: Written, folder: &Path) -> Result<Settings, SourcesError> {
    let id = written.id.clone();
    let engine = engine_of(&written.url).ok_or_else(|| unknown_scheme(&id))?;
    if let Some(named) = written.engine.filter(|named| *named != engine) {
        return Err(wrong(
            &id,
            format!("engine is {named}, and the url is one of {engine}"),
        ));
    }
    refuse_foreign(&written, engine)?;
    let password = match (&written.password_file, &written.password_env) {
        (Some(_), Some(_)) => {
            return Err(wrong(
                &id,
                "password_file and password_env are both given; one is enough",
            ));
        }
        (Some(file), None) => Some(Password::File(folder.join(file))),
        (None, Some(name)) => Some(Password::Variable(name.clone())),
        (None, None) => None,
    };
    Ok(Settings {
        tls: tls(&written, folder)?,
        limits: limits(&written)?,
        special: Special {
            allow_superuser: written.allow_superuser.unwrap_or_default(),
            allow_functions: written.allow_functions.unwrap_or_default(),
            search_path: written.search_path,
            key_prefix: written.key_prefix,
            streams: written.streams.unwrap_or_default(),
            read_preference: written.read_preference,
        },
        id,
        engine,
        url: written.url,
        password,
        mode: written.mode,
    })
}

/// A key that the engine knows nothing of is a mistake, not to be passed over.
fn refuse_foreign(written: &Written, engine: Engine) -> Result<(), SourcesError> {
    use Engine::{Mongodb, Neo4j, Postgres, Redis};
    let keys: [(&str, bool, &[Engine]); 6] = [
        (
            "allow_superuser",
            written.allow_superuser.is_some(),
            &[Postgres],
        ),
        (
            "allow_functions",
            written.allow_functions.is_some(),
            &[Postgres, Neo4j],
        ),
        ("search_path", written.search_path.is_some(), &[Postgres]),
        ("key_prefix", written.key_prefix.is_some(), &[Redis]),
        ("streams", written.streams.is_some(), &[Redis]),
        (
            "read_preference",
            written.read_preference.is_some(),
            &[Mongodb],
        ),
    ];
    for (key, is_given, engines) in keys {
        if is_given && !engines.contains(&engine) {
            let engines: Vec<&str> = engines.iter().map(|engine| engine.name()).collect();
            return Err(wrong(
                &written.id,
                format!(
                    "{key} is for {}, and this is {engine}",
                    engines.join(" and ")
                ),
            ));
        }
    }
    Ok(())
}

fn tls(written: &Written, folder: &Path) -> Result<Tls, SourcesError> {
    let client = match (&written.client_cert_file, &written.client_key_file) {
        (Some(cert), Some(key)) => Some(ClientCertificate {
            cert_file: folder.join(cert),
            key_file: folder.join(key),
        }),
        (None, None) => None,
        _ => {
            return Err(wrong(
                &written.id,
                "client_cert_file and client_key_file belong together",
            ));
        }
    };
    let ca_file = written.ca_file.as_ref().map(|file| folder.join(file));
    let has_files = ca_file.is_some() || client.is_some();
    match written.tls {
        Some(TlsWord::Disable) if has_files => Err(wrong(
            &written.id,
            "tls = \"disable\" stands beside TLS files; take one out",
        )),
        Some(TlsWord::Disable) => Ok(Tls::Disabled),
        None if !has_files => Ok(Tls::OffLoopback),
        Some(TlsWord::Verify) | None => Ok(Tls::Verified { ca_file, client }),
    }
}

fn limits(written: &Written) -> Result<Limits, SourcesError> {
    let default = Limits::default();
    let within = |key: &str, given: Option<usize>, default: usize, most: usize| {
        let value = given.unwrap_or(default);
        if (1..=most).contains(&value) {
            Ok(value)
        } else {
            Err(wrong(
                &written.id,
                format!("{key} is {value}; give 1 to {most}"),
            ))
        }
    };
    let time = |key: &str, given: Option<u64>, default: Duration| {
        let value = given.map_or(default, Duration::from_millis);
        if !value.is_zero() && value <= LONGEST_TIMEOUT {
            Ok(value)
        } else {
            let most = LONGEST_TIMEOUT.as_millis();
            Err(wrong(
                &written.id,
                format!("{key} is {}; give 1 to {most}", value.as_millis()),
            ))
        }
    };
    let longest_timeout = time(
        "max_timeout_ms",
        written.max_timeout_ms,
        default.longest_timeout,
    )?;
    let timeout = time(
        "timeout_ms",
        written.timeout_ms,
        default.timeout.min(longest_timeout),
    )?;
    if timeout > longest_timeout {
        return Err(wrong(&written.id, "timeout_ms is over max_timeout_ms"));
    }
    Ok(Limits {
        reply: Budget {
            rows: within("max_rows", written.max_rows, default.reply.rows, MOST_ROWS)?,
            bytes: within(
                "max_bytes",
                written.max_bytes,
                default.reply.bytes,
                MOST_BYTES,
            )?,
        },
        timeout,
        longest_timeout,
        concurrent: within(
            "concurrent",
            written.concurrent,
            default.concurrent,
            MOST_CONCURRENT,
        )?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Result<Sources, SourcesError>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("sources.toml");
        std::fs::write(&path, text)?;
        Ok(of_file(&path))
    }

    #[test]
    fn a_source_is_read_with_its_defaults() -> anyhow::Result<()> {
        let sources = read(
            "[[source]]\nid = \"shop\"\nurl = \"postgres://app@localhost/shop\"\npassword_env = \"SHOP\"\n",
        )??;
        let shop = &sources.sources[0];
        assert_eq!(shop.engine, Engine::Postgres);
        assert_eq!((shop.mode, &shop.tls), (Mode::Read, &Tls::OffLoopback));
        assert_eq!(shop.limits, Limits::default());
        assert_eq!(shop.password, Some(Password::Variable("SHOP".to_owned())));
        Ok(())
    }

    #[test]
    fn every_mistake_is_refused_and_named() -> anyhow::Result<()> {
        let source =
            |rest: &str| format!("[[source]]\nid = \"a\"\nurl = \"redis://localhost\"\n{rest}");
        for (text, named) in [
            (String::new(), "no source"),
            (source("read_only = true"), "read_only"),
            (source("mode = \"readonly\""), "readonly"),
            (source("engine = \"postgres\""), "engine"),
            (source("search_path = \"x\""), "search_path is for postgres"),
            (source("max_rows = 0"), "max_rows"),
            (source("timeout_ms = 900000"), "timeout_ms"),
            (source("tls = \"disable\"\nca_file = \"x\""), "tls"),
            (source("client_key_file = \"x\""), "client_cert_file"),
            (
                source("password_env = \"X\"\npassword_file = \"y\""),
                "password_env",
            ),
            (format!("{}{}", source(""), source("")), "`a`"),
            (source("").replace("\"a\"", "\"A b\""), "`A b`"),
            (source("").replace("redis://", "oracle://"), "scheme"),
        ] {
            let error = read(&text)?.err().map(|error| error.to_string());
            assert!(
                error.as_ref().is_some_and(|error| error.contains(named)),
                "{text}: {error:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_broken_file_is_told_by_its_line_and_not_by_its_words() -> anyhow::Result<()> {
        let error = read("[[source]]\nid = \"a\"\npassword = hunter2\n")?.err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            error.contains("line 3") && !error.contains("hunter2"),
            "{error}"
        );
        Ok(())
    }
}
