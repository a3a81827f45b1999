//! Snapshot files: `DIR/snapshots-GROUP/snapshot-INDEX-TERM`, one state snapshot each, or `received-` for
//! one that a leader sent: only such a one may be of entries that this node's log never held.
//!
//! A file is complete from the moment it has its name (temporary name, flush, rename, flush of the
//! directory), is never written to again, and is removed only when the replica does not count on it. It
//! is sent from a mapping. What a snapshot means, which are kept, and when, is the replica's.
#![allow(unsafe_code)]

mod check;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, Mmap};

pub(super) use check::SnapshotCheck;

use crate::raft::EntryId;

/// The directory of a group's snapshots.
fn snapshots_dir(data_dir: &Path, group_id: u32) -> PathBuf {
    data_dir.join(format!("snapshots-{group_id}"))
}

/// Who made a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// This node, of entries that were on its disk.
    Own,
    /// A leader.
    Received,
}

impl Origin {
    fn prefix(self) -> &'static str {
        match self {
            Self::Own => "snapshot-",
            Self::Received => "received-",
        }
    }
}

fn file_name(id: EntryId, origin: Origin) -> String {
    format!("{}{:020}-{:020}", origin.prefix(), id.index, id.term)
}

fn parse_name(name: &str) -> Option<(EntryId, Origin)> {
    let origins = [Origin::Own, Origin::Received];
    let (origin, rest) = origins
        .into_iter()
        .find_map(|origin| Some((origin, name.strip_prefix(origin.prefix())?)))?;
    let (index, term) = rest.split_once('-')?;
    let id = EntryId {
        term: term.parse().ok()?,
        index: index.parse().ok()?,
    };
    (file_name(id, origin) == name).then_some((id, origin))
}

/// The files of one group.
#[derive(Debug)]
pub(super) struct SnapshotFiles {
    dir: PathBuf,
    /// Those with their final name, ascending.
    present: Vec<(EntryId, Origin)>,
    damaged: Vec<EntryId>,
    /// The one that was read last, mapped.
    mapped: Option<(EntryId, Arc<Mapped>)>,
}

