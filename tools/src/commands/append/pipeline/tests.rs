use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};

use drave_batch::wire::ErrorCode;
use tokio::sync::oneshot;

use super::*;
use crate::exit::Exit;

type Outcome = Result<Acked, ClientError>;

/// Keeps what it was given; acknowledges at once, or when told to.
struct Fake {
    /// Longer records are not taken, as by nodes whose limit is lower.
    node_bytes_max: usize,
    records: RefCell<Vec<Bytes>>,
    batches: RefCell<Vec<usize>>,
    in_flight_most: Cell<usize>,
    /// Batches with these numbers (from 0) end so instead of being acknowledged.
    failures: Vec<(usize, ClientError)>,
    /// Tickets stay open; the test settles them.
    held: Option<RefCell<Vec<oneshot::Sender<Outcome>>>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            node_bytes_max: usize::MAX,
            records: RefCell::default(),
            batches: RefCell::default(),
            in_flight_most: Cell::default(),
            failures: Vec::new(),
            held: None,
        }
    }
}

struct FakeTicket(oneshot::Receiver<Outcome>);

impl Future for FakeTicket {
    type Output = Outcome;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Outcome> {
        std::pin::Pin::new(&mut self.0)
            .poll(context)
            .map(|outcome| outcome.unwrap())
    }
}

impl Appender for Fake {
    type Ticket = FakeTicket;

    async fn submit(&self, records: &[Bytes]) -> Result<FakeTicket, ClientError> {
        if let Some(long) = records
            .iter()
            .find(|record| record.len() > self.node_bytes_max)
        {
            let (limit, found) = (self.node_bytes_max as u64, long.len() as u64);
            return Err(ClientError::TooLarge {
                what: "record bytes",
                limit,
                found,
            });
        }
        let number = self.batches.borrow().len();
        let acked = Acked {
            first_seq: self.records.borrow().len() as u64,
            record_count: records.len() as u64,
        };
        self.batches.borrow_mut().push(records.len());
        let failure = self.failures.iter().find(|(failing, _)| *failing == number);
        let outcome = match failure {
            Some((_, error)) => Err(error.clone()),
            None => {
                self.records.borrow_mut().extend_from_slice(records);
                Ok(acked)
            }
        };
        let (sender, receiver) = oneshot::channel();
        match &self.held {
            None => sender.send(outcome).unwrap(),
            Some(held) => {
                held.borrow_mut().push(sender);
                let open = held
                    .borrow()
                    .iter()
                    .filter(|sender| !sender.is_closed())
                    .count();
                self.in_flight_most.set(self.in_flight_most.get().max(open));
            }
        }
        Ok(FakeTicket(receiver))
    }
}

const OPTIONS: PipelineOptions = PipelineOptions {
    records_max: Some(2),
    in_flight_max: 3,
    record_bytes_max: 8,
    interrupted_wait: Duration::from_millis(1),
};

#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocks(blocks: Vec<io::Result<&'static str>>) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(blocks.len().max(1));
    for block in blocks {
        sender.try_send(block.map(Bytes::from)).unwrap();
    }
    receiver
}

async fn append(fake: &Fake, input: Vec<io::Result<&'static str>>) -> (Report, String) {
    let printed = Printed::default();
    let output = DataOutput::to(printed.clone()).unwrap();
    let never = std::future::pending();
    let report = run(
        fake,
        blocks(input),
        OPTIONS,
        Some(output),
        &mut Progress::none(),
        never,
    )
    .await;
    let text = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
    (report, text)
}

fn unknown() -> ClientError {
    ClientError::Unknown {
        code: None,
        cause: "the leader died".to_owned(),
        attempts: 2,
    }
}

#[tokio::test]
async fn every_line_is_appended_and_told_in_order() {
    let fake = Fake::default();
    let (report, printed) = append(&fake, vec![Ok("a\nb\nc"), Ok("c\n\n"), Ok("e\nf")]).await;
    assert_eq!(*fake.records.borrow(), ["a", "b", "cc", "", "e", "f"]);
    assert_eq!(*fake.batches.borrow(), [2, 2, 2]);
    assert_eq!(printed, "0\n1\n2\n3\n4\n5\n");
    assert_eq!((report.record_count(), report.error("x")), (6, None));
}

#[tokio::test]
async fn an_empty_input_is_a_success() {
    let (report, printed) = append(&Fake::default(), vec![]).await;
    assert_eq!(
        (report.record_count(), report.error("x"), printed.as_str()),
        (0, None, "")
    );
}

#[tokio::test]
async fn a_line_over_the_limit_costs_no_other_line() {
    let fake = Fake::default();
    let (report, printed) = append(&fake, vec![Ok("a\n1234567"), Ok("89\nb\n"), Ok("c")]).await;
    assert_eq!(*fake.records.borrow(), ["a", "b", "c"]);
    assert_eq!(printed, "0\n1\n2\n");
    let error = report.error("x").unwrap();
    assert_eq!(
        (error.code, error.exit),
        (Some(ErrorCode::TooLarge), Exit::Precondition)
    );
    assert!(error.effect.contains("lines 1, 3-4: in the log"), "{error}");
    assert!(
        error
            .effect
            .contains("line 2: not in the log, over the limit"),
        "{error}"
    );
}

