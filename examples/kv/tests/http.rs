//! What the store answers to each request, and what it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Answered, LIMIT, Processes, agent, request, wait_until};
use serde_json::{Value, json};
use ureq::Agent;

struct Http {
    agent: Agent,
    url: String,
}

impl Http {
    fn of(processes: &Processes, node_id: usize) -> Self {
        Self {
            agent: agent(LIMIT),
            url: processes.url(node_id),
        }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answered {
        request(
            &self.agent,
            method,
            &format!("{}{path}", self.url),
            headers,
            body,
        )
        .unwrap()
    }

    fn json(&self, path: &str) -> Value {
        let answered = self.send("GET", path, &[], b"");
        assert_eq!(answered.status, 200, "{answered:?}");
        serde_json::from_str(&answered.body).unwrap()
    }
}

#[test]
fn each_request_has_its_answer() {
    let processes = Processes::start(1, &[]);
    let http = Http::of(&processes, 1);
    let put = http.send("PUT", "/kv/a/b", &[], b"one");
    assert_eq!(
        (put.status, put.etag.as_deref()),
        (200, Some("\"0\"")),
        "{put:?}"
    );
    let expected = json!({"answer": "put", "version": 0, "replaced": null});
    assert_eq!(serde_json::from_str::<Value>(&put.body).unwrap(), expected);
    let get = http.send("GET", "/kv/a/b", &[], b"");
    assert_eq!(
        (get.status, get.etag.as_deref(), get.body.as_str()),
        (200, Some("\"0\""), "one")
    );
    assert_eq!(http.send("GET", "/kv/a", &[], b"").status, 404);
    assert_eq!(http.send("GET", "/kv/a/b?local=true", &[], b"").body, "one");

    // Conditions.
    let absent = [("if-none-match", "*")];
    assert_eq!(http.send("PUT", "/kv/a/b", &absent, b"two").status, 412);
    assert_eq!(http.send("PUT", "/kv/c", &absent, b"two").status, 200);
    assert_eq!(
        http.send("PUT", "/kv/a/b", &[("if-match", "\"7\"")], b"two")
            .status,
        412
    );
    assert_eq!(
        http.send("PUT", "/kv/a/b", &[("if-match", "\"0\"")], b"two")
            .status,
        200
    );
    assert_eq!(http.send("GET", "/kv/a/b", &[], b"").body, "two");

    // A request with an id is done once.
    let id = [("idempotency-key", "0123456789abcdef0123456789abcdef")];
    let first = http.send("PUT", "/kv/d", &id, b"x");
    http.send("PUT", "/kv/d", &[], b"y");
    let again = http.send("PUT", "/kv/d", &id, b"x");
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(http.send("GET", "/kv/d", &[], b"").body, "y");

    let keys = http.json("/kv?limit=2");
    let names: Vec<&str> = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["key"].as_str().unwrap())
        .collect();
    assert_eq!((names, &keys["more"]), (vec!["a/b", "c"], &json!(true)));
    let keys = http.json("/kv?after=c");
    assert_eq!(
        (&keys["keys"][0]["key"], &keys["more"]),
        (&json!("d"), &json!(false))
    );

    assert_eq!(http.send("DELETE", "/kv/d", &[], b"").status, 200);
    assert_eq!(http.send("DELETE", "/kv/d", &[], b"").status, 404);
    let status = http.json("/status");
    assert_eq!((&status["keys"], &status["bytes"]), (&json!(2), &json!(10)));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let processes = Processes::start(1, &[]);
    let http = Http::of(&processes, 1);
    let long = "k".repeat(513);
    let large = vec![0; (512 << 10) + 1];
    for (method, path, headers, body, status, says) in [
        (
            "PUT",
            "/kv/a",
            &[("if-match", "7")][..],
            &b""[..],
            400,
            "if-match: expected one version in quotes",
        ),
        (
            "PUT",
            "/kv/a",
            &[("if-none-match", "\"7\"")],
            b"",
            400,
            "if-none-match: expected *",
        ),
        (
            "PUT",
            "/kv/a",
            &[("if-match", "\"7\""), ("if-none-match", "*")],
            b"",
            400,
            "found both",
        ),
        (
            "PUT",
            "/kv/a",
            &[("idempotency-key", "7")],
            b"",
            400,
            "expected 32 hexadecimal digits",
        ),
        (
            "PUT",
            &format!("/kv/{long}"),
            &[],
            b"",
            400,
            "bytes of a key at most: expected 512, found 513",
        ),
        ("PUT", "/kv/a", &[], &large, 400, "bytes of a value at most"),
        (
            "GET",
            "/kv?limit=0",
            &[],
            b"",
            400,
            "limit: expected 1 to 1000, found 0",
        ),
    ] {
        let answered = http.send(method, path, headers, body);
        assert_eq!(
            answered.status, status,
            "{method} {path} {headers:?}: {answered:?}"
        );
        assert!(answered.body.contains(says), "{answered:?}");
        assert!(answered.body.contains("nothing was done"), "{answered:?}");
    }
    assert_eq!(http.json("/status")["keys"], json!(0));
}

#[test]
fn two_of_three_serve_one_alone_refuses_and_catches_up() {
    let mut processes = Processes::start(3, &["--timeout-ms", "3000", "--snapshot-commands", "20"]);
    let first = Http::of(&processes, 1);
    for number in 0..50 {
        let key = format!("/kv/key-{}", number % 10);
        assert_eq!(
            first
                .send("PUT", &key, &[], number.to_string().as_bytes())
                .status,
            200
        );
    }
    // Every node knows what was answered by another.
    for node_id in 1..=3 {
        assert_eq!(
            Http::of(&processes, node_id)
                .send("GET", "/kv/key-9", &[], b"")
                .body,
            "49"
        );
    }
    processes.kill(2);
    let answered = first.send("PUT", "/kv/key-9", &[], b"with two");
    assert_eq!(answered.status, 200, "{answered:?}");
    processes.kill(3);
    let refused = first.send("GET", "/kv/key-9", &[], b"");
    assert_eq!(refused.status, 503, "{refused:?}");
    let local = first.send("GET", "/kv/key-9?local=true", &[], b"");
    assert_eq!(local.body, "with two");
    let unknown = first.send("PUT", "/kv/key-9", &[], b"alone");
    assert!([503, 504].contains(&unknown.status), "{unknown:?}");
    processes.restart(2);
    processes.restart(3);
    let third = Http::of(&processes, 3);
    wait_until("node 3 has what the others have", || {
        let read = third.send("GET", "/kv/key-9", &[], b"");
        read.status == 200 && (read.body == "with two" || read.body == "alone")
    });
    assert!(
        third.json("/status")["restored"] == json!(1),
        "it began with a snapshot"
    );
}
