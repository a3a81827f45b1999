//! Redis with two replicas: `XADD`, acknowledged by `WAIT 1`, over connections that take what has come in one write.
//!
//! Requests and answers are RESP 2. All appends that wait when a connection is free go together, with one `WAIT` behind
//! them: what a client that wants throughput does.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::PeerError;

const STREAM: &str = "bench";

/// Answers are short; more is not read.
const LINE_BYTES_MAX: u64 = 4_096;

/// Appends that go together at most.
const TOGETHER_MAX: usize = 512;

/// How long a write may take to reach a replica's disk.
const WAIT_MS: u32 = 30_000;

type Answer = oneshot::Sender<Result<(), PeerError>>;

/// Connections to the first server.
#[derive(Debug)]
pub struct Redis {
    address: String,
    queues: Vec<mpsc::UnboundedSender<(Vec<u8>, Answer)>>,
}

impl Redis {
    /// Opens connections, each with a task of its own.
    ///
    /// # Errors
    /// [`PeerError`]
    pub async fn connect(address: &str, connections: usize) -> Result<Self, PeerError> {
        let mut queues = Vec::with_capacity(connections);
        for _ in 0..connections {
            let connection = Connection::open(address).await?;
            let (queue, receiver) = mpsc::unbounded_channel();
            tokio::spawn(serve(connection, receiver));
            queues.push(queue);
        }
        Ok(Self {
            address: address.to_owned(),
            queues,
        })
    }

    /// Appends a record to the stream; see [`super::Peer::append`].
    ///
    /// # Errors
    /// [`PeerError`]
    pub async fn append(&self, number: u64, record: Vec<u8>) -> Result<(), PeerError> {
        let queue = &self.queues[(number % self.queues.len() as u64) as usize];
        let (sender, receiver) = oneshot::channel();
        let closed = || PeerError::Io(io::ErrorKind::BrokenPipe.into());
        queue.send((record, sender)).map_err(|_| closed())?;
        receiver.await.map_err(|_| closed())?
    }

    /// The stream's length.
    ///
    /// # Errors
    /// [`PeerError`]
    pub async fn count(&self) -> Result<u64, PeerError> {
        let mut connection = Connection::open(&self.address).await?;
        let mut request = Vec::new();
        command(&mut request, &[b"XLEN", STREAM.as_bytes()]);
        connection.stream.get_mut().write_all(&request).await?;
        connection.number().await
    }
}

async fn serve(mut connection: Connection, mut queue: mpsc::UnboundedReceiver<(Vec<u8>, Answer)>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, TOGETHER_MAX).await > 0 {
        let (records, answers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
        let results = connection.append(&records).await;
        match results {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    // Who does not listen any more does not want to know.
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                let message = error.to_string();
                for answer in answers {
                    let _ = answer.send(Err(PeerError::Refused(message.clone())));
                }
                return;
            }
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    async fn open(address: &str) -> Result<Self, PeerError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Appends records and waits until a replica has flushed them.
    async fn append(
        &mut self,
        records: &[Vec<u8>],
    ) -> Result<Vec<Result<(), PeerError>>, PeerError> {
        let mut request = Vec::new();
        for record in records {
            command(
                &mut request,
                &[b"XADD", STREAM.as_bytes(), b"*", b"r", record],
            );
        }
        let wait_ms = WAIT_MS.to_string();
        command(&mut request, &[b"WAIT", b"1", wait_ms.as_bytes()]);
        self.stream.get_mut().write_all(&request).await?;
        let mut results = Vec::with_capacity(records.len());
        for _ in records {
            results.push(match self.answer().await {
                Err(PeerError::Refused(message)) => Err(PeerError::Refused(message)),
                answer => answer.map(drop),
            });
        }
        match self.number().await? {
            0 => Err(PeerError::Refused(format!(
                "no replica within {wait_ms} ms"
            ))),
            _ => Ok(results),
        }
    }

    /// An answer that is a string, simple or not.
    async fn answer(&mut self) -> Result<String, PeerError> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        match kind {
            "+" => Ok(rest.to_owned()),
            "-" => Err(PeerError::Refused(rest.to_owned())),
            "$" => {
                let bytes: u64 = rest.parse().map_err(|_| malformed(&line))?;
                if bytes > LINE_BYTES_MAX {
                    return Err(malformed(&line));
                }
                let mut content = vec![0; bytes as usize + 2];
                self.stream.read_exact(&mut content).await?;
                content.truncate(bytes as usize);
                String::from_utf8(content).map_err(|_| malformed(&line))
            }
            _ => Err(malformed(&line)),
        }
    }

    async fn number(&mut self) -> Result<u64, PeerError> {
        let line = self.line().await?;
        if let Some(message) = line.strip_prefix('-') {
            return Err(PeerError::Refused(message.to_owned()));
        }
        let number = line.strip_prefix(':').and_then(|text| text.parse().ok());
        number.ok_or_else(|| malformed(&line))
    }

    async fn line(&mut self) -> Result<String, PeerError> {
        let mut line = String::new();
        let mut bounded = (&mut self.stream).take(LINE_BYTES_MAX);
        bounded.read_line(&mut line).await?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None if line.is_empty() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            None => Err(malformed(&line)),
        }
    }
}

fn malformed(line: &str) -> PeerError {
    let message = format!("not an answer that was expected: {line:?}");
    io::Error::new(io::ErrorKind::InvalidData, message).into()
}

/// Adds a command to a request.
fn command(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}
