//! The engine over a simulated disk: single-threaded, deterministic, seeded. For tests and simulators.
//!
//! A [`MemoryDisk`] outlives the engines that use it, as a disk outlives processes: drop the log, crash the
//! disk, open the log again. Time is virtual: it moves when the owner sets it, or to the next completion
//! when the log waits.

mod disk;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

pub use disk::{CrashMode, CrashPart};
use disk::{Disk, Random};

use super::steps::{self, Files};
use super::{Completion, Engine, Operation, Source};
use crate::format::FileName;

/// How the engine over a simulated disk behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// Decides latencies, the order of completions and incarnations.
    pub seed: u64,
    /// Every operation takes at least this long, microseconds of virtual time.
    pub latency_us_min: u64,
    /// And at most this long.
    pub latency_us_max: u64,
}

/// An operation under way.
#[derive(Debug)]
struct Flight {
    number: u64,
    operation: Operation,
    due_us: u64,
}

#[derive(Debug, Default)]
struct Shared {
    disk: Disk,
    now_us: u64,
    next_due_us: Option<u64>,
    latency_us: Option<(u64, u64)>,
}

/// A simulated disk with one log's directory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk of its own with the same content, durable or not.
    #[must_use]
    pub fn fork(&self) -> Self {
        let shared = self.lock();
        let copy = Shared {
            disk: shared.disk.clone(),
            now_us: shared.now_us,
            next_due_us: None,
            latency_us: shared.latency_us,
        };
        Self {
            shared: Arc::new(Mutex::new(copy)),
        }
    }

    /// An engine over this disk. Use one at a time.
    #[must_use]
    pub fn engine(&self, behaviour: Behaviour) -> Box<dyn Engine> {
        Box::new(MemoryEngine {
            disk: self.clone(),
            behaviour,
            random: Random(behaviour.seed),
            queued: Vec::new(),
            flights: Vec::new(),
            helper_free_us: 0,
        })
    }

    /// Operations of the disk so far: writes begun, writes made durable, changes of files and names.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().disk.operations
    }

    /// Turns the power off at the operation with this number, which then does not happen.
    pub fn power_off_at(&self, operation: u64) {
        self.lock().disk.power_off_at = Some(operation);
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().disk.is_off
    }

    /// Makes the operation with this number fail, once.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.lock().disk.fail_at = Some((operation, kind));
    }

    /// No operation is made to fail any more.
    pub fn forget_failure(&self) {
        self.lock().disk.fail_at = None;
    }

    /// Every operation that starts from now on takes so long, microseconds of virtual time; this comes
    /// before what the engine's [`Behaviour`] says.
    pub fn set_latency_us(&self, min: u64, max: u64) {
        self.lock().latency_us = Some((min, max));
    }

    /// Limits the bytes of all files together; none for no limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.lock().disk.capacity_bytes = capacity_bytes;
    }

    /// Whether files can be neither made nor renamed, because the directory has no room for another name.
    pub fn set_names_full(&self, names_full: bool) {
        self.lock().disk.names_full = names_full;
    }

    /// What a loss of power at this moment leaves, by mode and seed. The power is on again after.
    pub fn crash(&self, mode: CrashMode, seed: u64) {
        self.lock().disk.crash(mode, seed);
    }

    /// How many parts, of the given kind, are not flushed: a crash now may leave any subset of them.
    #[must_use]
    pub fn unflushed(&self, part: CrashPart) -> usize {
        self.lock().disk.unflushed(part)
    }

    /// What a loss of power at this moment leaves if exactly those parts survive for which `keep` is true; it
    /// is asked once for each, in an order that does not change. The power is on again after.
    pub fn crash_keeping(&self, part: CrashPart, mut keep: impl FnMut() -> bool) {
        self.lock().disk.crash_keeping(part, &mut keep);
    }

    /// A number that disks with the same names and the same durable content share, and others hardly ever:
    /// how many different images a test has seen.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.lock().disk.fingerprint()
    }

    /// The process died and the machine lives on: everything is as it was seen last, and what was not flushed
    /// is still not flushed. Ends a loss of power too, as if it had only been the process.
    pub fn restart(&self) {
        self.lock().disk.restart();
    }

    /// The files and their lengths.
    #[must_use]
    pub fn list(&self) -> Vec<(FileName, u64)> {
        self.lock().disk.list()
    }

    /// A file's content as a reader sees it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]
    pub fn content(&self, file: FileName) -> io::Result<Vec<u8>> {
        let shared = self.lock();
        Ok(shared.disk.content(shared.disk.number_of(file)?))
    }

    /// What a loss of power now would certainly leave of a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]
    pub fn durable_content(&self, file: FileName) -> io::Result<Vec<u8>> {
        let shared = self.lock();
        Ok(shared.disk.durable(shared.disk.number_of(file)?).to_vec())
    }

    /// Changes bits of a stored byte, which must be there, behind everybody's back.
    pub fn damage(&self, file: FileName, offset: usize, bits: u8) {
        self.lock().disk.damage(file, offset, bits);
    }

    /// Replaces a file's content, durably: damage from outside.
    pub fn replace(&self, file: FileName, content: Vec<u8>) {
        self.lock().disk.replace(file, content);
    }

    /// Removes a file, durably: damage from outside.
    pub fn forget(&self, file: FileName) {
        self.lock().disk.forget(file);
    }

    /// Sets the virtual clock, microseconds; never backwards.
    pub fn set_now_us(&self, now_us: u64) {
        let mut shared = self.lock();
        shared.now_us = shared.now_us.max(now_us);
    }

    /// The virtual clock, microseconds.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.lock().now_us
    }

    /// When the next operation under way completes, by the virtual clock.
    #[must_use]
    pub fn next_due_us(&self) -> Option<u64> {
        self.lock().next_due_us
    }
}

