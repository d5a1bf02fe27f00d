//! A validated policy bundle: loaded as a whole or not at all.

use std::{collections::BTreeMap, fmt, ops::Range, str::FromStr};

use cedar_policy::{EntityTypeName, Policy, PolicySet, Schema, ValidationError, ValidationMode, Validator};
use miette::{Diagnostic, SourceSpan};
use serde::{Deserialize, Serialize};

pub use super::error::{LoadPolicyError, Location, PolicyProblem};
use super::{
    error::did_you_mean,
    gate::{self, Rule},
    lint,
    reads::{self, Reads},
    registry::Registry,
    schema,
    shape::{self, RecordShape, Unmapped},
};
use crate::{Digest, Gate, PolicyId, ToolName, canonical};

/// One file of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySource {
    /// Its path, as messages show it.
    pub path: String,
    /// Its text.
    pub text: String,
    /// The part of the organisation that it speaks for.
    #[serde(default)]
    pub scope: PolicyScope,
}

/// Whom the policies of a file bind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyScope {
    /// Everybody: a file of the shared folder.
    #[default]
    Everybody,
    /// One tenant, unit or agent, by name: `acme`, `acme/support`, `acme/support/refunds`. It may only forbid, and only
    /// to its own.
    Below(String),
}

/// What a bundle is made of: enough to load the same one anywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleFiles {
    /// The policy files.
    pub sources: Vec<PolicySource>,
    /// What they are checked against and judged by.
    pub registry: Registry,
}

/// A gate and where it is written.
#[derive(Debug, Clone)]
pub struct WrittenGate<'a> {
    /// The gate.
    pub gate: &'a Gate,
    /// The file of the policy that describes it.
    pub source: &'a PolicySource,
    /// The policy's place in that file.
    pub span: Range<usize>,
}

/// Policies that passed every check, with the schema they were checked against.
pub struct PolicyBundle {
    digest: Digest,
    schema_text: String,
    unmapped: Vec<Unmapped>,
    sources: Vec<PolicySource>,
    registry: Registry,
    pub(super) schema: Schema,
    pub(super) policies: PolicySet,
    pub(super) rules: BTreeMap<String, Rule>,
    /// The file of each policy, as a position in `sources`, by the id it has in `policies`.
    written_in: BTreeMap<String, usize>,
    pub(super) records: BTreeMap<ToolName, RecordShape>,
    pub(super) reads: Reads,
    pub(super) types: EntityTypes,
}

/// The names of the entity types.
pub(super) struct EntityTypes {
    pub(super) tenant: EntityTypeName,
    pub(super) unit: EntityTypeName,
    pub(super) agent: EntityTypeName,
    pub(super) user: EntityTypeName,
    pub(super) group: EntityTypeName,
    pub(super) provider: EntityTypeName,
    pub(super) model: EntityTypeName,
    pub(super) tool_server: EntityTypeName,
    pub(super) tool: EntityTypeName,
    pub(super) bundle: EntityTypeName,
    pub(super) audience: EntityTypeName,
    pub(super) webhook: EntityTypeName,
    pub(super) data_class: EntityTypeName,
    pub(super) action: EntityTypeName,
}

impl fmt::Debug for PolicyBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyBundle")
            .field("digest", &self.digest)
            .field("policies", &self.rules.keys())
            .finish_non_exhaustive()
    }
}

impl PolicyBundle {
    /// Loads policies against what is configured.
    ///
    /// # Errors
    /// Everything that is wrong in all files, in the order of files and lines.
    pub fn load(sources: &[PolicySource], registry: &Registry) -> Result<Self, Vec<LoadPolicyError>> {
        let (records, unmapped) = records(registry);
        let schema_text = schema::schema_text(registry, &records);
        let whole = |problem| vec![LoadPolicyError::new("the tool registry", "", None, problem)];
        if let Some(name) = schema::ACTIONS.into_iter().find(|name| records.keys().any(|tool| tool.as_str() == *name)) {
            return Err(whole(PolicyProblem::ReservedToolName(name.to_owned())));
        }
        let schema = Schema::from_str(&schema_text).map_err(|e| whole(PolicyProblem::NoSchema(one_line(&e))))?;
        let types = EntityTypes::new().map_err(|e| whole(PolicyProblem::NoSchema(e)))?;
        let mut loader = Loader {
            sources,
            registry,
            policies: PolicySet::new(),
            rules: BTreeMap::new(),
            places: BTreeMap::new(),
            errors: Vec::new(),
        };
        loader.read_all();
        loader.validate(&schema);
        let written_in = loader.written_in();
        let (policies, rules) = loader.finish()?;
        let digest = digest_of(&schema_text, &policies, registry);
        let reads = reads::of(&policies, registry);
        // Policies were validated against all that they may name; questions hold what is read of it.
        let asked = schema::asked_text(registry, &records, &reads);
        let schema = Schema::from_str(&asked).map_err(|e| whole(PolicyProblem::NoSchema(one_line(&e))))?;
        let (sources, registry) = (sources.to_vec(), registry.clone());
        Ok(Self {
            digest,
            schema_text,
            unmapped,
            sources,
            registry,
            schema,
            policies,
            rules,
            written_in,
            records,
            reads,
            types,
        })
    }

