//! A simulated disk: files and names, each with what is durable apart from what is not yet.
//!
//! Content becomes durable by a file's flush, names by the directory's. A crash keeps what is durable and,
//! by mode and seed, any part of the rest. It knows nothing of logs.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use crate::engine::steps::Files;
use crate::format::FileName;

/// What a crash tears writes into.
const SECTOR_BYTES: usize = 512;

/// What a crash does to what was not flushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashMode {
    /// None of it reached the disk.
    Drop,
    /// All of it did.
    Keep,
    /// Each write and each change of a name did or did not, by the seed.
    Some,
    /// As `Some`, and of each write each sector of 512 bytes did or did not.
    Tear,
    /// As `Tear`, and overlapping writes, and changes of names, in any order.
    Reorder,
}

impl CrashMode {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Drop,
        Self::Keep,
        Self::Some,
        Self::Tear,
        Self::Reorder,
    ];
}

/// What a crash keeps or loses as one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrashPart {
    /// A whole write, or one change of a length or a name.
    Change,
    /// 512 bytes of a write, or one change of a length or a name.
    Sector,
}

/// A small generator: the same seed, the same numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for position in (1..items.len()).rev() {
            items.swap(position, self.below(position + 1));
        }
    }
}

/// A change of content that is not durable.
#[derive(Clone, Debug)]
enum Change {
    Length(u64),
    Write {
        tag: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
}

/// A change of a name that is not durable.
#[derive(Clone, Debug)]
enum NameChange {
    Link(FileName, usize),
    Move(FileName, FileName, usize),
    Unlink(FileName),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl Inode {
    fn live(&self) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.pending {
            apply(&mut content, change);
        }
        content
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(bytes) => content.resize(*bytes as usize, 0),
        Change::Write { offset, bytes, .. } => write_at(content, *offset as usize, bytes),
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// What happens to an operation of the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Works,
    Fails(io::ErrorKind),
    /// The power goes off before it; nothing works from here on.
    PowerOff,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    inodes: Vec<Inode>,
    live: BTreeMap<FileName, usize>,
    durable: BTreeMap<FileName, usize>,
    changes: Vec<NameChange>,
    pub(super) operations: u64,
    pub(super) power_off_at: Option<u64>,
    pub(super) fail_at: Option<(u64, io::ErrorKind)>,
    pub(super) capacity_bytes: Option<u64>,
    /// The directory has no room for another name.
    pub(super) names_full: bool,
    pub(super) is_off: bool,
}

impl Disk {
    /// Counts an operation and says what becomes of it.
    fn step(&mut self) -> io::Result<()> {
        match self.fate() {
            Fate::Works => Ok(()),
            Fate::Fails(kind) => Err(kind.into()),
            Fate::PowerOff => Err(io::Error::other("the power is off")),
        }
    }

    fn fate(&mut self) -> Fate {
        if self.is_off {
            return Fate::PowerOff;
        }
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| self.operations >= at) {
            self.is_off = true;
            return Fate::PowerOff;
        }
        match self.fail_at {
            Some((at, kind)) if at == self.operations => Fate::Fails(kind),
            _ => Fate::Works,
        }
    }

    fn inode(&mut self, file: FileName) -> io::Result<&mut Inode> {
        let number = *self.live.get(&file).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.inodes[number])
    }