impl SnapshotFiles {
    /// The files found, after what was left half written is removed.
    pub(super) fn open(data_dir: &Path, group_id: u32) -> io::Result<Self> {
        let dir = snapshots_dir(data_dir, group_id);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => File::open(data_dir)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let mut present = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(found) = parse_name(&name) {
                present.push(found);
            } else if name.ends_with(".tmp") {
                fs::remove_file(entry.path())?;
            }
        }
        present.sort_unstable_by_key(|(id, _)| (id.index, id.term));
        let mapped = None;
        Ok(Self {
            dir,
            present,
            damaged: Vec::new(),
            mapped,
        })
    }

    /// What is there, ascending by index.
    pub(super) fn present(&self) -> &[(EntryId, Origin)] {
        &self.present
    }

    /// A whole file. Blocks: for the start of a node.
    pub(super) fn load(&self, id: EntryId) -> io::Result<Vec<u8>> {
        fs::read(self.path(id).ok_or(io::ErrorKind::NotFound)?)
    }

    /// A file is not sound: it is not counted on, and stays where it is.
    pub(super) fn leave_out(&mut self, id: EntryId) {
        self.present.retain(|(present, _)| *present != id);
        self.damaged.push(id);
    }

    /// Files of entries from `index` on are not counted on any more; gives where they are.
    pub(super) fn hide_from(&mut self, index: u64) -> Vec<PathBuf> {
        let (hidden, stay): (Vec<_>, Vec<_>) =
            self.present.iter().partition(|(id, _)| id.index >= index);
        self.present = stay;
        let hidden = hidden.into_iter();
        hidden
            .map(|(id, origin)| self.dir.join(file_name(id, origin)))
            .collect()
    }

    /// Removes files that were hidden, durably. Blocks.
    pub(super) fn remove_hidden(&self, hidden: &[PathBuf]) -> io::Result<()> {
        hidden.iter().try_for_each(fs::remove_file)?;
        File::open(&self.dir)?.sync_all()
    }

    /// What is there and was left out.
    pub(super) fn damaged(&self) -> &[EntryId] {
        &self.damaged
    }

    /// Writes a snapshot durably, once its bytes are made. To be run where blocking is allowed; then [`Self::stored`].
    pub(super) fn store<B: FnOnce() -> Vec<u8>>(
        &self,
        id: EntryId,
        origin: Origin,
        bytes: B,
    ) -> impl FnOnce() -> io::Result<()> + use<B> {
        let dir = self.dir.clone();
        move || {
            let bytes = bytes();
            let name = file_name(id, origin);
            let temporary = dir.join(format!("{name}.tmp"));
            let written = (|| {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&temporary)?;
                file.write_all(&bytes)?;
                file.sync_all()?;
                fs::rename(&temporary, dir.join(&name))?;
                File::open(&dir)?.sync_all()
            })();
            if written.is_err() {
                // Half a file under a temporary name is of no use; the next start removes it, too.
                let _ = fs::remove_file(&temporary);
            }
            written
        }
    }

    /// All that are there, to be checked.
    pub(super) fn checks(&self) -> Vec<SnapshotCheck> {
        let present = self.present.iter();
        let check = |(id, origin): &(EntryId, Origin)| {
            SnapshotCheck::new(*id, self.dir.join(file_name(*id, *origin)))
        };
        present.map(check).collect()
    }

    /// A snapshot has its name.
    pub(super) fn stored(&mut self, id: EntryId, origin: Origin) {
        if !self.present.contains(&(id, origin)) {
            self.present.push((id, origin));
            self.present
                .sort_unstable_by_key(|(id, _)| (id.index, id.term));
        }
    }

    fn path(&self, id: EntryId) -> Option<PathBuf> {
        let found = self.present.iter().find(|(present, _)| *present == id);
        found.map(|(_, origin)| self.dir.join(file_name(id, *origin)))
    }

    /// Reads up to `bytes_max` bytes from `offset` on, and the length of the whole. To be run where
    /// blocking is allowed.
    pub(super) fn read(
        &mut self,
        id: EntryId,
        offset: u64,
        bytes_max: u32,
    ) -> impl FnOnce() -> io::Result<(Bytes, u64)> + use<> {
        let mapped = match &self.mapped {
            Some((of, mapped)) if *of == id => Arc::clone(mapped),
            _ => {
                // A path that is not there says so when it is opened.
                let path = self.path(id).unwrap_or_default();
                let mapped = Arc::new(Mapped::new(path));
                self.mapped = Some((id, Arc::clone(&mapped)));
                mapped
            }
        };
        move || mapped.slice(offset, bytes_max)
    }

    /// Forgets all files but `kept`; gives what removes them, to be run where blocking is allowed.
    pub(super) fn forget_others(
        &mut self,
        kept: &[EntryId],
    ) -> Option<impl FnOnce() -> io::Result<()> + use<>> {
        let (stay, go): (Vec<_>, Vec<_>) =
            self.present.iter().partition(|(id, _)| kept.contains(id));
        if go.is_empty() {
            return None;
        }
        self.present = stay;
        self.mapped.take_if(|(of, _)| !kept.contains(of));
        let paths: Vec<PathBuf> = go
            .into_iter()
            .map(|(id, origin)| self.dir.join(file_name(id, origin)))
            .collect();
        Some(move || paths.iter().try_for_each(fs::remove_file))
    }
}

/// A snapshot's file, mapped when it is first read.
#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    map: std::sync::OnceLock<Mmap>,
}

/// Bytes of a mapped file, which keep it mapped.
struct MappedSlice {
    mapped: Arc<Mapped>,
    range: std::ops::Range<usize>,
}

