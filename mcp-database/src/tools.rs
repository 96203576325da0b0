//! The list of all tools; a server has those of the engines that it has sources of, and changing ones where a source may be changed.

mod bus_ack;
mod bus_publish;
mod bus_read;
mod bus_subscribe;
mod confirming;
mod db_cursor;
mod db_health;
mod db_sources;
mod error;
mod graph;
mod graph_deps;
mod graph_query;
mod graph_schema;
mod graph_upsert;
mod graph_write;
mod kv_command;
mod kv_read;
mod kv_write;
mod mongo_explain;
mod mongo_read;
mod mongo_schema;
mod mongo_write;
mod pg;
mod pg_execute;
mod pg_explain;
mod pg_query;
mod pg_schema;
mod progress;
mod record;
mod reply;
mod vector_search;

use std::sync::Arc;

use rmcp::handler::server::tool::ToolRouter;
use rmcp::model::JsonObject;
use serde_json::Value;
use shared::tools::{ToolEffect, ToolsError, finish};

use crate::database::Databases;
use crate::server::DatabaseServer;
use crate::source::Engine;

/// The tools whose calls may take as long as a statement may.
pub(crate) const QUERYING: [&str; 23] = [
    "bus_ack",
    "bus_publish",
    "bus_read",
    "bus_subscribe",
    "db_cursor",
    "db_health",
    "graph_deps",
    "graph_query",
    "graph_schema",
    "graph_upsert",
    "graph_write",
    "kv_command",
    "kv_read",
    "kv_write",
    "mongo_explain",
    "mongo_read",
    "mongo_schema",
    "mongo_write",
    "pg_execute",
    "pg_explain",
    "pg_query",
    "pg_schema",
    "vector_search",
];

/// The changing tools that need no grant: agents talk to each other without one, within the streams that the configuration lists.
pub(crate) const EXEMPT: [&str; 4] = ["bus_ack", "bus_publish", "bus_read", "bus_subscribe"];

/// Leaves `source` out of the lists where there is only one to mean; it is taken all the same.
pub(crate) fn without_source(tools: &mut ToolRouter<DatabaseServer>) {
    for route in tools.map.values_mut() {
        let mut schema = JsonObject::clone(&route.attr.input_schema);
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.shift_remove("source");
        }
        route.attr.input_schema = Arc::new(schema);
    }
}

/// Says of `vector_search` only what the one engine takes that there is.
pub(crate) fn of_one_engine(tools: &mut ToolRouter<DatabaseServer>, engine: Engine) {
    let Some(route) = tools.map.get_mut("vector_search") else {
        return;
    };
    let taken = vector_search::arguments(engine);
    let mut schema = JsonObject::clone(&route.attr.input_schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let is_taken = |name: &str| taken.iter().any(|(argument, _)| *argument == name);
        properties.retain(|name, _| name == "source" || is_taken(name));
        for (argument, said) in taken.iter().filter(|(_, said)| !said.is_empty()) {
            if let Some(schema) = properties.get_mut(*argument) {
                schema["description"] = Value::from(*said);
            }
        }
    }
    route.attr.input_schema = Arc::new(schema);
}

/// The tools for these databases, with their annotations.
///
/// # Errors
/// A tool that declares no effect.
pub(crate) fn router(databases: &Databases) -> Result<ToolRouter<DatabaseServer>, ToolsError> {
    let mut tools = DatabaseServer::db_sources_router()
        + DatabaseServer::db_cursor_router()
        + DatabaseServer::db_health_router()
        + DatabaseServer::vector_search_router();
    let mut effects: Vec<ToolEffect> = vec![
        db_sources::EFFECT,
        db_cursor::EFFECT,
        db_health::EFFECT,
        vector_search::EFFECT,
    ];
    for engine in databases.engines() {
        match engine {
            Engine::Postgres => {
                tools += DatabaseServer::pg_explain_router()
                    + DatabaseServer::pg_query_router()
                    + DatabaseServer::pg_schema_router();
                effects.extend([pg_explain::EFFECT, pg_query::EFFECT, pg_schema::EFFECT]);
                if databases.has_writable(engine) {
                    tools += DatabaseServer::pg_execute_router();
                    effects.push(pg_execute::EFFECT);
                }
            }
            Engine::Mongodb => {
                tools += DatabaseServer::mongo_explain_router()
                    + DatabaseServer::mongo_read_router()
                    + DatabaseServer::mongo_schema_router();
                effects.extend([
                    mongo_explain::EFFECT,
                    mongo_read::EFFECT,
                    mongo_schema::EFFECT,
                ]);
                if databases.has_writable(engine) {
                    tools += DatabaseServer::mongo_write_router();
                    effects.push(mongo_write::EFFECT);
                }
            }
            Engine::Neo4j => {
                tools += DatabaseServer::graph_deps_router()
                    + DatabaseServer::graph_query_router()
                    + DatabaseServer::graph_schema_router();
                effects.extend([
                    graph_deps::EFFECT,
                    graph_query::EFFECT,
                    graph_schema::EFFECT,
                ]);
                if databases.has_writable(engine) {
                    tools += DatabaseServer::graph_upsert_router()
                        + DatabaseServer::graph_write_router();
                    effects.extend([graph_upsert::EFFECT, graph_write::EFFECT]);
                }
            }
            Engine::Redis => {
                tools += DatabaseServer::kv_command_router() + DatabaseServer::kv_read_router();
                effects.extend([kv_command::EFFECT, kv_read::EFFECT]);
                if databases.has_writable(engine) {
                    tools += DatabaseServer::kv_write_router();
                    effects.push(kv_write::EFFECT);
                }
                if databases.has_streams() {
                    tools += DatabaseServer::bus_ack_router()
                        + DatabaseServer::bus_publish_router()
                        + DatabaseServer::bus_read_router()
                        + DatabaseServer::bus_subscribe_router();
                    effects.extend([
                        bus_ack::EFFECT,
                        bus_publish::EFFECT,
                        bus_read::EFFECT,
                        bus_subscribe::EFFECT,
                    ]);
                }
            }
        }
    }
    finish(tools, &effects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Mode, Settings};
    use crate::sources;

    /// What listing the tools for one database costs, and how many there are.
    fn listed(url: &str, mode: Mode) -> anyhow::Result<(usize, usize)> {
        let source: Settings = sources::of_url(url, None, mode)?.sources.remove(0);
        let databases = Databases::open(vec![source])?;
        let mut tools = router(&databases)?;
        without_source(&mut tools);
        for engine in databases.engines() {
            of_one_engine(&mut tools, engine);
        }
        shared::tools::shorten(&mut tools);
        Ok((shared::tools::listed_bytes(&tools), tools.list_all().len()))
    }

    #[test]
    fn one_database_has_a_short_list_and_no_changing_tools_where_it_is_only_read()
    -> anyhow::Result<()> {
        for (url, reading, writing) in [
            ("postgres://reader@localhost/shop", 7, 8),
            ("redis://reader@localhost", 6, 7),
            ("mongodb://localhost/shop", 7, 8),
            ("bolt://reader@localhost", 7, 9),
        ] {
            let (bytes, tools) = listed(url, Mode::Read)?;
            assert!(bytes <= 6 * 1024, "{url}: {bytes} bytes");
            assert_eq!(tools, reading, "{url}");
            let (bytes, tools) = listed(url, Mode::Write)?;
            assert!(bytes <= 7_300, "{url}: {bytes} bytes");
            assert_eq!(tools, writing, "{url}");
        }
        Ok(())
    }
}