    /// SHA-256 over the generated schema, the policies, sorted by id, and the registry.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The generated schema, as Cedar writes schemas: what a policy may name.
    #[must_use]
    pub fn schema_text(&self) -> &str {
        &self.schema_text
    }

    /// The parts of tools' arguments that policies do not see.
    #[must_use]
    pub fn unmapped(&self) -> &[Unmapped] {
        &self.unmapped
    }

    /// The files it was loaded from.
    #[must_use]
    pub fn sources(&self) -> &[PolicySource] {
        &self.sources
    }

    /// What it was loaded against and judges by.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What another worker loads it from.
    #[must_use]
    pub fn files(&self) -> BundleFiles {
        BundleFiles { sources: self.sources.clone(), registry: self.registry.clone() }
    }

    /// Ids of its policies with their `@reason`, in the order of the ids.
    pub fn policies(&self) -> impl Iterator<Item = (&PolicyId, Option<&str>)> {
        self.rules.values().map(|rule| (&rule.id, rule.reason.as_deref()))
    }

    /// The gates and where they are written, in the order of their ids.
    pub fn gates(&self) -> impl Iterator<Item = WrittenGate<'_>> {
        self.rules.iter().filter_map(|(key, rule)| {
            let policy = self.policies.policy(&cedar_policy::PolicyId::new(key))?;
            let span = gate::span_of(policy).map_or(0..0, |span| span.offset()..span.offset() + span.len());
            let source = self.sources.get(*self.written_in.get(key)?)?;
            Some(WrittenGate { gate: rule.gate.as_ref()?, source, span })
        })
    }

    /// The text of each policy as it was written, by id.
    #[must_use]
    pub fn policy_texts(&self) -> BTreeMap<&PolicyId, String> {
        let text = |key: &String| self.policies.policy(&cedar_policy::PolicyId::new(key))?.to_cedar();
        self.rules.iter().map(|(key, rule)| (&rule.id, text(key).unwrap_or_default())).collect()
    }
}

impl EntityTypes {
    fn new() -> Result<Self, String> {
        let name =
            |name: &str| EntityTypeName::from_str(&format!("Mandate::{name}")).map_err(|error| error.to_string());
        Ok(Self {
            tenant: name("Tenant")?,
            unit: name("Unit")?,
            agent: name("Agent")?,
            user: name("User")?,
            group: name("Group")?,
            provider: name("Provider")?,
            model: name("Model")?,
            tool_server: name("ToolServer")?,
            tool: name("Tool")?,
            bundle: name("Bundle")?,
            audience: name("Audience")?,
            webhook: name("Webhook")?,
            data_class: name("DataClass")?,
            action: name("Action")?,
        })
    }
}

fn records(registry: &Registry) -> (BTreeMap<ToolName, RecordShape>, Vec<Unmapped>) {
    let mut all_unmapped = Vec::new();
    let mut records = BTreeMap::new();
    for (name, tool) in &registry.tools {
        let (record, unmapped) = shape::input_record(tool);
        all_unmapped.extend(unmapped);
        records.insert(name.clone(), record);
    }
    all_unmapped.sort_by(|a, b| (&a.tool, &a.pointer).cmp(&(&b.tool, &b.pointer)));
    (records, all_unmapped)
}

fn digest_of(schema_text: &str, policies: &PolicySet, registry: &Registry) -> Digest {
    let mut texts: Vec<(String, String)> =
        policies.policies().map(|policy| (policy.id().to_string(), policy.to_cedar().unwrap_or_default())).collect();
    texts.sort();
    let mut whole = schema_text.to_owned();
    let registry = serde_json::to_string(registry).unwrap_or_default();
    for text in texts.into_iter().map(|(_, text)| text).chain([registry]) {
        // A zero byte stands in no schema, policy or name, so two bundles never run together into one text.
        whole.push('\0');
        whole.push_str(&text);
    }
    canonical::sha256(whole.as_bytes())
}

struct Loader<'a> {
    sources: &'a [PolicySource],
    registry: &'a Registry,
    policies: PolicySet,
    rules: BTreeMap<String, Rule>,
    /// Source and position of each policy, by the id it has in `policies`.
    places: BTreeMap<String, (&'a PolicySource, Option<SourceSpan>)>,
    errors: Vec<LoadPolicyError>,
}

