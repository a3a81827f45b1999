//! etcd: a put under a new key, over gRPC to the leader.
//!
//! The messages are those of etcd's `rpc.proto` and `kv.proto`, as far as they are used; the tags are theirs.

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::PeerError;

const PREFIX: &str = "bench/";

/// The first key above all that begin with the prefix.
const PREFIX_END: &str = "bench0";

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(bool, tag = "9")]
    count_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// Connections to the leader.
#[derive(Debug)]
pub struct Etcd {
    channels: Vec<Channel>,
}

impl Etcd {
    /// Opens connections to the one of `addresses` that leads.
    ///
    /// # Errors
    /// [`PeerError`], also when none of them leads.
    pub async fn connect(addresses: &[String], connections: usize) -> Result<Self, PeerError> {
        for address in addresses {
            let channel = open(address).await?;
            let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
            let status: StatusResponse = call(&channel, path, StatusRequest {}).await?;
            if status.header.map(|header| header.member_id) != Some(status.leader) {
                continue;
            }
            let mut channels = vec![channel];
            while channels.len() < connections {
                channels.push(open(address).await?);
            }
            return Ok(Self { channels });
        }
        Err(PeerError::Refused("no server leads".to_owned()))
    }

    /// Puts a record; see [`super::Peer::append`].
    ///
    /// # Errors
    /// [`PeerError`]
    pub async fn append(&self, number: u64, value: Vec<u8>) -> Result<(), PeerError> {
        let channel = &self.channels[(number % self.channels.len() as u64) as usize];
        let key = format!("{PREFIX}{number:016x}").into_bytes();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let _: PutResponse = call(channel, path, PutRequest { key, value }).await?;
        Ok(())
    }

    /// Keys that were put.
    ///
    /// # Errors
    /// [`PeerError`]
    pub async fn count(&self) -> Result<u64, PeerError> {
        let request = RangeRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            count_only: true,
        };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let response: RangeResponse = call(&self.channels[0], path, request).await?;
        Ok(response.count.unsigned_abs())
    }
}

async fn open(address: &str) -> Result<Channel, PeerError> {
    let refused = |error: tonic::transport::Error| PeerError::Refused(error.to_string());
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(refused)?;
    endpoint.tcp_nodelay(true).connect().await.map_err(refused)
}

async fn call<Q, A>(channel: &Channel, path: PathAndQuery, request: Q) -> Result<A, PeerError>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let refused = |status: Status| PeerError::Refused(status.to_string());
    let mut client = Grpc::new(channel.clone());
    let ready = client.ready().await;
    ready.map_err(|error| PeerError::Refused(error.to_string()))?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let response = client.unary(Request::new(request), path, codec).await;
    Ok(response.map_err(refused)?.into_inner())
}
