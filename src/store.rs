//! The data directory's identity: which cluster, which node, which incarnation, which founding members.
//!
//! Written once by `format`, read by every start (`docs/format.md`, "Identity file"). It does not hold
//! term or vote, which change: those are in the group's log directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drave_batch::control::{Member, MemberRole, Members, address_error};
use drave_batch::wire::ClusterId;
use drave_batch::{DecodeError, Reader, Writer, checksum};
use thiserror::Error;

use crate::replica::HardStateRecord;

/// The version of the data directory's layout.
pub const STORE_VERSION: u32 = 1;

const IDENTITY_MAGIC: u64 = u64::from_le_bytes(*b"DRAVESTO");
const IDENTITY_FILE: &str = "IDENTITY";
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

/// Between two attempts to lock a directory.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What `format` is asked to make.
#[derive(Clone, Debug)]
pub struct FormatRequest {
    /// The directory; created when absent, refused when not empty.
    pub data_dir: PathBuf,
    /// The cluster's name; see [`ClusterId`].
    pub cluster_id: String,
    /// This node's id, 1 or higher, one of the members.
    pub node_id: u64,
    /// The founding members: node id and HOST:PORT. The same list on every node. A node that joins names
    /// itself alone.
    pub members: Vec<(u64, String)>,
    /// It joins a cluster that exists: it has no members until that cluster adds it.
    pub join: bool,
}

/// Who a data directory belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreIdentity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node.
    pub node_id: u64,
    /// Made at random when the directory was formatted: tells a wiped or copied store from its
    /// predecessor.
    pub incarnation: u128,
    /// The founding members; none in the store of a node that was made to join.
    pub members: Members,
    /// Where this node listens: HOST:PORT.
    pub address: String,
}

/// Why a data directory cannot be made or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// `format` found something there.
    #[error("{} is not empty (it holds {found})", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One name in it.
        found: String,
    },
    /// `start` found no identity.
    #[error("{} is not formatted: it has no {IDENTITY_FILE} file", path.display())]
    Unformatted {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Made by another version.
    #[error("{}: format version {found}, this program reads version {STORE_VERSION}", path.display())]
    Version {
        /// The identity file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// Belongs to another cluster than the configuration says.
    #[error("{} belongs to cluster {found}, the configuration says {expected}", path.display())]
    WrongCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster the configuration names.
        expected: String,
        /// The cluster the directory belongs to.
        found: String,
    },
    /// The identity file is damaged.
    #[error("{}: {source}", path.display())]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// Part of the directory is gone or belongs to another store.
    #[error("{}: {reason}", path.display())]
    Inconsistent {
        /// The part.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

impl StoreError {
    /// The exit code of a program that ends for this reason.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Request(_) => 2,
            Self::Unformatted { .. } => 3,
            Self::NotEmpty { .. } | Self::InUse { .. } => 4,
            Self::Damaged { .. } | Self::Inconsistent { .. } => 6,
            Self::Version { .. } | Self::WrongCluster { .. } => 7,
            Self::Io { .. } => 1,
        }
    }

    /// What it did to the directory.
    #[must_use]
    pub fn effect(&self) -> &'static str {
        "the directory was left as it was"
    }

    /// What to do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotEmpty { .. } => {
                "give an empty or new directory, or remove this one if its data is not needed"
            }
            Self::Unformatted { .. } => "check the path and its mount, or run `drave format` first",
            Self::InUse { .. } => "stop the other node, or give this one a directory of its own",
            Self::Version { .. } => "start it with the version of drave that wrote it",
            Self::WrongCluster { .. } => {
                "check `[cluster] id` in the configuration, and which directory is mounted here"
            }
            Self::Damaged { .. } | Self::Inconsistent { .. } => {
                "do not start it under its old identity: format a new directory and let the node join anew"
            }
            Self::Request(_) => "see `drave format --help`",
            Self::Io { .. } => "check that the path exists, its owner and its free space",
        }
    }
}

/// The directory of a group's log.
#[must_use]
pub fn group_dir(data_dir: &Path, group_id: u32) -> PathBuf {
    data_dir.join(format!("group-{group_id}"))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    |source| StoreError::Io {
        path: path.to_owned(),
        source,
    }
}

