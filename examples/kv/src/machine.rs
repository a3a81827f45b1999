//! The keys, what commands do to them, and how they lie in a snapshot.
//!
//! ```text
//! 0   [u8; 8]  "DRAVEKV1"
//! 8   u64      keys, then each: u16 bytes of the key, u32 bytes of the value, u64 version, key, value
//!     u64      ids, oldest first, then each: [u8; 16] id, u8 answer, u64 and u64 its numbers
//! ```
//!
//! Little endian. Maps are persistent: taking a snapshot is a clone of their roots.

use std::io::{self, Read, Write};
use std::ops::Bound;

use bytes::Bytes;
use drave_embed::{Command, RestoreError, StateMachine};
use rpds::{HashTrieMapSync, QueueSync, RedBlackTreeMapSync};

use crate::command::{
    Answer, Change, Condition, KEY_BYTES_MAX, KvCommand, RequestId, VALUE_BYTES_MAX,
};

/// Requests whose answers are remembered; an older one that is retried is done again.
pub const IDS_MAX: usize = 100_000;

/// Bytes of keys and values at most. The same on every node: what is refused is part of the order of commands.
pub const STATE_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"DRAVEKV1";

/// A key's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The number of the command that wrote it.
    pub version: u64,
    /// What it wrote.
    pub value: Bytes,
}

/// All keys, and the answers of late requests.
#[derive(Clone, Debug)]
pub struct Kv {
    entries: RedBlackTreeMapSync<String, Entry>,
    bytes: u64,
    answers: HashTrieMapSync<RequestId, Answer>,
    ids: QueueSync<RequestId>,
}

impl Default for Kv {
    fn default() -> Self {
        Self {
            entries: RedBlackTreeMapSync::new_sync(),
            bytes: 0,
            answers: HashTrieMapSync::new_sync(),
            ids: QueueSync::new_sync(),
        }
    }
}

impl Kv {
    /// A key's value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The keys behind `after` that begin with `prefix`, in order.
    pub fn keys<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let from = if after < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(after)
        };
        let behind = self.entries.range::<str, _>((from, Bound::Unbounded));
        behind
            .map(|(key, entry)| (key.as_str(), entry))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn change(&mut self, seq: u64, command: &KvCommand<'_>) -> Answer {
        let found = self.entries.get(command.key);
        let replaced = found.map(|entry| entry.version);
        let holds = match command.condition {
            Condition::None => true,
            Condition::Absent => replaced.is_none(),
            Condition::Version(version) => replaced == Some(version),
        };
        if !holds {
            return Answer::Conflict { found: replaced };
        }
        let freed = found.map_or(0, |entry| size(command.key, &entry.value));
        match command.change {
            Change::Put(value) => {
                let bytes = self.bytes - freed + size(command.key, value);
                if bytes > STATE_BYTES_MAX {
                    return Answer::Full {
                        limit: STATE_BYTES_MAX,
                    };
                }
                self.bytes = bytes;
                let entry = Entry {
                    version: seq,
                    value: Bytes::copy_from_slice(value),
                };
                self.entries.insert_mut(command.key.to_owned(), entry);
                Answer::Put {
                    version: seq,
                    replaced,
                }
            }
            Change::Delete => {
                self.bytes -= freed;
                self.entries.remove_mut(command.key);
                Answer::Deleted { replaced }
            }
        }
    }

    fn remember(&mut self, id: RequestId, answer: Answer) {
        if self.ids.len() >= IDS_MAX
            && let Some(oldest) = self.ids.peek().copied()
        {
            self.answers.remove_mut(&oldest);
            self.ids.dequeue_mut();
        }
        self.ids.enqueue_mut(id);
        self.answers.insert_mut(id, answer);
    }
}

