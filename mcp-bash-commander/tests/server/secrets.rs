//! Secrets that commands use and never have.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::client::{Client, Place, write_private};

const SECRET: &str = "canary-9184-of-the-operator";

/// A certificate for localhost that is good for nothing but tests.
const CERTIFICATE: &str = include_str!("../../../shared/src/serve/tests/tls-cert.pem");
const KEY: &str = include_str!("../../../shared/src/serve/tests/tls-key.pem");

/// A host that answers each request with the request, in a header and as its body.
struct Echo {
    port: u16,
    requests: Receiver<String>,
}

impl Echo {
    fn plain(address: &str) -> anyhow::Result<Self> {
        Self::start(address, |stream| Ok(Box::new(stream)))
    }

    fn encrypted(address: &str) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes())?],
                PrivateKeyDer::from_pem_slice(KEY.as_bytes())?,
            )?;
        let config = Arc::new(config);
        Self::start(address, move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config))?;
            Ok(Box::new(StreamOwned::new(connection, stream)))
        })
    }

    fn start(
        address: &str,
        open: impl Fn(std::net::TcpStream) -> anyhow::Result<Box<dyn ReadWrite>> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let port = listener.local_addr()?.port();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who does not trust the certificate hangs up.
                let Ok(request) = open(stream).and_then(|mut stream| answer(&mut *stream)) else {
                    continue;
                };
                if sender.send(request).is_err() {
                    break;
                }
            }
        });
        Ok(Self { port, requests })
    }

    /// The request that came since the last look, if one did.
    fn request(&self) -> Option<String> {
        self.requests.try_recv().ok()
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn answer(stream: &mut dyn ReadWrite) -> anyhow::Result<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request)?;
    let sent = request
        .lines()
        .find(|line| line.starts_with("authorization"))
        .unwrap_or("none");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nX-Sent: {sent}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{request}",
        request.len()
    )?;
    stream.flush()?;
    Ok(request)
}

/// A policy with a secret for this host and port, and the words after `inject`.
fn policy(host: &str, port: u16, source: &str, more: &str) -> String {
    format!(
        "[network]\nmode = \"allowlist\"\nallow = [{{ host = \"{host}:{port}\", private = true }}]\n\
         [secrets.gh]\n{source}\n\
         inject = {{ host = \"{host}\", port = {port}, header = \"Authorization\", value = \"Bearer {{}}\"{more} }}\n"
    )
}

/// A server whose environment has the secret, with all it logs in a file.
fn start(place: &Place, policy: &str, change: impl Fn(&mut Command)) -> anyhow::Result<Client> {
    let mut command = place.command();
    command
        .arg("--policy")
        .arg(place.policy(policy)?)
        .env("GH_TOKEN", SECRET)
        .env("BASH_COMMANDER_LOG", "trace")
        .stderr(File::create(place.path("log"))?);
    change(&mut command);
    Client::start(&mut command, &json!({}))
}

fn run(client: &mut Client, command: &str) -> anyhow::Result<Value> {
    client.ok("exec", &json!({"command": command, "network": "allowlist"}))
}

/// Everything the server wrote to files.
fn written(place: &Place) -> anyhow::Result<String> {
    let mut all = fs::read_to_string(place.path("log"))?;
    for entry in fs::read_dir(place.path("state"))? {
        all += &String::from_utf8_lossy(&fs::read(entry?.path()).unwrap_or_default());
    }
    Ok(all)
}

#[test]
fn a_command_uses_a_secret_that_it_never_has() -> anyhow::Result<()> {
    let place = Place::new()?;
    let host = Echo::plain("127.0.0.2")?;
    let port = host.port;
    let with = policy(
        "127.0.0.2",
        port,
        "from_env = \"GH_TOKEN\"",
        ", tls = false",
    );
    let mut client = start(&place, &with, |_| {})?;
    let fetch = format!("curl -sS -i -H 'Authorization: mine' http://127.0.0.2:{port}/a");
    let mut results = vec![run(&mut client, &fetch)?];
    let request = host.request().context("nothing came")?;
    let header = format!("authorization: Bearer {SECRET}\r\n");
    assert!(request.contains(&header), "{request}");
    assert!(!request.contains("mine"), "{request}");
    let answered = results[0]["stdout"]["text"].to_string();
    let masked = "*".repeat(SECRET.len());
    let stars = answered.matches(&format!("Bearer {masked}")).count();
    assert_eq!(stars, 2, "{answered}");

    // It is in the server's environment, and nowhere that a command can look.
    let server = fs::read(format!("/proc/{}/environ", client.id()))?;
    assert!(
        String::from_utf8_lossy(&server).contains(SECRET),
        "the control"
    );
    for look in [
        "env; export -p; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'",
        "grep -ra canary-91[8]4 / --exclude-dir=sys --exclude-dir=usr 2>/dev/null; true",
        &format!("curl -sS -v -X TRACE http://127.0.0.2:{port}/"),
    ] {
        results.push(run(&mut client, look)?);
    }
    for (tool, arguments) in [
        ("explain", json!({"host": format!("127.0.0.2:{port}")})),
        ("doctor", json!({})),
        ("list_sessions", json!({})),
        ("read_output", json!({"id": results[0]["id"]})),
    ] {
        results.push(client.ok(tool, &arguments)?);
    }
    let explained = results[4]["reason"].to_string();
    let words = format!("secret gh is added to requests to http://127.0.0.2:{port}/");
    assert!(explained.contains(&words), "{explained}");
    client.close()?;
    let everything = format!("{}{}", json!(results), written(&place)?);
    assert!(
        everything.contains("a command was connected"),
        "the control"
    );
    assert!(!everything.contains("canary-9184"), "{everything}");

    // The control: without the table the host gets what the command sent.
    let allow = &with[..with.find("[secrets").unwrap_or_default()];
    let mut client = place.start_under(allow)?;
    run(&mut client, &fetch)?;
    while let Some(request) = host.request() {
        if request.contains("mine") {
            return Ok(());
        }
    }
    anyhow::bail!("the control: the command's own header did not come")
}

