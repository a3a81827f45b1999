//! A frame-aware proxy between nodes: delays, reorders and doubles whole frames.
//!
//! One listening port per directed pair of nodes. The handshake passes as it is; from then on each frame
//! gets a time to be passed on, drawn from the link's own seed. A frame that is held back does not hold
//! back those behind it: they overtake. Nothing is lost and nothing is changed, so everything that a node
//! receives was sent to it. No byte of a client passes here, and nothing of this is in the product's path.

mod schedule;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use drave_batch::wire::{FRAME_HEADER_BYTES, FrameHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use self::schedule::{Rates, Schedule};
use super::network::{Redirect, alias_host};
use super::plan::Link;
use super::random::Random;
use crate::connect;
use crate::errors::CliError;
use crate::exit::Exit;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that wait in one direction of one connection; beyond it nothing more is read.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Frames on their way from the reading to the writing half.
const FRAMES_MAX: usize = 1024;

/// What was done to frames so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Disturbed {
    /// Frames passed on, copies not counted.
    pub frames: u64,
    /// Of them held back, in order with those behind.
    pub delayed: u64,
    /// Of them held back and overtaken.
    pub overtaken: u64,
    /// Of them passed on twice.
    pub doubled: u64,
    /// Connections taken.
    pub connections: u64,
    /// Connections ended because what came was no frame.
    pub malformed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    frames: AtomicU64,
    delayed: AtomicU64,
    overtaken: AtomicU64,
    doubled: AtomicU64,
    connections: AtomicU64,
    malformed: AtomicU64,
    /// Frames pass as they come.
    calm: AtomicBool,
}

/// A pair of nodes and the port that the one calls the other at.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Who calls whom.
    pub link: Link,
    /// Where the called node listens.
    pub to: SocketAddr,
}

/// The proxy's thread; it ends with the process.
pub struct Proxy {
    counters: Arc<Counters>,
    redirects: Vec<Redirect>,
    _thread: JoinHandle<()>,
}

