//! Real work in the jail: a repository cloned, a crate built, a package installed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::client::Place;

fn succeeded(answer: &Value) -> anyhow::Result<()> {
    anyhow::ensure!(answer["exit_code"] == 0, "{answer}");
    Ok(())
}

#[test]
fn a_repository_is_made_cloned_and_committed_to() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let ran = client.exec(
        "set -e; git init -q -b main source; cd source; git config user.email a@b.c; git config user.name A; \
         echo one > file; git add .; git commit -qm first; cd ..; git clone -q source copy; cd copy; \
         git log --format=%s; echo two >> file; git -c user.email=a@b.c -c user.name=A commit -qam second; git push -q origin HEAD:other; \
         git -C ../source log --format=%s other",
    )?;
    succeeded(&ran)?;
    assert_eq!(ran["stdout"]["text"], json!("first\nsecond\nfirst\n"));
    Ok(())
}

#[test]
fn a_crate_is_built_with_a_toolchain_that_the_policy_grants() -> anyhow::Result<()> {
    let place = Place::new()?;
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    let policy = format!(
        "[toolchain]\nread = [\"/usr\", \"/bin\", \"/lib\", \"/lib64\", \"/etc/ld.so.cache\", \"/etc/alternatives\", \"{}\"]\n",
        sysroot.display()
    );
    let mut client = place.start_under(&policy)?;
    std::fs::create_dir_all(place.workspace().join("src"))?;
    std::fs::write(
        place.workspace().join("Cargo.toml"),
        "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
    )?;
    std::fs::write(
        place.workspace().join("src/main.rs"),
        "fn main() { println!(\"built in a jail\"); }\n",
    )?;
    let path = format!("{}/bin:/usr/bin:/bin", sysroot.display());
    let call = json!({
        "command": "cargo build --offline -q && ./target/debug/small",
        "env": {"PATH": path, "CARGO_HOME": "/tmp/cargo"},
    });
    let built = client.ok("exec", &call)?;
    succeeded(&built)?;
    assert_eq!(built["stdout"]["text"], json!("built in a jail\n"));
    Ok(())
}

/// Killed when dropped.
struct Index(Child);

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A package index on the host with one package in it, and its port.
fn index(folder: &std::path::Path) -> anyhow::Result<(Index, u16)> {
    let packages = folder.join("simple/small-package");
    std::fs::create_dir_all(&packages)?;
    let make = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/small_package-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("small_package.py", "ANSWER = 42\n")
    wheel.writestr("small_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small-package\nVersion: 1.0\n")
    wheel.writestr("small_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("small_package-1.0.dist-info/RECORD", "small_package.py,,\nsmall_package-1.0.dist-info/METADATA,,\nsmall_package-1.0.dist-info/WHEEL,,\nsmall_package-1.0.dist-info/RECORD,,\n")
"#;
    let status = Command::new("/usr/bin/python3")
        .args(["-c", make])
        .arg(&packages)
        .status()?;
    anyhow::ensure!(status.success(), "the package was not made");
    let mut page = std::fs::File::create(packages.join("index.html"))?;
    write!(
        page,
        "<a href=\"small_package-1.0-py3-none-any.whl\">small_package-1.0-py3-none-any.whl</a>"
    )?;
    let serve = "import http.server, functools, sys\n\
                 handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n\
                 server = http.server.ThreadingHTTPServer(('127.0.0.2', 0), handler)\n\
                 print(server.server_port, flush=True)\nserver.serve_forever()";
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", serve])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().context("no stdout")?;
    let index = Index(child);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    Ok((index, line.trim().parse()?))
}

#[test]
fn a_package_is_installed_from_an_allowed_index_through_the_proxy() -> anyhow::Result<()> {
    let place = Place::new()?;
    let files = tempfile::tempdir()?;
    let (_index, port) = index(files.path())?;
    let policy = format!(
        "[network]\nmode = \"allowlist\"\nallow = [{{ host = \"127.0.0.2:{port}\", private = true }}]\n"
    );
    let mut client = place.start_under(&policy)?;
    let install = format!(
        "/usr/bin/python3 -m pip install -q --disable-pip-version-check --no-cache-dir --target packages \
         --index-url http://127.0.0.2:{port}/simple --trusted-host 127.0.0.2 small-package && \
         PYTHONPATH=packages /usr/bin/python3 -c 'import small_package; print(small_package.ANSWER)'"
    );
    let call = |network: &str| json!({"command": install, "network": network});
    let installed = client.ok("exec", &call("allowlist"))?;
    succeeded(&installed)?;
    assert_eq!(installed["stdout"]["text"], json!("42\n"));
    std::fs::remove_dir_all(place.workspace().join("packages"))?;
    let alone = client.ok("exec", &call("none"))?;
    assert_ne!(alone["exit_code"], json!(0));
    Ok(())
}

#[test]
fn a_toolchain_in_a_home_directory_is_two_commands_away() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new()?;
    let home = tempfile::Builder::new()
        .prefix("home")
        .tempdir_in("/var/tmp")?;
    let at = |name: &str| home.path().join(name);
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::create_dir_all(at(".tool/versions/1/bin"))?;
    std::fs::create_dir_all(at(".tool/data"))?;
    std::fs::create_dir_all(at(".ssh"))?;
    std::fs::write(at(".ssh/id_rsa"), "canary-key")?;
    std::fs::write(at(".tool/data/answer"), "42\n")?;
    let program = at(".tool/versions/1/bin/sometool");
    std::fs::write(
        &program,
        "#!/bin/sh\ncat \"$HOME/.ssh/id_rsa\" 2>/dev/null\ncat \"$HOME/.tool/data/answer\"\n",
    )?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/bin:/bin", at(".tool/versions/1/bin").display());
    let learn = place
        .command()
        .env("PATH", &path)
        .env("HOME", home.path())
        .args(["learn", "--", "sometool"])
        .output()?;
    let (policy, told) = (
        String::from_utf8(learn.stdout)?,
        String::from_utf8(learn.stderr)?,
    );
    assert!(
        learn.status.success() && told.contains("| 42"),
        "{told}{policy}"
    );
    assert!(
        told.contains("looks like a secret") && told.contains(".ssh"),
        "{told}"
    );
    assert!(
        policy.contains(".tool/versions") && !policy.contains(".ssh"),
        "{policy}"
    );
    assert!(!told.contains("canary-key"));

    crate::client::write_private(&place.path("policy.toml"), &policy)?;
    let mut command = place.command();
    command.env("PATH", &path).env("HOME", home.path());
    let mut client = crate::client::Client::start(
        command.args(["--policy", &place.path("policy.toml").to_string_lossy()]),
        &json!({}),
    )?;
    assert_eq!(client.exec("sometool")?["stdout"]["text"], json!("42\n"));
    let mut without = place.start()?;
    assert_eq!(without.exec("sometool")?["exit_code"], json!(127));
    Ok(())
}