fn size(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

impl StateMachine for Kv {
    type Answer = Answer;
    type Snapshot = Self;

    fn apply(&mut self, command: Command<'_>) -> Answer {
        let Ok(decoded) = KvCommand::decode(command.payload) else {
            return Answer::NotUnderstood;
        };
        if let Some(answer) = decoded.id.and_then(|id| self.answers.get(&id)) {
            return *answer;
        }
        let answer = self.change(command.seq, &decoded);
        if let Some(id) = decoded.id {
            self.remember(id, answer);
        }
        answer
    }

    fn snapshot(&self) -> Self {
        self.clone()
    }

    fn write(snapshot: &Self, file: &mut dyn Write) -> io::Result<()> {
        file.write_all(MAGIC)?;
        file.write_all(&(snapshot.entries.size() as u64).to_le_bytes())?;
        for (key, entry) in &snapshot.entries {
            let key_bytes = u16::try_from(key.len()).expect("keys are short");
            let value_bytes = u32::try_from(entry.value.len()).expect("values are short");
            file.write_all(&key_bytes.to_le_bytes())?;
            file.write_all(&value_bytes.to_le_bytes())?;
            file.write_all(&entry.version.to_le_bytes())?;
            file.write_all(key.as_bytes())?;
            file.write_all(&entry.value)?;
        }
        file.write_all(&(snapshot.ids.len() as u64).to_le_bytes())?;
        for id in &snapshot.ids {
            let (kind, numbers) = flat(snapshot.answers[id]);
            file.write_all(id)?;
            file.write_all(&[kind])?;
            for number in numbers {
                file.write_all(&number.to_le_bytes())?;
            }
        }
        Ok(())
    }

    fn restore(&mut self, file: &mut dyn Read) -> Result<(), RestoreError> {
        let magic = read::<8>(file)?;
        if magic != *MAGIC {
            return Err(content(format!(
                "begins with {magic:02x?}, expected {MAGIC:02x?}"
            )));
        }
        let mut restored = Self::default();
        for _ in 0..u64::from_le_bytes(read(file)?) {
            let key_bytes = usize::from(u16::from_le_bytes(read(file)?));
            let value_bytes = u32::from_le_bytes(read(file)?) as usize;
            let version = u64::from_le_bytes(read(file)?);
            if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
                return Err(content(format!(
                    "a key of {key_bytes} and a value of {value_bytes} bytes"
                )));
            }
            let mut key = vec![0; key_bytes];
            file.read_exact(&mut key)?;
            let key = String::from_utf8(key).map_err(|error| content(error.to_string()))?;
            let mut value = vec![0; value_bytes];
            file.read_exact(&mut value)?;
            restored.bytes += size(&key, &value);
            let value = Bytes::from(value);
            restored.entries.insert_mut(key, Entry { version, value });
        }
        for _ in 0..u64::from_le_bytes(read(file)?) {
            let id = read(file)?;
            let [kind] = read(file)?;
            let numbers = [
                u64::from_le_bytes(read(file)?),
                u64::from_le_bytes(read(file)?),
            ];
            let answer = round(kind, numbers);
            let answer = answer.ok_or_else(|| content(format!("an answer of kind {kind}")))?;
            restored.remember(id, answer);
        }
        *self = restored;
        Ok(())
    }
}

fn content(what: String) -> RestoreError {
    RestoreError::Content(what)
}

