//! Changes to files as sequences of primitive steps, the same over real and simulated disks.
//!
//! Each sequence is ordered so that a crash between any two steps leaves either the state before or a file
//! that is removed at open. It decides nothing about when.

use std::io;

use crate::engine::Operation;
use crate::format::FileName;

/// The primitives. Nothing is durable before `sync` (content) or `sync_directory` (names).
pub(crate) trait Files {
    /// Makes an empty file, replacing one of that name.
    fn create(&mut self, file: FileName) -> io::Result<()>;
    /// Gives the file its length, with space reserved where the file system can.
    fn reserve(&mut self, file: FileName, bytes: u64) -> io::Result<()>;
    /// Fills the file with zeros.
    fn zero(&mut self, file: FileName, bytes: u64) -> io::Result<()>;
    /// Writes at an offset.
    fn write(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's content durable.
    fn sync(&mut self, file: FileName) -> io::Result<()>;
    /// Gives a file another name, replacing one of that name.
    fn rename(&mut self, from: FileName, to: FileName) -> io::Result<()>;
    /// Removes a name.
    fn remove(&mut self, file: FileName) -> io::Result<()>;
    /// Makes names durable.
    fn sync_directory(&mut self) -> io::Result<()>;
}

/// Does an operation that is not a write.
pub(crate) fn run(files: &mut dyn Files, operation: &Operation) -> io::Result<()> {
    match operation {
        Operation::Write { .. } | Operation::Open { .. } | Operation::OpenMeta => {
            unreachable!("writes and openings are the engine's own")
        }
        Operation::Prepare {
            spare,
            bytes,
            prewrite,
        } => prepare(files, *spare, *bytes, *prewrite),
        Operation::Fill {
            spare,
            offset,
            blocks,
        } => files.write(FileName::Spare(*spare), *offset, blocks),
        Operation::Activate {
            spare,
            segment,
            header,
        } => {
            let spare = FileName::Spare(*spare);
            // The header is durable before the name is: a segment's name always has its header behind it.
            files.write(spare, 0, header)?;
            files.sync(spare).map_err(flush_failed)?;
            files.rename(spare, FileName::Segment(*segment))?;
            files.sync_directory().map_err(flush_failed)
        }
        Operation::CreateMeta { blocks } => {
            let temporary = FileName::Temporary(0);
            files.create(temporary)?;
            files.write(temporary, 0, blocks)?;
            files.sync(temporary)?;
            files.rename(temporary, FileName::Meta)?;
            files.sync_directory()
        }
        Operation::Retire { segment, spare } => {
            let segment = FileName::Segment(*segment);
            match spare {
                Some(spare) => files.rename(segment, FileName::Spare(*spare))?,
                None => files.remove(segment)?,
            }
            files.sync_directory().map_err(flush_failed)
        }
        Operation::Remove { file } => {
            files.remove(*file)?;
            files.sync_directory()
        }
    }
}

fn prepare(files: &mut dyn Files, spare: u64, bytes: u64, prewrite: bool) -> io::Result<()> {
    let temporary = FileName::Temporary(spare);
    let made = make(files, temporary, bytes, prewrite)
        .and_then(|()| files.rename(temporary, FileName::Spare(spare)));
    if made.is_err() {
        // Best effort: whatever stays behind is removed at the next open.
        let _ = files.remove(temporary);
        return made;
    }
    files.sync_directory().map_err(flush_failed)
}

/// A write or a name that finds no room left everything as it was, and can be tried again. A flush that fails
/// is final, whatever it says, so it must not look like a full disk.
fn flush_failed(error: io::Error) -> io::Error {
    io::Error::other(error)
}

fn make(files: &mut dyn Files, file: FileName, bytes: u64, prewrite: bool) -> io::Result<()> {
    files.create(file)?;
    files.reserve(file, bytes)?;
    if prewrite {
        files.zero(file, bytes)?;
    }
    files.sync(file)
}
