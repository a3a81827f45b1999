//! Who may hold a connection: counts accepted connections against their limits.
//!
//! A connection holds a [`Slot`] from accept until its `Closed` event was drained, so neither sockets
//! nor events can pile up behind the limit. When all slots are taken, the connection that has been in
//! handshake longest makes room: a flood of silent connections cannot keep out who says `Hello` at once.
//! No I/O here.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use drave_batch::wire::{ErrorCode, Role};
use tokio::sync::Notify;

use crate::handshake::Reject;

pub(crate) struct Slots {
    connections_max: u32,
    clients_max: u32,
    per_ip_max: Option<u32>,
    state: RefCell<State>,
    /// Told when an admission may be answered otherwise than before.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct State {
    taken: u32,
    clients: u32,
    per_ip: HashMap<IpAddr, u32>,
    next: u64,
    /// Connections in handshake that were not told to go, oldest first.
    greeting: BTreeMap<u64, Rc<Greeting>>,
    /// Connections in handshake that were told to go and are not gone yet.
    evicted: u32,
}

/// A connection in handshake, as those see it who may end it.
#[derive(Default)]
struct Greeting {
    evict: Notify,
    evicted: Cell<bool>,
}

/// The answer to a new connection.
pub(crate) enum Admission {
    /// It may stay.
    Granted(Slot),
    /// A connection in handshake was told to go: ask again when told of a change.
    Evicting,
    /// It may not stay.
    Refused(Reject),
}

impl Slots {
    pub(crate) fn new(connections_max: u32, reserved: u32, per_ip_max: Option<u32>) -> Rc<Self> {
        Rc::new(Self {
            connections_max,
            clients_max: connections_max - reserved,
            per_ip_max,
            state: RefCell::default(),
            changed: Notify::new(),
        })
    }

    pub(crate) fn admit(self: &Rc<Self>, ip: IpAddr) -> Admission {
        let mut state = self.state.borrow_mut();
        let of_ip = state.per_ip.get(&ip).copied().unwrap_or(0);
        if let Some(limit) = self.per_ip_max
            && of_ip >= limit
        {
            let message = format!("at most {limit} connections from {ip}");
            return Admission::Refused(Reject::new(ErrorCode::ConnectionLimit, message));
        }
        if state.taken >= self.connections_max {
            if state.evicted == 0 && !state.evict_oldest() {
                return Admission::Refused(self.full());
            }
            return Admission::Evicting;
        }
        state.taken += 1;
        *state.per_ip.entry(ip).or_insert(0) += 1;
        let number = state.next;
        state.next += 1;
        let greeting = Rc::<Greeting>::default();
        state.greeting.insert(number, Rc::clone(&greeting));
        Admission::Granted(Slot {
            slots: Rc::clone(self),
            ip,
            number,
            greeting,
            client: Cell::new(false),
        })
    }

    pub(crate) fn full(&self) -> Reject {
        let message = format!(
            "this node takes {} connections, {} of them from clients",
            self.connections_max, self.clients_max
        );
        Reject::new(ErrorCode::ConnectionLimit, message)
    }

    /// Connections that hold a slot, and clients among them.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let state = self.state.borrow();
        (state.taken, state.clients)
    }

    /// Tells every connection in handshake to go.
    pub(crate) fn evict_all(&self) {
        let mut state = self.state.borrow_mut();
        while state.evict_oldest() {}
    }
}

impl State {
    /// Tells the connection that has been in handshake longest to go. Whether there was one.
    fn evict_oldest(&mut self) -> bool {
        let Some((_, oldest)) = self.greeting.pop_first() else {
            return false;
        };
        self.evicted += 1;
        oldest.evicted.set(true);
        oldest.evict.notify_one();
        true
    }

    /// A connection leaves its handshake, for better or worse.
    fn end_greeting(&mut self, number: u64, greeting: &Greeting) {
        self.greeting.remove(&number);
        self.evicted -= u32::from(greeting.evicted.replace(false));
    }
}

/// The right to one connection; released when dropped.
pub(crate) struct Slot {
    slots: Rc<Slots>,
    ip: IpAddr,
    number: u64,
    greeting: Rc<Greeting>,
    client: Cell<bool>,
}

