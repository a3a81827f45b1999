//! Rounds: every case in turn, the log and at once the raw disk at the size the log's flushes had.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use drave_wal::{ChangeError, EngineChoice, OpenError, Options, Wal};
use tempfile::TempDir;

use super::environment::{Environment, Ticks};
use super::log::{Driver, LogError, LogRun, processor_time};
use super::raw::{RawFile, RawMode, RawRun};

/// Bytes of each raw file.
const RAW_FILE_BYTES: u64 = 64 << 20;

/// More raw writes at once than the log would start are not asked for.
const IN_FLIGHT_MAX: usize = 4;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Engines of the log, in turns.
    pub engines: Vec<EngineChoice>,
    /// Body sizes.
    pub bytes: Vec<u32>,
    /// Appends waiting.
    pub waiting: Vec<u32>,
    /// Time of each log run, and of each raw loop.
    pub time: Duration,
    /// Rounds.
    pub rounds: u32,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of durable appends kept in memory.
    pub tail_bytes: u64,
}

/// A raw loop beside the log.
#[derive(Clone, Debug)]
pub struct RawSample {
    /// How it wrote.
    pub mode: RawMode,
    /// Writes at once.
    pub in_flight: usize,
    /// What it showed.
    pub run: RawRun,
}

/// One case in one round.
#[derive(Clone, Debug)]
pub struct CaseRound {
    /// The log.
    pub log: LogRun,
    /// Percent of the machine's processor time that others used while the log ran; 0 if not known.
    pub others_percent: f64,
    /// The raw disk: first the loop that does what the engine does, one write at a time; then, where more
    /// than one append waits, several at once; last the other way to make writes durable.
    pub raw: Vec<RawSample>,
}

/// A case over all rounds.
#[derive(Clone, Debug)]
pub struct Case {
    /// The log's engine.
    pub engine: &'static str,
    /// Body size.
    pub body_bytes: u32,
    /// Appends waiting.
    pub waiting: u32,
    /// Its rounds.
    pub rounds: Vec<CaseRound>,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Where.
    pub environment: Environment,
    /// Each engine's name and what it says of itself.
    pub engines: Vec<(&'static str, String)>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
    /// The cases, engines within sizes within waiting.
    pub cases: Vec<Case>,
    /// Whether it was stopped before the last round.
    pub is_cut: bool,
}

/// Why nothing could be measured.
#[derive(Debug)]
pub enum BenchError {
    /// A file of the raw disk.
    Raw(&'static str, io::Error),
    /// The log could not be opened.
    Open(OpenError),
    /// The log refused or failed.
    Log(LogError),
    /// What was acknowledged was not found again.
    Lost {
        /// The last index acknowledged.
        expected: u64,
        /// The last index found.
        found: u64,
    },
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw(what, error) => write!(f, "{what}: {error}"),
            Self::Open(error) => error.fmt(f),
            Self::Log(error) => error.fmt(f),
            Self::Lost { expected, found } => write!(
                f,
                "the log acknowledged index {expected} and was opened again with {found} as its last"
            ),
        }
    }
}

impl From<OpenError> for BenchError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<LogError> for BenchError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<ChangeError> for BenchError {
    fn from(error: ChangeError) -> Self {
        Self::Log(error.into())
    }
}

/// Logs and raw files in a directory of their own, which goes when this does.
struct Bench {
    options: Options,
    logs: Vec<Wal>,
    direct: Option<RawFile>,
    buffered: RawFile,
    notes: Vec<String>,
    environment: Environment,
    directory: TempDir,
}

/// Measures. `step` is told of each case done and says whether to go on. Blocks.
///
/// # Errors
/// [`BenchError`]
pub fn run(
    plan: &Plan,
    directory: &Path,
    mut step: impl FnMut() -> bool,
) -> Result<Measured, BenchError> {
    let mut bench = Bench::open(plan, directory)?;
    let bodies: Vec<Vec<u8>> = plan
        .bytes
        .iter()
        .map(|bytes| vec![0x5A; *bytes as usize])
        .collect();
    let mut cases = Vec::new();
    for waiting in &plan.waiting {
        for body in &bodies {
            for wal in &bench.logs {
                cases.push(Case {
                    engine: wal.engine_name(),
                    body_bytes: body.len() as u32,
                    waiting: *waiting,
                    rounds: Vec::new(),
                });
            }
        }
    }
    let mut is_cut = false;
    'rounds: for round in 0..plan.rounds as usize {
        for position in 0..cases.len() {
            // Odd rounds go backwards, so that no case always follows the same one.
            let position = if round % 2 == 0 {
                position
            } else {
                cases.len() - 1 - position
            };
            let case = &mut cases[position];
            let engine = position % bench.logs.len();
            let body = &bodies[position / bench.logs.len() % bodies.len()];
            let measured = bench.round(engine, body, case.waiting, plan.time)?;
            case.rounds.push(measured);
            if !step() {
                is_cut = true;
                break 'rounds;
            }
        }
    }
    cases.retain(|case| !case.rounds.is_empty());
    let engines = bench
        .logs
        .iter()
        .map(|wal| (wal.engine_name(), wal.engine_reason().to_owned()))
        .collect();
    let (environment, notes) = (bench.environment.clone(), bench.notes.clone());
    bench.check()?;
    Ok(Measured {
        environment,
        engines,
        notes,
        cases,
        is_cut,
    })
}

