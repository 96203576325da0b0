//! Versions of a specification: which may follow which, and who may add them.

use super::*;

/// The specification under another version, with another demand.
fn version(number: &str, demand: &str) -> String {
    SPECIFICATION
        .replace("1.0", number)
        .replace("- The file says hello", &format!("- {demand}"))
}

#[test]
fn versions_do_not_go_back() -> anyhow::Result<()> {
    let world = World::new()?;
    let add = |number: &str| {
        let text = version(number, &format!("The file says {number}"));
        world
            .registry
            .add_specification(text.as_bytes(), None, "human:ana")
    };
    for later in ["1.9", "1.10", "v2", "2.1.0-rc1", "2.1.0"] {
        add(later)?;
    }
    for earlier in ["1.1", "2.0", "2.1.0-rc2", "v2.1.0", "2.1"] {
        assert_eq!(code(add(earlier)), "VERSION_NOT_LATER", "{earlier}");
    }
    assert_eq!(code(add("1.9").map(|_| ())), "VERSION_EXISTS");
    let text = version("1.9", "The file says something else");
    let other_text = world
        .registry
        .add_specification(text.as_bytes(), None, "human:ana");
    assert_eq!(code(other_text.map(|_| ())), "VERSION_EXISTS");
    assert_eq!(
        world.registry.spec_get("hello", None)?.row.version,
        "2.1.0",
        "what was refused came into force"
    );

    // The same holds of agents.
    let newest = Digest::of(version("2.1.0", "The file says 2.1.0"));
    let propose = |number: &str| {
        let text = version(number, "The file shouts");
        world
            .registry
            .spec_propose(AGENT, &text, None, Some(&newest), "louder")
    };
    assert_eq!(code(propose("2.0.1").map(|_| ())), "VERSION_NOT_LATER");
    propose("2.2")?;
    Ok(())
}

#[test]
fn the_second_of_two_proposals_on_one_base_is_told_what_changed_meanwhile() -> anyhow::Result<()> {
    let world = World::new()?;
    let base = "spec_id: fast\nversion: 1.0\noutcome: It is fast\nsuccess_criteria:\n  speed:\n    - p95 latency < 200 ms\n    - Memory < 2 GB\n";
    world
        .registry
        .add_specification(base.as_bytes(), None, "human:ana")?;
    let digest = Digest::of(base);
    let propose = |text: &str| {
        world
            .registry
            .spec_propose(AGENT, text, None, Some(&digest), "x")
    };
    let first = base.replace("1.0", "1.1").replace("< 200 ms", "< 100 ms");
    propose(&first)?;

    let second = base
        .replace("1.0", "1.2")
        .replace("< 200 ms", "< 300 ms")
        .replace("< 2 GB", "< 1 GB");
    let told = propose(&second).err().context("both were taken")?;
    assert_eq!(told.code, "BASE_MISMATCH");
    for said in [
        "newest version of fast is 1.1",
        "since your base 1.0",
        "it tightened",
        "yours tightened",
        "loosened",
        "both change",
    ] {
        assert!(told.message.contains(said), "`{said}`: {}", told.message);
    }

    let apart = base.replace("1.0", "1.2").replace("< 2 GB", "< 1 GB");
    let told = propose(&apart).err().context("both were taken")?;
    let said = "no criterion is changed by both";
    assert!(told.message.contains(said), "{}", told.message);
    Ok(())
}
