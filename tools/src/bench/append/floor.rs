//! The floor: what any system of three replicas costs at least. Three plain files, each with group commit, an append
//! acknowledged when two have flushed it; no network, no protocol, no log that could be read.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use drave_wal::{BLOCK_BYTES, Blocks};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::bench::raw::{RawFile, RawMode};

const FILES: usize = 3;

/// A file is written around and around.
const FILE_BYTES: u64 = 256 << 20;

/// One group commit.
const GROUP_BYTES_MAX: usize = 512 << 10;

enum News {
    /// So many appends more are flushed in this file, or it has failed.
    Flushed(usize, io::Result<u64>),
    /// An append was handed to all files.
    Started(oneshot::Sender<Result<(), String>>),
}

/// See the module. Dropping it waits for what is being written.
#[derive(Debug)]
pub struct Floor {
    files: Vec<Sender<Bytes>>,
    news: UnboundedSender<News>,
    threads: Vec<JoinHandle<()>>,
}

impl Floor {
    /// Makes the files in `directory` and starts a thread for each. Needs the runtime's context.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let (news, receiver) = unbounded_channel();
        let (mut files, mut threads) = (Vec::new(), Vec::new());
        for number in 0..FILES {
            let path = directory.join(format!("floor-{number}"));
            let direct = RawFile::make(&path, RawMode::DirectDsync, FILE_BYTES);
            let file = match direct {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    RawFile::make(&path, RawMode::BufferedFdatasync, FILE_BYTES)?
                }
                made => made?,
            };
            let (queue, records) = channel();
            let news = news.clone();
            let name = format!("floor-{number}");
            let work = move || commit(number, &file, &records, &news);
            threads.push(thread::Builder::new().name(name).spawn(work)?);
            files.push(queue);
        }
        tokio::spawn(acknowledge(receiver));
        Ok(Self {
            files,
            news,
            threads,
        })
    }

    /// Appends a record; returns when two files have it flushed.
    ///
    /// # Errors
    /// Why a file failed.
    pub async fn append(&self, record: Bytes) -> Result<(), String> {
        let ended = || "a file's thread has ended".to_owned();
        let (sender, receiver) = oneshot::channel();
        // Before the files: what they flush is counted against what was started.
        self.news.send(News::Started(sender)).map_err(|_| ended())?;
        for file in &self.files {
            file.send(record.clone()).map_err(|_| ended())?;
        }
        receiver.await.map_err(|_| ended())?
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.files.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Writes what has come meanwhile, as one write and flush, until nobody appends any more.
fn commit(number: usize, file: &RawFile, records: &Receiver<Bytes>, news: &UnboundedSender<News>) {
    let (mut group, mut offset) = (Vec::with_capacity(2 * GROUP_BYTES_MAX), 0);
    while let Ok(first) = records.recv() {
        group.clear();
        group.extend_from_slice(&first);
        let mut count = 1;
        while group.len() < GROUP_BYTES_MAX
            && let Ok(next) = records.try_recv()
        {
            group.extend_from_slice(&next);
            count += 1;
        }
        let blocks = Blocks::copy_of(&group);
        if offset + blocks.len() as u64 > FILE_BYTES {
            offset = 0;
        }
        let written = file.write(&blocks, offset);
        offset += (blocks.len() as u64).next_multiple_of(BLOCK_BYTES as u64);
        let is_over = written.is_err();
        if news
            .send(News::Flushed(number, written.map(|()| count)))
            .is_err()
            || is_over
        {
            return;
        }
    }
}

/// Answers each append when the second of the files has it.
async fn acknowledge(mut news: UnboundedReceiver<News>) {
    let (mut flushed, mut answered) = ([0; FILES], 0);
    let mut waiting = VecDeque::new();
    while let Some(told) = news.recv().await {
        match told {
            News::Started(answer) => waiting.push_back(answer),
            News::Flushed(number, Ok(count)) => {
                flushed[number] += count;
                let mut sorted = flushed;
                sorted.sort_unstable();
                for answer in waiting.drain(..(sorted[FILES / 2] - answered) as usize) {
                    let _: Result<_, _> = answer.send(Ok(()));
                }
                answered = sorted[FILES / 2];
            }
            News::Flushed(_, Err(error)) => {
                for answer in waiting.drain(..) {
                    let _ = answer.send(Err(error.to_string()));
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_are_acknowledged_once_each() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let floor = Floor::start(directory.path()).unwrap();
            for round in 0..20 {
                let record = Bytes::from(vec![round; 1_000]);
                for _ in 0..50 {
                    floor.append(record.clone()).await.unwrap();
                }
            }
        });
        for number in 0..FILES {
            let content = std::fs::read(directory.path().join(format!("floor-{number}"))).unwrap();
            assert_eq!(content[..1_000], [0; 1_000]);
            assert_eq!(content.len() as u64, FILE_BYTES);
        }
    }

    #[test]
    fn the_second_of_three_answers() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let (news, receiver) = unbounded_channel();
            let (answer, mut answered) = oneshot::channel();
            tokio::spawn(acknowledge(receiver));
            news.send(News::Started(answer)).unwrap();
            news.send(News::Flushed(2, Ok(1))).unwrap();
            tokio::task::yield_now().await;
            assert!(answered.try_recv().is_err(), "one file is no majority");
            news.send(News::Flushed(0, Ok(1))).unwrap();
            assert_eq!(answered.await.unwrap(), Ok(()));
        });
    }
}
