//! The members for people and for programs, and how many failures the cluster tolerates.

use std::time::Duration;

use drave_client::{Member, MemberRole, Members};
use serde::Serialize;

use crate::cli::ResultFormat;
use crate::output::{brief, plain_table, render_table};

/// A voter that the leader has not heard of for this long counts as failed: many heartbeats, and longer than
/// any election timeout that makes sense.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What is printed; the JSON keys are a promise.
#[derive(Debug, Serialize)]
struct View {
    cluster_id: String,
    leader_id: u64,
    term: u64,
    commit_index: u64,
    configuration_index: u64,
    is_committed: bool,
    is_joint: bool,
    node_id_max: u64,
    failures_tolerated: Option<usize>,
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    node_id: u64,
    address: String,
    role: &'static str,
    outgoing_voter: bool,
    incarnation: Option<String>,
    match_index: u64,
    lag_entries: u64,
    last_active_ms: Option<u64>,
    is_caught_up: bool,
}

/// Whether the leader has lost sight of a member.
pub(super) fn is_silent(members: &Members, member: &Member) -> bool {
    let heard = member.last_active.is_some_and(|since| since < SILENCE_MAX);
    member.node_id != members.leader_id && !heard
}

fn is_voter(member: &Member) -> bool {
    member.role == Some(MemberRole::Voter) || member.outgoing_voter
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// One line: how many vote, who of them does not answer, how many more may fail.
pub(super) fn tolerance(members: &Members) -> String {
    let count = |role| {
        let with_role = members.members.iter().filter(|m| m.role == Some(role));
        with_role.count()
    };
    let mut parts = vec![plural(count(MemberRole::Voter), "voter")];
    if members.is_joint() {
        let outgoing = members.members.iter().filter(|m| m.outgoing_voter).count();
        parts.push(format!("of {outgoing} before, both majorities needed"));
    }
    if count(MemberRole::Learner) > 0 {
        parts.push(plural(count(MemberRole::Learner), "learner"));
    }
    let silent: Vec<String> = members
        .members
        .iter()
        .filter(|member| is_voter(member) && is_silent(members, member))
        .map(|member| member.node_id.to_string())
        .collect();
    let more = if silent.is_empty() { "" } else { "more " };
    if !silent.is_empty() {
        parts.push(format!("silent: {}", silent.join(" ")));
    }
    parts.push(
        match members.failures_tolerated(|member| is_silent(members, member)) {
            Some(1) => format!("tolerates 1 {more}failure"),
            Some(tolerated) => format!("tolerates {tolerated} {more}failures"),
            None => "has no majority".to_owned(),
        },
    );
    parts.join(", ")
}

/// What a member is, in one word or two.
pub(super) fn role(members: &Members, member: &Member) -> &'static str {
    match (member.role, member.outgoing_voter) {
        (Some(MemberRole::Voter), false) if members.is_joint() => "joining",
        (Some(MemberRole::Voter), _) => "voter",
        (None, _) => "leaving",
        (Some(MemberRole::Learner), true) => "resigning",
        (Some(MemberRole::Learner), false) => "learner",
    }
}

/// All of it, as asked for.
pub(super) fn render(cluster_id: &str, members: &Members, format: ResultFormat) -> String {
    match format {
        ResultFormat::Table => table(cluster_id, members),
        ResultFormat::Json => json(cluster_id, members),
    }
}

fn incarnation(member: &Member) -> Option<String> {
    (member.incarnation != 0).then(|| format!("{:032x}", member.incarnation))
}

fn json(cluster_id: &str, members: &Members) -> String {
    let view_of = |member: &Member| MemberView {
        node_id: member.node_id,
        address: member.address.clone(),
        role: role(members, member),
        outgoing_voter: member.outgoing_voter,
        incarnation: incarnation(member),
        match_index: member.match_index,
        lag_entries: member.lag_entries,
        last_active_ms: member
            .last_active
            .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        is_caught_up: member.is_caught_up,
    };
    let view = View {
        cluster_id: cluster_id.to_owned(),
        leader_id: members.leader_id,
        term: members.term,
        commit_index: members.commit_index,
        configuration_index: members.configuration_index,
        is_committed: members.is_committed,
        is_joint: members.is_joint(),
        node_id_max: members.node_id_max,
        failures_tolerated: members.failures_tolerated(|member| is_silent(members, member)),
        members: members.members.iter().map(view_of).collect(),
    };
    let mut text =
        serde_json::to_string_pretty(&view).expect("plain fields into memory cannot fail");
    text.push('\n');
    text
}

fn table(cluster_id: &str, members: &Members) -> String {
    let state = if members.is_changing() {
        " (changing)"
    } else {
        ""
    };
    let header = format!(
        "cluster {cluster_id}  leader node {}  term {}  configuration {}{state}  next free id {}\n{}\n",
        members.leader_id,
        members.term,
        members.configuration_index,
        members.node_id_max.saturating_add(1),
        tolerance(members),
    );
    let mut table = plain_table(&[
        "NODE",
        "ADDRESS",
        "ROLE",
        "MATCH",
        "LAG",
        "LAST HEARD",
        "CAUGHT UP",
        "INCARNATION",
    ]);
    for member in &members.members {
        let last_heard = match member.last_active {
            _ if member.node_id == members.leader_id => "leads".to_owned(),
            // The leader counts in milliseconds.
            Some(since) => brief(since.max(Duration::from_millis(1))),
            None => "never".to_owned(),
        };
        table.add_row([
            member.node_id.to_string(),
            member.address.clone(),
            role(members, member).to_owned(),
            member.match_index.to_string(),
            member.lag_entries.to_string(),
            last_heard,
            if member.is_caught_up { "yes" } else { "no" }.to_owned(),
            incarnation(member).unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    header + &render_table(table)
}

#[cfg(test)]
mod tests;
