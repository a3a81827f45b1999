//! The scenarios, built in: the executable needs no files to run them.

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name of its file in tests/raft, without the ending.
    pub name: &'static str,
    /// The script.
    pub text: &'static str,
}

impl Scenario {
    /// Its file, from the root of the repository.
    #[must_use]
    pub fn file(&self) -> String {
        format!("tests/raft/{}.txt", self.name)
    }
}

macro_rules! scenarios {
    ($($name:literal)*) => {
        /// Every scenario, by name. A test holds this list against the directory.
        pub const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: $name,
            text: include_str!(concat!("../../../tests/raft/", $name, ".txt")),
        },)*];
    };
}

scenarios! {
    "append-ack-before-flush"
    "append-ack-only-verified"
    "append-ack-part-of-flush"
    "append-ack-prefix-of-longer-log"
    "append-delayed-prefix"
    "append-duplicate"
    "append-heartbeat-commit-beyond-log"
    "append-heartbeat-old-tail"
    "append-hint-not-below-commit"
    "append-hints-alternating"
    "append-hints-many-terms"
    "append-leader-only-appends"
    "append-reconnect-keeps-place"
    "append-reordered"
    "append-reordered-replies"
    "append-stale-rejection"
    "append-stale-term-ack"
    "checkquorum-cut-off-leader"
    "checkquorum-half-is-not-enough"
    "checkquorum-learner-does-not-count"
    "election-basic"
    "election-candidacy-before-flush"
    "election-candidate-gives-way"
    "election-candidate-restarted-in-term"
    "election-deposed-leader-keeps-vote"
    "election-duplicate-votes"
    "election-even-cluster"
    "election-flush-not-charged-to-leader"
    "election-higher-term-deposes"
    "election-learned-term-survives"
    "election-longer-log-older-term-loses"
    "election-one-vote-per-term"
    "election-shorter-log-loses"
    "election-single-voter"
    "election-split-vote"
    "election-stale-append-refused"
    "election-term-durable-before-entry"
    "election-timer-kept-without-grant"
    "election-timer-moved-by-leader"
    "election-timers-random"
    "election-two-nodes"
    "election-up-to-date-term-first"
    "election-vote-before-flush"
    "election-vote-kept-on-step-down"
    "election-vote-survives-restart"
    "election-votes-of-older-round"
    "figure-7-a"
    "figure-7-all"
    "figure-7-b"
    "figure-7-c"
    "figure-7-d"
    "figure-7-e"
    "figure-7-f"
    "figure-8-d"
    "figure-8-e"
    "lease-only-voter-restarted"
    "prevote-changes-nothing"
    "prevote-disrupted-node-returns"
    "prevote-lagging-log"
    "prevote-late-grant"
    "prevote-leader-asks"
    "prevote-off-disrupts"
    "prevote-refusal-teaches-term"
    "stickiness-ends"
    "stickiness-real-vote"
    "stickiness-refusal-and-stale-leader"
}
