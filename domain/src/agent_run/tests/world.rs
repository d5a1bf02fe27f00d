//! A simulated store, policy and set of people: enough to carry out any command in any order, lose answers, and notice
//! every broken promise.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::*, *};

/// Source of choices: proptest shrinks it.
pub(super) struct Choices {
    choices: std::vec::IntoIter<u16>,
}

impl Choices {
    pub(super) fn new(choices: Vec<u16>) -> Self {
        Self { choices: choices.into_iter() }
    }

    /// A number below `n`, or none when the source is used up.
    pub(super) fn pick(&mut self, n: usize) -> Option<usize> {
        self.choices.next().map(|choice| usize::from(choice) % n.max(1))
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.pick(n) == Some(0)
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

/// What policy says of a call, fixed when it is first asked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Policy {
    Allow,
    Deny,
    Gates(u32),
}

/// What the store knows of a call.
#[derive(Debug, Default)]
struct Stored {
    policy: Option<Policy>,
    requests: Vec<RequestId>,
    approved: BTreeSet<RequestId>,
    intents: u32,
    performed: u32,
    end: Option<Address>,
    unknown: bool,
}

/// The world outside of the state machine.
pub(super) struct World {
    pub(super) run: AgentRun,
    /// Commands under way.
    pub(super) under_way: Vec<Command>,
    timers: BTreeSet<RequestId>,
    calls: BTreeMap<ToolCallId, Stored>,
    calling: BTreeSet<ToolCallId>,
    last_reply: (u64, u32),
    next: u32,
    opened: bool,
    closed: u32,
    pub(super) finished: Option<AgentResult>,
    pub(super) now: u64,
    replies_owed: BTreeSet<Ticket>,
}

impl World {
    pub(super) fn start() -> Self {
        let (run, commands) = AgentRun::start(AgentName::parse("a/b/c").unwrap(), person("ana"));
        let mut world = Self {
            run,
            under_way: vec![],
            timers: BTreeSet::new(),
            calls: BTreeMap::new(),
            calling: BTreeSet::new(),
            last_reply: (0, 0),
            next: 10_000,
            opened: false,
            closed: 0,
            finished: None,
            now: 1_000_000,
            replies_owed: BTreeSet::new(),
        };
        world.take(commands);
        world
    }

    fn moment(&self, history_is_long: bool) -> Moment {
        Moment { now_ms: self.now, history_is_long }
    }

    /// Feeds an event that the machine must accept.
    fn feed(&mut self, event: Event, long: bool) {
        assert!(self.finished.is_none() || !event.name().starts_with("Tool"), "{event:?} after the end");
        let moment = self.moment(long);
        let name = event.name();
        let commands = self.run.apply(event, moment).unwrap_or_else(|error| panic!("{name}: {error}\n{:#?}", self.run));
        self.take(commands);
    }

