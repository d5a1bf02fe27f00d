//! Models: one question, one answer, and the ways it can fail.
//!
//! A provider takes a [`RecordedPermit`], so that no model is asked what was not decided and recorded. No provider
//! retries: the activity does, through Temporal. Errors never hold a prompt, an answer or a key.

use std::{collections::BTreeMap, time::Duration};

use futures::future::BoxFuture;
use mandate_domain::{ModelName, ModelReply, ModelRequest};

use crate::{catalog::ModelSettings, governed::RecordedPermit};

mod openai;
mod scripted;

pub use openai::BuildClientError;
pub use scripted::LoadScriptError;

/// Asks a model.
pub trait ModelProvider: Send + Sync {
    /// Sends one request and reads its one answer.
    fn complete<'a>(
        &'a self,
        permit: &'a RecordedPermit,
        request: &'a ModelRequest,
    ) -> BoxFuture<'a, Result<ModelReply, ModelError>>;
}

/// Why a model did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Nothing was sent: the claim ran out. Give it back.
    #[error("the model was not asked: {reason}")]
    NotSent {
        /// Why.
        reason: String,
    },
    /// Too many requests. Ask again, not before `retry_after`.
    #[error("the model provider limits the rate of requests")]
    RateLimited {
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
    },
    /// The provider is overloaded. Ask again, not before `retry_after`.
    #[error("the model provider is overloaded")]
    Overloaded {
        /// How long the provider asks to wait.
        retry_after: Option<Duration>,
    },
    /// No connection, no answer in time, or a failure on the provider's side. Ask again.
    #[error("the model provider cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// The provider or the model will not answer this. Asking again does not help.
    #[error("the model refuses: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The answer is not what the protocol promises. Ask again a few times at most.
    #[error("the model provider's answer breaks the protocol: {reason}")]
    Protocol {
        /// How.
        reason: String,
    },
}

/// A configured model that cannot be used. Fix the configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadModelsError {
    /// Its script is not valid.
    #[error("model `{model}`: {source}")]
    Script {
        /// The model.
        model: ModelName,
        /// What is wrong with the script.
        source: LoadScriptError,
    },
    /// No HTTP client can be built for it.
    #[error("model `{model}`: {source}")]
    Client {
        /// The model.
        model: ModelName,
        /// Why.
        source: BuildClientError,
    },
}

/// The configured models, ready to be asked.
pub struct Models {
    providers: BTreeMap<ModelName, Box<dyn ModelProvider>>,
}

impl Models {
    /// Reads scripts and builds clients. Nothing is sent.
    ///
    /// # Errors
    /// [`LoadModelsError`] for the first model that cannot be used.
    pub fn new(settings: BTreeMap<ModelName, ModelSettings>) -> Result<Self, LoadModelsError> {
        let providers = settings.into_iter().map(|(name, settings)| {
            let provider = provider(&name, settings)?;
            Ok((name, provider))
        });
        Ok(Self { providers: providers.collect::<Result<_, _>>()? })
    }

    /// The model of this name.
    #[must_use]
    pub fn get(&self, name: &ModelName) -> Option<&dyn ModelProvider> {
        self.providers.get(name).map(Box::as_ref)
    }
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.providers.keys()).finish()
    }
}

fn provider(name: &ModelName, settings: ModelSettings) -> Result<Box<dyn ModelProvider>, LoadModelsError> {
    match settings {
        ModelSettings::Scripted { script } => {
            let script = scripted::Script::read(&script)
                .map_err(|source| LoadModelsError::Script { model: name.clone(), source })?;
            Ok(Box::new(script))
        }
        ModelSettings::OpenAi { base_url, model, api_key, max_output_tokens, price } => {
            let settings = openai::Settings { base_url, model, api_key, max_output_tokens, price };
            let client = openai::OpenAi::new(settings)
                .map_err(|source| LoadModelsError::Client { model: name.clone(), source })?;
            Ok(Box::new(client))
        }
    }
}

fn may_send(permit: &RecordedPermit) -> Result<(), ModelError> {
    permit.may_send().map_err(|error| ModelError::NotSent { reason: error.to_string() })
}
