use super::super::fixture::members;
use super::*;

#[test]
fn tolerance_in_words() {
    for (letters, expected) in [
        ("v", "1 voter, tolerates 0 failures"),
        ("vvv", "3 voters, tolerates 1 failure"),
        ("vvvl", "3 voters, 1 learner, tolerates 1 failure"),
        ("vvs", "3 voters, silent: 3, tolerates 0 more failures"),
        ("vss", "3 voters, silent: 2 3, has no majority"),
        (
            "bbov",
            "3 voters, of 3 before, both majorities needed, tolerates 1 failure",
        ),
        ("vvvvv", "5 voters, tolerates 2 failures"),
    ] {
        assert_eq!(tolerance(&members(letters)), expected, "{letters}");
    }
}

#[test]
fn the_leader_is_never_silent_and_the_others_are_after_a_while() {
    let mut listed = members("vv");
    listed.members[0].last_active = None;
    listed.members[1].last_active = Some(SILENCE_MAX);
    assert!(!is_silent(&listed, &listed.members[0]));
    assert!(is_silent(&listed, &listed.members[1]));
    listed.members[1].last_active = Some(SILENCE_MAX - Duration::from_millis(1));
    assert!(!is_silent(&listed, &listed.members[1]));
}

#[test]
fn the_table() {
    let mut listed = members("vsl");
    listed.members[2].incarnation = 0xAB;
    listed.members[2].lag_entries = 7;
    listed.members[2].is_caught_up = false;
    let expected = "\
cluster prod  leader node 1  term 5  configuration 12  next free id 4
2 voters, 1 learner, silent: 2, has no majority
NODE  ADDRESS        ROLE     MATCH  LAG  LAST HEARD  CAUGHT UP  INCARNATION
1     10.0.0.1:4436  voter    1000   0    leads       yes        -
2     10.0.0.2:4436  voter    1000   0    never       yes        -
3     10.0.0.3:4436  learner  1000   7    12 ms       no         000000000000000000000000000000ab
";
    assert_eq!(render("prod", &listed, ResultFormat::Table), expected);
    let joint = render("prod", &members("bov"), ResultFormat::Table);
    for part in ["configuration 12 (changing)", "leaving", "joining"] {
        assert!(joint.contains(part), "no {part:?} in\n{joint}");
    }
}

#[test]
fn the_json_keys_are_kept() {
    let mut listed = members("vsl");
    listed.members[2].incarnation = 0xAB;
    let text = render("prod", &listed, ResultFormat::Json);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in [
        "cluster_id",
        "leader_id",
        "term",
        "commit_index",
        "configuration_index",
        "is_committed",
        "is_joint",
        "node_id_max",
        "failures_tolerated",
        "members",
    ] {
        assert!(value.get(key).is_some(), "{key} is missing in {value}");
    }
    assert!(
        value["failures_tolerated"].is_null(),
        "there is no majority"
    );
    assert_eq!(value["node_id_max"], 3);
    let expected = serde_json::json!({
        "node_id": 3,
        "address": "10.0.0.3:4436",
        "role": "learner",
        "outgoing_voter": false,
        "incarnation": "000000000000000000000000000000ab",
        "match_index": 1_000,
        "lag_entries": 0,
        "last_active_ms": 12,
        "is_caught_up": true,
    });
    assert_eq!(value["members"][2], expected);
    assert!(value["members"][1]["last_active_ms"].is_null());
    assert!(value["members"][0]["incarnation"].is_null());
    let five = render("prod", &members("vvvvv"), ResultFormat::Json);
    let value: serde_json::Value = serde_json::from_str(&five).unwrap();
    assert_eq!(value["failures_tolerated"], 2);
}
