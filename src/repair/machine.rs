//! The gaps and the members together: one request at a time to each member and for each gap.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::end::{EndSearch, EndWord};
use super::range::{RangeState, Said, Verdict};
use super::{Answer, Finding, Gap, LastEntry, Patient, Refused, RepairConfig};

/// Entries asked for at once at first.
const ENTRIES_FIRST: u64 = 256;

/// Gaps that a text names; of the others it gives the number.
const GAPS_NAMED_MAX: usize = 8;

/// Something to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// To whom.
    pub to: u64,
    /// Never used twice; its answer carries it back.
    pub number: u64,
    /// What to ask for; where the log ends, if this is open.
    pub gap: Gap,
    /// Bytes of batches that the answer may hold.
    pub bytes_max: u32,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    number: u64,
    piece: Gap,
    deadline_us: u64,
}

#[derive(Debug, Default)]
struct Member {
    is_connected: bool,
    in_flight: Option<InFlight>,
    entries_given: u64,
}

/// The repair of one log: whom to ask for what, and what they said.
#[derive(Debug)]
pub struct Repair {
    config: RepairConfig,
    members: BTreeMap<u64, Member>,
    /// What has an end, ascending by index.
    ranges: Vec<RangeState>,
    /// Where the log ended, if that was lost.
    end: Option<EndSearch>,
    findings: Vec<Finding>,
    next_number: u64,
    /// Who was asked last: the next one has its turn.
    asked_last: u64,
    /// Why what came cannot be kept, if that is so.
    failure: Option<String>,
}

impl Repair {
    /// Begins with what is missing, and nobody to ask. `term` is this node's own, as it is surely known.
    #[must_use]
    pub fn new(config: RepairConfig, term: u64, patient: &impl Patient) -> Self {
        let open = patient.missing().into_iter().find(|gap| gap.is_open());
        let mut repair = Self {
            config,
            members: BTreeMap::new(),
            ranges: Vec::new(),
            end: open.map(|open| EndSearch::new(open, term)),
            findings: Vec::new(),
            next_number: 1,
            asked_last: 0,
            failure: None,
        };
        repair.follow(patient);
        repair
    }

    /// Whom to ask: every member but this one. Who is among them already keeps its state.
    pub fn set_members(&mut self, members: impl IntoIterator<Item = u64>) {
        let mut before = std::mem::take(&mut self.members);
        for member in members {
            let known = before.remove(&member).unwrap_or_default();
            self.members.insert(member, known);
        }
        let question = self.end.as_mut().map(|end| &mut end.question);
        for range in self.ranges.iter_mut().chain(question) {
            range.asked = range.asked.filter(|asked| self.members.contains_key(asked));
        }
        self.judge();
    }

