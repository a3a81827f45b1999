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
    "election-basic"
    "election-candidacy-before-flush"
    "election-candidate-restarted-in-term"
    "election-deposed-leader-keeps-vote"
    "election-duplicate-votes"
    "election-flush-not-charged-to-leader"
    "election-higher-term-deposes"
    "election-longer-log-older-term-loses"
    "election-one-vote-per-term"
    "election-shorter-log-loses"
    "election-split-vote"
    "election-stale-append-refused"
    "election-timer-kept-without-grant"
    "election-timer-moved-by-leader"
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
}
