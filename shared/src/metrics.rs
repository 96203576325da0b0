//! Counters, gauges and histograms as Prometheus text; names follow OpenTelemetry's conventions for MCP.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Upper bounds of the durations, in seconds, as OpenTelemetry's MCP conventions advise, with finer ones below, since our
/// reads take microseconds.
const BOUNDS: [f64; 16] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 300.0,
];

/// Different label values kept for one name; further ones are counted together as `other`, so that no client can
/// make the server grow.
const MAX_SERIES: usize = 500;

type Labels = Vec<(&'static str, String)>;

/// The metrics of a process; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    families: Arc<Mutex<BTreeMap<&'static str, Family>>>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    series: BTreeMap<Labels, Value>,
}

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram {
        buckets: [u64; BOUNDS.len()],
        sum: f64,
        count: u64,
    },
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram { .. } => "histogram",
        }
    }
}

impl Metrics {
    /// No metrics yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a counter; its name ends in `_total`.
    pub fn count(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        by: u64,
    ) {
        self.with(
            name,
            help,
            labels,
            || Value::Counter(0),
            |value| {
                if let Value::Counter(count) = value {
                    *count = count.saturating_add(by);
                }
            },
        );
    }

    /// Sets a gauge.
    pub fn set(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        to: f64,
    ) {
        self.with(
            name,
            help,
            labels,
            || Value::Gauge(to),
            |value| {
                if let Value::Gauge(gauge) = value {
                    *gauge = to;
                }
            },
        );
    }

    /// Adds a duration to a histogram; its name ends in `_seconds`.
    pub fn observe(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        elapsed: Duration,
    ) {
        let empty = || Value::Histogram {
            buckets: [0; BOUNDS.len()],
            sum: 0.0,
            count: 0,
        };
        self.with(name, help, labels, empty, |value| {
            if let Value::Histogram {
                buckets,
                sum,
                count,
            } = value
            {
                let seconds = elapsed.as_secs_f64();
                if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
                    buckets[bucket] += 1;
                }
                *sum += seconds;
                *count += 1;
            }
        });
    }

    /// One finished request: `mcp_server_operation_duration_seconds{mcp_method_name, gen_ai_tool_name?, error_type?}`.
    pub fn operation(
        &self,
        method: &str,
        tool: Option<&str>,
        error: Option<&str>,
        elapsed: Duration,
    ) {
        let mut labels: Vec<(&'static str, &str)> = vec![("mcp_method_name", method)];
        labels.extend(tool.map(|tool| ("gen_ai_tool_name", tool)));
        labels.extend(error.map(|error| ("error_type", error)));
        self.observe(
            "mcp_server_operation_duration_seconds",
            "How long requests took.",
            &labels,
            elapsed,
        );
    }

    fn with(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        empty: impl FnOnce() -> Value,
        change: impl FnOnce(&mut Value),
    ) {
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family {
            help,
            series: BTreeMap::new(),
        });
        let mut labels: Labels = labels
            .iter()
            .map(|(label, value)| (*label, (*value).to_owned()))
            .collect();
        if family.series.len() >= MAX_SERIES && !family.series.contains_key(&labels) {
            for (_, value) in &mut labels {
                "other".clone_into(value);
            }
        }
        change(family.series.entry(labels).or_insert_with(empty));
    }

    /// Everything in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, family) in families.iter() {
            let kind = family.series.values().next().map_or("untyped", Value::kind);
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (labels, value) in &family.series {
                render_value(&mut text, name, labels, value);
            }
        }
        text
    }
}

fn render_value(text: &mut String, name: &str, labels: &Labels, value: &Value) {
    let plain = render_labels(labels, None);
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Counter(count) => writeln!(text, "{name}{plain} {count}"),
        Value::Gauge(gauge) => writeln!(text, "{name}{plain} {gauge}"),
        Value::Histogram {
            buckets,
            sum,
            count,
        } => {
            let mut below = 0;
            for (bound, bucket) in BOUNDS.iter().zip(buckets) {
                below += bucket;
                let _ = writeln!(
                    text,
                    "{name}_bucket{} {below}",
                    render_labels(labels, Some(&bound.to_string()))
                );
            }
            let _ = writeln!(
                text,
                "{name}_bucket{} {count}",
                render_labels(labels, Some("+Inf"))
            );
            writeln!(text, "{name}_sum{plain} {sum}\n{name}_count{plain} {count}")
        }
    };
}

fn render_labels(labels: &Labels, bound: Option<&str>) -> String {
    let named = labels.iter().map(|(label, value)| (*label, value.as_str()));
    let all: Vec<String> = named
        .chain(bound.map(|bound| ("le", bound)))
        .map(|(label, value)| {
            let escaped = value
                .replace('\\', r"\\")
                .replace('"', r#"\""#)
                .replace('\n', r"\n");
            format!(r#"{label}="{escaped}""#)
        })
        .collect();
    if all.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_appears_under_its_standard_name() {
        let metrics = Metrics::new();
        metrics.operation("tools/call", Some("exec"), None, Duration::from_micros(300));
        metrics.operation("tools/call", Some("exec"), None, Duration::from_millis(30));
        let text = metrics.render();
        let labels = r#"mcp_method_name="tools/call",gen_ai_tool_name="exec""#;
        assert!(
            text.contains("# TYPE mcp_server_operation_duration_seconds histogram\n"),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "mcp_server_operation_duration_seconds_bucket{{{labels},le=\"0.0005\"}} 1\n"
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "mcp_server_operation_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2\n"
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "mcp_server_operation_duration_seconds_count{{{labels}}} 2\n"
            )),
            "{text}"
        );
    }

    #[test]
    fn hostile_label_values_stay_inside_their_quotes() {
        let metrics = Metrics::new();
        metrics.count("refused_total", "Refused.", &[("reason", "a\"} 1\nb\\")], 2);
        assert!(
            metrics
                .render()
                .contains("refused_total{reason=\"a\\\"} 1\\nb\\\\\"} 2\n")
        );
    }

    #[test]
    fn a_client_cannot_make_the_metrics_grow_without_end() {
        let metrics = Metrics::new();
        for n in 0..2 * MAX_SERIES {
            metrics.count("calls_total", "Calls.", &[("name", &n.to_string())], 1);
        }
        let text = metrics.render();
        assert!(text.lines().count() <= MAX_SERIES + 3);
        assert!(text.contains(&format!("calls_total{{name=\"other\"}} {MAX_SERIES}\n")));
    }
}
