//! Is kube-apiserver there, does it believe us, and does everybody pass us on the way to it?

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::Method;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::ask::{As, CHECKER, ask, own_page, unanswered};
use super::machine::own_addresses;
use super::sockets::listening;
use super::{Found, Situation, either};
use crate::app::settings;
use crate::config::ProxyConfiguration;
use crate::upstream::trust;

/// A clock this far off is worth a look; tokens and certificates are judged by it.
const SKEW_WARNING: Duration = Duration::from_secs(5);
/// Beyond this, fresh tokens look as if they came from the future.
const SKEW_FAILED: Duration = Duration::from_secs(60);
/// Requests that may go by without a word, a second: kube-apiserver asks itself, and probes go by.
const AROUND_PER_SECOND: f64 = 20.0;
/// The part of all requests that may.
const AROUND_PART: f64 = 0.2;

/// The oldest minor version of 1 that is tried.
const MINOR_MIN: u32 = 29;

/// Does it answer, with a certificate of the CA and name that were configured?
pub(super) fn reachable(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        let address = proxy.upstreams.server.address;
        let distrust = settings::upstream(proxy)
            .map_err(|error| error.to_string())
            .and_then(|settings| trust::check(&settings).map_err(|error| error.to_string()));
        if let Err(why) = distrust {
            return Ok(Found::fail(why, "correct upstreams.tls in the configuration"));
        }
        match ask(proxy, As::Anonymous, Method::GET, "/version", "") {
            Err(why) => Ok(Found::fail(
                format!("{address}: {why}"),
                "is it running, and on this address? crictl ps --name kube-apiserver; ss -ltn",
            )),
            Ok(answer) => Ok(version(&answer.body, address)),
        }
    })())
}

fn version(body: &[u8], address: SocketAddr) -> Found {
    let version: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    // Who may not ask for the version gets a Status; that it answered is what counts.
    let Some(text) = version["gitVersion"].as_str() else {
        return Found::ok(format!("{address} answers, and does not tell its version to strangers"));
    };
    match minor_of(text) {
        Some(minor) if minor < MINOR_MIN => Found::warn(
            format!("{address} is {text}: nobody has tried spillway with anything before 1.{MINOR_MIN}"),
            "try it with --mode side-port first",
        ),
        _ => Found::ok(format!("{address} is {text}")),
    }
}

/// The 34 of `v1.34.1`.
pub(super) fn minor_of(version: &str) -> Option<u32> {
    version.trim_start_matches('v').split('.').nth(1)?.parse().ok()
}

/// Do the clocks agree?
pub(super) fn clock(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        let answer =
            ask(proxy, As::Anonymous, Method::GET, "/livez", "").map_err(|why| unanswered(proxy, &why))?;
        let date = answer.date.as_deref().and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
        let Some(date) = date else {
            return Ok(Found::skip("its answer has no Date", "compare with date -u"));
        };
        // Of now, not of the start: the question before may have waited.
        Ok(skew(SystemTime::from(date), crate::clock::wall()))
    })())
}

/// The Date header has whole seconds, so one of them means nothing.
fn skew(theirs: SystemTime, ours: SystemTime) -> Found {
    let (ahead, off) = match theirs.duration_since(ours) {
        Ok(ahead) => ("ahead of", ahead),
        Err(behind) => ("behind", behind.duration()),
    };
    let what = format!("kube-apiserver's clock is {} s {ahead} this machine's", off.as_secs());
    let advice =
        "look at both: timedatectl, chronyc tracking; tokens and certificates are judged by the clock";
    if off >= SKEW_FAILED {
        Found::fail(what, advice)
    } else if off >= SKEW_WARNING {
        Found::warn(what, advice)
    } else {
        Found::ok("the clocks agree")
    }
}

/// Does it believe whom we say a client is?
pub(super) fn believes(situation: &Situation) -> Found {
    const REVIEW: &str = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    const PATH: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    either((|| {
        let proxy = situation.proxy()?;
        if proxy.upstreams.forward_identity.front_proxy.is_none() {
            return Ok(Found::skip("there is no front proxy in the configuration", "spillway help SPW0406"));
        }
        let who = As::Checker(&["system:authenticated"]);
        let answer = ask(proxy, who, Method::POST, PATH, REVIEW).map_err(|why| unanswered(proxy, &why))?;
        let review: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let name = review["status"]["userInfo"]["username"].as_str();
        Ok(match name {
            Some(CHECKER) => Found::ok("the front-proxy certificate is believed"),
            Some(other) => Found::fail(
                format!("it took {CHECKER:?} for {other:?}: the front-proxy certificate is not believed"),
                "kube-apiserver needs --requestheader-client-ca-file with the CA of frontProxy.certFile, \
                 --requestheader-allowed-names with its CN (or empty), and --requestheader-username-headers=X-Remote-User",
            ),
            None => Found::fail(
                format!("it answers {} when it is asked who we are", answer.status.as_u16()),
                "kube-apiserver needs --requestheader-client-ca-file with the CA of frontProxy.certFile",
            ),
        })
    })())
}

/// Does it listen where clients can reach it without us?
pub(super) fn no_way_around(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        let upstream = proxy.upstreams.server.address;
        if !upstream.ip().is_loopback() {
            return Ok(Found::warn(
                format!(
                    "kube-apiserver is at {upstream}, where everybody can reach it: only who is pointed at spillway passes"
                ),
                "for a trial that is meant; else the address split: spillway manifest kubeadm-patch",
            ));
        }
        let Some(listening) = listening() else {
            return Ok(Found::skip("the kernel's table of sockets cannot be read", "look with ss -ltn"));
        };
        let around = around(proxy, &listening);
        if around.is_empty() {
            return Ok(Found::ok(format!("kube-apiserver listens on {upstream} only")));
        }
        let around: Vec<String> = around.iter().map(ToString::to_string).collect();
        Ok(Found::fail(
            format!("kube-apiserver can be reached around spillway: {}", around.join(", ")),
            "kube-apiserver needs --bind-address=127.0.0.1: spillway manifest kubeadm-patch",
        ))
    })())
}

