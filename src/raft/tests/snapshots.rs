//! Compaction and snapshots: thesis chapter 5; obligations 62, 72, 73, 76, 78, 82.

use super::super::{
    AppendOutcome, Configuration, Durable, EntryId, ProgressState, SnapshotMeta, SnapshotOutcome,
};
use super::lab::*;

fn snapshot(last: EntryId) -> Durable<SnapshotMeta> {
    let configuration = Configuration::new([N0, N1, N2], [N3]).unwrap();
    Durable::attest(SnapshotMeta {
        last,
        configuration_index: last.index,
        configuration,
    })
}

#[test]
fn compaction_keeps_the_term_before_the_first_entry() {
    let mut found = restored(3, 3, &[1, 2, 2, 3, 3]);
    found.commit_index_hint = 5;
    let mut lab = Lab::with(config(), found);
    lab.raft.log_compacted(4);
    assert_eq!((lab.raft.first_index(), lab.raft.term_at(3)), (4, Some(2)));
    assert_eq!(lab.raft.term_at(2), None);
    lab.raft.log_compacted(6);
    assert_eq!((lab.raft.first_index(), lab.raft.last()), (6, id(3, 5)));
    let outcome = lab.append(N1, 3, id(3, 5), &[3], 5);
    assert_eq!(
        outcome,
        AppendOutcome::Store {
            truncate_from: None,
            lo: 6,
            hi: 7
        }
    );
}

#[test]
fn a_snapshot_that_the_log_contains_keeps_its_suffix() {
    let mut lab = Lab::follower(3, 2, &[1, 2, 2, 2]);
    let outcome = lab
        .raft
        .install_snapshot(lab.now_us, N1, 2, &snapshot(id(2, 3)));
    assert_eq!(outcome, SnapshotOutcome::KeepLog);
    assert_eq!((lab.raft.last(), lab.raft.commit_index()), (id(2, 4), 3));
    assert_eq!(accepted(lab.reply()), (3, 3));
}

#[test]
fn a_snapshot_that_conflicts_replaces_the_whole_log() {
    // hashicorp/raft#697: keeping the conflicting log makes snapshots loop.
    let mut lab = Lab::follower(3, 2, &[1, 2, 2, 2, 2]);
    let outcome = lab
        .raft
        .install_snapshot(lab.now_us, N1, 3, &snapshot(id(3, 3)));
    assert_eq!(outcome, SnapshotOutcome::ResetLog);
    assert_eq!((lab.raft.first_index(), lab.raft.last()), (4, id(3, 3)));
    assert_eq!(lab.raft.commit_index(), 3);
    assert_eq!(lab.raft.configuration().learners, [N3]);
    let _save = lab.effects();
    lab.save_hard_state();
    assert_eq!(accepted(lab.reply()), (3, 3), "after the term is durable");
    lab.flush_to(id(2, 5));
    assert_eq!(
        lab.raft.durable_index(),
        3,
        "a flush of the old log says nothing"
    );
    let outcome = lab.append(N1, 3, id(3, 3), &[3], 4);
    assert_eq!(
        outcome,
        AppendOutcome::Store {
            truncate_from: None,
            lo: 4,
            hi: 5
        }
    );
}

#[test]
fn an_old_snapshot_is_ignored_and_the_commit_acknowledged() {
    let mut found = restored(3, 2, &[1, 2, 2]);
    found.commit_index_hint = 3;
    let mut lab = Lab::with(config(), found);
    for (term, last) in [(2, id(2, 2)), (2, id(2, 3))] {
        let outcome = lab
            .raft
            .install_snapshot(lab.now_us, N1, term, &snapshot(last));
        assert_eq!(outcome, SnapshotOutcome::Ignored);
        assert_eq!(accepted(lab.reply()), (3, 3));
    }
    let outcome = lab
        .raft
        .install_snapshot(lab.now_us, N2, 1, &snapshot(id(1, 9)));
    assert_eq!(outcome, SnapshotOutcome::Ignored, "of an older term");
    assert_eq!(lab.raft.last(), id(2, 3));
}

#[test]
fn a_peer_behind_the_log_needs_a_snapshot_and_then_appends() {
    let mut lab = Lab::leader(3, 2, &[1, 1, 1]);
    lab.flush_all();
    lab.accept(N1, 4);
    let _commit = lab.effects();
    lab.raft.log_compacted(4);
    lab.send_appends(N2, 100);
    lab.reject(N2, 3, id(0, 0));
    assert!(lab.raft.needs_snapshot(N2));
    assert!(lab.send_appends(N2, 100).is_empty());
    lab.raft.snapshot_started(N2, id(1, 3));
    assert!(!lab.raft.needs_snapshot(N2), "one at a time");
    lab.raft.snapshot_finished(lab.now_us, N2, false);
    assert!(lab.raft.needs_snapshot(N2), "a failure is tried again");
    lab.raft.snapshot_started(N2, id(1, 3));
    assert_eq!(lab.progress(N2).state, ProgressState::Snapshot { index: 3 });
    lab.accept(N2, 3);
    assert_eq!(
        lab.progress(N2).state,
        ProgressState::Probe,
        "whatever brought it there"
    );
    assert_eq!(lab.send_appends(N2, 100), [(4, 5)]);
}

#[test]
fn a_snapshot_reported_installed_is_probed_before_it_counts() {
    let mut lab = Lab::leader(3, 2, &[1, 1, 1]);
    lab.flush_all();
    lab.accept(N1, 4);
    lab.raft.log_compacted(4);
    lab.send_appends(N2, 100);
    lab.reject(N2, 3, id(0, 0));
    lab.raft.snapshot_started(N2, id(1, 3));
    lab.raft.snapshot_finished(lab.now_us, N2, true);
    assert_eq!(lab.progress(N2).match_index, 0);
    assert_eq!(lab.send_appends(N2, 100), [(4, 5)]);
}
