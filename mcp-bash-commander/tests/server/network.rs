//! What commands reach over the network, and what is told of what they do not.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use crate::client::{Client, Place, missing};

/// A server on the host that answers every connection with a line; its port.
fn listen(address: &str) -> anyhow::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    let serving = listener.try_clone()?;
    std::thread::spawn(move || {
        for stream in serving.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n",
            );
        }
    });
    Ok((listener, port))
}

fn allowing(entry: &str) -> String {
    format!("[network]\nmode = \"allowlist\"\nallow = [{entry}]\n")
}

fn fetch(client: &mut Client, network: &str, url: &str) -> anyhow::Result<serde_json::Value> {
    let command = format!("curl -sS --max-time 5 {url}");
    client.ok("exec", &json!({"command": command, "network": network}))
}

#[test]
fn an_allowed_host_is_reached_and_every_refusal_is_told_exactly() -> anyhow::Result<()> {
    let place = Place::new()?;
    let (_allowed, port) = listen("127.0.0.2")?;
    let (other, other_port) = listen("127.0.0.3")?;
    let entry = format!("{{ host = \"127.0.0.2:{port}\", private = true }}");
    let mut client = place.start_under(&allowing(&entry))?;
    let reached = fetch(
        &mut client,
        "allowlist",
        &format!("http://127.0.0.2:{port}/"),
    )?;
    assert_eq!(reached["stdout"]["text"], json!("hello\n"), "{reached}");
    assert_eq!(reached["violations"], json!([]));

    let refused = fetch(
        &mut client,
        "allowlist",
        &format!("http://127.0.0.3:{other_port}/"),
    )?;
    let violation = &refused["violations"][0];
    assert_eq!(violation["source"], json!("proxy"), "{refused}");
    assert_eq!(violation["what"], json!(format!("127.0.0.3:{other_port}")));
    assert_eq!(violation["times"], json!(1));
    // Around the proxy there is nothing at all.
    let around = client.ok(
        "exec",
        &json!({"command": format!("env -u http_proxy -u ALL_PROXY -u all_proxy curl -sS --noproxy '*' http://127.0.0.2:{port}/"), "network": "allowlist"}),
    )?;
    assert_ne!(around["exit_code"], json!(0), "{around}");
    other.set_nonblocking(true)?;
    assert!(other.accept().is_err());
    Ok(())
}

#[test]
fn an_empty_list_allows_nothing_and_a_mode_is_a_limit() -> anyhow::Result<()> {
    let place = Place::new()?;
    let (_listener, port) = listen("127.0.0.1")?;
    let mut client = place.start_under(&allowing(""))?;
    let refused = fetch(
        &mut client,
        "allowlist",
        &format!("--noproxy x http://127.0.0.1:{port}/"),
    )?;
    assert_eq!(
        refused["violations"][0]["source"],
        json!("proxy"),
        "{refused}"
    );
    for network in ["none", "loopback"] {
        let alone = fetch(&mut client, network, &format!("http://127.0.0.1:{port}/"))?;
        assert_ne!(alone["exit_code"], json!(0), "{network}: {alone}");
    }
    let more = json!({"command": "true", "network": "host"});
    assert_eq!(client.error("exec", &more)?, "NETWORK_DENIED");
    let mut strict = place.start()?;
    let any = json!({"command": "true", "network": "loopback"});
    assert_eq!(strict.error("exec", &any)?, "NETWORK_DENIED");
    Ok(())
}

#[test]
fn the_hosts_network_is_had_only_by_policy_and_named_as_a_missing_layer() -> anyhow::Result<()> {
    let place = Place::new()?;
    let (_listener, port) = listen("127.0.0.1")?;
    let mut client = place.start_under("[network]\nmode = \"host\"\n")?;
    let reached = fetch(&mut client, "host", &format!("http://127.0.0.1:{port}/"))?;
    assert_eq!(reached["stdout"]["text"], json!("hello\n"), "{reached}");
    assert_eq!(missing(&reached), ["net_ns"]);
    Ok(())
}

#[test]
fn commands_of_a_session_share_its_network() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_under("[network]\nmode = \"loopback\"\n")?;
    let mut run = |command: &str, wait: &str| {
        client.ok(
            "exec",
            &json!({"command": command, "session": "s", "network": "loopback", "wait": {"until": wait}}),
        )
    };
    run(
        "mkdir -p /tmp/d; echo served > /tmp/d/f; exec python3 -m http.server 8000 -d /tmp/d",
        "none",
    )?;
    let fetched = run(
        "curl -sS --retry 20 --retry-connrefused --retry-delay 0 --retry-max-time 20 http://127.0.0.1:8000/f",
        "exit",
    )?;
    assert_eq!(fetched["stdout"]["text"], json!("served\n"), "{fetched}");
    Ok(())
}
