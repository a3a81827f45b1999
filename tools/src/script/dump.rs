//! All nodes and messages as text, for the message of a script that fails.

use std::fmt::Write as _;

use drave::raft::{Configuration, NodeId};

use super::pool::show;
use super::world::{Node, World};

/// Node by node, then the messages on their way.
pub(super) fn dump(world: &World) -> String {
    let mut text = String::new();
    for (id, node) in &world.nodes {
        dump_node(&mut text, *id, node);
    }
    text.push_str("on their way:\n");
    text.push_str(&world.pool.list());
    text
}

fn dump_node(text: &mut String, id: NodeId, node: &Node) {
    let Some(raft) = &node.raft else {
        let durable = &node.disk.durable;
        let hard_state = durable.hard_state;
        let _ = writeln!(
            text,
            "node {}: down, term {} vote {} log {}",
            id.0,
            hard_state.term,
            show_node(hard_state.vote),
            show_log(&node.disk.durable)
        );
        return;
    };
    let _ = writeln!(
        text,
        "node {}: {:?} term {} vote {} leader {} commit {} durable {} at {}us",
        id.0,
        raft.role(),
        raft.term(),
        show_node(raft.hard_state().vote),
        show_node(raft.leader()),
        raft.commit_index(),
        raft.durable_index(),
        node.now_us,
    );
    let _ = writeln!(text, "  log {}", show_log(&node.disk.written));
    let _ = writeln!(
        text,
        "  {} (at {})",
        show_configuration(raft.configuration()),
        raft.configuration_index()
    );
    for view in raft.progress() {
        let _ = writeln!(
            text,
            "  peer {}: match {} next {} {:?}, {} in flight",
            view.peer.0, view.match_index, view.next_index, view.state, view.in_flight_messages
        );
    }
}

/// A node's number, or `none`.
pub(super) fn show_node(node: Option<NodeId>) -> String {
    node.map_or_else(|| "none".to_owned(), |node| node.0.to_string())
}

/// As `expect log` takes it.
pub(super) fn show_log(image: &super::disk::Image) -> String {
    let mut words = Vec::new();
    if image.start.last.index > 0 {
        words.push(format!("after {}", show(image.start.last)));
    }
    let entries = image.indexed();
    words.extend(entries.map(|(index, entry)| format!("{index}:{}", entry.term)));
    if words.is_empty() {
        words.push("empty".to_owned());
    }
    words.join(" ")
}

/// As `change` and `expect config` take it.
pub(super) fn show_configuration(configuration: &Configuration) -> String {
    let mut text = String::new();
    let sets = [
        ("voters", &configuration.voters),
        ("outgoing", &configuration.voters_outgoing),
        ("learners", &configuration.learners),
    ];
    for (name, nodes) in sets.iter().filter(|(_, nodes)| !nodes.is_empty()) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(name);
        for node in *nodes {
            let _ = write!(text, " {}", node.0);
        }
    }
    if text.is_empty() {
        text.push_str("none");
    }
    text
}
