use super::*;

/// A stand-in for the executable: whatever it is told, it waits to be ended.
fn options(dir: &Path) -> ClusterOptions {
    let program = dir.join("program");
    fs::write(&program, "#!/bin/sh\necho \"$@\"\nexec sleep 1000\n").unwrap();
    let mut permissions = fs::metadata(&program).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&program, permissions).unwrap();
    ClusterOptions::new(program, dir.join("cluster"))
}

#[test]
fn a_cluster_is_formatted_and_can_be_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::prepare(options(dir.path())).unwrap();
    assert!(!cluster.was_there());
    assert_eq!(cluster.node_ids(), [1, 2, 3]);
    let endpoints = cluster.endpoints();
    assert_eq!(endpoints[1], cluster.address(2));
    for node_id in cluster.node_ids() {
        assert!(cluster.data_dir(node_id).join("IDENTITY").exists());
    }
    drop(cluster);
    let again = Cluster::prepare(options(dir.path())).unwrap();
    assert!(again.was_there());
    assert_eq!(again.endpoints(), endpoints);
}

#[test]
fn another_cluster_in_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Cluster::prepare(options(dir.path())).unwrap();
    let five = ClusterOptions {
        node_count: 5,
        ..options(dir.path())
    };
    assert_eq!(Cluster::prepare(five).unwrap_err().exit, Exit::Mismatch);
    let other = ClusterOptions {
        cluster_id: "other".to_owned(),
        ..options(dir.path())
    };
    assert_eq!(Cluster::prepare(other).unwrap_err().exit, Exit::Mismatch);
    fs::write(dir.path().join("cluster").join(PLAN_FILE), "{").unwrap();
    assert_eq!(
        Cluster::prepare(options(dir.path())).unwrap_err().exit,
        Exit::Corruption
    );
}

#[test]
fn processes_start_die_and_start_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(options(dir.path())).unwrap();
    cluster.start_all().unwrap();
    let pids: Vec<u32> = cluster
        .node_ids()
        .iter()
        .map(|node_id| cluster.pid(*node_id).unwrap())
        .collect();
    assert_eq!(cluster.running_count(), 3);
    cluster.kill(2).unwrap();
    assert_eq!((cluster.pid(2), cluster.running_count()), (None, 2));
    cluster.start(2).unwrap();
    assert_ne!(cluster.pid(2), Some(pids[1]));
    cluster.kill_all().unwrap();
    assert_eq!(cluster.running_count(), 0);
    cluster.start_all().unwrap();
    cluster.stop_all().unwrap();
    assert_eq!(cluster.running_count(), 0);
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is reaped"
        );
    }
}

#[test]
fn a_node_that_ends_by_itself_is_told_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    fs::write(
        &options.program,
        "#!/bin/sh\necho the disk is gone >&2\nexit 6\n",
    )
    .unwrap();
    let mut cluster = Cluster::prepare(options).unwrap();
    cluster.start(3).unwrap();
    let status = cluster.wait(3, Duration::from_secs(30)).unwrap().unwrap();
    let error = cluster.ended_error(3, status);
    assert_eq!(
        (error.exit, error.why.as_str()),
        (Exit::Corruption, "the disk is gone")
    );
    assert!(cluster.take_ended().unwrap().is_empty());
}

#[test]
fn nodes_are_started_with_what_they_need() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    fs::write(&options.program, "#!/bin/sh\necho \"$@\"\n").unwrap();
    let mut cluster = Cluster::prepare(ClusterOptions {
        io: Io::Posix,
        ..options
    })
    .unwrap();
    cluster.start(1).unwrap();
    assert!(
        cluster
            .wait(1, Duration::from_secs(30))
            .unwrap()
            .unwrap()
            .success()
    );
    let said = fs::read_to_string(cluster.log_path(1)).unwrap();
    let data_dir = cluster.data_dir(1);
    let expected = format!(
        "start --data-dir {} --io posix --exit-with-parent {}\n",
        data_dir.display(),
        std::process::id()
    );
    assert_eq!(said, expected);
}
