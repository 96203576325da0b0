mod registry;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::effect::{
    class::EffectClass,
    protocol::{Work, WorkOrder, WorkResult},
};
use registry::{Fate, Registry, signing_key};

fn client(registry: &Registry, state_dir: &Path) -> anyhow::Result<EffectClient> {
    let path = state_dir.join("credential.toml");
    let key = STANDARD.encode(signing_key().verifying_key().as_bytes());
    let text = format!(
        "principal = \"shell\"\nkind = \"service\"\nserver = \"mcp-bash-commander\"\ntoken = \"t0ken\"\nregistry_key = \"ed25519:{key}\"\n"
    );
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(EffectClient::open(EffectConfig {
        socket: registry.socket(),
        registry_uid: None,
        credential: ServiceCredential::read(&path)?,
        version: "1".to_owned(),
        tools: vec![ToolDeclaration {
            tool: "exec".to_owned(),
            class: EffectClass::Write,
            schema: json!({}),
        }],
        state_dir: state_dir.join("effect"),
    })?)
}

async fn ask(client: &EffectClient, command: &str) -> Result<Permit, Refusal> {
    let arguments = serde_json::Map::from_iter([("command".to_owned(), Value::from(command))]);
    client.begin("gr_1", "ana", "exec", arguments).await
}

async fn tell(client: &EffectClient, permit: Permit) -> Result<Delivery, Refusal> {
    client
        .end(EndReport::done(permit.action_id, Digest::of("result")))
        .await
}

fn code(result: Result<Permit, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.code, |permit| permit.action_id)
}

#[tokio::test]
async fn begins_and_ends_share_one_count_without_gaps() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let calls = (0..20).map(|number| {
        let client = client.clone();
        async move {
            let permit = ask(&client, &format!("echo {number}")).await?;
            tell(&client, permit).await
        }
    });
    for delivery in futures_util::future::join_all(calls).await {
        assert_eq!(delivery?, Delivery::Delivered);
    }
    registry.look(|memory| {
        assert_eq!(memory.alarms, Vec::<String>::new());
        assert_eq!(memory.last_seq.get(client.instance()), Some(&40));
        assert_eq!(memory.hellos.len(), 1);
        assert_eq!(memory.bearer.as_deref(), Some("Bearer t0ken"));
    });
    Ok(())
}

#[tokio::test]
async fn long_content_travels_as_its_digest() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let long = "x".repeat(100_000);
    ask(&client(&registry, state.path())?, &long).await?;
    let arguments = registry.look(|memory| memory.begins[0].arguments.clone());
    let hashed = ArgumentValue::Hashed {
        sha256: Digest::of(&long),
        length: 100_000,
    };
    assert_eq!(arguments.get("command"), Some(&hashed));
    Ok(())
}

#[tokio::test]
async fn a_begin_whose_answer_is_lost_is_asked_again_as_the_same_record() -> anyhow::Result<()> {
    for fate in [Fate::AnswerLost, Fate::RequestLost] {
        let registry = Registry::start()?;
        let state = tempfile::tempdir()?;
        let client = client(&registry, state.path())?;
        registry.plan(&[fate]);
        let permit = ask(&client, "echo").await?;
        tell(&client, permit).await?;
        registry.look(|memory| {
            assert_eq!(memory.begins.len(), 1, "{fate:?}");
            assert_eq!(memory.alarms, Vec::<String>::new(), "{fate:?}");
        });
    }
    Ok(())
}

