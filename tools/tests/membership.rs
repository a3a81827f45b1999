//! Members of real clusters: nodes come and go under load, the command that exchanges them is killed in the
//! middle, leaders leave, and what must not be done is refused by name and leaves nothing behind.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{LIMIT, RunningAppend, TestCluster, drave, numbered_lines, run};
use drave_client::{ErrorCode, MembersChange};
use drave_tools::cluster::wait;
use serde_json::Value;

/// Lines that a learner has to catch up with.
const LINES: usize = 20_000;

/// `drave member list --format json`.
fn listed(test: &TestCluster) -> Value {
    let listed = test.run(&["member", "list", "--format", "json"], b"");
    serde_json::from_str(listed.assert_code(0).text()).unwrap()
}

/// Ids with their roles: `1 voter, 4 learner`.
fn describe(listed: &Value) -> String {
    let members = listed["members"].as_array().unwrap().iter();
    let words = members.map(|m| format!("{} {}", m["node_id"], m["role"].as_str().unwrap()));
    words.collect::<Vec<_>>().join(", ")
}

/// Asks for the members until they are as wanted.
#[track_caller]
fn wait_until(test: &TestCluster, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let listed = listed(test);
        if reached(&listed) {
            return listed;
        }
        assert!(Instant::now() < deadline, "never {what}: {listed}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Formats and starts a node that knows nobody; gives its id and address.
fn start_joining(test: &mut TestCluster) -> (String, String) {
    let node_id = test.cluster.add_joining().unwrap();
    test.cluster.start(node_id).unwrap();
    let address = test.cluster.address(node_id).to_owned();
    // It listens as soon as it has started; whoever asks it before then is refused.
    let deadline = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(Instant::now() < deadline, "node {node_id} does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    (node_id.to_string(), address)
}

/// What each of these nodes holds of the log `a`, each asked alone once it has all of it.
fn assert_held(test: &mut TestCluster, node_ids: &[u64], expected: &[u8]) {
    for node_id in node_ids {
        let reached = wait::until(
            &mut test.cluster,
            &test.client,
            "node that has applied everything",
            LIMIT,
            |status| {
                let leader = status.leader_id?;
                let of = |id: u64| status.nodes.iter().find(|n| n.node_id == Some(id));
                let last_index = of(leader)?.last_index?;
                (of(*node_id)?.applied_index? == last_index).then_some(())
            },
        );
        test.runtime
            .block_on(reached)
            .unwrap_or_else(|error| panic!("{error}"));
        let node = node_id.to_string();
        let held = test
            .run(&["read", "a", "--node", &node], b"")
            .assert_code(0);
        assert!(
            held.stdout == expected,
            "node {node_id} differs from the input"
        );
    }
}

/// Kills the command once it has said so many lines on standard error; whether it got that far.
fn kill_after_lines(test: &TestCluster, arguments: &[&str], lines: usize) -> bool {
    let mut child = test.drave(arguments).stdout(Stdio::null()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let seen = said.take(lines).map(Result::unwrap).count();
    // One that has ended is killed in vain.
    let _ = child.kill();
    child.wait().unwrap();
    seen == lines
}

#[test]
fn a_replacement_whose_command_is_killed_at_every_line_ends_as_asked() {
    let mut test = TestCluster::start(3);
    let input = numbered_lines(LINES);
    test.run(&["append", "a", "--create", "--summary"], &input)
        .assert_code(0);
    let (new, address) = start_joining(&mut test);
    let leader = test.leader();
    let old = if leader == 1 { 2 } else { 1 };
    let old_text = old.to_string();
    let arguments = ["member", "replace", &old_text, &new, &address];
    let mut killed = 0;
    for lines in [1, 1, 2, 1, 2, 3, 4] {
        killed += usize::from(kill_after_lines(&test, &arguments, lines));
    }
    assert!(
        killed >= 3,
        "killed {killed} times while it had something to say"
    );
    let ended = test.run(&arguments, b"").assert_code(0);
    assert!(
        ended.stderr.contains("now: 3 voters, tolerates 1 failure"),
        "{}",
        ended.stderr
    );
    let expected: Vec<String> = (1..=4)
        .filter(|id| *id != old)
        .map(|id| format!("{id} voter"))
        .collect();
    let listed = listed(&test);
    assert_eq!(describe(&listed), expected.join(", "));
    assert_eq!(
        (&listed["failures_tolerated"], &listed["is_joint"]),
        (&1.into(), &false.into())
    );
    let stay: Vec<u64> = (1..=4).filter(|id| *id != old).collect();
    assert_held(&mut test, &stay, &input);
    // The new voter counts: with one of the others dead the group goes on.
    test.cluster.kill(old).unwrap();
    let other = stay.iter().find(|id| **id != 4 && **id != leader).unwrap();
    test.cluster.kill(*other).unwrap();
    test.run(&["append", "a", "--summary"], b"more\n")
        .assert_code(0);
}

#[test]
fn the_leader_is_replaced_and_the_next_one_removed_under_load() {
    let mut test = TestCluster::start(3);
    let mut append = RunningAppend::start(test.drave(&["append", "a", "--create", "--batch", "8"]));
    let input = numbered_lines(LINES);
    let part = input.len() / 3;
    append.write(&input[..part]);
    append.wait_acknowledged(LINES / 4);
    let (new, address) = start_joining(&mut test);
    let old = test.leader();
    let old_text = old.to_string();
    let replaced = test
        .run(&["member", "replace", &old_text, &new, &address], b"")
        .assert_code(0)
        .assert_says("step: exchange");
    assert!(
        replaced
            .stderr
            .contains("after:  3 voters, tolerates 1 failure"),
        "{}",
        replaced.stderr
    );
    append.write(&input[part..2 * part]);
    append.wait_acknowledged(LINES / 2);
    let next = listed(&test)["leader_id"].as_u64().unwrap();
    assert_ne!(next, old, "who left does not lead");
    test.run(&["member", "remove", &next.to_string()], b"")
        .assert_code(0)
        .assert_says("after:  2 voters, tolerates 0 failures");
    append.write(&input[2 * part..]);
    let (ended, acknowledged) = append.finish();
    ended.assert_code(0);
    assert!(
        acknowledged.iter().copied().eq(0..LINES as u64),
        "each line once, in order"
    );
    let stay: Vec<u64> = (1..=4).filter(|id| *id != old && *id != next).collect();
    assert_held(&mut test, &stay, &input);
}

#[test]
fn a_dead_member_is_replaced_while_leaders_die() {
    let mut test = TestCluster::start(3);
    let input = numbered_lines(LINES);
    test.run(&["append", "a", "--create", "--summary"], &input)
        .assert_code(0);
    let leader = test.leader();
    let dead = if leader == 1 { 2 } else { 1 };
    test.cluster.kill(dead).unwrap();
    let (new, address) = start_joining(&mut test);
    let dead_text = dead.to_string();
    let mut child = test
        .drave(&["member", "replace", &dead_text, &new, &address])
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert!(first.starts_with("step: add"), "{first}");
    // Two of three voters were left; now no majority is, until the leader is back.
    test.cluster.kill(leader).unwrap();
    test.cluster.start(leader).unwrap();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{rest:#?}");
    let stay: Vec<u64> = (1..=4).filter(|id| *id != dead).collect();
    let words: Vec<String> = stay.iter().map(|id| format!("{id} voter")).collect();
    assert_eq!(describe(&listed(&test)), words.join(", "));
    assert_held(&mut test, &stay, &input);
}

#[test]
fn what_must_not_be_done_is_refused_by_name_and_changes_nothing() {
    let mut test = TestCluster::start(3);
    let before = listed(&test);
    let configuration = before["configuration_index"].clone();
    let leader = before["leader_id"].as_u64().unwrap();
    let (new, address) = start_joining(&mut test);
    let [follower, other] = {
        let mut ids = [1_u64, 2, 3].into_iter().filter(|id| *id != leader);
        [ids.next().unwrap(), ids.next().unwrap()]
    };
    for (line, exit, code) in [
        // A stranger.
        (&["member", "promote", &new][..], 3, "DRV-0303"),
        (&["member", "remove", &new], 3, "DRV-0303"),
        (&["member", "replace", "9", &new, &address], 3, "DRV-0303"),
        // A name that is taken, an id that is not its own.
        (&["member", "add", "3", &address], 7, "DRV-0703"),
        (&["leader", "transfer", &new], 4, "DRV-0308"),
        (&["leader", "transfer", "77"], 4, "DRV-0308"),
    ] {
        test.run(line, b"").assert_code(exit).assert_says(code);
    }
    // Two changes decided on the same configuration: one is made.
    let both = [follower, other].map(|node_id| MembersChange::Remove { node_id });
    let seen = configuration.as_u64();
    let answers = test.runtime.block_on(async {
        tokio::join!(
            test.client.change_members(&both[0], seen),
            test.client.change_members(&both[1], seen)
        )
    });
    let (made, refused) = match answers {
        (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
        both => panic!("one of the two: {both:?}"),
    };
    assert_eq!(
        refused.code(),
        Some(ErrorCode::MembershipConflict),
        "{refused}"
    );
    assert_eq!(made.members.len(), 2);
    wait_until(&test, "committed", |listed| listed["is_committed"] == true);
    assert_eq!(listed(&test)["members"].as_array().unwrap().len(), 2);
}

#[test]
fn without_a_quorum_nothing_is_changed_or_all_of_it() {
    let mut test = TestCluster::start(3);
    let before = listed(&test);
    let leader = before["leader_id"].as_u64().unwrap();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for node_id in &followers {
        test.cluster.kill(*node_id).unwrap();
    }
    // The leader may not have noticed yet: then the change is in its log, and the outcome unknown.
    let leaving = followers[0].to_string();
    let remove = ["member", "remove", &leaving, "--timeout", "2s"];
    let early = test.run(&remove, b"");
    assert!(matches!(early.code, Some(4 | 5)), "{}", early.stderr);
    let gone = wait::until(
        &mut test.cluster,
        &test.client,
        "leader that has given up",
        LIMIT,
        |status| status.leader_id.is_none().then_some(()),
    );
    test.runtime
        .block_on(gone)
        .unwrap_or_else(|error| panic!("{error}"));
    let started = Instant::now();
    for line in [
        &remove[..],
        &["member", "list", "--timeout", "2s"],
        &["member", "promote", "2", "--timeout", "2s"],
        &["leader", "transfer", &leaving, "--timeout", "2s"],
    ] {
        let ended = test
            .run(line, b"")
            .assert_code(5)
            .assert_says("error[DRV-010");
        assert!(
            ended.stderr.contains("effect  nothing was written"),
            "{}",
            ended.stderr
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "each within its timeout"
    );
    test.cluster.start_all().unwrap();
    let after = wait_until(&test, "settled", |listed| {
        listed["is_committed"] == true && listed["is_joint"] == false
    });
    let as_before = describe(&after) == describe(&before);
    let removed = after["members"].as_array().unwrap().len() == 2;
    assert!(
        as_before || (removed && early.code == Some(5)),
        "{after}, after {}",
        early.stderr
    );
}

#[test]
fn who_left_is_told_and_asks_for_no_votes() {
    // Enough time to be told on any machine.
    let settings = "[raft]\nelection_timeout_min = \"2s\"\nelection_timeout_max = \"4s\"\n";
    let mut test = TestCluster::start_with(3, settings);
    let leader = test.leader();
    let left = (1..=3).find(|id| *id != leader).unwrap();
    test.run(&["member", "remove", &left.to_string()], b"")
        .assert_code(0);
    let address = test.cluster.address(left).to_owned();
    let deadline = Instant::now() + LIMIT;
    loop {
        let probe = drave_client::probe_identity(&address, LIMIT);
        let knows = test.runtime.block_on(probe).unwrap().members;
        if knows.iter().all(|(id, _)| *id != left) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "it was never told, and knows {knows:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_change_that_would_lose_the_quorum_is_refused_and_one_that_restores_it_is_not() {
    let mut test = TestCluster::start(3);
    let leader = test.leader();
    let [dead, alive] = {
        let mut ids = [1_u64, 2, 3].into_iter().filter(|id| *id != leader);
        [ids.next().unwrap(), ids.next().unwrap()]
    };
    test.cluster.kill(dead).unwrap();
    wait_until(&test, "seen as silent", |listed| {
        listed["failures_tolerated"] == 0
    });
    let (alive, dead_text) = (alive.to_string(), dead.to_string());
    for line in [
        ["member", "remove", alive.as_str()],
        ["leader", "transfer", dead_text.as_str()],
    ] {
        let code = if line[0] == "member" {
            "DRV-0307"
        } else {
            "DRV-0308"
        };
        test.run(&line, b"").assert_code(4).assert_says(code);
    }
    test.run(&["leader", "transfer", &alive], b"")
        .assert_code(0);
    test.run(&["member", "remove", &dead_text], b"")
        .assert_code(0)
        .assert_says("after:  2 voters, tolerates 0 failures");
    // What left, wiped or not, does not come back under its id.
    std::fs::remove_dir_all(test.cluster.data_dir(dead)).unwrap();
    let dir = common::path_text(&test.cluster.data_dir(dead));
    let address = test.cluster.address(dead).to_owned();
    let format = [
        "format",
        "--join",
        "--data-dir",
        &dir,
        "--cluster-id",
        "test",
        "--node-id",
        &dead_text,
        "--address",
        &address,
    ];
    run(&mut drave(&format), b"").assert_code(0);
    test.cluster.start(dead).unwrap();
    let deadline = Instant::now() + LIMIT;
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    test.run(&["member", "add", &dead_text, &address], b"")
        .assert_code(4)
        .assert_says("DRV-0304");
    let left = listed(&test)["members"].as_array().unwrap().len();
    assert_eq!(left, 2);
}

#[test]
fn the_last_voter_stays_and_a_wiped_member_is_not_taken_for_itself() {
    let mut test = TestCluster::start(1);
    test.run(&["member", "remove", "1"], b"")
        .assert_code(4)
        .assert_says("DRV-0306");
    let (new, address) = start_joining(&mut test);
    test.run(&["member", "add", &new, &address], b"")
        .assert_code(0);
    test.run(&["member", "add", &new, &address], b"")
        .assert_code(0);
    test.run(&["member", "promote", &new], b"")
        .assert_code(0)
        .assert_says("after:  2 voters, tolerates 0 failures");
    test.run(&["leader", "transfer", &new], b"").assert_code(0);
    test.run(&["member", "remove", "1"], b"").assert_code(0);
    test.run(&["member", "remove", &new], b"")
        .assert_code(4)
        .assert_says("DRV-0306");
    // Grown again, and the second one loses its disk.
    let (third, address) = start_joining(&mut test);
    test.run(&["member", "add", &third, &address], b"")
        .assert_code(0);
    test.cluster.kill(3).unwrap();
    let dir = common::path_text(&test.cluster.data_dir(3));
    std::fs::remove_dir_all(&dir).unwrap();
    let format = [
        "format",
        "--join",
        "--data-dir",
        &dir,
        "--cluster-id",
        "test",
        "--node-id",
        "3",
        "--address",
        &address,
    ];
    run(&mut drave(&format), b"").assert_code(0);
    test.cluster.start(3).unwrap();
    let silent = wait_until(&test, "a learner that is not heard of", |listed| {
        listed["members"][1]["last_active_ms"]
            .as_u64()
            .is_none_or(|ms| ms > 2_000)
    });
    assert_eq!(describe(&silent), "2 voter, 3 learner");
    test.run(&["member", "add", "3", &address], b"")
        .assert_code(4)
        .assert_says("DRV-0302");
    test.run(&["member", "promote", "3", "--wait", "500ms"], b"")
        .assert_code(5)
        .assert_says("DRV-0305");
}
