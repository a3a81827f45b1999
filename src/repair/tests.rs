use std::collections::BTreeMap;

use super::{
    Answer, Finding, Gap, LastEntry, Patient, Refused, Repair, RepairConfig, Request, Verdict,
};

/// The term of the node that repairs its log.
const OWN_TERM: u64 = 5;

/// Entries are nine bytes: index and version. Those of the right version fit.
struct Log {
    missing: Vec<Gap>,
    version: u8,
    /// The gap that begins here turns out to begin there, once everything else of it has come.
    grows: Option<(u64, u64)>,
    full: bool,
    ends_said: u32,
}

impl Log {
    fn missing(gaps: &[(u64, u64)]) -> Self {
        let missing = gaps.iter().map(|&(lo, hi)| Gap { lo, hi }).collect();
        Self {
            missing,
            version: 1,
            grows: None,
            full: false,
            ends_said: 0,
        }
    }
}

fn encoded(gap: Gap, version: u8) -> Vec<u8> {
    let entry = |index: u64| [&index.to_le_bytes()[..], &[version]].concat();
    (gap.lo..gap.hi).flat_map(entry).collect()
}

impl Patient for Log {
    fn missing(&self) -> Vec<Gap> {
        self.missing.clone()
    }

    fn offer(&mut self, batches: &[u8]) -> Result<(), Refused> {
        if self.full {
            return Err(Refused::Failed("no room".to_owned()));
        }
        if batches.is_empty() || !batches.len().is_multiple_of(9) {
            return Err(Refused::Invalid("cut".to_owned()));
        }
        let index = |entry: &[u8]| u64::from_le_bytes(entry[..8].try_into().unwrap());
        let lo = index(&batches[..9]);
        let hi = lo + batches.len() as u64 / 9;
        if batches != encoded(Gap { lo, hi }, batches[8]) {
            return Err(Refused::Invalid("out of order".to_owned()));
        }
        if batches[8] != self.version {
            return Err(Refused::Other);
        }
        let at = self.missing.iter().position(|gap| gap.hi == hi);
        let at = at.expect("what is offered ends where a gap ends");
        let gap = &mut self.missing[at];
        assert!(gap.lo <= lo, "more is offered than is missing");
        gap.hi = lo;
        if let Some((from, to)) = self.grows
            && from == lo
        {
            gap.lo = to;
        }
        if gap.lo == gap.hi {
            self.missing.remove(at);
        }
        Ok(())
    }

    fn set_end(&mut self, last: LastEntry) -> Result<(), Refused> {
        if last.index < 10 {
            return Err(Refused::Invalid("too short".to_owned()));
        }
        self.version = last.crc as u8;
        self.ends_said += 1;
        self.missing.retain(|gap| gap.hi <= FOUND_END);
        self.missing.push(Gap {
            lo: FOUND_END,
            hi: last.index + 1,
        });
        Ok(())
    }
}

/// In a log whose end is lost, nothing is found from here on.
const FOUND_END: u64 = 100;

/// A repair, its log, and what the members hold.
struct Scene {
    repair: Repair,
    log: Log,
    now_us: u64,
    /// Of each member what it holds: ranges with their version, and where its log begins and ends.
    holds: BTreeMap<u64, Holding>,
    findings: Vec<Finding>,
}

#[derive(Clone)]
struct Holding {
    first_index: u64,
    end: u64,
    damaged: Vec<(u64, u64)>,
    version: u8,
    commit_index: u64,
    entries_max: u64,
    term: u64,
    /// The last entry of its log, if it leads.
    leads_to: Option<LastEntry>,
}

const WHOLE: Holding = Holding {
    first_index: 1,
    end: 1_000_000,
    damaged: Vec::new(),
    version: 1,
    commit_index: 0,
    entries_max: 1_000_000,
    term: OWN_TERM,
    leads_to: None,
};

impl Holding {
    fn answer(&self, asked: Gap, out: &mut Vec<u8>) -> Result<Gap, Answer<'static>> {
        if asked.lo < self.first_index {
            return Err(Answer::Trimmed(self.first_index));
        }
        if asked.lo >= self.end {
            let (lo, hi) = (self.end, u64::MAX);
            return Err(Answer::NotHeld(Gap { lo, hi }));
        }
        let mut hi = asked.hi.min(self.end).min(asked.lo + self.entries_max);
        for &(lo, damaged_hi) in &self.damaged {
            if (lo..damaged_hi).contains(&asked.lo) {
                return Err(Answer::NotHeld(Gap { lo, hi: damaged_hi }));
            }
            if lo > asked.lo {
                hi = hi.min(lo);
            }
        }
        let gap = Gap { lo: asked.lo, hi };
        *out = encoded(gap, self.version);
        Ok(gap)
    }
}

