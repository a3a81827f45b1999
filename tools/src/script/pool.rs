//! Messages on their way, each with a name by which a script delivers, drops, holds or repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use drave::raft::{
    AppendEntries, AppendResult, EntryId, HeartbeatReply, Message, NodeId, SnapshotMeta,
};

use super::arguments::{Arguments, parse_number};
use super::disk::Entry;
use super::fault::Fault;

/// What nodes send each other.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Control(Message),
    Append(AppendEntries, Vec<Entry>),
    Snapshot { term: u64, meta: SnapshotMeta },
    SnapshotReply { term: u64, installed: bool },
}

impl Packet {
    /// The kind as scripts write it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Packet::Append(..) => "append",
            Packet::Snapshot { .. } => "snapshot",
            Packet::SnapshotReply { .. } => "snapshot-reply",
            Packet::Control(message) => match message {
                Message::VoteRequest(request) if request.pre_vote => "pre-vote",
                Message::VoteRequest(_) => "vote",
                Message::VoteReply(reply) if reply.pre_vote => "pre-vote-reply",
                Message::VoteReply(_) => "vote-reply",
                Message::Heartbeat(_) => "heartbeat",
                Message::HeartbeatReply(_) => "heartbeat-reply",
                Message::AppendReply(_) => "append-reply",
                Message::TimeoutNow(_) => "timeout-now",
                Message::ReadIndexRequest(_) => "read-request",
                Message::ReadIndexReply(_) => "read-reply",
            },
        }
    }
}

/// Entries as scripts write them: index, colon, term.
pub(super) fn show(id: EntryId) -> String {
    format!("{}:{}", id.index, id.term)
}

impl fmt::Display for Packet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packet::Append(append, entries) => {
                write!(formatter, "term {} prev {}", append.term, show(append.prev))?;
                if !entries.is_empty() {
                    write!(formatter, " entries")?;
                }
                for (index, entry) in (append.prev.index + 1..).zip(entries) {
                    write!(formatter, " {index}:{}", entry.term)?;
                }
                write!(
                    formatter,
                    " commit {} session {}",
                    append.commit_index, append.session
                )
            }
            Packet::Snapshot { term, meta } => {
                write!(formatter, "term {term} last {}", show(meta.last))
            }
            Packet::SnapshotReply { term, installed } => {
                let what = if *installed { "installed" } else { "refused" };
                write!(formatter, "term {term} {what}")
            }
            Packet::Control(message) => show_message(formatter, message),
        }
    }
}

fn show_message(formatter: &mut fmt::Formatter<'_>, message: &Message) -> fmt::Result {
    match message {
        Message::VoteRequest(request) => {
            let transfer = if request.transfer { " transfer" } else { "" };
            let last = show(request.last);
            write!(formatter, "term {} last {last}{transfer}", request.term)
        }
        Message::VoteReply(reply) => {
            let what = if reply.granted { "granted" } else { "refused" };
            write!(formatter, "term {} {what}", reply.term)
        }
        Message::Heartbeat(heartbeat) => write!(
            formatter,
            "term {} commit {} round {} session {}",
            heartbeat.term, heartbeat.commit_index, heartbeat.read_round, heartbeat.session
        ),
        Message::HeartbeatReply(HeartbeatReply {
            term,
            read_round,
            session,
            match_index,
            received_index,
            ..
        }) => write!(
            formatter,
            "term {term} match {match_index} received {received_index} round {read_round} session {session}"
        ),
        Message::AppendReply(reply) => {
            write!(formatter, "term {} ", reply.term)?;
            match reply.result {
                AppendResult::Accepted {
                    match_index,
                    received_index,
                } => write!(
                    formatter,
                    "accepted match {match_index} received {received_index}"
                )?,
                AppendResult::Rejected {
                    rejected_prev,
                    hint,
                    last_index,
                } => write!(
                    formatter,
                    "rejected {rejected_prev} hint {} last {last_index}",
                    show(hint)
                )?,
            }
            write!(formatter, " session {}", reply.session)
        }
        Message::TimeoutNow(timeout) => write!(formatter, "term {}", timeout.term),
        // Numbers are drawn at random: not shown, so that no script depends on one.
        Message::ReadIndexRequest(request) => write!(formatter, "term {}", request.term),
        Message::ReadIndexReply(reply) => {
            let what = if reply.ok { "ready" } else { "refused" };
            write!(formatter, "term {} {what} {}", reply.term, reply.index)
        }
    }
}

/// A message with its name: link, kind, and number among those of its kind on its link, from 1.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) number: u64,
    pub(super) packet: Packet,
    /// Left alone by whatever does not call it by its number.
    pub(super) held: bool,
}

