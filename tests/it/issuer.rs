//! An OIDC provider: HTTPS on a loopback port, a discovery document, one key, and tokens for whomever a test invents.

// The test bed says what it expected by panicking.
#![allow(clippy::expect_used)]

use std::{
    convert::Infallible,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{ServerConfig, crypto::aws_lc_rs as provider, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A signing key of somebody who issues tokens.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    id: String,
}

impl Signer {
    pub(crate) fn new(id: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key is generated");
        Self { key, id: id.into() }
    }

    /// The key of a PEM file (PKCS#8), whose tokens name no key.
    pub(crate) fn of_file(path: &Path) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        let key = PrivateKeyDer::from_pem_file(path).expect("the key is PEM");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der());
        Self { key: key.expect("the key is of P-256"), id: String::new() }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut header = json!({"alg": "ES256", "typ": "JWT"});
        if !self.id.is_empty() {
            header["kid"] = json!(self.id);
        }
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("signing works");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id,
            "x": part(&point[1..33]), "y": part(&point[33..]),
        })
    }
}

/// The seconds since 1970, for claims.
pub(crate) fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs()
}

/// A running provider. It ends with its runtime, when dropped.
pub(crate) struct Issuer {
    /// The CA of its certificate, PEM.
    pub(crate) ca: PathBuf,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    url: String,
    signer: Mutex<Signer>,
    /// What it answers everything with, when it is not well.
    ill: Mutex<Option<StatusCode>>,
}

impl Issuer {
    /// Its CA is written into `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime for the issuer");
        let (config, ca_pem) = serving();
        let ca = dir.join("issuer-ca.crt");
        fs::write(&ca, ca_pem).expect("the issuer's CA is written");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            url: format!("https://{address}"),
            signer: Mutex::new(Signer::new("first")),
            ill: Mutex::new(None),
        });
        runtime.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&state)));
        Self { ca, state, _runtime: runtime }
    }

    /// The `iss` of its tokens.
    pub(crate) fn url(&self) -> &str {
        &self.state.url
    }

    /// A token of one hour with these claims.
    pub(crate) fn token(&self, claims: Value) -> String {
        let mut all =
            json!({"iss": self.state.url, "aud": "kubernetes", "iat": seconds(), "exp": seconds() + 3600});
        all.as_object_mut().expect("an object").extend(claims.as_object().expect("an object").clone());
        self.state.signer.lock().expect("no test has panicked in it").sign(&all)
    }

    /// Signs with another key from now on, and publishes it alone.
    pub(crate) fn change_key(&self, id: &str) {
        *self.state.signer.lock().expect("no test has panicked in it") = Signer::new(id);
    }

    /// Answers everything with this status from now on, or as it should.
    pub(crate) fn fail_with(&self, status: Option<StatusCode>) {
        *self.state.ill.lock().expect("no test has panicked in it") = status;
    }
}

fn serving() -> (ServerConfig, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let new_key = || KeyPair::generate().expect("a key is generated");
    let authority = CertifiedIssuer::self_signed(params, new_key()).expect("the CA signs itself");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    params.use_authority_key_identifier_extension = true;
    let key = new_key();
    let certificate = params.signed_by(&key, &authority).expect("the CA signs");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("certificate and key are a pair");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    (config, authority.pem())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service =
                service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&request, &state))));
            // Whoever breaks off has seen what it wanted.
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let url = &state.url;
    let ill = *state.ill.lock().expect("no test has panicked in it");
    let (status, body) = match (ill, request.uri().path()) {
        (Some(status), _) => (status, json!({})),
        (None, "/.well-known/openid-configuration") => (
            StatusCode::OK,
            json!({
                "issuer": url, "jwks_uri": format!("{url}/keys"), "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
            }),
        ),
        (None, "/keys") => {
            let key = state.signer.lock().expect("no test has panicked in it").jwk();
            (StatusCode::OK, json!({"keys": [key]}))
        }
        (None, _) => (StatusCode::NOT_FOUND, json!({})),
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
