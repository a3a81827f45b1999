//! One gap: what each member said of it, and what follows from all that they said.

use std::collections::BTreeMap;
use std::fmt;

use super::{Gap, RepairConfig};

/// Why a member did not help with a gap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// It was asked and did not answer in time, or the connection broke.
    NoAnswer,
    /// It could not say.
    Busy,
    /// It holds none of this.
    NotHeld(Gap),
    /// Its log begins at this index.
    Trimmed(u64),
    /// It holds other entries there.
    Other {
        /// Those that it gave.
        gap: Gap,
        /// Whether it knows them to be committed.
        is_committed: bool,
    },
    /// What it gave is not sound.
    Invalid(String),
    /// Asked where the log ends: it does not lead. Its term.
    Follows(u64),
    /// It leads, in a term before this node's own.
    LeadsEarlier(u64),
    /// It leads in this term, and its word was taken before.
    Leads(u64),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => write!(f, "does not answer"),
            Self::Busy => write!(f, "is busy"),
            Self::NotHeld(gap) if gap.is_open() => {
                write!(f, "holds nothing from entry {} on", gap.lo)
            }
            Self::NotHeld(gap) => write!(f, "does not hold {gap}"),
            Self::Trimmed(first_index) => write!(f, "has a log that begins at entry {first_index}"),
            Self::Other {
                gap,
                is_committed: true,
            } => write!(f, "has committed others as {gap}"),
            Self::Other { gap, .. } => write!(f, "holds others as {gap}"),
            Self::Invalid(reason) => write!(f, "gave what is not sound: {reason}"),
            Self::Follows(term) => write!(f, "does not lead (term {term})"),
            Self::LeadsEarlier(term) => write!(
                f,
                "leads in term {term}, which is too early (`drave leader transfer` begins another)"
            ),
            Self::Leads(term) => write!(f, "leads in term {term}"),
        }
    }
}

/// What is to be thought of a gap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Not every member has been heard.
    Open,
    /// Every other member answered that it does not hold these.
    Lost(Gap),
    /// Every other member's log begins above these: they were trimmed there.
    Trimmed(Gap),
    /// It is not known where the log ended, and so not what this node may have acknowledged: a leader of this term
    /// or a later one has to say how far its own goes.
    EndLost {
        /// This node's term.
        term: u64,
    },
    /// A member has committed other entries in their place: these were never committed, and superseded.
    Superseded {
        /// Who.
        by: u64,
    },
    /// The same, where the log's end was taken from a leader's word: another one leads since, and its word counts.
    Moved {
        /// Who has committed others.
        by: u64,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => write!(f, "being asked for"),
            Self::Lost(gap) => write!(
                f,
                "no other member holds {gap}: bring a member or a copy back that does"
            ),
            Self::Trimmed(gap) => write!(
                f,
                "{gap} were trimmed on every other member: `drave member replace` this node"
            ),
            Self::EndLost { term } => write!(
                f,
                "where the log ended is lost, and with it what this node acknowledged: waiting for a leader of term \
                 {term} or later"
            ),
            Self::Superseded { by } => write!(
                f,
                "node {by} has committed other entries there: `drave member replace` this node"
            ),
            Self::Moved { by } => write!(
                f,
                "node {by} has committed other entries there since: waiting for the word of a later leader"
            ),
        }
    }
}

#[derive(Debug)]
struct Word {
    said: Said,
    ask_again_us: u64,
    pause_us: u64,
}

/// A gap and who said what of it.
#[derive(Debug)]
pub(super) struct RangeState {
    pub(super) gap: Gap,
    /// Entries asked for at once: what fitted into an answer last, then twice that.
    pub(super) entries: u64,
    /// Who is asked for it now.
    pub(super) asked: Option<u64>,
    words: BTreeMap<u64, Word>,
    /// From where on upwards a member may hold something, when it has said that it lacks what is below.
    floors: BTreeMap<u64, u64>,
    pub(super) verdict: Verdict,
}