struct MemorySource {
    disk: MemoryDisk,
    number: usize,
    bytes: u64,
}

impl Source for MemorySource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn load(self: Arc<Self>, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let range = offset as usize..(offset as usize).saturating_add(bytes);
        let found = self.disk.lock().disk.read(self.number, range);
        Ok(found.ok_or(io::ErrorKind::UnexpectedEof)?.into())
    }
}

/// See the module.
struct MemoryEngine {
    disk: MemoryDisk,
    behaviour: Behaviour,
    random: Random,
    /// Started and not submitted.
    queued: Vec<(u64, Operation)>,
    flights: Vec<Flight>,
    /// Changes of files follow one another.
    helper_free_us: u64,
}

impl MemoryEngine {
    fn latency_us(&mut self) -> u64 {
        let usual = (self.behaviour.latency_us_min, self.behaviour.latency_us_max);
        let (min, max) = self.disk.lock().latency_us.unwrap_or(usual);
        min + self.random.below((max.saturating_sub(min) + 1) as usize) as u64
    }

    fn publish_due(&self) {
        self.disk.lock().next_due_us = self.flights.iter().map(|flight| flight.due_us).min();
    }
}

/// Does what completes an operation.
fn perform(disk: &mut Disk, number: u64, operation: &Operation) -> io::Result<()> {
    match operation {
        Operation::Write { target, .. } => disk.finish_write(target.file_name(), number),
        Operation::Open { .. } | Operation::OpenMeta => {
            disk.number_of(operation.file_name()).map(drop)
        }
        _ => steps::run(disk, operation),
    }
}

impl Engine for MemoryEngine {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn reason(&self) -> &str {
        "a simulated disk was given"
    }

    fn list(&mut self) -> io::Result<Vec<(FileName, u64)>> {
        Ok(self.disk.list())
    }

    fn settle(&mut self, files: &[FileName]) -> io::Result<()> {
        let mut shared = self.disk.lock();
        files.iter().try_for_each(|file| shared.disk.sync(*file))?;
        shared.disk.sync_directory()
    }

    fn source(&self, file: FileName, _mapped: bool) -> io::Result<Arc<dyn Source>> {
        let shared = self.disk.lock();
        let number = shared.disk.number_of(file)?;
        let bytes = shared.disk.content(number).len() as u64;
        Ok(Arc::new(MemorySource {
            disk: self.disk.clone(),
            number,
            bytes,
        }))
    }

    fn medium(&self, file: FileName) -> io::Result<Arc<dyn Source>> {
        self.source(file, false)
    }

    fn start(&mut self, number: u64, operation: Operation) {
        self.queued.push((number, operation));
    }

    fn submit(&mut self) {
        for (number, operation) in std::mem::take(&mut self.queued) {
            let latency_us = self.latency_us();
            let mut shared = self.disk.lock();
            let mut due_us = shared.now_us + latency_us;
            if let Operation::Write {
                target,
                offset,
                blocks,
            } = &operation
            {
                // A failure shows when the operation completes: there is no such write to finish then.
                let _ = shared
                    .disk
                    .begin_write(target.file_name(), number, *offset, blocks);
            } else {
                due_us = due_us.max(self.helper_free_us);
                self.helper_free_us = due_us;
            }
            drop(shared);
            self.flights.push(Flight {
                number,
                operation,
                due_us,
            });
        }
        self.publish_due();
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let now_us = self.now_us();
        loop {
            let due: Vec<usize> = (0..self.flights.len())
                .filter(|position| self.flights[*position].due_us <= now_us)
                .collect();
            if due.is_empty() {
                break;
            }
            let is_write = |position: &usize| {
                matches!(self.flights[*position].operation, Operation::Write { .. })
            };
            // Writes complete in any order; changes of files in the order they were started.
            let first_change = due.iter().position(|position| !is_write(position));
            let mut choices: Vec<usize> = due.iter().copied().filter(is_write).collect();
            choices.extend(first_change.map(|position| due[position]));
            let chosen = choices[self.random.below(choices.len())];
            let flight = self.flights.remove(chosen);
            let result = perform(&mut self.disk.lock().disk, flight.number, &flight.operation);
            completions.push(Completion {
                number: flight.number,
                result,
            });
        }
        self.publish_due();
    }

    fn wait(&mut self, until_us: Option<u64>) {
        self.submit();
        let due_us = self.disk.next_due_us().into_iter().chain(until_us).min();
        if let Some(due_us) = due_us {
            self.disk.set_now_us(due_us);
        }
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn now_us(&self) -> u64 {
        self.disk.lock().now_us
    }

    fn random_u64(&mut self) -> u64 {
        self.random.next()
    }
}
