//! Policy cases: `policies/tests/*.toml`, read against the folder they test. A case that could never happen (an unknown
//! name, arguments that no call could have) is a problem with its place, not a failing case.

use std::{
    collections::BTreeSet,
    fmt::Display,
    path::{Path, PathBuf},
};

use mandate_domain::{
    AgentName, DataClass, DecisionOutcome, GroupName, ModelName, PersonId, PolicyId, QuarantineTarget, ToolDefinition,
    ToolName, Verdict,
    policy::case::{Answered, Asked, CaseAct, CaseRun, CaseViewer, PolicyCase},
    tool::arguments::ArgumentsSchema,
};

use super::{
    Config, ConfigErrors,
    folder::files_with_extension,
    problems::{Problems, suggestion},
    reader::{At, Table, parse, read_table},
};

mod facts;

/// Where the cases of a folder stand.
const FOLDER: &str = "policies/tests";

/// The workflow id of a case that names none.
const WORKFLOW_ID: &str = "policy-case";

/// What a person can do in a case.
const ACTS: [&str; 11] = [
    "start_run",
    "approve",
    "reject",
    "answer",
    "resolve",
    "steer",
    "pause",
    "resume",
    "quarantine",
    "lift_quarantine",
    "apply",
];

/// The answers that a case can expect.
const OUTCOMES: [DecisionOutcome; 3] =
    [DecisionOutcome::Allow, DecisionOutcome::Deny, DecisionOutcome::RequireApproval];

/// A case and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseAt {
    /// What it is called.
    pub name: String,
    /// Its file, relative to the operating folder if it is inside.
    pub file: PathBuf,
    /// Its line.
    pub line: usize,
    /// The case.
    pub case: PolicyCase,
}

impl Config {
    /// Reads the policy cases of files and folders; of `policies/tests` in the operating folder if none is named.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong; that there is no case at all is wrong too.
    pub fn policy_cases(&self, paths: &[PathBuf]) -> Result<Vec<CaseAt>, ConfigErrors> {
        let problems = Problems::default();
        let mut cases = Vec::new();
        for file in files(&problems, &self.folder, paths) {
            cases.extend(Reader { config: self, problems: &problems }.file(&file));
        }
        if cases.is_empty() && problems.is_empty() {
            let path = paths.first().map_or(Path::new(FOLDER), PathBuf::as_path);
            let help = "write `[[case]]` into a file that ends in `.toml`; docs/policies.md has examples";
            problems.file(path, "there are no policy cases", Some(help));
        }
        if problems.is_empty() { Ok(cases) } else { Err(problems.into_errors(&self.folder)) }
    }
}

fn files(problems: &Problems, folder: &Path, paths: &[PathBuf]) -> Vec<PathBuf> {
    if paths.is_empty() {
        return files_with_extension(problems, folder, Path::new(FOLDER), "toml");
    }
    let mut files = Vec::new();
    for path in paths {
        match path.canonicalize() {
            Ok(found) => {
                let inside = found.strip_prefix(folder).map_or(found.clone(), Path::to_owned);
                if found.is_dir() {
                    files.extend(files_with_extension(problems, folder, &inside, "toml"));
                } else {
                    files.push(inside);
                }
            }
            Err(error) => problems.file(path, format!("it cannot be read: {error}"), None),
        }
    }
    files
}

/// Reads cases against a configuration.
struct Reader<'a> {
    config: &'a Config,
    problems: &'a Problems,
}

impl<'a> Reader<'a> {
    fn file(&self, path: &Path) -> Vec<CaseAt> {
        let Some(mut table) = read_table(self.problems, &self.config.folder, path) else { return Vec::new() };
        let mut cases: Vec<CaseAt> = Vec::new();
        for mut case in table.tables("case") {
            let Some(name) = case.required_text("name") else {
                // Told apart by their names: the others are read all the same.
                case.ignore_rest();
                continue;
            };
            if cases.iter().any(|other| other.name == name.value) {
                let message = format!("case `{}` is in this file twice", name.value);
                self.problems.at(&name.place, message, "used before", None);
            }
            let line = self.problems.line_of(&name.place);
            let read = self.case(&mut case);
            if read.is_none() && self.problems.is_empty() {
                // A case that is not run must never look like one that passed.
                self.problems.at(&name.place, format!("case `{}` cannot be read", name.value), "this one", None);
            }
            case.finish();
            cases.extend(read.map(|case| CaseAt { name: name.value, file: path.to_owned(), line, case }));
        }
        table.finish();
        cases
    }

    fn case(&self, table: &mut Table<'_>) -> Option<PolicyCase> {
        let is_look = table.has("reveal") && !table.has("person");
        let asked = self.asked(table);
        let expected = if is_look { revealed(table, asked.as_ref()) } else { outcome(table) };
        let policies = self.policies(table, "policies");
        let reason = table.text("reason").map(|reason| reason.value);
        Some(PolicyCase { asked: asked?, expected: expected?, policies, reason })
    }