#[tokio::test]
async fn a_lower_limit_of_the_nodes_costs_no_other_line() {
    let fake = Fake {
        node_bytes_max: 4,
        ..Fake::default()
    };
    let (report, printed) = append(&fake, vec![Ok("a\nb\n12345\nc\nd\n12345\n")]).await;
    assert_eq!(*fake.records.borrow(), ["a", "b", "c", "d"]);
    assert_eq!(printed, "0\n1\n2\n3\n");
    let error = report.error("x").unwrap();
    assert!(
        error
            .why
            .starts_with("a record is at most 4 bytes\nline 3 has 5 bytes"),
        "{error}"
    );
    assert!(
        error
            .effect
            .ends_with("lines 3, 6: not in the log, over the limit"),
        "{error}"
    );
}

#[tokio::test]
async fn after_a_failure_nothing_more_is_submitted_and_all_is_settled() {
    let fake = Fake {
        failures: vec![(1, unknown())],
        ..Fake::default()
    };
    let many = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n14\n15\n16\n17\n18\n19\n20\n";
    let (report, printed) = append(&fake, vec![Ok(many)]).await;
    let error = report.error("x").unwrap();
    assert_eq!(error.exit, Exit::Unavailable);
    assert!(error.effect.contains("lines 3-4: unknown"), "{error}");
    let submitted = fake.batches.borrow().len() as u64;
    assert!(
        submitted <= 2 + u64::from(OPTIONS.in_flight_max),
        "{submitted} batches"
    );
    assert!(
        error.effect.contains(&format!(
            "line {} and all after it: not sent",
            2 * submitted + 1
        )),
        "{error}"
    );
    assert_eq!(printed.lines().count() as u64, 2 * (submitted - 1));
}

#[tokio::test]
async fn a_broken_input_appends_its_whole_lines_only() {
    let fake = Fake::default();
    let (report, _) = append(
        &fake,
        vec![Ok("a\nb\nc\nhalf"), Err(io::Error::other("gone"))],
    )
    .await;
    assert_eq!(*fake.records.borrow(), ["a", "b", "c"]);
    let error = report.error("x").unwrap();
    assert_eq!((error.exit, error.why.as_str()), (Exit::Failure, "gone"));
    assert!(
        error.effect.contains("line 4 and all after it: not sent"),
        "{error}"
    );
}

/// Runs `fake` with held tickets beside `script`, which ends the input by dropping its sender.
async fn scripted(
    fake: &Fake,
    script: impl AsyncFnOnce(mpsc::Sender<io::Result<Bytes>>, oneshot::Sender<()>),
) -> Report {
    let (sender, receiver) = mpsc::channel(16);
    let (interrupt, interrupted) = oneshot::channel();
    let interrupted = async move {
        if interrupted.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let mut progress = Progress::none();
    let (report, ()) = tokio::join!(
        run(fake, receiver, OPTIONS, None, &mut progress, interrupted),
        script(sender, interrupt)
    );
    report
}

/// Lets the pipeline run until it can do nothing more; both sides are on one task and never wait for time.
async fn settle_tasks() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_more_than_allowed_is_in_flight() {
    let fake = Fake {
        held: Some(RefCell::default()),
        ..Fake::default()
    };
    let held = fake.held.as_ref().unwrap();
    let report = scripted(&fake, async |input, _interrupt| {
        for _ in 0..16 {
            input.send(Ok(Bytes::from("a\nb\n"))).await.unwrap();
        }
        drop(input);
        for number in 0..16_u64 {
            settle_tasks().await;
            let expected = (number + u64::from(OPTIONS.in_flight_max)).min(16);
            assert_eq!(held.borrow().len() as u64, expected, "batches submitted");
            let sender = held.borrow_mut()[number as usize..]
                .first_mut()
                .map(|first| {
                    let (closed, _) = oneshot::channel();
                    std::mem::replace(first, closed)
                });
            sender
                .unwrap()
                .send(Ok(Acked {
                    first_seq: 2 * number,
                    record_count: 2,
                }))
                .unwrap();
        }
    })
    .await;
    assert_eq!((report.record_count(), report.error("x")), (32, None));
    assert_eq!(fake.in_flight_most.get(), OPTIONS.in_flight_max as usize);
}

#[tokio::test]
async fn a_pausing_input_does_not_hold_lines_back() {
    let fake = Fake::default();
    let report = scripted(&fake, async |input, _interrupt| {
        for number in 1..=3 {
            input.send(Ok(Bytes::from("a\n"))).await.unwrap();
            settle_tasks().await;
            assert_eq!(fake.batches.borrow().len(), number);
        }
    })
    .await;
    assert_eq!(report.record_count(), 3);
}

#[tokio::test]
async fn an_interruption_ends_soon_and_says_what_is_unknown() {
    let fake = Fake {
        held: Some(RefCell::default()),
        ..Fake::default()
    };
    let held = fake.held.as_ref().unwrap();
    let report = scripted(&fake, async |input, interrupt| {
        input.send(Ok(Bytes::from("a\nb\nc\n"))).await.unwrap();
        settle_tasks().await;
        let first = held.borrow_mut().remove(0);
        first
            .send(Ok(Acked {
                first_seq: 0,
                record_count: 2,
            }))
            .unwrap();
        interrupt.send(()).unwrap();
        settle_tasks().await;
        // Nobody reads what comes now.
        assert!(input.is_closed() || input.send(Ok(Bytes::from("d\n"))).await.is_ok());
    })
    .await;
    let error = report.error("x").unwrap();
    assert_eq!(error.exit, Exit::Interrupted);
    assert!(error.effect.contains("lines 1-2: in the log"), "{error}");
    assert!(error.effect.contains("line 3: unknown"), "{error}");
    assert!(
        error.effect.contains("line 4 and all after it: not sent"),
        "{error}"
    );
}