fn checked_members(request: &FormatRequest) -> Result<Members, StoreError> {
    let mut list: Vec<&(u64, String)> = request.members.iter().collect();
    list.sort_by_key(|member| member.0);
    let mut members: Vec<Member> = Vec::new();
    for (node_id, address) in list {
        if *node_id == 0 {
            return Err(StoreError::Request("node ids start at 1".to_owned()));
        }
        if members.last().is_some_and(|last| last.node_id == *node_id) {
            return Err(StoreError::Request(format!(
                "node {node_id} is given twice"
            )));
        }
        if members.iter().any(|member| member.address == *address) {
            return Err(StoreError::Request(format!(
                "address {address} is given twice"
            )));
        }
        if let Some(reason) = address_error(address) {
            return Err(StoreError::Request(format!(
                "member {node_id}: {reason}, {address:?} is none"
            )));
        }
        members.push(Member {
            node_id: *node_id,
            role: Some(MemberRole::Voter),
            outgoing_voter: false,
            incarnation: 0,
            address: address.clone(),
        });
    }
    if members.len() > drave_batch::control::MEMBERS_MAX {
        return Err(StoreError::Request(format!(
            "{} members, at most {} are possible",
            members.len(),
            drave_batch::control::MEMBERS_MAX
        )));
    }
    if !members
        .iter()
        .any(|member| member.node_id == request.node_id)
    {
        return Err(StoreError::Request(format!(
            "node {} is not among the members: give its own --member line too",
            request.node_id
        )));
    }
    if request.join && members.len() != 1 {
        return Err(StoreError::Request(format!(
            "a node that joins names itself alone, and {} members are given: it learns of the others",
            members.len()
        )));
    }
    Ok(Members::first(members))
}

/// Makes a data directory: identity, fresh incarnation, an empty log for group 0. Durable on return.
///
/// # Errors
/// [`StoreError`]; a directory that was not empty is left as it was.
pub fn format_store(request: &FormatRequest) -> Result<StoreIdentity, StoreError> {
    let cluster_id = ClusterId::new(&request.cluster_id)
        .map_err(|error| StoreError::Request(format!("{:?}: {error}", request.cluster_id)))?;
    let members = checked_members(request)?;
    let dir = &request.data_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error(dir))?;
    if let Some(entry) = fs::read_dir(dir).map_err(io_error(dir))?.next() {
        let found = entry
            .map_err(io_error(dir))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        return Err(StoreError::NotEmpty {
            path: dir.clone(),
            found,
        });
    }
    let mut incarnation = [0; 16];
    fill_random(&mut incarnation).map_err(io_error(dir))?;
    let identity = StoreIdentity {
        cluster_id,
        node_id: request.node_id,
        incarnation: u128::from_le_bytes(incarnation),
        address: own_address(&members, request.node_id),
        members: if request.join {
            Members::default()
        } else {
            members
        },
    };
    create_group(dir, &identity)?;
    write_identity(dir, &identity)?;
    Ok(identity)
}

