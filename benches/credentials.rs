//! What does it cost to find out who is calling? By certificate, by a token that was judged before, by one that was not.
//!
//! `cargo bench --bench credentials`. A handshake is measured on both sides of one thread; half of it is the client's.

#![allow(missing_docs, clippy::expect_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use spillway::authn::{
    Authenticator, ClientAuthority, Material, PeerCertificate, ProofOfPossession, Settings, token,
};
use spillway::identity::Credential;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

struct Pki {
    ca: CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        Self { ca: CertifiedIssuer::self_signed(params, key).expect("signed") }
    }

    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["kubernetes".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, "system:node:node-1");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.extended_key_usages = vec![usage];
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.ca).expect("signed");
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8"))
    }
}

fn certificates(criterion: &mut Criterion) {
    let pki = Pki::new();
    let bundle = Material::Bytes(pki.ca.pem().into_bytes());
    let authority = Arc::new(ClientAuthority::from_pem(&bundle, Credential::Certificate).expect("a CA"));
    let client = pki.issue(ExtendedKeyUsagePurpose::ClientAuth);
    let chain = [client.0.clone()];
    let now = spillway::clock::wall();
    let mut group = criterion.benchmark_group("certificate");
    group.bench_function("chain and identity", |bench| bench.iter(|| authority.judge(&chain, now)));
    let peer = authority.judge(&chain, now);
    group.bench_function("request on a judged connection", |bench| bench.iter(|| peer.verdict(now)));

    let provider = Arc::new(default_provider());
    let server = pki.issue(ExtendedKeyUsagePurpose::ServerAuth);
    let mut server_config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_client_cert_verifier(Arc::new(ProofOfPossession::new(authority.hints())))
        .with_single_cert(vec![server.0], server.1)
        .expect("a pair");
    server_config.send_tls13_tickets = 0;
    let server_config = Arc::new(server_config);
    let client_config = |certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>| {
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca.der().clone()).expect("a CA");
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots);
        Arc::new(match certificate {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], key).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        })
    };
    for (name, config) in [
        ("handshake with a certificate", client_config(Some(client))),
        ("handshake without", client_config(None)),
    ] {
        group.bench_function(name, |bench| bench.iter(|| handshake(&config, &server_config)));
    }
    group.finish();
}

fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) {
    let name = ServerName::try_from("kubernetes").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        client.write_tls(&mut wire).expect("memory takes all");
        server.read_tls(&mut wire.as_slice()).expect("memory gives all");
        server.process_new_packets().expect("the server agrees");
        wire.clear();
        server.write_tls(&mut wire).expect("memory takes all");
        client.read_tls(&mut wire.as_slice()).expect("memory gives all");
        client.process_new_packets().expect("the client agrees");
    }
}

/// Signs a token like a pod's, with an id that makes it unlike every other.
fn signed(algorithm: &str, number: u64, sign: impl Fn(&[u8]) -> Vec<u8>) -> HeaderMap {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let header = serde_json::json!({"alg": algorithm});
    let claims = serde_json::json!({
        "iss": ISSUER, "sub": "system:serviceaccount:monitoring:agent", "aud": [ISSUER],
        "iat": now, "nbf": now, "exp": now + 3600, "jti": format!("f3a1c5d2-{number:012}"),
        "kubernetes.io": {
            "namespace": "monitoring",
            "serviceaccount": {"name": "agent", "uid": "0b2f2a0e-0b2f-4a0e-8b2f-2a0e0b2f2a0e"},
            "pod": {"name": "agent-x7k2p", "uid": "1c3f2a0e-0b2f-4a0e-8b2f-2a0e0b2f2a0e"},
            "node": {"name": "node-7", "uid": "2d4f2a0e-0b2f-4a0e-8b2f-2a0e0b2f2a0e"},
        },
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(message.as_bytes())));
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    headers
}

fn tokens(criterion: &mut Criterion) {
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let pem = |der: &[u8]| {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    };
    let ec_public = AsDer::<PublicKeyX509Der<'_>>::as_der(ec.public_key()).expect("DER");
    let rsa_public = AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).expect("DER");
    let keys = pem(ec_public.as_ref()) + &pem(rsa_public.as_ref());
    let authenticator = Authenticator::new(&Settings {
        service_accounts: Some(token::Settings {
            keys: vec![Material::Bytes(keys.into_bytes())],
            issuers: vec![ISSUER.to_owned()],
            audiences: vec![],
        }),
        ..Settings::default()
    })
    .expect("usable keys");
    let random = SystemRandom::new();
    let by_ec = |message: &[u8]| ec.sign(&random, message).expect("signed").as_ref().to_vec();
    let by_rsa = |message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
        signature
    };
    let nobody = PeerCertificate::none();
    let now = spillway::clock::wall() + Duration::from_secs(1);
    let judge = |headers: &HeaderMap| {
        let caller = authenticator.caller(&nobody, headers, now).expect("one token");
        assert!(caller.identity.credential.is_verified());
        caller
    };
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    let mut group = criterion.benchmark_group("token");
    let known = signed("RS256", next(), by_rsa);
    group.bench_function("judged before", |bench| bench.iter(|| judge(&known)));
    group.bench_function("new, ES256", |bench| {
        bench.iter_batched(
            || signed("ES256", next(), by_ec),
            |headers| judge(&headers),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("new, RS256", |bench| {
        bench.iter_batched(
            || signed("RS256", next(), by_rsa),
            |headers| judge(&headers),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, certificates, tokens);
criterion_main!(benches);
