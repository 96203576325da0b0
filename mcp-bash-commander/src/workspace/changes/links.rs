//! Which symbolic links may be carried over: relative ones that never lead out of the workspace.

use std::path::{Component, Path};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::{BENEATH, open_beneath};
use super::Workspace;

/// Whether a link with this target stays in the workspace whatever links come to stand beside it: `..` only leads, and not too far up.
pub(super) fn stays_inside(link: &Path, target: &Path) -> bool {
    let above = link.components().count().saturating_sub(1);
    let mut up = 0;
    let mut named = false;
    for component in target.components() {
        match component {
            Component::ParentDir if named => return false,
            Component::ParentDir => up += 1,
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    up <= above && !target.as_os_str().is_empty()
}

/// Whether the path leads outside through links that stand in the workspace now. One that leads nowhere yet does not: every link that
/// comes to stand on its way is looked at itself.
pub(super) fn leads_outside(workspace: &Workspace, path: &Path) -> Result<bool, Errno> {
    match open_beneath(workspace.directory(), path, OFlags::PATH, BENEATH) {
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        Err(Errno::XDEV) => Ok(true),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_inside_only_if_no_other_link_can_turn_it_outward() {
        for (link, target) in [
            ("l", "f"),
            ("l", "./d/f"),
            ("d/l", "../f"),
            ("d/l", ".."),
            ("d/e/l", "../../f"),
        ] {
            assert!(
                stays_inside(link.as_ref(), target.as_ref()),
                "{link} -> {target}"
            );
        }
        for (link, target) in [
            ("l", "/etc/passwd"),
            ("l", "../f"),
            ("l", ""),
            ("d/l", "../../f"),
            ("d/e/l", "x/../../f"),
            ("d/l", "./.././../f"),
        ] {
            assert!(
                !stays_inside(link.as_ref(), target.as_ref()),
                "{link} -> {target}"
            );
        }
    }
}