fn own_address(members: &Members, node_id: u64) -> String {
    let own = members
        .members
        .iter()
        .find(|member| member.node_id == node_id);
    own.map_or(String::new(), |member| member.address.clone())
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// The group's log exists from the first day, with a hard state: a start that finds none knows that it
/// was lost and does not take the node for a new one, which would forget its votes.
fn create_group(dir: &Path, identity: &StoreIdentity) -> Result<(), StoreError> {
    let path = group_dir(dir, 0);
    let inconsistent = |reason: String| StoreError::Inconsistent {
        path: path.clone(),
        reason,
    };
    let options = drave_wal::Options {
        store_id: identity.incarnation,
        engine: drave_wal::EngineChoice::Posix,
        // As small as can be: what the node's configuration asks for is made at its first start.
        segment_bytes: 0,
        prewrite: false,
        ..drave_wal::Options::default()
    };
    let mut wal =
        drave_wal::Wal::open(&path, options).map_err(|error| inconsistent(error.to_string()))?;
    wal.write_meta(&HardStateRecord::default().encode())
        .map_err(|error| inconsistent(error.to_string()))?;
    let mut events = Vec::new();
    loop {
        wal.submit();
        wal.poll(&mut events);
        for event in events.drain(..) {
            match event {
                drave_wal::Event::MetaDurable(_) => return Ok(()),
                drave_wal::Event::Failed(reason) => return Err(inconsistent(reason.to_string())),
                _ => {}
            }
        }
        wal.wait();
    }
}

fn encode_identity(identity: &StoreIdentity) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.u64(IDENTITY_MAGIC);
    writer.u32(STORE_VERSION);
    writer.u32(0);
    writer.u64(identity.node_id);
    writer.u128(identity.incarnation);
    writer.text(identity.cluster_id.as_str());
    writer.text(&identity.address);
    writer.bytes(&identity.members.encode());
    let crc = checksum(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode_identity(path: &Path, bytes: &[u8]) -> Result<StoreIdentity, StoreError> {
    let damaged = |source| StoreError::Damaged {
        path: path.to_owned(),
        source,
    };
    let mut fields = Reader::new("identity", bytes);
    let magic = fields.u64().map_err(damaged)?;
    if magic != IDENTITY_MAGIC {
        let expected = IDENTITY_MAGIC;
        return Err(damaged(DecodeError::Magic {
            what: "identity",
            expected,
            found: magic,
        }));
    }
    let version = fields.u32().map_err(damaged)?;
    if version != STORE_VERSION {
        return Err(StoreError::Version {
            path: path.to_owned(),
            found: version,
        });
    }
    let body = bytes
        .get(..bytes.len().saturating_sub(4))
        .unwrap_or_default();
    let mut stored = Reader::new("identity", &bytes[body.len()..]);
    let expected = stored.u32().map_err(damaged)?;
    let found = checksum(body);
    if expected != found {
        return Err(damaged(DecodeError::Checksum {
            what: "identity",
            expected,
            found,
        }));
    }
    let mut fields = Reader::new("identity", &body[12..]);
    let mut read = || -> Result<StoreIdentity, DecodeError> {
        fields.u32()?;
        let node_id = fields.u64()?;
        let incarnation = fields.u128()?;
        let cluster_id = ClusterId::new(fields.text()?)?;
        let address = fields.text()?.to_owned();
        let rest = fields.remaining();
        let members = Members::decode(fields.bytes(rest)?)?;
        Ok(StoreIdentity {
            cluster_id,
            node_id,
            incarnation,
            members,
            address,
        })
    };
    read().map_err(damaged)
}

fn write_identity(dir: &Path, identity: &StoreIdentity) -> Result<(), StoreError> {
    let temporary = dir.join("IDENTITY.tmp");
    let path = dir.join(IDENTITY_FILE);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&encode_identity(identity))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()?;
        match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    };
    write().map_err(io_error(&path))
}

/// A data directory that this process holds alone.
#[derive(Debug)]
pub struct Store {
    /// Who it belongs to.
    pub identity: StoreIdentity,
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Takes a formatted directory; nobody else can until this value is dropped. Waits up to `patience`
    /// for a process that is just ending.
    ///
    /// # Errors
    /// [`StoreError`]; nothing in the directory is changed but the lock file.
    pub fn open(
        dir: &Path,
        expected_cluster: Option<&str>,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        let identity = Self::read_identity(dir)?;
        if let Some(expected) = expected_cluster
            && expected != identity.cluster_id.as_str()
        {
            return Err(StoreError::WrongCluster {
                path: dir.to_owned(),
                expected: expected.to_owned(),
                found: identity.cluster_id.to_string(),
            });
        }
        let lock = lock(dir, patience)?;
        let group = group_dir(dir, 0);
        if !group.is_dir() {
            let reason = "the group's log is missing, though the node was formatted".to_owned();
            return Err(StoreError::Inconsistent {
                path: group,
                reason,
            });
        }
        Ok(Self {
            identity,
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// Who a formatted directory belongs to. Also while somebody holds it: it never changes.
    ///
    /// # Errors
    /// [`StoreError`] when the directory is not formatted, or what it says of itself is damaged.
    pub fn read_identity(dir: &Path) -> Result<StoreIdentity, StoreError> {
        let path = dir.join(IDENTITY_FILE);
        let meta = fs::metadata(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::Unformatted {
                path: dir.to_owned(),
            },
            _ => StoreError::Io {
                path: path.clone(),
                source,
            },
        })?;
        if meta.len() > IDENTITY_BYTES_MAX {
            let (limit, found) = (IDENTITY_BYTES_MAX, meta.len());
            let source = DecodeError::TooLarge {
                what: "identity bytes",
                limit,
                found,
            };
            return Err(StoreError::Damaged { path, source });
        }
        decode_identity(&path, &fs::read(&path).map_err(io_error(&path))?)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Takes the directory's lock. A process that was killed may hold its files for a moment longer, while
/// the kernel ends what its ring had in flight; so it is asked for again until `patience` is over.
fn lock(dir: &Path, patience: Duration) -> Result<File, StoreError> {
    let path = dir.join("LOCK");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error(&path))?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: dir.to_owned(),
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(StoreError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests;
