//! What a run was told in order, and what it wanted done: history, as far as the state machine sees it.

use super::*;

/// A run's history.
pub(super) struct Log {
    started: Vec<Command>,
    entries: Vec<Entry>,
}

#[expect(clippy::large_enum_variant, reason = "few, and never moved")]
enum Entry {
    Ticket,
    Applied(Event, Moment, Vec<Command>),
    Resumed(Moment, Vec<Command>),
}

impl Log {
    pub(super) fn new(started: Vec<Command>) -> Self {
        Self { started, entries: vec![] }
    }

    pub(super) fn drew_ticket(&mut self) {
        self.entries.push(Entry::Ticket);
    }

    pub(super) fn applied(&mut self, event: Event, moment: Moment, commands: Vec<Command>) {
        self.entries.push(Entry::Applied(event, moment, commands));
    }

    pub(super) fn resumed(&mut self, moment: Moment, commands: Vec<Command>) {
        self.entries.push(Entry::Resumed(moment, commands));
    }

    /// Tells it all to a fresh run, which has to want the same.
    pub(super) fn replay(&self) -> AgentRun {
        let (mut run, started) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
        assert_eq!(started, self.started);
        for entry in &self.entries {
            match entry {
                Entry::Ticket => {
                    run.ticket();
                }
                Entry::Applied(event, moment, commands) => {
                    assert_eq!(&run.apply(event.clone(), *moment).unwrap(), commands, "{event:?}");
                }
                Entry::Resumed(moment, commands) => {
                    run = continued(&run);
                    assert_eq!(&run.resume(*moment), commands);
                }
            }
        }
        run
    }
}