#[test]
fn a_secret_goes_over_tls_to_whom_the_machine_trusts_and_to_nobody_else() -> anyhow::Result<()> {
    let place = Place::new()?;
    let authorities = place.path("authorities.pem");
    fs::write(&authorities, CERTIFICATE)?;
    let trusting = |command: &mut Command| {
        command.env("SSL_CERT_FILE", &authorities);
    };
    let host = Echo::encrypted("127.0.0.1")?;
    let port = host.port;
    let fetch = |name: &str| format!("curl -sS --noproxy x http://{name}:{port}/");
    let source = "from_env = \"GH_TOKEN\"";

    let mut client = start(&place, &policy("localhost", port, source, ""), trusting)?;
    let done = run(&mut client, &fetch("localhost"))?;
    assert_eq!(done["violations"], json!([]), "{done}");
    let request = host.request().context("nothing came")?;
    assert!(
        request.contains(&format!("authorization: Bearer {SECRET}\r\n")),
        "{request}"
    );
    assert!(
        request.contains(&format!("host: localhost:{port}\r\n")),
        "{request}"
    );
    // What the command encrypts itself is passed through as it is.
    let own = format!("curl -sS -k --noproxy x https://localhost:{port}/own");
    run(&mut client, &own)?;
    let request = host.request().context("nothing came")?;
    assert!(
        request.starts_with("GET /own ") && !request.contains("canary"),
        "{request}"
    );
    drop(client);

    // A certificate that is not for this name, and one that nobody here vouches for.
    let other = Echo::encrypted("127.0.0.2")?;
    for (name, host, change) in [
        ("127.0.0.2", &other, &trusting as &dyn Fn(&mut Command)),
        ("localhost", &host, &|_: &mut Command| {}),
    ] {
        let port = host.port;
        let mut client = start(&place, &policy(name, port, source, ""), change)?;
        let refused = run(
            &mut client,
            &format!("curl -sS --noproxy x http://{name}:{port}/"),
        )?;
        let violation = &refused["violations"][0];
        assert_eq!(
            violation["what"],
            json!(format!("{name}:{port}")),
            "{refused}"
        );
        assert!(
            violation["why"].to_string().contains("certificate"),
            "{refused}"
        );
        assert_eq!(host.request(), None, "{name}");
    }
    Ok(())
}

#[test]
fn without_its_secret_a_request_is_refused_by_name_and_doctor_says_why() -> anyhow::Result<()> {
    let place = Place::new()?;
    let host = Echo::plain("127.0.0.2")?;
    let port = host.port;
    let with = policy(
        "127.0.0.2",
        port,
        "from_env = \"GH_TOKEN\"",
        ", tls = false",
    );
    let mut client = start(&place, &with, |command| {
        command.env_remove("GH_TOKEN");
    })?;
    let refused = run(&mut client, &format!("curl -sS http://127.0.0.2:{port}/"))?;
    let violation = &refused["violations"][0];
    assert_eq!(
        (&violation["source"], &violation["what"]),
        (&json!("proxy"), &json!(format!("127.0.0.2:{port}"))),
        "{refused}"
    );
    assert!(
        violation["why"].to_string().contains("secret `gh`"),
        "{refused}"
    );
    assert_eq!(host.request(), None);
    let report = client.ok("doctor", &json!({}))?;
    let check = report["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["check"] == "secret gh"))
        .context("nothing about the secret")?;
    assert_eq!(check["status"], json!("warn"));
    assert!(
        check["detail"]
            .to_string()
            .contains("`GH_TOKEN` is not set"),
        "{check}"
    );
    Ok(())
}

#[test]
fn a_secret_in_a_file_is_read_for_each_request_and_lies_where_no_command_reads()
-> anyhow::Result<()> {
    let place = Place::new()?;
    let host = Echo::plain("127.0.0.2")?;
    let port = host.port;
    let from = |path: &std::path::Path| format!("from_file = \"{}\"", path.display());
    let inside = place.workspace().join("token");
    write_private(&inside, SECRET)?;
    let reachable = place.policy(&policy("127.0.0.2", port, &from(&inside), ", tls = false"))?;
    let refused = place.run(&["--check-config", "--policy", &reachable.to_string_lossy()])?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("file of a secret"),
        "{text}"
    );

    let token = place.path("token");
    let mut client =
        place.start_under(&policy("127.0.0.2", port, &from(&token), ", tls = false"))?;
    let fetch = format!("curl -sS http://127.0.0.2:{port}/");
    for secret in ["canary-first", "canary-second"] {
        write_private(&token, secret)?;
        run(&mut client, &fetch)?;
        let request = host.request().context("nothing came")?;
        assert!(
            request.contains(&format!("Bearer {secret}\r\n")),
            "{request}"
        );
    }
    let before = run(&mut client, &format!("cat {}", token.display()))?;
    assert_ne!(before["exit_code"], json!(0), "{before}");
    Ok(())
}