impl Scene {
    fn new(missing: &[(u64, u64)], holds: &[(u64, Holding)]) -> Self {
        let log = Log::missing(missing);
        let mut repair = Repair::new(RepairConfig::default(), OWN_TERM, &log);
        repair.set_members(holds.iter().map(|(id, _)| *id));
        for (id, _) in holds {
            repair.on_link(0, *id, true);
        }
        Self {
            repair,
            log,
            now_us: 0,
            holds: holds.iter().cloned().collect(),
            findings: Vec::new(),
        }
    }

    fn poll(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.repair.poll(self.now_us)).collect()
    }

    fn answer(&mut self, request: Request) {
        let mut batches = Vec::new();
        let holding = &self.holds[&request.to];
        let answer = match holding.answer(request.gap, &mut batches) {
            _ if request.gap.is_open() => Answer::End {
                term: holding.term,
                last: holding.leads_to,
            },
            Ok(gap) => Answer::Held {
                gap,
                batches: &batches,
                commit_index: holding.commit_index,
            },
            Err(answer) => answer,
        };
        let (to, number) = (request.to, request.number);
        self.repair
            .on_answer(self.now_us, to, number, answer, &mut self.log);
        self.findings.extend(self.repair.take_findings());
    }

    /// Lets it run without time passing; how many requests it took.
    fn settle(&mut self) -> usize {
        let mut asked = 0;
        loop {
            let requests = self.poll();
            if requests.is_empty() {
                return asked;
            }
            asked += requests.len();
            assert!(asked < 10_000, "it asks without end");
            requests
                .into_iter()
                .for_each(|request| self.answer(request));
        }
    }

    fn verdict(&self) -> Verdict {
        self.repair.verdicts().next().unwrap().1
    }
}

fn gap(lo: u64, hi: u64) -> Gap {
    Gap { lo, hi }
}

#[test]
fn a_gap_is_filled_from_its_end_in_pieces_that_fit() {
    let holding = Holding {
        entries_max: 100,
        ..WHOLE
    };
    let mut scene = Scene::new(&[(1_000, 3_000)], &[(2, holding)]);
    let first = scene.poll();
    assert_eq!(first.len(), 1);
    assert_eq!(
        (first[0].to, first[0].gap, first[0].bytes_max),
        (2, gap(2_744, 3_000), 1 << 20)
    );
    scene.answer(first[0]);
    let second = scene.poll();
    assert_eq!(second[0].gap, gap(2_900, 3_000), "as much as fits");
    scene.answer(second[0]);
    assert_eq!(scene.log.missing, [gap(1_000, 2_900)]);
    scene.settle();
    assert!(scene.repair.is_done());
    assert_eq!(scene.log.missing, []);
    assert_eq!(scene.repair.given().collect::<Vec<_>>(), [(2, 2_000)]);
    assert_eq!(scene.repair.next_deadline_us(), None);
    assert_eq!(scene.repair.describe(), "");
}

#[test]
fn members_take_turns_and_none_is_asked_twice_at_once() {
    let gaps = [(10, 20), (30, 40), (50, 60)];
    let mut scene = Scene::new(&gaps, &[(1, WHOLE), (3, WHOLE)]);
    let first = scene.poll();
    assert_eq!(first.iter().map(|r| r.to).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        first.iter().map(|r| r.gap).collect::<Vec<_>>(),
        [gap(10, 20), gap(30, 40)]
    );
    scene.answer(first[1]);
    let next = scene.poll();
    assert_eq!((next.len(), next[0].to, next[0].gap), (1, 3, gap(50, 60)));
    scene.answer(next[0]);
    assert_eq!(scene.poll(), [], "one gap is with one member");
    scene.answer(first[0]);
    assert!(scene.repair.is_done());
    // A gap that takes several requests goes round.
    let mut scene = Scene::new(&[(10, 2_000)], &[(1, WHOLE), (2, WHOLE), (3, WHOLE)]);
    let mut asked = Vec::new();
    while let [request] = scene.poll()[..] {
        asked.push(request.to);
        scene.answer(request);
    }
    assert_eq!(asked[..4], [1, 2, 3, 1], "{asked:?}");
    assert!(scene.repair.is_done());
}

#[test]
fn an_answer_counts_once_and_only_from_whom_it_was_asked() {
    let mut scene = Scene::new(&[(10, 20)], &[(1, WHOLE), (2, WHOLE)]);
    let request = scene.poll()[0];
    let batches = encoded(gap(10, 20), 1);
    let answer = Answer::Held {
        gap: gap(10, 20),
        batches: &batches,
        commit_index: 0,
    };
    let (number, log) = (request.number, &mut scene.log);
    scene.repair.on_answer(0, 2, number, answer, log);
    scene.repair.on_answer(0, 9, number, answer, log);
    scene.repair.on_answer(0, 1, number + 1, answer, log);
    assert!(!scene.repair.is_done());
    scene.repair.on_answer(0, 1, number, answer, log);
    assert!(scene.repair.is_done());
    scene.repair.on_answer(0, 1, number, answer, log);
    assert_eq!(scene.repair.given().collect::<Vec<_>>(), [(1, 10)]);
}

