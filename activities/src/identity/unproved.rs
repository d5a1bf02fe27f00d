//! Every reason for which a message proves nobody. Each is told to whoever sent it and stands in the record.

use mandate_domain::{PersonId, Proof, canonical::CanonicalError, proof::CheckEvidenceError};

/// Why a message proves nobody. The message changes nothing; send one that does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// Nothing was sent beside the message.
    #[error("nothing proves who sent this; accepted are: {accepted}")]
    NoProof {
        /// The accepted ways.
        accepted: String,
    },
    /// Configuration does not accept this.
    #[error("proof by `{way}` is not accepted; accepted are: {accepted}")]
    NotAccepted {
        /// The way that was tried.
        way: Proof,
        /// The accepted ways.
        accepted: String,
    },
    /// Too long, or too much.
    #[error(transparent)]
    Evidence(#[from] CheckEvidenceError),
    /// What was said cannot be signed.
    #[error("what was said has no canonical form")]
    NotCanonical {
        /// Why.
        #[source]
        source: CanonicalError,
    },
    /// A key does not say whose it is, and a claim has to name somebody.
    #[error("the message does not say who it is from: name the person in `by`")]
    NoPerson,
    /// Nobody, or somebody without a key.
    #[error("configuration has no key of `{by}`")]
    NoKey {
        /// Who the message is said to be from.
        by: PersonId,
    },
    /// Another key, another person, or other words.
    #[error("the signature is not one of `{by}` over these words")]
    BadSignature {
        /// Who the message is said to be from.
        by: PersonId,
    },
    /// It is not even looked into.
    #[error("the token cannot be read: {reason}")]
    MalformedToken {
        /// Which part of it.
        reason: &'static str,
    },
    /// Only the configured algorithms count.
    #[error("tokens signed with `{algorithm}` are not accepted")]
    AlgorithmNotAccepted {
        /// The one in the header.
        algorithm: String,
    },
    /// The identity provider does not publish it.
    #[error("the identity provider has no key `{kid}`")]
    UnknownKey {
        /// The key id in the header.
        kid: String,
    },
    /// The key is published for something else.
    #[error("the identity provider's key `{kid}` is not one for `{algorithm}` signatures")]
    UnfitKey {
        /// The key id in the header.
        kid: String,
        /// The algorithm in the header.
        algorithm: &'static str,
    },
    /// Changed, or signed by somebody else.
    #[error("the token's signature does not verify")]
    BadTokenSignature,
    /// Another provider, or another tenant of it.
    #[error("the token is not from `{wanted}`")]
    WrongIssuer {
        /// The configured issuer.
        wanted: String,
    },
    /// Made for another service, or for several.
    #[error("the token is not made for `{wanted}` alone")]
    WrongAudience {
        /// The configured audience.
        wanted: String,
    },
    /// A claim that every token needs.
    #[error("the token has no usable claim `{claim}`")]
    MissingClaim {
        /// The claim.
        claim: &'static str,
    },
    /// Get a new one.
    #[error("the token had expired when it was sent")]
    Expired,
    /// A clock is wrong, or it was made for later.
    #[error("the token was not valid yet when it was sent")]
    NotYetValid,
    /// Made for another decision, or for other words.
    #[error("the token is for something else: its `nonce` has to be {wanted}")]
    WrongNonce {
        /// The digest that it has to be.
        wanted: String,
    },
    /// It says nothing of who it is about.
    #[error("the token names no person in its claim `{claim}`")]
    NoPersonClaim {
        /// The configured claim.
        claim: String,
    },
    /// Whoever it is gave the address themselves.
    #[error("the identity provider has not verified the token's e-mail address")]
    UnverifiedEmail,
    /// The proof is of another person than the one that the message names.
    #[error("{what} is of `{proved}`, and the message says that it is from `{claimed}`")]
    SomebodyElse {
        /// `the token` or `the principal`.
        what: &'static str,
        /// Whom it proves.
        proved: PersonId,
        /// Whom the message names.
        claimed: PersonId,
    },
    /// The server does not stamp principals, or not in this namespace.
    #[error("the Temporal server does not say who sent this: the event has no principal")]
    NoPrincipal,
    /// The server itself, or somebody at its internal port.
    #[error("`{principal}` is the Temporal server itself and no person")]
    InternalPrincipal {
        /// The principal.
        principal: String,
    },
    /// A worker's credentials do not decide.
    #[error("`{principal}` works on runs as a worker and is no person")]
    WorkerPrincipal {
        /// The principal.
        principal: String,
    },
    /// Longer than a name may be, or with control characters.
    #[error("the name of principal `{principal}` cannot be that of a person")]
    NamelessPrincipal {
        /// The principal.
        principal: String,
    },
    /// Events of updates are stamped with the worker's principal.
    #[error("the Temporal server does not say who sends an update: send the signal instead")]
    UpdateWithoutPrincipal,
}
