use super::fixture::members;
use super::*;

fn says(cluster_id: &str, node_id: u64, knows: &[u64]) -> NodeIdentity {
    let mut identity = NodeIdentity::default();
    identity.cluster_id = cluster_id.to_owned();
    identity.node_id = node_id;
    identity.members = knows
        .iter()
        .map(|node_id| (*node_id, format!("10.0.0.{node_id}:4436")))
        .collect();
    identity
}

fn refused(letters: &str, found: &NodeIdentity) -> Option<(Option<ErrorCode>, Exit)> {
    let error = objection(Some("prod"), &members(letters), 4, found)?;
    assert!(!error.why.is_empty() && !error.next.is_empty(), "{error}");
    Some((error.code, error.exit))
}

#[test]
fn only_a_new_node_of_this_cluster_with_this_id_is_added() {
    assert_eq!(refused("vvv", &says("prod", 4, &[])), None);
    assert_eq!(
        refused("vvv", &says("test", 4, &[])),
        Some((Some(ErrorCode::WrongCluster), Exit::Mismatch))
    );
    assert_eq!(
        refused("vvv", &says("prod", 5, &[])),
        Some((Some(ErrorCode::WrongNode), Exit::Mismatch))
    );
    assert_eq!(
        refused("vvv", &says("prod", 4, &[1, 2, 4])),
        Some((Some(ErrorCode::MemberExists), Exit::Precondition))
    );
    // Added by an earlier run: by now it has been told of its cluster.
    assert_eq!(refused("vvvl", &says("prod", 4, &[1, 2, 3, 4])), None);
}

#[test]
fn an_unknown_outcome_says_how_to_find_out() {
    let error = ClientError::Unknown {
        code: None,
        cause: "the connection broke".to_owned(),
        attempts: 2,
    };
    let shown = change_error(&error, 4);
    assert_eq!(shown.exit, Exit::Unavailable);
    assert!(shown.next.contains("drave member list"), "{shown}");
}
