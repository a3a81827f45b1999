//! Connections between the nodes of a test that can be cut: a port of its own for each pair of nodes and direction,
//! behind which bytes are passed on, or held back as long as the link is cut, as by a network that loses every packet.
//!
//! Nothing is lost or changed, and no connection is closed by a cut; nodes find that out by their own timeouts. No
//! privileges are needed, unlike for rules of the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener as StdListener;
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes of one direction of a connection that are on their way here at most.
const BUFFER_BYTES: usize = 64 << 10;

/// A node and another one that it sends to.
type Link = (u64, u64);

/// Which links are cut; nothing once the links are to end.
type Cuts = watch::Receiver<Option<BTreeSet<Link>>>;

/// The links between some nodes. They end with the value.
#[derive(Debug)]
pub struct Links {
    ports: BTreeMap<Link, u16>,
    nodes: Vec<u64>,
    cuts: watch::Sender<Option<BTreeSet<Link>>>,
    thread: Option<JoinHandle<()>>,
}

impl Links {
    /// Links between all of these nodes, by id and the address where each listens.
    ///
    /// # Errors
    /// No port, or no thread.
    pub fn between(nodes: &BTreeMap<u64, String>) -> io::Result<Self> {
        let mut ports = BTreeMap::new();
        let mut listeners = Vec::new();
        for from in nodes.keys() {
            for (to, address) in nodes.iter().filter(|(to, _)| *to != from) {
                let listener = StdListener::bind("127.0.0.1:0")?;
                listener.set_nonblocking(true)?;
                ports.insert((*from, *to), listener.local_addr()?.port());
                listeners.push(((*from, *to), listener, address.clone()));
            }
        }
        let (cuts, seen) = watch::channel(Some(BTreeSet::new()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("links".to_owned())
            .spawn(move || runtime.block_on(serve(listeners, seen)))?;
        Ok(Self {
            ports,
            nodes: nodes.keys().copied().collect(),
            cuts,
            thread: Some(thread),
        })
    }

    /// Where a node finds another one; `None` when they are not linked.
    #[must_use]
    pub fn address(&self, from: u64, to: u64) -> Option<String> {
        let port = self.ports.get(&(from, to))?;
        Some(format!("127.0.0.1:{port}"))
    }

    /// Cuts what one node sends to another; the other direction stays as it is.
    pub fn cut(&self, from: u64, to: u64) {
        self.change(|cuts| {
            cuts.insert((from, to));
        });
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, node: u64) {
        self.change(|cuts| {
            let others = self.nodes.iter().filter(|other| **other != node);
            cuts.extend(others.flat_map(|other| [(node, *other), (*other, node)]));
        });
    }

    /// Heals all: what was held back arrives.
    pub fn heal(&self) {
        self.change(BTreeSet::clear);
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<Link>)) {
        self.cuts
            .send_modify(|cuts| change(cuts.get_or_insert_default()));
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.cuts.send_replace(None);
        if let Some(thread) = self.thread.take() {
            // It panics only when a test did.
            let _ = thread.join();
        }
    }
}

async fn serve(listeners: Vec<(Link, StdListener, String)>, mut cuts: Cuts) {
    for (link, listener, address) in listeners {
        let cuts = cuts.clone();
        tokio::spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((taken, _)) = listener.accept().await {
                tokio::spawn(pass_on(link, taken, address.clone(), cuts.clone()));
            }
        });
    }
    // The runtime, and every connection with it, ends when this does.
    let _ = cuts.wait_for(Option::is_none).await;
}

async fn pass_on(link: Link, taken: TcpStream, address: String, mut cuts: Cuts) {
    if !is_whole(&mut cuts, link).await {
        return;
    }
    let Ok(made) = TcpStream::connect(address).await else {
        return;
    };
    // Small frames wait for nothing here that they do not wait for on a plain connection.
    let _ = (taken.set_nodelay(true), made.set_nodelay(true));
    let ((here_in, here_out), (there_in, there_out)) = (taken.into_split(), made.into_split());
    tokio::select! {
        () = forward(here_in, there_out, link, cuts.clone()) => {}
        () = forward(there_in, here_out, (link.1, link.0), cuts) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: Link, mut cuts: Cuts) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0
            || !is_whole(&mut cuts, link).await
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}

/// Waits until a link is not cut; `false` when all links end.
async fn is_whole(cuts: &mut Cuts, link: Link) -> bool {
    let settled = |cuts: &Option<BTreeSet<Link>>| match cuts {
        Some(cuts) => !cuts.contains(&link),
        None => true,
    };
    cuts.wait_for(settled)
        .await
        .is_ok_and(|cuts| cuts.is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpStream as StdStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cut_holds_back_one_direction_until_it_is_healed() {
        let ends: Vec<StdListener> = (0..2)
            .map(|_| StdListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let address = |end: &StdListener| end.local_addr().unwrap().to_string();
        let nodes = BTreeMap::from([(1, address(&ends[0])), (2, address(&ends[1]))]);
        let links = Links::between(&nodes).unwrap();
        assert_eq!(links.address(1, 1), None);
        let mut here = StdStream::connect(links.address(1, 2).unwrap()).unwrap();
        let (mut there, _) = ends[1].accept().unwrap();
        let mut byte = [0];
        here.write_all(b"a").unwrap();
        there.read_exact(&mut byte).unwrap();
        links.cut(1, 2);
        here.write_all(b"b").unwrap();
        // The other way is whole.
        there.write_all(b"c").unwrap();
        here.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"c");
        there
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let held = there.read(&mut byte).unwrap_err().kind();
        assert!(matches!(held, ErrorKind::WouldBlock | ErrorKind::TimedOut));
        there.set_read_timeout(None).unwrap();
        links.heal();
        there.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"b");
        links.isolate(2);
        there.write_all(b"d").unwrap();
        drop(links);
        assert_eq!(here.read(&mut byte).unwrap(), 0, "they end together");
    }
}