impl Bench {
    fn open(plan: &Plan, directory: &Path) -> Result<Self, BenchError> {
        let failed = |what| move |error| BenchError::Raw(what, error);
        let directory = tempfile::Builder::new()
            .prefix("drave-bench-")
            .tempdir_in(directory)
            .map_err(failed("a directory for the files cannot be made"))?;
        let at = |name: &str| directory.path().join(name);
        let buffered = RawFile::make(&at("buffered"), RawMode::BufferedFdatasync, RAW_FILE_BYTES)
            .map_err(failed("the raw file cannot be made"))?;
        let mut notes = Vec::new();
        let direct = match RawFile::make(&at("direct"), RawMode::DirectDsync, RAW_FILE_BYTES) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                notes.push(
                    "this file system refuses O_DIRECT: the log is compared with buffered writes \
                     and fdatasync"
                        .to_owned(),
                );
                None
            }
            Err(error) => return Err(BenchError::Raw("the raw file cannot be made", error)),
        };
        let environment = Environment::of(directory.path(), &at("buffered"))
            .map_err(failed("the file system cannot be asked"))?;
        let waiting_bytes = u64::from(plan.waiting.iter().max().copied().unwrap_or(1))
            * (u64::from(plan.bytes.iter().max().copied().unwrap_or(1)) + 256);
        let options = Options {
            segment_bytes: plan.segment_bytes,
            tail_bytes_max: plan.tail_bytes,
            queue_bytes_max: waiting_bytes.max(Options::default().queue_bytes_max),
            ..Options::default()
        };
        let mut logs = Vec::new();
        for engine in &plan.engines {
            let options = Options {
                engine: *engine,
                ..options.clone()
            };
            let name = format!("log-{}", logs.len());
            let mut wal = match Wal::open(&at(&name), options) {
                Err(OpenError::Engine { reason }) if plan.engines.len() > 1 => {
                    notes.push(format!("an engine is refused here: {reason}"));
                    continue;
                }
                opened => opened?,
            };
            // Spares are made before the clock starts, as in a log that runs for a while.
            while !wal.is_quiet() {
                wal.wait();
                wal.poll(&mut Vec::new());
            }
            logs.push(wal);
        }
        Ok(Self {
            options,
            logs,
            direct,
            buffered,
            notes,
            environment,
            directory,
        })
    }

    fn round(
        &mut self,
        engine: usize,
        body: &[u8],
        waiting: u32,
        time: Duration,
    ) -> Result<CaseRound, BenchError> {
        let wal = &mut self.logs[engine];
        let (before, processor, started) = (Ticks::now(), processor_time(), Instant::now());
        let log = Driver::new(wal, body, waiting).run(time)?;
        let own = 100.0 * (processor_time().saturating_sub(processor)).as_secs_f64()
            / (started.elapsed().as_secs_f64() * self.environment.processors as f64);
        let busy = before
            .zip(Ticks::now())
            .map_or(own, |(before, after)| after.busy_percent_since(before));
        let others_percent = (busy - own).max(0.0);
        // Both engines ask the file system what the raw file asked it, and write as it answers.
        let (own, other) = match &self.direct {
            Some(direct) => (direct, Some(&self.buffered)),
            None => (&self.buffered, None),
        };
        let several = (log.in_flight_mean().round() as usize).clamp(2, IN_FLIGHT_MAX);
        let mut wanted = vec![(own, 1)];
        wanted.extend((waiting > 1).then_some((own, several)));
        wanted.extend(other.map(|other| (other, 1)));
        let mut raw = Vec::new();
        for (file, in_flight) in wanted {
            let run = file
                .run(log.flush_bytes(), in_flight, time)
                .map_err(|error| BenchError::Raw("a raw write failed", error))?;
            raw.push(RawSample {
                mode: file.mode(),
                in_flight,
                run,
            });
        }
        Ok(CaseRound {
            log,
            others_percent,
            raw,
        })
    }

    /// Closes the logs, opens them again reading everything, and looks for the last append of each.
    fn check(self) -> Result<(), BenchError> {
        for (position, wal) in self.logs.into_iter().enumerate() {
            let expected = wal.durable_index();
            wal.close()?;
            let options = Options {
                verify_on_open: true,
                ..self.options.clone()
            };
            let path = self.directory.path().join(format!("log-{position}"));
            let found = Wal::open(&path, options)?.last_index();
            if found != expected {
                return Err(BenchError::Lost { expected, found });
            }
        }
        Ok(())
    }
}
