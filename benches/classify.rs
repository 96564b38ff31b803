//! What does choosing a lane cost? `cargo bench --bench classify`.
//!
//! With the default policy. Direction: some 100 ns a request; `subjects` is paid once per connection or token.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use spillway::config;
use spillway::identity::{Credential, Identity};
use spillway::policy::{Hints, Policy};
use spillway::request::{DecodedPath, RequestInfo};

fn node() -> Identity {
    Identity {
        user: "system:node:node-0001".into(),
        uid: None,
        groups: vec!["system:nodes".into(), "system:authenticated".into()],
        extra: vec![],
        credential: Credential::Certificate,
    }
}

fn account(namespace: &str, name: &str) -> Identity {
    Identity {
        user: format!("system:serviceaccount:{namespace}:{name}"),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".into(),
        ],
        credential: Credential::ServiceAccountToken,
        ..node()
    }
}

fn default_policy() -> Option<Policy> {
    config::default_policy().ok()?.compile(1).ok()
}

fn classify(criterion: &mut Criterion) {
    let Some(policy) = default_policy() else { unreachable!("the embedded policy is tested") };
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-0001";
    let pods = "/api/v1/namespaces/shop/pods/web-0";
    let mut group = criterion.benchmark_group("classify");
    for (name, caller, method, path) in [
        ("node lease", node(), "PUT", lease),
        ("node pod", node(), "GET", pods),
        ("workload", account("shop", "web"), "GET", pods),
        ("telemetry", account("obs", "agent"), "GET", "/api/v1/pods"),
        ("anonymous", (*Identity::anonymous()).clone(), "GET", pods),
    ] {
        let Ok(path) = DecodedPath::new(path) else { unreachable!("no escapes in these paths") };
        let Ok(info) = RequestInfo::new(method, &path, None) else { unreachable!("paths of resources") };
        let subjects = policy.subjects(&caller);
        let hints = Hints { user_agent: Some("kubelet/v1.34.1 (linux/amd64)"), impersonates: false };
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| policy.classify(black_box(&caller), subjects, black_box(&info), black_box(&hints)));
        });
    }
    let caller = account("shop", "web");
    group.bench_function("subjects of a service account", |bencher| {
        bencher.iter(|| policy.subjects(black_box(&caller)));
    });
    group.finish();
}

criterion_group!(benches, classify);
criterion_main!(benches);