impl Slot {
    /// Told when this connection, still in handshake, must make room.
    pub(crate) fn evict(&self) -> &Notify {
        &self.greeting.evict
    }

    /// The handshake is done: the connection can no longer be evicted. One that is refused here still
    /// can, while it is told so.
    pub(crate) fn establish(&self, role: Role) -> Result<(), Reject> {
        let mut state = self.slots.state.borrow_mut();
        if role == Role::Client {
            if state.clients >= self.slots.clients_max {
                return Err(self.slots.full());
            }
            state.clients += 1;
            assert!(!self.client.replace(true), "established once");
        }
        state.end_greeting(self.number, &self.greeting);
        self.slots.changed.notify_one();
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.borrow_mut();
        state.end_greeting(self.number, &self.greeting);
        state.taken -= 1;
        state.clients -= u32::from(self.client.get());
        if let Some(count) = state.per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                state.per_ip.remove(&self.ip);
            }
        }
        drop(state);
        self.slots.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn granted(slots: &Rc<Slots>) -> Slot {
        match slots.admit(IP) {
            Admission::Granted(slot) => slot,
            Admission::Evicting => panic!("expected a slot, found an eviction"),
            Admission::Refused(reject) => panic!("expected a slot, found {reject}"),
        }
    }

    #[test]
    fn clients_leave_the_reserved_slots_to_peers() {
        let slots = Slots::new(3, 1, None);
        let kept: Vec<_> = (0..2).map(|_| granted(&slots)).collect();
        for slot in &kept {
            slot.establish(Role::Client).unwrap();
        }
        let third = granted(&slots);
        let reject = third.establish(Role::Client).unwrap_err();
        assert_eq!(reject.code, ErrorCode::ConnectionLimit);
        drop(third);
        let peer = granted(&slots);
        peer.establish(Role::Peer).unwrap();
        assert_eq!(slots.counts(), (3, 2));
        drop((kept, peer));
        assert_eq!(slots.counts(), (0, 0));
    }

    #[test]
    fn the_oldest_greeting_makes_room_and_the_established_stay() {
        let slots = Slots::new(2, 0, None);
        let established = granted(&slots);
        established.establish(Role::Client).unwrap();
        let silent = granted(&slots);
        assert!(matches!(slots.admit(IP), Admission::Evicting));
        assert!(matches!(slots.admit(IP), Admission::Evicting));
        assert_eq!(
            slots.state.borrow().evicted,
            1,
            "one goes for one that comes"
        );
        drop(silent);
        let newcomer = granted(&slots);
        newcomer.establish(Role::Client).unwrap();
        assert!(matches!(slots.admit(IP), Admission::Refused(_)));
    }

    #[test]
    fn one_that_was_told_to_go_and_said_hello_first_stays_and_the_next_goes() {
        let slots = Slots::new(2, 0, None);
        let quick = granted(&slots);
        let slow = granted(&slots);
        assert!(matches!(slots.admit(IP), Admission::Evicting));
        quick.establish(Role::Client).unwrap();
        assert!(matches!(slots.admit(IP), Admission::Evicting));
        assert!(slow.greeting.evicted.get());
        drop(slow);
        drop(granted(&slots));
        drop(quick);
        assert_eq!(slots.state.borrow().evicted, 0);
    }

    #[test]
    fn one_that_is_being_refused_can_be_evicted() {
        let slots = Slots::new(2, 1, None);
        let client = granted(&slots);
        client.establish(Role::Client).unwrap();
        let lingering = granted(&slots);
        lingering.establish(Role::Client).unwrap_err();
        assert!(matches!(slots.admit(IP), Admission::Evicting));
    }

    #[test]
    fn one_address_has_its_own_limit() {
        let slots = Slots::new(10, 0, Some(1));
        let first = granted(&slots);
        assert!(matches!(slots.admit(IP), Admission::Refused(_)));
        let other = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
        assert!(matches!(slots.admit(other), Admission::Granted(_)));
        drop(first);
        drop(granted(&slots));
        assert!(slots.state.borrow().per_ip.is_empty());
    }
}