fn read<const N: usize>(file: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// An answer as kind and numbers; no version stands for none, since no command has it.
fn flat(answer: Answer) -> (u8, [u64; 2]) {
    let version = |version: Option<u64>| version.unwrap_or(u64::MAX);
    match answer {
        Answer::Put {
            version: new,
            replaced,
        } => (1, [new, version(replaced)]),
        Answer::Deleted { replaced } => (2, [0, version(replaced)]),
        Answer::Conflict { found } => (3, [0, version(found)]),
        Answer::Full { limit } => (4, [limit, 0]),
        Answer::NotUnderstood => (5, [0, 0]),
    }
}

fn round(kind: u8, [first, second]: [u64; 2]) -> Option<Answer> {
    let version = Some(second).filter(|version| *version != u64::MAX);
    Some(match kind {
        1 => Answer::Put {
            version: first,
            replaced: version,
        },
        2 => Answer::Deleted { replaced: version },
        3 => Answer::Conflict { found: version },
        4 => Answer::Full { limit: first },
        5 => Answer::NotUnderstood,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn apply(kv: &mut Kv, seq: u64, command: &KvCommand<'_>) -> Answer {
        kv.apply(Command {
            seq,
            append_time_us: seq,
            payload: &command.encode().unwrap(),
        })
    }

    fn put<'a>(key: &'a str, value: &'a [u8], condition: Condition) -> KvCommand<'a> {
        KvCommand {
            id: None,
            condition,
            key,
            change: Change::Put(value),
        }
    }

    #[test]
    fn conditions_hold_or_nothing_is_done() {
        let mut kv = Kv::default();
        let answer = apply(&mut kv, 0, &put("a", b"1", Condition::Absent));
        assert_eq!(
            answer,
            Answer::Put {
                version: 0,
                replaced: None
            }
        );
        let conflict = Answer::Conflict { found: Some(0) };
        assert_eq!(
            apply(&mut kv, 1, &put("a", b"2", Condition::Absent)),
            conflict
        );
        assert_eq!(
            apply(&mut kv, 2, &put("a", b"2", Condition::Version(1))),
            conflict
        );
        let answer = apply(&mut kv, 3, &put("a", b"22", Condition::Version(0)));
        assert_eq!(
            answer,
            Answer::Put {
                version: 3,
                replaced: Some(0)
            }
        );
        assert_eq!(
            (kv.get("a").unwrap().value.as_ref(), kv.bytes()),
            (&b"22"[..], 3)
        );
        let delete = KvCommand {
            change: Change::Delete,
            ..put("a", b"", Condition::Version(3))
        };
        assert_eq!(
            apply(&mut kv, 4, &delete),
            Answer::Deleted { replaced: Some(3) }
        );
        assert_eq!(apply(&mut kv, 5, &delete), Answer::Conflict { found: None });
        assert_eq!((kv.len(), kv.bytes()), (0, 0));
    }

    #[test]
    fn a_request_is_done_once_and_its_answer_given_again() {
        let mut kv = Kv::default();
        let first = KvCommand {
            id: Some([1; 16]),
            ..put("a", b"1", Condition::None)
        };
        let answer = apply(&mut kv, 0, &first);
        apply(&mut kv, 1, &put("a", b"2", Condition::None));
        assert_eq!(apply(&mut kv, 2, &first), answer);
        assert_eq!(kv.get("a").unwrap().version, 1);
    }

    #[test]
    fn only_so_many_requests_are_remembered() {
        let mut kv = Kv::default();
        for number in 0..=IDS_MAX as u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            apply(
                &mut kv,
                number,
                &KvCommand {
                    id: Some(id),
                    ..put("a", b"1", Condition::None)
                },
            );
        }
        assert_eq!((kv.ids.len(), kv.answers.size()), (IDS_MAX, IDS_MAX));
        assert!(!kv.answers.contains_key(&[0; 16]));
    }

    #[test]
    fn what_is_no_command_changes_nothing() {
        let mut kv = Kv::default();
        let command = Command {
            seq: 0,
            append_time_us: 0,
            payload: b"?",
        };
        assert_eq!(kv.apply(command), Answer::NotUnderstood);
        assert!(kv.is_empty());
    }

    #[test]
    fn keys_are_listed_by_prefix_and_place() {
        let mut kv = Kv::default();
        for (seq, key) in ["a", "b/1", "b/2", "b/3", "c"].into_iter().enumerate() {
            apply(&mut kv, seq as u64, &put(key, b"", Condition::None));
        }
        let keys = |prefix, after| {
            kv.keys(prefix, after)
                .map(|(key, _)| key.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(keys("b/", ""), ["b/1", "b/2", "b/3"]);
        assert_eq!(keys("b/", "b/1"), ["b/2", "b/3"]);
        assert_eq!(keys("", "b/3"), ["c"]);
        assert_eq!(keys("d", ""), [""; 0]);
    }

    fn restored(file: &[u8]) -> Result<Kv, RestoreError> {
        let mut kv = Kv::default();
        kv.restore(&mut &file[..]).map(|()| kv)
    }

    #[test]
    fn a_snapshot_that_is_none_is_refused() {
        let mut file = Vec::new();
        let mut kv = Kv::default();
        apply(
            &mut kv,
            0,
            &KvCommand {
                id: Some([1; 16]),
                ..put("a", b"1", Condition::None)
            },
        );
        Kv::write(&kv, &mut file).unwrap();
        for cut in 0..file.len() {
            assert!(
                restored(&file[..cut]).is_err(),
                "{cut} bytes of {}",
                file.len()
            );
        }
        for (at, byte) in [
            (0, 0),
            (17, 0xFF),
            (20, 0xFF),
            (30, 0xFF),
            (file.len() - 17, 9),
        ] {
            let mut file = file.clone();
            file[at] = byte;
            assert!(restored(&file).is_err(), "byte {at} of {file:02x?}");
        }
    }

    proptest! {
        /// Against a plain map, with a snapshot restored in the middle.
        #[test]
        fn it_is_a_map(
            commands in prop::collection::vec((0u8..4, 0u8..3, any::<Option<u8>>(), 0u8..8), 1..60),
            restore_at in 0usize..60,
        ) {
            let mut kv = Kv::default();
            let mut model: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
            let mut answered: BTreeMap<RequestId, Answer> = BTreeMap::new();
            for (seq, (key, condition, value, id)) in commands.into_iter().enumerate() {
                if seq == restore_at {
                    let mut file = Vec::new();
                    Kv::write(&kv.snapshot(), &mut file).unwrap();
                    kv = restored(&file).unwrap();
                }
                let seq = seq as u64;
                let key = format!("key {key}");
                let before = model.get(&key).map(|(version, _)| *version);
                let condition = match condition {
                    0 => Condition::None,
                    1 => Condition::Absent,
                    _ => Condition::Version(before.unwrap_or(7)),
                };
                // Some requests have an id, and some of those are retries of others.
                let id = (id < 4).then_some([id; 16]);
                let value = value.map(|byte| vec![byte; 3]);
                let change = value.as_deref().map_or(Change::Delete, Change::Put);
                let command = KvCommand { id, condition, key: &key, change };
                let answer = apply(&mut kv, seq, &command);
                let holds = match condition {
                    Condition::None => true,
                    Condition::Absent => before.is_none(),
                    Condition::Version(_) => before.is_some(),
                };
                let expected = match (id.and_then(|id| answered.get(&id)), &value) {
                    (Some(first), _) => *first,
                    _ if !holds => Answer::Conflict { found: before },
                    (None, Some(value)) => {
                        model.insert(key, (seq, value.clone()));
                        Answer::Put { version: seq, replaced: before }
                    }
                    (None, None) => {
                        model.remove(&key);
                        Answer::Deleted { replaced: before }
                    }
                };
                prop_assert_eq!(answer, expected);
                if let Some(id) = id {
                    answered.entry(id).or_insert(answer);
                }
            }
            let held: BTreeMap<String, (u64, Vec<u8>)> = kv
                .keys("", "")
                .map(|(key, entry)| (key.to_owned(), (entry.version, entry.value.to_vec())))
                .collect();
            prop_assert_eq!(&held, &model);
            let bytes: usize = model.iter().map(|(key, (_, value))| key.len() + value.len()).sum();
            prop_assert_eq!(kv.bytes(), bytes as u64);
        }
    }
}