impl<'a> Loader<'a> {
    fn read_all(&mut self) {
        for source in self.sources {
            match PolicySet::from_str(&source.text) {
                Ok(set) => self.read(source, &set),
                Err(errors) => {
                    for error in errors.iter() {
                        let problem = PolicyProblem::NotCedar(one_line(&error));
                        self.report(source, first_span(error), problem, help_of(error));
                    }
                }
            }
        }
    }

    fn read(&mut self, source: &'a PolicySource, set: &PolicySet) {
        for template in set.templates() {
            let span = AsRef::as_ref(template).loc().map(|loc| loc.span);
            self.report(source, span, PolicyProblem::Template, None);
        }
        let mut policies: Vec<&Policy> = set.policies().collect();
        policies.sort_by_key(|policy| gate::span_of(policy).map(|span| span.offset()));
        for policy in policies {
            for flaw in lint::flaws(policy, &source.scope, self.registry) {
                self.report(source, flaw.place(source), flaw.problem, flaw.help);
            }
            match gate::read(policy, &self.registry.groups) {
                Ok(rule) => self.add(source, policy, Some(rule)),
                Err(flaws) => {
                    for flaw in flaws {
                        self.report(source, flaw.span, flaw.problem, flaw.help);
                    }
                    // Validated all the same, so that its other errors show now and not on the next try.
                    self.add(source, policy, None);
                }
            }
        }
    }

    fn add(&mut self, source: &'a PolicySource, policy: &Policy, rule: Option<Rule>) {
        let span = gate::span_of(policy);
        let mut id = policy.annotation("id").unwrap_or("without id").to_owned();
        if let Some((first, at)) = self.places.get(&id) {
            if policy.annotation("id").is_some() {
                let first =
                    LoadPolicyError::new(&first.path, &first.text, *at, PolicyProblem::MissingId).location().clone();
                self.report(source, span, PolicyProblem::RepeatedId { id: id.clone(), first }, None);
            }
            id = format!("{id} ({})", self.places.len());
        }
        if let Err(error) = self.policies.add(policy.new_id(cedar_policy::PolicyId::new(&id))) {
            self.report(source, span, PolicyProblem::NotCedar(one_line(&error)), None);
        }
        self.rules.extend(rule.map(|rule| (id.clone(), rule)));
        self.places.insert(id, (source, span));
    }

    fn validate(&mut self, schema: &Schema) {
        let result = Validator::new(schema.clone()).validate(&self.policies, ValidationMode::Strict);
        for error in result.validation_errors() {
            self.report_invalid(error);
        }
    }

    fn report_invalid(&mut self, error: &ValidationError) {
        let id: &str = error.policy_id().as_ref();
        let Some((source, at)) = self.places.get(id).copied() else {
            let problem = PolicyProblem::Invalid(one_line(&error));
            self.errors.push(LoadPolicyError::new(id, "", None, problem));
            return;
        };
        let help = self.meant_action(error).or_else(|| help_of(error));
        self.report(source, first_span(error).or(at), PolicyProblem::Invalid(one_line(&error)), help);
    }

    /// Cedar's own suggestion for an action looks at the whole `Mandate::Action::"…"`, which is mostly alike.
    fn meant_action(&self, error: &ValidationError) -> Option<String> {
        let ValidationError::UnrecognizedActionId(_) = error else { return None };
        let message = error.to_string();
        let (_, written) = message.split_once("Mandate::Action::\"")?;
        let known = self.registry.tools.keys().map(ToolName::as_str).chain(schema::ACTIONS);
        did_you_mean(written.split('"').next()?, known)
    }

    fn report(
        &mut self,
        source: &PolicySource,
        span: Option<SourceSpan>,
        problem: PolicyProblem,
        help: Option<String>,
    ) {
        self.errors.push(LoadPolicyError::new(&source.path, &source.text, span, problem).with_help(help));
    }

    fn written_in(&self) -> BTreeMap<String, usize> {
        let position = |source: &PolicySource| self.sources.iter().position(|one| std::ptr::eq(one, source));
        self.places.iter().filter_map(|(id, (source, _))| Some((id.clone(), position(source)?))).collect()
    }

    fn finish(mut self) -> Result<(PolicySet, BTreeMap<String, Rule>), Vec<LoadPolicyError>> {
        if self.errors.is_empty() {
            return Ok((self.policies, self.rules));
        }
        self.errors.sort_by_key(|error| (error.location().clone(), error.to_string()));
        // The validator says the same once for each action that a policy applies to.
        self.errors.dedup_by_key(|error| error.to_string());
        Err(self.errors)
    }
}

fn first_span(error: &dyn Diagnostic) -> Option<SourceSpan> {
    error.labels().and_then(|mut labels| labels.next()).map(|label| *label.inner())
}

fn help_of(error: &dyn Diagnostic) -> Option<String> {
    error.help().map(|help| help.to_string())
}

/// A message as one line of a log.
fn one_line(error: &impl fmt::Display) -> String {
    error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