    fn asked(&self, table: &mut Table<'_>) -> Option<Asked> {
        if table.has("person") {
            self.act(table)
        } else if table.has("reveal") {
            self.look(table)
        } else if table.has("tool") {
            self.call(table)
        } else if table.has("model") {
            let (run, model) = (self.run(table), self.model(table));
            let before = self.facts(table);
            Some(Asked::InvokeModel { run: run?, model: model?, before: before? })
        } else {
            let message = "nothing says what is asked: `tool`, `model`, `person` or `reveal` is missing";
            self.problems.at(&table.place, message, "add one of them", None);
            table.ignore_rest();
            None
        }
    }

    fn call(&self, table: &mut Table<'_>) -> Option<Asked> {
        let (run, tool) = (self.run(table), self.tool(table));
        let arguments = table.table("arguments").map(|arguments| (arguments.place.clone(), arguments.into_json()));
        let (place, arguments) = arguments.unwrap_or_else(|| (table.place.clone(), serde_json::Map::new()));
        let approved = self.policies(table, "approved").unwrap_or_default();
        let before = self.facts(table);
        let tool = tool?;
        // Compiled when the folder was loaded.
        let schema = ArgumentsSchema::compile(&tool.input_schema).ok()?;
        if let Err(error) = schema.check(&arguments) {
            self.problems.at(&place, format!("no call of `{}` is like this: {error}", tool.name), "not accepted", None);
            return None;
        }
        Some(Asked::CallTool { run: run?, tool: Box::new(tool.clone()), arguments, before: before?, approved })
    }

    fn look(&self, table: &mut Table<'_>) -> Option<Asked> {
        let classes = table.required_texts("reveal").map(|classes| self.classes(classes.value));
        let on_behalf_of = table.required_parsed::<PersonId>("on_behalf_of");
        let viewer = table.required_text("viewer").and_then(|viewer| self.viewer(table, &viewer));
        Some(Asked::Reveal { viewer: viewer?, on_behalf_of: on_behalf_of?.value, classes: classes? })
    }

    fn viewer(&self, table: &mut Table<'_>, viewer: &At<String>) -> Option<CaseViewer> {
        match viewer.value.as_str() {
            "history" => Some(CaseViewer::History),
            "answer" => Some(CaseViewer::Answer),
            "group" => {
                let name = table.required_parsed::<GroupName>("group")?;
                let known = self.config.policy.registry().groups.keys();
                self.known("group", &name, known.map(GroupName::as_str)).then_some(CaseViewer::Group(name.value))
            }
            "agent" => {
                let (agent, agent_owner) = self.agent(table)?;
                let own = self.config.catalog.agents.get(&agent)?.model.clone();
                let model = if table.has("model") { self.model(table)? } else { own };
                Some(CaseViewer::Agent { agent, agent_owner, model })
            }
            other => {
                let help = suggestion(other, ["agent", "group", "history", "answer"]);
                let message = format!("unknown viewer `{other}`");
                self.problems.at(&viewer.place, message, "unknown viewer", Some(help));
                table.ignore_rest();
                None
            }
        }
    }

    fn act(&self, table: &mut Table<'_>) -> Option<Asked> {
        let person = table.required_parsed::<PersonId>("person");
        let act = table.required_text("act");
        let Some(act) = act else {
            table.ignore_rest();
            return None;
        };
        let act = match act.value.as_str() {
            "start_run" => self.run(table).map(CaseAct::StartRun),
            "approve" => self.decide(table, Verdict::Approve),
            "reject" => self.decide(table, Verdict::Reject),
            "answer" => self.about_call(table).map(|(run, tool)| CaseAct::Answer { run, tool }),
            "resolve" => self.about_call(table).map(|(run, tool)| CaseAct::Resolve { run, tool }),
            "steer" => self.run(table).map(CaseAct::Steer),
            "pause" => self.run(table).map(CaseAct::Pause),
            "resume" => self.run(table).map(CaseAct::Resume),
            "quarantine" => target(table).map(CaseAct::Quarantine),
            "lift_quarantine" => target(table).map(CaseAct::LiftQuarantine),
            "apply" => Some(CaseAct::Apply { rollback: table.flag("rollback").is_some_and(|flag| flag.value) }),
            other => {
                let message = format!("unknown act `{other}`");
                self.problems.at(&act.place, message, "unknown act", Some(suggestion(other, ACTS)));
                table.ignore_rest();
                None
            }
        };
        Some(Asked::Act { person: person?.value, act: act? })
    }

