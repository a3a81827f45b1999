//! `drave wal tail`: follows the files of a running node.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use drave_wal::inspect::{GroupView, Item, WalkOptions};
use serde::Serialize;

use super::row::{BATCH_HEADER, BatchRow, CutRow, DamageRow};
use super::{Findings, Rows, inspector, read_failed};
use crate::cli::wal::{RowFormat, WalTailArgs};
use crate::errors::CliError;

/// Between two looks at a log that has nothing new.
const POLL_PAUSE: Duration = Duration::from_millis(10);

/// After so many looks without anything new the end is judged, once.
const QUIET_POLLS: u32 = 100;

#[derive(Debug, Serialize)]
struct TrimmedRow {
    r#type: &'static str,
    first_index: u64,
    end_index: u64,
}

/// What was read and not yet recorded as durable, and what is wanted.
struct Follower<W: Write> {
    rows: Rows<W>,
    waiting: VecDeque<GroupView>,
    durable_group_seq: u64,
    from: u64,
    left: u64,
    trimmed_at: Option<u64>,
}

/// Runs the command, until it is interrupted or has printed what was asked for.
///
/// # Errors
/// [`CliError`], also when something is damaged; what was printed before is valid.
pub fn tail(arguments: &WalTailArgs) -> Result<(), CliError> {
    let (inspector, directory) = inspector(&arguments.wal.dir)?;
    let format = match arguments.wal.format {
        // A document without an end is of no use.
        RowFormat::Json => RowFormat::Jsonl,
        format => format,
    };
    let mut walk = inspector.walk(WalkOptions {
        trust_seals: arguments.from.is_none(),
        skip_below: arguments.from.unwrap_or(0),
        follow: true,
    });
    let mut findings = Findings::default();
    let mut follower = Follower {
        rows: Rows::begin(format, BATCH_HEADER)?,
        waiting: VecDeque::new(),
        durable_group_seq: 0,
        from: arguments.from.unwrap_or(u64::MAX),
        left: arguments.count.unwrap_or(u64::MAX),
        trimmed_at: None,
    };
    let mut polls = 0;
    loop {
        let Some(item) = walk.next() else {
            if follower.from == u64::MAX {
                // What is there already was read to get here.
                follower.from = walk.next_index();
            }
            follower.rows.flush()?;
            polls += 1;
            if polls == QUIET_POLLS {
                walk.check_end().map_err(|error| read_failed(&error))?;
            }
            std::thread::sleep(POLL_PAUSE);
            continue;
        };
        polls = 0;
        let item = item.map_err(|error| read_failed(&error))?;
        if follower.take(item, &mut findings)?.is_break() {
            break;
        }
    }
    follower.rows.finish()?;
    findings.verdict(&directory)
}

impl<W: Write> Follower<W> {
    fn take(&mut self, item: Item, findings: &mut Findings) -> Result<ControlFlow<()>, CliError> {
        match item {
            Item::Group(group) if group.is_whole => {
                self.durable_group_seq = self.durable_group_seq.max(group.durable_group_seq);
                self.waiting.push_back(group);
            }
            Item::Segment(segment) => {
                // A segment is entered when everything before it is durable.
                let before = segment.first_group_seq - 1;
                self.durable_group_seq = self.durable_group_seq.max(before);
                if let Some(at) = self.trimmed_at.take() {
                    self.print_trimmed(at, segment.base_index)?;
                }
            }
            Item::Trimmed { next_index } => {
                self.trimmed_at.get_or_insert(next_index);
            }
            Item::Damage(damage) => {
                findings.damaged(&damage);
                let row = DamageRow::new(&damage);
                self.rows.row(&row, &row.line())?;
                return Ok(ControlFlow::Break(()));
            }
            Item::Refused(error) => {
                findings.refused = Some(error.to_string());
                return Ok(ControlFlow::Break(()));
            }
            _ => {}
        }
        self.print_durable()
    }

    fn print_trimmed(&mut self, lo: u64, hi: u64) -> Result<(), CliError> {
        let row = TrimmedRow {
            r#type: "trimmed",
            first_index: lo,
            end_index: hi,
        };
        let line = format!("trimmed: what was from {lo} up to {hi} is gone; it goes on there");
        self.rows.row(&row, &line)
    }

    fn print_durable(&mut self) -> Result<ControlFlow<()>, CliError> {
        let is_durable = |group: &GroupView| group.group_seq <= self.durable_group_seq;
        while self.waiting.front().is_some_and(is_durable) {
            let Some(group) = self.waiting.pop_front() else {
                break;
            };
            if let Some(row) = CutRow::new(&group)
                && self.from != u64::MAX
            {
                self.rows.row(&row, &row.line())?;
            }
            for batch in group.batches() {
                if batch.index < self.from {
                    continue;
                }
                let row = BatchRow::new(&group, &batch);
                self.rows.row(&row, &row.line())?;
                self.left -= 1;
                if self.left == 0 {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
