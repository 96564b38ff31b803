//! How do `authentication.jwt`, `.tokenReview` and `.anonymous` become their types?
//!
//! What kube-apiserver's AuthenticationConfiguration has and this does not (CEL) is refused by name: a rule that is
//! silently left out would rank people whom kube-apiserver turns away.

use std::time::Duration;

use super::authentication::*;
use super::diagnostic::{Code, Diagnostic};
use super::files::Content;
use super::section::{Field, Section};

/// Lists below these keys: more entries are a mistake, not a need.
const ENTRIES_MAX: usize = 16;

const NO_CEL: &str = "CEL expressions are evaluated by kube-apiserver only";

/// The providers, each with an issuer of its own.
pub(super) fn jwt(field: Field<'_>, account_issuers: &[String]) -> Option<Vec<JwtProvider>> {
    let mut issuers = account_issuers.to_vec();
    field.list(1..=ENTRIES_MAX, |entry| {
        let provider = entry.clone().section(provider)?;
        let url = &provider.issuer.url;
        if issuers.contains(url) {
            let message = format!("two ways to verify tokens of the issuer {url:?}");
            entry.report(Code::IssuerTwice, message, "the second of them");
        }
        issuers.push(url.clone());
        Some(provider)
    })
}

fn provider(section: &mut Section<'_>) -> Option<JwtProvider> {
    let issuer = section.need("issuer", |field| field.section(issuer));
    let rules = section.or("claimValidationRules", vec![], |field| {
        field.list(0..=ENTRIES_MAX, |entry| entry.section(claim_rule))
    });
    refuse_expressions(section, "userValidationRules");
    let mappings = section.need("claimMappings", |field| field.section(mappings));
    Some(JwtProvider { issuer: issuer?, claim_validation_rules: rules, claim_mappings: mappings? })
}

fn issuer(section: &mut Section<'_>) -> Option<JwtIssuer> {
    let url = section.need("url", |field| {
        field.parsed("https://, as in the tokens' iss", |text| {
            text.strip_prefix("https://").filter(|rest| !rest.is_empty()).map(|_| text.to_owned())
        })
    });
    let audiences =
        section.need("audiences", |field| field.list(1..=ENTRIES_MAX, |entry| text(entry, "an audience")));
    section.maybe("audienceMatchPolicy", |field| field.choice(&[("MatchAny", ())]));
    let file = section.maybe("jwksFile", |field| field.file(Content::KeySet));
    let url_field = section.field("jwksURL");
    let remote = section.maybe("jwksURL", |field| {
        field.parsed("https:// with a host, such as https://issuer.example.com/keys", parts_of_url)
    });
    let ca_file = section.maybe("certificateAuthorityFile", |field| field.file(Content::Certificates));
    let keys = match (file, url_field, remote, ca_file) {
        (Some(file), None, _, None) => JwtKeys::File(file),
        (None, Some(_), Some((host, port, path)), Some(ca_file)) => {
            JwtKeys::Url { host, port, path, ca_file }
        }
        // What is wrong with the URL was said.
        (None, Some(_), None, Some(_)) => return None,
        _ => {
            let message = "a provider needs its keys from one place";
            section.report(
                Diagnostic::new(Code::MissingKey, message)
                    .label("expected `jwksFile`, or `jwksURL` with `certificateAuthorityFile`"),
            );
            return None;
        }
    };
    Some(JwtIssuer { url: url?, audiences: audiences?, keys })
}

/// Host, port and path of `https://HOST[:PORT][/PATH]`.
fn parts_of_url(url: &str) -> Option<(String, u16, String)> {
    let uri: http::Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let plain = uri.scheme_str() == Some("https") && !authority.as_str().contains('@');
    let host = authority.host().trim_matches(['[', ']']);
    rustls_pki_types::ServerName::try_from(host).ok().filter(|_| plain)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Some((host.to_owned(), uri.port_u16().unwrap_or(443), path.to_owned()))
}

fn claim_rule(section: &mut Section<'_>) -> Option<ClaimRule> {
    let expression = refuse_expressions(section, "expression");
    let _message = section.maybe("message", Field::text);
    if expression {
        return None;
    }
    let claim = section.need("claim", |field| text(field, "the name of a claim"));
    let required_value = section.need("requiredValue", |field| field.text().map(str::to_owned));
    Some(ClaimRule { claim: claim?, required_value: required_value? })
}