impl AsRef<[u8]> for MappedSlice {
    fn as_ref(&self) -> &[u8] {
        let map = self.mapped.map.get().expect("a slice is made of a map");
        &map[self.range.clone()]
    }
}

impl Mapped {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            map: std::sync::OnceLock::new(),
        }
    }

    fn map(&self) -> io::Result<&Mmap> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let file = File::open(&self.path)?;
        // SAFETY: a file with this name is complete and never written to or shortened again; removing it
        // leaves the mapping valid. The directory's lock keeps other nodes out.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(self.map.get_or_init(|| map))
    }

    fn slice(self: Arc<Self>, offset: u64, bytes_max: u32) -> io::Result<(Bytes, u64)> {
        let map = self.map()?;
        let total = map.len();
        let start = usize::try_from(offset).map_or(total, |offset| offset.min(total));
        let end = start.saturating_add(bytes_max as usize).min(total);
        let range = start..end;
        if range.is_empty() {
            return Ok((Bytes::new(), total as u64));
        }
        // An unreadable page is an error here instead of a signal at the first touch.
        match map.advise_range(Advice::PopulateRead, range.start, range.len()) {
            Ok(()) => {}
            // A kernel without it: a copy cannot end in a signal either.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                let bytes = fs::read(&self.path)?;
                let found = bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
                return Ok((Bytes::copy_from_slice(found), total as u64));
            }
            Err(error) => return Err(error),
        }
        let mapped = Arc::clone(&self);
        let bytes = Bytes::from_owner(MappedSlice { mapped, range });
        Ok((bytes, total as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, index }
    }

    #[test]
    fn what_was_stored_is_found_and_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = SnapshotFiles::open(dir.path(), 0).unwrap();
        assert!(files.present().is_empty());
        let content: Vec<u8> = (0..10_000u32).map(|at| at as u8).collect();
        for (at, origin) in [(id(2, 7), Origin::Own), (id(3, 9), Origin::Received)] {
            files.store(at, origin, || content.clone())().unwrap();
            files.stored(at, origin);
        }
        let again = SnapshotFiles::open(dir.path(), 0).unwrap();
        let expected = [(id(2, 7), Origin::Own), (id(3, 9), Origin::Received)];
        assert_eq!(again.present(), expected);
        assert_eq!(again.load(id(3, 9)).unwrap(), content);
        let mut again = again;
        again.leave_out(id(3, 9));
        assert!(again.load(id(3, 9)).is_err());
        assert_eq!(again.damaged(), [id(3, 9)]);
        let mut read = Vec::new();
        loop {
            let (piece, total) = files.read(id(2, 7), read.len() as u64, 4_096)().unwrap();
            assert_eq!(total, 10_000);
            if piece.is_empty() {
                break;
            }
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, content);
    }

    #[test]
    fn a_slice_outlives_the_removal_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = SnapshotFiles::open(dir.path(), 0).unwrap();
        files.store(id(1, 1), Origin::Own, || vec![7; 5_000])().unwrap();
        files.stored(id(1, 1), Origin::Own);
        let (piece, _) = files.read(id(1, 1), 100, 1_000)().unwrap();
        files.forget_others(&[]).unwrap()().unwrap();
        assert!(files.present().is_empty() && files.forget_others(&[]).is_none());
        assert_eq!(&piece[..], &[7; 1_000]);
        assert!(files.read(id(1, 1), 0, 10)().is_err());
    }

    #[test]
    fn what_was_left_half_written_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        drop(SnapshotFiles::open(dir.path(), 3).unwrap());
        let inside = dir.path().join("snapshots-3");
        fs::write(
            inside.join("snapshot-00000000000000000001-00000000000000000001.tmp"),
            b"x",
        )
        .unwrap();
        fs::write(inside.join("snapshot-1-1"), b"not a name of ours").unwrap();
        let files = SnapshotFiles::open(dir.path(), 3).unwrap();
        assert!(files.present().is_empty());
        let left: Vec<_> = fs::read_dir(&inside).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}
