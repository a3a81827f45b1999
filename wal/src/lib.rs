//! `drave-wal`: a segmented, checksummed, group-committed write-ahead log.
//!
//! It stores batches ([`drave_batch`]) under a contiguous index, with their terms, and a small meta value
//! beside them; it says what is durable, and after a crash tells an interrupted write from damage. It knows
//! no votes, no log names and no network. The bytes on disk are in `docs/format-wal.md`.
//!
//! Inside, a state machine (`machine`) decides and an [`Engine`] moves bytes; see the README.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod buffer;
mod engine;
mod error;
mod event;
mod format;
pub mod inspect;
mod machine;
mod map;
pub mod mutants;
mod options;
mod read;
mod recover;
mod salvage;
mod scrub;
mod tail;
mod terms;
mod wal;

pub use buffer::Blocks;
pub use engine::memory::{Behaviour, CrashMode, CrashPart, MemoryDisk};
pub use engine::{Completion, Engine, Operation, Source, Target};
pub use error::{
    AppendError, ChangeError, Corruption, CorruptionKind, Failure, OpenError, Proof, ReadError,
};
pub use event::{Event, Flushed, MetaFlushed, RecentFlushes, Statistics};
pub use format::{
    BLOCK_BYTES, FileName, GroupKind, META_VALUE_BYTES_MAX, SegmentName, WAL_VERSION,
};
pub use options::{EngineChoice, Options};
pub use read::{ColdRead, Read, Slices};
pub use recover::{RecoveryReport, Torn};
pub use salvage::{CutReport, EndError, Missing, OfferError, Offered, RepairReport, Salvage};
pub use scrub::{Checked, Pace, ScrubPosition, SegmentCheck};
pub use terms::TermRun;
pub use wal::Wal;
