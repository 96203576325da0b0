//! Secrets in what is recorded: the policy's own, and what looks like one.

use std::borrow::Cow;

use regex::{Captures, Regex};

use crate::network::{KnownSecrets, Secrets};

/// What stands for what looks like a secret.
const HIDDEN: &str = "[hidden]";

/// Names of headers whose values are secrets.
const HEADER: &str =
    "(?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-token|private-token)";
/// How names of options and variables end or go on whose values are secrets.
const NAME: &str = "(?:password|passwd|token|secret|api[-_]?key)";
/// One word of a shell, with its quotes.
const WORD: &str = r#"(?:\$?'[^']*'|\$?"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+"#;

/// What comes before a secret, as group 1, and the secret. These patterns and the next ones know only ASCII words: with all of Unicode's
/// they would take megabytes, and find nothing more.
fn places() -> [String; 5] {
    [
        // A header with its value as people write it: whatever the scheme, to the end of the quotes or of the line.
        format!(r#"(?i)({HEADER}['"]?\s*[:=][ \t]+['"]?)[^'"\r\n]+"#),
        format!(r#"(?i)({HEADER}['"]?[:=]){WORD}"#),
        r"(?i)([a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/]+@".to_owned(),
        format!(r"(?i)(--?[a-z0-9-]*{NAME}(?:\s+|=)){WORD}"),
        format!(
            r"(?i)((?-u:\b)[a-z0-9_]*{NAME}[a-z0-9_]*(?:\[[^\]\s]*\])?\+?=)(?:\([^)]*\)|{WORD})"
        ),
    ]
}

/// Secrets that are known by how they begin.
const KINDS: &str = r"(?-u:\b(?:gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|AKIA[A-Z0-9]{16}|sk-[\w-]{20,}|npm_\w{30,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+))";

/// An argument behind which a secret is the next one: an option, or the name of a header.
fn before() -> String {
    format!("(?i)^(?:--?[a-z0-9-]*{NAME}=?|{HEADER}:)$")
}

/// The beginning of an argument that is a secret to its end, unless it is a script.
fn beginning() -> String {
    format!("(?i)^(?:--?[a-z0-9-]*{NAME}=|[a-z0-9_]*{NAME}[a-z0-9_]*\\+?=|{HEADER}[ \\t]*:)")
}

/// Hides secrets.
#[derive(Debug)]
pub struct Hider {
    secrets: Secrets,
    /// Anything of the places and kinds: most texts hold nothing, which is found out with one look.
    any: Regex,
    places: Vec<Regex>,
    kinds: Regex,
    before: Regex,
    beginning: Regex,
}

impl Hider {
    /// One that knows the secrets of a policy.
    ///
    /// # Errors
    /// None in practice: the patterns are fixed.
    pub fn new(secrets: Secrets) -> Result<Self, regex::Error> {
        let places = places();
        let any = places.iter().map(String::as_str).chain([KINDS]);
        let any: Vec<String> = any.map(|pattern| format!("(?:{pattern})")).collect();
        Ok(Self {
            secrets,
            any: Regex::new(&any.join("|"))?,
            places: places
                .iter()
                .map(|place| Regex::new(place))
                .collect::<Result<_, _>>()?,
            kinds: Regex::new(KINDS)?,
            before: Regex::new(&before())?,
            beginning: Regex::new(&beginning())?,
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

    /// The arguments without them. A script, behind `-c`, is a text: nothing in it may make the rest of it vanish from the record.
    pub(super) fn arguments(&self, arguments: &[String]) -> Vec<String> {
        let Hider {
            before, beginning, ..
        } = self.hider;
        let mut last = "";
        let mut hidden = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let is_script = last.starts_with('-') && !last.starts_with("--") && last.ends_with('c');
            hidden.push(if before.is_match(last) {
                HIDDEN.to_owned()
            } else if let Some(found) = beginning.find(argument).filter(|_| !is_script) {
                format!("{}{HIDDEN}", found.as_str())
            } else {
                self.text(argument)
            });
            last = argument;
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
            "curl -H 'Authorization: ApiKey canary-1' https://a.example/",
            "curl -H \"Authorization: Digest username=a, response=canary-1\"",
            "curl -b x -H 'Cookie: a=canary-1; session=canary-2'",
            "DB_PASSWORD='canary-1 canary-2' run",
            "login --password 'canary-1 canary-2'",
            "DB_PASSWORD=$'canary-1' run",
            "DB_PASSWORD=\"it'canary-1\" run",
            "DB_PASSWORD=a\\ canary-1 run",
            "git clone https://ana:p@canary-1@git.example/x.git",
            "git clone HTTPS://ana:canary-1@git.example/x.git",
            "PASSWORD+=canary-1; X_TOKEN[0]=canary-1; X_SECRET=(canary-1 canary-2)",
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
            "cat cookie.txt authorization.rs",
        ] {
            assert_eq!(hiding.text(text), text);
        }
        let argv = ["login", "--password", "canary-1", "--user", "ana"].map(str::to_owned);
        assert_eq!(
            hiding.arguments(&argv),
            ["login", "--password", HIDDEN, "--user", "ana"]
        );
        for argv in [
            ["env", "PASSWORD=canary-1 canary-2"],
            ["login", "--password=canary-1 canary-2"],
            ["--password=", "canary-1"],
            ["authorization:", "canary-1"],
            ["-H", "authorization: Negotiate canary-1"],
        ] {
            let hidden = hiding.arguments(&argv.map(str::to_owned)).join(" ");
            assert!(!hidden.contains("canary"), "{hidden}");
        }
        let script = ["bash", "-c", "TOKEN=canary-1 rm -r all"].map(str::to_owned);
        let told = hiding.arguments(&script).join(" ");
        assert_eq!(told, format!("bash -c TOKEN={HIDDEN} rm -r all"));
        Ok(())
    }
}
