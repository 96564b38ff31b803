//! How is `authentication` of a ProxyConfiguration written so that nothing is left to a default?

use super::tree::{Tree, list, map, maybe, path, some, text};
use crate::config::authentication::*;
use crate::config::proxy::{Authentication, ClientCertificate, ServiceAccountToken};

pub(super) fn tree(authentication: &Authentication) -> Tree {
    let Authentication { client_certificate, service_account_token, jwt, token_review, anonymous } =
        authentication;
    let conditions = anonymous.paths.as_deref().unwrap_or_default();
    map([
        ("clientCertificate", maybe(client_certificate.as_ref(), certificate)),
        ("serviceAccountToken", maybe(service_account_token.as_ref(), account)),
        ("jwt", some(jwt, provider)),
        ("tokenReview", maybe(token_review.as_ref(), review)),
        (
            "anonymous",
            map([
                ("enabled", anonymous.enabled.into()),
                ("conditions", some(conditions, |path| map([("path", path.into())]))),
            ]),
        ),
    ])
}

fn certificate(certificate: &ClientCertificate) -> Tree {
    map([
        ("caFile", (&certificate.ca_file).into()),
        ("denyFile", maybe(certificate.deny_file.as_deref(), path)),
    ])
}

fn account(token: &ServiceAccountToken) -> Tree {
    map([
        ("issuers", list(&token.issuers, Tree::from)),
        ("audiences", list(&token.audiences, Tree::from)),
        ("publicKeyFiles", some(&token.public_key_files, Tree::from)),
        ("jwksFile", maybe(token.jwks_file.as_deref(), path)),
    ])
}

fn provider(provider: &JwtProvider) -> Tree {
    let JwtIssuer { url, audiences, keys } = &provider.issuer;
    let (file, remote, ca_file) = match keys {
        JwtKeys::File(file) => (file.into(), Tree::Null, Tree::Null),
        JwtKeys::Url { host, port, path, ca_file } => {
            // An IPv6 address stands in brackets before a port.
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            (Tree::Null, text(format_args!("https://{host}:{port}{path}")), ca_file.into())
        }
    };
    let rule = |rule: &ClaimRule| {
        map([("claim", (&rule.claim).into()), ("requiredValue", (&rule.required_value).into())])
    };
    map([
        (
            "issuer",
            map([
                ("url", url.into()),
                ("audiences", list(audiences, Tree::from)),
                ("audienceMatchPolicy", text("MatchAny")),
                ("jwksFile", file),
                ("jwksURL", remote),
                ("certificateAuthorityFile", ca_file),
            ]),
        ),
        ("claimValidationRules", list(&provider.claim_validation_rules, rule)),
        ("claimMappings", mappings(&provider.claim_mappings)),
    ])
}

fn mappings(mappings: &ClaimMappings) -> Tree {
    let prefixed =
        |claim: &PrefixedClaim| map([("claim", (&claim.claim).into()), ("prefix", (&claim.prefix).into())]);
    map([
        ("username", prefixed(&mappings.username)),
        ("groups", maybe(mappings.groups.as_ref(), prefixed)),
        ("uid", maybe(mappings.uid.as_ref(), |claim| map([("claim", claim.into())]))),
        ("extra", list(&mappings.extra, |(key, claim)| map([("key", key.into()), ("claim", claim.into())]))),
    ])
}

fn review(review: &TokenReview) -> Tree {
    map([
        ("enabled", true.into()),
        ("user", (&review.user).into()),
        ("audiences", list(&review.audiences, Tree::from)),
        ("positiveTTL", review.positive_ttl.into()),
        ("negativeTTL", review.negative_ttl.into()),
        ("wait", review.wait.into()),
    ])
}
