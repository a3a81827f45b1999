//! Planted bugs, each a switch: evidence that tests and simulator find what they should.
//!
//! Without the feature `mutants`, which no product build has, [`is_planted`] is the constant `false` and
//! nothing of a planted bug is compiled in. With it, one bug at a time can be planted in the process.
//! It decides nothing and holds no protocol: the wrong branch stands where the right one is.

#[cfg(feature = "mutants")]
use core::sync::atomic::{AtomicU16, Ordering};

macro_rules! mutants {
    ($($name:ident $text:literal $description:literal)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u16)]
        pub enum Mutant {
            $(#[doc = $description] $name,)*
        }

        impl Mutant {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$name => $text,)* }
            }

            /// What is wrong with it.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Mutant::$name => $description,)* }
            }
        }
    };
}

mutants! {
    CommitPriorTerm "commit-prior-term"
        "A leader commits entries of earlier terms by counting (thesis figure 3.7, \"Figure 8\")."
    VoteIgnoresLog "vote-ignores-log"
        "A vote is given whatever the candidate's log holds."
    VoteByIndexOnly "vote-by-index-only"
        "Up to date is decided by the last index alone."
    VoteByComponent "vote-by-component"
        "Up to date means term and index each, not the pair in order."
    VoteResetOnStepDown "vote-reset-on-step-down"
        "A candidate or leader that steps down within its term forgets its vote."
    SecondVote "second-vote"
        "A second vote is given in the same term."
    VoteBeforeFlush "vote-before-flush"
        "A vote leaves before it is on disk."
    VoteRequestBeforeFlush "vote-request-before-flush"
        "A candidate asks for votes, and counts its own, before that is on disk."
    RefusalCounted "refusal-counted"
        "A refused vote counts as given."
    DuplicateVotesCounted "duplicate-votes-counted"
        "A vote that arrives twice counts twice."
    TermNotSaved "term-not-saved"
        "A term learned from others is not written to disk."
    NoStepDownOnHigherTerm "no-step-down-on-higher-term"
        "A leader ignores replies of a higher term."
    AckBeforeFlush "ack-before-flush"
        "A follower acknowledges entries before they are on disk."
    AckReportsLastIndex "ack-reports-last-index"
        "A follower acknowledges its last entry, not the last one this leader verified."
    LeaderCountsUnflushed "leader-counts-unflushed"
        "A leader counts its own entries before they are on its disk."
    FlushOfTruncatedCounted "flush-of-truncated-counted"
        "The flush of an entry that was replaced counts for the new one (ABA)."
    TruncateWithoutConflict "truncate-without-conflict"
        "An append removes whatever follows what it carries."
    NoTruncateOnConflict "no-truncate-on-conflict"
        "A follower keeps its own entry where the leader's differs."
    PrevTermIgnored "prev-term-ignored"
        "The entry before an append is compared by index alone."
    FollowerCommitUncapped "follower-commit-uncapped"
        "A follower commits what the leader has committed, verified or not."
    HeartbeatCommitUncapped "heartbeat-commit-uncapped"
        "A heartbeat commits whatever the follower holds at its commit index."
    StaleAppendAccepted "stale-append-accepted"
        "An append of an earlier term is taken."
    StaleAckCounted "stale-ack-counted"
        "An acknowledgement of an earlier term is counted."
    SessionUnchecked "session-unchecked"
        "Acknowledgements of an earlier session or membership are counted."
    WindowLeaks "window-leaks"
        "Bytes in flight stay counted when the window is cleared."
    QuorumHalf "quorum-half"
        "Half of the voters are a quorum."
    JointIncomingOnly "joint-incoming-only"
        "A joint configuration needs only the new majority."
    LearnerCounts "learner-counts"
        "A learner's acknowledgement counts towards commitment."
    LeaderOutsideCounts "leader-outside-counts"
        "A leader that is no voter any more counts itself."
    ConfigurationWhenCommitted "configuration-when-committed"
        "A configuration is in force when it is committed, on each node when it learns of it."
    ConfigurationNotRolledBack "configuration-not-rolled-back"
        "A truncated configuration stays in force."
    ConcurrentChanges "concurrent-changes"
        "A change is taken before the last one is committed."
    TwoVoterStep "two-voter-step"
        "Several voters come and go in one simple change."
    ChangeBeforeTermCommit "change-before-term-commit"
        "A change is taken before the leader has committed in its term (the bug of 2015)."
    JointNotLeft "joint-not-left"
        "A leader does not leave a joint configuration that it has not begun."
    SnapshotKeepsConflict "snapshot-keeps-conflict"
        "A snapshot keeps a log that conflicts with it."
    SnapshotBelowCommit "snapshot-below-commit"
        "A snapshot older than what is committed is installed."
    ReadWithoutRound "read-without-round"
        "A leader answers linearizable reads without asking a quorum."
    ReadBeforeTermCommit "read-before-term-commit"
        "A new leader answers reads from a commit index that may be old."
    ReadRoundReused "read-round-reused"
        "Answers to an earlier read round confirm a later read."
    LeaseFromReply "lease-from-reply"
        "A lease counts from when the answers came, not from when the round was sent."
    LeaseDuringTransfer "lease-during-transfer"
        "A leader keeps its lease while and after it hands over."
    LeasePromiseForgotten "lease-promise-forgotten"
        "A voter does not keep what a lease stands on."
    PreVoteOwnTerm "pre-vote-own-term"
        "A granted pre-vote carries the voter's term."
    TimerResetByRequests "timer-reset-by-requests"
        "Any vote request restarts the election timer."
    TimersNotRandom "timers-not-random"
        "Election timeouts are all the same."
    NoCheckQuorum "no-check-quorum"
        "A leader that nobody hears keeps the lead."
    NoStickiness "no-stickiness"
        "A node that hears its leader helps to depose it."
    NoDeduplication "no-deduplication"
        "A batch is appended again when it comes again."
    DuplicateAnsweredEarly "duplicate-answered-early"
        "A repeated batch is acknowledged while the first one is not committed."
    AcknowledgedBeforeCommit "acknowledged-before-commit"
        "A batch is acknowledged when it is in the leader's log."
    WaitersKept "waiters-kept"
        "Who waits at a lost lead is answered by another leader's entry."
    ExpectSeqIgnored "expect-seq-ignored"
        "A conditional append is taken whatever it expects."
    ExpectSeqCommitted "expect-seq-committed"
        "A conditional append is compared with the committed end, not with the tail."
    FenceIgnored "fence-ignored"
        "An append is taken whatever fencing token it carries."
    FenceCommitted "fence-committed"
        "An append's token is compared with the committed fence, not with the one in flight."
    CloseCommitted "close-committed"
        "An append is taken behind a close that is not committed."
    AppendBehindDeletion "append-behind-deletion"
        "An append is taken behind a deletion that is not committed."
    TruncationKeepsFence "truncation-keeps-fence"
        "A fence stays though its entry was truncated."
    CreateTwice "create-twice"
        "A log that is being created is created again."
    TruncationKeepsAnswer "truncation-keeps-answer"
        "A truncated batch is still a duplicate."
    TruncationKeepsCreation "truncation-keeps-creation"
        "A log or producer stays though its entry was truncated."
    AppendWithoutRoom "append-without-room"
        "A follower takes what its log has no room for."
    AppendTimeBackwards "append-time-backwards"
        "A leader's append times follow its clock backwards."
    HintBeyondDurable "hint-beyond-durable"
        "The commit index on disk may name entries that are not."
    ReadBeforeApply "read-before-apply"
        "A linearizable read is served before its index is applied."
    TrimWhenAppended "trim-when-appended"
        "A trim counts before it is committed, and for good."
    SnapshotWithoutProducers "snapshot-without-producers"
        "A snapshot holds no producers."
    SnapshotWithoutMembers "snapshot-without-members"
        "A snapshot does not hold the members."
    RefusalUnconfirmed "refusal-unconfirmed"
        "A leader that was replaced while it stood still refuses for good what it does not know."
    TrimForgetsFirstBatch "trim-forgets-first-batch"
        "A trim leaves the first batch held without a mark, and what is needed moves back."
    SearchBehindMark "search-behind-mark"
        "A search for a time begins at the first mark of that time, behind earlier batches of it."
    SnapshotWithoutTimes "snapshot-without-times"
        "A snapshot does not hold when a log's last record was appended."
    SnapshotWithoutFences "snapshot-without-fences"
        "A snapshot knows no fencing tokens."
    SnapshotBeyondTrim "snapshot-beyond-trim"
        "A peer gets a snapshot after records that were not trimmed."
    SnapshotAcknowledgedEarly "snapshot-acknowledged-early"
        "A received snapshot is acknowledged before it is on disk."
    CompactionBeforeDurable "compaction-before-durable"
        "The log begins after a snapshot that is not on disk."
    ApplySkipsAfterSnapshot "apply-skips-after-snapshot"
        "The first entry after a snapshot is not applied."
    CarriedNotNeeded "carried-not-needed"
        "The log is compacted over entries that hold what was carried over."
    CarryWhenAppended "carry-when-appended"
        "Records are looked for in an entry that carries them over before it is committed, and for good."
    CarriedTimeTooEarly "carried-time-too-early"
        "What is left of carried batches counts as if it began as early as all of them did."
    SnapshotWithoutCarried "snapshot-without-carried"
        "A snapshot does not say what was carried over."
}

#[cfg(feature = "mutants")]
static PLANTED: AtomicU16 = AtomicU16::new(u16::MAX);

/// Plants one bug in this process, or none.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.store(mutant.map_or(u16::MAX, |m| m as u16), Ordering::Relaxed);
}

/// Whether this bug is planted.
#[inline(always)]
#[must_use]
pub fn is_planted(mutant: Mutant) -> bool {
    #[cfg(feature = "mutants")]
    {
        PLANTED.load(Ordering::Relaxed) == mutant as u16
    }
    #[cfg(not(feature = "mutants"))]
    {
        let _ = mutant;
        false
    }
}
