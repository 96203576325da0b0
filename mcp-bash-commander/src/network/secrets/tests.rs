//! Which secrets a policy can have, and what they are added to.

use super::*;

fn secrets(allow: &str, tables: &str) -> anyhow::Result<Result<Secrets, SecretError>> {
    #[derive(Deserialize)]
    struct Document {
        allow: AllowList,
        secrets: BTreeMap<String, WrittenSecret>,
    }
    let Document { allow, secrets } = toml::from_str(&format!("allow = [{allow}]\n{tables}"))?;
    Ok(Secrets::new(secrets, &allow))
}

#[test]
fn a_secret_is_added_to_plain_requests_to_its_host_and_to_no_others() -> anyhow::Result<()> {
    let secrets = secrets(
        r#""api.github.com:443", "*.example.org:8443", { host = "127.0.0.1:8080", private = true }"#,
        r#"
        [secrets.gh]
        from_env = "GH_TOKEN"
        inject = { host = "API.github.com", header = "Authorization", value = "Bearer {}" }
        [secrets.odd]
        from_file = "/run/odd"
        inject = { host = "a.example.org", port = 8443, header = "X-Key" }
        [secrets.local]
        from_env = "LOCAL"
        inject = { host = "127.0.0.1", port = 8080, header = "X-Key", tls = false }
        "#,
    )??;
    for (asked, name, url) in [
        ("api.github.com:80", "gh", "http://api.github.com/"),
        ("Api.GitHub.com.:443", "gh", "http://api.github.com/"),
        ("a.example.org:8443", "odd", "http://a.example.org:8443/"),
        ("127.0.0.1:8080", "local", "http://127.0.0.1:8080/"),
    ] {
        let expected = format!("secret {name} is added to requests to {url}");
        assert_eq!(secrets.explain(asked), Some(expected), "{asked}");
    }
    for asked in [
        "api.github.com:8080",
        "github.com:443",
        "api.github.com.evil.test:80",
        "a.example.org:80",
        "b.example.org:8443",
        "127.0.0.1:80",
        "127.0.0.2:8080",
        "api.github.com",
    ] {
        assert_eq!(secrets.explain(asked), None, "{asked}");
    }
    Ok(())
}

#[test]
fn a_secret_that_could_not_be_kept_or_used_is_refused_by_name() -> anyhow::Result<()> {
    const INJECT: &str = r#"inject = { host = "api.github.com", header = "Authorization" }"#;
    let allow = r#""api.github.com:443", "api.github.com:80""#;
    for (table, words) in [
        (INJECT.to_owned(), "one of from_env"),
        (
            format!("from_env = \"A\"\nfrom_file = \"/a\"\n{INJECT}"),
            "one of from_env",
        ),
        (format!("from_file = \"a\"\n{INJECT}"), "one of from_env"),
        (format!("from_env = \"A=B\"\n{INJECT}"), "one of from_env"),
        (
            r#"from_env = "A"
            inject = { host = "api.github.com:443", header = "Authorization" }"#
                .to_owned(),
            "inject.host, without a port",
        ),
        (
            r#"from_env = "A"
            inject = { host = "api.github.com", port = 0, header = "Authorization" }"#
                .to_owned(),
            "`0` is no port",
        ),
        (
            r#"from_env = "A"
            inject = { host = "gist.github.com", header = "Authorization" }"#
                .to_owned(),
            "is for `gist.github.com:443`, which [network] allow does not have",
        ),
        (
            r#"from_env = "A"
            inject = { host = "api.github.com", header = "Authorization", tls = false }"#
                .to_owned(),
            "must say private = true",
        ),
        (
            r#"from_env = "A"
            inject = { host = "api.github.com", header = "Transfer-Encoding" }"#
                .to_owned(),
            "inject.header is `Transfer-Encoding`",
        ),
        (
            r#"from_env = "A"
            inject = { host = "api.github.com", header = "A B" }"#
                .to_owned(),
            "inject.header is `A B`",
        ),
        (
            r#"from_env = "A"
            inject = { host = "api.github.com", header = "X-Key", value = "Bearer" }"#
                .to_owned(),
            "with {} once",
        ),
        (
            r#"from_env = "A"
            inject = { host = "api.github.com", header = "X-Key", value = "{}\r\nX: {}" }"#
                .to_owned(),
            "with {} once",
        ),
    ] {
        let refused = secrets(allow, &format!("[secrets.gh]\n{table}"))?
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(refused.contains("[secrets.gh]"), "{table}: {refused}");
        assert!(refused.contains(words), "{table}: {refused}");
    }
    let table = format!("from_env = \"A\"\n{INJECT}");
    let named = secrets(allow, &format!("[secrets.\"g h\"]\n{table}"))?;
    assert_eq!(named, Err(SecretError::Name("g h".to_owned())));
    let twice = secrets(
        allow,
        &format!("[secrets.a]\n{table}\n[secrets.b]\n{table}"),
    )?;
    assert_eq!(
        twice,
        Err(SecretError::Twice {
            first: "a".to_owned(),
            second: "b".to_owned(),
            url: "http://api.github.com/".to_owned()
        })
    );
    for unknown in ["from_vault = \"x\"", "inject.prefix = \"Bearer \""] {
        let text = format!(
            "[secrets.gh]\n{unknown}\nfrom_env = \"A\"\ninject.host = \"a\"\ninject.header = \"b\""
        );
        assert!(secrets(allow, &text).is_err(), "{unknown}");
    }
    Ok(())
}