/// Listeners on the apiserver's port that neither are ours nor on loopback.
fn around(proxy: &ProxyConfiguration, listening: &[SocketAddr]) -> Vec<SocketAddr> {
    let own: Vec<SocketAddr> = own_addresses(proxy).into_iter().map(|(_, address)| address).collect();
    let upstream = proxy.upstreams.server.address;
    let mut around: Vec<SocketAddr> = listening
        .iter()
        .copied()
        .filter(|address| {
            address.port() == upstream.port() && !address.ip().is_loopback() && !own.contains(address)
        })
        .collect();
    around.dedup();
    around
}

/// Do as many requests arrive there as pass here?
pub(super) fn traffic(situation: &Situation) -> Found {
    either((|| {
        let proxy = situation.proxy()?;
        if !situation.runs() {
            return Ok(Found::skip("no spillway runs here", "see SPW-RUN-001"));
        }
        let before = (theirs(proxy)?, ours(proxy)?);
        std::thread::sleep(situation.window);
        let after = (theirs(proxy)?, ours(proxy)?);
        let seconds = situation.window.as_secs_f64().max(0.001);
        let rate = |after: f64, before: f64| (after - before).max(0.0) / seconds;
        Ok(compare(rate(after.0, before.0), rate(after.1, before.1)))
    })())
}

fn compare(theirs: f64, ours: f64) -> Found {
    let around = (theirs - ours).max(0.0);
    let what =
        format!("{theirs:.0} requests a second arrive at kube-apiserver, {ours:.0} of them by spillway");
    if around > AROUND_PER_SECOND && around > theirs * AROUND_PART {
        return Found::warn(
            format!("{what}: {around:.0} go around it"),
            "look who: the source addresses in kube-apiserver's audit log; kubeconfigs that name 127.0.0.1 or another node",
        );
    }
    Found::ok(what)
}

fn theirs(proxy: &ProxyConfiguration) -> Result<f64, Found> {
    let who = As::Checker(&["system:monitoring", "system:authenticated"]);
    let answer = ask(proxy, who, Method::GET, "/metrics", "").map_err(|why| unanswered(proxy, &why))?;
    if !answer.status.is_success() {
        let why = format!("kube-apiserver's /metrics answers {}", answer.status.as_u16());
        return Err(Found::skip(why, "system:monitoring may read it by default; see SPW-API-003"));
    }
    Ok(sum(&String::from_utf8_lossy(&answer.body), "apiserver_request_total{", |_| true))
}

/// Requests that this process sent on: what it answered itself never arrived there.
fn ours(proxy: &ProxyConfiguration) -> Result<f64, Found> {
    let page = own_page(proxy.metrics.address, "/metrics").map_err(|why| {
        Found::skip(format!("spillway's metrics: {why}"), "is metrics.address the running one's?")
    })?;
    let all = sum(&page, "spillway_requests_total{", |_| true);
    Ok(all - sum(&page, "spillway_shed_total{", |_| true))
}

/// The sum of the series of one metric.
fn sum(page: &str, prefix: &str, of: impl Fn(&str) -> bool) -> f64 {
    let series = page.lines().filter(|line| line.starts_with(prefix) && of(line));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::app::check::Verdict;

    #[test]
    fn clocks_are_compared_in_both_directions() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let second = Duration::from_secs(1);
        for (theirs, verdict) in [
            (now - second, Verdict::Ok),
            (now + 4 * second, Verdict::Ok),
            (now + 6 * second, Verdict::Warning),
            (now - 6 * second, Verdict::Warning),
            (now - 61 * second, Verdict::Failed),
        ] {
            assert_eq!(skew(theirs, now).verdict, verdict, "{theirs:?}");
        }
        assert!(skew(now + 61 * second, now).what.contains("61 s ahead of"));
    }

    #[test]
    fn who_goes_around_is_seen_beside_what_kube_apiserver_asks_itself() {
        for (theirs, ours, verdict) in [
            (15.0, 2.0, Verdict::Ok),
            (1_000.0, 990.0, Verdict::Ok),
            (1_000.0, 850.0, Verdict::Ok),
            (1_000.0, 700.0, Verdict::Warning),
            (60.0, 30.0, Verdict::Warning),
            (10.0, 900.0, Verdict::Ok),
        ] {
            assert_eq!(compare(theirs, ours).verdict, verdict, "{theirs} {ours}");
        }
        let page = "x_total{a=\"b\"} 3\nx_total{a=\"c\"} 4.5\n# HELP x_total\nx_totals{} 9\n";
        assert!((sum(page, "x_total{", |_| true) - 7.5).abs() < 1e-9);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(minor_of("v1.34.1+k3s1"), Some(34));
        assert_eq!(minor_of("1.29.0"), Some(29));
        assert_eq!(minor_of("devel"), None);
        let address = "127.0.0.1:6443".parse().unwrap();
        assert_eq!(version(br#"{"gitVersion":"v1.28.4"}"#, address).verdict, Verdict::Warning);
        assert_eq!(version(b"no", address).verdict, Verdict::Ok);
    }
}