impl Envelope {
    pub(super) fn name(&self) -> String {
        let (from, to) = (self.from.0, self.to.0);
        format!("{from}->{to} {}#{}", self.packet.kind(), self.number)
    }
}

/// Which messages a command is about: `1->2 append#3`, `*->2 vote`, `all`.
#[derive(Debug)]
pub(super) struct Selector {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kind: Option<String>,
    pub(super) number: Option<u64>,
    text: String,
}

const KINDS: &[&str] = &[
    "pre-vote",
    "pre-vote-reply",
    "vote",
    "vote-reply",
    "heartbeat",
    "heartbeat-reply",
    "append",
    "append-reply",
    "timeout-now",
    "read-request",
    "read-reply",
    "snapshot",
    "snapshot-reply",
];

impl Selector {
    pub(super) fn parse(arguments: &mut Arguments) -> Result<Selector, Fault> {
        let link = arguments.word("messages, such as 1->2 append or all")?;
        let mut selector = Selector {
            from: None,
            to: None,
            kind: None,
            number: None,
            text: link.clone(),
        };
        if link != "all" {
            let Some((from, to)) = link.split_once("->") else {
                return Err(Fault::script(format!(
                    "messages are named 1->2 append#3, found {link}"
                )));
            };
            selector.from = end_of_link(from)?;
            selector.to = end_of_link(to)?;
        }
        let known = |word: &str| KINDS.contains(&word.split('#').next().unwrap_or_default());
        if let Some(word) = arguments.peek().filter(|word| known(word)) {
            let word = word.to_owned();
            arguments.take();
            let _ = write!(selector.text, " {word}");
            if let Some((kind, number)) = word.split_once('#') {
                selector.kind = Some(kind.to_owned());
                selector.number = Some(parse_number(number, "a message's number")?);
            } else {
                selector.kind = Some(word);
            }
        }
        Ok(selector)
    }

    pub(super) fn is_all(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.kind.is_none()
    }

    pub(super) fn matches(&self, envelope: &Envelope) -> bool {
        self.from.is_none_or(|from| from == envelope.from)
            && self.to.is_none_or(|to| to == envelope.to)
            && self
                .kind
                .as_deref()
                .is_none_or(|kind| kind == envelope.packet.kind())
            && self.number.is_none_or(|number| number == envelope.number)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.text)
    }
}

fn end_of_link(word: &str) -> Result<Option<NodeId>, Fault> {
    if word == "*" {
        return Ok(None);
    }
    parse_number(word, "a node").map(|id| Some(NodeId(id)))
}

/// All messages that were sent and neither delivered nor lost, in the order of sending.
#[derive(Default, Debug)]
pub(super) struct Pool {
    pub(super) envelopes: BTreeMap<u64, Envelope>,
    sequence: u64,
    numbers: BTreeMap<(NodeId, NodeId, &'static str), u64>,
    /// Links, by direction, on which nothing passes.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
}

impl Pool {
    /// What is sent on a cut link is lost; it has its number all the same.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let number = self.numbers.entry((from, to, packet.kind())).or_default();
        *number += 1;
        let envelope = Envelope {
            from,
            to,
            number: *number,
            packet,
            held: false,
        };
        if self.cut.contains(&(from, to)) {
            return;
        }
        self.sequence += 1;
        self.envelopes.insert(self.sequence, envelope);
    }

    pub(super) fn is_cut(&self, envelope: &Envelope) -> bool {
        self.cut.contains(&(envelope.from, envelope.to))
    }

    /// What the selector names, in the order of sending. Held messages only if called by number.
    pub(super) fn select(&self, selector: &Selector) -> Vec<u64> {
        let wanted = |envelope: &Envelope| {
            selector.matches(envelope) && (!envelope.held || selector.number.is_some())
        };
        let matching = self
            .envelopes
            .iter()
            .filter(|(_, envelope)| wanted(envelope));
        matching.map(|(key, _)| *key).collect()
    }

    /// As `select`, and at least one.
    pub(super) fn select_some(&self, selector: &Selector) -> Result<Vec<u64>, Fault> {
        let selected = self.select(selector);
        if selected.is_empty() {
            return Err(Fault::script(format!(
                "there is no message {selector}; on their way are:\n{}",
                self.list()
            )));
        }
        Ok(selected)
    }

    /// One message a line.
    pub(super) fn list(&self) -> String {
        let mut text = String::new();
        for envelope in self.envelopes.values() {
            let held = if envelope.held { " (held)" } else { "" };
            let _ = writeln!(text, "  {} {}{held}", envelope.name(), envelope.packet);
        }
        text
    }
}
