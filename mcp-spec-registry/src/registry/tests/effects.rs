//! The effect plane: what a handle is good for, and everything it is not.

use super::*;

#[tokio::test]
async fn a_handle_works_once_for_its_agent_on_its_server_with_its_arguments() -> anyhow::Result<()>
{
    let world = World::new()?;
    let (_, begun) = world.begun().await?;
    let honest = write_hello(&begun, 1)?;
    let other = |change: &dyn Fn(&mut Begin)| {
        let mut call = honest.clone();
        change(&mut call);
        call.idempotency_key = "attack".to_owned();
        call
    };
    let with = |arguments: Value| {
        other(&|call: &mut Begin| {
            call.arguments = super::call("", "", arguments.clone(), 0).arguments;
        })
    };
    for (what, attack, expected) in [
        (
            "another principal",
            other(&|call| call.principal = "other-agent".to_owned()),
            "GRANT_NOT_YOURS",
        ),
        (
            "no handle",
            other(&|call| call.grant = "gr_0".to_owned()),
            "GRANT_UNKNOWN",
        ),
        (
            "another tool",
            other(&|call| call.tool = "exec".to_owned()),
            "GRANT_NOT_COVERED",
        ),
        (
            "another path",
            with(json!({ "path": "hello2.txt", "content": "hello" })),
            "GRANT_NOT_COVERED",
        ),
        (
            "one byte more",
            with(json!({ "path": "hello.txt", "content": "hello\n" })),
            "GRANT_NOT_COVERED",
        ),
        (
            "an argument added",
            with(json!({ "path": "hello.txt", "content": "hello", "expect_sha256": "x" })),
            "GRANT_NOT_COVERED",
        ),
        (
            "an argument left out",
            with(json!({ "path": "hello.txt" })),
            "GRANT_NOT_COVERED",
        ),
    ] {
        assert_eq!(
            code(world.registry.begin("shell", &attack)),
            expected,
            "{what}"
        );
    }
    let elsewhere = other(&|call| call.instance = "other-shell-1".to_owned());
    assert_eq!(
        code(world.registry.begin("other-shell", &elsewhere)),
        "GRANT_OTHER_SERVICE"
    );
    assert_eq!(
        world.audited("effect.refused")?,
        8,
        "every refusal is on record"
    );

    let permit = world.registry.begin("shell", &honest)?;
    // The same question again, as after a lost answer, is answered the same; a new one is not.
    assert_eq!(
        world.registry.begin("shell", &honest)?.action_id,
        permit.action_id
    );
    let second = Begin {
        idempotency_key: "second".to_owned(),
        seq: 2,
        ..honest
    };
    assert_eq!(
        code(world.registry.begin("shell", &second)),
        "GRANT_USED_UP"
    );
    Ok(())
}

#[tokio::test]
async fn cwd_or_env_beside_an_approved_command_is_refused() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_, begun) = world.begun().await?;
    let first = world.registry.begin("shell", &write_hello(&begun, 1)?)?;
    world.registry.end("shell", &ended(&first.action_id, 2))?;
    let grant = &begun.steps[1].grant;
    for (seq, added) in [
        (3, json!({ "cwd": "/etc" })),
        (4, json!({ "env": { "LD_PRELOAD": "x.so" } })),
    ] {
        let mut arguments = json!({ "command": "cat hello.txt" });
        arguments
            .as_object_mut()
            .context("no object")?
            .extend(added.as_object().cloned().unwrap_or_default());
        assert_eq!(
            code(
                world
                    .registry
                    .begin("shell", &call(grant, "exec", arguments, seq))
            ),
            "GRANT_NOT_COVERED"
        );
    }
    let at_default = json!({ "command": "cat hello.txt", "cwd": ".", "env": {} });
    world
        .registry
        .begin("shell", &call(grant, "exec", at_default, 5))?;
    Ok(())
}

#[tokio::test]
async fn steps_come_in_the_order_of_the_plan() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_, begun) = world.begun().await?;
    let look = call(
        &begun.steps[1].grant,
        "exec",
        json!({ "command": "cat hello.txt" }),
        1,
    );
    assert_eq!(code(world.registry.begin("shell", &look)), "STEP_ORDER");
    let write = world.registry.begin("shell", &write_hello(&begun, 2)?)?;
    let look = Begin {
        seq: 3,
        idempotency_key: "later".to_owned(),
        ..look
    };
    assert_eq!(
        code(world.registry.begin("shell", &look)),
        "STEP_ORDER",
        "begun is not done"
    );
    world.registry.end("shell", &ended(&write.action_id, 4))?;
    world.registry.begin(
        "shell",
        &Begin {
            seq: 5,
            idempotency_key: "last".to_owned(),
            ..look
        },
    )?;
    Ok(())
}

