//! Where the server's own files may lie: state, keys and tokens in no grant at all, policy and program in no writable one.

use std::path::{Component, Path, PathBuf};

use super::{Access, Policy};

/// A file of the server, and how near to a command it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// Commands may not even read it.
    Secret,
    /// Commands may not change it.
    Trusted,
}

/// A file of the server lies where commands could reach it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} `{}` lies inside `{}`, which commands may {may}; {mend}", path.display(), grant.display())]
pub struct PlacementError {
    /// `state directory`.
    what: &'static str,
    path: PathBuf,
    grant: PathBuf,
    may: &'static str,
    mend: &'static str,
}

/// Refuses a policy under which commands could read the server's secrets or change what it trusts.
///
/// # Errors
/// The first file that lies inside a grant it must not lie in.
pub fn check_placement<'a>(
    policy: &Policy,
    files: impl IntoIterator<Item = (&'static str, &'a Path, Placed)>,
) -> Result<(), PlacementError> {
    for (what, path, placed) in files {
        let real = real_path(path);
        let reached = policy.grants().find(|(grant, access)| {
            let matters = placed == Placed::Secret || *access == Access::ReadWrite;
            let real_grant = real_path(grant);
            // A grant inside a secret folder gives away a part of it.
            let overlaps = real.starts_with(&real_grant)
                || placed == Placed::Secret && real_grant.starts_with(&real);
            matters && (overlaps || path.starts_with(grant))
        });
        if let Some((grant, _)) = reached {
            let (may, mend) = match placed {
                Placed::Secret => ("read", "keep it outside, or choose another workspace"),
                Placed::Trusted => (
                    "change",
                    "keep it outside, choose another workspace, or make that read-only",
                ),
            };
            return Err(PlacementError {
                what,
                path: path.to_owned(),
                grant: grant.to_owned(),
                may,
                mend,
            });
        }
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = absolute.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return rest.components().fold(real, |mut real, component| {
                match component {
                    Component::ParentDir => {
                        real.pop();
                    }
                    Component::Normal(name) => real.push(name),
                    _ => {}
                }
                real
            });
        }
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn secrets_may_lie_in_no_grant_and_the_policy_in_no_writable_one() -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let root = home.path().join("work");
        fs::create_dir(&root)?;
        let mut policy = Policy::load(None, Some(&root))?;
        let outside = home.path().join("state");
        let inside = root.join("a/state");
        let check = |policy: &Policy, path: &Path, placed| {
            check_placement(policy, [("file", path, placed)])
        };
        for placed in [Placed::Secret, Placed::Trusted] {
            assert_eq!(check(&policy, &outside, placed), Ok(()));
            assert!(check(&policy, &inside, placed).is_err());
            assert!(check(&policy, &home.path().join("work/../work/x"), placed).is_err());
        }
        policy.access = Access::ReadOnly;
        assert!(check(&policy, &inside, Placed::Secret).is_err());
        assert_eq!(check(&policy, &inside, Placed::Trusted), Ok(()));
        assert!(check(&policy, Path::new("/usr/key"), Placed::Secret).is_err());
        assert!(check(&policy, home.path(), Placed::Secret).is_err());
        Ok(())
    }

    #[test]
    fn a_link_does_not_hide_where_a_secret_lies() -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let root = home.path().join("work");
        fs::create_dir(&root)?;
        let policy = Policy::load(None, Some(&root))?;
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&root, &link)?;
        let refused = check_placement(
            &policy,
            [(
                "state directory",
                link.join("state").as_path(),
                Placed::Secret,
            )],
        );
        let text = refused
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(text.starts_with("the state directory"), "{text}");
        Ok(())
    }
}
