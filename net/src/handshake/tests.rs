//! The handshake's matrix: each thing that does not fit is refused by its own code, on both sides.

use bytes::Bytes;
use drave_batch::wire::{Read, encode_frame};

use super::*;
use crate::FrameReader;

const SETTINGS: PeerSettings = PeerSettings {
    producers_max: 3,
    election_timeout_us_min: 5,
    has_leases: false,
};

fn identity(node_id: u64) -> Identity {
    Identity {
        cluster_id: ClusterId::new("alpha").unwrap(),
        node_id,
        incarnation: u128::from(node_id) << 100,
    }
}

fn acceptor() -> Acceptor {
    Acceptor::new(identity(1), Limits::DEFAULT)
}

fn to_frame(bytes: &[u8]) -> Frame {
    let mut reader = FrameReader::for_handshake();
    assert_eq!(reader.push(bytes), bytes.len());
    reader.next_frame().unwrap().unwrap()
}

fn anyone(_: &Hello) -> Result<(), (ErrorCode, String)> {
    Ok(())
}

fn nobody(hello: &Hello) -> Result<(), (ErrorCode, String)> {
    Err((
        ErrorCode::UnknownMember,
        format!("no node {}", hello.node_id),
    ))
}

#[test]
fn a_fitting_peer_and_any_client_come_in() {
    let connector = Connector::peer(&identity(2), Lane::Append, 1, Some(identity(1).incarnation));
    let frame = to_frame(&connector.hello_bytes());
    let (ack, hello) = acceptor().on_frame(&frame, anyone).unwrap();
    assert_eq!(hello, connector.hello());
    assert_eq!((hello.lane, hello.node_id), (Lane::Append, 2));
    assert_eq!(connector.on_frame(&to_frame(&frame_bytes(&ack))), Ok(ack));

    for cluster in [None, Some(ClusterId::new("alpha").unwrap())] {
        for node_id in [0, 1] {
            let connector = Connector::client(cluster.clone(), node_id);
            let frame = to_frame(&connector.hello_bytes());
            let (ack, _) = acceptor()
                .on_frame(&frame, |_| panic!("clients are not judged as peers"))
                .unwrap();
            assert_eq!(ack.credit_bytes, Limits::DEFAULT.credit_bytes);
            connector.on_frame(&to_frame(&frame_bytes(&ack))).unwrap();
        }
    }
}

#[test]
fn the_acceptor_refuses_by_code() {
    let peer = || Connector::peer(&identity(2), Lane::Control, 1, None).hello();
    let client = || Connector::client(None, 0).hello();
    let other = || Some(ClusterId::new("beta").unwrap());
    let matrix = [
        (
            ErrorCode::ProtocolVersion,
            Hello {
                version_min: 2,
                version_max: 9,
                ..peer()
            },
        ),
        (
            ErrorCode::ProtocolVersion,
            Hello {
                version_min: 0,
                version_max: 0,
                ..client()
            },
        ),
        (
            ErrorCode::ProtocolVersion,
            Hello {
                version_min: 2,
                version_max: 1,
                ..client()
            },
        ),
        (
            ErrorCode::WrongCluster,
            Hello {
                cluster_id: other(),
                ..peer()
            },
        ),
        (
            ErrorCode::WrongCluster,
            Hello {
                cluster_id: None,
                ..peer()
            },
        ),
        (
            ErrorCode::WrongCluster,
            Hello {
                cluster_id: other(),
                ..client()
            },
        ),
        (
            ErrorCode::WrongNode,
            Hello {
                to_node_id: 3,
                ..peer()
            },
        ),
        (
            ErrorCode::WrongNode,
            Hello {
                to_node_id: 3,
                ..client()
            },
        ),
        (
            ErrorCode::WrongNode,
            Hello {
                node_id: 1,
                ..peer()
            },
        ),
        (
            ErrorCode::MalformedFrame,
            Hello {
                node_id: 0,
                ..peer()
            },
        ),
        (
            ErrorCode::MalformedFrame,
            Hello {
                node_id: 2,
                ..client()
            },
        ),
        (
            ErrorCode::MalformedFrame,
            Hello {
                incarnation: 2,
                ..client()
            },
        ),
        (
            ErrorCode::MalformedFrame,
            Hello {
                lane: Lane::Append,
                ..client()
            },
        ),
        (
            ErrorCode::MalformedFrame,
            Hello {
                settings: Some(SETTINGS),
                ..client()
            },
        ),
    ];
    for (code, hello) in matrix {
        let reject = acceptor().on_hello(&hello, anyone).unwrap_err();
        assert_eq!(reject.code, code, "{hello:?}: {reject}");
        assert!(!reject.message.is_empty());
    }
    let reject = acceptor().on_hello(&peer(), nobody).unwrap_err();
    assert_eq!(reject, Reject::new(ErrorCode::UnknownMember, "no node 2"));
    // What a peer says of its settings is put before the judge.
    let connector = Connector::peer(&identity(2), Lane::Control, 1, None);
    let hello = connector.with_settings(Some(SETTINGS)).hello();
    let with_settings = |hello: &Hello| {
        assert_eq!(hello.settings, Some(SETTINGS));
        anyone(hello)
    };
    acceptor().on_hello(&hello, with_settings).unwrap();
    // A wider range of versions that holds ours is fine.
    let wide = Hello {
        version_min: 0,
        version_max: 9,
        ..peer()
    };
    assert_eq!(
        acceptor().on_hello(&wide, anyone).unwrap().version,
        PROTOCOL_VERSION
    );
}