    /// Whether something is still missing.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ranges.is_empty() && !self.is_end_unknown()
    }

    fn is_end_unknown(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.given.is_none())
    }

    /// Whether somebody has to say where the log ends: nobody has, or what the one who did was going by cannot be
    /// had from anybody, as when a later leader has put other entries there.
    fn is_end_wanted(&self) -> bool {
        let is_stuck = |range: &RangeState| range.verdict != Verdict::Open;
        self.end.is_some() && (self.is_end_unknown() || self.ranges.iter().any(is_stuck))
    }

    /// What may be asked for now.
    fn open_questions(&self) -> impl Iterator<Item = &RangeState> {
        let end = self.end.as_ref().filter(|_| self.is_end_wanted());
        let end = end.map(|end| &end.question);
        self.ranges
            .iter()
            .chain(end)
            .filter(|range| range.asked.is_none())
    }

    /// Why what was fetched cannot be kept: this node's disk, which nobody else can help.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// A connection to a member stands, or is gone.
    pub fn on_link(&mut self, now_us: u64, member: u64, is_connected: bool) {
        let Some(state) = self.members.get_mut(&member) else {
            return;
        };
        state.is_connected = is_connected;
        let cut = state.in_flight.take();
        if is_connected {
            let question = self.end.as_mut().map(|end| &mut end.question);
            for range in self.ranges.iter_mut().chain(question) {
                range.ask_anew(member);
            }
        }
        if let Some(cut) = cut {
            self.say(now_us, member, cut.piece, Said::NoAnswer);
        }
    }

    /// The next thing to send, if any may be sent now. To be called until it gives nothing.
    pub fn poll(&mut self, now_us: u64) -> Option<Request> {
        self.time_out(now_us);
        let after = self.members.range(self.asked_last.saturating_add(1)..);
        let before = self.members.range(..=self.asked_last);
        let free: Vec<u64> = after
            .chain(before)
            .filter(|(_, member)| member.is_connected && member.in_flight.is_none())
            .map(|(id, _)| *id)
            .collect();
        for to in free {
            let mut due = self.open_questions();
            let Some(range) = due.find(|range| range.ask_us(to) <= now_us) else {
                continue;
            };
            let piece = range.piece(to);
            drop(due);
            let range = self.range_of(piece).expect("it was found there");
            range.asked = Some(to);
            let number = self.next_number;
            self.next_number += 1;
            self.asked_last = to;
            let member = self.members.get_mut(&to).expect("it was found there");
            member.in_flight = Some(InFlight {
                number,
                piece,
                deadline_us: now_us + self.config.answer_timeout_us,
            });
            return Some(Request {
                to,
                number,
                gap: piece,
                bytes_max: self.config.request_bytes_max,
            });
        }
        None
    }

    fn time_out(&mut self, now_us: u64) {
        let late = |member: &Member| {
            let asked = member.in_flight.as_ref();
            asked.is_some_and(|asked| asked.deadline_us <= now_us)
        };
        let late: Vec<u64> = self
            .members
            .iter()
            .filter(|(_, member)| late(member))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let member = self.members.get_mut(&id).expect("it was found there");
            if let Some(asked) = member.in_flight.take() {
                self.say(now_us, id, asked.piece, Said::NoAnswer);
            }
        }
    }

    /// When [`Self::poll`] has something to do without anything else happening; none when nothing is missing or
    /// nobody can be asked.
    #[must_use]
    pub fn next_deadline_us(&self) -> Option<u64> {
        let answers = self
            .members
            .values()
            .filter_map(|member| Some(member.in_flight.as_ref()?.deadline_us));
        let pauses = self.open_questions().flat_map(|range| {
            let free = self.members.iter();
            let free = free.filter(|(_, member)| member.is_connected && member.in_flight.is_none());
            free.map(|(id, _)| range.ask_us(*id))
        });
        answers.chain(pauses).min()
    }

    /// A member's answer. One that was not waited for, or not any more, counts for nothing.
    pub fn on_answer(
        &mut self,
        now_us: u64,
        from: u64,
        number: u64,
        answer: Answer<'_>,
        patient: &mut impl Patient,
    ) {
        let Some(member) = self.members.get_mut(&from) else {
            return;
        };
        let Some(asked) = member.in_flight.take_if(|asked| asked.number == number) else {
            return;
        };
        let piece = asked.piece;
        match answer {
            Answer::End { term, last } if piece.is_open() => {
                self.on_end(now_us, from, piece, term, last, patient);
            }
            Answer::Busy => self.say(now_us, from, piece, Said::Busy),
            _ if piece.is_open() => self.say(now_us, from, piece, no_answer_to(piece)),
            Answer::Held {
                gap,
                batches,
                commit_index,
            } => self.on_held(now_us, from, piece, gap, batches, commit_index, patient),
            Answer::NotHeld(gap) if gap.lo <= piece.lo && piece.lo < gap.hi => {
                match self.range_of(piece) {
                    Some(range) if gap.hi < piece.hi => {
                        range.asked = None;
                        range.lacks_below(from, gap.hi);
                    }
                    _ => self.say(now_us, from, piece, Said::NotHeld(gap)),
                }
            }
            Answer::Trimmed(first_index) if first_index > piece.lo => match self.range_of(piece) {
                Some(range) if first_index < piece.hi => {
                    range.asked = None;
                    range.lacks_below(from, first_index);
                }
                _ => self.say(now_us, from, piece, Said::Trimmed(first_index)),
            },
            Answer::NotHeld(_) | Answer::Trimmed(_) | Answer::End { .. } => {
                self.say(now_us, from, piece, no_answer_to(piece));
            }
        }
    }

    fn on_end(
        &mut self,
        now_us: u64,
        from: u64,
        piece: Gap,
        term: u64,
        last: Option<LastEntry>,
        patient: &mut impl Patient,
    ) {
        let Some(end) = &mut self.end else {
            return;
        };
        let said = match end.judge(term, last) {
            EndWord::Take(last) => match patient.set_end(last) {
                Ok(()) => {
                    end.given = Some(term);
                    self.ends(from, term, last.index, patient);
                    Said::Leads(term)
                }
                Err(refused) => Said::Invalid(format!("{refused:?}")),
            },
            EndWord::Follows => Said::Follows(term),
            EndWord::Earlier => Said::LeadsEarlier(term),
            EndWord::Known => Said::Leads(term),
        };
        self.say(now_us, from, piece, said);
    }

    /// The log ends elsewhere now: what was asked for and said of it before is about another one.
    fn ends(&mut self, from: u64, term: u64, last_index: u64, patient: &impl Patient) {
        for member in self.members.values_mut() {
            member.in_flight = None;
        }
        self.ranges.clear();
        self.findings.push(Finding::End {
            from,
            term,
            last_index,
        });
        self.follow(patient);
    }

    #[expect(clippy::too_many_arguments, reason = "an answer and where it goes")]
    fn on_held(
        &mut self,
        now_us: u64,
        from: u64,
        piece: Gap,
        gap: Gap,
        batches: &[u8],
        commit_index: u64,
        patient: &mut impl Patient,
    ) {
        if gap.lo != piece.lo || gap.hi > piece.hi || gap.hi <= gap.lo {
            let what = format!("[{}, {}) as an answer about {piece}", gap.lo, gap.hi);
            return self.say(now_us, from, piece, Said::Invalid(what));
        }
        let entries_max = self.config.request_entries_max;
        let Some(range) = self.range_of(piece) else {
            return;
        };
        range.asked = None;
        if gap.hi < piece.hi {
            // Not as much fits, or it holds no more: the end is what can be proven, so ask for that alone.
            range.entries = gap.hi - gap.lo;
            return;
        }
        range.entries = (range.entries * 2).min(entries_max);
        match patient.offer(batches) {
            Ok(()) => {
                if let Some(member) = self.members.get_mut(&from) {
                    member.entries_given += gap.hi - gap.lo;
                }
                self.findings.push(Finding::Fetched { gap, from });
                self.follow(patient);
            }
            Err(Refused::Other) => {
                let is_committed = commit_index >= gap.hi - 1;
                self.say(now_us, from, piece, Said::Other { gap, is_committed });
            }
            Err(Refused::Invalid(reason)) => {
                self.say(now_us, from, piece, Said::Invalid(reason));
            }
            Err(Refused::Failed(reason)) => self.failure = Some(reason),
        }
    }

    /// The gap that a piece is the end of, unless it changed meanwhile.
    fn range_of(&mut self, piece: Gap) -> Option<&mut RangeState> {
        if piece.is_open() {
            return self.end.as_mut().map(|end| &mut end.question);
        }
        self.ranges
            .iter_mut()
            .find(|range| range.gap.hi == piece.hi)
    }

    fn say(&mut self, now_us: u64, member: u64, piece: Gap, said: Said) {
        let config = self.config;
        let Some(range) = self.range_of(piece) else {
            return;
        };
        range.asked = None;
        let gap = range.gap;
        if range.said(now_us, member, said.clone(), &config) {
            self.findings.push(Finding::Said { gap, member, said });
        }
        self.judge();
    }

    fn judge(&mut self) {
        let term = self.end.as_ref().map(|end| end.term_min);
        let question = self.end.as_mut().filter(|end| end.given.is_none());
        let question = question.map(|end| &mut end.question);
        for range in self.ranges.iter_mut().chain(question) {
            let verdict = match term {
                Some(term) if range.gap.is_open() => Verdict::EndLost { term },
                Some(_) => match range.judge(self.members.keys().copied()) {
                    Verdict::Superseded { by } => Verdict::Moved { by },
                    verdict => verdict,
                },
                None => range.judge(self.members.keys().copied()),
            };
            if verdict != range.verdict {
                range.verdict = verdict;
                let gap = range.gap;
                self.findings.push(Finding::Verdict { gap, verdict });
            }
        }
    }

    /// Takes over what is missing now.
    fn follow(&mut self, patient: &impl Patient) {
        let mut before = std::mem::take(&mut self.ranges);
        for gap in patient.missing() {
            if gap.is_open() {
                continue;
            }
            let known = before
                .iter()
                .position(|range| range.gap.overlap(gap).is_some());
            let range = match known {
                Some(position) => {
                    let mut range = before.swap_remove(position);
                    range.becomes(gap);
                    range
                }
                None => RangeState::new(gap, ENTRIES_FIRST),
            };
            self.ranges.push(range);
        }
        self.judge();
    }

    /// What happened since the last call.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// Who gave how many entries.
    pub fn given(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let members = self
            .members
            .iter()
            .map(|(id, member)| (*id, member.entries_given));
        members.filter(|(_, entries)| *entries > 0)
    }

    /// The term of the leader from whom the log's end was taken, if it was lost.
    #[must_use]
    pub fn end_term(&self) -> Option<u64> {
        self.end.as_ref().and_then(|end| end.given)
    }

    /// What is missing, who was asked and what they said, in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let question = self.end.as_ref().filter(|_| self.is_end_unknown());
        let question = question.map(|end| &end.question);
        for range in question
            .into_iter()
            .chain(&self.ranges)
            .take(GAPS_NAMED_MAX)
        {
            if !text.is_empty() {
                text.push_str("; ");
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "missing {}: {}", range.gap, range.verdict);
            for (id, member) in &self.members {
                let said = match range.said_by(*id) {
                    _ if range.asked == Some(*id) => "is being asked".to_owned(),
                    _ if !member.is_connected => "is not reached".to_owned(),
                    Some(said) => said.to_string(),
                    None => "has not been asked yet".to_owned(),
                };
                let _ = write!(text, ", node {id} {said}");
            }
        }
        let gaps = self.ranges.len() + usize::from(self.is_end_unknown());
        let more = gaps.saturating_sub(GAPS_NAMED_MAX);
        if more > 0 {
            let _ = write!(text, "; and {more} further ranges");
        }
        text
    }

    /// The gaps and what is to be thought of each.
    pub fn verdicts(&self) -> impl Iterator<Item = (Gap, Verdict)> + '_ {
        let question = self.end.as_ref().filter(|_| self.is_end_unknown());
        let question = question.map(|end| &end.question);
        let ranges = self.ranges.iter().chain(question);
        ranges.map(|range| (range.gap, range.verdict))
    }
}

fn no_answer_to(piece: Gap) -> Said {
    Said::Invalid(format!("its answer is not about {piece}"))
}
