//! docs/contracts.md: schemas of what two programs say to each other, and who starts whom.

use schemars::generate::SchemaSettings;
use serde_json::json;
use shared::effect::protocol::{
    Begin, End, Ended, Hello, Permit, Refusal, RefusedCall, Welcome, Work, WorkResult,
};
use tests::expect::is_current;
use tests::run::{AGENT, Place};

#[test]
fn the_schemas_of_the_effect_plane_are_current() -> anyhow::Result<()> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    generator.subschema_for::<Hello>();
    generator.subschema_for::<Welcome>();
    generator.subschema_for::<Begin>();
    generator.subschema_for::<Permit>();
    generator.subschema_for::<End>();
    generator.subschema_for::<Ended>();
    generator.subschema_for::<RefusedCall>();
    generator.subschema_for::<Work>();
    generator.subschema_for::<WorkResult>();
    generator.subschema_for::<Refusal>();
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The effect plane of spec-driven-ai",
        "$defs": generator.take_definitions(true),
    });
    is_current("docs/schemas/effect-plane.json", &format!("{document:#}\n"))
}

#[tokio::test]
async fn a_registry_that_a_command_started_makes_room_for_serve() -> anyhow::Result<()> {
    let place = Place::make().await?;
    let token = place.path().join("agent.token");
    place.add_token("agent", AGENT, &token).await?;
    let registry = place
        .start_registry(&["--http", "127.0.0.1:0", "--insecure-loopback"])
        .await?;
    place.human(&["queue"], None).await?;
    // It is this one that answered and ends now, not one that the command started again.
    let status = registry.terminate().await?;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}
