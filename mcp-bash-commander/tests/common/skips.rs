//! What a test does where this machine lacks something.

/// Skips `what` by name; on CI a lack is an error.
pub(crate) fn skip(what: &str, lack: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::env::var_os("CI").is_none_or(|value| value != "1"),
        "{what} needs {lack}, and with CI=1 nothing is skipped"
    );
    eprintln!("skipped: {what} needs {lack}");
    Ok(())
}

/// An image with a shell by its digest, where an engine has one; `tests/servers/docker` starts it.
pub(crate) fn container_image() -> anyhow::Result<Option<String>> {
    match std::env::var("CONTAINER_IMAGE") {
        Ok(image) => Ok(Some(image)),
        Err(_) => skip(
            "jails in containers",
            "an engine, which tests/servers/docker starts",
        )
        .map(|()| None),
    }
}
