//! A way to a server over TLS: it ends the encryption, with a certificate of an authority that nobody knows but who is told
//! of it, and hands on what it reads.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// The way. It ends with its test.
#[derive(Debug)]
pub struct Https {
    address: SocketAddr,
    authority: PathBuf,
    serving: JoinHandle<()>,
}

impl Https {
    /// A way to what listens at `server`. The authority's certificate is written to a file of `folder`.
    pub async fn to(server: SocketAddr, folder: &Path) -> Self {
        let (authority, config) = certified();
        let file = folder.join("authority.pem");
        std::fs::write(&file, authority).expect("the certificate");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(hand_on(acceptor.clone(), stream, server));
            }
        });
        Self { address, authority: file, serving }
    }

    /// `host:port` of it.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Lets a program believe the authority.
    #[must_use]
    pub fn believed(&self) -> (&'static str, &str) {
        ("SSL_CERT_FILE", self.authority.to_str().expect("text"))
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn hand_on(acceptor: TlsAcceptor, stream: TcpStream, server: SocketAddr) {
    // A client that does not believe the authority ends here.
    let Ok(mut outside) = acceptor.accept(stream).await else { return };
    let Ok(mut inside) = TcpStream::connect(server).await else { return };
    let _ = copy_bidirectional(&mut outside, &mut inside).await;
}

/// An authority, and a server of this machine that it vouches for.
fn certified() -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let server = server.signed_by(&key, &authority).expect("a certificate");
    let chain = vec![CertificateDer::from(server.der().to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(chain, key).expect("a server's configuration");
    (authority.pem(), config)
}
