//! Does our reading equal kube-apiserver's? The cases of its own `requestinfo_test.go`, and those that follow from
//! the algorithm, as one table: a line is `method target -> verb group version namespace resource subresource name`,
//! where `.` stands for empty and `path` for a plain path.

use proptest::prelude::*;

use super::*;

const CASES: &str = "
GET /api/v1/namespaces -> list . v1 . namespaces . .
GET /api/v1/namespaces/other -> get . v1 other namespaces . other
GET /api/v1/namespaces/other/pods -> list . v1 other pods . .
GET /api/v1/namespaces/other/pods/foo -> get . v1 other pods . foo
HEAD /api/v1/namespaces/other/pods/foo -> get . v1 other pods . foo
GET /api/v1/pods -> list . v1 . pods . .
HEAD /api/v1/pods -> list . v1 . pods . .
GET /api/v1/proxy/namespaces/other/pods/foo -> proxy . v1 other pods . foo
GET /api/v1/proxy/namespaces/other/pods/foo/subpath/x -> proxy . v1 other pods . foo
GET /api/v1/watch/pods -> watch . v1 . pods . .
GET /api/v1/pods?watch=true -> watch . v1 . pods . .
GET /api/v1/pods?watch=false -> list . v1 . pods . .
GET /api/v1/watch/namespaces/other/pods -> watch . v1 other pods . .
GET /api/v1/namespaces/other/pods?watch=1 -> watch . v1 other pods . .
GET /api/v1/namespaces/other/pods?watch=0 -> list . v1 other pods . .
GET /api/v1/namespaces/other/pods/foo/status -> get . v1 other pods status foo
GET /api/v1/namespaces/other/pods/foo/proxy/subpath -> get . v1 other pods proxy foo
PUT /api/v1/namespaces/other/finalize -> update . v1 other namespaces finalize other
PUT /api/v1/namespaces/other/status -> update . v1 other namespaces status other
PATCH /api/v1/namespaces/other/pods/foo -> patch . v1 other pods . foo
DELETE /api/v1/namespaces/other/pods/foo -> delete . v1 other pods . foo
POST /api/v1/namespaces/other/pods -> create . v1 other pods . .
DELETE /api/v1/nodes -> deletecollection . v1 . nodes . .
DELETE /api/v1/namespaces -> deletecollection . v1 . namespaces . .
DELETE /api/v1/namespaces/other/pods -> deletecollection . v1 other pods . .
POST /apis/extensions/v1/namespaces/other/pods -> create extensions v1 other pods . .
GET /apis/batch/v1/job/foo/scale -> get batch v1 . job scale foo
GET / -> path get
GET /api -> path get
GET /api/version/ -> path get
GET /apis/group/version/ -> path get
GET /badprefix/v/r -> path get
GET /apis/version/resource -> path get
GET /apis/g/v/r?fieldSelector=metadata.name=name1 -> list g v . r . name1
GET /apis/g/v/r?watch=true&fieldSelector=metadata.name=name1 -> watch g v . r . name1
GET /apis/g/v/r?fieldSelector=metadata.name=name1,foo -> list g v . r . .
GET /apis/g/v/r?fieldSelector=metadata.name=name1,foo&watch=true -> watch g v . r . .
GET /apis/g/v/r?fieldSelector=metadata.name=name1,foo&watch=false -> list g v . r . .
GET /apis/g/v/r?fieldSelector=metadata.name=foo&fieldSelector=metadata.name=bar -> list g v . r . foo
GET /apis/g/v/watch/r?fieldSelector=metadata.name=foo -> watch g v . r . .
GET /apis/g/v/watch/r/name -> watch g v . r . name
DELETE /apis/g/v/r?fieldSelector=foo=bar&labelSelector=a=b -> deletecollection g v . r . .
GET /api/v1/namespaces/n/pods/p?watch=true -> get . v1 n pods . p
GET /api/v1/pods?watch -> watch . v1 . pods . .
GET /api/v1/pods?watch= -> watch . v1 . pods . .
GET /api/v1/pods?watch=FALSE -> list . v1 . pods . .
GET /api/v1/pods?watch=no -> watch . v1 . pods . .
GET /api/v1/pods?limit=abc&watch=1 -> watch . v1 . pods . .
POST /api/v1/namespaces/n/pods/p/exec?command=sh -> create . v1 n pods exec p
GET /api/v1/namespaces/n/pods/p/exec?command=sh -> get . v1 n pods exec p
GET /api/v1/namespaces/n/pods/p/log?follow=false -> get . v1 n pods log p
GET /api/v1/namespaces/n/services/https:s:443/proxy/a/b -> get . v1 n services proxy https:s:443
GET /api/v1/nodes/n1/proxy/metrics -> get . v1 . nodes proxy n1
PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1 -> update coordination.k8s.io v1 kube-node-lease leases . n1
POST /api/v1/namespaces/n/serviceaccounts/sa/token -> create . v1 n serviceaccounts token sa
POST /api/v1/namespaces/n/pods/p/eviction -> create . v1 n pods eviction p
GET /api/v1/pods/ -> list . v1 . pods . .
GET /api//v1/pods -> get . . . v1 . pods
GET /api/v1/namespaces/a%2Fb/pods -> get . v1 a b . pods
OPTIONS /api/v1/pods -> . . v1 . pods . .
GET /openapi/v2 -> path get
GET /openapi/v3/apis/apps/v1 -> path get
GET /version -> path get
GET /healthz -> path get
GET /livez/etcd -> path get
GET /metrics -> path get
GET /apis -> path get
GET /apis/apps -> path get
GET /apis/apps/v1 -> path get
GET /openid/v1/jwks -> path get
GET /.well-known/openid-configuration -> path get
POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews -> create authorization.k8s.io v1 . selfsubjectaccessreviews . .
GET /api/v1/pods?fieldSelector=metadata.name%3Dx%2Cspec.nodeName%3Dn -> list . v1 . pods . x
GET /api/v1/namespaces/d/pods/x%2Fexec -> get . v1 d pods exec x
GET /api/v1%2Fnamespaces -> list . v1 . namespaces . .
GET /api/v1/%70ods -> list . v1 . pods . .
GET /API/v1/pods -> path get
GET /api/v1/pods?w%61tch=1 -> watch . v1 . pods . .
GET /api/v1/pods?watch=t -> watch . v1 . pods . .
GET /api/v1/pods?watch=yes -> watch . v1 . pods . .
GET /api/v1/pods?watch=True -> watch . v1 . pods . .
GET /api/v1/pods?WATCH=1 -> list . v1 . pods . .
GET /api/v1/pods?watch=0&watch=1 -> list . v1 . pods . .
GET /api/v1/pods?watch=1&watch=0 -> watch . v1 . pods . .
GET /api/v1/pods?watch=false;timeoutSeconds=1 -> list . v1 . pods . .
GET /api/v1/pods?watch=1;x=1 -> list . v1 . pods . .
GET /api/v1/pods?watch=%zz&watch=1 -> watch . v1 . pods . .
GET /api/v1/watch/pods?watch=0 -> watch . v1 . pods . .
GET /api/v1/pods?timeoutSeconds=x&fieldSelector=metadata.name=a -> list . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name==a -> list . v1 . pods . a
GET /api/v1/pods?fieldSelector=metadata.name!=a -> list . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name=b,metadata.name=a -> list . v1 . pods . a
GET /api/v1/pods?fieldSelector=,metadata.name=a, -> list . v1 . pods . a
GET /api/v1/pods?fieldSelector=metadata.name=a\\,b -> list . v1 . pods . a,b
GET /api/v1/pods?fieldSelector=metadata.name=a\\b -> list . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name=a=b -> list . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name=.. -> list . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name=a%252Fb -> list . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name= -> list . v1 . pods . .
GET /api/v1/namespaces/n/finalize/x -> get . v1 n namespaces finalize n
get /api/v1/pods -> . . v1 . pods . .
TRACE / -> path other
get /healthz -> path get
WATCH /healthz -> path watch
PROXY /api -> path proxy
GET /api/v1/pods?watch=fal%C5%BFe -> list . v1 . pods . .
GET /api/v1/pods?watch=fal%C5%BFe&limit=x -> watch . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name=a&labelSelector=b+in+(c,,d) -> list . v1 . pods . a
GET /api/v1/pods?fieldSelector=metadata.name=a&labelSelector=b+in+(c,,) -> list . v1 . pods . .
GET /api/v1/pods?fieldSelector=metadata.name=a&labelSelector=b,,c -> list . v1 . pods . .
";

