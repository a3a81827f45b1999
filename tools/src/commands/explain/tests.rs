//! Every code is explained, and found however it is written.

use drave_batch::wire::Effect;

use super::*;

#[test]
fn every_code_is_explained() {
    for code in ErrorCode::ALL {
        let found = explain(*code);
        let effect = match code.effect() {
            Effect::NotWritten => "not written",
            Effect::Unknown => "unknown",
        };
        assert_eq!(found.effect, effect, "{code}");
        assert!(
            found.next.ends_with('.') && found.why.ends_with('.'),
            "{found:?}"
        );
        let text = one(&found, ResultFormat::Table);
        assert!(text.starts_with(&format!("{code}  {}\n", code.summary())));
        assert_eq!(text.lines().count(), 7, "{text}");
    }
    let listed = all(ResultFormat::Table);
    assert_eq!(listed.lines().count(), ErrorCode::ALL.len() + 1);
    let document: serde_json::Value = serde_json::from_str(&all(ResultFormat::Json)).unwrap();
    assert_eq!(document[0]["code"], "DRV-0101");
    assert_eq!(document.as_array().unwrap().len(), ErrorCode::ALL.len());
}

#[test]
fn codes_are_found_by_name_and_number() {
    for text in ["DRV-0104", "drv-104", "104", "0104"] {
        assert_eq!(code_of(text), Some(ErrorCode::ExpectSeq), "{text}");
    }
    for text in [
        "",
        "DRV-",
        "DRV",
        "1",
        "-104",
        "DRV-DRV-104",
        "99999999999",
        "\u{fc}\u{fc}\u{fc}",
    ] {
        assert_eq!(code_of(text), None, "{text}");
    }
}
