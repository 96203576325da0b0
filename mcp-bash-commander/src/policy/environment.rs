//! A command's environment: nothing of the server's own but what the policy passes, and nothing in a call that would make
//! programs load or run other code than the call says.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::PolicyError;

/// Longest environment a call may ask for, in bytes of names and values.
const MAX_BYTES: usize = 128 * 1024;

/// What every command has, unless the policy or the call sets it otherwise.
const BUILT_IN: [(&str, &str); 6] = [
    (
        "PATH",
        "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    ),
    ("HOME", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("PAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
];

/// Variables that make a loader, shell or interpreter run other code.
const CODE_LOADING: [&str; 33] = [
    "BASHOPTS",
    "BASH_ENV",
    "CDPATH",
    "CLASSPATH",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "GLOBIGNORE",
    "HOSTALIASES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LESSCLOSE",
    "LESSOPEN",
    "LOCPATH",
    "LUA_INIT",
    "LUA_PATH",
    "MANPAGER",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PROMPT_COMMAND",
    "PS4",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "VISUAL",
    "ZDOTDIR",
    "_JAVA_OPTIONS",
];

/// The same for whole families of variables.
const CODE_LOADING_PREFIXES: [&str; 6] =
    ["BASH_FUNC_", "DYLD_", "GIT_", "LD_", "MALLOC_", "PYTHON"];

/// A variable that a call may not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// Its name or value is none.
    #[error(
        "`{0}` cannot be an environment variable: names are letters, digits and `_`, values have no NUL"
    )]
    Malformed(String),
    /// It would make programs run other code than the call says.
    #[error(
        "the environment variable `{0}` can make programs run other code; the policy does not pass it"
    )]
    LoadsCode(String),
    /// The policy gives it a value of its own.
    #[error("the environment variable `{0}` has a fixed value in the policy")]
    Fixed(String),
    /// There is too much of it.
    #[error("the environment has {0} bytes; at most {MAX_BYTES} are taken")]
    TooLong(usize),
}

/// The `[env]` table of a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentRules {
    /// Names taken over from the server's own environment, and free for calls to set.
    pub pass: Vec<String>,
    /// Names with fixed values.
    pub set: BTreeMap<String, String>,
}

impl EnvironmentRules {
    pub(super) fn checked(self) -> Result<Self, PolicyError> {
        let wrong = |name: &String| PolicyError::Value {
            field: "env",
            value: format!("`{name}`"),
            right: "a name of letters, digits and `_`, with a value without NUL",
        };
        if let Some(name) = self.pass.iter().find(|name| !is_name(name)) {
            return Err(wrong(name));
        }
        if let Some((name, _)) = self
            .set
            .iter()
            .find(|(name, value)| !is_name(name) || value.contains('\0'))
        {
            return Err(wrong(name));
        }
        Ok(self)
    }

    /// The complete environment of a command: built-in values, then what is passed, set, and asked for by the call.
    ///
    /// # Errors
    /// A variable of the call that is malformed or that only the policy may pass.
    pub fn of_call(
        &self,
        asked: &BTreeMap<String, String>,
    ) -> Result<Vec<(OsString, OsString)>, EnvironmentError> {
        let bytes = asked
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        if bytes > MAX_BYTES {
            return Err(EnvironmentError::TooLong(bytes));
        }
        for (name, value) in asked {
            if !is_name(name) || value.contains('\0') {
                return Err(EnvironmentError::Malformed(name.chars().take(80).collect()));
            }
            if self.set.contains_key(name) {
                return Err(EnvironmentError::Fixed(name.clone()));
            }
            if loads_code(name) && !self.pass.contains(name) {
                return Err(EnvironmentError::LoadsCode(name.clone()));
            }
        }
        let mut environment: BTreeMap<OsString, OsString> = BUILT_IN
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let passed = self
            .pass
            .iter()
            .filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        environment.extend(passed);
        environment.extend(
            self.set
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        environment.extend(
            asked
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        );
        Ok(environment.into_iter().collect())
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

fn loads_code(name: &str) -> bool {
    CODE_LOADING.contains(&name)
        || CODE_LOADING_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), "1".to_owned())])
    }

    #[test]
    fn a_call_cannot_set_what_makes_programs_run_other_code() {
        let dangerous = [
            "LD_PRELOAD",
            "BASH_ENV",
            "ENV",
            "BASH_FUNC_ls",
            "PROMPT_COMMAND",
            "IFS",
            "GIT_SSH_COMMAND",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "PERL5OPT",
        ];
        for name in dangerous {
            let refused = EnvironmentRules::default().of_call(&asked(name));
            assert_eq!(refused, Err(EnvironmentError::LoadsCode(name.to_owned())));
            let passing = EnvironmentRules {
                pass: vec![name.to_owned()],
                ..EnvironmentRules::default()
            };
            assert!(
                passing.of_call(&asked(name)).is_ok(),
                "the policy passes {name}"
            );
        }
        assert!(
            EnvironmentRules::default()
                .of_call(&asked("GREETING"))
                .is_ok()
        );
    }

    #[test]
    fn a_call_cannot_change_what_the_policy_has_set() {
        let rules = EnvironmentRules {
            set: BTreeMap::from([("CI".to_owned(), "1".to_owned())]),
            ..EnvironmentRules::default()
        };
        assert_eq!(
            rules.of_call(&asked("CI")),
            Err(EnvironmentError::Fixed("CI".to_owned()))
        );
        assert!(rules.of_call(&asked("OTHER")).is_ok());
    }

    #[test]
    fn names_are_names_and_values_end_where_they_end() {
        for name in ["", "A=B", "A B", "1A", "A\0", "BASH_FUNC_x%%", "Ä"] {
            let refused = EnvironmentRules::default().of_call(&asked(name));
            assert!(
                matches!(refused, Err(EnvironmentError::Malformed(_))),
                "{name}"
            );
        }
        let value = BTreeMap::from([("A".to_owned(), "x\0y".to_owned())]);
        assert!(EnvironmentRules::default().of_call(&value).is_err());
        let long = BTreeMap::from([("A".to_owned(), "x".repeat(MAX_BYTES))]);
        assert!(matches!(
            EnvironmentRules::default().of_call(&long),
            Err(EnvironmentError::TooLong(_))
        ));
    }

    #[test]
    fn nothing_of_the_servers_own_environment_comes_along() -> anyhow::Result<()> {
        // Cargo sets this for every test; it stands for a secret.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let environment = EnvironmentRules::default().of_call(&BTreeMap::new())?;
        let names: Vec<_> = environment
            .iter()
            .filter_map(|(name, _)| name.to_str())
            .collect();
        assert_eq!(
            names,
            [
                "GIT_TERMINAL_PROMPT",
                "HOME",
                "LANG",
                "PAGER",
                "PATH",
                "TERM"
            ]
        );
        let passing = EnvironmentRules {
            pass: vec!["CARGO_MANIFEST_DIR".to_owned()],
            ..EnvironmentRules::default()
        };
        assert_eq!(passing.of_call(&BTreeMap::new())?.len(), names.len() + 1);
        Ok(())
    }
}
