use super::*;

fn open(dir: &Path, cluster: Option<&str>) -> Result<Store, StoreError> {
    Store::open(dir, cluster, Duration::ZERO)
}

fn request(dir: &Path) -> FormatRequest {
    FormatRequest {
        data_dir: dir.to_owned(),
        cluster_id: "test".to_owned(),
        node_id: 2,
        members: vec![
            (2, "127.0.0.2:7000".to_owned()),
            (1, "127.0.0.1:7000".to_owned()),
        ],
        join: false,
    }
}

#[test]
fn what_was_formatted_is_opened_and_held_alone() {
    let dir = tempfile::tempdir().unwrap();
    let made = format_store(&request(dir.path())).unwrap();
    let store = open(dir.path(), Some("test")).unwrap();
    assert_eq!(store.identity, made);
    assert_ne!(made.incarnation, 0);
    assert_eq!(made.members.members[0].node_id, 1);
    assert!(matches!(
        open(dir.path(), None),
        Err(StoreError::InUse { .. })
    ));
    drop(store);
    open(dir.path(), None).unwrap();
}

#[test]
fn two_stores_never_share_an_incarnation() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = format_store(&request(a.path())).unwrap();
    let b = format_store(&request(b.path())).unwrap();
    assert_ne!(a.incarnation, b.incarnation);
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), b"x").unwrap();
    assert!(matches!(
        format_store(&request(dir.path())),
        Err(StoreError::NotEmpty { .. })
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn each_wrong_directory_has_its_own_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(dir.path(), None),
        Err(StoreError::Unformatted { .. })
    ));
    format_store(&request(dir.path())).unwrap();
    assert!(matches!(
        open(dir.path(), Some("other")),
        Err(StoreError::WrongCluster { .. })
    ));
    let path = dir.path().join(IDENTITY_FILE);
    let good = fs::read(&path).unwrap();
    let mut future = good.clone();
    future[8] = 9;
    fs::write(&path, &future).unwrap();
    assert!(matches!(
        open(dir.path(), None),
        Err(StoreError::Version { found: 9, .. })
    ));
    for at in (0..8).chain(16..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert!(
            matches!(open(dir.path(), None), Err(StoreError::Damaged { .. })),
            "byte {at}"
        );
    }
    fs::write(&path, &good).unwrap();
    fs::remove_dir_all(group_dir(dir.path(), 0)).unwrap();
    assert!(matches!(
        open(dir.path(), None),
        Err(StoreError::Inconsistent { .. })
    ));
}

#[test]
fn requests_that_make_no_sense_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("n1");
    let mut bad = request(&target);
    bad.node_id = 3;
    assert!(matches!(format_store(&bad), Err(StoreError::Request(_))));
    for member in [
        (2, "127.0.0.2:7001"),
        (3, "127.0.0.2:7000"),
        (4, "nowhere"),
        (5, ":1"),
        (6, "h:0"),
        (0, "h:1"),
    ] {
        let mut bad = request(&target);
        bad.members.push((member.0, member.1.to_owned()));
        assert!(
            matches!(format_store(&bad), Err(StoreError::Request(_))),
            "{member:?}"
        );
    }
    let mut bad = request(&target);
    bad.cluster_id = "no spaces".to_owned();
    assert!(matches!(format_store(&bad), Err(StoreError::Request(_))));
    assert!(!target.exists());
}

#[test]
fn a_node_that_joins_knows_its_own_address_and_no_members() {
    let dir = tempfile::tempdir().unwrap();
    let mut join = request(dir.path());
    join.join = true;
    assert!(matches!(format_store(&join), Err(StoreError::Request(_))));
    join.members.retain(|member| member.0 == 2);
    let made = format_store(&join).unwrap();
    assert_eq!(made.address, "127.0.0.2:7000");
    assert!(made.members.members.is_empty());
    assert_eq!(open(dir.path(), None).unwrap().identity, made);
}
