use super::*;

fn leads(term: u64, index: u64, version: u8) -> Holding {
    let crc = u32::from(version);
    let term_of_last = term.min(OWN_TERM);
    Holding {
        term,
        version,
        end: index + 1,
        leads_to: Some(LastEntry {
            index,
            term: term_of_last,
            crc,
        }),
        ..WHOLE
    }
}

fn lost_end(holds: &[(u64, Holding)]) -> Scene {
    Scene::new(&[(10, 20), (FOUND_END, u64::MAX)], holds)
}

#[test]
fn without_a_leader_a_lost_end_is_asked_for_and_stays_lost() {
    let follower = Holding { term: 7, ..WHOLE };
    let mut scene = lost_end(&[(1, WHOLE), (2, follower)]);
    let asked = scene.settle();
    assert_eq!(
        asked, 3,
        "what has an end is fetched, and each is asked once"
    );
    assert_eq!(scene.log.missing, [gap(FOUND_END, u64::MAX)]);
    assert_eq!(scene.log.ends_said, 0);
    assert!(!scene.repair.is_done());
    assert_eq!(scene.verdict(), Verdict::EndLost { term: OWN_TERM });
    let text = scene.repair.describe();
    assert!(
        text.starts_with("missing what follows entry 99: where the log ended is lost"),
        "{text}"
    );
    for part in [
        "waiting for a leader of term 5 or later",
        "node 1 does not lead (term 5)",
        "node 2 does not lead (term 7)",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // They are asked again, with pauses.
    let deadline = scene.repair.next_deadline_us().unwrap();
    assert_eq!(deadline, RepairConfig::default().pause_us_min);
    scene.now_us = deadline;
    assert_eq!(scene.settle(), 2);
    assert!(scene.repair.next_deadline_us().unwrap() > deadline + deadline);
}

#[test]
fn the_word_of_a_leader_of_the_own_term_or_a_later_one_is_taken() {
    for term in [OWN_TERM, OWN_TERM + 1, OWN_TERM + 9] {
        let mut scene = lost_end(&[(1, WHOLE), (2, leads(term, 150, 1))]);
        scene.settle();
        assert!(scene.repair.is_done(), "{}", scene.repair.describe());
        assert_eq!((scene.log.ends_said, scene.log.missing.len()), (1, 0));
        let said = Finding::End {
            from: 2,
            term,
            last_index: 150,
        };
        assert!(scene.findings.contains(&said), "{:?}", scene.findings);
        assert_eq!(scene.repair.next_deadline_us(), None);
    }
}

#[test]
fn a_leader_of_an_earlier_term_is_not_believed() {
    let mut scene = lost_end(&[(1, leads(OWN_TERM - 1, 150, 1))]);
    scene.settle();
    assert_eq!(scene.log.ends_said, 0);
    assert!(!scene.repair.is_done());
    let text = scene.repair.describe();
    assert!(
        text.contains("node 1 leads in term 4, which is too early"),
        "{text}"
    );
    // Another election, and it may be.
    scene.holds.insert(1, leads(OWN_TERM + 1, 150, 1));
    scene.now_us = scene.repair.next_deadline_us().unwrap();
    scene.settle();
    assert!(scene.repair.is_done());
}

#[test]
fn an_end_that_a_later_leader_moved_is_taken_from_it() {
    let mut scene = lost_end(&[(1, leads(OWN_TERM, 150, 1)), (2, WHOLE)]);
    let first = scene.poll();
    let end = first.iter().find(|request| request.gap.is_open()).copied();
    let end = end.expect("somebody is asked where the log ends");
    assert_eq!(end.to, 2, "the first one is asked for what has an end");
    for request in first {
        scene.answer(request);
    }
    for _ in 0..10 {
        if scene.log.ends_said > 0 {
            break;
        }
        for request in scene.poll() {
            scene.answer(request);
        }
    }
    assert!(!scene.repair.is_done());
    // Its leader is gone before it gave them: the next one has others, and has committed them.
    let committed = Holding {
        commit_index: 140,
        ..leads(OWN_TERM + 2, 140, 2)
    };
    scene.holds.insert(1, Holding { end: 100, ..WHOLE });
    scene.holds.insert(2, committed);
    let mut rounds = 0;
    while !scene.repair.is_done() {
        scene.settle();
        if let Some(deadline) = scene.repair.next_deadline_us() {
            scene.now_us = scene.now_us.max(deadline);
        }
        rounds += 1;
        assert!(rounds < 100, "{}", scene.repair.describe());
    }
    assert_eq!(scene.log.ends_said, 2);
    assert_eq!(scene.log.missing, []);
}

#[test]
fn what_an_answer_was_about_before_the_end_moved_counts_for_nothing() {
    let without = |holding: Holding| Holding {
        end: FOUND_END,
        ..holding
    };
    let members = [(1, without(leads(OWN_TERM, 150, 1))), (2, without(WHOLE))];
    let mut scene = Scene::new(&[(FOUND_END, u64::MAX)], &members);
    scene.settle();
    assert_eq!(scene.log.missing, [gap(FOUND_END, 151)]);
    assert!(matches!(scene.verdict(), Verdict::Lost(_)));
    // Both are asked once more; one answers only after the other has come to lead in a later term.
    scene.now_us = 10_000_000;
    let requests = scene.poll();
    let is_end = |request: &&Request| request.gap.is_open();
    let question = *requests.iter().find(is_end).unwrap();
    let late = *requests.iter().find(|request| !is_end(request)).unwrap();
    assert_eq!(late.gap, gap(FOUND_END, 151));
    let later = leads(OWN_TERM + 1, 150, 2);
    scene.holds.insert(question.to, without(later));
    scene.answer(question);
    assert_eq!((scene.log.ends_said, scene.log.version), (2, 2));
    scene.holds.insert(late.to, WHOLE);
    scene.answer(late);
    assert_eq!(scene.log.missing, [gap(FOUND_END, 151)]);
    assert!(!scene.repair.describe().contains("holds others"));
}

#[test]
fn a_leader_that_has_said_where_it_ends_is_not_taken_at_its_word_again() {
    // Its last entries are not on its disk yet, nor anywhere else.
    let mut leader = leads(OWN_TERM, 150, 1);
    leader.end = 120;
    let mut scene = lost_end(&[(1, leader)]);
    let mut asked = 0;
    while scene.now_us < 30_000_000 {
        asked += scene.settle();
        scene.now_us = scene
            .repair
            .next_deadline_us()
            .unwrap()
            .max(scene.now_us + 1);
    }
    assert_eq!(scene.log.ends_said, 1);
    assert!(asked < 60, "{asked} requests in 30 s");
    assert!(matches!(scene.verdict(), Verdict::Lost(_)));
    scene.holds.get_mut(&1).unwrap().end = 151;
    scene.settle();
    assert!(scene.repair.is_done(), "{}", scene.repair.describe());
}

#[test]
fn an_end_that_cannot_be_is_said_not_to_be_sound() {
    let mut scene = lost_end(&[(1, leads(OWN_TERM, 9, 1))]);
    scene.settle();
    assert!(!scene.repair.is_done());
    let text = scene.repair.describe();
    assert!(text.contains("node 1 gave what is not sound"), "{text}");
    // Nor is an answer to another question.
    let mut scene = Scene::new(&[(FOUND_END, u64::MAX)], &[(1, WHOLE)]);
    let request = scene.poll()[0];
    let answer = Answer::NotHeld(gap(FOUND_END, u64::MAX));
    let (repair, log) = (&mut scene.repair, &mut scene.log);
    repair.on_answer(0, 1, request.number, answer, log);
    assert!(repair.describe().contains("its answer is not about"));
}
