//! A client that insists on one node: it asks it for tails whoever leads and whatever it answers.
//!
//! A client of `drave-client` goes to the leader that it hears of, so a leader that was stopped, and does
//! not know yet that it was replaced, is asked by nobody at the moment that it goes on. This one has asked
//! again and again meanwhile: its requests are the first thing that such a leader meets. It speaks the wire
//! messages itself.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use drave_batch::wire::{
    FRAME_HEADER_BYTES, FrameHeader, HelloAck, LogInfo, LogLookup, Message, MessageKind,
    decode_head, encode_frame,
};
use drave_client::Log;
use drave_net::handshake::Connector;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use super::random::Random;
use super::recorder::Recorder;
use crate::history::{Action, CheckTail, Operation, TailOutcome};

/// Between two requests.
const REQUEST_INTERVAL: Duration = Duration::from_millis(40);

/// Before the node is connected to again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Requests without an answer at most.
const UNANSWERED_MAX: usize = 512;

/// Who insists on whom.
pub(super) struct Insistent<'a> {
    /// The client's number in the history.
    pub(super) number: u64,
    /// The node's HOST:PORT.
    pub(super) address: &'a str,
    pub(super) logs: &'a [Log],
    pub(super) recorder: &'a Recorder,
}

impl Insistent<'_> {
    /// Asks until it is stopped, over as many connections as it takes.
    pub(super) async fn run(&self, random: &mut Random, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                // The sender lives as long as the load; its end is a stop too.
                _ = stopped.wait_for(|stopped| *stopped) => return,
                ended = self.one_connection(random) => {
                    // A node that is dead or cut off is what this is for.
                    if let Err(error) = ended {
                        tracing::debug!(address = self.address, %error, "insisting again");
                    }
                }
            }
            sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn one_connection(&self, random: &mut Random) -> io::Result<()> {
        let mut socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let hello = Connector::client(None, 0).hello();
        send(&mut socket, 0, &hello).await?;
        let (mut from, mut to) = socket.into_split();
        let (header, head) = receive(&mut from).await?;
        decode_head::<HelloAck>(&header, &head).map_err(io::Error::other)?;
        self.ask(&mut from, &mut to, random).await
    }

    /// Until the connection fails.
    async fn ask(
        &self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        random: &mut Random,
    ) -> io::Result<()> {
        let (answers, mut answered) = tokio::sync::mpsc::channel(UNANSWERED_MAX);
        let reading = async {
            loop {
                let answer = receive(from).await?;
                if answers.send(answer).await.is_err() {
                    return Ok(());
                }
            }
        };
        let asking = async {
            let mut unanswered: HashMap<u64, (u64, u64)> = HashMap::new();
            let mut ticks = interval(REQUEST_INTERVAL);
            let mut request_id = 0;
            loop {
                tokio::select! {
                    answer = answered.recv() => {
                        let Some((header, head)) = answer else { return Ok(()) };
                        if let Some((log, invoked_us)) = unanswered.remove(&header.request_id) {
                            self.note(log, invoked_us, &header, &head);
                        }
                    }
                    _ = ticks.tick(), if unanswered.len() < UNANSWERED_MAX => {
                        request_id += 1;
                        let at = random.between(0, self.logs.len() as u64) as usize;
                        let (log, name) = (self.logs[at].id(), self.logs[at].name().to_owned());
                        unanswered.insert(request_id, (log, self.recorder.now_us()));
                        let lookup = LogLookup { consistency: 0, name };
                        send(to, request_id, &lookup).await?;
                    }
                }
            }
        };
        tokio::try_join!(reading, asking).map(|((), ())| ())
    }

    fn note(&self, log: u64, invoked_us: u64, header: &FrameHeader, head: &[u8]) {
        // Anything else is a refusal: the node does not lead, or knows that it may not.
        let outcome = match decode_head::<LogInfo>(header, head) {
            Ok(info) => TailOutcome::Ok {
                tail: info.next_seq,
            },
            Err(_) => TailOutcome::Failed,
        };
        let operation = Operation {
            client: self.number,
            invoked_us,
            completed_us: self.recorder.now_us(),
            log,
            action: Action::CheckTail(CheckTail { outcome }),
        };
        self.recorder.note(operation, None);
    }
}

async fn send<M: Message>(
    to: &mut (impl AsyncWriteExt + Unpin),
    request_id: u64,
    message: &M,
) -> io::Result<()> {
    let mut frame = Vec::new();
    encode_frame(&mut frame, 0, request_id, message, 0);
    to.write_all(&frame).await
}

/// The next frame's header and head; its payload is of no interest.
async fn receive(from: &mut OwnedReadHalf) -> io::Result<(FrameHeader, Vec<u8>)> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    from.read_exact(&mut bytes).await?;
    let header = FrameHeader::decode(&bytes).map_err(io::Error::other)?;
    // The header's checksum and limits hold.
    let mut body = vec![0; header.body_bytes()];
    from.read_exact(&mut body).await?;
    body.truncate(header.head_len.into());
    if header.kind == MessageKind::HelloReject {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok((header, body))
}
