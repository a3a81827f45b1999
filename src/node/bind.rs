//! A node's sockets: where it listens, who may come in, where its own connections leave from.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use drave_batch::wire::{ErrorCode, Hello};
use drave_net::handshake::Limits;
use drave_net::{Identity, Net, NetConfig};

use super::{NodeError, settings};
use crate::config::NodeConfig;
use crate::store::Store;

/// Listens on the node's own member address; `judge` says which peers may come in. Also gives where connections
/// to peers leave from.
pub(super) fn bind(
    store: &Store,
    config: &NodeConfig,
    judge: impl Fn(&Hello) -> Result<(), (ErrorCode, String)> + 'static,
) -> Result<(Net, Option<IpAddr>), NodeError> {
    let identity = &store.identity;
    let refused = |source| NodeError::Listen {
        address: identity.address.clone(),
        source,
    };
    let listen = resolve(&identity.address).map_err(refused)?;
    let mut net_config = NetConfig::new(
        listen,
        Identity {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            incarnation: identity.incarnation,
        },
    );
    net_config.limits = Limits {
        record_bytes_max: config.limits.record_bytes_max.0 as u32,
        credit_bytes: config.limits.client_credit_bytes.0 as u32,
        ..Limits::DEFAULT
    };
    net_config.settings = Some(settings::of(config));
    net_config.handshake_timeout = config.limits.handshake_timeout.0;
    if let Some(connections_max) = config.limits.connections_max {
        net_config.connections_max = connections_max;
        net_config.peer_connections_reserved = (connections_max / 4).min(64);
    }
    let net = Net::bind(net_config, judge).map_err(refused)?;
    tracing::info!(address = identity.address, "listening");
    Ok((net, source_address(listen)))
}

fn resolve(address: &str) -> std::io::Result<SocketAddr> {
    address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// Outgoing connections leave from the address the node listens on, so that a firewall rule can name
/// it; a wildcard leaves the choice to the system.
fn source_address(listen: SocketAddr) -> Option<IpAddr> {
    (!listen.ip().is_unspecified()).then_some(listen.ip())
}
