//! The expectations, one handler each. None of them changes anything.

use drave::raft::{NodeId, RoleKind};

use super::arguments::Arguments;
use super::dump::{show_configuration, show_log, show_node};
use super::fault::{Fault, expect_equal};
use super::pool::Selector;
use super::world::{ReadOutcome, World};

type Handler = fn(&World, &mut Arguments) -> Result<(), Fault>;

/// Every expectation but `error`.
const EXPECTATIONS: &[(&str, Handler)] = &[
    ("caught-up", caught_up),
    ("commit", commit),
    ("config", config),
    ("down", down),
    ("durable", durable),
    ("first", first),
    ("follows", follows),
    ("leader", leader),
    ("log", log),
    ("match", matching),
    ("message", message),
    ("needs-snapshot", needs_snapshot),
    ("no", no),
    ("progress", progress),
    ("read", read),
    ("role", role),
    ("term", term),
    ("timer", timer),
    ("timers-differ", timers_differ),
    ("vote", vote),
];

/// Checks one expectation.
pub(super) fn run(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let name = arguments.word("what to expect")?;
    match EXPECTATIONS.iter().find(|(known, _)| *known == name) {
        Some((_, handler)) => handler(world, arguments),
        None => Err(Fault::script(format!("{name} cannot be expected"))),
    }
}

fn number_of(
    what: &str,
    arguments: &mut Arguments,
    found: impl FnOnce(NodeId) -> Result<u64, Fault>,
) -> Result<(), Fault> {
    let id = arguments.node()?;
    let expected = arguments.number(what)?;
    arguments.end()?;
    expect_equal(&format!("node {}: {what}", id.0), expected, found(id)?)
}

/// `expect commit 2 5`
fn commit(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    number_of("commit index", arguments, |id| {
        Ok(world.raft(id)?.commit_index())
    })
}

/// `expect durable 2 5`: the last entry the node knows to be on its disk.
fn durable(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    number_of("durable index", arguments, |id| {
        Ok(world.raft(id)?.durable_index())
    })
}

/// `expect first 2 5`: the first entry held.
fn first(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    number_of("first index", arguments, |id| {
        Ok(world.raft(id)?.first_index())
    })
}

/// `expect term 2 5`
fn term(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    number_of("term", arguments, |id| Ok(world.raft(id)?.term()))
}

/// `expect leader 1`, `expect leader 1 term 2`
fn leader(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    role_and_term(world, arguments, id, RoleKind::Leader)
}

/// `expect role 2 pre-candidate term 3`
fn role(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let word = arguments.word("a role")?;
    let known = [
        ("follower", RoleKind::Follower),
        ("pre-candidate", RoleKind::PreCandidate),
        ("candidate", RoleKind::Candidate),
        ("leader", RoleKind::Leader),
    ];
    let Some((_, role)) = known.iter().find(|(name, _)| *name == word) else {
        return Err(Fault::script(format!("{word} is no role")));
    };
    role_and_term(world, arguments, id, *role)
}

fn role_and_term(
    world: &World,
    arguments: &mut Arguments,
    id: NodeId,
    role: RoleKind,
) -> Result<(), Fault> {
    let raft = world.raft(id)?;
    let mut expected = format!("{role:?}");
    let mut found = format!("{:?}", raft.role());
    if arguments.keyword("term") {
        expected = format!("{expected} of term {}", arguments.number("a term")?);
        found = format!("{found} of term {}", raft.term());
    }
    arguments.end()?;
    expect_equal(&format!("node {}:", id.0), expected, found)
}

/// `expect follows 2 1`, `expect follows 2 none`: the leader node 2 knows.
fn follows(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let expected = arguments.word("a node or none")?;
    arguments.end()?;
    let found = show_node(world.raft(id)?.leader());
    expect_equal(&format!("node {} follows", id.0), expected, found)
}