#[tokio::test]
async fn an_end_whose_answer_is_lost_is_not_counted_twice() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    for fate in [Fate::AnswerLost, Fate::RequestLost] {
        let permit = ask(&client, "echo").await?;
        registry.plan(&[fate]);
        assert_eq!(tell(&client, permit).await?, Delivery::Delivered);
    }
    registry.look(|memory| {
        assert_eq!(memory.ends.len(), 2);
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    Ok(())
}

#[tokio::test]
async fn a_caller_who_asks_again_gets_the_answer_that_was_lost() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::AnswerLost, Fate::AnswerLost]);
    assert_eq!(code(ask(&client, "echo").await), "REGISTRY_UNREACHABLE");
    assert_eq!(code(ask(&client, "echo").await), "ac_1");
    registry.look(|memory| {
        assert_eq!((memory.begins.len(), memory.ends.len()), (1, 0));
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    Ok(())
}

#[tokio::test]
async fn a_begin_that_nobody_waits_for_any_more_is_ended_as_not_started() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::AnswerLost, Fate::AnswerLost]);
    assert_eq!(code(ask(&client, "one").await), "REGISTRY_UNREACHABLE");
    assert_eq!(code(ask(&client, "two").await), "ac_2");

    let dropped = client.clone();
    let asking = tokio::spawn(async move { ask(&dropped, "three").await });
    tokio::task::yield_now().await;
    asking.abort();
    registry.until(|memory| memory.ends.len() == 2).await?;
    registry.look(|memory| {
        let ended: Vec<_> = memory
            .ends
            .iter()
            .map(|end| (end.action_id.as_str(), end.error_code.as_deref()))
            .collect();
        assert_eq!(
            ended,
            [("ac_1", Some(NOT_STARTED)), ("ac_3", Some(NOT_STARTED))]
        );
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    Ok(())
}

#[tokio::test]
async fn without_a_registry_every_call_is_refused_and_nothing_is_kept_for_later()
-> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.stop()?;
    let refusal = ask(&client, "echo").await.err().context("it was allowed")?;
    assert_eq!(refusal.code, "REGISTRY_UNREACHABLE");
    assert!(
        refusal.hint.contains("mcp-spec-registry serve"),
        "{}",
        refusal.hint
    );
    registry.listen()?;
    assert_eq!(code(ask(&client, "other").await), "ac_1");
    registry.look(|memory| assert_eq!((memory.begins.len(), memory.ends.len()), (1, 0)));
    Ok(())
}

#[tokio::test]
async fn a_kept_connection_that_broke_is_replaced_unnoticed() -> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let first = ask(&client, "echo").await?;
    registry.stop()?;
    registry.listen()?;
    assert_eq!(code(ask(&client, "other").await), "ac_2");
    assert_eq!(tell(&client, first).await?, Delivery::Delivered);
    registry.look(|memory| assert_eq!(memory.alarms, Vec::<String>::new()));
    Ok(())
}

#[tokio::test]
async fn ends_that_cannot_be_delivered_reach_the_registry_from_the_next_process()
-> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let first = client(&registry, state.path())?;
    let (one, two, lost) = (
        ask(&first, "1").await?,
        ask(&first, "2").await?,
        ask(&first, "3").await?,
    );
    registry.stop()?;
    assert_eq!(tell(&first, one).await?, Delivery::Spooled);
    assert_eq!(tell(&first, two).await?, Delivery::Spooled);
    drop((first, lost));

    registry.listen()?;
    let next = client(&registry, state.path())?;
    let permit = ask(&next, "4").await?;
    registry.look(|memory| {
        let hello = memory.hellos.last();
        let undelivered = hello.map(|hello| hello.undelivered_ends.join(" "));
        assert_eq!(undelivered.as_deref(), Some("ac_1 ac_2"));
        assert_ne!(memory.hellos[0].instance, next.instance());
        let ended: Vec<_> = memory
            .ends
            .iter()
            .map(|end| end.action_id.as_str())
            .collect();
        assert_eq!(ended, ["ac_1", "ac_2"]);
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    tell(&next, permit).await?;
    let third = client(&registry, state.path())?;
    third.settle().await?;
    registry.look(|memory| {
        assert_eq!(memory.ends.len(), 3);
        assert!(
            memory
                .hellos
                .last()
                .is_some_and(|hello| hello.undelivered_ends.is_empty())
        );
    });
    Ok(())
}

#[tokio::test]
async fn the_registrys_refusals_reach_the_caller_as_they_are() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::Forbidden, Fate::Conflict]);
    let refusal = ask(&client, "echo").await.err().context("it was allowed")?;
    assert_eq!(
        (refusal.code.as_str(), refusal.hint.as_str()),
        ("GRANT_NOT_COVERED", "ask")
    );
    assert_eq!(code(ask(&client, "echo").await), "GRANT_USED");
    assert_eq!(code(ask(&client, "echo").await), "ac_3");
    registry.look(|memory| assert_eq!(memory.alarms, Vec::<String>::new()));
    Ok(())
}

