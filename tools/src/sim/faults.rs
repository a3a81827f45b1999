//! What may go wrong in a run, by name: each is on or off per seed, and can be taken away by name.

use std::fmt;

macro_rules! faults {
    ($($name:ident $text:literal $description:literal)*) => {
        /// One kind of fault or disturbance.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum Fault {
            $(#[doc = $description] $name,)*
        }

        impl Fault {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Fault::$name => $text,)* }
            }

            /// What it does.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Fault::$name => $description,)* }
            }
        }
    };
}

faults! {
    Loss "loss" "Messages are lost."
    Delay "delay" "Messages take up to hundreds of times longer than usual."
    Duplicate "duplicate" "Messages arrive twice."
    Replay "replay" "Messages arrive again much later."
    Datagrams "datagrams" "No connections: any message may overtake any other."
    Reset "reset" "Connections break and are made anew."
    Partition "partition" "Nodes are split into groups."
    OneWay "one-way" "A link carries messages in one direction only."
    Cut "cut" "Single links are cut, so that who reaches whom is no equivalence."
    Isolate "isolate" "The leader is left alone, or with one follower."
    Mute "mute" "The leader hears everybody and nobody hears it."
    CrashLeader "crash-leader" "A node that was just elected, or just heard of a new term, loses power."
    CrashCommit "crash-commit" "A leader loses power just after it appended."
    Crash "crash" "A node loses power, and any part of what it had not flushed."
    Kill "kill" "A node's process is killed; its disk goes on."
    PowerCut "power-cut" "All nodes lose power at once."
    Pause "pause" "A node stands still for a while."
    ClockRate "clock-rate" "Clocks run at different rates."
    ClockJump "clock-jump" "Wall clocks jump either way, monotonic ones forwards."
    SlowDisk "slow-disk" "A disk takes up to hundreds of times longer than usual."
    FlushFailure "flush-failure" "A write or flush fails: the node stops and is started again."
    DiskFull "disk-full" "A disk has no room for further segments for a while."
    BitFlip "bit-flip" "A bit of a stored entry changes on the disks of a minority."
    Wipe "wipe" "A node loses its disk for good, and never comes back under its id."
    Timers "timers" "Nodes have timers of their own, up to ten times apart."
    NoPreVote "no-pre-vote" "Neither pre-vote nor check-quorum."
    Membership "membership" "Members are added, promoted, removed and replaced."
    Transfer "transfer" "Leadership is handed over."
    Snapshot "snapshot" "Snapshots are taken and logs compacted every few entries."
    Trim "trim" "Logs are trimmed."
    Lease "lease" "Leaders answer reads under a lease."
}

/// Which kinds are on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FaultSet(u64);

impl FaultSet {
    /// These.
    #[must_use]
    pub fn of(faults: &[Fault]) -> Self {
        faults
            .iter()
            .fold(Self::default(), |set, fault| set.with(*fault))
    }

    /// Whether it is on.
    #[must_use]
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u8) != 0
    }

    /// With it.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u8)
    }

    /// Without any of `others`.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// With all of `others`.
    #[must_use]
    pub fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those that are on.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL
            .iter()
            .copied()
            .filter(move |fault| self.has(*fault))
    }

    /// Whether none is on.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set of these names, separated by commas.
    ///
    /// # Errors
    /// The name that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut set = Self::default();
        for name in text.split(',').filter(|name| !name.is_empty()) {
            let known = Fault::ALL.iter().find(|fault| fault.name() == name);
            set = set.with(*known.ok_or_else(|| {
                let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
                format!("no fault is named {name}: {}", names.join(", "))
            })?);
        }
        Ok(set)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            f.write_str(fault.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_text() {
        let set = FaultSet::of(&[Fault::Loss, Fault::Crash, Fault::Trim]);
        assert_eq!(FaultSet::parse(&set.to_string()), Ok(set));
        assert_eq!(
            set.without(FaultSet::of(&[Fault::Crash])).to_string(),
            "loss,trim"
        );
        assert!(FaultSet::parse("losses").is_err());
        assert!(Fault::ALL.len() <= 64);
    }
}