fn with<R>(method: &str, target: &str, check: impl FnOnce(Result<RequestInfo<'_>, BadPath>) -> R) -> R {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = DecodedPath::new(path).unwrap();
    check(RequestInfo::new(method, &path, query))
}

fn info<R>(method: &str, target: &str, check: impl FnOnce(RequestInfo<'_>) -> R) -> R {
    with(method, target, |info| check(info.unwrap()))
}

fn get<R>(target: &str, check: impl FnOnce(RequestInfo<'_>) -> R) -> R {
    info("GET", target, check)
}

#[test]
fn every_case_reads_as_kube_apiserver_reads_it() {
    let dot = |text: &str| if text.is_empty() { ".".to_owned() } else { text.to_owned() };
    for case in CASES.trim().lines() {
        let (request, expected) = case.split_once(" -> ").unwrap();
        let (method, target) = request.split_once(' ').unwrap();
        let found = info(method, target, |info| {
            if !info.is_resource {
                return format!("path {}", info.verb);
            }
            let parts = [info.verb.as_str(), info.api_group, info.api_version, info.namespace, info.resource];
            parts.into_iter().chain([info.subresource, &info.name]).map(dot).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(found, expected, "{request}");
    }
}

#[test]
fn a_legacy_prefix_without_a_resource_is_an_error() {
    for target in ["/api/v1/watch", "/api/v1/proxy/", "/apis/g/v/watch"] {
        assert_eq!(with("GET", target, |info| info.map(|_| ())), Err(BadPath), "{target}");
    }
}

#[test]
fn escapes_without_two_digits_are_refused() {
    for raw in ["/a%", "/a%2", "/a%2g", "/%+1", "/%é"] {
        assert_eq!(DecodedPath::new(raw), Err(BadEscape), "{raw}");
    }
    assert_eq!(DecodedPath::new("/a%2fb+c%ff").unwrap().as_str(), "/a/b+c\u{fffd}");
}

#[test]
fn nothing_is_copied_without_escapes() {
    get("/api/v1/pods?limit=5&fieldSelector=metadata.name=a", |info| {
        assert!(matches!(info.name, Cow::Borrowed("a")));
    });
}

#[test]
fn empty_and_dot_segments_are_odd_where_they_are_read() {
    for odd in [
        "//api/v1/pods",
        "/api//v1/pods",
        "/api/v1/./pods",
        "/api/v1/pods/%2e%2e",
        "/api/v1/pods//",
        "/apis//v1/pods",
        "/api/v1/namespaces//pods",
        "/healthz/../api/v1/pods",
        "/healthz//x",
        "/api/v1/namespaces/a%2F..%2Fx/pods",
    ] {
        assert!(get(odd, |info| info.odd), "{odd}");
    }
    for plain in
        ["/", "/api/v1/pods/", "/api/v1/pods", "/healthz/", "/api/v1/namespaces/n/services/s/proxy/a//b/../c"]
    {
        assert!(!get(plain, |info| info.odd), "{plain}");
    }
}

#[test]
fn streams_watches_and_profiles_are_long_running() {
    for target in [
        "/api/v1/pods?watch=1",
        "/api/v1/watch/pods",
        "/api/v1/proxy/nodes/n",
        "/api/v1/namespaces/n/pods/p/exec",
        "/api/v1/namespaces/n/pods/p/log?follow=false",
        "/apis/g/v/things/t/portforward",
        "/api/v1/nodes/n/proxy/metrics",
        "/debug/pprof/profile",
    ] {
        assert!(get(target, |info| info.is_long_running()), "{target}");
    }
    for target in ["/api/v1/pods", "/api/v1/namespaces/n/pods/p/status", "/debug/pprof", "/exec", "/a/b/exec"]
    {
        assert!(!get(target, |info| info.is_long_running()), "{target}");
    }
}

#[test]
fn health_probes_are_gets_of_a_closed_set_of_paths() {
    for path in ["/livez", "/readyz", "/healthz", "/livez/etcd", "/healthz/", "/version", "/readyz?verbose"] {
        assert!(get(path, |info| info.is_health_probe()), "{path}");
        assert!(!info("POST", path, |info| info.is_health_probe()), "{path}");
    }
    for path in
        ["/healthzz", "/version/x", "/Livez", "/healthz/../api/v1/pods", "//livez", "/api/v1/livez", "/"]
    {
        assert!(!get(path, |info| info.is_health_probe()), "{path}");
    }
}

#[test]
fn scope_is_what_the_request_can_touch() {
    for (method, target, scope) in [
        ("GET", "/api/v1/pods", Scope::Cluster),
        ("GET", "/api/v1/namespaces/n/pods", Scope::Namespace),
        ("GET", "/api/v1/namespaces/n/pods/p", Scope::Object),
        ("POST", "/api/v1/namespaces/n/pods", Scope::Object),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Scope::Object),
        ("DELETE", "/api/v1/namespaces/n/pods", Scope::Namespace),
        ("GET", "/healthz", Scope::NonResource),
        ("GET", "/api/v1/namespaces/n/pods?fieldSelector=metadata.name=p", Scope::Object),
        ("GET", "/api/v1/nodes?watch=1&fieldSelector=metadata.name=n1", Scope::Object),
        // One object in the answer, all of them read: a name must not disguise a scan.
        ("GET", "/api/v1/pods?fieldSelector=metadata.name=p", Scope::Cluster),
    ] {
        assert_eq!(info(method, target, |info| info.scope()), scope, "{method} {target}");
    }
}

#[test]
fn a_page_limit_counts_only_where_kube_apiserver_honours_it() {
    for (target, unpaged) in [
        ("/api/v1/pods", true),
        ("/api/v1/pods?limit=0", true),
        ("/api/v1/pods?limit=-1", true),
        ("/api/v1/pods?limit=500", false),
        ("/api/v1/pods?limit=500&resourceVersion=0", true),
        ("/api/v1/pods?watch=1", false),
        ("/api/v1/pods?watch=1&sendInitialEvents=true", true),
        ("/api/v1/namespaces/n/pods/p", false),
    ] {
        assert_eq!(get(target, |info| info.is_unpaged()), unpaged, "{target}");
    }
}

#[test]
fn the_query_says_what_a_list_costs() {
    get("/api/v1/pods?limit=500&continue=abc&resourceVersion=7&labelSelector=a%3Db", |info| {
        let expected = Query {
            limit: Some(500),
            continues: true,
            resource_version: ResourceVersion::Exact,
            selector: Selector::Label,
            ..Query::default()
        };
        assert_eq!(info.query, expected);
    });
    let selector = |query: &str| get(&format!("/api/v1/pods?{query}"), |info| info.query.selector);
    assert_eq!(selector("fieldSelector=spec.nodeName=n&labelSelector=a"), Selector::Field);
    assert_eq!(selector("fieldSelector=metadata.name=n&labelSelector=a"), Selector::Name);
    assert_eq!(selector("fieldSelector=&labelSelector="), Selector::None);
    assert_eq!(selector("resourceVersion="), Selector::None);
}

/// Whether they are read depends on the version of Go behind us, so they may not lift and not narrow down.
#[test]
fn a_query_of_more_parameters_than_go_reads_is_a_list_of_everything_and_odd() {
    let name = "watch=1&fieldSelector=metadata.name=n1&limit=1";
    for (more, odd) in [(9_997, false), (9_998, true)] {
        get(&format!("/api/v1/nodes?{name}{}", "&".repeat(more)), |info| {
            assert_eq!(info.odd, odd, "{more}");
            assert_eq!(info.scope() == Scope::Cluster, odd, "{more}");
            assert_eq!(info.verb == Verb::List && info.is_unpaged(), odd, "{more}");
        });
        get(&format!("/healthz?{name}{}", "&".repeat(more)), |info| assert!(!info.odd));
    }
}

#[test]
fn a_legacy_watch_of_one_object_takes_options_too() {
    get("/api/v1/watch/namespaces/n/pods/p?resourceVersion=7", |info| {
        assert_eq!(info.query.resource_version, ResourceVersion::Exact);
        assert_eq!((info.scope(), &*info.name), (Scope::Object, "p"));
    });
    get("/api/v1/watch/pods/p?fieldSelector=metadata.name=q", |info| assert_eq!(info.scope(), Scope::Object));
}

/// The text with a `%XX` for every byte whose turn it is.
fn spelt(text: &str, turns: &[bool]) -> String {
    let turns = turns.iter().chain(std::iter::repeat(&false));
    let spelt = text.bytes().zip(turns).map(|(byte, escape)| match byte {
        // Slashes too; what only ends the path, or is an escape already, stays.
        b'%' | b'?' => char::from(byte).to_string(),
        _ if *escape || !byte.is_ascii() => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    });
    spelt.collect()
}

proptest! {
    #[test]
    fn a_path_is_the_same_however_it_is_escaped(
        path in "/(api|apis|apps|v1|watch|namespaces|shop|status|pods|/|\\.\\.|é|x|;){1,12}",
        turns in proptest::collection::vec(any::<bool>(), 0..40),
    ) {
        let (plain, other) = (spelt(&path, &[]), spelt(&path, &turns));
        let (plain, other) = (DecodedPath::new(&plain).unwrap(), DecodedPath::new(&other).unwrap());
        prop_assert_eq!(RequestInfo::new("GET", &plain, None), RequestInfo::new("GET", &other, None));
    }

    #[test]
    fn a_query_is_the_same_however_it_is_escaped_and_first_values_count(
        pairs in proptest::collection::vec(
            ("(watch|limit|fieldSelector|labelSelector|resourceVersion|continue)", "(1|0|false|500|x|metadata\\.name=a|a,b||é)"),
            1..5,
        ),
        turns in proptest::collection::vec(any::<bool>(), 0..40),
        others in proptest::collection::vec("(watch=0|limit=7|x;watch=1|fieldSelector=metadata\\.name=z)", 0..3),
    ) {
        let path = DecodedPath::new("/api/v1/pods").unwrap();
        let read = |query: &str| {
            RequestInfo::new("GET", &path, Some(query)).map(|info| (info.verb, info.query, info.name.into_owned()))
        };
        let query = |turns: &[bool]| {
            let pairs = pairs.iter().map(|(key, value)| format!("{}={}", spelt(key, turns), spelt(value, turns)));
            pairs.collect::<Vec<_>>().join("&")
        };
        let plain = query(&[]);
        prop_assert_eq!(read(&plain), read(&query(&turns)));
        // Keys that came before are decided; pairs with a semicolon never were any.
        let keys: Vec<_> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        let late = others.iter().filter(|other| {
            other.contains(';') || other.split('=').next().is_some_and(|key| keys.contains(&key))
        });
        let more: Vec<_> = std::iter::once(plain.as_str()).chain(late.map(String::as_str)).collect();
        prop_assert_eq!(read(&plain), read(&more.join("&")));
    }

    #[test]
    fn no_bytes_make_it_panic(method in "\\PC{0,8}", path in "\\PC{0,64}", query in proptest::option::of("\\PC{0,64}")) {
        if let Ok(path) = DecodedPath::new(&path) {
            let _ = RequestInfo::new(&method, &path, query.as_deref());
        }
    }

    #[test]
    fn no_arrangement_of_meaningful_pieces_makes_it_panic(
        path in "(/|//|api|apis|v1|watch|proxy|namespaces|status|pods|\\.|\\.\\.|%2[fF]|%25|é|x){0,12}",
        query in "(watch|limit|fieldSelector|metadata\\.name|=|==|!=|&|;|,|%3D|%2C|%|\\+|\\\\|0|a|é){0,14}",
    ) {
        if let Ok(path) = DecodedPath::new(&path)
            && let Ok(info) = RequestInfo::new("GET", &path, Some(&query))
        {
            prop_assert!(info.is_resource || info.resource.is_empty());
            prop_assert!(!info.name.contains('/'));
            prop_assert_eq!(info.scope() == Scope::NonResource, !info.is_resource);
        }
    }
}