#[tokio::test]
async fn a_permit_with_an_older_or_forged_audit_head_is_no_permit() -> anyhow::Result<()> {
    for (fate, expected) in [
        (Fate::Head(7), "AUDIT_ROLLED_BACK"),
        (Fate::ForgedHead, "AUDIT_SIGNATURE_INVALID"),
    ] {
        let registry = Registry::start()?;
        let state = tempfile::tempdir()?;
        let client = client(&registry, state.path())?;
        registry.look(|memory| memory.welcome_head = Some(8));
        registry.plan(&[Fate::Head(9), fate]);
        assert_eq!(code(ask(&client, "echo").await), "ac_1");
        registry.look(|memory| memory.welcome_head = Some(9));
        assert_eq!(code(ask(&client, "echo").await), expected);
    }
    Ok(())
}

#[tokio::test]
async fn after_a_rollback_even_a_newer_head_changes_nothing_until_an_operator_did()
-> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::Head(9)]);
    assert_eq!(code(ask(&client, "echo").await), "ac_1");
    client
        .settle()
        .await
        .err()
        .context("a welcome without a head was accepted")?;
    registry.look(|memory| memory.welcome_head = Some(12));
    let refusal = ask(&client, "echo").await.err().context("it was allowed")?;
    assert_eq!(refusal.code, "AUDIT_ROLLED_BACK");
    let file = state.path().join("effect/audit-head.json");
    assert!(
        refusal.hint.contains(&file.display().to_string()),
        "{}",
        refusal.hint
    );
    std::fs::remove_file(file)?;
    assert_eq!(code(ask(&client, "echo").await), "ac_2");
    Ok(())
}

#[tokio::test]
async fn a_socket_in_a_folder_that_others_may_write_is_not_the_registrys() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let set = |mode| {
        std::fs::set_permissions(
            registry.folder.path(),
            std::fs::Permissions::from_mode(mode),
        )
    };
    set(0o777)?;
    assert_eq!(code(ask(&client, "echo").await), "REGISTRY_UNTRUSTED");
    set(0o750)?;
    assert_eq!(code(ask(&client, "echo").await), "ac_1");
    Ok(())
}

struct Measurer;

impl WorkHandler for Measurer {
    async fn carry_out(&self, order: WorkOrder) -> WorkResult {
        assert!(
            !matches!(order, WorkOrder::EndRun { .. }),
            "this handler fails on purpose"
        );
        WorkResult::EndedProcesses { count: 3 }
    }
}

#[tokio::test]
async fn orders_are_carried_out_and_answered_also_after_the_registry_restarted()
-> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let stop = CancellationToken::new();
    let working = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move { client.run_work(Measurer, stop).await }
    });
    let order = |id: &str, order| Work {
        id: id.to_owned(),
        order,
    };
    let run_id = || "run".to_owned();
    registry.look(|memory| {
        memory
            .orders
            .push_back(order("wk_1", WorkOrder::EndRun { run_id: run_id() }));
        memory
            .orders
            .push_back(order("wk_2", WorkOrder::EndSteps { run_id: run_id() }));
    });
    registry
        .until(|memory| memory.work_results.len() == 2)
        .await?;
    registry.stop()?;
    registry.listen()?;
    registry.look(|memory| {
        memory
            .orders
            .push_back(order("wk_3", WorkOrder::EndSteps { run_id: run_id() }));
    });
    registry
        .until(|memory| memory.work_results.len() == 3)
        .await?;
    let results = registry.look(|memory| {
        memory
            .work_results
            .sort_by(|one, other| one.0.cmp(&other.0));
        std::mem::take(&mut memory.work_results)
    });
    assert_eq!(results[0].1["code"], "INTERNAL");
    let ended = json!({ "kind": "ended_processes", "count": 3 });
    assert_eq!([&results[1].1, &results[2].1], [&ended, &ended]);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), working).await??;
    Ok(())
}

#[tokio::test]
async fn a_call_refused_here_is_told_to_the_registry() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    client.refused("ana", "exec", "POLICY_DENIED", None);
    registry.until(|memory| memory.refused.len() == 1).await?;
    let told = registry.look(|memory| memory.refused[0].clone());
    ensure!(
        told["code"] == "POLICY_DENIED" && told["principal"] == "ana",
        "{told}"
    );
    Ok(())
}
