//! The drill's way in: what a person does through the lane, in the order of an incident.
//!
//! Each step is one request over a connection of its own, as after a reconnect. A refusal says who refused: the lane, RBAC or
//! nobody at all, because the next command depends on it.

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::drill::{Args, SHORT, pair};
use super::drill_report::{Found, Report, bad, good, millis, untried};
use crate::breakglass::{
    Answer, ClientError, Stage, Target, read_certificate, read_kubeconfig, show_duration, show_time,
};
use crate::clock;

/// A certificate that ends within this does not last an incident.
const LASTS: std::time::Duration = std::time::Duration::from_secs(3_600);
/// Clocks that are further apart make good certificates look expired.
const SKEW_MAX: std::time::Duration = std::time::Duration::from_secs(60);
/// What is made up when there is no DaemonSet to try on.
const MADE_UP: &str = "spillway-drill";
const MERGE_PATCH: &str = "application/merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";
const APPLY_RBAC: &str = "kubectl apply --server-side -f deploy/break-glass/rbac.yaml";
const TEST: &str = "spillway break-glass test --kubeconfig FILE says which step fails";
const DAEMONSETS: &str = "/apis/apps/v1";
const RIGHTS: [(&str, &str, &str, &str); 7] = [
    ("list", "", "nodes", ""),
    ("patch", "apps", "daemonsets", ""),
    ("delete", "apps", "daemonsets", ""),
    ("get", "", "pods", "log"),
    ("create", "", "pods", "exec"),
    ("watch", "", "namespaces", ""),
    ("delete", "rbac.authorization.k8s.io", "clusterrolebindings", ""),
];

/// Plays them all; the answer is the `Audit-ID` of a request that the audit log must know.
pub(super) async fn play(args: &Args, report: &mut Report) -> Option<String> {
    let target = files(args, report)?;
    report.lane = target.address();
    let armed = open(args, &target, report).await?;
    identity(&target, report).await;
    rights(&target, report).await;
    let used = nodes(&target, report).await;
    writes(args, &target, report).await;
    pods(args, &target, report).await;
    watch(&target, report).await;
    if armed {
        // It ends by itself soon, too.
        let _ = target.ask(Method::POST, "/spillway/disarm", "").await;
    }
    used
}

fn files(args: &Args, report: &mut Report) -> Option<Target> {
    if !report.wants("files") {
        return None;
    }
    let make = "spillway break-glass issue --kubeconfig FILE …";
    let read = || {
        let access = read_kubeconfig(&args.kubeconfig).map_err(|error| error.to_string())?;
        let shown = read_certificate(access.certificate_pem.as_bytes())?;
        let target = Target::of(&access).map_err(|error| error.to_string())?;
        Ok::<_, String>((target, shown))
    };
    let (target, shown) = match read() {
        Ok(read) => read,
        Err(why) => {
            report.found("files", bad(why, make));
            return None;
        }
    };
    report.user = shown.user.clone().unwrap_or_default();
    let what = format!("certificate {} of {}", shown.serial, report.user);
    let found = match shown.not_after.duration_since(clock::wall()) {
        Ok(left) if left >= LASTS => good(format!("{what}, good for {} more", show_duration(left))),
        Ok(left) => bad(format!("{what} ends in {}: an incident lasts longer", show_duration(left)), make),
        Err(_) => bad(format!("{what} has expired at {}", show_time(shown.not_after)), make),
    };
    report.found("files", found);
    Some(target)
}

