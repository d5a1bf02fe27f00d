//! A simulated store, policy, webhook and set of people: enough to carry out any command in any order, lose answers, and
//! notice every broken promise. The promises are in `promises.rs`, the answers of activities in `store.rs`, what people
//! and clocks do in `people.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::*, *};
use log::Log;
use promises::Before;
use store::Stored;

mod log;
mod people;
mod promises;
mod store;

/// Source of choices: proptest shrinks it.
pub(super) struct Choices {
    choices: std::vec::IntoIter<u16>,
}

impl Choices {
    pub(super) fn new(choices: Vec<u16>) -> Self {
        Self { choices: choices.into_iter() }
    }

    /// `n` choices that the seed decides (`SplitMix64`, by Steele, Lea and Flood).
    pub(super) fn seeded(seed: u64, n: usize) -> Self {
        let mut state = seed;
        let next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u16::try_from((mixed ^ (mixed >> 31)) >> 48).unwrap()
        };
        Self::new(std::iter::repeat_with(next).take(n).collect())
    }

    /// A number below `n`, or none when the source is used up.
    pub(super) fn pick(&mut self, n: usize) -> Option<usize> {
        self.choices.next().map(|choice| usize::from(choice) % n.max(1))
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.pick(n) == Some(0)
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

/// What a world is like, beside what is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    /// A webhook is configured.
    pub(super) notifies: bool,
    /// And it never answers.
    pub(super) silent: bool,
    /// Calls of the first turn, each of which waits at one gate. None: as drawn.
    pub(super) gated_calls: Option<u32>,
    /// Activities that are lost, as one in so many. None: none is.
    pub(super) losses: Option<usize>,
    /// What calls did is undone, whatever stops the run.
    pub(super) compensates: bool,
}

/// The world outside of the state machine.
#[expect(clippy::struct_excessive_bools, reason = "what is to happen once, each by itself")]
pub(super) struct World {
    pub(super) run: AgentRun,
    pub(super) settings: Settings,
    /// Commands under way.
    pub(super) under_way: Vec<Command>,
    /// Timers that are set, and when they fire.
    pub(super) timers: BTreeMap<Timer, u64>,
    /// Timers that fired and were not cancelled since.
    fired: BTreeSet<Timer>,
    pub(super) calls: BTreeMap<ToolCallId, Stored>,
    calling: BTreeSet<ToolCallId>,
    /// Calls about which a decision, an expiry or an escalation is being reviewed.
    reviewing: BTreeSet<ToolCallId>,
    /// Ticket of the last instruction whose review began.
    instructed: Ticket,
    /// The last reply: its turn and how many calls it proposed.
    last_reply: (u32, u32),
    next: u32,
    opened: bool,
    closed: u32,
    pub(super) finished: Option<AgentResult>,
    now: u64,
    replies_owed: BTreeSet<Ticket>,
    /// What each message was told.
    pub(super) answers: BTreeMap<Ticket, Answer>,
    /// Decisions that came before the deadline of their call and were not answered yet.
    undecided: BTreeMap<Ticket, ToolCallId>,
    /// Calls whose time is over.
    overdue: BTreeSet<ToolCallId>,
    /// A pause counts, and no resume behind it.
    paused: bool,
    /// Instructions that count, in the order in which they were taken, and how many the model was given.
    steered: Vec<Address>,
    delivered: usize,
    /// Notices that began, and those of them that were cancelled and are not back.
    begun: BTreeSet<NoticeId>,
    cancelled: BTreeSet<NoticeId>,
    effects_cancelled: bool,
    /// Calls that completed, as the run was told, in that order; and those that are being undone.
    completed: Vec<ToolCallId>,
    undoing: Vec<ToolCallId>,
    /// The gate of the expiry that was just recorded stops the run.
    halts: bool,
    /// Policy denies every second walk from now on.
    pub(super) policy_changed: bool,
    /// The next execution that is asked for does not come: a message came in first.
    declines: bool,
    pub(super) executions: u32,
    log: Log,
    /// Events and answers that were handed out.
    pub(super) seen: BTreeSet<String>,
}

impl World {
    pub(super) fn start(settings: Settings) -> Self {
        let (run, commands) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
        let mut world = Self {
            run,
            settings,
            under_way: vec![],
            timers: BTreeMap::new(),
            fired: BTreeSet::new(),
            calls: BTreeMap::new(),
            calling: BTreeSet::new(),
            reviewing: BTreeSet::new(),
            instructed: 0,
            last_reply: (0, 0),
            next: 10_000,
            opened: false,
            closed: 0,
            finished: None,
            now: NOW.now_ms,
            replies_owed: BTreeSet::new(),
            answers: BTreeMap::new(),
            undecided: BTreeMap::new(),
            overdue: BTreeSet::new(),
            paused: false,
            steered: vec![],
            delivered: 0,
            begun: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            effects_cancelled: false,
            completed: vec![],
            undoing: vec![],
            halts: false,
            policy_changed: false,
            declines: false,
            executions: 1,
            log: Log::new(commands.clone()),
            seen: BTreeSet::new(),
        };
        world.take(commands);
        world
    }