    fn decide(&self, table: &mut Table<'_>, verdict: Verdict) -> Option<CaseAct> {
        let about = self.about_call(table);
        let gate = table.required_parsed::<PolicyId>("gate").filter(|gate| self.known("policy", gate, self.ids()));
        let (run, tool) = about?;
        Some(CaseAct::Decide { run, tool, gate: gate?.value, verdict })
    }

    /// The run and the tool of a call that a person says something about.
    fn about_call(&self, table: &mut Table<'_>) -> Option<(CaseRun, Box<ToolDefinition>)> {
        let (run, tool) = (self.run(table), self.tool(table));
        run.zip(tool).map(|(run, tool)| (run, Box::new(tool.clone())))
    }

    fn run(&self, table: &mut Table<'_>) -> Option<CaseRun> {
        let agent = self.agent(table);
        let on_behalf_of = table.required_parsed::<PersonId>("on_behalf_of");
        let workflow_id = table.text("workflow_id").map_or_else(|| WORKFLOW_ID.to_owned(), |id| id.value);
        let (agent, agent_owner) = agent?;
        Some(CaseRun { agent, agent_owner, on_behalf_of: on_behalf_of?.value, workflow_id })
    }

    fn agent(&self, table: &mut Table<'_>) -> Option<(AgentName, PersonId)> {
        let name = table.required_parsed::<AgentName>("agent")?;
        let agents = &self.config.catalog.agents;
        self.known("agent", &name, agents.keys().map(AgentName::as_str));
        agents.get(&name.value).map(|agent| (agent.name.clone(), agent.owner.clone()))
    }

    fn tool(&self, table: &mut Table<'_>) -> Option<&'a ToolDefinition> {
        let name = table.required_parsed::<ToolName>("tool")?;
        let tools = &self.config.catalog.tools;
        self.known("tool", &name, tools.keys().map(ToolName::as_str));
        tools.get(&name.value)
    }

    fn model(&self, table: &mut Table<'_>) -> Option<ModelName> {
        let name = table.required_parsed::<ModelName>("model")?;
        let models = &self.config.policy.registry().models;
        self.known("model", &name, models.keys().map(ModelName::as_str)).then_some(name.value)
    }

    fn classes(&self, written: Vec<At<String>>) -> BTreeSet<DataClass> {
        let declared = self.config.policy.registry().classes();
        let class = |text: At<String>| {
            let class = parse::<DataClass>(self.problems, text)?;
            self.known("data class", &class, declared.iter().map(DataClass::as_str)).then_some(class.value)
        };
        written.into_iter().filter_map(class).collect()
    }

    /// Ids of policies of the folder.
    fn policies(&self, table: &mut Table<'_>, key: &str) -> Option<BTreeSet<PolicyId>> {
        let ids = table.texts(key)?;
        let id = |text: At<String>| {
            let id = parse::<PolicyId>(self.problems, text)?;
            self.known("policy", &id, self.ids()).then_some(id.value)
        };
        Some(ids.value.into_iter().filter_map(id).collect())
    }

    fn ids(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.config.policy.policies().map(|(id, _)| id.as_str())
    }

    /// Whether a name is among the known ones; if not, that is said.
    fn known<'k, T: Display>(&self, kind: &str, name: &At<T>, known: impl Iterator<Item = &'k str>) -> bool {
        let known: Vec<&str> = known.collect();
        let text = name.value.to_string();
        let is_known = known.contains(&text.as_str());
        if !is_known {
            let help = suggestion(&text, known);
            self.problems.at(&name.place, format!("unknown {kind} `{text}`"), format!("unknown {kind}"), Some(help));
        }
        is_known
    }
}

fn target(table: &mut Table<'_>) -> Option<QuarantineTarget> {
    table.required_parsed("target").map(|target| target.value)
}

fn outcome(table: &mut Table<'_>) -> Option<Answered> {
    let text = table.required_text("expect")?;
    let found = OUTCOMES.into_iter().find(|outcome| outcome.as_str() == text.value);
    if found.is_none() {
        let help = suggestion(&text.value, OUTCOMES.map(DecisionOutcome::as_str));
        table.problems.at(&text.place, format!("unknown answer `{}`", text.value), "unknown answer", Some(help));
    }
    found.map(Answered::Decided)
}

fn revealed(table: &mut Table<'_>, asked: Option<&Asked>) -> Option<Answered> {
    let texts = table.required_texts("expect")?;
    let Some(Asked::Reveal { classes, .. }) = asked else { return None };
    let mut expected = BTreeSet::new();
    for text in texts.value {
        if let Some(class) = classes.iter().find(|class| class.as_str() == text.value) {
            expected.insert(class.clone());
        } else {
            let help = suggestion(&text.value, classes.iter().map(DataClass::as_str));
            let message = format!("`{}` is expected and not among the classes of `reveal`", text.value);
            table.problems.at(&text.place, message, "not asked about", Some(help));
        }
    }
    Some(Answered::Revealed(expected))
}
