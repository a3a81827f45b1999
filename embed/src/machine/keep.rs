//! Has snapshots made, puts them into the log of snapshots, and trims what they make needless.
//!
//! The node that leads does it. When it does not (its machine is not running), any node does it later: that two do it
//! at once costs work, never a snapshot, because each record is appended only behind the one before it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drave_client::{Client, ClientError, Log};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task;

use super::worker::Work;
use super::{MachineOptions, MachineStatus};
use crate::StateMachine;
use crate::snapshot::{CHUNK_BYTES, Part};

/// Between two looks at whether this node leads, and after a snapshot that was given up. Doubled each time that one is
/// given up: what was begun takes room until one is complete.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// Chunks that are appended together.
const CHUNKS_IN_BATCH: usize = 4;

pub(super) struct Keep<M: StateMachine> {
    pub(super) client: Client,
    pub(super) node_id: u64,
    pub(super) commands: Log,
    pub(super) snapshots: Log,
    pub(super) work: mpsc::Sender<Work<M>>,
    pub(super) told: Arc<watch::Sender<MachineStatus>>,
    pub(super) status: watch::Receiver<MachineStatus>,
    pub(super) options: MachineOptions,
}

/// Why a snapshot was given up. It is taken again later.
#[derive(Debug, Error)]
enum GivenUp {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("the file of a snapshot: {0}")]
    File(#[from] io::Error),
    #[error("the machine is stopped")]
    Stopped,
}

/// A snapshot that is written to a file, which is at its beginning.
struct Written {
    /// The first command that it does not hold.
    seq: u64,
    file: File,
    length: u64,
    crc: u32,
}

/// Where the last snapshot is known to be.
#[derive(Clone, Copy, Default)]
struct Mark {
    seq: u64,
    /// Bytes of commands applied by then.
    bytes: u64,
}

impl<M: StateMachine> Keep<M> {
    pub(super) async fn run(mut self) {
        let mut mark = Mark::default();
        let mut pause = PAUSE;
        loop {
            let every = (self.options.snapshot_commands, self.options.snapshot_bytes);
            let due = |status: &MachineStatus, times: u64| {
                status.applied.saturating_sub(mark.seq) >= every.0.saturating_mul(times)
                    || status.applied_bytes - mark.bytes >= every.1.saturating_mul(times)
            };
            let status = match self.status.wait_for(|status| due(status, 1)).await {
                Ok(status) => status.clone(),
                Err(_) => return,
            };
            let is_urgent = due(&status, 2);
            match self.keep(&status, mark, is_urgent).await {
                Ok(Some(new)) => (mark, pause) = (new, PAUSE),
                Ok(None) => tokio::time::sleep(PAUSE).await,
                Err(GivenUp::Stopped) => return,
                Err(error) => {
                    tracing::warn!(machine = self.options.name, %error, "a snapshot was given up");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Makes a snapshot if it is this node's turn, or learns of another's. None when neither is so.
    async fn keep(
        &self,
        status: &MachineStatus,
        mark: Mark,
        is_urgent: bool,
    ) -> Result<Option<Mark>, GivenUp> {
        let bytes = status.applied_bytes;
        let known = self.commands.info().await?.first_seq;
        if known > mark.seq {
            return Ok(Some(Mark { seq: known, bytes }));
        }
        if !is_urgent && self.client.status().await?.leader_id != Some(self.node_id) {
            return Ok(None);
        }
        let written = self.write().await?;
        let seq = written.seq;
        let begin_seq = self.append(written).await?;
        // Complete, and on the disks of a majority: what it holds may go.
        self.told
            .send_modify(|status| status.snapshots_written += 1);
        self.client.trim_log(self.commands.name(), seq).await?;
        self.client
            .trim_log(self.snapshots.name(), begin_seq)
            .await?;
        tracing::info!(
            machine = self.options.name,
            seq,
            "snapshot written, commands before it trimmed"
        );
        Ok(Some(Mark { seq, bytes }))
    }

    /// Takes the state and writes it to a file.
    async fn write(&self) -> Result<Written, GivenUp> {
        let (wanted, given) = oneshot::channel();
        let sent = self.work.send(Work::Snapshot(wanted)).await;
        sent.map_err(|_| GivenUp::Stopped)?;
        let (seq, snapshot) = given.await.map_err(|_| GivenUp::Stopped)?;
        let dir = self.options.temp_dir.clone();
        let write = task::spawn_blocking(move || {
            let mut file = Summed {
                file: BufWriter::new(tempfile::tempfile_in(dir)?),
                length: 0,
                crc: crc32fast::Hasher::new(),
            };
            M::write(&snapshot, &mut file)?;
            file.flush()?;
            let Summed { file, length, crc } = file;
            let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.seek(SeekFrom::Start(0))?;
            io::Result::Ok(Written {
                seq,
                file,
                length,
                crc: crc.finalize(),
            })
        });
        Ok(write.await.map_err(|_| GivenUp::Stopped)??)
    }

    /// Appends a snapshot to the log of snapshots; gives the seq at which it begins.
    async fn append(&self, written: Written) -> Result<u64, GivenUp> {
        let Written {
            seq,
            mut file,
            length,
            crc,
        } = written;
        let begin_seq = self.snapshots.check_tail().await?.next_seq;
        let begin = Part::Begin { seq }.encode();
        let mut next_seq = self.append_behind(begin_seq, vec![begin]).await?;
        let mut offset = 0;
        while offset < length {
            let read = task::spawn_blocking(move || {
                let chunks = chunks(&mut file, offset, length)?;
                io::Result::Ok((file, chunks))
            });
            let chunks;
            (file, chunks) = read.await.map_err(|_| GivenUp::Stopped)??;
            offset += (chunks.len() * CHUNK_BYTES) as u64;
            next_seq = self.append_behind(next_seq, chunks).await?;
        }
        let end = Part::End { length, crc }.encode();
        self.append_behind(next_seq, vec![end]).await?;
        Ok(begin_seq)
    }

    async fn append_behind(&self, next_seq: u64, records: Vec<Bytes>) -> Result<u64, GivenUp> {
        let ack = self.snapshots.append_if(next_seq, records).await?;
        Ok(ack.first_seq + u64::from(ack.record_count))
    }
}

/// The next parts of a file of `length` bytes, read up to `offset`.
fn chunks(file: &mut File, offset: u64, length: u64) -> io::Result<Vec<Bytes>> {
    let mut chunks = Vec::with_capacity(CHUNKS_IN_BATCH);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = offset;
    while offset < length && chunks.len() < CHUNKS_IN_BATCH {
        let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let bytes = &mut buffer[..left.min(CHUNK_BYTES)];
        file.read_exact(bytes)?;
        chunks.push(Part::Chunk { offset, bytes }.encode());
        offset += bytes.len() as u64;
    }
    Ok(chunks)
}

/// Counts and sums up what goes to a file.
struct Summed {
    file: BufWriter<File>,
    length: u64,
    crc: crc32fast::Hasher,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.crc.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
