//! Free ports for nodes on this machine.
//!
//! A port is held by a bound listener until just before its node starts. Ports are taken below the range
//! from which the system gives out source ports: a node that is down for a while would otherwise lose its
//! port to any outgoing connection, or be met by a connection to itself.

use std::io;
use std::net::TcpListener;

const PORT_MIN: u16 = 10_000;
const EPHEMERAL_MIN_DEFAULT: u16 = 32_768;

/// A port that nobody else can bind while this value lives.
#[derive(Debug)]
pub struct HeldPort {
    listener: TcpListener,
}

impl HeldPort {
    /// Its `HOST:PORT`.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }
}

/// Holds a free port of `host`, an IP address.
///
/// # Errors
/// When the system has none, or `host` is no address of this machine.
pub fn hold_port(host: &str) -> io::Result<HeldPort> {
    let end = ephemeral_min().unwrap_or(EPHEMERAL_MIN_DEFAULT);
    if end > PORT_MIN {
        let span = u32::from(end - PORT_MIN);
        let start = random()? % span;
        for step in 0..span {
            let offset = u16::try_from((start + step) % span).expect("the span is below 65536");
            match TcpListener::bind((host, PORT_MIN + offset)) {
                Ok(listener) => return Ok(HeldPort { listener }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }
    let listener = TcpListener::bind((host, 0))?;
    Ok(HeldPort { listener })
}

fn ephemeral_min() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    // Four bytes are never given in part.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn held_ports_are_distinct_and_taken_until_dropped() {
        let held: Vec<HeldPort> = (0..5).map(|_| hold_port("127.0.0.1").unwrap()).collect();
        let addresses: BTreeSet<String> = held.iter().map(|port| port.address().unwrap()).collect();
        assert_eq!(addresses.len(), 5);
        for address in &addresses {
            assert_eq!(
                TcpListener::bind(address).unwrap_err().kind(),
                io::ErrorKind::AddrInUse
            );
        }
        drop(held);
        // A process that another test is just starting may hold copies for a moment longer.
        let deadline = Instant::now() + Duration::from_secs(30);
        for address in &addresses {
            while TcpListener::bind(address).is_err() {
                assert!(Instant::now() < deadline, "{address} stays taken");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_foreign_host_is_an_error() {
        assert!(hold_port("192.0.2.1").is_err());
    }
}