    fn moment(&self, history_is_long: bool) -> Moment {
        Moment { now_ms: self.now, history_is_long }
    }

    /// Feeds an event that the machine must accept.
    pub(super) fn feed(&mut self, event: &Event, long: bool) {
        assert!(self.finished.is_none(), "{event:?} after the end");
        let moment = self.moment(long);
        self.seen.insert(event.name().to_owned());
        let before = Before::of(&self.run);
        let commands = self.run.apply(event.clone(), moment).unwrap_or_else(|e| panic!("{e}\n{:#?}", self.run));
        self.log.applied(event.clone(), moment, commands.clone());
        self.completes(event);
        self.take(commands);
        self.follows(&before, event);
    }

    fn take(&mut self, commands: Vec<Command>) {
        let mut continues = false;
        for command in commands {
            self.expect(&command);
            match command {
                Command::StartTimer { timer, at_ms } => {
                    self.fired.remove(&timer);
                    assert!(self.timers.insert(timer, at_ms).is_none(), "a timer is set once");
                }
                Command::CancelTimer { timer } => {
                    let known = self.timers.remove(&timer).is_some() || self.fired.remove(&timer);
                    assert!(known, "{timer} is cancelled once");
                }
                Command::Reply { ticket, answer } => {
                    assert!(self.replies_owed.remove(&ticket), "one answer a message");
                    self.undecided.remove(&ticket);
                    self.answers.insert(ticket, answer);
                }
                Command::CancelNotices => self.cancelled.extend(self.being_told()),
                Command::CancelEffects => self.effects_cancelled = true,
                Command::ContinueAsNew => continues = true,
                Command::Finish(result) => self.finished = Some(*result),
                Command::Publish => {}
                effect @ (Command::OpenRun
                | Command::InvokeModel { .. }
                | Command::CallTool { .. }
                | Command::Compensate { .. }
                | Command::ResolveOutcome { .. }
                | Command::ReviewApproval { .. }
                | Command::ReviewInstruction { .. }
                | Command::Notify { .. }
                | Command::CloseRun(_)) => self.under_way.push(effect),
            }
        }
        if continues && !std::mem::take(&mut self.declines) {
            self.continue_as_new();
        }
    }

    fn being_told(&self) -> Vec<NoticeId> {
        let notice = |command: &Command| match command {
            Command::Notify { notice } => Some(*notice),
            _ => None,
        };
        self.under_way.iter().filter_map(notice).collect()
    }

    fn continue_as_new(&mut self) {
        assert!(self.under_way.is_empty(), "continues only when nothing is under way: {:?}", self.under_way);
        let snapshot = serde_json::to_vec(&self.run).unwrap();
        assert!(snapshot.len() < 256 * 1024);
        let timers = std::mem::take(&mut self.timers);
        self.fired.clear();
        self.executions += 1;
        self.run = serde_json::from_slice(&snapshot).unwrap();
        let moment = self.moment(false);
        let commands = self.run.resume(moment);
        self.log.resumed(moment, commands.clone());
        self.take(commands);
        let mut set_again = self.timers.clone();
        set_again.remove(&Timer::Notices);
        assert_eq!(set_again, timers, "timers are set again, each for its time");
    }

    /// One random step. False when the choices are used up.
    pub(super) fn step(&mut self, choices: &mut Choices) -> bool {
        let long = choices.one_in(5);
        self.declines = choices.one_in(8);
        self.now += 500;
        match choices.pick(10) {
            None => return false,
            Some(0..6) if !self.under_way.is_empty() => {
                let position = choices.pick(self.under_way.len()).unwrap_or_default();
                self.complete(position, choices, long);
            }
            Some(6) => self.fire_any(choices, long),
            Some(7) => self.disturb(choices, long),
            Some(8) => self.instruct(choices, long),
            Some(_) => self.decide(choices, long),
        }
        self.declines = false;
        true
    }

    /// Halts and completes whatever is under way, until the run is over.
    pub(super) fn finish(&mut self) {
        // The first halt may begin to undo, and people may be asked about that. The second one ends it.
        for halt in [halt(), halt_once_more(60_000)] {
            if self.finished.is_none() {
                self.feed(&halt, false);
            }
            self.settle();
        }
    }

    /// Completes whatever is under way, one after the other and without further losses, until nothing is.
    pub(super) fn settle(&mut self) {
        let mut none = Choices::new(vec![]);
        for _ in 0..400 {
            if let Some(position) = (0..self.under_way.len()).rev().find(|position| self.can_complete(*position)) {
                self.complete(position, &mut none, false);
            } else if self.timers.contains_key(&Timer::Notices) {
                self.fire(Timer::Notices, false);
            } else {
                break;
            }
        }
    }

    /// The same events on a fresh run give the same commands and the same state.
    pub(super) fn replays(&self) -> bool {
        self.log.replay() == self.run
    }

    /// No effect was performed more than once, whatever happened.
    pub(super) fn performed_at_most_once(&self) -> bool {
        self.calls.values().all(|stored| stored.performed <= 1)
    }
}
