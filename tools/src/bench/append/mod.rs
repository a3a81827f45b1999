//! Load on a whole cluster, through the client's producer, and on what drave is held against.
//!
//! `sink` is what a load goes to, `floor` the least that three replicas cost, `compare` sets rounds of several beside
//! each other. `load` keeps batches in flight, as fast as they are acknowledged or at given times; `verify` reads back
//! what was acknowledged; `servers` reads what the servers' processes used; `report` says it all, `hdr`
//! and `plot` for other programs and as a picture; `timeline` is a long run second by second. Nothing here prints.

pub mod compare;
pub mod floor;
pub mod hdr;
pub mod load;
pub mod plot;
pub mod report;
pub mod servers;
pub mod sink;
pub mod timeline;
pub mod verify;