impl RangeState {
    pub(super) fn new(gap: Gap, entries: u64) -> Self {
        Self {
            gap,
            entries,
            asked: None,
            words: BTreeMap::new(),
            floors: BTreeMap::new(),
            verdict: Verdict::Open,
        }
    }

    /// The entries to ask a member for: those at the end, which what follows them proves. Of an open gap, where
    /// it ends.
    pub(super) fn piece(&self, member: u64) -> Gap {
        if self.gap.is_open() {
            return self.gap;
        }
        let (lo, hi) = (self.gap.lo, self.gap.hi);
        let floor = self.floors.get(&member).copied().unwrap_or(0);
        Gap {
            lo: hi.saturating_sub(self.entries).max(lo).max(floor),
            hi,
        }
    }

    /// When a member may be asked, at the earliest.
    pub(super) fn ask_us(&self, member: u64) -> u64 {
        self.words.get(&member).map_or(0, |word| word.ask_again_us)
    }

    /// A member lacks what is below `floor` and may hold what is above: it is asked for that at once.
    pub(super) fn lacks_below(&mut self, member: u64, floor: u64) {
        assert!(floor < self.gap.hi, "nothing would be left to ask for");
        self.floors.insert(member, floor);
    }

    /// A member cannot help for now. Whether that is news.
    pub(super) fn said(
        &mut self,
        now_us: u64,
        member: u64,
        said: Said,
        config: &RepairConfig,
    ) -> bool {
        self.floors.remove(&member);
        let word = self.words.get(&member);
        let pause_us = word.map_or(config.pause_us_min, |word| {
            (word.pause_us * 2).clamp(config.pause_us_min, config.pause_us_max)
        });
        let is_news = word.is_none_or(|word| word.said != said);
        let ask_again_us = now_us + pause_us;
        self.words.insert(
            member,
            Word {
                said,
                ask_again_us,
                pause_us,
            },
        );
        is_news
    }

    /// A member came back: what it said before it left does not keep it from being asked.
    pub(super) fn ask_anew(&mut self, member: u64) {
        if let Some(word) = self.words.get_mut(&member) {
            (word.ask_again_us, word.pause_us) = (0, 0);
        }
    }

    /// The gap is another one now: what was said of the old one no longer counts.
    pub(super) fn becomes(&mut self, gap: Gap) {
        if self.gap != gap {
            self.gap = gap;
            self.words.clear();
            self.floors.clear();
            self.verdict = Verdict::Open;
        }
    }

    /// What a member said last.
    pub(super) fn said_by(&self, member: u64) -> Option<&Said> {
        self.words.get(&member).map(|word| &word.said)
    }

    /// What follows from what `members` said, all but this node.
    pub(super) fn judge(&self, members: impl Iterator<Item = u64> + Clone) -> Verdict {
        let committed = |member: &u64| {
            matches!(
                self.said_by(*member),
                Some(Said::Other { is_committed, .. }) if *is_committed
            )
        };
        if let Some(by) = members.clone().find(committed) {
            return Verdict::Superseded { by };
        }
        let mut lost = self.gap;
        let mut all_trimmed = true;
        let mut asked = 0;
        for member in members {
            asked += 1;
            let lacks = match self.said_by(member) {
                Some(Said::NotHeld(gap)) => {
                    all_trimmed = false;
                    *gap
                }
                Some(Said::Trimmed(first_index)) => Gap {
                    lo: 0,
                    hi: *first_index,
                },
                Some(Said::Other { gap, .. }) => {
                    all_trimmed = false;
                    *gap
                }
                _ => return Verdict::Open,
            };
            let Some(both) = lost.overlap(lacks) else {
                return Verdict::Open;
            };
            lost = both;
        }
        match (asked, all_trimmed) {
            (0, _) => Verdict::Open,
            (_, true) => Verdict::Trimmed(lost),
            (_, false) => Verdict::Lost(lost),
        }
    }
}
