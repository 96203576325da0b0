//! What the policy says about a command, a path or a host, without running anything.

use std::path::{Component, Path, PathBuf};

use super::rules::{Decision, Verdict};
use super::{Access, HardLinks, Mode, NetworkMode, Policy};
use crate::network;

/// A decision, who makes it and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happens.
    pub decision: Decision,
    /// The part of the policy or the layer of the jail that decides.
    pub layer: &'static str,
    /// Why, in words, with what would change it.
    pub reason: String,
    /// The rule, counted from 1, if one decided.
    pub rule: Option<usize>,
}

impl Explanation {
    fn new(decision: Decision, layer: &'static str, reason: impl Into<String>) -> Self {
        Self {
            decision,
            layer,
            reason: reason.into(),
            rule: None,
        }
    }
}

/// What every jail has of its own.
const OWN: [&str; 4] = ["/tmp", "/dev", "/proc", "/etc"];

impl Policy {
    /// Of a shell command: what the rules say. What it does when it runs, the jail bounds whatever they say.
    pub fn explain_command(&self, command: &str) -> Explanation {
        let Verdict {
            decision,
            rule,
            reason,
            command,
        } = self.rules.decide_shell(command);
        let reason = match (decision, command.is_empty()) {
            (Decision::Allow, _) | (_, true) => reason,
            _ => format!("`{command}`: {reason}"),
        };
        let reason = if reason.is_empty() {
            "no rule is about it; the jail bounds what it can do".to_owned()
        } else {
            reason
        };
        Explanation {
            rule,
            ..Explanation::new(decision, "rules", reason)
        }
    }

    /// Of a path, absolute or relative to the workspace, as commands see it. Links are not followed.
    pub fn explain_path(&self, path: &Path) -> Explanation {
        let explanation = self.explain_strict_path(path);
        let proviso = match self.mode {
            Mode::Strict => return explanation,
            Mode::Container => "in a container what is outside the workspace is the image's",
            Mode::NoUserns => {
                "without user namespaces the host's files are there and closed, `/tmp` too (use TMPDIR), and a protected path can be \
                 changed, which is then told"
            }
        };
        Explanation {
            reason: format!("{}; but {proviso}", explanation.reason),
            ..explanation
        }
    }

    /// What was explained of a file of the workspace, if it has a name outside it as well.
    pub fn explain_linked(&self, explanation: Explanation) -> Explanation {
        let reason = match (explanation.decision, self.hard_links) {
            (Decision::Allow, HardLinks::Protect) => {
                "it can be read and run; it has a name outside the workspace (a hard link), so workspace.hard_links says that it may not be changed".to_owned()
            }
            (Decision::Allow, HardLinks::Allow) => format!(
                "{}; it has a name outside the workspace (a hard link), so that a change reaches there",
                explanation.reason
            ),
            _ => return explanation,
        };
        Explanation {
            reason,
            ..explanation
        }
    }

    fn explain_strict_path(&self, path: &Path) -> Explanation {
        let Some(path) = resolved(&self.workspace.join(path)) else {
            return Explanation::new(Decision::Deny, "workspace", "it leads above `/`");
        };
        if let Ok(relative) = path.strip_prefix(&self.workspace) {
            return self.explain_in_workspace(relative);
        }
        if let Some(own) = OWN.iter().find(|own| path.starts_with(own)) {
            let reason = format!("each jail has a {own} of its own; the host's is not there");
            return Explanation::new(Decision::Allow, "private_root", reason);
        }
        match self
            .toolchain
            .iter()
            .find(|granted| path.starts_with(granted))
        {
            Some(granted) => Explanation::new(
                Decision::Allow,
                "private_root",
                format!(
                    "it can be read and run, by toolchain.read `{}`",
                    granted.display()
                ),
            ),
            None => Explanation::new(
                Decision::Deny,
                "private_root",
                "it is not in the jail: programs are told that there is no such file; the operator can add it to toolchain.read",
            ),
        }
    }

    fn explain_in_workspace(&self, relative: &Path) -> Explanation {
        if self.denies_reading(relative) {
            let reason = "it may not be read, by workspace.deny_read";
            return Explanation::new(Decision::Deny, "workspace", reason);
        }
        let reason = if self.access == Access::ReadOnly {
            "it can be read and run; workspace.access says that nothing may be changed"
        } else if self.protected.contains(relative) {
            "it can be read; workspace.protect says that it may not be changed"
        } else {
            "it can be read, run and changed"
        };
        Explanation::new(Decision::Allow, "workspace", reason)
    }

