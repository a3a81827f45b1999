//! The load: appends of all sizes, cuts, trims, resets and meta values, as fast as the log takes them.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use drave_wal::{AppendError, ChangeError, Event, Wal};

use crate::Arguments;
use crate::common::model::Appended;
use crate::common::{body, header};
use crate::journal;

/// Entries appended before the log is asked to write.
const ENTRIES_IN_TURN_MAX: u64 = 12;
/// Segments kept; older ones are trimmed, and their files used again.
const SEGMENTS_KEPT: u64 = 6;
/// How long to let be a log that has nothing under way: on a full disk, between two tries.
const PAUSE: Duration = Duration::from_millis(2);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Mostly small, now and then larger than a group.
    fn bytes(&mut self) -> usize {
        let limit = match self.below(100) {
            0..70 => 200,
            70..95 => 3_000,
            95..99 => 20_000,
            _ => 150_000,
        };
        self.below(limit) as usize
    }
}

#[derive(Debug, Default)]
struct Counts {
    appended: u64,
    acknowledged: u64,
    metas: u64,
    space_low: u64,
    space_ok: u64,
    no_space: u64,
    resumed: u64,
}

struct Writer {
    wal: Wal,
    journal: File,
    /// Lines not written to the journal yet.
    lines: String,
    random: Random,
    term: u64,
    counts: Counts,
    /// Appends are refused for want of space.
    is_full: bool,
    /// Whether older segments are to go.
    trims: bool,
    has_failed: bool,
}

/// Writes until the time is over or the log has failed.
pub(crate) fn run(wal: Wal, arguments: &Arguments) -> Result<(), ExitCode> {
    let journal = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&arguments.journal);
    let journal = journal.map_err(|error| {
        println!("{}: {error}", arguments.journal.display());
        ExitCode::from(2)
    })?;
    let term = wal.term(wal.last_index()).unwrap_or(0) + 1;
    println!("engine {}: {}", wal.engine_name(), wal.engine_reason());
    let mut writer = Writer {
        wal,
        journal,
        lines: String::new(),
        random: Random(arguments.seed),
        term,
        counts: Counts::default(),
        is_full: false,
        trims: !arguments.trims_late,
        has_failed: false,
    };
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let is_over = || match &arguments.stop {
        Some(file) => file.exists(),
        None => Instant::now() >= end,
    };
    while !is_over() && !writer.has_failed {
        writer.turn();
        if arguments.trims_late {
            // Once there is room again, down to a few segments, so that the disk can be filled again.
            writer.trims &= writer.wal.statistics().segments > SEGMENTS_KEPT;
        }
        if arguments.pause_us > 0 {
            std::thread::sleep(Duration::from_micros(arguments.pause_us));
        }
    }
    if !writer.has_failed {
        writer.drain();
    }
    writer.end()
}

impl Writer {
    fn turn(&mut self) {
        let changed = if self.random.one_in(60) {
            self.cut()
        } else {
            (0..=self.random.below(ENTRIES_IN_TURN_MAX)).any(|_| !self.append())
        };
        if self.random.one_in(20) {
            self.write_meta();
        }
        if self.trims && self.wal.statistics().segments > SEGMENTS_KEPT {
            let span = self.wal.last_index() + 1 - self.wal.first_index();
            let kept = self.wal.first_index() + span / 2;
            self.wal.truncate_prefix(kept).expect("the index is inside");
            self.lines += &format!("P {kept}\n");
        }
        self.write_journal();
        self.wal.submit();
        self.poll();
        if changed || self.wal.queued_bytes() > 512 << 10 {
            self.wal.wait();
            self.poll();
        }
    }

