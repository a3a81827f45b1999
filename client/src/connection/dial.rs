//! Opens a connection: TCP, handshake, task.

use std::time::Duration;

use drave_batch::wire::{ClusterId, FRAME_PAYLOAD_BYTES_MAX, HelloAck};
use drave_net::frame::FrameReader;
use drave_net::handshake::Connector;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{Connection, LinkError, task};

/// How to dial.
#[derive(Clone, Debug)]
pub(crate) struct DialOptions {
    /// For name resolution, TCP and handshake together.
    pub(crate) connect_timeout: Duration,
    /// The cluster that must answer; any if none is known yet.
    pub(crate) cluster_id: Option<ClusterId>,
}

/// Connects to `address` (HOST:PORT) and shakes hands. Cancel-safe: nothing stays behind.
pub(crate) async fn dial(address: &str, options: &DialOptions) -> Result<Connection, LinkError> {
    let deadline = Instant::now() + options.connect_timeout;
    let connect_error = |cause: String| LinkError::Connect {
        address: address.to_owned(),
        cause,
    };
    let mut stream = match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(connect_error(error.to_string())),
        Err(_) => {
            let waited_ms = options.connect_timeout.as_millis();
            return Err(connect_error(format!("no answer within {waited_ms} ms")));
        }
    };
    // Requests are small and pipelined; waiting to fill a segment would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        return Err(connect_error(error.to_string()));
    }
    let connector = Connector::client(options.cluster_id.clone(), 0);
    let mut reader = FrameReader::for_handshake();
    let handshake = shake_hands(&mut stream, &mut reader, &connector, address);
    let ack = match timeout_at(deadline, handshake).await {
        Ok(ack) => ack?,
        Err(_) => {
            let waited_ms = options.connect_timeout.as_millis();
            return Err(LinkError::Handshake {
                address: address.to_owned(),
                cause: format!("nothing within {waited_ms} ms"),
            });
        }
    };
    reader.establish(FRAME_PAYLOAD_BYTES_MAX);
    let connection = Connection::new(address.to_owned(), ack);
    task::spawn(&connection, stream, reader);
    Ok(connection)
}

async fn shake_hands(
    stream: &mut TcpStream,
    reader: &mut FrameReader,
    connector: &Connector,
    address: &str,
) -> Result<HelloAck, LinkError> {
    let failed = |cause: String| LinkError::Handshake {
        address: address.to_owned(),
        cause,
    };
    stream
        .write_all(&connector.hello_bytes())
        .await
        .map_err(|error| failed(error.to_string()))?;
    loop {
        let frame = reader.next_frame().map_err(|error| LinkError::Framing {
            address: address.to_owned(),
            source: error,
        })?;
        if let Some(frame) = frame {
            return connector
                .on_frame(&frame)
                .map_err(|error| LinkError::handshake(address, error));
        }
        let read = stream.read_buf(reader.spare()).await;
        match read {
            Ok(0) => return Err(failed("the connection was closed".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}
