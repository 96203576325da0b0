//! Real servers, each started once for all tests of a program by its script in `tests/servers`.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context as _, ensure};

/// What the scripts end with where this machine lacks something.
const LACKS: i32 = 3;

/// What a script says of its server: `PORT`, `CA` and the like.
pub(crate) type Lines = HashMap<String, String>;

/// The servers of this run by script and flavor; they are stopped when it ends, by a process that waits for that.
static SERVERS: Mutex<Vec<((String, String), Lines)>> = Mutex::new(Vec::new());

/// The server, started for the first test that asks. `None` where this machine cannot have it and need not: what is tested is then
/// skipped by name.
pub(crate) fn server(script: &str, flavor: &str) -> anyhow::Result<Option<Lines>> {
    server_with(script, flavor, &[])
}

/// The same, with what the script must know when it starts it.
pub(crate) fn server_with(
    script: &str,
    flavor: &str,
    environment: &[(&str, &str)],
) -> anyhow::Result<Option<Lines>> {
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = (script.to_owned(), flavor.to_owned());
    if let Some((_, lines)) = servers.iter().find(|(started, _)| *started == wanted) {
        return Ok(Some(lines.clone()));
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/servers")
        .join(script);
    let folder = tempfile::tempdir()?.keep();
    write_password(&folder)?;
    stop_at_the_end(&program, &folder)?;
    let output = Command::new(&program)
        .arg("start")
        .arg(&folder)
        .arg(flavor)
        .envs(environment.iter().copied())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(LACKS) && std::env::var_os("CI").is_none_or(|ci| ci != "1") {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("skipped: {test} needs {script} {flavor}: {said}");
        return Ok(None);
    }
    ensure!(
        output.status.success(),
        "no {script} {flavor}, and with CI=1 nothing is skipped: {said}"
    );
    let mut lines: Lines = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let password_file = folder.join("password").display().to_string();
    lines.insert("PASSWORD_FILE".to_owned(), password_file);
    servers.push((wanted, lines.clone()));
    Ok(Some(lines))
}

/// The password of every server of this run, which is as long as the run.
pub(crate) fn password() -> &'static str {
    static PASSWORD: LazyLock<String> = LazyLock::new(|| {
        // Its keys are random.
        let random = || RandomState::new().build_hasher().finish();
        format!("{:016x}{:016x}", random(), random())
    });
    &PASSWORD
}

/// Where a script finds a password it makes none.
fn write_password(folder: &Path) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join("password"))?;
    Ok(file.write_all(password().as_bytes())?)
}

/// Statics are not dropped, so another process looks after the server: it holds a pipe of ours, and that ends when we do.
fn stop_at_the_end(program: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut waiting = Command::new("setsid");
    waiting
        .args([
            "sh",
            "-c",
            "cat >/dev/null; \"$0\" stop \"$1\" && rm -rf \"$1\"",
        ])
        .arg(program)
        .arg(folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut waiting = waiting.spawn()?;
    // It stays open until this process is gone.
    std::mem::forget(waiting.stdin.take().context("no pipe")?);
    Ok(())
}
