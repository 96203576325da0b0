//! Any host, allow list and request head: refused, or read in the one spelling that stays itself and that an entry is for.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use shell::network::http::destination;
use shell::network::{AllowList, Decision, WrittenEntry, canonical};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((first, rest)) = bytes.split_first() else {
        return Corpus::Reject;
    };
    match first % 3 {
        0 => {
            if let Some(read) = canonical(rest) {
                is_canonical(&read);
            }
        }
        1 => {
            if let Ok(Some(read)) = destination(rest) {
                is_canonical(&read);
                let target = rest.split(|byte| *byte == b' ').nth(1).expect("a target");
                let spelled = target.to_ascii_lowercase();
                let (host, _) = read.rsplit_once(':').expect("a port");
                let found = spelled
                    .windows(host.len())
                    .any(|part| part == host.as_bytes());
                assert!(
                    found || host.starts_with('['),
                    "{host} is not in the target"
                );
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else {
                return Corpus::Reject;
            };
            let (host, entries) = text.split_once('\n').unwrap_or((text, ""));
            of_list(host, entries);
        }
    }
    Corpus::Keep
});

/// A destination as the resolver and the kernel get it.
fn is_canonical(read: &str) {
    assert_eq!(canonical(read.as_bytes()).as_deref(), Some(read));
    assert!(read.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(!read.contains(['@', '/', '%', '\\', '*', '?', '#']));
    assert!(!read.bytes().any(|byte| byte.is_ascii_uppercase()));
}

fn of_list(host: &str, entries: &str) {
    let written: Vec<WrittenEntry> = entries
        .lines()
        .map(|line| match line.strip_prefix('!') {
            Some(host) => WrittenEntry {
                host: host.to_owned(),
                private: true,
            },
            None => line.into(),
        })
        .collect();
    let Ok(list) = AllowList::new(&written) else {
        return;
    };
    assert_eq!(list.entries().len(), written.len());
    let json = serde_json::to_string(&list).expect("a list can be written");
    let again: AllowList = serde_json::from_str(&json).expect("a written list is one");
    assert_eq!(again, list);
    let Decision::Allowed {
        host: allowed,
        port,
        entry,
        private,
    } = list.explain(host)
    else {
        return;
    };
    let read = format!("{allowed}:{port}");
    is_canonical(&read);
    assert_eq!(canonical(host.as_bytes()).as_ref(), Some(&read));
    match entry.strip_prefix('*') {
        None => assert_eq!(entry, read),
        Some(below) => assert!(
            read.ends_with(below) && read.len() > below.len(),
            "{read} is not below {below}"
        ),
    }
    assert!(!private || entries.contains('!'));
}
