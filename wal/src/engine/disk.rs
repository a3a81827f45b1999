//! Real files: the directory and its lock, the primitives of `steps`, readers, and how segments are opened
//! for writing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, FlockOperation};

use super::Source;
use super::direct::WindowSource;
use super::filling::Pace;
use super::steps::Files;
use crate::buffer::Blocks;
use crate::error::OpenError;
use crate::format::{BLOCK_BYTES, FileName};
use crate::map::Map;

const LOCK_ATTEMPTS: u32 = 6;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A directory that this process alone has open as a log.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    handle: File,
    _lock: File,
    pace: Pace,
}

impl Directory {
    /// Creates the directory if need be, and locks it. Retries for a while: the kernel may hold the files
    /// of a killed process a moment longer.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |operation: &'static str| {
            move |source: io::Error| OpenError::Io {
                operation,
                path: path.to_owned(),
                source: Arc::new(source),
            }
        };
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(failed("creation"))?;
            if let Some(parent) = path.canonicalize().map_err(failed("opening"))?.parent() {
                File::open(parent)
                    .and_then(|parent| parent.sync_all())
                    .map_err(failed("flush"))?;
            }
        }
        let handle = File::open(path).map_err(failed("opening"))?;
        let lock_path = path.join(FileName::Lock.to_string());
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed("locking"))?;
        for attempt in 1..=LOCK_ATTEMPTS {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Self {
                        path: path.to_owned(),
                        handle,
                        _lock: lock,
                        pace: Pace::default(),
                    });
                }
                Err(rustix::io::Errno::WOULDBLOCK) if attempt < LOCK_ATTEMPTS => {
                    thread::sleep(LOCK_PAUSE);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => return Err(failed("locking")(error.into())),
            }
        }
        Err(OpenError::Locked { path: lock_path })
    }

    pub(crate) fn path_of(&self, file: FileName) -> PathBuf {
        self.path.join(file.to_string())
    }

    /// The log's files; foreign names are left alone.
    pub(crate) fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        list(&self.path)
    }

    /// Flushes files and directory, so that what is read next is what a crash would leave.
    pub(crate) fn settle(&self, files: &[FileName]) -> io::Result<()> {
        for file in files {
            File::open(self.path_of(*file))?.sync_data()?;
        }
        self.handle.sync_all()
    }

    pub(crate) fn source(&self, file: FileName, mapped: bool) -> io::Result<Arc<dyn Source>> {
        source(&self.path, file, mapped)
    }

    pub(crate) fn medium(&self, file: FileName) -> io::Result<Arc<dyn Source>> {
        Ok(Arc::new(WindowSource::open(&self.path_of(file))?))
    }

    /// Opens a file for durable writes: past the page cache if `direct`, with a flush by the caller if not.
    pub(crate) fn open_for_writing(&self, file: FileName, direct: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if direct {
            options.custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        }
        options.open(self.path_of(file))
    }

    /// Whether writes past the page cache work here, found by trying one.
    pub(crate) fn direct_works(&self) -> bool {
        let name = FileName::Temporary(u64::MAX);
        let path = self.path_of(name);
        let attempt = || -> io::Result<()> {
            File::create(&path)?;
            let file = self.open_for_writing(name, true)?;
            file.write_all_at(&Blocks::copy_of(&[0; BLOCK_BYTES]), 0)
        };
        let works = attempt().is_ok();
        let _ = fs::remove_file(&path);
        works
    }
}

/// The log's files in a directory and their lengths; foreign names, and files that go meanwhile, are left out.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<(FileName, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(FileName::parse) {
            match entry.metadata() {
                Ok(metadata) => files.push((name, metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Opens a file of a directory for reading.
pub(crate) fn source(
    directory: &Path,
    file: FileName,
    mapped: bool,
) -> io::Result<Arc<dyn Source>> {
    let file = File::open(directory.join(file.to_string()))?;
    let bytes = file.metadata()?.len();
    Ok(Arc::new(FileSource {
        file,
        bytes,
        map: mapped.then(OnceLock::new),
    }))
}

impl Files for Arc<Directory> {
    fn create(&mut self, file: FileName) -> io::Result<()> {
        File::create(self.path_of(file)).map(drop)
    }

    fn reserve(&mut self, file: FileName, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path_of(file))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
            Err(error) => Err(error.into()),
        }
    }

    fn zero(&mut self, file: FileName, bytes: u64) -> io::Result<()> {
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(self.path_of(file))
            .and_then(|file| self.pace.fill(&file, bytes));
        match direct {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let buffered = OpenOptions::new().write(true).open(self.path_of(file))?;
                self.pace.fill(&buffered, bytes)
            }
            result => result,
        }
    }

    fn write(&mut self, file: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.path_of(file))?
            .write_all_at(bytes, offset)
    }

    fn sync(&mut self, file: FileName) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.path_of(file))?
            .sync_all()
    }

    fn rename(&mut self, from: FileName, to: FileName) -> io::Result<()> {
        fs::rename(self.path_of(from), self.path_of(to))
    }

    fn remove(&mut self, file: FileName) -> io::Result<()> {
        fs::remove_file(self.path_of(file))
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// A file opened for reading; mapped at the first read if it may be.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: File,
    bytes: u64,
    map: Option<OnceLock<Map>>,
}

/// A slice of a mapped file, which keeps the whole reader alive, so that the file is not used again.
struct MappedSlice {
    source: Arc<FileSource>,
    range: std::ops::Range<usize>,
}

impl AsRef<[u8]> for MappedSlice {
    fn as_ref(&self) -> &[u8] {
        let map = self.source.map.as_ref().and_then(OnceLock::get);
        map.expect("the slice was made from the map")
            .slice(&self.range)
    }
}

impl FileSource {
    fn load_mapped(
        self: Arc<Self>,
        map: &OnceLock<Map>,
        range: std::ops::Range<usize>,
    ) -> io::Result<Bytes> {
        if map.get().is_none() {
            // Two readers may both map; one map is kept.
            let _ = map.set(Map::new(&self.file)?);
        }
        let made = map.get().expect("it was just set");
        if range.end > made.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match made.populate(&range) {
            Ok(()) => Ok(Bytes::from_owner(MappedSlice {
                source: Arc::clone(&self),
                range,
            })),
            // A kernel without MADV_POPULATE_READ; or a page that cannot be had, whatever the reason: reading it
            // into memory of our own cannot end in a signal either, and says why it fails.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EFAULT)) => {
                self.load_copied(range)
            }
            Err(error) => Err(error),
        }
    }

    fn load_copied(&self, range: std::ops::Range<usize>) -> io::Result<Bytes> {
        let mut bytes = vec![0; range.len()];
        self.file.read_exact_at(&mut bytes, range.start as u64)?;
        Ok(bytes.into())
    }
}

impl Source for FileSource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn load(self: Arc<Self>, offset: u64, bytes: usize) -> io::Result<Bytes> {
        let end = offset
            .checked_add(bytes as u64)
            .filter(|end| *end <= self.bytes);
        let Some(end) = end else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let range = offset as usize..end as usize;
        let this = Arc::clone(&self);
        match &self.map {
            Some(map) if !range.is_empty() => this.load_mapped(map, range),
            _ => self.load_copied(range),
        }
    }
}
