//! What happened, in numbers.

use std::fmt;

/// A situation that the link must get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Situation {
    OpenedMidFrame,
    GatewayRestarted,
    ColdReset,
    Reflashed,
    Replugged,
    PortRenamed,
    BrokerReconnected,
    SequenceWrapped,
    OverflowedForHours,
    GapOverHeldRows,
    GapGrewInFlight,
    ReopeningAckLost,
    Undecodable,
    NewCard,
    Babbled,
    CreditZero,
    WelcomeForAnEarlierLife,
    RestartedUnderWelcome,
    RowsRefused,
    DeviceResetWithRowsAboard,
    RingTakenUp,
    OpenRowsReset,
    RingOfOtherChannels,
    DamagedRing,
}

impl Situation {
    pub(crate) const ALL: [Self; 24] = [
        Self::OpenedMidFrame,
        Self::GatewayRestarted,
        Self::ColdReset,
        Self::Reflashed,
        Self::Replugged,
        Self::PortRenamed,
        Self::BrokerReconnected,
        Self::SequenceWrapped,
        Self::OverflowedForHours,
        Self::GapOverHeldRows,
        Self::GapGrewInFlight,
        Self::ReopeningAckLost,
        Self::Undecodable,
        Self::NewCard,
        Self::Babbled,
        Self::CreditZero,
        Self::WelcomeForAnEarlierLife,
        Self::RestartedUnderWelcome,
        Self::RowsRefused,
        Self::DeviceResetWithRowsAboard,
        Self::RingTakenUp,
        Self::OpenRowsReset,
        Self::RingOfOtherChannels,
        Self::DamagedRing,
    ];
}

/// The longest, the sum and the count of some times.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) sum_ms: u64,
    pub(crate) longest_ms: u64,
    /// The plan in which it took longest.
    pub(crate) longest_in: u64,
}

impl Times {
    pub(crate) fn note(&mut self, ms: u64, plan: u64) {
        self.add(&Self { count: 1, sum_ms: ms, longest_ms: ms, longest_in: plan });
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ms += other.sum_ms;
        if other.longest_ms > self.longest_ms {
            (self.longest_ms, self.longest_in) = (other.longest_ms, other.longest_in);
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.sum_ms.checked_div(self.count).unwrap_or_default();
        write!(
            f,
            "{} times, mean {mean} ms, longest {} ms in plan {}",
            self.count, self.longest_ms, self.longest_in
        )
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) plans: u64,
    pub(crate) boots: u64,
    /// Rows that were sampled.
    pub(crate) sampled: u64,
    /// Rows that were handed up and are as they were sampled.
    pub(crate) rows: u64,
    pub(crate) gap_rows: u64,
    pub(crate) quarantined_rows: u64,
    /// Rows that went with a device's memory.
    pub(crate) reset_rows: u64,
    pub(crate) repeated_blocks: u64,
    pub(crate) duplicate_blocks: u64,
    pub(crate) bad_frames: u64,
    pub(crate) refused_messages: u64,
    /// From the end of all faults until everything was released.
    pub(crate) recovery: Times,
    /// From the opening of a quiet line until rows flowed.
    pub(crate) resume: Times,
    situations: [u64; Situation::ALL.len()],
}

impl Report {
    pub(crate) fn saw(&mut self, situation: Situation) {
        self.situations[situation as usize] += 1;
    }

    pub(crate) fn count(&self, situation: Situation) -> u64 {
        self.situations[situation as usize]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.plans += other.plans;
        self.boots += other.boots;
        self.sampled += other.sampled;
        self.rows += other.rows;
        self.gap_rows += other.gap_rows;
        self.quarantined_rows += other.quarantined_rows;
        self.reset_rows += other.reset_rows;
        self.repeated_blocks += other.repeated_blocks;
        self.duplicate_blocks += other.duplicate_blocks;
        self.bad_frames += other.bad_frames;
        self.refused_messages += other.refused_messages;
        self.recovery.add(&other.recovery);
        self.resume.add(&other.resume);
        for (sum, more) in self.situations.iter_mut().zip(other.situations) {
            *sum += more;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plans {}, boots {}, rows sampled {}", self.plans, self.boots, self.sampled)?;
        writeln!(
            f,
            "  handed up {}, in gaps {}, quarantined {}, gone with a device's memory {}",
            self.rows, self.gap_rows, self.quarantined_rows, self.reset_rows
        )?;
        writeln!(
            f,
            "  blocks repeated {}, come twice {}; frames damaged {}; messages refused {}",
            self.repeated_blocks, self.duplicate_blocks, self.bad_frames, self.refused_messages
        )?;
        writeln!(f, "  settled after the last fault: {}", self.recovery)?;
        writeln!(f, "  rows flow after the line was opened: {}", self.resume)?;
        for situation in Situation::ALL {
            writeln!(f, "  {:>8}  {situation:?}", self.count(situation))?;
        }
        Ok(())
    }
}
