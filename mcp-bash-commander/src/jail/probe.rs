//! Does this host have every layer? Each is tried for real, by making a jail, and the one that fails is named with its fix.

use std::fs;

use serde::Serialize;

use super::layer::USER_NAMESPACE_HINT;
use super::{Isolation, JailError, JailSpec, JailedProcess, Launcher, Layer, Mode, Workspace};

/// What became of one layer when it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerStatus {
    /// It was put in place.
    Applied,
    /// It could not be put in place; no command runs here until that is mended.
    Missing,
    /// It could not be put in place; commands run without it.
    Absent,
    /// An earlier one failed, or there was nothing to try it on.
    NotTried,
}

/// One layer, tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// Its name, as in [`Layer::name`].
    pub layer: String,
    /// What became of it.
    pub status: LayerStatus,
    /// What was found, in words.
    pub detail: String,
    /// What to do, where it is missing.
    pub fix: Option<String>,
}

/// Makes a jail around `true` in the first of `modes` that this host allows.
///
/// # Errors
/// None of them can be had here: the last one's error.
pub async fn probe_mode(
    launcher: &Launcher,
    workspace: Option<Workspace>,
    modes: Vec<Mode>,
) -> Result<Isolation, JailError> {
    let mut spec = JailSpec::new(["true"]);
    spec.workspace = workspace;
    spec.modes = modes;
    Ok(launcher.run(spec).await?.jail.isolation().clone())
}

/// Makes a strict jail around `true`, with `workspace` if there is one, and reports each layer.
pub async fn probe_layers(launcher: &Launcher, workspace: Option<Workspace>) -> Vec<LayerReport> {
    let mut spec = JailSpec::new(["true"]);
    spec.workspace = workspace;
    match launcher.run(spec).await {
        Ok(JailedProcess { jail, .. }) => {
            let absent = if jail.isolation().missing.is_empty() {
                None
            } else {
                without_cgroup(launcher).await
            };
            let applied = &jail.isolation().layers;
            let name_of = |layer: Layer| {
                applied
                    .iter()
                    .find(|name| name.split(':').next() == Some(layer.name()))
                    .cloned()
            };
            Layer::STRICT
                .into_iter()
                .map(|layer| match (name_of(layer), &absent) {
                    (Some(name), _) => {
                        report(name.into_owned(), LayerStatus::Applied, "applied", None)
                    }
                    (None, Some(absent)) if layer == Layer::Cgroup => absent.clone(),
                    (None, _) => report(
                        layer.name().to_owned(),
                        LayerStatus::NotTried,
                        "nothing to try it on",
                        None,
                    ),
                })
                .collect()
        }
        Err(JailError::Layer {
            layer: missing,
            errno,
            detail,
            hint,
        }) => {
            let why = format!("{detail}: {}", std::io::Error::from_raw_os_error(errno));
            let fix = if hint.contains(USER_NAMESPACE_HINT) {
                user_namespace_fix().unwrap_or(hint)
            } else {
                hint
            };
            let mut reports: Vec<LayerReport> = Layer::STRICT
                .into_iter()
                .map(|layer| match layer.cmp(&missing) {
                    std::cmp::Ordering::Equal => report(
                        layer.name().to_owned(),
                        LayerStatus::Missing,
                        &why,
                        Some(fix.clone()),
                    ),
                    _ => report(
                        layer.name().to_owned(),
                        LayerStatus::NotTried,
                        "not reached",
                        None,
                    ),
                })
                .collect();
            if !Layer::STRICT.contains(&missing) {
                reports.push(report(
                    missing.name().to_owned(),
                    LayerStatus::Missing,
                    &why,
                    Some(fix),
                ));
            }
            reports
        }
        Err(error) => vec![report(
            "launcher".to_owned(),
            LayerStatus::Missing,
            &error.to_string(),
            error.hint().map(str::to_owned),
        )],
    }
}

/// Why jails have no control group here: what a jail that must have one is refused for.
async fn without_cgroup(launcher: &Launcher) -> Option<LayerReport> {
    let mut spec = JailSpec::new(["true"]);
    spec.limits.require_cgroup = true;
    match launcher.run(spec).await {
        Err(JailError::Layer {
            layer: Layer::Cgroup,
            errno,
            detail,
            hint,
        }) => {
            let why = std::io::Error::from_raw_os_error(errno);
            Some(report(
                Layer::Cgroup.name().to_owned(),
                LayerStatus::Absent,
                &format!(
                    "failed to {detail}: {why}; memory is bounded for each process, not for a jail as a whole"
                ),
                Some(hint),
            ))
        }
        _ => None,
    }
}

fn report(layer: String, status: LayerStatus, detail: &str, fix: Option<String>) -> LayerReport {
    LayerReport {
        layer,
        status,
        detail: detail.to_owned(),
        fix,
    }
}

/// The one setting of this kernel that forbids user namespaces, if it is one of the known ones.
fn user_namespace_fix() -> Option<String> {
    let setting = |path: &str| {
        fs::read_to_string(format!("/proc/sys/{path}"))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    if setting("user/max_user_namespaces").as_deref() == Some("0") {
        return Some(
            "this host allows no user namespaces: `sysctl -w user.max_user_namespaces=15000`"
                .to_owned(),
        );
    }
    if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return Some(
            "this host forbids them to users: `sysctl -w kernel.unprivileged_userns_clone=1`"
                .to_owned(),
        );
    }
    if setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return Some(
            "AppArmor forbids them to programs without a profile: copy the repository's \
             `mcp-bash-commander/apparmor/mcp-bash-commander` to /etc/apparmor.d/, put the program's path into it and run \
             `apparmor_parser -r /etc/apparmor.d/mcp-bash-commander`"
                .to_owned(),
        );
    }
    None
}