/// `expect vote 2 1`, `expect vote 2 none`: in its term, durable or not.
fn vote(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let expected = arguments.word("a node or none")?;
    arguments.end()?;
    let found = show_node(world.raft(id)?.hard_state().vote);
    expect_equal(&format!("node {} has voted for", id.0), expected, found)
}

/// `expect log 3 1:1 2:1 3:2`, `expect log 3 after 4:2 5:2`, `expect log 3 empty`: index and term.
fn log(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let mut words = Vec::new();
    while let Some(word) = arguments.take() {
        words.push(word);
    }
    let node = world.node(id)?;
    let found = show_log(&node.disk.written);
    expect_equal(&format!("node {}: log", id.0), words.join(" "), found)
}

/// `expect match`, `expect match 1 2`: these, or all that run, have the same log, durable, and all
/// of it committed.
fn matching(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let mut nodes = arguments.nodes();
    arguments.end()?;
    if nodes.is_empty() {
        nodes = world.running();
    }
    let mut first = None;
    for id in nodes {
        let raft = world.raft(id)?;
        let last = raft.last();
        expect_equal(
            &format!("node {}: commit index", id.0),
            last.index,
            raft.commit_index(),
        )?;
        expect_equal(
            &format!("node {}: durable index", id.0),
            last.index,
            raft.durable_index(),
        )?;
        let (with, expected) = *first.get_or_insert((id, last));
        let what = format!("node {} ends as node {}:", id.0, with.0);
        expect_equal(&what, expected, last)?;
    }
    Ok(())
}

/// `expect config 1 voters 1 2 3`, `... outgoing 1 2 learners 4`: in force at node 1.
fn config(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let mut words = Vec::new();
    while let Some(word) = arguments.take() {
        words.push(word);
    }
    let found = show_configuration(world.raft(id)?.configuration());
    expect_equal(&format!("node {}:", id.0), words.join(" "), found)
}

/// `expect down 3`
fn down(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    arguments.end()?;
    let runs = world.node(id)?.raft.is_some();
    expect_equal(&format!("node {} runs:", id.0), false, runs)
}

/// `expect message 2->1 append-reply "match 5"`: one is on its way, and every one says so.
fn message(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let selector = Selector::parse(arguments)?;
    let part = arguments.take().unwrap_or_default();
    arguments.end()?;
    let matching: Vec<String> = world
        .pool
        .envelopes
        .values()
        .filter(|envelope| selector.matches(envelope))
        .map(|envelope| envelope.packet.to_string())
        .collect();
    let has_part = |text: &String| format!("{text} ").contains(&format!("{part} "));
    if !matching.is_empty() && (part.is_empty() || matching.iter().all(has_part)) {
        return Ok(());
    }
    Err(Fault::Expectation {
        expected: format!("message {selector} {part:?}"),
        found: format!("{matching:?}"),
    })
}

/// `expect no message 2->1 vote-reply`, `expect no read a`: not on its way, not answered.
fn no(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    if arguments.keyword("read") {
        let name = arguments.word("a read")?;
        arguments.end()?;
        return read_is(world, &name, ReadOutcome::Waiting);
    }
    if !arguments.keyword("message") {
        return Err(Fault::script("no message, or no read"));
    }
    let selector = Selector::parse(arguments)?;
    arguments.end()?;
    let on_their_way = world.pool.envelopes.values();
    match on_their_way
        .into_iter()
        .find(|envelope| selector.matches(envelope))
    {
        None => Ok(()),
        Some(envelope) => Err(Fault::Expectation {
            expected: format!("no message {selector}"),
            found: format!("{} {}", envelope.name(), envelope.packet),
        }),
    }
}

/// `expect caught-up 1 4 yes`: whether leader 1 would promote learner 4.
fn caught_up(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let (id, peer) = (arguments.node()?, arguments.node()?);
    let expected = arguments.word("yes or no")?;
    arguments.end()?;
    if expected != "yes" && expected != "no" {
        return Err(Fault::script(format!("yes or no, found {expected}")));
    }
    let found = if world.raft(id)?.is_caught_up(peer) {
        "yes"
    } else {
        "no"
    };
    expect_equal(
        &format!("node {} is caught up:", peer.0),
        expected.as_str(),
        found,
    )
}

