//! The file system: one directory, its files passed through to another directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::rules::{Action, Rules};

/// Nothing is remembered by the kernel: every look is answered from the directory below.
const NOT_CACHED: Duration = Duration::ZERO;

struct Open {
    name: String,
    file: File,
}

struct State {
    rules: Rules,
    /// Number of each name that was looked up.
    numbers: BTreeMap<String, u64>,
    next_number: u64,
    open: BTreeMap<u64, Open>,
    next_open: u64,
}

/// See the module.
pub(crate) struct Files {
    directory: PathBuf,
    state: Mutex<State>,
}

impl Files {
    pub(crate) fn new(directory: PathBuf, rules: Rules) -> Self {
        let state = State {
            rules,
            numbers: BTreeMap::new(),
            next_number: u64::from(INodeNo::ROOT) + 1,
            open: BTreeMap::new(),
            next_open: 1,
        };
        Self {
            directory,
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the rules do to an operation that can only fail or not.
    fn allowed(&self, operation: &str, name: &str) -> Result<(), Errno> {
        match self.lock().rules.fate(operation, name) {
            Some(Action::Error(code)) => Err(Errno::from_i32(code)),
            _ => Ok(()),
        }
    }

    fn attributes(&self, state: &mut State, name: &str) -> io::Result<FileAttr> {
        let metadata = std::fs::symlink_metadata(self.directory.join(name))?;
        let number = state.number_of(name);
        Ok(attributes(number, &metadata))
    }

    fn open_file(&self, name: &str, create: bool) -> io::Result<u64> {
        let path = self.directory.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)?;
        let mut state = self.lock();
        let handle = state.next_open;
        state.next_open += 1;
        let name = name.to_owned();
        state.open.insert(handle, Open { name, file });
        Ok(handle)
    }

    /// The file of a handle, and its present name.
    fn file(&self, handle: FileHandle) -> Result<(String, File), Errno> {
        let state = self.lock();
        let open = state.open.get(&handle.0).ok_or(Errno::EBADF)?;
        let file = open.file.try_clone().map_err(Errno::from)?;
        Ok((open.name.clone(), file))
    }

    fn name_of(&self, number: INodeNo) -> Result<String, Errno> {
        let state = self.lock();
        let mut names = state.numbers.iter();
        let found = names.find(|(_, own)| **own == u64::from(number));
        found.map(|(name, _)| name.clone()).ok_or(Errno::ENOENT)
    }

    fn write_file(&self, handle: FileHandle, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let (name, file) = self.file(handle)?;
        let fate = self.lock().rules.fate("write", &name);
        let mut changed = data.to_vec();
        match fate {
            Some(Action::Error(code)) => return Err(Errno::from_i32(code)),
            Some(Action::Short(bytes)) => changed.truncate(bytes),
            Some(Action::Flip(at)) => {
                if let Some(byte) = changed.get_mut(at as usize) {
                    *byte ^= 1;
                }
            }
            None => {}
        }
        file.write_all_at(&changed, offset).map_err(Errno::from)?;
        Ok(changed.len())
    }

    fn read_file(&self, handle: FileHandle, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
        let (name, file) = self.file(handle)?;
        let fate = self.lock().rules.fate("read", &name);
        // The kernel bounds a request (1 MiB at most).
        let mut data = vec![0; size];
        let bytes = file.read_at(&mut data, offset).map_err(Errno::from)?;
        data.truncate(bytes);
        match fate {
            Some(Action::Error(code)) => return Err(Errno::from_i32(code)),
            Some(Action::Short(bytes)) => data.truncate(bytes),
            Some(Action::Flip(at)) => {
                let position = at
                    .checked_sub(offset)
                    .and_then(|at| data.get_mut(at as usize));
                if let Some(byte) = position {
                    *byte ^= 1;
                }
            }
            None => {}
        }
        Ok(data)
    }
}

impl State {
    fn number_of(&mut self, name: &str) -> u64 {
        let next = self.next_number;
        let number = *self.numbers.entry(name.to_owned()).or_insert(next);
        self.next_number += u64::from(number == next);
        number
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(number) = self.numbers.remove(from) {
            self.numbers.insert(to.to_owned(), number);
        }
        for open in self.open.values_mut().filter(|open| open.name == from) {
            to.clone_into(&mut open.name);
        }
    }
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime()),
        mtime: time(metadata.mtime()),
        ctime: time(metadata.ctime()),
        crtime: UNIX_EPOCH,
        kind: if metadata.is_dir() {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: 1,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A name of this file system; anything else is not there.
fn text(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::ENOENT)
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = text(name)
            .and_then(|name| self.attributes(&mut self.lock(), name).map_err(Errno::from));
        match found {
            Ok(attributes) => reply.entry(&NOT_CACHED, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let number = u64::from(ino);
        let metadata = if ino == INodeNo::ROOT {
            std::fs::metadata(&self.directory).map_err(Errno::from)
        } else if let Some(handle) = fh {
            self.file(handle)
                .and_then(|(_, file)| file.metadata().map_err(Errno::from))
        } else {
            self.name_of(ino)
                .and_then(|name| std::fs::metadata(self.directory.join(name)).map_err(Errno::from))
        };
        match metadata {
            Ok(metadata) => reply.attr(&NOT_CACHED, &attributes(number, &metadata)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.name_of(ino).and_then(|name| {
            let path = self.directory.join(name);
            if let Some(bytes) = size {
                let file = OpenOptions::new().write(true).open(&path);
                file.and_then(|file| file.set_len(bytes))
                    .map_err(Errno::from)?;
            }
            std::fs::metadata(path).map_err(Errno::from)
        });
        match changed {
            Ok(metadata) => reply.attr(&NOT_CACHED, &attributes(u64::from(ino), &metadata)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = text(name).and_then(|name| {
            self.allowed("create", name)?;
            let handle = self.open_file(name, true).map_err(Errno::from)?;
            let attributes = self.attributes(&mut self.lock(), name);
            Ok((handle, attributes.map_err(Errno::from)?))
        });
        match created {
            Ok((handle, attributes)) => reply.created(
                &NOT_CACHED,
                &attributes,
                Generation(0),
                FileHandle(handle),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.name_of(ino).and_then(|name| {
            self.allowed("open", &name)?;
            self.open_file(&name, false).map_err(Errno::from)
        });
        match opened {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_file(fh, offset, size as usize) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_file(fh, offset, data) {
            Ok(bytes) => reply.written(bytes as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.lock().open.remove(&fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // The directory below need not be durable: it is not what is being cut off here.
        let allowed = self
            .file(fh)
            .and_then(|(name, _)| self.allowed("fsync", &name));
        answer(reply, allowed);
    }

    fn fsyncdir(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.allowed("fsyncdir", ""));
    }

    fn fallocate(
        &self,
        _: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.file(fh).and_then(|(name, file)| {
            self.allowed("fallocate", &name)?;
            let bytes = file.metadata().map_err(Errno::from)?.len();
            file.set_len(bytes.max(offset + length))
                .map_err(Errno::from)
        });
        answer(reply, done);
    }

    fn rename(
        &self,
        _: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = text(name).and_then(|from| {
            let to = text(new_name)?;
            self.allowed("rename", from)?;
            let paths = [from, to].map(|name| self.directory.join(name));
            std::fs::rename(&paths[0], &paths[1]).map_err(Errno::from)?;
            self.lock().rename(from, to);
            Ok(())
        });
        answer(reply, done);
    }

    fn unlink(&self, _: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = text(name).and_then(|name| {
            self.allowed("unlink", name)?;
            std::fs::remove_file(self.directory.join(name)).map_err(Errno::from)?;
            self.lock().numbers.remove(name);
            Ok(())
        });
        answer(reply, done);
    }

    fn readdir(
        &self,
        _: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let names = std::fs::read_dir(&self.directory).map(|entries| {
            let names = entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok());
            let mut names: Vec<String> = names.collect();
            names.sort_unstable();
            names
        });
        let names = match names {
            Ok(names) => names,
            Err(error) => return reply.error(error.into()),
        };
        let mut state = self.lock();
        for (position, name) in names.iter().enumerate().skip(offset as usize) {
            let number = INodeNo(state.number_of(name));
            if reply.add(number, position as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}

fn answer(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