#[test]
fn a_member_that_does_not_answer_is_passed_over_and_asked_again() {
    let mut scene = Scene::new(&[(10, 20)], &[(1, WHOLE), (2, WHOLE)]);
    let late = scene.poll()[0];
    assert_eq!(scene.repair.next_deadline_us(), Some(2_000_000));
    scene.now_us = 1_999_999;
    assert_eq!(scene.poll(), []);
    scene.now_us = 2_000_000;
    let next = scene.poll();
    assert_eq!((next.len(), next[0].to), (1, 2));
    assert!(
        scene
            .repair
            .describe()
            .contains("node 1 does not answer, node 2 is being asked")
    );
    // Nor does the second: the first one's pause is over.
    scene.now_us = 4_000_000;
    let again = scene.poll();
    assert_eq!(again[0].to, 1);
    // What comes too late was given up and is not taken twice.
    scene.answer(late);
    assert!(!scene.repair.is_done());
    scene.answer(again[0]);
    assert!(scene.repair.is_done());
}

#[test]
fn who_holds_nothing_is_asked_again_after_longer_and_longer_pauses() {
    let nothing = Holding { end: 15, ..WHOLE };
    let mut scene = Scene::new(&[(20, 30)], &[(1, nothing)]);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert_eq!(scene.settle(), 1);
        let due = scene.repair.next_deadline_us().unwrap();
        pauses.push(due - scene.now_us);
        scene.now_us = due - 1;
        assert_eq!(scene.poll(), []);
        scene.now_us = due;
    }
    assert_eq!(pauses[..4], [100_000, 200_000, 400_000, 800_000]);
    assert_eq!(pauses[7..], [5_000_000, 5_000_000]);
    assert_eq!(scene.verdict(), Verdict::Lost(gap(20, 30)));
    let said = |finding: &&Finding| matches!(finding, Finding::Said { .. });
    let count = scene.findings.iter().filter(said).count();
    assert_eq!(count, 1, "the same is no news");
    // It was repaired meanwhile, and connects anew: asked at once.
    scene.holds.insert(1, WHOLE);
    scene.now_us -= 1;
    scene.repair.on_link(scene.now_us, 1, false);
    assert_eq!(scene.repair.next_deadline_us(), None);
    assert!(scene.repair.describe().contains("node 1 is not reached"));
    scene.repair.on_link(scene.now_us, 1, true);
    assert_eq!(scene.settle(), 1);
    assert!(scene.repair.is_done());
}

#[test]
fn pauses_begin_anew_after_a_reconnect_and_never_are_none() {
    let nothing = Holding { end: 15, ..WHOLE };
    let mut scene = Scene::new(&[(20, 30)], &[(1, nothing)]);
    for _ in 0..3 {
        scene.repair.on_link(scene.now_us, 1, true);
        assert_eq!(scene.settle(), 1);
        assert_eq!(scene.repair.next_deadline_us(), Some(100_000));
    }
}

#[test]
fn what_every_member_lacks_is_named_exactly() {
    // Here [100, 120) is damaged, elsewhere other parts of it.
    let holding = |damaged: &[(u64, u64)]| Holding {
        damaged: damaged.to_vec(),
        ..WHOLE
    };
    let (one, two) = (holding(&[(90, 112)]), holding(&[(105, 117)]));
    let mut scene = Scene::new(&[(100, 120)], &[(1, one), (2, two)]);
    scene.settle();
    assert_eq!(
        scene.log.missing,
        [gap(100, 112)],
        "what somebody holds has come"
    );
    assert_eq!(scene.verdict(), Verdict::Lost(gap(105, 112)));
    let verdict = Finding::Verdict {
        gap: gap(100, 112),
        verdict: Verdict::Lost(gap(105, 112)),
    };
    assert!(scene.findings.contains(&verdict), "{:?}", scene.findings);
    let text = scene.repair.describe();
    assert!(
        text.starts_with(
            "missing entries 100 to 111: no other member holds entries 105 to 111: bring a member or a copy \
             back that does, node 1 does not hold entries 90 to 111, node 2 does not hold entries 105 to 116"
        ),
        "{text}"
    );
    // A third one, which was down, is known now: it is not lost, until that one says so, too.
    scene.repair.set_members([1, 2, 3]);
    assert_eq!(scene.verdict(), Verdict::Open);
    scene.holds.insert(3, WHOLE);
    scene.repair.on_link(scene.now_us, 3, true);
    scene.settle();
    assert!(scene.repair.is_done());
}

