//! `spillway break-glass test`: would the lane let this person in, and what may they do there?
//!
//! Step by step, as an incident would: files, TCP, TLS, identity, rights, latency. Nothing is changed in the cluster.
//! Each step that fails says what to do about it, and those behind it are not tried.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Ending, Failure, Output, print};
use crate::breakglass::{
    Answer, ClientError, Stage, Target, parse_time, read_certificate, read_kubeconfig, show_duration,
    show_time,
};
use crate::clock;

/// What an incident takes: the verbs of it, as kube-apiserver is asked.
const RIGHTS: [(&str, &str, &str); 4] =
    [("list", "", "nodes"), ("patch", "", "nodes"), ("list", "", "pods"), ("delete", "apps", "daemonsets")];
/// Above this an answer through the lane is slow, whoever's fault that is.
const SLOW: Duration = Duration::from_secs(1);

/// Proves that the lane works for a person, without changing anything in the cluster.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  spillway break-glass test --kubeconfig alice.kubeconfig
  spillway break-glass test --kubeconfig alice.kubeconfig -o json

Exit code 1: it would not work, and the last line says what to do. Run it whenever a certificate is issued, and once a
quarter by everybody who is on call.")]
pub(super) struct Args {
    /// The person's kubeconfig for the lane
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// One step and what became of it.
struct Step {
    name: &'static str,
    ok: bool,
    what: String,
    advice: String,
}

impl Step {
    fn good(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, ok: true, what: what.into(), advice: String::new() }
    }

    fn bad(name: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, ok: false, what: what.into(), advice: advice.into() }
    }
}

pub(super) fn test(args: &Args, out: &mut dyn Write) -> Result<Ending, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut steps = Vec::new();
    runtime.block_on(walk(args, &mut steps));
    let works = steps.iter().all(|step| step.ok);
    let json = json!({
        "works": works,
        "steps": steps.iter().map(|step| json!({
            "step": step.name, "ok": step.ok, "what": step.what, "advice": step.advice,
        })).collect::<Vec<_>>(),
    });
    let mut text = String::new();
    for step in &steps {
        let mark = if step.ok { "ok  " } else { "FAIL" };
        text.push_str(&format!("{mark}  {:<8}  {}\n", step.name, step.what));
        if !step.advice.is_empty() {
            text.push_str(&format!("                -> {}\n", step.advice));
        }
    }
    text.push_str(if works {
        "the lane works for this person\n"
    } else {
        "the lane does NOT work for this person\n"
    });
    print(out, args.output, &json, &text)?;
    Ok(if works { Ending::Fine } else { Ending::Failed })
}

async fn walk(args: &Args, steps: &mut Vec<Step>) {
    let Some(target) = files(args, steps) else { return };
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = match target.ask(Method::POST, path, review).await {
        Ok(answer) => answer,
        Err(error) => return steps.push(unreachable(&target, &error)),
    };
    steps.push(Step::good("connect", format!("{} answers in {}", target.address(), millis(answer.connect))));
    steps.push(Step::good(
        "tls",
        format!("the lane's certificate is good, handshake in {}", millis(answer.tls)),
    ));
    if !identity(&answer, steps) {
        return;
    }
    let mut slowest = answer.answer;
    for (verb, group, resource) in RIGHTS {
        match right(&target, verb, group, resource).await {
            Ok((step, took)) => {
                slowest = slowest.max(took);
                steps.push(step);
            }
            Err(error) => return steps.push(unreachable(&target, &error)),
        }
    }
    steps.push(if slowest > SLOW {
        Step::bad(
            "latency",
            format!("the slowest answer took {}", millis(slowest)),
            "the lane works; kube-apiserver behind it is slow: spillway status",
        )
    } else {
        Step::good("latency", format!("the slowest of {} answers took {}", RIGHTS.len() + 1, millis(slowest)))
    });
}