    pub(super) fn number_of(&self, file: FileName) -> io::Result<usize> {
        self.live
            .get(&file)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What a reader of an open file sees.
    pub(super) fn content(&self, number: usize) -> Vec<u8> {
        self.inodes[number].live()
    }

    /// What of it is durable.
    pub(super) fn durable(&self, number: usize) -> &[u8] {
        &self.inodes[number].durable
    }

    /// Changes bits of a durable byte.
    pub(super) fn damage(&mut self, file: FileName, offset: usize, bits: u8) {
        if let Ok(inode) = self.inode(file)
            && let Some(byte) = inode.durable.get_mut(offset)
        {
            *byte ^= bits;
        }
    }

    /// A part of it, if it is there.
    pub(super) fn read(&self, number: usize, range: std::ops::Range<usize>) -> Option<Vec<u8>> {
        let inode = &self.inodes[number];
        if inode.pending.is_empty() {
            return inode.durable.get(range).map(<[u8]>::to_vec);
        }
        inode.live().get(range).map(<[u8]>::to_vec)
    }

    fn length(&self, number: usize) -> u64 {
        let inode = &self.inodes[number];
        let lengthen = |bytes: u64, change: &Change| match change {
            Change::Length(bytes) => *bytes,
            Change::Write {
                offset,
                bytes: data,
                ..
            } => bytes.max(offset + data.len() as u64),
        };
        inode
            .pending
            .iter()
            .fold(inode.durable.len() as u64, lengthen)
    }

    pub(super) fn list(&self) -> Vec<(FileName, u64)> {
        self.live
            .iter()
            .map(|(name, number)| (*name, self.length(*number)))
            .collect()
    }

    fn room_for_a_name(&self) -> io::Result<()> {
        if self.names_full {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn used_bytes(&self) -> u64 {
        self.list().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Begins a write: from here on a crash may leave any part of it.
    pub(super) fn begin_write(
        &mut self,
        file: FileName,
        tag: u64,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.step()?;
        let bytes = bytes.to_vec();
        self.inode(file)?
            .pending
            .push(Change::Write { tag, offset, bytes });
        Ok(())
    }

    /// Makes the write `tag` durable, and nothing else.
    pub(super) fn finish_write(&mut self, file: FileName, tag: u64) -> io::Result<()> {
        self.step()?;
        let inode = self.inode(file)?;
        let own =
            |change: &Change| matches!(change, Change::Write { tag: other, .. } if *other == tag);
        let position = inode
            .pending
            .iter()
            .position(own)
            .ok_or(io::ErrorKind::NotFound)?;
        let change = inode.pending.remove(position);
        apply(&mut inode.durable, &change);
        Ok(())
    }

    /// Replaces a file's content, durably; for damage from outside.
    pub(super) fn replace(&mut self, file: FileName, content: Vec<u8>) {
        let number = self.live.get(&file).copied().unwrap_or_else(|| {
            self.inodes.push(Inode::default());
            self.inodes.len() - 1
        });
        self.inodes[number] = Inode {
            durable: content,
            pending: Vec::new(),
        };
        self.live.insert(file, number);
        self.durable.insert(file, number);
    }

    /// Takes a name away, durably; for damage from outside.
    pub(super) fn forget(&mut self, file: FileName) {
        self.live.remove(&file);
        self.durable.remove(&file);
    }

    /// The power comes back: what was not durable is there or not, by `mode` and `seed`.
    pub(super) fn crash(&mut self, mode: CrashMode, seed: u64) {
        let mut random = Random(seed);
        for inode in &mut self.inodes {
            let mut pending = std::mem::take(&mut inode.pending);
            if mode == CrashMode::Reorder {
                random.shuffle(&mut pending);
            }
            for change in pending {
                keep_part(&mut inode.durable, &change, mode, &mut random);
            }
        }
        let mut changes = std::mem::take(&mut self.changes);
        if mode == CrashMode::Reorder {
            random.shuffle(&mut changes);
        }
        for change in changes {
            if keeps(mode, &mut random) {
                apply_name(&mut self.durable, &change);
            }
        }
        self.live = self.durable.clone();
        self.restart();
    }

    /// A number that disks with the same names and the same durable content share, and others hardly ever.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, number) in &self.durable {
            let content = &self.inodes[*number].durable;
            (name, content.len()).hash(&mut hasher);
            // The checksum is ten times as fast as the hasher; over so few bytes at a time it misses nothing.
            for sector in content.chunks(SECTOR_BYTES) {
                hasher.write_u32(crc32fast::hash(sector));
            }
        }
        hasher.finish()
    }

    /// How many parts [`Disk::crash_keeping`] asks about.
    pub(super) fn unflushed(&self, part: CrashPart) -> usize {
        let parts = |change: &Change| match (change, part) {
            (Change::Write { bytes, .. }, CrashPart::Sector) => bytes.len().div_ceil(SECTOR_BYTES),
            _ => 1,
        };
        let pending = self.inodes.iter().flat_map(|inode| &inode.pending);
        pending.map(parts).sum::<usize>() + self.changes.len()
    }

    /// The power comes back: of what was not durable, in the order it was done, exactly those parts are there
    /// that `keep` says.
    pub(super) fn crash_keeping(&mut self, part: CrashPart, keep: &mut dyn FnMut() -> bool) {
        for inode in &mut self.inodes {
            for change in std::mem::take(&mut inode.pending) {
                if part == CrashPart::Sector {
                    keep_sectors(&mut inode.durable, &change, keep);
                } else if keep() {
                    apply(&mut inode.durable, &change);
                }
            }
        }
        for change in std::mem::take(&mut self.changes) {
            if keep() {
                apply_name(&mut self.durable, &change);
            }
        }
        self.live = self.durable.clone();
        self.restart();
    }

    /// Works again, with what was not flushed still not flushed.
    pub(super) fn restart(&mut self) {
        self.is_off = false;
        self.power_off_at = None;
        self.fail_at = None;
    }
}

fn keeps(mode: CrashMode, random: &mut Random) -> bool {
    match mode {
        CrashMode::Drop => false,
        CrashMode::Keep => true,
        CrashMode::Some | CrashMode::Tear | CrashMode::Reorder => random.coin(),
    }
}

fn keep_part(durable: &mut Vec<u8>, change: &Change, mode: CrashMode, random: &mut Random) {
    if !keeps(mode, random) {
        return;
    }
    let tears = matches!(mode, CrashMode::Tear | CrashMode::Reorder)
        && matches!(change, Change::Write { .. });
    // One in four arrives whole: a later write that is whole beside a torn one is the hard case.
    if !tears || random.below(4) == 0 {
        apply(durable, change);
    } else {
        keep_sectors(durable, change, &mut || random.coin());
    }
}

/// Applies of a write those sectors that `keep` says; any other change counts as one sector.
fn keep_sectors(durable: &mut Vec<u8>, change: &Change, keep: &mut dyn FnMut() -> bool) {
    let Change::Write { offset, bytes, .. } = change else {
        if keep() {
            apply(durable, change);
        }
        return;
    };
    for (position, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
        if keep() {
            write_at(durable, *offset as usize + position * SECTOR_BYTES, sector);
        }
    }
}

fn apply_name(names: &mut BTreeMap<FileName, usize>, change: &NameChange) {
    match change {
        NameChange::Link(name, number) => {
            names.insert(*name, *number);
        }
        NameChange::Move(from, to, number) => {
            if names.get(from) == Some(number) {
                names.remove(from);
            }
            names.insert(*to, *number);
        }
        NameChange::Unlink(name) => {
            names.remove(name);
        }
    }
}

impl Files for Disk {
    fn create(&mut self, file: FileName) -> io::Result<()> {
        self.step()?;
        self.room_for_a_name()?;
        self.inodes.push(Inode::default());
        let number = self.inodes.len() - 1;
        self.live.insert(file, number);
        self.changes.push(NameChange::Link(file, number));
        Ok(())
    }

    fn reserve(&mut self, file: FileName, bytes: u64) -> io::Result<()> {
        self.step()?;
        let used = self.used_bytes();
        if self
            .capacity_bytes
            .is_some_and(|capacity| used + bytes > capacity)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inode(file)?.pending.push(Change::Length(bytes));
        Ok(())
    }

    fn zero(&mut self, file: FileName, bytes: u64) -> io::Result<()> {
        self.write(file, 0, &vec![0; bytes as usize])
    }

    fn write(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.begin_write(file, 0, offset, bytes)
    }

    fn sync(&mut self, file: FileName) -> io::Result<()> {
        self.step()?;
        let inode = self.inode(file)?;
        for change in std::mem::take(&mut inode.pending) {
            apply(&mut inode.durable, &change);
        }
        Ok(())
    }

    fn rename(&mut self, from: FileName, to: FileName) -> io::Result<()> {
        self.step()?;
        self.room_for_a_name()?;
        let number = self.live.remove(&from).ok_or(io::ErrorKind::NotFound)?;
        self.live.insert(to, number);
        self.changes.push(NameChange::Move(from, to, number));
        Ok(())
    }

    fn remove(&mut self, file: FileName) -> io::Result<()> {
        self.step()?;
        self.live.remove(&file).ok_or(io::ErrorKind::NotFound)?;
        self.changes.push(NameChange::Unlink(file));
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.step()?;
        for change in std::mem::take(&mut self.changes) {
            apply_name(&mut self.durable, &change);
        }
        Ok(())
    }
}
