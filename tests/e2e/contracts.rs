//! The machine-readable part of docs/contracts.md: schemas of what two programs say to each other.

use schemars::generate::SchemaSettings;
use serde_json::json;
use shared::effect::protocol::{
    Begin, End, Ended, Hello, Permit, Refusal, RefusedCall, Welcome, Work, WorkResult,
};
use tests::expect::is_current;

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
