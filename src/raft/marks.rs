//! Coverage marks: which rare branches were really taken, counted for the simulator's report.
//!
//! Written where the branch is, read by whoever reports; nothing decides by them. Without the feature
//! `marks` a mark is nothing.

#[cfg(feature = "marks")]
use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! marks {
    ($($name:ident $text:literal)*) => {
        /// A rare branch.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u16)]
        pub enum Mark {
            $(#[doc = $text] $name,)*
        }

        impl Mark {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [Mark] = &[$(Mark::$name,)*];

            /// What was done.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Mark::$name => $text,)* }
            }
        }
    };
}

marks! {
    VoteDuringFlush "a vote was asked for while term and vote were being flushed"
    JointLeftByNewLeader "a joint configuration was left by a leader that had not begun it"
    ConfigurationRolledBack "a configuration was taken back with its entry"
    SnapshotDuringChange "a snapshot was installed while a change of members was not committed"
    SnapshotReplacedLog "a snapshot replaced a log that conflicted or ended before it"
    SnapshotKeptLog "a snapshot found its last entry in the log"
    TransferAborted "a handover was given up"
    TransferTaken "a node campaigned because it was told to"
    ConflictTruncated "entries that conflicted were truncated"
    CommitBeforeOwnFlush "a leader committed what was not on its own disk"
    FollowerCommitBeforeFlush "a follower learned of a commit before its own flush"
    StaleSession "an acknowledgement of an earlier session was ignored"
    StaleFlush "a flush was ignored, since its entry was replaced meanwhile"
    LostAppendResent "appends that showed no sign of arriving were sent again"
    StuckToLeader "a vote was refused by a node that hears its leader"
    LeaderRemoved "a leader left the voters and handed over"
    ReadsShareRound "one round confirmed several reads"
    ReadForwarded "a follower's read was confirmed by its leader"
    ReadRepeated "a follower repeated its question"
    LeaseServed "a read was served from a lease"
    SteppedDownUnheard "a leader that heard no quorum stepped down"
    VoteHeldBack "a message waited for term and vote and was dropped by a newer term"
    DepartingTold "a member that left was told"
    CommittedByRemoval "a change of members committed entries at once"
    LearnerVoted "a node that is no voter gave its vote"
    EarlierTermFollowed "entries of earlier terms were committed by one of the leader's own"
    CandidateFollowed "a candidate gave way to the leader of its term"
}

#[cfg(feature = "marks")]
static COUNTS: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

/// The branch is taken.
#[inline(always)]
pub fn mark(mark: Mark) {
    #[cfg(feature = "marks")]
    COUNTS[mark as usize].fetch_add(1, Ordering::Relaxed);
    #[cfg(not(feature = "marks"))]
    let _ = mark;
}

/// How often the branch was taken in this process.
#[cfg(feature = "marks")]
#[must_use]
pub fn count(mark: Mark) -> u64 {
    COUNTS[mark as usize].load(Ordering::Relaxed)
}
