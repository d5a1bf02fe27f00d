//! Verification of token signatures with `ring`, the one crypto provider of this program. Nothing here signs.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result, new_error},
    signature,
};
use ring::signature as with;

static RING: CryptoProvider = CryptoProvider {
    signer_factory: refuse_to_sign,
    verifier_factory: verifier,
    // Only asked for what this program does not do: making key sets and thumbprints.
    key_utils: KeyUtils::new_unimplemented(),
};

static INSTALLED: Once = Once::new();

/// Makes `ring` what tokens are verified with in this process.
pub(super) fn install() {
    INSTALLED.call_once(|| {
        // Refused only where the process has installed another provider before, and then that one verifies.
        let _ = RING.install_default();
    });
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's own signature")]
fn refuse_to_sign(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's own signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        return Err(new_error(ErrorKind::UnsupportedAlgorithm));
    }
    Ok(Box::new(Verifier { algorithm: *algorithm, key: key.clone() }))
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum may grow; what is new does not verify")]
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let raw = |algorithm: &'static dyn with::VerificationAlgorithm| match self.key.kind() {
            DecodingKeyKind::SecretOrDer(key) => {
                with::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
            }
            DecodingKeyKind::RsaModulusExponent { .. } => false,
        };
        let rsa = |algorithm: &'static with::RsaParameters| match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                with::RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature).is_ok()
            }
            DecodingKeyKind::SecretOrDer(_) => false,
        };
        let verified = match self.algorithm {
            Algorithm::ES256 => raw(&with::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => raw(&with::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => raw(&with::ED25519),
            Algorithm::RS256 => rsa(&with::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&with::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&with::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&with::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&with::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&with::RSA_PSS_2048_8192_SHA512),
            // Those with a shared secret, and whatever the library learns.
            _ => false,
        };
        if verified { Ok(()) } else { Err(signature::Error::new()) }
    }
}
