//! A status as OpenMetrics text, for Prometheus and those that read the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Node, State, Status};
use crate::control::status::Progress;

/// The type of the text (OpenMetrics 1.0, section 4.2.1).
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of `.xget/status` as OpenMetrics.
pub(crate) fn metrics(text: &str) -> String {
    let status = Status::parse(text);
    let server = status.server;
    // Who has come again may still be there from before: the last line counts, as no sample may be
    // there twice.
    let nodes = status.nodes.iter().map(|node| (node.line.address.to_string(), *node));
    let nodes: Vec<(String, Node)> = nodes.collect::<BTreeMap<_, _>>().into_iter().collect();
    let mut out = Families::default();

    out.family("xget_build", "info", "", "The program and its version.");
    out.sample("_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    out.family("xget_generation", "info", "", "The served generation: the hash of the manifest.");
    out.sample("_info", &[("generation", server.generation.unwrap_or("?"))], 1.0);
    out.family("xget_image_bytes", "gauge", "bytes", "Size of all served files.");
    out.sample("", &[], server.image_bytes as f64);
    out.family("xget_chunks", "gauge", "", "Chunks of the image.");
    out.sample("", &[], server.held.wanted as f64);
    out.family("xget_chunks_only_here", "gauge", "", "Chunks that no node holds yet.");
    out.sample("", &[], server.only_here.unwrap_or(0) as f64);
    out.family("xget_sent_bytes", "counter", "bytes", "Image bytes sent by this server to nodes.");
    out.sample("_total", &[], server.sent_bytes as f64);
    let what = "File bytes sent to other clients: 9P mounts, 2009 clients, HTTP.";
    out.family("xget_plain_sent_bytes", "counter", "bytes", what);
    out.sample("_total", &[], server.plain_bytes as f64);

    out.family("xget_nodes", "gauge", "", "Joined nodes by state.");
    for state in [State::Departed, State::Fetching, State::Stalled, State::Whole] {
        let known = nodes.iter().map(|(_, node)| node).chain(&status.departed);
        let count = known.filter(|node| node.state() == state).count();
        out.sample("", &[("state", state.name())], count as f64);
    }
    out.family(
        "xget_node_held_ratio",
        "gauge",
        "ratio",
        "Share of its wanted data that a node holds, 0 to 1.",
    );
    out.each(&nodes, "", |node| {
        let Progress { held, wanted } = node.line.held;
        (wanted > 0).then(|| held as f64 / wanted as f64)
    });
    let what = "Seconds since the node last received a chunk.";
    out.family("xget_node_quiet_seconds", "gauge", "seconds", what);
    out.each(&nodes, "", |node| Some(node.line.quiet?.as_secs_f64()));
    out.family(
        "xget_node_fed_bytes",
        "counter",
        "bytes",
        "Image bytes sent by this server to the node.",
    );
    out.each(&nodes, "_total", |node| Some(node.line.sent_bytes? as f64));
    let what = "Image bytes that the node has sent to others, as it reports.";
    out.family("xget_node_sent_bytes", "counter", "bytes", what);
    out.each(&nodes, "_total", |node| Some(node.line.out_bytes? as f64));
    let what = "Whether the node has written to the log.";
    out.family("xget_node_troubled", "gauge", "", what);
    out.each(&nodes, "", |node| Some(f64::from(u8::from(status.last_trouble(*node).is_some()))));
    out.text + "# EOF\n"
}

/// Families of metrics, each followed by its samples.
#[derive(Default)]
struct Families {
    text: String,
    /// The family that was last begun.
    name: &'static str,
}

impl Families {
    fn family(&mut self, name: &'static str, kind: &str, unit: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {name} {help}");
    }

    /// A sample of the family that was last begun.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let name = self.name;
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{name}{suffix}{labels} {value}");
    }

    fn each(
        &mut self,
        nodes: &[(String, Node)],
        suffix: &str,
        value: impl Fn(&Node) -> Option<f64>,
    ) {
        for (address, node) in nodes {
            if let Some(value) = value(node) {
                self.sample(suffix, &[("node", address)], value);
            }
        }
    }
}

/// The value of a label (OpenMetrics 1.0, section 4.1.1).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "generation=00ff image_bytes=100 chunk_bytes=64 held=2/2 sent_bytes=7\n\
        node=10.0.0.1:20004 held=1/2 sent_bytes=5 quiet_seconds=0.5\n\
        node=10.0.0.2:20004 held=2/2 sent_bytes=2 quiet_seconds=60\n\
        gone=10.0.0.4:20004 held=1/2 quiet_seconds=9.0\n\
        classic=10.0.0.3:9 serves_files=1\n";

    #[test]
    fn every_number_is_a_sample_of_its_family() {
        let text = metrics(STATUS);
        for line in [
            "xget_generation_info{generation=\"00ff\"} 1\n",
            "# UNIT xget_image_bytes bytes\n",
            "\nxget_image_bytes 100\n",
            "\nxget_sent_bytes_total 7\n",
            "\nxget_nodes{state=\"fetching\"} 1\n",
            "\nxget_nodes{state=\"whole\"} 1\n",
            "\nxget_nodes{state=\"gone\"} 1\n",
            "\nxget_node_held_ratio{node=\"10.0.0.1:20004\"} 0.5\n",
            "\nxget_node_quiet_seconds{node=\"10.0.0.2:20004\"} 60\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn a_node_that_has_come_again_is_there_once() {
        let text = metrics(&(STATUS.to_owned() + "node=10.0.0.1:20004 held=2/2\n"));
        assert_eq!(text.matches("xget_node_held_ratio{node=\"10.0.0.1:20004\"}").count(), 1);
        assert!(text.contains("\nxget_nodes{state=\"whole\"} 2\n"), "{text}");
    }

    #[test]
    fn a_label_cannot_end_early() {
        let text = metrics("generation=\"}\\\n");
        assert!(text.contains("{generation=\"\\\"}\\\\\"} 1\n"), "{text}");
    }
}
