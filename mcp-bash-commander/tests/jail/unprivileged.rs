//! All of these tests once more, as a server without privileges runs them.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::support::{PROBE_VARIABLE, is_root, probe};

/// A uid and gid nobody has on this machine.
const SOMEBODY: u32 = 41_234;

#[test]
fn everything_holds_for_an_unprivileged_server_too() -> anyhow::Result<()> {
    if !is_root() {
        // Then every other test here has just shown it.
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
    let (tests, copied_probe) = (
        directory.path().join("tests"),
        directory.path().join("probe"),
    );
    std::fs::copy(std::env::current_exe()?, &tests)?;
    std::fs::copy(probe(), &copied_probe)?;
    let output = Command::new(tests)
        // Whether the tests that cases name exist depends on no user, and the sources may not be this one's to read.
        .args(["--skip", "cases::"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env(PROBE_VARIABLE, copied_probe)
        .current_dir("/")
        .uid(SOMEBODY)
        .gid(SOMEBODY)
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && told.contains("0 failed") && !told.contains("\nrunning 0 tests"),
        "{told}"
    );
    Ok(())
}
