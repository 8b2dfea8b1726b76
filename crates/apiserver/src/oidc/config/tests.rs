use serde_json::{Value, json};

use super::wrong;

fn config(change: impl Fn(&mut Value)) -> Value {
    let mut config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": "https://issuer", "audiences": ["skep"]},
            "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
        }],
    });
    change(&mut config);
    config
}

#[test]
fn what_is_wrong_is_told_in_the_published_words() {
    assert_eq!(wrong(&config(|_| {})), "");
    let cases: &[(&str, Value, &str)] = &[
        ("/issuer/url", json!(""), "jwt[0].issuer.url: Required value"),
        ("/issuer/url", json!("http://issuer"), "URL scheme must be https"),
        ("/issuer/url", json!("https://a:b@issuer"), "URL must not contain a username or password"),
        ("/issuer/url", json!("https://issuer?a=b"), "URL must not contain a query"),
        ("/issuer/url", json!("https://issuer#a"), "URL must not contain a fragment"),
        ("/issuer/url", json!("https://own"), "URL must not overlap with disallowed issuers: [https://own]"),
        ("/issuer/discoveryURL", json!("https://issuer/"), "discoveryURL must be different from URL"),
        ("/issuer/audiences", json!([]), "at least one jwt[0].issuer.audiences is required"),
        ("/issuer/audiences", json!(["a", "b"]), "audienceMatchPolicy must be MatchAny for multiple audiences"),
        ("/issuer/audiences", json!(["a", "a"]), "jwt[0].issuer.audiences[1]: Duplicate value: \"a\""),
        (
            "/issuer/audienceMatchPolicy",
            json!("All"),
            "audienceMatchPolicy must be empty or MatchAny for single audience",
        ),
        (
            "/issuer/certificateAuthority",
            json!("x"),
            "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\"",
        ),
        ("/issuer/egressSelectorType", json!("cluster"), "this server has no egress selectors"),
        ("/issuer/unknown", json!(1), "unknown"),
        (
            "/claimMappings/username",
            json!({}),
            "jwt[0].claimMappings.username: Required value: claim or expression is required",
        ),
        ("/claimMappings/username", json!({"claim": "a"}), "prefix is required when claim is set"),
        (
            "/claimMappings/username",
            json!({"claim": "a", "prefix": "", "expression": "b"}),
            "claim and expression can't both be set",
        ),
        (
            "/claimMappings/username",
            json!({"expression": "claims.a", "prefix": "b"}),
            "may not be specified when expression is set",
        ),
        (
            "/claimMappings/username",
            json!({"expression": "claims.("}),
            "jwt[0].claimMappings.username.expression: Invalid value",
        ),
        ("/claimMappings/username", json!({"expression": "claims.email"}), "claims.email_verified must be used"),
        ("/claimMappings/groups", json!({"expression": "user.groups"}), "undeclared reference to 'user'"),
        (
            "/claimMappings/extra",
            json!([{"key": "a", "valueExpression": "claims.a"}]),
            "must be a domain-prefixed path",
        ),
        ("/claimMappings/extra", json!([{"key": "a.io/B", "valueExpression": "claims.a"}]), "must be lowercase"),
        (
            "/claimMappings/extra",
            json!([{"key": "x.k8s.io/b", "valueExpression": "claims.a"}]),
            "reserved for Kubernetes use",
        ),
        (
            "/claimMappings/extra",
            json!([{"key": "a.io/b"}]),
            "jwt[0].claimMappings.extra[0].valueExpression: Required value",
        ),
        (
            "/claimValidationRules",
            json!([{}]),
            "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
        ),
        ("/claimValidationRules", json!([{"claim": "a", "message": "m"}]), "may not be specified when claim is set"),
        ("/claimValidationRules", json!([{"expression": "claims.a"}]), "must evaluate to bool"),
        (
            "/claimValidationRules",
            json!([{"claim": "a"}, {"claim": "a"}]),
            "claimValidationRules[1].claim: Duplicate value",
        ),
        ("/userValidationRules", json!([{}]), "jwt[0].userValidationRules[0].expression: Required value"),
        ("/userValidationRules", json!([{"expression": "user.nonsense == ''"}]), "undefined field 'nonsense'"),
    ];
    for (path, value, wanted) in cases {
        let text = wrong(&config(|config| {
            let (parent, key) = path.rsplit_once('/').unwrap();
            let parent = config.pointer_mut(&format!("/jwt/0{parent}")).unwrap();
            parent[key] = value.clone();
        }));
        assert!(text.contains(wanted), "{path} {value}: {text}");
    }
    let twice = wrong(&config(|config| {
        let first = config["jwt"][0].clone();
        config["jwt"].as_array_mut().unwrap().push(first);
    }));
    assert!(twice.contains("jwt[1].issuer.url: Duplicate value: \"https://issuer\""), "{twice}");
    let anonymous =
        wrong(&config(|config| config["anonymous"] = json!({"enabled": false, "conditions": [{"path": "/livez"}]})));
    assert!(anonymous.contains("enabled should be set to true when conditions are defined"), "{anonymous}");
    let verified = json!({"expression": "claims.?email_verified.orValue(true) ? claims.email : claims.sub"});
    assert_eq!(wrong(&config(|config| config["jwt"][0]["claimMappings"]["username"] = verified.clone())), "");
}

#[test]
fn an_issuer_too_many_is_refused() {
    let many = |count: usize| {
        config(|config| {
            let one = config["jwt"][0].clone();
            let list = (0..count).map(|i| {
                let mut issuer = one.clone();
                issuer["issuer"]["url"] = format!("https://issuer-{i}").into();
                issuer
            });
            config["jwt"] = list.collect();
        })
    };
    assert_eq!(wrong(&many(super::ISSUERS_MAX)), "");
    assert!(wrong(&many(super::ISSUERS_MAX + 1)).contains("jwt: Too many"));
}
