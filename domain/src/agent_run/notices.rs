//! What the configured webhook is told: new requests and questions, reminders, escalations, expiries. A run never waits
//! for it, but for a moment at its end.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{AgentRun, Command, Failure, Moment, Phase, Timer, UnexpectedEvent};
use crate::audit::NoticeId;

/// How long the end of a run waits for what is being told, in milliseconds.
const LAST_WORDS_MS: u64 = 30_000;
/// How many notices a run remembers. A call whose path is walked again asks for what people were told of before.
const BEGUN_MAX: usize = 256;

/// Notices under way, and those of before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notices {
    in_flight: Vec<NoticeId>,
    /// Under way or over: none is begun twice.
    #[serde(default)]
    begun: VecDeque<NoticeId>,
    /// Cancelled for continue-as-new: the next execution tells them.
    again: Vec<NoticeId>,
    /// All that are under way were cancelled.
    cancelling: bool,
    /// The run ends, and the timer for what is still being told was set.
    last_words: bool,
}

impl Notices {
    pub(super) fn none_in_flight(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn begin(&mut self, notice: NoticeId) {
        if self.begun.len() >= BEGUN_MAX {
            self.begun.pop_front();
        }
        self.begun.push_back(notice);
        self.in_flight.push(notice);
        self.cancelling = false;
    }
}

impl AgentRun {
    /// Tells the webhook, where one is configured.
    pub(super) fn notify(&mut self, notice: NoticeId, commands: &mut Vec<Command>) {
        if self.opened.as_ref().is_some_and(|opened| opened.notifies) && !self.notices.begun.contains(&notice) {
            self.notices.begin(notice);
            commands.push(Command::Notify { notice });
        }
    }

    pub(super) fn notified(
        &mut self,
        notice: NoticeId,
        failure: Option<&Failure>,
        commands: &mut Vec<Command>,
    ) -> Result<(), UnexpectedEvent> {
        let position = self.notices.in_flight.iter().position(|one| *one == notice);
        let position = position.ok_or_else(|| self.unexpected("Notified"))?;
        self.notices.in_flight.remove(position);
        let ending = matches!(self.phase, Phase::Stopping | Phase::Closing | Phase::Finished);
        if failure == Some(&Failure::Cancelled) && !ending {
            self.notices.begun.retain(|one| *one != notice);
            self.notices.again.push(notice);
        }
        if self.notices.none_in_flight() && self.notices.last_words {
            commands.push(Command::CancelTimer { timer: Timer::Notices });
        }
        Ok(())
    }

    /// Closes the run when nothing is being told any more. What still is gets a moment.
    pub(super) fn close_after_notices(&mut self, moment: Moment, commands: &mut Vec<Command>) {
        // What was put off for a next execution that does not come is told now.
        self.notify_again(commands);
        if self.notices.none_in_flight() {
            self.close(commands);
        } else if !std::mem::replace(&mut self.notices.last_words, true) {
            let at_ms = moment.now_ms.saturating_add(LAST_WORDS_MS);
            commands.push(Command::StartTimer { timer: Timer::Notices, at_ms });
        }
    }

    /// Whether nothing is being told, so that the run can continue as new. If not, it is told again there.
    pub(super) fn notices_put_off(&mut self, commands: &mut Vec<Command>) -> bool {
        if self.notices.none_in_flight() {
            return true;
        }
        self.cancel_notices(commands);
        false
    }

    pub(super) fn cancel_notices(&mut self, commands: &mut Vec<Command>) {
        if !std::mem::replace(&mut self.notices.cancelling, true) {
            commands.push(Command::CancelNotices);
        }
    }

    /// The end of the run has waited long enough.
    pub(super) fn last_words_spoken(&mut self, commands: &mut Vec<Command>) {
        self.cancel_notices(commands);
    }

    /// Tells again what was cancelled for a new execution.
    pub(super) fn notify_again(&mut self, commands: &mut Vec<Command>) {
        if self.notices.none_in_flight() {
            self.notices.cancelling = false;
        }
        for notice in std::mem::take(&mut self.notices.again) {
            self.notify(notice, commands);
        }
    }
}