/// Connection, TLS and arming; whether the drill armed the lane, if there is a lane.
async fn open(args: &Args, target: &Target, report: &mut Report) -> Option<bool> {
    let wanted = ["connect", "tls", "arm"].map(|step| report.wants(step));
    let asked = target.ask(Method::GET, "/spillway/arm", "").await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => {
            let step = if error.stage == Stage::Tls { "tls" } else { "connect" };
            report.found(step, unreachable(target, &error));
            return None;
        }
    };
    if wanted[0] {
        report.found_in(
            "connect",
            good(format!("{} answers in {}", target.address(), millis(answer.connect))),
            answer.connect,
        );
    }
    if wanted[1] {
        report.found_in("tls", good(format!("a full handshake in {}", millis(answer.tls))), answer.tls);
    }
    let said = json_of(&answer);
    if answer.status != StatusCode::OK {
        report.found("arm", refused(&answer));
        return None;
    }
    let me = |grant: &Value| grant["user"] == said["you"];
    if said["mode"] == "Open" || said["armed"].as_array().is_some_and(|grants| grants.iter().any(me)) {
        if wanted[2] {
            let what = match said["mode"].as_str() {
                Some("Open") => {
                    "not needed: a certificate suffices here (breakGlass.arming: Open)".to_owned()
                }
                mode => format!("armed for {} already ({})", report.user, mode.unwrap_or_default()),
            };
            report.found("arm", good(what));
        }
        return Some(false);
    }
    if !wanted[2] {
        return None;
    }
    let found = arm(args, target, &report.user).await;
    report.found("arm", found).then_some(true)
}

async fn arm(args: &Args, target: &Target, user: &str) -> Found {
    let wish =
        json!({ "reason": "drill", "ticket": args.ticket, "seconds": SHORT.as_secs() * 5 }).to_string();
    let next = format!(
        "spillway break-glass arm --reason drill --ticket {} --for 5m --kubeconfig FILE",
        args.ticket
    );
    match target.ask(Method::POST, "/spillway/arm", &wish).await {
        Ok(answer) if answer.status == StatusCode::OK => good(format!("armed under {} for 5m", args.ticket)),
        Ok(answer) if answer.status == StatusCode::ACCEPTED => {
            let Some(second) = &args.second else {
                let next = "play it again with --second FILE, the kubeconfig of the second person";
                return bad("two people are needed, and only one is here", next);
            };
            confirm(second, user).await
        }
        Ok(answer) => bad(message(&answer), next),
        Err(error) => bad(error.to_string(), next),
    }
}

async fn confirm(second: &std::path::Path, user: &str) -> Found {
    let next = format!("spillway break-glass confirm {user} --kubeconfig {}", second.display());
    let target = read_kubeconfig(second)
        .map_err(|error| error.to_string())
        .and_then(|access| Target::of(&access).map_err(|error| error.to_string()));
    let target = match target {
        Ok(target) => target,
        Err(why) => return bad(why, "spillway break-glass issue --kubeconfig FILE … for the second person"),
    };
    match target.ask(Method::POST, "/spillway/confirm", &json!({ "user": user }).to_string()).await {
        Ok(answer) if answer.status == StatusCode::OK => good("armed by two people for 5m"),
        Ok(answer) => bad(message(&answer), next),
        Err(error) => bad(error.to_string(), next),
    }
}

async fn identity(target: &Target, report: &mut Report) {
    if !report.wants("identity") {
        return;
    }
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = target.ask(Method::POST, path, review).await;
    let found = judged(target, answer, |answer| {
        let info = &json_of(answer)["status"]["userInfo"];
        let groups: Vec<&str> =
            info["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let user = info["username"].as_str().unwrap_or_default();
        if user == report.user {
            good(format!("kube-apiserver sees {user} in {}", groups.join(", ")))
        } else {
            let next = "does the server in the kubeconfig name the lane? compare with breakGlass.address";
            bad(format!("kube-apiserver sees {user:?}, the certificate says {:?}", report.user), next)
        }
    });
    report.found("identity", found);
}

async fn rights(target: &Target, report: &mut Report) {
    if !report.wants("rights") {
        return;
    }
    let mut missing = Vec::new();
    for (verb, group, resource, subresource) in RIGHTS {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource,
            } },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        match target.ask(Method::POST, path, &review.to_string()).await {
            Ok(answer) if answer.status != StatusCode::CREATED => {
                report.found("rights", refused(&answer));
                return;
            }
            Ok(answer) if json_of(&answer)["status"]["allowed"] == true => {}
            Ok(_) => {
                missing.push(format!("{verb} {resource}/{subresource}").trim_end_matches('/').to_owned())
            }
            Err(error) => {
                report.found("rights", unreachable(target, &error));
                return;
            }
        }
    }
    report.found(
        "rights",
        if missing.is_empty() {
            good(format!("RBAC allows all {} that an incident takes", RIGHTS.len()))
        } else {
            bad(format!("RBAC does not allow: {}", missing.join(", ")), APPLY_RBAC)
        },
    );
}

