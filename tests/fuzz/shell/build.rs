//! Cuts single items out of the shell's sources where the rest of a file needs the protocol library or a running jail.
//!
//! They are named, so that one that is renamed or moved ends the build instead of being fuzzed no longer.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Item, Type};

/// Where the sources are.
const SOURCES: &str = "../../../mcp-bash-commander/src";

/// A file below the sources, and what is cut out of it.
const CUT: &[(&str, &[&str])] = &[
    ("server", &["LONGEST_COMMAND"]),
    ("tools/error", &["invalid"]),
    (
        "tools/changes",
        &["MOST_PATHS", "ChangesParams", "Act", "checked"],
    ),
    (
        "tools/edit_file",
        &["EditFileParams", "EditParams", "impl Edit"],
    ),
    (
        "tools/exec",
        &[
            "ExecParams",
            "default_output",
            "NetworkName",
            "WorkspaceName",
        ],
    ),
    ("tools/explain", &["ExplainParams"]),
    ("tools/list_sessions", &["ListSessionsParams"]),
    ("tools/read_file", &["ReadFileParams", "default_bytes"]),
    (
        "tools/read_output",
        &[
            "MOST_BYTES",
            "PATTERN_SIZE",
            "ReadOutputParams",
            "default_bytes",
            "StreamName",
            "Encoding",
            "check",
            "line_pattern",
        ],
    ),
    (
        "tools/search",
        &["SearchParams", "default_results", "Include"],
    ),
    (
        "tools/stop",
        &["StopParams", "default_grace", "SignalName", "ScopeName"],
    ),
    (
        "tools/wait",
        &[
            "LONGEST_PATTERN",
            "PATTERN_SIZE",
            "LONGEST_MS",
            "Wait",
            "Until",
            "Condition",
            "impl Wait",
            "compiled",
        ],
    ),
    ("tools/write_file", &["WriteFileParams", "expected"]),
    (
        "tools/write_input",
        &[
            "LONGEST_TEXT",
            "MOST_KEYS",
            "WriteInputParams",
            "Size",
            "impl Size",
            "bytes",
            "key_bytes",
            "chord",
        ],
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = env::var("OUT_DIR")?;
    for (file, names) in CUT {
        let source = format!("{SOURCES}/{file}.rs");
        println!("cargo::rerun-if-changed={source}");
        let items = syn::parse_file(&fs::read_to_string(&source)?)?.items;
        let mut cut = TokenStream::new();
        for name in *names {
            let item = items.iter().find(|item| is_named(item, name));
            item.ok_or_else(|| format!("{source} has no `{name}`"))?
                .to_tokens(&mut cut);
        }
        let place = Path::new(&out).join(format!("{}.rs", file.replace('/', "_")));
        fs::write(place, cut.to_string())?;
    }
    Ok(())
}

/// Whether it is that item; `impl Name` is the first implementation for that type.
fn is_named(item: &Item, name: &str) -> bool {
    match item {
        Item::Const(item) => item.ident == name,
        Item::Enum(item) => item.ident == name,
        Item::Fn(item) => item.sig.ident == name,
        Item::Struct(item) => item.ident == name,
        Item::Impl(item) => match (&*item.self_ty, name.strip_prefix("impl ")) {
            (Type::Path(path), Some(name)) => path.path.is_ident(name),
            _ => false,
        },
        _ => false,
    }
}