fn files(args: &Args, steps: &mut Vec<Step>) -> Option<Target> {
    let make = "`spillway break-glass issue --kubeconfig FILE …` makes a good one";
    let access = match read_kubeconfig(&args.kubeconfig) {
        Ok(access) => access,
        Err(error) => {
            steps.push(Step::bad("files", error.to_string(), make));
            return None;
        }
    };
    let now = clock::wall();
    let shown = match read_certificate(access.certificate_pem.as_bytes()) {
        Ok(shown) => shown,
        Err(error) => {
            steps.push(Step::bad("files", error, make));
            return None;
        }
    };
    let (user, end) = (shown.user.clone().unwrap_or_default(), show_time(shown.not_after));
    if shown.not_after < now {
        let advice = "`spillway break-glass issue` makes a new certificate; check this machine's clock";
        steps.push(Step::bad("files", format!("the certificate of {user} has expired at {end}"), advice));
        return None;
    }
    let target = match Target::of(&access) {
        Ok(target) => target,
        Err(error) => {
            steps.push(Step::bad("files", error.to_string(), make));
            return None;
        }
    };
    let left = parse_time(&end).and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
    let what = format!("certificate {} of {user}, good for {} more", shown.serial, show_duration(left));
    steps.push(Step::good("files", what));
    Some(target)
}

fn unreachable(target: &Target, error: &ClientError) -> Step {
    let address = target.address();
    let (name, advice) = match error.stage {
        Stage::Files => ("files", "make a new kubeconfig with `spillway break-glass kubeconfig`".to_owned()),
        Stage::Connect => (
            "connect",
            format!(
                "is spillway running on that node (crictl ps), and does a firewall let {address} through? Another \
                 control-plane node has a lane of its own"
            ),
        ),
        Stage::Tls => (
            "tls",
            "is certificate-authority the CA that signed breakGlass.tls.certFile, and is this host's name or address in it?"
                .to_owned(),
        ),
        Stage::Request => (
            "request",
            "the lane took the connection and gave no answer: try another control-plane node, or the node's own \
             /etc/kubernetes/admin.conf straight to kube-apiserver"
                .to_owned(),
        ),
    };
    Step::bad(name, error.to_string(), advice)
}

fn identity(answer: &Answer, steps: &mut Vec<Step>) -> bool {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = said["message"].as_str().unwrap_or_default().to_owned();
    let advice = match answer.status {
        StatusCode::CREATED => {
            let info = &said["status"]["userInfo"];
            let groups: Vec<&str> =
                info["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let user = info["username"].as_str().unwrap_or_default();
            let what = format!("kube-apiserver sees {user} in {}", groups.join(", "));
            steps.push(Step::good("identity", what));
            return true;
        }
        StatusCode::UNAUTHORIZED => "the lane does not accept this certificate; its words say why",
        StatusCode::FORBIDDEN if message.contains("break-glass arm") => "arm the lane first, then test again",
        StatusCode::FORBIDDEN => "kube-apiserver refuses: is deploy/break-glass/rbac.yaml applied?",
        StatusCode::TOO_MANY_REQUESTS => {
            "the lane's own ceiling is reached; wait a few seconds and test again"
        }
        status if status.is_server_error() => {
            "the lane works, kube-apiserver behind it does not: crictl ps and its log on that node"
        }
        _ => "this is not what kube-apiserver answers: does the server in the kubeconfig name the lane?",
    };
    steps.push(Step::bad("identity", format!("{}: {message}", answer.status), advice));
    false
}

async fn right(
    target: &Target,
    verb: &str,
    group: &str,
    resource: &str,
) -> Result<(Step, Duration), ClientError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": { "verb": verb, "group": group, "resource": resource } },
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = target.ask(Method::POST, path, &review.to_string()).await?;
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let step = if said["status"]["allowed"] == true {
        Step::good("rights", format!("may {verb} {resource}"))
    } else {
        let advice = "apply deploy/break-glass/rbac.yaml, which binds the lane's group to cluster-admin";
        Step::bad("rights", format!("may not {verb} {resource} ({})", answer.status), advice)
    };
    Ok((step, answer.answer))
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