/// GET nodes, and what its answer tells about priority and clocks.
async fn nodes(target: &Target, report: &mut Report) -> Option<String> {
    let wanted = report.wants("nodes");
    let answer = target.ask(Method::GET, "/api/v1/nodes?limit=1", "").await;
    let headers = answer.as_ref().ok().map(|answer| answer.headers.clone()).unwrap_or_default();
    let worked = answer.as_ref().is_ok_and(|answer| answer.status.is_success());
    if wanted {
        let found =
            judged(target, answer, |answer| good(format!("the list begins in {}", millis(answer.answer))));
        report.found("nodes", found);
    }
    if worked {
        if report.wants("priority") {
            let found = priority(target, &headers).await;
            report.found("priority", found);
        }
        if report.wants("clock") {
            report.found("clock", skew(&headers));
        }
    }
    headers.get("audit-id").and_then(|id| id.to_str().ok()).map(str::to_owned)
}

/// Which level of API Priority and Fairness answered: any but exempt has a queue that others can fill.
async fn priority(target: &Target, headers: &HeaderMap) -> Found {
    let apply = "kubectl apply --server-side -f deploy/break-glass/flowschema.yaml";
    let uid = |name: &str| headers.get(name).and_then(|uid| uid.to_str().ok()).map(str::to_owned);
    let Some(level) = uid("x-kubernetes-pf-prioritylevel-uid") else {
        let next =
            "is kube-apiserver's --enable-priority-and-fairness false? then nothing queues behind the lane";
        return untried("kube-apiserver does not say which priority level answered", next);
    };
    let path = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations?limit=500";
    let levels = match target.ask(Method::GET, path, "").await {
        Ok(answer) if answer.status.is_success() => json_of(&answer),
        Ok(answer) => return refused(&answer),
        Err(error) => return unreachable(target, &error),
    };
    let named =
        levels["items"].as_array().into_iter().flatten().find(|item| item["metadata"]["uid"] == *level);
    match named.and_then(|item| item["metadata"]["name"].as_str()) {
        Some("exempt") => good("kube-apiserver serves the lane in its exempt level: no queue"),
        Some(name) => {
            bad(format!("the lane would wait in priority level {name} with everybody else there"), apply)
        }
        None => bad("the priority level that answered is not among those there are", apply),
    }
}

fn skew(headers: &HeaderMap) -> Found {
    let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let there = date.and_then(|date| time::PrimitiveDateTime::parse(date, &format).ok());
    let Some(there) = there.map(|date| std::time::SystemTime::from(date.assume_utc())) else {
        return untried("kube-apiserver's answer has no time", "date -u here, and on the control-plane node");
    };
    let here = clock::wall();
    let apart = here.duration_since(there).or_else(|_| there.duration_since(here)).unwrap_or_default();
    let what = format!("this clock and kube-apiserver's are {} s apart", apart.as_secs());
    if apart <= SKEW_MAX {
        good(what)
    } else {
        bad(what, "timedatectl status, here and on the node: certificates are judged by these clocks")
    }
}