impl Proxy {
    /// Listens for every route and passes frames on from now on.
    ///
    /// # Errors
    /// [`CliError`] when there are no ports or no thread to be had.
    pub fn start(routes: &[Route], seed: u64) -> Result<Self, CliError> {
        let failed = |error: io::Error| {
            CliError::new(Exit::Failure, "the proxy cannot start").why(error.to_string())
        };
        let counters = Arc::new(Counters::default());
        let mut random = Random::new(seed);
        let mut redirects = Vec::new();
        let mut listeners = Vec::new();
        for route in routes {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            redirects.push(Redirect {
                link: route.link,
                port: route.to.port(),
                to_port: listener.local_addr().map_err(failed)?.port(),
            });
            listeners.push((*route, listener, random.fork()));
        }
        let runtime = connect::runtime()?;
        let shared = Arc::clone(&counters);
        let thread = std::thread::Builder::new().name("proxy".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(async {
                for (route, listener, random) in listeners {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => {
                            tokio::spawn(accept(route, listener, random, Arc::clone(&shared)));
                        }
                        // Nobody is let through then, and the cluster does not come up.
                        Err(error) => eprintln!("proxy: {error}"),
                    }
                }
                std::future::pending::<()>().await;
            });
        });
        Ok(Self {
            counters,
            redirects,
            _thread: thread.map_err(failed)?,
        })
    }

    /// What the network must do so that the nodes' connections come here.
    #[must_use]
    pub fn redirects(&self) -> &[Redirect] {
        &self.redirects
    }

    /// With `calm`, frames pass as they come.
    pub fn set_calm(&self, calm: bool) {
        self.counters.calm.store(calm, Ordering::Relaxed);
    }

    /// What was done so far.
    #[must_use]
    pub fn disturbed(&self) -> Disturbed {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Disturbed {
            frames: read(&self.counters.frames),
            delayed: read(&self.counters.delayed),
            overtaken: read(&self.counters.overtaken),
            doubled: read(&self.counters.doubled),
            connections: read(&self.counters.connections),
            malformed: read(&self.counters.malformed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

async fn accept(route: Route, listener: TcpListener, mut random: Random, counters: Arc<Counters>) {
    loop {
        let Ok((caller, _)) = listener.accept().await else {
            // Out of descriptors: the caller tries again, and so does this.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        count(&counters.connections);
        tokio::spawn(pass(route, caller, random.fork(), Arc::clone(&counters)));
    }
}

async fn pass(route: Route, caller: TcpStream, mut random: Random, counters: Arc<Counters>) {
    // A node that is not there is told by the end of the connection.
    let Ok(Ok(called)) = timeout(CONNECT_TIMEOUT, call(route)).await else {
        return;
    };
    let no_delay = caller.set_nodelay(true).and(called.set_nodelay(true));
    if no_delay.is_err() {
        return;
    }
    let (from_caller, to_caller) = caller.into_split();
    let (from_called, to_called) = called.into_split();
    let forth = direction(from_caller, to_called, random.fork(), Arc::clone(&counters));
    let back = direction(from_called, to_caller, random.fork(), counters);
    tokio::join!(forth, back);
}

async fn call(route: Route) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let alias: IpAddr = alias_host(route.link.from)
        .parse()
        .map_err(io::Error::other)?;
    socket.bind(SocketAddr::new(alias, 0))?;
    socket.connect(route.to).await
}

/// Ends when the sender has ended its direction and everything is passed on, or the receiver is gone.
async fn direction(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    random: Random,
    counters: Arc<Counters>,
) {
    let (frames, waiting) = mpsc::channel(FRAMES_MAX);
    let reading = read_frames(from, frames, &counters);
    let writing = write_frames(waiting, to, random, &counters);
    tokio::join!(reading, writing);
}

async fn read_frames(mut from: OwnedReadHalf, frames: mpsc::Sender<Vec<u8>>, counters: &Counters) {
    loop {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        if from.read_exact(&mut frame).await.is_err() {
            return;
        }
        // The header's checksum and limits hold, so its lengths are those of a frame of ours.
        let Ok(header) = FrameHeader::decode(&frame) else {
            return count(&counters.malformed);
        };
        frame.resize(FRAME_HEADER_BYTES + header.body_bytes(), 0);
        if from
            .read_exact(&mut frame[FRAME_HEADER_BYTES..])
            .await
            .is_err()
        {
            return;
        }
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

async fn write_frames(
    mut frames: mpsc::Receiver<Vec<u8>>,
    mut to: OwnedWriteHalf,
    random: Random,
    counters: &Counters,
) {
    // The first frame is the handshake's.
    match frames.recv().await {
        Some(frame) if to.write_all(&frame).await.is_ok() => {}
        _ => return,
    }
    let mut schedule = Schedule::new(random, Rates::default());
    let mut waiting: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut waiting_bytes = 0;
    let (mut number, mut open) = (0, true);
    while open || !waiting.is_empty() {
        let due = waiting.first_key_value().map(|((at, _), _)| *at);
        tokio::select! {
            biased;
            () = wake(due) => {
                let Some((_, frame)) = waiting.pop_first() else { continue };
                waiting_bytes -= frame.len();
                if to.write_all(&frame).await.is_err() {
                    return;
                }
            }
            frame = frames.recv(), if open && waiting_bytes < WAITING_BYTES_MAX => {
                let Some(frame) = frame else {
                    open = false;
                    continue;
                };
                let calm = counters.calm.load(Ordering::Relaxed);
                let place = schedule.place(Instant::now().into_std(), calm);
                note(counters, &place);
                for at in place.times() {
                    number += 1;
                    waiting_bytes += frame.len();
                    waiting.insert((Instant::from_std(at), number), frame.clone());
                }
            }
        }
    }
    // The receiver may be gone before that.
    let _ = to.shutdown().await;
}

fn note(counters: &Counters, place: &schedule::Place) {
    count(&counters.frames);
    if place.is_delayed {
        count(&counters.delayed);
    }
    if place.is_overtaken {
        count(&counters.overtaken);
    }
    if place.copy_at.is_some() {
        count(&counters.doubled);
    }
}

async fn wake(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