#[tokio::test]
async fn of_64_uses_at_once_of_a_single_use_handle_one_is_allowed() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_, begun) = world.begun().await?;
    let honest = write_hello(&begun, 1)?;
    let barrier = std::sync::Barrier::new(64);
    let codes: Vec<String> = std::thread::scope(|scope| {
        let uses: Vec<_> = (0..64)
            .map(|number| {
                let call = Begin {
                    idempotency_key: format!("k{number}"),
                    ..honest.clone()
                };
                let (barrier, registry) = (&barrier, &world.registry);
                scope.spawn(move || {
                    barrier.wait();
                    code(registry.begin("shell", &call))
                })
            })
            .collect();
        uses.into_iter()
            .filter_map(|used| used.join().ok())
            .collect()
    });
    let allowed = codes
        .iter()
        .filter(|code| code.starts_with("not refused"))
        .count();
    let used_up = codes.iter().filter(|code| *code == "GRANT_USED_UP").count();
    assert_eq!((allowed, used_up), (1, 63), "{codes:?}");
    Ok(())
}

#[tokio::test]
async fn after_pause_completion_deviation_expiry_or_a_lost_lease_no_handle_works()
-> anyhow::Result<()> {
    // Each world has its own run and a handle that works until the moment that is tried.
    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    world.registry.pause(&run.run_id, "uid:0", "look first")?;
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 1)?)),
        "RUN_PAUSED"
    );
    assert_eq!(
        code(world.registry.resume(&run.run_id, "ana", "guess", "go")),
        "SECRET_WRONG"
    );
    world.registry.resume(&run.run_id, "ana", SECRET, "go")?;
    world.registry.begin("shell", &write_hello(&begun, 2)?)?;

    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    world
        .registry
        .generation_complete(AGENT, &run.run_id, run.epoch, "done")
        .await?;
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 1)?)),
        "WRONG_STATE"
    );

    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    world
        .registry
        .deviation_report(AGENT, &run.run_id, run.epoch, "the disk is full")?;
    assert_eq!(world.state(&run)?, RunState::AwaitingV1);
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 1)?)),
        "WRONG_STATE"
    );

    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    world.pass(Limits::default().grant);
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 1)?)),
        "GRANT_EXPIRED"
    );
    let fresh = world
        .registry
        .execution_begin(AGENT, &run.run_id, run.epoch)
        .await?;
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 2)?)),
        "GRANT_REVOKED"
    );
    world.registry.begin("shell", &write_hello(&fresh, 3)?)?;

    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    world.pass(Limits::default().lease);
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 1)?)),
        "STALE_EPOCH"
    );
    world.registry.look_at_the_clock()?;
    assert_eq!(world.registry.record(&run.run_id)?.run.claimant, None);
    let late = world
        .registry
        .generation_complete(AGENT, &run.run_id, run.epoch, "late")
        .await;
    assert_eq!(code(late), "STALE_EPOCH");

    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    world.registry.kill(&run.run_id, "uid:0", "stop")?;
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 1)?)),
        "WRONG_STATE"
    );
    Ok(())
}

#[tokio::test]
async fn a_handle_of_an_earlier_claim_is_dead() -> anyhow::Result<()> {
    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    world.pass(Limits::default().lease);
    world.registry.look_at_the_clock()?;
    let again = world.registry.run_claim(AGENT, &run.run_id)?;
    assert!(again.epoch > run.epoch);
    assert_eq!(
        code(world.registry.begin("shell", &write_hello(&begun, 1)?)),
        "STALE_EPOCH"
    );
    let fresh = world
        .registry
        .execution_begin(AGENT, &run.run_id, again.epoch)
        .await?;
    world.registry.begin("shell", &write_hello(&fresh, 2)?)?;
    Ok(())
}

#[tokio::test]
async fn an_open_action_holds_up_completion_and_is_unknown_when_its_server_is_gone()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    let permit = world.registry.begin("shell", &write_hello(&begun, 1)?)?;
    let complete = || {
        world
            .registry
            .generation_complete(AGENT, &run.run_id, run.epoch, "done")
    };
    assert_eq!(code(complete().await), "OPEN_ACTIONS");
    // The server was killed and is back as another process.
    world.registry.hello("shell", Some(1), hello("shell-2"))?;
    let record = world.registry.record(&run.run_id)?;
    assert_eq!(record.actions[0].outcome, Some(Outcome::Unknown));
    // Its spool still had the end.
    let late = End {
        instance: "shell-2".to_owned(),
        ..ended(&permit.action_id, 1)
    };
    world.registry.end("shell", &late)?;
    assert_eq!(
        world.registry.record(&run.run_id)?.actions[0].outcome,
        Some(Outcome::Ok)
    );
    // The same again changes nothing; another end is refused.
    world.registry.end("shell", &late)?;
    let other = End {
        outcome: Outcome::Error,
        ..late
    };
    assert_eq!(code(world.registry.end("shell", &other)), "ACTION_ENDED");
    complete().await?;
    Ok(())
}