/// A merge patch and a delete, both dry.
async fn writes(args: &Args, target: &Target, report: &mut Report) {
    let (patch, delete) = (report.wants("patch"), report.wants("delete"));
    if !patch && !delete {
        return;
    }
    let chosen = match &args.daemonset {
        Some(text) => pair(text).map(Some),
        None => first(target, &format!("{DAEMONSETS}/daemonsets?limit=1")).await,
    };
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(why) => {
            for (step, _) in [("patch", patch), ("delete", delete)].into_iter().filter(|(_, wanted)| *wanted)
            {
                report.found(step, bad(why.clone(), APPLY_RBAC));
            }
            return;
        }
    };
    if patch {
        let found = dry_patch(target, chosen.as_ref()).await;
        report.found("patch", found);
    }
    if delete {
        let found = match &chosen {
            Some((namespace, name)) => {
                let path = format!("{DAEMONSETS}/namespaces/{namespace}/daemonsets/{name}?dryRun=All");
                let answer = target.ask(Method::DELETE, &path, "").await;
                judged(target, answer, |_| good(format!("a dry DELETE of {namespace}/{name} passes")))
            }
            None => untried(
                "there is no DaemonSet in this cluster, and one that is made up cannot be deleted",
                "--daemonset NAMESPACE/NAME, once there is one",
            ),
        };
        report.found("delete", found);
    }
}

async fn dry_patch(target: &Target, chosen: Option<&(String, String)>) -> Found {
    let annotations = json!({ "metadata": { "annotations": { "spillway.dev/drill": "dry" } } });
    if let Some((namespace, name)) = chosen {
        let path = format!("{DAEMONSETS}/namespaces/{namespace}/daemonsets/{name}?dryRun=All");
        let answer = target.ask_as(Method::PATCH, &path, &annotations.to_string(), MERGE_PATCH).await;
        return judged(target, answer, |_| good(format!("a dry PATCH of {namespace}/{name} passes")));
    }
    let labels = json!({ "app": MADE_UP });
    let made_up = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": MADE_UP, "namespace": "default" },
        "spec": { "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "main", "image": "none" }] },
        } },
    });
    let path = format!(
        "{DAEMONSETS}/namespaces/default/daemonsets/{MADE_UP}?dryRun=All&fieldManager={MADE_UP}&force=true"
    );
    let answer = target.ask_as(Method::PATCH, &path, &made_up.to_string(), APPLY_PATCH).await;
    judged(target, answer, |_| {
        good("a dry PATCH that would make a DaemonSet passes (there is none in this cluster)")
    })
}

/// Log and exec of a pod: the first reaches its kubelet, the second is begun without an upgrade, so nothing runs.
async fn pods(args: &Args, target: &Target, report: &mut Report) {
    let (logs, exec) = (report.wants("logs"), report.wants("exec"));
    if !logs && !exec {
        return;
    }
    let chosen = match &args.pod {
        Some(text) => pair(text).map(Some),
        None => first(target, "/api/v1/pods?limit=1&fieldSelector=status.phase%3DRunning").await,
    };
    let found = match chosen {
        Ok(Some(pod)) => Ok(pod),
        Ok(None) => Err(untried("no pod runs in this cluster", "--pod NAMESPACE/NAME, once one does")),
        Err(why) => Err(bad(why, APPLY_RBAC)),
    };
    let (namespace, name) = match found {
        Ok(pod) => pod,
        Err(Found::Untried(what, next)) => {
            return both(report, logs, exec, || untried(what.clone(), next.clone()));
        }
        Err(Found::Bad(what, next)) => return both(report, logs, exec, || bad(what.clone(), next.clone())),
        Err(Found::Good(_)) => return,
    };
    let container =
        match target.ask(Method::GET, &format!("/api/v1/namespaces/{namespace}/pods/{name}"), "").await {
            Ok(answer) => {
                json_of(&answer)["spec"]["containers"][0]["name"].as_str().unwrap_or_default().to_owned()
            }
            Err(_) => String::new(),
        };
    if logs {
        let path =
            format!("/api/v1/namespaces/{namespace}/pods/{name}/log?tailLines=1&container={container}");
        let answer = target.ask(Method::GET, &path, "").await;
        let found =
            judged(target, answer, |_| good(format!("the log of {namespace}/{name} comes from its kubelet")));
        let found = match found {
            Found::Bad(what, next) if what.starts_with('5') => {
                let next = if next.is_empty() {
                    "--pod NAMESPACE/NAME on a node whose kubelet answers"
                } else {
                    &next
                };
                bad(what, format!("{next}; or --pod NAMESPACE/NAME on another node"))
            }
            other => other,
        };
        report.found("logs", found);
    }
    if exec {
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/exec?command=true&stdout=true&container={container}"
        );
        let found = match target.ask(Method::GET, &path, "").await {
            // It wants an upgrade: the way is open, RBAC agrees, and nothing was run.
            Ok(answer) if answer.status == StatusCode::BAD_REQUEST => {
                good(format!("exec into {namespace}/{name} is open up to kube-apiserver; nothing was run"))
            }
            Ok(answer) => refused(&answer),
            Err(error) => unreachable(target, &error),
        };
        report.found("exec", found);
    }
}