/// `expect needs-snapshot 1 3`: leader 1 cannot go on with 3 by appends.
fn needs_snapshot(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let (id, peer) = (arguments.node()?, arguments.node()?);
    arguments.end()?;
    let found = world.raft(id)?.needs_snapshot(peer);
    expect_equal(&format!("node {} needs a snapshot:", peer.0), true, found)
}

/// `expect progress 1 2 match 5`, `... next 6`, `... state replicate`, `... flight 2`: how leader 1
/// sees node 2. `expect progress 1 2 none`: it does not.
fn progress(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let (id, peer) = (arguments.node()?, arguments.node()?);
    let view = world.raft(id)?.progress().find(|view| view.peer == peer);
    if arguments.keyword("none") {
        arguments.end()?;
        return expect_equal("progress is kept:", false, view.is_some());
    }
    let Some(view) = view else {
        return Err(Fault::Expectation {
            expected: format!("node {} knows of {}", id.0, peer.0),
            found: "it does not".to_owned(),
        });
    };
    while let Some(word) = arguments.take() {
        let found = match word.as_str() {
            "match" => view.match_index.to_string(),
            "next" => view.next_index.to_string(),
            "flight" => view.in_flight_messages.to_string(),
            "state" => {
                let state = format!("{:?}", view.state).to_lowercase();
                state.split(' ').next().unwrap_or_default().to_owned()
            }
            _ => return Err(Fault::script(format!("progress has no {word}"))),
        };
        let what = format!("node {} of node {}: {word}", peer.0, id.0);
        expect_equal(&what, arguments.word(&word)?, found)?;
    }
    Ok(())
}

/// `expect read a ready 5`, `expect read a failed`
fn read(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let name = arguments.word("a read")?;
    let outcome = match arguments.word("ready or failed")?.as_str() {
        "ready" => ReadOutcome::Ready {
            index: arguments.number("an index")?,
        },
        "failed" => ReadOutcome::Failed,
        other => return Err(Fault::script(format!("ready or failed, found {other}"))),
    };
    arguments.end()?;
    read_is(world, &name, outcome)
}

fn read_is(world: &World, name: &str, expected: ReadOutcome) -> Result<(), Fault> {
    let Some((_, _, found)) = world.reads.get(name) else {
        return Err(Fault::script(format!("there was no read {name}")));
    };
    let shown = |outcome: &ReadOutcome| format!("{outcome:?}");
    expect_equal(&format!("read {name}:"), shown(&expected), shown(found))
}

/// `expect timer 2 kept`, `expect timer 2 moved`: since `note timer 2`.
fn timer(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let id = arguments.node()?;
    let expected = arguments.word("kept or moved")?;
    arguments.end()?;
    if expected != "kept" && expected != "moved" {
        return Err(Fault::script(format!("kept or moved, found {expected}")));
    }
    let noted_us = world.node(id)?.deadline_noted_us;
    let kept = world.raft(id)?.next_deadline_us() == noted_us;
    let found = if kept { "kept" } else { "moved" };
    expect_equal(&format!("node {}: timer", id.0), expected.as_str(), found)
}

/// `expect timers-differ 1 2 3`: no two of these nodes wait equally long from now.
fn timers_differ(world: &World, arguments: &mut Arguments) -> Result<(), Fault> {
    let nodes = arguments.nodes();
    arguments.end()?;
    let mut waits_us = Vec::new();
    for id in nodes {
        let deadline_us = world.raft(id)?.next_deadline_us();
        waits_us.push(deadline_us.saturating_sub(world.node(id)?.now_us));
    }
    let found = format!("{waits_us:?}");
    let count = waits_us.len();
    waits_us.sort_unstable();
    waits_us.dedup();
    if waits_us.len() == count {
        return Ok(());
    }
    Err(Fault::Expectation {
        expected: "timers that differ".to_owned(),
        found,
    })
}
