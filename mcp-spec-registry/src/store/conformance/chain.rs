//! The audit that every commit goes on with.

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::effect::protocol::SignedHead;

use super::{Fixture, is_refused, rows::*};
use crate::{
    audit::{EntryDraft, REDACTED, SIGNED_EVERY, Verifier},
    keys::VerifyingKeys,
    store::*,
};

fn verify(store: &dyn Store, keys: &VerifyingKeys) -> Result<u64> {
    let mut verifier = Verifier::new(keys, None)?;
    for entry in store.audit(1, u32::MAX)? {
        // Heads are not read through the trait; what is checked here is the chain and the tip.
        if !entry.seq.is_multiple_of(SIGNED_EVERY) {
            verifier.entry(&entry, None)?;
        }
    }
    Ok(verifier.finish(store.signed_head()?.as_ref())?.entries)
}

pub(super) fn chain(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    assert_eq!((store.audit_head()?, store.signed_head()?), (None, None));
    for number in 1..=30_u64 {
        let audit = [entry("one"), entry("two")].concat();
        let committed = store.commit(&Change {
            audit,
            sign_head: number == 7,
            ..Change::default()
        })?;
        assert_eq!(committed.seq, number * 2);
        assert_eq!(store.audit_head()?, Some((committed.seq, committed.hash)));
    }
    let entries = store.audit(59, 10)?;
    assert_eq!(
        entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [59, 60]
    );
    assert_eq!(verify(&*store, fixture.keys().verifying())?, 60);
    let SignedHead {
        seq,
        hash,
        signature,
    } = store.signed_head()?.context("a signed head")?;
    assert_eq!(seq, 60);
    assert!(
        fixture
            .keys()
            .verify(&SignedHead::signed_bytes(seq, &hash), &signature)
    );
    drop(store);
    assert_eq!(
        fixture.open()?.commit(&change(Vec::new()))?.seq,
        61,
        "the chain goes on after reopening"
    );
    Ok(())
}

pub(super) fn redaction(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    store.commit(&change(Vec::new()))?;
    is_refused(store.commit(&change(vec![Write::RedactPayload(1)])))
        .context("without an entry that says so")?;
    let says_so = EntryDraft {
        actor: "ana".into(),
        action: REDACTED.into(),
        subject: "audit:1".into(),
        payload: json!(null),
    };
    let redact = Change {
        writes: vec![Write::RedactPayload(1)],
        audit: vec![says_so],
        ..Change::default()
    };
    store.commit(&redact)?;
    assert_eq!(store.audit(1, 1)?[0].payload, None);
    assert_eq!(verify(&*store, fixture.keys().verifying())?, 2);
    is_refused(store.commit(&redact)).context("a second time")?;
    Ok(())
}
