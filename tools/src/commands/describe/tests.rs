//! What is printed of a log.

use super::*;

#[test]
fn moments() {
    assert_eq!(moment_text(None), "-");
    assert_eq!(moment_text(Some(1_500_000)), "1970-01-01T00:00:01.500000Z");
    let last = moment_text(Some(YEAR_10000_US - 1));
    assert_eq!(last, "9999-12-31T23:59:59.999999Z");
    assert_eq!(moment_text(Some(YEAR_10000_US)), "253402300800000000 us");
    assert_eq!(moment_text(Some(u64::MAX)), format!("{} us", u64::MAX));
}

#[test]
fn one_row_in_each_format() {
    let row = TailRow {
        name: "a",
        next_seq: 3,
        last_time_us: None,
    };
    let cells = || ["a".to_owned(), "3".to_owned(), "-".to_owned()];
    let header = ["NAME", "NEXT SEQ", "LAST RECORD"];
    assert_eq!(
        render(&row, &header, cells(), RowFormat::Table),
        "NAME  NEXT SEQ  LAST RECORD\na     3         -\n"
    );
    let line = "{\"name\":\"a\",\"next_seq\":3,\"last_time_us\":null}\n";
    assert_eq!(render(&row, &header, cells(), RowFormat::Jsonl), line);
    let document = render(&row, &header, cells(), RowFormat::Json);
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(value["next_seq"], 3);
}