    fn take(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::InvokeModel { append, turn, .. } => {
                    let ends: Vec<_> = (0..self.last_reply.1)
                        .map(|index| {
                            self.calls[&ToolCallId::new(turn - 1, index)].end.clone().expect("each call has a result")
                        })
                        .collect();
                    assert_eq!(append, ends, "exactly one result per call, in order");
                    self.under_way.push(Command::InvokeModel { turn, transcript: address(0), append });
                }
                Command::CallTool { call, released_by } => {
                    let stored = self.calls.entry(call).or_default();
                    assert!(
                        stored.end.is_none() && !stored.unknown && stored.intents == 0,
                        "{call} is called though it began"
                    );
                    assert!(self.calling.insert(call), "{call} is called twice at once");
                    assert_eq!(
                        released_by.is_some(),
                        !stored.requests.is_empty(),
                        "{call} is released by its people only"
                    );
                    assert!(
                        stored.requests.iter().all(|r| stored.approved.contains(r)),
                        "{call} is called without its approvals"
                    );
                    self.under_way.push(Command::CallTool { call, released_by });
                }
                Command::ContinueAsNew => self.continue_as_new(),
                Command::StartTimer { request, .. } => assert!(self.timers.insert(request), "one timer a request"),
                Command::CancelTimer { request } => assert!(self.timers.remove(&request), "a timer is cancelled once"),
                Command::Reply { ticket, .. } => assert!(self.replies_owed.remove(&ticket), "one answer a message"),
                Command::CloseRun(closing) => {
                    let unknown: Vec<_> = self.calls.iter().filter(|(_, s)| s.unknown).map(|(id, _)| *id).collect();
                    assert_eq!(closing.unknown_outcomes, unknown, "unknown outcomes are named");
                    self.closed += 1;
                    self.under_way.push(Command::CloseRun(closing));
                }
                Command::Finish(result) => {
                    assert!(self.finished.is_none() && self.under_way.is_empty(), "nothing is left behind");
                    assert!(self.closed == 1 || !self.opened, "closed once");
                    assert!(self.timers.is_empty(), "a timer is left: {:?} {:#?}", self.timers, self.run);
                    assert!(self.replies_owed.is_empty(), "an answer is owed: {:?} {:#?}", self.replies_owed, self.run);
                    assert!(result.state.is_terminal());
                    self.finished = Some(*result);
                }
                Command::Publish | Command::CancelEffects => {}
                effect @ (Command::OpenRun
                | Command::ResolveOutcome { .. }
                | Command::ReviewApproval { .. }
                | Command::ReviewInstruction { .. }) => self.under_way.push(effect),
            }
        }
    }

    fn continue_as_new(&mut self) {
        assert!(self.under_way.is_empty(), "continues only when nothing is under way: {:?}", self.under_way);
        let snapshot = serde_json::to_vec(&self.run).unwrap();
        assert!(snapshot.len() < 256 * 1024);
        self.run = serde_json::from_slice(&snapshot).unwrap();
        self.timers.clear();
        let commands = self.run.resume(self.moment(false));
        self.take(commands);
    }

    /// One random step. False when the choices are used up.
    pub(super) fn step(&mut self, choices: &mut Choices) -> bool {
        let long = choices.one_in(5);
        self.now += 500;
        match choices.pick(8) {
            None => return false,
            Some(0..5) if !self.under_way.is_empty() => {
                let position = choices.pick(self.under_way.len()).unwrap_or_default();
                let command = self.under_way.remove(position);
                self.complete(command, choices, long);
            }
            Some(5) => self.expire(choices, long),
            Some(6) => self.disturb(choices, long),
            Some(_) => self.decide(choices, long),
        }
        true
    }

    pub(super) fn complete(&mut self, command: Command, choices: &mut Choices, long: bool) {
        let lost = choices.one_in(6).then(|| Failure::Unavailable { detail: "lost".into() });
        let event = match command {
            Command::OpenRun => lost.map_or_else(|| self.open(choices), Event::OpenFailed),
            Command::InvokeModel { turn, .. } => lost.map_or_else(|| self.reply(turn, choices), Event::ModelFailed),
            Command::CallTool { call, .. } => self.perform(call, lost, choices),
            Command::ResolveOutcome { call } => self.look_up(call, lost),
            Command::ReviewApproval { call, subject } => self.review(call, &subject, lost, choices),
            Command::ReviewInstruction { resolution, .. } => self.resolve(resolution.call, lost, choices),
            Command::CloseRun(_) => lost.map_or(Event::Closed, Event::CloseFailed),
            other @ (Command::StartTimer { .. }
            | Command::CancelTimer { .. }
            | Command::CancelEffects
            | Command::Publish
            | Command::Reply { .. }
            | Command::ContinueAsNew
            | Command::Finish(_)) => unreachable!("{other:?}"),
        };
        self.feed(event, long);
    }

    fn open(&mut self, choices: &mut Choices) -> Event {
        self.opened = true;
        opened(RunLimits { turns_max: choices.pick(6).map_or(1, small), ..RunLimits::default() })
    }

    fn reply(&mut self, turn: u32, choices: &mut Choices) -> Event {
        if choices.one_in(12) {
            return Event::ModelRefused { by_policy: choices.one_in(2), reason: "no".into() };
        }
        let calls = small(choices.pick(4).unwrap_or_default());
        self.last_reply = (turn.into(), calls);
        replied(turn.into(), calls)
    }

    fn fresh(&mut self) -> Content {
        self.next += 1;
        content(self.next.into())
    }

    fn perform(&mut self, call: ToolCallId, lost: Option<Failure>, choices: &mut Choices) -> Event {
        self.calling.remove(&call);
        let drawn = match choices.pick(4) {
            Some(0) => Policy::Deny,
            Some(1) => Policy::Gates(1),
            Some(2) => Policy::Gates(2),
            _ => Policy::Allow,
        };
        let lost_before = lost.is_some() && choices.one_in(2);
        let result = self.fresh();
        let first = self.next;
        self.next += 2;
        let stored = self.calls.get_mut(&call).unwrap();
        if let (true, Some(failure)) = (lost_before, lost.clone()) {
            return Event::ToolFailed { call, failure };
        }
        let policy = *stored.policy.get_or_insert(drawn);
        let outcome = match policy {
            Policy::Deny => {
                stored.end = Some(result.address.clone());
                let refusal =
                    crate::Refusal { kind: crate::RefusalKind::Denied, policies: vec![], reason: "no".into() };
                ToolCallOutcome::Refused { result, refusal }
            }
            Policy::Gates(n) if stored.approved.len() < n as usize => {
                let requests: Vec<_> = (0..n).map(|i| request(call, "gate", first + i)).collect();
                if lost.is_none() {
                    stored.requests = requests.iter().map(|r| r.id.clone()).collect();
                }
                ToolCallOutcome::ApprovalRequired { requests }
            }
            Policy::Allow | Policy::Gates(_) => {
                stored.intents += 1;
                stored.performed += 1;
                assert_eq!((stored.intents, stored.performed), (1, 1), "{call} is performed twice");
                if choices.one_in(4) {
                    stored.unknown = true;
                    ToolCallOutcome::OutcomeUnknown { reason: "no answer".into() }
                } else {
                    stored.end = Some(result.address.clone());
                    ToolCallOutcome::Returned { result, is_error: false }
                }
            }
        };
        match lost {
            Some(failure) => Event::ToolFailed { call, failure },
            None => Event::ToolReturned { call, outcome },
        }
    }

    fn look_up(&mut self, call: ToolCallId, lost: Option<Failure>) -> Event {
        let stored = self.calls.get_mut(&call).unwrap();
        if let Some(failure) = lost {
            // Nobody can tell: whatever the store knows, the run must not take it as done or not done.
            stored.unknown = true;
            return Event::ResolveFailed { call, failure };
        }
        let outcome = match (&stored.end, stored.unknown) {
            (Some(end), _) => {
                let result = Content::describe(end.clone(), "text", 1024);
                ToolCallOutcome::Returned { result, is_error: false }
            }
            (None, true) => ToolCallOutcome::OutcomeUnknown { reason: "intent".into() },
            (None, false) => ToolCallOutcome::NotPerformed,
        };
        Event::OutcomeResolved { call, outcome }
    }

    fn review(&mut self, call: ToolCallId, subject: &Subject, lost: Option<Failure>, choices: &mut Choices) -> Event {
        if let Some(failure) = lost {
            return Event::ReviewFailed { call, failure };
        }
        let result = self.fresh();
        let stored = self.calls.get_mut(&call).unwrap();
        let (id, verdict) = match subject {
            Subject::Decision { decision, .. } => (&decision.request, Some(decision.verdict)),
            Subject::Expiry { request } => (request, None),
        };
        let decidable = verdict.is_none() || !stored.approved.contains(id);
        let open = stored.requests.contains(id) && decidable && stored.end.is_none() && stored.intents == 0;
        let review = match verdict {
            _ if !open => Review::AlreadyDecided,
            Some(_) if choices.one_in(3) => Review::Refused { reason: "not an approver".into() },
            Some(Verdict::Approve) if choices.one_in(4) => Review::Counted { votes: 1, quorum_reached: false },
            Some(Verdict::Approve) => {
                stored.approved.insert(id.clone());
                Review::Counted { votes: 1, quorum_reached: true }
            }
            Some(Verdict::Reject) => {
                stored.end = Some(result.address.clone());
                Review::Rejected { result }
            }
            None => {
                stored.end = Some(result.address.clone());
                Review::Expired { result }
            }
        };
        Event::ApprovalReviewed { call, review }
    }

    fn resolve(&mut self, call: ToolCallId, lost: Option<Failure>, choices: &mut Choices) -> Event {
        if let Some(failure) = lost {
            return Event::InstructionFailed { call, failure };
        }
        let result = self.fresh();
        if choices.one_in(3) {
            return Event::InstructionReviewed { call, settled: None, refused: Some("not allowed".into()) };
        }
        let stored = self.calls.get_mut(&call).unwrap();
        stored.unknown = false;
        stored.end = Some(result.address.clone());
        let settled = Some(ToolCallOutcome::Returned { result, is_error: false });
        Event::InstructionReviewed { call, settled, refused: None }
    }

    fn owe(&mut self) -> Ticket {
        let ticket = self.run.ticket();
        self.replies_owed.insert(ticket);
        ticket
    }

    fn expire(&mut self, choices: &mut Choices, long: bool) {
        let Some(request) = choices.pick(self.timers.len()).and_then(|n| self.timers.iter().nth(n).cloned()) else {
            return;
        };
        self.now = self.now.max(1_060_000 + self.now % 7);
        self.feed_timer(request, long);
    }

    fn feed_timer(&mut self, request: RequestId, long: bool) {
        // A fired timer is over; the machine may still cancel it in the same breath, which the SDK ignores.
        self.feed(Event::DeadlineReached { request }, long);
    }

    fn disturb(&mut self, choices: &mut Choices, long: bool) {
        if self.finished.is_some() {
            return;
        }
        match choices.pick(12) {
            Some(0) => self.feed(Event::HaltRequested(HaltRequest { by: person("op"), comment: None }), long),
            Some(1) => self.feed(Event::CancelRequested, long),
            Some(2..5) => self.feed(Event::MessageRefused { reason: "junk".into() }, long),
            Some(5..9) => {
                let call = ToolCallId::new(self.run.turn(), small(choices.pick(4).unwrap_or_default()));
                let ticket = self.owe();
                let (resolution, by) = (Resolution::Happened, person("bo"));
                let resolution = ResolveCall { call, resolution, by, comment: None };
                self.feed(Event::ResolutionReceived { ticket, resolution }, long);
            }
            _ => self.expect_refusals(),
        }
    }

    /// Events that the state excludes are refused and change nothing.
    fn expect_refusals(&mut self) {
        let before = self.run.clone();
        let foreign = ToolCallId::new(99, 9);
        let outcome = ToolCallOutcome::NotPerformed;
        for event in [
            Event::ToolReturned { call: foreign, outcome: outcome.clone() },
            Event::OutcomeResolved { call: foreign, outcome },
            Event::ApprovalReviewed { call: foreign, review: Review::AlreadyDecided },
        ] {
            assert!(self.run.apply(event, self.moment(false)).is_err());
        }
        assert_eq!(self.run, before);
    }

    fn decide(&mut self, choices: &mut Choices, long: bool) {
        let known: Vec<_> = self.calls.values().flat_map(|stored| stored.requests.clone()).collect();
        let id = match choices.pick(known.len() + 1) {
            Some(n) if n < known.len() => known[n].clone(),
            _ => RequestId::parse("r9-abcdef").unwrap(),
        };
        if self.finished.is_some() {
            return;
        }
        let verdict = if choices.one_in(3) { Verdict::Reject } else { Verdict::Approve };
        let ticket = self.owe();
        self.feed(Event::DecisionReceived { ticket, decision: decision(&id, verdict) }, long);
    }

    /// Halts and completes whatever is under way, until the run is over.
    pub(super) fn finish(&mut self) {
        let mut none = Choices::new(vec![]);
        if self.finished.is_none() {
            self.feed(Event::HaltRequested(HaltRequest { by: person("op"), comment: None }), false);
        }
        for _ in 0..200 {
            let Some(command) = self.under_way.pop() else { break };
            self.complete(command, &mut none, false);
        }
    }

    /// No effect was performed more than once, whatever happened.
    pub(super) fn performed_at_most_once(&self) -> bool {
        self.calls.values().all(|stored| stored.performed <= 1)
    }
}