fn mappings(section: &mut Section<'_>) -> Option<ClaimMappings> {
    let username = section.need("username", |field| field.section(prefixed));
    let groups = section.maybe("groups", |field| field.section(prefixed));
    let uid = section.maybe("uid", |field| {
        field.section(|section| {
            if refuse_expressions(section, "expression") {
                return None;
            }
            section.need("claim", |field| text(field, "the name of a claim"))
        })
    });
    let extra =
        section.or("extra", vec![], |field| field.list(0..=ENTRIES_MAX, |entry| entry.section(extra)));
    Some(ClaimMappings { username: username?, groups, uid, extra })
}

fn prefixed(section: &mut Section<'_>) -> Option<PrefixedClaim> {
    if refuse_expressions(section, "expression") {
        return None;
    }
    let claim = section.need("claim", |field| text(field, "the name of a claim"));
    let prefix = section.need("prefix", |field| field.text().map(str::to_owned));
    Some(PrefixedClaim { claim: claim?, prefix: prefix? })
}

fn extra(section: &mut Section<'_>) -> Option<(String, String)> {
    let key = section.need("key", |field| {
        field.parsed("a lower-case key in a domain of your own, such as example.com/tenant", |key| {
            let (domain, name) = key.split_once('/')?;
            let reserved = ["kubernetes.io", "k8s.io"]
                .iter()
                .any(|suffix| domain == *suffix || domain.ends_with(&format!(".{suffix}")));
            let plain = key.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
            (plain && !domain.is_empty() && !name.is_empty() && !reserved).then(|| key.to_owned())
        })
    });
    if refuse_expressions(section, "valueExpression") {
        return None;
    }
    let claim = section.need("claim", |field| text(field, "the name of a claim"));
    Some((key?, claim?))
}

/// Whether there is one; it has then been reported.
fn refuse_expressions(section: &mut Section<'_>, key: &'static str) -> bool {
    let Some(field) = section.field(key) else { return false };
    let message = format!("`{}` cannot be obeyed: {NO_CEL}", field.path());
    field.report_with(Code::ExpressionUnsupported, message, "no expressions here", |diagnostic| {
        diagnostic.help(
            "name claims (`claim` with `prefix`, `claim` with `requiredValue`), or leave the provider out: \
             its users then rank as unknown, or by `authentication.tokenReview`",
        )
    });
    true
}

fn text(field: Field<'_>, expected: &str) -> Option<String> {
    field.parsed(expected, |text| (!text.is_empty()).then(|| text.to_owned()))
}

/// `None` when it is switched off.
pub(super) fn token_review(section: &mut Section<'_>) -> Option<TokenReview> {
    let default = TokenReview::default();
    let enabled = section.or("enabled", false, Field::boolean);
    let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
    let wait = Duration::from_millis(10)..=Duration::from_secs(1);
    let review = TokenReview {
        // It is sent as a header's value.
        user: section.or("user", default.user, |field| {
            field.parsed("an ASCII name without control characters", |text| {
                let plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
                (plain && !text.trim().is_empty() && text.trim() == text).then(|| text.to_owned())
            })
        }),
        audiences: section
            .or("audiences", vec![], |field| field.list(0..=ENTRIES_MAX, |entry| text(entry, "an audience"))),
        positive_ttl: section.or("positiveTTL", default.positive_ttl, |field| field.duration(seconds(1, 10))),
        negative_ttl: section.or("negativeTTL", default.negative_ttl, |field| field.duration(seconds(0, 1))),
        wait: section.or("wait", default.wait, |field| field.duration(wait)),
    };
    enabled.then_some(review)
}

pub(super) fn anonymous(section: &mut Section<'_>) -> Option<Anonymous> {
    let enabled = section.or("enabled", true, Field::boolean);
    let conditions = section.field("conditions");
    let paths = conditions.clone().and_then(|field| {
        field.list(0..=ENTRIES_MAX, |entry| {
            entry.section(|section| {
                section.need("path", |field| {
                    field.parsed("a whole path, such as /livez", |text| {
                        text.starts_with('/').then(|| text.to_owned())
                    })
                })
            })
        })
    });
    if let Some(field) = conditions.filter(|_| !enabled) {
        let message = "anonymous callers are switched off, so there can be no conditions for them";
        field.report(Code::AnonymousConditions, message, "remove this, or `enabled: false`");
    }
    // An empty list asks nothing, as at kube-apiserver.
    Some(Anonymous { enabled, paths: paths.filter(|paths| !paths.is_empty()) })
}