#[test]
fn the_acceptor_refuses_frames_that_are_no_hello() {
    let request = Read {
        log_id: 1,
        from_seq: 0,
        bytes_max: 0,
        consistency: 0,
    };
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, 0, 0, &request, 0);
    let reject = acceptor().on_frame(&to_frame(&bytes), anyone).unwrap_err();
    assert_eq!(reject.code, ErrorCode::UnexpectedMessage);

    let mut damaged = Connector::client(None, 0).hello_bytes();
    *damaged.last_mut().unwrap() ^= 1;
    let reject = acceptor()
        .on_frame(&to_frame(&damaged), anyone)
        .unwrap_err();
    assert_eq!(reject.code, ErrorCode::MalformedFrame);

    let mut frame = to_frame(&Connector::client(None, 0).hello_bytes());
    frame.payload = Bytes::from_static(b"x");
    let reject = acceptor().on_frame(&frame, anyone).unwrap_err();
    assert_eq!(reject.code, ErrorCode::MalformedFrame);
}

#[test]
fn the_connector_refuses_by_kind() {
    let incarnation = identity(1).incarnation;
    let connector = Connector::peer(&identity(2), Lane::Control, 1, Some(incarnation));
    let ack = acceptor().on_hello(&connector.hello(), anyone).unwrap();
    let judge = |ack: &HelloAck| {
        connector
            .on_frame(&to_frame(&frame_bytes(ack)))
            .unwrap_err()
    };

    let other = HelloAck {
        version: 2,
        ..ack.clone()
    };
    assert_eq!(
        judge(&other),
        HandshakeError::Version {
            expected: 1,
            found: 2
        }
    );
    let other = HelloAck {
        cluster_id: "beta".to_owned(),
        ..ack.clone()
    };
    assert!(matches!(judge(&other), HandshakeError::WrongCluster { .. }));
    let other = HelloAck {
        cluster_id: "no cluster!".to_owned(),
        ..ack.clone()
    };
    assert!(matches!(judge(&other), HandshakeError::Malformed(_)));
    let other = HelloAck {
        node_id: 3,
        ..ack.clone()
    };
    assert_eq!(
        judge(&other),
        HandshakeError::WrongNode {
            expected: 1,
            found: 3
        }
    );
    let other = HelloAck {
        incarnation: 7,
        ..ack.clone()
    };
    let (node_id, expected, found) = (1, incarnation, 7);
    assert_eq!(
        judge(&other),
        HandshakeError::WrongIncarnation {
            node_id,
            expected,
            found
        }
    );

    let reject = Reject::new(ErrorCode::ConnectionLimit, "full").to_wire();
    let error = connector
        .on_frame(&to_frame(&frame_bytes(&reject)))
        .unwrap_err();
    let (code, number) = (Some(ErrorCode::ConnectionLimit), 708);
    let message = "full".to_owned();
    assert_eq!(
        error,
        HandshakeError::Rejected {
            code,
            number,
            message
        }
    );

    let error = connector
        .on_frame(&to_frame(&connector.hello_bytes()))
        .unwrap_err();
    assert_eq!(
        error,
        HandshakeError::Unexpected {
            found: MessageKind::Hello
        }
    );
    let mut damaged = frame_bytes(&ack);
    *damaged.last_mut().unwrap() ^= 1;
    let error = connector.on_frame(&to_frame(&damaged)).unwrap_err();
    assert!(matches!(error, HandshakeError::Malformed(_)));
}

#[test]
fn an_endless_refusal_still_fits_a_handshake_frame() {
    let reject = Reject::new(ErrorCode::UnknownMember, "\u{e4}".repeat(100_000));
    let bytes = frame_bytes(&reject.to_wire());
    assert!(bytes.len() <= crate::frame::HANDSHAKE_FRAME_BYTES_MAX);
    let connector = Connector::client(None, 0);
    let error = connector.on_frame(&to_frame(&bytes)).unwrap_err();
    assert!(matches!(error, HandshakeError::Rejected { message, .. } if message.len() == 1024));
}
