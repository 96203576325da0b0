//! The finished list of a server's tools: portable schemas, and annotations that derive from each tool's effect class.

use rmcp::{
    handler::server::tool::ToolRouter,
    model::{Tool, ToolAnnotations},
};

use crate::{budget::json_bytes, effect::class::EffectClass, portable_schema};

/// What a tool declares beside its schema; a constant in the tool's own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolEffect {
    tool: &'static str,
    title: &'static str,
    class: EffectClass,
    idempotent: bool,
    open_world: bool,
}

impl ToolEffect {
    /// A tool by its name, a title for people, and what its calls do to the world.
    pub const fn new(tool: &'static str, title: &'static str, class: EffectClass) -> Self {
        Self {
            tool,
            title,
            class,
            idempotent: matches!(class, EffectClass::Read),
            open_world: false,
        }
    }

    /// The same call twice does no more than once. (Reads always are.)
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Calls may reach things outside this machine.
    #[must_use]
    pub const fn open_world(mut self) -> Self {
        self.open_world = true;
        self
    }

    /// The tool's name.
    pub const fn tool(&self) -> &'static str {
        self.tool
    }

    /// What its calls do to the world.
    pub const fn class(&self) -> EffectClass {
        self.class
    }

    /// All four hints; MCP's defaults are pessimistic, so none is left to them. The title stands beside them, once.
    pub fn annotations(&self) -> ToolAnnotations {
        ToolAnnotations::from_raw(
            None,
            Some(self.class == EffectClass::Read),
            Some(self.class == EffectClass::Irreversible),
            Some(self.idempotent),
            Some(self.open_world),
        )
    }
}

/// A list of tools that does not agree with its effects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolsError {
    /// A tool that says nothing about what it does to the world.
    #[error("tool `{0}` declares no effect; add its `ToolEffect` to the list")]
    Undeclared(String),
    /// An effect of a tool that is not there.
    #[error("an effect is declared for `{0}`, which is no tool of this server")]
    Unknown(&'static str),
}

/// Gives every tool its annotations and portable schemas; afterwards the router can be served as it is.
///
/// # Errors
/// A tool without an effect, or an effect without a tool.
pub fn finish<S: Send + Sync + 'static>(
    mut router: ToolRouter<S>,
    effects: &[ToolEffect],
) -> Result<ToolRouter<S>, ToolsError> {
    if let Some(effect) = effects
        .iter()
        .find(|effect| !router.map.contains_key(effect.tool))
    {
        return Err(ToolsError::Unknown(effect.tool));
    }
    for (name, route) in &mut router.map {
        let Some(effect) = effects.iter().find(|effect| effect.tool == name) else {
            return Err(ToolsError::Undeclared(name.to_string()));
        };
        route.attr.title = Some(effect.title.to_owned());
        route.attr.annotations = Some(effect.annotations());
        portable_schema::clean_tool(&mut route.attr);
    }
    Ok(router)
}

/// Makes the list of tools as short as clients allow; what plans are checked against is to be taken from it before.
pub fn shorten<S: Send + Sync + 'static>(router: &mut ToolRouter<S>) {
    for route in router.map.values_mut() {
        portable_schema::shorten(&mut route.attr);
    }
}

/// The effect class of a finished tool, read back from its annotations; a tool without any counts as the worst.
pub fn class_of(tool: &Tool) -> EffectClass {
    match &tool.annotations {
        Some(hints) if hints.read_only_hint == Some(true) => EffectClass::Read,
        Some(hints) if hints.destructive_hint == Some(false) => EffectClass::Write,
        _ => EffectClass::Irreversible,
    }
}

/// The size of the answer to `tools/list` in bytes; every client pays for it on every request.
pub fn listed_bytes<S: Send + Sync + 'static>(router: &ToolRouter<S>) -> usize {
    json_bytes(&router.list_all())
}