    /// Of a `host:port`.
    pub fn explain_host(&self, host: &str) -> Explanation {
        let explanation = self.explain_connection(host);
        match self.secrets.explain(host) {
            // What a secret is for is allowed over TLS; a command asks for it in plain HTTP, and nothing but the proxy hears that.
            Some(secret) if explanation.decision == Decision::Deny => Explanation::new(
                Decision::Allow,
                "network",
                format!("with network `allowlist`, for plain HTTP only; {secret}"),
            ),
            Some(secret) => Explanation {
                reason: format!("{}; {secret}", explanation.reason),
                ..explanation
            },
            None => explanation,
        }
    }

    fn explain_connection(&self, host: &str) -> Explanation {
        match self.network.mode {
            NetworkMode::None | NetworkMode::Loopback => Explanation::new(
                Decision::Deny,
                "network",
                format!(
                    "network.mode is `{}`: no host is reached",
                    self.network.mode
                ),
            ),
            NetworkMode::Host => Explanation::new(
                Decision::Allow,
                "network",
                "network.mode is `host`: with network `host` a command reaches whatever the host reaches",
            ),
            NetworkMode::Allowlist => match self.network.allow.explain(host) {
                network::Decision::Allowed { entry, private, .. } => {
                    let bound = if private {
                        ""
                    } else {
                        ", unless it resolves to a private address"
                    };
                    let reason = format!("with network `allowlist`, by `{entry}`{bound}");
                    Explanation::new(Decision::Allow, "network", reason)
                }
                network::Decision::Refused(refusal) => {
                    Explanation::new(Decision::Deny, "network", refusal.to_string())
                }
            },
        }
    }
}

/// The path without `.` and `..`; `None` where it would leave the root.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> anyhow::Result<Policy> {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir()?;
        let path = home.path().join("policy.toml");
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Policy::load(Some(&path), Some(home.path()))?)
    }

    #[test]
    fn a_mode_that_is_not_strict_is_said_with_each_path() -> anyhow::Result<()> {
        let strict = policy("")?.explain_path(Path::new("/tmp/x")).reason;
        let weaker = policy("mode = \"no_userns\"")?.explain_path(Path::new("/tmp/x"));
        assert!(weaker.reason.starts_with(&strict) && weaker.reason.contains("TMPDIR"));
        Ok(())
    }

    #[test]
    fn paths_are_explained_as_the_jail_has_them() -> anyhow::Result<()> {
        let policy =
            policy("[workspace]\ndeny_read = [\"**/.env\"]\n[toolchain]\nread = [\"/usr\"]")?;
        let root = policy.workspace.display().to_string();
        for (path, decision, words) in [
            ("src/main.rs", Decision::Allow, "changed"),
            ("a/.env", Decision::Deny, "deny_read"),
            (".git/hooks/pre-commit", Decision::Allow, "protect"),
            ("/usr/bin/env", Decision::Allow, "toolchain.read"),
            ("/tmp/x", Decision::Allow, "of its own"),
            ("/home/ana/.ssh/id_rsa", Decision::Deny, "not in the jail"),
            ("../../../../../../../../root", Decision::Deny, "above"),
            (&format!("{root}/../other"), Decision::Allow, "of its own"),
        ] {
            let explained = policy.explain_path(Path::new(path));
            assert_eq!(explained.decision, decision, "{path}: {explained:?}");
            assert!(explained.reason.contains(words), "{path}: {explained:?}");
        }
        Ok(())
    }

    #[test]
    fn hosts_and_commands_are_explained_with_what_decided() -> anyhow::Result<()> {
        let without = policy("")?;
        assert_eq!(without.explain_host("a.org:443").decision, Decision::Deny);
        assert_eq!(
            without.explain_command("rm -rf /").decision,
            Decision::Allow
        );
        let with = policy(
            "[network]\nmode = \"allowlist\"\nallow = [\"a.org:443\"]\n\
             [[rule]]\nmatch = [\"git\", \"push\"]\ndecision = \"ask\"\nreason = \"leaves the machine\"",
        )?;
        assert_eq!(with.explain_host("A.org.:443").decision, Decision::Allow);
        assert_eq!(with.explain_host("a.org:80").decision, Decision::Deny);
        let secret = policy(
            "[network]\nmode = \"allowlist\"\nallow = [\"a.org:443\"]\n\
             [secrets.key]\nfrom_env = \"KEY\"\ninject = { host = \"a.org\", header = \"X-Key\" }",
        )?;
        for host in ["a.org:80", "a.org:443"] {
            let explained = secret.explain_host(host);
            assert_eq!(explained.decision, Decision::Allow, "{explained:?}");
            let words = "secret key is added to requests to http://a.org/";
            assert!(explained.reason.contains(words), "{explained:?}");
        }
        assert_eq!(secret.explain_host("a.org:22").decision, Decision::Deny);
        let asked = with.explain_command("cd x && git push");
        assert_eq!((asked.decision, asked.rule), (Decision::Ask, Some(1)));
        assert!(asked.reason.contains("leaves the machine"), "{asked:?}");
        Ok(())
    }
}
