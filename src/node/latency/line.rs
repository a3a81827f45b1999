//! Entries that wait for something, and since when: ranges of indexes with one time each.

use std::collections::VecDeque;

/// Ranges at most: beyond it new entries join the last one, whose time is then earlier than theirs.
const MARKS_MAX: usize = 4096;

/// Entries `[lo, end)`. Invariant: the marks' ends ascend, the first one's is above `lo`.
#[derive(Debug)]
pub(super) struct Line {
    lo: u64,
    /// Where each range ends, and its time. It begins where the one before ends.
    marks: VecDeque<(u64, u64)>,
}

impl Line {
    /// Nothing waits; the next entry is `next_index`.
    pub(super) fn starting_at(next_index: u64) -> Self {
        Self {
            lo: next_index,
            marks: VecDeque::new(),
        }
    }

    /// The index after the last entry that came.
    pub(super) fn end(&self) -> u64 {
        self.marks.back().map_or(self.lo, |mark| mark.0)
    }

    /// Everything before `end` has come by `at_us`; what had come and is not before it is gone.
    pub(super) fn extend(&mut self, end: u64, at_us: u64) {
        self.cut(end);
        if end <= self.end() {
            return;
        }
        let is_full = self.marks.len() == MARKS_MAX;
        match self.marks.back_mut() {
            Some(last) if is_full || last.1 == at_us => last.0 = end,
            _ => self.marks.push_back((end, at_us)),
        }
    }

    /// Entries from `end` on are gone.
    pub(super) fn cut(&mut self, end: u64) {
        while let Some((last_end, at_us)) = self.marks.pop_back() {
            if last_end <= end {
                self.marks.push_back((last_end, at_us));
                break;
            }
            if self.end() < end {
                self.marks.push_back((end, at_us));
                break;
            }
        }
        self.lo = self.lo.min(end);
    }

    /// The time of the last of the entries before `next_index` that wait.
    pub(super) fn last_before(&self, next_index: u64) -> Option<u64> {
        let before = self.marks.partition_point(|(end, _)| *end < next_index);
        let last = self.marks.get(before).or(self.marks.back());
        last.filter(|_| self.lo < next_index).map(|mark| mark.1)
    }

    /// Entries before `next_index` wait no more: each range's time, and how many they are.
    pub(super) fn pass(&mut self, next_index: u64, mut each: impl FnMut(u64, u64)) {
        while self.lo < next_index
            && let Some((end, at_us)) = self.marks.front().copied()
        {
            let passed = end.min(next_index);
            each(at_us, passed - self.lo);
            self.lo = passed;
            if passed == end {
                self.marks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(line: &mut Line, next_index: u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        line.pass(next_index, |at_us, entries| found.push((at_us, entries)));
        found
    }

    #[test]
    fn entries_pass_with_the_time_they_came_at() {
        let mut line = Line::starting_at(5);
        line.extend(5, 1);
        assert_eq!(passed(&mut line, 9), []);
        line.extend(8, 10);
        line.extend(9, 10);
        line.extend(12, 20);
        assert_eq!(line.last_before(5), None);
        assert_eq!(
            (line.last_before(9), line.last_before(10)),
            (Some(10), Some(20))
        );
        assert_eq!(
            (line.last_before(12), line.last_before(99)),
            (Some(20), Some(20))
        );
        assert_eq!(passed(&mut line, 6), [(10, 1)]);
        assert_eq!(passed(&mut line, 6), []);
        assert_eq!(passed(&mut line, 11), [(10, 3), (20, 2)]);
        // What passed before it is known to have come waits not at all.
        assert_eq!(passed(&mut line, 20), [(20, 1)]);
        assert_eq!((line.end(), line.last_before(99)), (12, None));
    }

    #[test]
    fn what_is_cut_off_comes_anew() {
        let mut line = Line::starting_at(1);
        line.extend(4, 10);
        line.extend(6, 20);
        line.cut(3);
        assert_eq!(line.end(), 3);
        line.extend(5, 30);
        assert_eq!(passed(&mut line, 5), [(10, 2), (30, 2)]);
        // Also what had passed.
        line.cut(2);
        line.extend(3, 40);
        assert_eq!(passed(&mut line, 9), [(40, 1)]);
        line.cut(7);
        assert_eq!(line.end(), 3, "nothing comes by a cut");
    }

    #[test]
    fn there_are_not_ever_more_ranges() {
        let mut line = Line::starting_at(0);
        let end = 2 * MARKS_MAX as u64;
        (1..=end).for_each(|index| line.extend(index, index));
        assert_eq!(line.marks.len(), MARKS_MAX);
        let all: u64 = passed(&mut line, end).iter().map(|(_, count)| count).sum();
        assert_eq!((all, line.end()), (end, end));
    }
}
