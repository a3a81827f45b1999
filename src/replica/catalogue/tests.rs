//! What the marks of all logs take, and that nothing is lost when they are thinned.

use super::*;

const LOGS: u64 = 40;

/// Decides what is done; the seed is printed, and taken from `DRAVE_TEST_SEED` if that is set.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = std::env::var("DRAVE_TEST_SEED");
        let seed = given.map_or(0x5eed, |seed| seed.parse().unwrap());
        println!("DRAVE_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn with_logs(marks_max: usize) -> Catalogue {
    let mut catalogue = Catalogue {
        marks_max,
        ..Catalogue::default()
    };
    for log_id in 1..=LOGS {
        catalogue.appended(&format!("log {log_id}"), log_id);
        catalogue.created(log_id);
    }
    catalogue
}

/// What is done, the same to every catalogue: batches, trims, deletions.
#[derive(Clone, Copy, Debug)]
enum Step {
    Commit { log_id: u64, index: u64 },
    Trim { log_id: u64, first_seq: u64 },
    Delete { log_id: u64 },
}

fn apply(catalogue: &mut Catalogue, step: Step) {
    match step {
        Step::Commit { log_id, index } => {
            catalogue.committed(log_id, 1, 128, index, index);
        }
        Step::Trim { log_id, first_seq } => {
            catalogue.trimmed(log_id, first_seq);
        }
        Step::Delete { log_id } => catalogue.deleted(log_id),
    }
}

fn steps() -> Vec<Step> {
    let mut random = Random::new();
    let (mut index, mut steps) = (LOGS, Vec::new());
    let mut batches = [0; LOGS as usize + 1];
    for _ in 0..20_000 {
        let log_id = 1 + random.below(LOGS);
        steps.push(match random.below(2_000) {
            0 if log_id > 30 => Step::Delete { log_id },
            1..=4 => Step::Trim {
                log_id,
                first_seq: random.below(batches[log_id as usize] + 1),
            },
            _ => {
                index += 1 + random.below(100);
                batches[log_id as usize] += 1;
                Step::Commit { log_id, index }
            }
        });
    }
    steps
}

/// The indexes that a reader of the whole log looks at.
fn looked_at(state: &LogState) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut next = state.index.locate(state.first_seq);
    while let Some(range) = next {
        ranges.push(range);
        next = state.index.resume(range.1);
    }
    ranges
}

#[test]
fn the_marks_of_all_logs_are_bounded_and_every_batch_is_found() {
    const MARKS_MAX: usize = 200;
    let mut catalogue = with_logs(MARKS_MAX);
    let mut batches: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut most = 0;
    for step in steps() {
        apply(&mut catalogue, step);
        most = most.max(catalogue.marks);
        if let Step::Commit { log_id, index } = step {
            batches.entry(log_id).or_default().push(index);
        }
    }
    let counted = |catalogue: &Catalogue| -> usize {
        let states = catalogue.by_id.values();
        states.map(|state| state.index.marks()).sum()
    };
    assert_eq!(counted(&catalogue), catalogue.marks);
    assert!(most <= MARKS_MAX && catalogue.doublings > 2, "{most}");
    for state in catalogue.by_id.values() {
        let ranges = looked_at(state);
        let all = &batches[&state.log_id];
        let held = &all[all.len() - (state.next_seq - state.first_seq) as usize..];
        let is_found = |index: &u64| ranges.iter().any(|(lo, hi)| (lo..hi).contains(&index));
        assert!(held.iter().all(is_found), "{}", state.name);
        let apart = ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        assert!(apart, "nothing is looked at twice");
    }
    let with_default = {
        let mut catalogue = with_logs(super::MARKS_MAX);
        steps()
            .into_iter()
            .for_each(|step| apply(&mut catalogue, step));
        catalogue
    };
    println!(
        "{} marks unbounded, {most} at most bounded",
        with_default.marks
    );
    assert_eq!(
        (with_default.doublings, counted(&with_default)),
        (0, with_default.marks)
    );
    assert!(with_default.marks > 10 * MARKS_MAX);
}

/// A replica that began with a snapshot thins as one that applied everything, since their next snapshots are alike.
#[test]
fn a_catalogue_from_images_goes_on_as_the_one_they_were_taken_of() {
    const MARKS_MAX: usize = 200;
    let steps = steps();
    for cut in [1_000, 7_000, 13_000] {
        let mut whole = with_logs(MARKS_MAX);
        steps[..cut]
            .iter()
            .for_each(|step| apply(&mut whole, *step));
        let mut restored = Catalogue::restored(&whole.images(), whole.doublings);
        restored.marks_max = MARKS_MAX;
        assert_eq!(restored.marks, whole.marks);
        for step in &steps[cut..] {
            apply(&mut whole, *step);
            apply(&mut restored, *step);
            assert_eq!(
                (restored.marks, restored.doublings),
                (whole.marks, whole.doublings)
            );
        }
        assert_eq!(restored.images(), whole.images());
    }
}

#[test]
fn marks_take_an_eighth_of_what_a_snapshot_may_hold() {
    assert_eq!(size_of::<Mark>(), 32);
    let snapshot_bytes = crate::config::SnapshotsConfig::default().bytes_max.0;
    assert_eq!(MARKS_MAX as u64 * 32, snapshot_bytes / 8);
}
