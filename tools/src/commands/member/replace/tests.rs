use super::super::fixture::members;
use super::*;

fn step(letters: &str, old: u64, new: u64) -> Result<Step, Exit> {
    let address = format!("10.0.0.{new}:4436");
    next_step(&members(letters), old, new, &address).map_err(|error| error.exit)
}

#[test]
fn the_members_say_what_is_next() {
    for (letters, old, new, expected) in [
        // The way from the beginning to the end.
        ("vvv", 2, 4, Ok(Step::Add)),
        ("vvvl", 2, 4, Ok(Step::Exchange)),
        ("vobb", 2, 4, Ok(Step::Wait)),
        ("v-vv", 2, 4, Ok(Step::Done)),
        // Others have done some of it.
        ("v-vl", 2, 4, Ok(Step::Promote)),
        ("vvvv", 2, 4, Ok(Step::Exchange)),
        // The old one is dead, or the leader.
        ("vsv", 2, 4, Ok(Step::Add)),
        ("vvvl", 1, 4, Ok(Step::Exchange)),
        ("v", 1, 2, Ok(Step::Add)),
        // Nothing to replace.
        ("v-v", 2, 4, Err(Exit::NotFound)),
        ("vvv", 9, 4, Err(Exit::NotFound)),
        ("vvvl", 9, 4, Err(Exit::NotFound)),
        ("vvvv", 9, 4, Err(Exit::NotFound)),
        ("vvvv", 0, 4, Err(Exit::NotFound)),
        ("vvv", 2, 2, Err(Exit::Usage)),
    ] {
        assert_eq!(step(letters, old, new), expected, "{letters} {old} {new}");
    }
}

#[test]
fn an_uncommitted_change_is_waited_for() {
    let mut listed = members("vvvl");
    listed.is_committed = false;
    let step = next_step(&listed, 2, 4, "10.0.0.4:4436");
    assert_eq!(step.unwrap(), Step::Wait);
}

#[test]
fn a_member_at_another_address_is_not_taken_for_the_new_node() {
    let error = next_step(&members("vvvl"), 2, 4, "10.0.0.9:4436").unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::MemberExists));
    assert!(error.why.contains("10.0.0.4:4436"), "{error}");
}
