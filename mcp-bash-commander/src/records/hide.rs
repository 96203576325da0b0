//! Secrets in what is recorded: the policy's own, and what looks like one.

use std::borrow::Cow;

use regex::{Captures, Regex};

use crate::network::{KnownSecrets, Secrets};

/// What stands for what looks like a secret.
const HIDDEN: &str = "[hidden]";

/// What comes before a secret, as group 1, and the secret. These patterns and the next ones know only ASCII words: with all of Unicode's
/// they would take megabytes, and find nothing more.
const PLACES: [&str; 4] = [
    r#"(?i)((?:authorization|cookie|x-api-key|x-auth-token|private-token)['"]?\s*[:=]\s*['"]?(?:(?:basic|bearer|token)\s+)?)[^\s'"]+"#,
    r"([a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@",
    r#"(?i)(--?[a-z0-9-]*(?:password|passwd|token|secret|api-?key)(?:\s+|=)['"]?)[^\s'"]+"#,
    r#"(?i)((?-u:\b)[a-z0-9_]*(?:password|passwd|token|secret|api_?key)[a-z0-9_]*=['"]?)[^\s'"]+"#,
];

/// Secrets that are known by how they begin.
const KINDS: &str = r"(?-u:\b(?:gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|AKIA[A-Z0-9]{16}|sk-[\w-]{20,}|npm_\w{30,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+))";

/// An option whose value, the argument behind it, is a secret.
const OPTION: &str = r"(?i)^--?[a-z0-9-]*(?:password|passwd|token|secret|api-?key)$";

/// Hides secrets.
#[derive(Debug)]
pub struct Hider {
    secrets: Secrets,
    /// Anything of the places and kinds: most texts hold nothing, which is found out with one look.
    any: Regex,
    places: Vec<Regex>,
    kinds: Regex,
    option: Regex,
}

impl Hider {
    /// One that knows the secrets of a policy.
    ///
    /// # Errors
    /// None in practice: the patterns are fixed.
    pub fn new(secrets: Secrets) -> Result<Self, regex::Error> {
        let any = PLACES.iter().chain([&KINDS]);
        let any: Vec<String> = any.map(|pattern| format!("(?:{pattern})")).collect();
        Ok(Self {
            secrets,
            any: Regex::new(&any.join("|"))?,
            places: PLACES
                .iter()
                .map(|place| Regex::new(place))
                .collect::<Result<_, _>>()?,
            kinds: Regex::new(KINDS)?,
            option: Regex::new(OPTION)?,
        })
    }

    /// With the policy's secrets as they are now.
    pub(super) fn now(&self) -> Hiding<'_> {
        Hiding {
            hider: self,
            known: self.secrets.known(),
        }
    }
}

/// Hides secrets in what belongs to one record.
pub(super) struct Hiding<'a> {
    hider: &'a Hider,
    known: KnownSecrets<'a>,
}

impl Hiding<'_> {
    /// The text without them.
    pub(super) fn text(&self, text: &str) -> String {
        let mut hidden = self.known.hide(text);
        if !self.hider.any.is_match(&hidden) {
            return hidden;
        }
        for place in &self.hider.places {
            let replaced = place.replace_all(&hidden, |found: &Captures<'_>| {
                let end = if found[0].ends_with('@') { "@" } else { "" };
                format!("{}{HIDDEN}{end}", &found[1])
            });
            hidden = replaced.into_owned();
        }
        match self.hider.kinds.replace_all(&hidden, HIDDEN) {
            Cow::Borrowed(_) => hidden,
            Cow::Owned(hidden) => hidden,
        }
    }

    /// The arguments without them.
    pub(super) fn arguments(&self, arguments: &[String]) -> Vec<String> {
        let mut before = "";
        let mut hidden = Vec::with_capacity(arguments.len());
        for argument in arguments {
            hidden.push(if self.hider.option.is_match(before) {
                HIDDEN.to_owned()
            } else {
                self.text(argument)
            });
            before = argument;
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_hidden_and_the_rest_is_not() -> anyhow::Result<()> {
        let hider = Hider::new(Secrets::default())?;
        let hiding = hider.now();
        for text in [
            "curl -H 'Authorization: Bearer canary-1' https://a.example/",
            "curl -H authorization:canary-1",
            "curl -H \"Cookie: canary-1\"",
            "git clone https://ana:canary-1@git.example/x.git",
            "login --password canary-1",
            "login --api-key=canary-1 --user ana",
            "GH_TOKEN=canary-1 gh pr list",
            "export DB_PASSWORD='canary-1'",
            "echo ghp_canary1canary1canary1canary1",
            "echo eyJcanary1canary1.eyJcanary1canary1.canary1",
        ] {
            let hidden = hiding.text(text);
            assert!(!hidden.contains("canary"), "{hidden}");
            assert!(hidden.contains(HIDDEN), "{hidden}");
        }
        for text in [
            "cargo test --workspace --token-limit",
            "git commit -m 'Refresh the token once it is old'",
            "ls -la /srv/tokens; grep -r secret .",
            "curl https://a.example:8443/x@y",
            "echo a:b@c",
        ] {
            assert_eq!(hiding.text(text), text);
        }
        let argv = ["login", "--password", "canary-1", "--user", "ana"].map(str::to_owned);
        assert_eq!(
            hiding.arguments(&argv),
            ["login", "--password", HIDDEN, "--user", "ana"]
        );
        Ok(())
    }
}