#[test]
fn what_was_trimmed_everywhere_is_said_to_be() {
    let trimmed = |first_index| Holding {
        first_index,
        ..WHOLE
    };
    let members = [(1, trimmed(500)), (2, trimmed(115))];
    let mut scene = Scene::new(&[(100, 120)], &members);
    scene.settle();
    assert_eq!(scene.log.missing, [gap(100, 115)], "the rest has come");
    assert_eq!(scene.verdict(), Verdict::Trimmed(gap(100, 115)));
    let text = scene.repair.describe();
    assert!(text.contains("`drave member replace`"), "{text}");
    assert!(
        text.contains("node 1 has a log that begins at entry 500"),
        "{text}"
    );
}

#[test]
fn other_entries_in_their_place_are_told_from_lost_ones() {
    let other = |commit_index| Holding {
        version: 2,
        commit_index,
        ..WHOLE
    };
    let mut scene = Scene::new(&[(100, 120)], &[(1, other(118)), (2, other(0))]);
    scene.settle();
    assert_eq!(scene.verdict(), Verdict::Lost(gap(100, 120)));
    assert_eq!(scene.log.missing, [gap(100, 120)], "none of them is taken");
    for commit_index in [119, u64::MAX] {
        let mut scene = Scene::new(&[(100, 120)], &[(1, other(commit_index)), (2, WHOLE)]);
        let request = scene.poll()[0];
        scene.answer(request);
        assert_eq!(scene.verdict(), Verdict::Superseded { by: 1 });
        let text = scene.repair.describe();
        assert!(text.contains("node 1 has committed others"), "{text}");
        // What a member says decides nothing: who has them gives them.
        scene.settle();
        assert!(scene.repair.is_done());
    }
}

#[test]
fn damage_that_reaches_further_down_is_asked_for_too() {
    let mut scene = Scene::new(&[(100, 120), (200, 201)], &[(1, WHOLE)]);
    scene.log.grows = Some((100, 80));
    scene.settle();
    assert!(scene.repair.is_done());
    assert_eq!(scene.repair.given().collect::<Vec<_>>(), [(1, 41)]);
}

#[test]
fn what_cannot_be_kept_is_this_nodes_own_failure() {
    let mut scene = Scene::new(&[(100, 120)], &[(1, WHOLE)]);
    scene.log.full = true;
    let request = scene.poll()[0];
    scene.answer(request);
    assert_eq!(scene.repair.failure(), Some("no room"));
}

#[test]
fn any_answer_is_taken_without_harm() {
    let given = std::env::var("DRAVE_TEST_SEED").ok();
    let mut state: u64 = given.map_or_else(
        || std::process::id().into(),
        |seed| seed.parse().expect("DRAVE_TEST_SEED is a number"),
    );
    eprintln!("DRAVE_TEST_SEED={state}");
    let mut random = move |limit: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % limit
    };
    let mut scene = Scene::new(&[(100, 120), (300, 900)], &[(1, WHOLE), (2, WHOLE)]);
    let edges = [
        0,
        1,
        99,
        100,
        119,
        120,
        300,
        899,
        900,
        u64::MAX - 1,
        u64::MAX,
    ];
    for _ in 0..20_000 {
        scene.now_us += random(3_000_000);
        let mut busy = Vec::new();
        for request in scene.poll() {
            assert!(!busy.contains(&request.to), "asked twice at once");
            busy.push(request.to);
            let index = edges[random(11) as usize];
            let other = edges[random(11) as usize];
            let odd = gap(index, other);
            let batches = encoded(request.gap, 2);
            let answer = match random(6) {
                0 => Answer::Trimmed(index),
                1 => Answer::NotHeld(odd),
                2 => Answer::Busy,
                3 => Answer::Held {
                    gap: odd,
                    batches: &batches,
                    commit_index: other,
                },
                4 => Answer::Held {
                    gap: request.gap,
                    batches: &batches[..random(batches.len() as u64 + 1) as usize],
                    commit_index: other,
                },
                _ => continue,
            };
            let number = request.number - random(2);
            scene
                .repair
                .on_answer(scene.now_us, request.to, number, answer, &mut scene.log);
        }
        scene.repair.take_findings();
    }
    assert_eq!(scene.log.missing, [gap(100, 120), gap(300, 900)]);
    for member in [1, 2] {
        scene.repair.on_link(scene.now_us, member, true);
    }
    scene.now_us += 10_000_000;
    scene.settle();
    assert!(
        scene.repair.is_done(),
        "and none of it keeps a good answer out"
    );
}

mod end;