fn both(report: &mut Report, logs: bool, exec: bool, found: impl Fn() -> Found) {
    for (step, _) in [("logs", logs), ("exec", exec)].into_iter().filter(|(_, wanted)| *wanted) {
        report.found(step, found());
    }
}

/// A watch from resourceVersion 0 begins with what there is: one namespace that every cluster has.
async fn watch(target: &Target, report: &mut Report) {
    if !report.wants("watch") {
        return;
    }
    let path =
        "/api/v1/namespaces?watch=1&resourceVersion=0&timeoutSeconds=1&fieldSelector=metadata.name%3Ddefault";
    let answer = target.ask(Method::GET, path, "").await;
    let found = judged(target, answer, |answer| {
        let line = answer.body.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        match event["type"].as_str() {
            Some("ADDED") => good("a watch delivers an event and ends when it should"),
            _ => bad("a watch was opened and delivered nothing within a second", "spillway status"),
        }
    });
    report.found("watch", found);
}

/// Namespace and name of the first object of a list.
async fn first(target: &Target, path: &str) -> Result<Option<(String, String)>, String> {
    let answer = target.ask(Method::GET, path, "").await.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("{}: {}", answer.status, message(&answer)));
    }
    let list = json_of(&answer);
    let found = &list["items"][0]["metadata"];
    let text = |key: &str| found[key].as_str().map(str::to_owned);
    Ok(text("namespace").zip(text("name")))
}

fn judged(
    target: &Target,
    answer: Result<Answer, ClientError>,
    fine: impl FnOnce(&Answer) -> Found,
) -> Found {
    match answer {
        Ok(answer) if answer.status.is_success() => fine(&answer),
        Ok(answer) => refused(&answer),
        Err(error) => unreachable(target, &error),
    }
}

fn refused(answer: &Answer) -> Found {
    let said = message(answer);
    let next = match answer.status {
        StatusCode::UNAUTHORIZED => {
            "spillway break-glass issue --user YOU … : the lane's words say what is wrong with this one"
        }
        StatusCode::FORBIDDEN if said.contains("break-glass arm") => {
            "spillway break-glass arm --reason 'drill' --ticket ID --kubeconfig FILE"
        }
        StatusCode::FORBIDDEN => APPLY_RBAC,
        StatusCode::NOT_FOUND => "kubectl get --kubeconfig FILE … : is it still there? name another",
        StatusCode::TOO_MANY_REQUESTS => {
            "wait a few seconds, then play it again: the lane's own ceiling was reached"
        }
        status if status.is_server_error() => {
            "spillway status; crictl ps and kube-apiserver's log on that node"
        }
        _ => TEST,
    };
    bad(format!("{}: {said}", answer.status), next)
}

fn unreachable(target: &Target, error: &ClientError) -> Found {
    let address = target.address();
    let next = match error.stage {
        Stage::Files => "spillway break-glass kubeconfig makes a new one".to_owned(),
        Stage::Connect => format!(
            "ss -ltn on that node: does anybody listen at {address}? is breakGlass in spillway's configuration, and a \
             firewall in between?"
        ),
        Stage::Tls => format!(
            "openssl s_client -connect {address}: is certificate-authority the CA of that certificate?"
        ),
        Stage::Request => TEST.to_owned(),
    };
    bad(error.to_string(), next)
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// What a Status says, or the text itself.
fn message(answer: &Answer) -> String {
    const SHOWN_MAX: usize = 300;
    let said = json_of(answer)["message"].as_str().map(str::to_owned);
    let said = said.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned());
    said.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect()
}
