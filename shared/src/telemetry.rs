//! Logs: one JSON object per line on stderr, since stdout belongs to the protocol.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The SDK's own lines that would carry requests or results are left out, whatever level is asked for: arguments may
/// hold what no log may.
const QUIET: [&str; 2] = ["rmcp=warn", "rmcp::service=off"];

/// Starts logging. The level comes from the environment variable `<PREFIX>_LOG` (`error` … `trace`, or directives such as
/// `info,mcp_bash_commander=debug`), else it is `default_level`. Panics are logged by their
/// place. A second call changes nothing.
pub fn start(prefix: &str, default_level: &str) {
    let wanted = std::env::var(format!("{prefix}_LOG")).unwrap_or_default();
    let (filter, wrong) = filter(&wanted, default_level);
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_ansi(false)
        .with_current_span(false)
        .with_span_list(false)
        // It would say so on stderr, which is what just failed.
        .log_internal_errors(false);
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_writer(std::io::stderr))
        .try_init();
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            // Without its message, which may quote what no log may.
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "a panic");
        }));
    }
    if started.is_ok() && wrong {
        tracing::warn!(
            value = wanted,
            "{prefix}_LOG is not understood; write for example info or warn"
        );
    }
}

fn filter(wanted: &str, default_level: &str) -> (EnvFilter, bool) {
    let parsed = if wanted.trim().is_empty() {
        None
    } else {
        Some(EnvFilter::try_new(wanted))
    };
    let (mut filter, wrong) = match parsed {
        None => (EnvFilter::new(default_level), false),
        Some(Ok(filter)) => (filter, false),
        Some(Err(_)) => (EnvFilter::new(default_level), true),
    };
    for directive in QUIET {
        if let Ok(directive) = directive.parse() {
            filter = filter.add_directive(directive);
        }
    }
    (filter, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_makes_the_sdk_print_requests() {
        let (filter, wrong) = filter("trace", "info");
        let text = filter.to_string();
        assert!(
            !wrong && text.contains("rmcp=warn") && text.contains("rmcp::service=off"),
            "{text}"
        );
    }

    #[test]
    fn a_level_that_nobody_knows_falls_back_and_says_so() {
        let (filter, wrong) = filter("loud=very=much", "info");
        assert!(wrong && filter.to_string().contains("info"));
    }
}
