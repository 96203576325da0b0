//! Versions of specifications, and how they are found.

use anyhow::{Context as _, Result};
use shared::digest::Digest;

use super::{Fixture, is_refused, rows::*};
use crate::store::*;

pub(super) fn versions(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    let rows = ["1.9", "1.10", "1.1"].map(|version| specification("web", version, "pages"));
    for row in &rows {
        store.commit(&change(vec![
            Write::InsertSpecification(row.clone()),
            Write::ActivateSpecification(row.digest.clone()),
        ]))?;
    }
    let found = store.specification_versions("web")?;
    let found: Vec<_> = found
        .iter()
        .map(|row| (row.version.as_str(), row.status))
        .collect();
    let (superseded, active) = (SpecificationStatus::Superseded, SpecificationStatus::Active);
    assert_eq!(
        found,
        [("1.9", superseded), ("1.10", superseded), ("1.1", active)]
    );
    let nothing = Write::ActivateSpecification(Digest::of("nothing"));
    is_refused(store.commit(&change(vec![nothing])))?;
    let expected = SpecificationRow {
        status: superseded,
        ..rows[0].clone()
    };
    assert_eq!(store.specification(&rows[0].digest)?, Some(expected));
    Ok(())
}

fn ids(hits: &[SpecificationHit]) -> Vec<&str> {
    hits.iter()
        .map(|hit| hit.specification.spec_id.as_str())
        .collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

pub(super) fn search(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    let rows = [
        specification("web", "1", "old words about zebras"),
        specification("web", "2", "static pages served quickly"),
        specification("database", "1", "rows are stored and backed up every night"),
        specification(
            "night-watch",
            "1",
            "alerts reach people at night, night after night",
        ),
    ];
    store.commit(&change(rows.map(Write::InsertSpecification).into()))?;
    let find = |text: &str| store.search_specifications(&words(text), 10, 0);
    assert_eq!(ids(&find("night")?), ["night-watch", "database"]);
    assert_eq!(
        ids(&find("serving page")?),
        ["web"],
        "words are found by their stem"
    );
    assert_eq!(find("zebras")?, [], "only newest versions are found");
    assert!(find("night")?.iter().all(|hit| hit.score > 0.0));
    let all = store.search_specifications(&[], 2, 0)?;
    let rest = store.search_specifications(&[], 2, 2)?;
    assert_eq!(
        (ids(&all), ids(&rest)),
        (vec!["database", "night-watch"], vec!["web"])
    );
    assert_eq!(
        ids(&store.search_specifications(&words("night"), 1, 1)?),
        ["database"]
    );
    Ok(())
}

pub(super) fn hostile_words(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    store.commit(&change(vec![Write::InsertSpecification(specification(
        "web",
        "1",
        "static pages",
    ))]))?;
    let hostile = [
        "\"",
        "' OR 1=1 --",
        "NEAR(",
        "spec_id:",
        "*",
        "^",
        "AND",
        "a\0b",
        "{title}",
        "(((",
        "-",
        "🦓",
        "\u{202e}",
        ";",
    ];
    for word in hostile {
        assert_eq!(
            store
                .search_specifications(&[word.into()], 10, 0)
                .context(word)?
                .len(),
            usize::from(finds_all(word))
        );
    }
    let with_a_good_one = [hostile.map(str::to_owned).to_vec(), vec!["pages".into()]].concat();
    assert_eq!(
        ids(&store.search_specifications(&with_a_good_one, 10, 0)?),
        ["web"]
    );
    let many: Vec<String> = (0..10_000).map(|number| format!("w{number}")).collect();
    store.search_specifications(&many, 10, 0)?;
    store.search_specifications(&["x".repeat(100_000)], 10, 0)?;
    Ok(())
}

/// Without a letter or digit there is no word, and all are listed.
fn finds_all(word: &str) -> bool {
    !word.chars().any(char::is_alphanumeric)
}