    /// Appends an entry; false if the log takes none now.
    fn append(&mut self) -> bool {
        let (index, term, bytes) = (self.wal.last_index() + 1, self.term, self.random.bytes());
        let content = body(index, term, bytes);
        match self
            .wal
            .append(&mut header(index, term, &content), &content)
        {
            Ok(()) => {
                let crc = self.wal.last_crc();
                self.lines += &journal::line(
                    'A',
                    &Appended {
                        index,
                        term,
                        bytes,
                        crc,
                    },
                );
                self.counts.appended += 1;
                if std::mem::take(&mut self.is_full) {
                    self.counts.resumed += 1;
                    self.trims = true;
                    println!("room again");
                }
                return true;
            }
            Err(AppendError::NoSpace) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    self.counts.no_space += 1;
                    println!("full");
                }
                std::thread::sleep(PAUSE);
            }
            Err(AppendError::Full { .. } | AppendError::Failed(_)) => {}
            Err(error) => panic!("{error}"),
        }
        false
    }

    /// Cuts off the end, or everything. True: what follows is worth waiting for.
    fn cut(&mut self) -> bool {
        let held = self.wal.last_index() + 1 - self.wal.first_index();
        let done = if self.trims && self.random.one_in(40) {
            let (next_index, crc) = (self.wal.last_index() + 1 + self.random.below(5), 77);
            let done = self.wal.reset(next_index, self.term, crc);
            if done.is_ok() {
                self.lines += &format!("R {next_index} {crc}\nP {next_index}\n");
            }
            done
        } else {
            let from = self.wal.last_index() + 1 - self.random.below(held + 1).min(40);
            if from > self.wal.last_index() {
                return false;
            }
            let done = self.wal.truncate_suffix(from);
            if done.is_ok() {
                self.lines += &format!("T {from}\n");
            }
            done
        };
        self.term += 1;
        match done {
            Ok(()) | Err(ChangeError::NoSpace | ChangeError::Failed(_)) => {}
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn write_meta(&mut self) {
        let known = self.counts.metas;
        let value = self.next_meta(known);
        if let Ok(number) = self.wal.write_meta(&value.to_le_bytes()) {
            assert_eq!(number, value, "meta values are numbered");
            self.counts.metas = number;
            self.lines += &format!("M {number}\n");
        }
    }

    /// The number of the next meta value: the values are their own numbers.
    fn next_meta(&self, written: u64) -> u64 {
        let stored = self.wal.meta().map_or(0, |value| {
            u64::from_le_bytes(value[..8].try_into().expect("values have eight bytes"))
        });
        written.max(stored) + 1
    }

    fn poll(&mut self) {
        let mut events = Vec::new();
        self.wal.poll(&mut events);
        for event in events {
            match event {
                Event::Durable(_) | Event::MetaDurable(_) if self.has_failed => {
                    panic!("acknowledged after the failure: {event:?}");
                }
                Event::Durable(flushed) => {
                    self.lines += &format!("D {}\n", flushed.index());
                    self.counts.acknowledged += 1;
                }
                Event::MetaDurable(meta) => self.lines += &format!("E {}\n", meta.sequence()),
                Event::Failed(failure) => {
                    println!("failed: {failure}");
                    self.has_failed = true;
                }
                Event::SpaceLow => self.counts.space_low += 1,
                Event::SpaceOk => self.counts.space_ok += 1,
                _ => {}
            }
        }
        self.write_journal();
    }

    fn write_journal(&mut self) {
        self.journal
            .write_all(self.lines.as_bytes())
            .expect("the journal is on a sound disk");
        self.lines.clear();
    }

    /// Everything that was taken on becomes durable, or the log fails.
    fn drain(&mut self) {
        while !self.has_failed && self.wal.queued_bytes() > 0 {
            self.wal.wait();
            self.poll();
        }
    }

    /// After a failure nothing works and nothing is acknowledged, however often it is asked.
    fn end(mut self) -> Result<(), ExitCode> {
        if self.has_failed {
            for _ in 0..100 {
                let refused = !self.append() && self.wal.write_meta(b"after the failure").is_err();
                assert!(refused, "a failed log takes nothing");
                self.wal.submit();
                self.poll();
                std::thread::sleep(PAUSE);
            }
        }
        let statistics = self.wal.statistics();
        println!(
            "{:?} rolls {} flush_us_max {}",
            self.counts, statistics.rolls, statistics.flush_us_max
        );
        if self.has_failed {
            Err(ExitCode::from(3))
        } else {
            Ok(())
        }
    }
}