#[tokio::test]
async fn a_gap_in_the_records_or_a_key_with_two_contents_raises_an_alarm() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_, begun) = world.begun().await?;
    world.registry.begin("shell", &write_hello(&begun, 1)?)?;
    assert_eq!(world.audited("alarm.sequence_gap")?, 0);
    let reused = Begin {
        arguments: call("", "", json!({ "path": "x", "content": "y" }), 0).arguments,
        seq: 2,
        ..write_hello(&begun, 1)?
    };
    assert_eq!(
        code(world.registry.begin("shell", &reused)),
        "IDEMPOTENCY_CONFLICT"
    );
    assert_eq!(world.audited("alarm.key_reused")?, 1);
    let skipped = call(
        &begun.steps[1].grant,
        "exec",
        json!({ "command": "cat hello.txt" }),
        9,
    );
    assert_eq!(code(world.registry.begin("shell", &skipped)), "STEP_ORDER");
    assert_eq!(world.audited("alarm.sequence_gap")?, 1);
    Ok(())
}

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_not_made_after_the_run_was_stopped() -> anyhow::Result<()>
{
    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    let call = write_hello(&begun, 1)?;
    let permit = world.registry.begin("shell", &call)?;
    // The control: asked again while nothing has changed, the answer is the same.
    assert_eq!(
        world.registry.begin("shell", &call)?.action_id,
        permit.action_id
    );
    world.registry.pause(&run.run_id, "uid:0", "look first")?;
    assert_eq!(code(world.registry.begin("shell", &call)), "RUN_PAUSED");
    // Whoever was refused does not do it, so it is not open for ever either.
    let record = world.registry.record(&run.run_id)?;
    assert_eq!(record.open_actions().count(), 0);
    world.registry.resume(&run.run_id, "ana", SECRET, "go")?;
    assert_eq!(code(world.registry.begin("shell", &call)), "ACTION_ENDED");

    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    let call = write_hello(&begun, 1)?;
    world.registry.begin("shell", &call)?;
    world.registry.kill(&run.run_id, "uid:0", "stop")?;
    assert_eq!(code(world.registry.begin("shell", &call)), "WRONG_STATE");
    Ok(())
}

#[tokio::test]
async fn a_paused_run_keeps_its_claim_however_long_it_rests() -> anyhow::Result<()> {
    let world = World::new()?;
    let (run, _) = world.begun().await?;
    world
        .registry
        .agent_register("other-agent", "waits", None)?;
    world.registry.pause(&run.run_id, "uid:0", "look first")?;
    world.pass(Limits::default().lease);
    world.registry.look_at_the_clock()?;
    assert_eq!(
        code(world.registry.run_claim("other-agent", &run.run_id)),
        "CLAIM_LOST"
    );
    // The control: unpaused it would lapse.
    world.registry.resume(&run.run_id, "ana", SECRET, "go")?;
    world.pass(Limits::default().lease);
    world.registry.look_at_the_clock()?;
    world.registry.run_claim("other-agent", &run.run_id)?;
    Ok(())
}

#[tokio::test]
async fn a_process_that_comes_up_after_the_end_of_its_run_is_ended() -> anyhow::Result<()> {
    for is_killed in [true, false] {
        let world = World::new()?;
        let (run, begun) = world.begun().await?;
        let permit = world.registry.begin("shell", &write_hello(&begun, 1)?)?;
        if is_killed {
            world.registry.kill(&run.run_id, "uid:0", "stop")?;
            // The order that the service fetched before its process was up.
            let fetched = world
                .registry
                .0
                .work
                .next("shell", std::time::Duration::ZERO)
                .await;
            assert!(fetched.is_some());
        }
        let mut report = ended(&permit.action_id, 2);
        report.session = Some("x1".to_owned());
        world.registry.end("shell", &report)?;
        let again = world
            .registry
            .0
            .work
            .next("shell", std::time::Duration::ZERO)
            .await;
        assert_eq!(again.is_some(), is_killed, "{again:?}");
    }
    Ok(())
}

#[tokio::test]
async fn numbers_and_keys_of_one_service_do_not_touch_another() -> anyhow::Result<()> {
    let world = World::new()?;
    let (_, begun) = world.begun().await?;
    // Another service speaks in the name of this one's process, with the largest number there is.
    let mut foreign = write_hello(&begun, u64::MAX)?;
    for _ in 0..2 {
        let refused = world.registry.begin("other-shell", &foreign);
        assert_eq!(code(refused), "SERVICE_UNKNOWN");
    }
    let permit = world.registry.begin("shell", &write_hello(&begun, 1)?)?;
    world.registry.end("shell", &ended(&permit.action_id, 2))?;
    let alarms = world.audited("alarm.sequence_gap")?;
    let look = json!({ "command": "cat hello.txt" });
    world
        .registry
        .begin("shell", &call(&begun.steps[1].grant, "exec", look, 5000))?;
    assert_eq!(world.audited("alarm.sequence_gap")?, alarms + 1);

    // A key that was used for a handle is not the key of another handle's call.
    foreign = write_hello(&begun, 5001)?;
    foreign.grant.clone_from(&begun.steps[1].grant);
    foreign.idempotency_key = "key-1".to_owned();
    assert_eq!(
        code(world.registry.begin("shell", &foreign)),
        "IDEMPOTENCY_CONFLICT"
    );
    Ok(())
}
