//! How a record is printed. Pure: a record in, bytes out.

use serde::Serialize;

use crate::cli::RecordFormat;

#[derive(Serialize)]
struct JsonRecord<'a> {
    log: &'a str,
    seq: u64,
    time_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

/// Appends one record to `out`, its newline included.
///
/// `time_us` is microseconds since 1970.
pub fn write_record(
    format: RecordFormat,
    log: &str,
    seq: u64,
    time_us: u64,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    match format {
        RecordFormat::Raw => out.extend_from_slice(payload),
        RecordFormat::Json => {
            let text = std::str::from_utf8(payload).ok();
            let payload_hex = if text.is_none() {
                Some(hex(payload))
            } else {
                None
            };
            let record = JsonRecord {
                log,
                seq,
                time_us,
                payload: text,
                payload_hex,
            };
            serde_json::to_writer(&mut *out, &record)
                .expect("plain fields into memory cannot fail");
        }
    }
    out.push(b'\n');
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(format: RecordFormat, payload: &[u8]) -> Vec<u8> {
        let mut out = b"before\n".to_vec();
        write_record(format, "a/b", 7, 1_700_000_000_000_000, payload, &mut out);
        out.split_off(7)
    }

    #[test]
    fn raw_is_byte_for_byte() {
        assert_eq!(print(RecordFormat::Raw, b"\xff\0 x\r"), b"\xff\0 x\r\n");
        assert_eq!(print(RecordFormat::Raw, b""), b"\n");
    }

    #[test]
    fn json_is_one_object_per_line() {
        assert_eq!(
            print(RecordFormat::Json, "l\u{e4}\t\"x\"\n".as_bytes()),
            concat!(
                "{\"log\":\"a/b\",\"seq\":7,\"time_us\":1700000000000000,",
                "\"payload\":\"l\u{e4}\\t\\\"x\\\"\\n\"}\n"
            )
            .as_bytes()
        );
        assert_eq!(
            print(RecordFormat::Json, b"\xff\x00\x1a"),
            b"{\"log\":\"a/b\",\"seq\":7,\"time_us\":1700000000000000,\"payload_hex\":\"ff001a\"}\n"
        );
        let empty: serde_json::Value =
            serde_json::from_slice(&print(RecordFormat::Json, b"")).unwrap();
        assert_eq!(empty["payload"], "");
    }
}
