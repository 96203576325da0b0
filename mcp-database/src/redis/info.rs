//! What a server says of itself, by name.

use std::collections::HashMap;

use redis::{Value, cmd};
use serde::Serialize;

use super::connection::{Deadline, Lines};
use super::error::Error;
use super::value::{elements, member, text};

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
    /// Dragonfly.
    Dragonfly,
}

impl Product {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
            Self::Dragonfly => "Dragonfly",
        }
    }
}

/// The names and values of INFO; empty where the user may not ask.
#[derive(Debug, Default)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    pub(super) async fn ask(lines: &Lines, deadline: Deadline) -> Result<Self, Error> {
        match lines.ask(&cmd("INFO"), deadline).await {
            Ok(told) => Ok(Self::of(&text(told).unwrap_or_default())),
            Err(Error::Server { .. }) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn of(text: &str) -> Self {
        let pairs = text
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(pairs.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.get(name)?.parse().ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn product(&self) -> (Product, Option<String>) {
        let version = |name| self.get(name).map(str::to_owned);
        if let Some(version) = version("dragonfly_version") {
            return (Product::Dragonfly, Some(version));
        }
        if let Some(version) = version("valkey_version") {
            return (Product::Valkey, Some(version));
        }
        (Product::Redis, version("redis_version"))
    }
}

/// The names of the loaded modules: `search`, `ReJSON`. Where the user may not ask it is told which answer for themselves.
pub(super) async fn modules(lines: &Lines, deadline: Deadline) -> Result<Vec<String>, Error> {
    let mut names = match lines.ask(cmd("MODULE").arg("LIST"), deadline).await {
        Ok(told) => elements(told)
            .unwrap_or_default()
            .iter()
            .filter_map(|module| member(module, "name").and_then(text))
            .collect(),
        Err(Error::Server { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    if names.is_empty() {
        let probes = [("search", "ft.search"), ("ReJSON", "json.get")];
        let mut ask = cmd("COMMAND");
        ask.arg("INFO")
            .arg(probes.map(|(_, command)| command).as_slice());
        match lines.ask(&ask, deadline).await {
            Ok(told) => {
                let known = elements(told).unwrap_or_default();
                let found = probes.iter().zip(known);
                names = found
                    .filter(|(_, known)| !matches!(known, Value::Nil))
                    .filter(|(_, known)| !matches!(known, Value::Array(list) if list.is_empty()))
                    .map(|((module, _), _)| (*module).to_owned())
                    .collect();
            }
            Err(Error::Server { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_says() {
        let product = |text: &str| Info::of(text).product();
        let version = |version: &str| Some(version.to_owned());
        assert_eq!(
            product("# Server\r\nredis_version:7.0.15\r\n"),
            (Product::Redis, version("7.0.15"))
        );
        assert_eq!(
            product("redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n"),
            (Product::Valkey, version("9.1.2"))
        );
        assert_eq!(
            product("redis_version:7.4.0\r\ndragonfly_version:df-v1.30.0\r\n"),
            (Product::Dragonfly, version("df-v1.30.0"))
        );
        assert_eq!(product(""), (Product::Redis, None));
    }
}
