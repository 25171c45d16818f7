//! What is counted over all guests, and when it is trouble.

use super::sinks::SlotTotals;

/// What is counted over all guests and slots.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) waiting: u32,
    pub(super) polled: u32,
    pub(super) failing: u32,
    pub(super) silent: u32,
    pub(super) idle: u32,
    pub(super) new: u32,
    /// Over all sinks.
    pub(super) slots: SlotTotals,
}

impl Totals {
    /// That no guest answers, from the first failure of each on; else how many have not for a while.
    pub(super) fn guest_trouble(&self) -> Option<String> {
        let Self {
            failing, silent, ..
        } = self;
        let has_others = self.waiting + self.polled + self.new > 0;
        match (failing + silent, silent) {
            (1.., _) if !has_others => Some(format!(
                "no guest answers: {failing} failing, {silent} silent"
            )),
            (_, 1..) => Some(format!("silent guests: {silent}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(answering: u32, new: u32, failing: u32, silent: u32) -> Option<String> {
        let totals = Totals {
            polled: answering,
            new,
            failing,
            silent,
            // Not asked, so that it cannot answer either.
            idle: 1,
            ..Totals::default()
        };
        totals.guest_trouble()
    }

    /// The loss: a sensor that says it is well while nothing is known of any guest any more.
    #[test]
    fn guests_of_which_none_answers_are_trouble_before_they_are_silent() {
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(
            trouble(0, 0, 2, 0),
            said("no guest answers: 2 failing, 0 silent")
        );
        assert_eq!(
            trouble(0, 0, 1, 1),
            said("no guest answers: 1 failing, 1 silent")
        );
        assert_eq!(trouble(0, 1, 1, 1), said("silent guests: 1"));
        assert_eq!(trouble(1, 0, 5, 2), said("silent guests: 2"));
        assert_eq!(trouble(1, 0, 5, 0), None);
        assert_eq!(trouble(0, 2, 1, 0), None, "not asked yet");
        assert_eq!(trouble(0, 0, 0, 0), None, "no guest to ask");
    }
}
