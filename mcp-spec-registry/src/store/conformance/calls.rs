//! What is read before a call is allowed, and before its end is recorded.

use super::*;

pub(super) fn what_decides_about_a_call(fixture: &impl Fixture) -> Result<()> {
    let (store, run) = with_a_run(fixture)?;
    let of = |id: &str, step: &str, revision: u32, cycle: u32, outcome: Option<Outcome>| {
        Write::InsertAction(Action {
            action_id: id.into(),
            idempotency_key: format!("key of {id}"),
            step_id: step.into(),
            revision,
            cycle,
            outcome,
            ..action("r1")
        })
    };
    let (plan, cycle) = (run.plan_revision, run.cycle);
    store.commit(&change(vec![
        of("earlier plan", "s1", plan + 1, cycle, Some(Outcome::Ok)),
        of("earlier cycle", "s1", plan, cycle + 1, Some(Outcome::Ok)),
        of("failed", "s1", plan, cycle, Some(Outcome::Error)),
        of("first done", "s1", plan, cycle, Some(Outcome::Ok)),
        of("done again", "s1", plan, cycle, Some(Outcome::Ok)),
        of("open", "s2", plan, cycle, None),
        of("lost", "s2", plan, cycle, Some(Outcome::Unknown)),
    ]))?;
    store.commit(&change(vec![Write::InsertGrant(grant("r1"))]))?;
    let Grant {
        handle_sha256,
        service,
        ..
    } = grant("r1");
    let call = |service: &str, key: &str| store.call(&handle_sha256, service, key);
    let CallRecord {
        run: of_run,
        grant: of_grant,
        known,
        done_steps,
    } = call(&service, "key of lost")?.context("no call")?;
    assert_eq!((of_run, of_grant), (run.clone(), grant("r1")));
    assert_eq!(
        known.map(|action| action.action_id).as_deref(),
        Some("lost")
    );
    assert_eq!(done_steps, ["s1"]);
    let unknown_key = call(&service, "another key")?.context("no call")?;
    assert_eq!(unknown_key.known, None);
    let other_service = call("another service", "key of lost")?.context("no call")?;
    assert_eq!(other_service.known, None);
    assert_eq!(
        store.call(&Digest::of("no handle"), &service, "key of lost")?,
        None
    );

    let found = store.action("lost")?.context("no action")?;
    assert_eq!((found.0, &*found.1.action_id), (run, "lost"));
    assert_eq!(store.action("key of lost")?, None);
    Ok(())
}
