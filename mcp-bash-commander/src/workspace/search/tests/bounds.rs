//! What ends or cuts a search.

use super::*;

#[test]
fn a_long_line_is_shown_around_the_match_at_borders_of_characters() -> anyhow::Result<()> {
    let long = format!("{}needle{}", "ü".repeat(1 << 20), "漢".repeat(1 << 20));
    let place = Place::new(&[("f", &format!("{long}\nneedle"))])?;
    let context = Report::Lines { context: 1 };
    let found = place.search(&Query {
        report: context,
        ..query("needle")
    })?;
    assert_eq!(places(&found), [("f", 1, (1 << 20) + 1), ("f", 2, 1)]);
    let text = &found.matches[0].text;
    assert!(text.cut_before && text.cut_after);
    assert!(text.text.len() <= 500 && text.text.len() > 490);
    assert!(
        text.text.starts_with("üü") && text.text.contains("üneedle漢") && text.text.ends_with('漢')
    );
    let before = &found.matches[1].before[0];
    assert!(!before.cut_before && before.cut_after && before.text.ends_with('ü'));
    // Wherever a match lies in a line that is looked through in parts.
    for position in (240 << 10..300 << 10).step_by(977) {
        place.write(
            "f",
            format!("{}needle{}", "-".repeat(position), "-".repeat(1 << 20)),
        )?;
        assert_eq!(
            places(&place.search(&query("needle"))?),
            [("f", 1, position + 1)]
        );
    }
    Ok(())
}

#[test]
fn results_are_bounded_and_all_are_counted() -> anyhow::Result<()> {
    let place = Place::new(&[("a", &"x\n".repeat(2000)), ("b", "x"), ("c", "x")])?;
    let found = place.search(&Query {
        most: 3,
        ..query("x")
    })?;
    assert_eq!(
        (found.matches.len(), found.total, found.files_searched),
        (3, 2002, 3)
    );
    assert_eq!(found.truncated, [Bound::Results].into());
    let found = place.search(&Query {
        most: 2,
        report: Report::Files,
        ..query("x")
    })?;
    assert_eq!((found.files.len(), found.total), (2, 3));
    assert_eq!(found.truncated, [Bound::Results].into());

    let place = Place::new(&[("a", &format!("{}\n", "x".repeat(1000)).repeat(2000))])?;
    let context = Report::Lines { context: 5 };
    let found = place.search(&Query {
        most: 1000,
        report: context,
        ..query("x")
    })?;
    let bytes: usize = found
        .matches
        .iter()
        .map(|found| found.text.text.len() * 11)
        .sum();
    assert!(bytes <= 300 << 10 && bytes > 200 << 10, "{bytes}");
    assert_eq!(
        (found.total, found.truncated),
        (2000, [Bound::Bytes].into())
    );
    Ok(())
}

#[test]
fn folders_are_entered_to_a_depth() -> anyhow::Result<()> {
    let deep = |depth: usize| "d/".repeat(depth) + "f";
    let place = Place::new(&[(&deep(63), "x"), (&deep(64), "x")])?;
    let found = place.search(&query("x"))?;
    assert_eq!(places(&found), [(deep(63).as_str(), 1, 1)]);
    assert_eq!(found.truncated, [Bound::Depth].into());
    Ok(())
}

#[test]
fn a_cancelled_search_returns_what_it_found() -> anyhow::Result<()> {
    let place = Place::new(&[
        ("a", "x"),
        ("b", "x"),
        ("c", &"-".repeat(1 << 20)),
        ("d", "x"),
    ])?;
    let mut whole = 0;
    for asked in 0..30_u32 {
        let left = Cell::new(asked);
        let cancelled = || left.replace(left.get().saturating_sub(1)) == 0;
        let found = place
            .workspace
            .search(&query("x"), &|_| false, &cancelled)?;
        if found.truncated.is_empty() {
            assert_eq!((found.total, found.files_searched), (3, 4));
            whole += 1;
        }
        assert_eq!(found.matches.len() as u64, found.total);
    }
    assert!((1..30).contains(&whole), "{whole}");
    Ok(())
}

#[test]
fn patterns_made_to_be_slow_end_in_time_and_can_be_cancelled() -> anyhow::Result<()> {
    let place = Place::new(&[
        ("line", &"a".repeat(1 << 20)),
        ("lines", &"aaaaaaaaaaaaaaaaaaaaaaa\n".repeat(10_000)),
    ])?;
    for pattern in [
        "(a+)+$x",
        "(a|aa)+b",
        "(.*)*x",
        "(a?){50}a{50}b",
        "(?:a{1,30}){1,30}[^a]",
    ] {
        let started = Instant::now();
        let cancelled = || started.elapsed() > Duration::from_secs(2);
        let found = place
            .workspace
            .search(&query(pattern), &|_| false, &cancelled)?;
        assert!(
            found.total == 0 && started.elapsed() < Duration::from_secs(15),
            "{pattern}: {:?}",
            started.elapsed()
        );
    }
    Ok(())
}
