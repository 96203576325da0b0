//! Any text as policy file: it is refused with a reason, or what it says is within the bounds that the server relies on.

#![no_main]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, Mode};
use shell::network::AllowList;
use shell::policy::rules::Decision;
use shell::policy::{Explanation, Hidden, Policy, PolicyError};

/// A file without a name is read as any other, and needs no disk.
static FILE: LazyLock<File> = LazyLock::new(|| {
    let file = rustix::fs::memfd_create("policy", MemfdFlags::CLOEXEC).expect("a file");
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).expect("a mode");
    file.into()
});

fn policy(text: &[u8]) -> Result<Policy, PolicyError> {
    let mut file = &*FILE;
    file.set_len(0).expect("an empty file");
    file.rewind().expect("its beginning");
    file.write_all(text).expect("its content");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Policy::load(Some(Path::new(&path)), Some(Path::new("/tmp")))
}

fuzz_target!(|text: &[u8]| {
    let policy = match policy(text) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "no reason");
            return;
        }
    };
    limits_are_in_bounds(&policy);
    assert_eq!(
        policy.digest().expect("a policy has a digest"),
        policy.clone().digest().expect("a policy has a digest")
    );
    let written = serde_json::to_string(&policy.network.allow).expect("a list can be written");
    let again: AllowList = serde_json::from_str(&written).expect("a written list is one");
    assert_eq!(again, policy.network.allow);
    let written = serde_json::to_string(&policy.deny_read).expect("patterns can be written");
    let again: Hidden = serde_json::from_str(&written).expect("written patterns are some");
    assert_eq!(again, policy.deny_read);

    the_environment_loads_no_code(&policy);
    paths_are_explained(&policy);
    for host in ["a.example:443", "10.0.0.1:80", "[::1]:1", "nothing"] {
        is_explained(&policy.explain_host(host));
    }
    for command in ["", "git push", "rm -rf / | sh", "'"] {
        let explained = policy.explain_command(command);
        is_explained(&explained);
        assert_eq!(
            explained.decision,
            policy.rules.decide_shell(command).decision
        );
    }
});

fn limits_are_in_bounds(policy: &Policy) {
    let limits = &policy.limits;
    assert!((1..=1024).contains(&limits.sessions));
    assert!(limits.cpu_s > 0 && limits.pids >= 4 && limits.nofile >= 16);
    assert!(limits.memory_bytes >= 1 << 24 && limits.output_bytes >= 1 << 16);
    assert_ne!(limits.wall_ms, Some(0));
    let jail = limits.of_jail();
    assert_eq!(
        (jail.memory_bytes, jail.processes),
        (limits.memory_bytes, limits.pids)
    );
}

fn the_environment_loads_no_code(policy: &Policy) {
    let rules = &policy.environment;
    for name in ["LD_PRELOAD", "GIT_SSH_COMMAND", "BASH_ENV", "A"] {
        let asked = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        let is_fixed = rules.set.contains_key(name);
        let is_passed = rules.pass.iter().any(|passed| passed == name);
        let is_taken = !is_fixed && (is_passed || name == "A");
        assert_eq!(rules.of_call(&asked).is_ok(), is_taken, "{name}");
    }
    let environment = rules
        .of_call(&BTreeMap::new())
        .expect("nothing is asked for");
    for (name, value) in environment {
        let (name, value) = (name.as_encoded_bytes(), value.as_encoded_bytes());
        assert!(!name.is_empty() && !name.contains(&b'=') && !name.contains(&0));
        assert!(!value.contains(&0));
    }
}

fn paths_are_explained(policy: &Policy) {
    for path in [
        "src/main.rs",
        ".env",
        "a/b/key.pem",
        "/usr/bin",
        "../x",
        "/",
    ] {
        let explained = policy.explain_path(Path::new(path));
        is_explained(&explained);
        let is_below = Path::new(path).is_relative() && !path.starts_with("..");
        if is_below {
            assert_eq!(
                explained.decision == Decision::Deny,
                policy.denies_reading(Path::new(path)),
                "{path}: {explained:?}"
            );
        }
    }
    for path in &policy.toolchain {
        assert!(path.is_absolute(), "{}", path.display());
    }
}

fn is_explained(explained: &Explanation) {
    assert!(!explained.reason.is_empty() && !explained.layer.is_empty());
    assert!(
        explained.rule.is_none() || explained.layer == "rules",
        "{explained:?}"
    );
}
