use super::*;

const A: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const B: &str = "MTExMTExMTExMTExMTExMQ==";

fn config(resources: &str, providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [{resources}]\n  \
         providers: [{providers}]\n"
    )
}

fn gcm(keys: &[(&str, &str)]) -> String {
    let keys: Vec<String> = keys.iter().map(|(name, secret)| format!("{{name: {name}, secret: {secret}}}")).collect();
    format!("{{aesgcm: {{keys: [{}]}}}}", keys.join(", "))
}

fn rules(resources: &str, providers: &str) -> Vec<Rule> {
    config::parse(&config(resources, providers)).unwrap()
}

const KEY: &[u8] = b"/registry/core/secrets/default/s";

#[test]
fn what_one_key_sealed_it_opens_and_in_no_other_place() {
    let rules = rules("secrets", &gcm(&[("a", A), ("b", B)]));
    let sealed = seal(&rules, KEY, "hunter2".into()).unwrap();
    assert!(sealed.starts_with(b"k8s:enc:aesgcm:v1:a:") && !sealed.windows(7).any(|part| part == b"hunter2"));
    assert_eq!(open(&rules, KEY, sealed.clone()).unwrap(), "hunter2");
    assert_ne!(sealed, seal(&rules, KEY, "hunter2".into()).unwrap());
    let moved = open(&rules, b"/registry/core/secrets/default/t", sealed.clone()).unwrap_err().to_string();
    assert!(moved.contains("key \"a\" of aesgcm does not open it"), "{moved}");
    let mut changed = sealed.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    assert!(open(&rules, KEY, changed.into()).is_err());
    for cut in 0..sealed.len() {
        let _ = open(&rules, KEY, sealed.slice(..cut));
    }
}

#[test]
fn the_first_key_writes_and_all_read() {
    let old = rules("secrets", &gcm(&[("a", A)]));
    let both = rules("secrets", &gcm(&[("b", B), ("a", A)]));
    let new = rules("secrets", &gcm(&[("b", B)]));
    let sealed = seal(&old, KEY, "x".into()).unwrap();
    assert!(is_stale(&both, KEY, &sealed) && !is_stale(&old, KEY, &sealed));
    assert_eq!(open(&both, KEY, sealed.clone()).unwrap(), "x");
    let lost = open(&new, KEY, sealed.clone()).unwrap_err().to_string();
    let text = "the value of \"/registry/core/secrets/default/s\" cannot be read: it is encrypted with key \"a\" of aesgcm, \
                which is not in the encryption configuration";
    assert_eq!(lost, text);
    assert_eq!(open(&[], KEY, sealed).unwrap_err().to_string(), text);
    assert!(seal(&both, KEY, "x".into()).unwrap().starts_with(b"k8s:enc:aesgcm:v1:b:"));
}

#[test]
fn plain_values_are_read_where_identity_is_and_encryption_can_be_taken_back() {
    let strict = rules("secrets", &gcm(&[("a", A)]));
    let moving = rules("secrets", &format!("{}, {{identity: {{}}}}", gcm(&[("a", A)])));
    let back = rules("secrets", &format!("{{identity: {{}}}}, {}", gcm(&[("a", A)])));
    assert!(open(&strict, KEY, "{}".into()).is_err());
    assert_eq!(open(&moving, KEY, "{}".into()).unwrap(), "{}");
    assert!(is_stale(&moving, KEY, b"{}"));
    let sealed = seal(&moving, KEY, "{}".into()).unwrap();
    assert_eq!(open(&back, KEY, sealed.clone()).unwrap(), "{}");
    assert!(is_stale(&back, KEY, &sealed));
    assert_eq!(seal(&back, KEY, "{}".into()).unwrap(), "{}");
}

#[test]
fn resources_are_named_alone_by_group_or_all() {
    let covers =
        |resources: &str, key: &str| !providers(&rules(resources, &gcm(&[("a", A)])), key.as_bytes()).is_empty();
    let (secret, map) = ("/registry/core/secrets/n/s", "/registry/core/configmaps/n/m");
    let thing = "/registry/x.io/things/t";
    for (resources, found) in [
        ("secrets", [true, false, false]),
        ("'*.'", [true, true, false]),
        ("things.x.io", [false, false, true]),
        ("'*.x.io', configmaps", [false, true, true]),
        ("'*.*'", [true, true, true]),
    ] {
        assert_eq!([secret, map, thing].map(|key| covers(resources, key)), found, "{resources}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_without_the_key() {
    let good = gcm(&[("a", A)]);
    for (resources, providers, wanted) in [
        ("", good.as_str(), "resources[0].resources: Required value"),
        ("secrets", "", "resources[0].providers: Required value"),
        ("Secrets", &good, "capital letters"),
        ("'*'", &good, "use '*.' to encrypt"),
        ("secrets, secrets", &good, "multiple times"),
        ("secrets, '*.'", &good, "will be masked"),
        ("'*.*', a.b", &good, "will be masked"),
        ("secrets.*", &good, "across groups"),
        ("a.events.k8s.io", &good, "Use 'events' instead"),
        ("secrets", "{}", "does not contain any of the expected providers"),
        ("secrets", "{identity: {}, aescbc: {}}", "more than one provider"),
        ("secrets", "{aescbc: {keys: []}}", "resources[0].providers[0].aescbc: Forbidden"),
        ("secrets", "{aesgcm: {keys: []}}", "at least one keys is required"),
        ("secrets", "{aesgcm: {keys: [{name: a, secret: YWJj}]}}", "got 3, expected one of [16 24 32]"),
        ("secrets", "{aesgcm: {keys: [{name: a, secret: '!!c2VjcmV0'}]}}", "must be base64"),
        ("secrets", &gcm(&[("a", A), ("a", B)]), "keys[1].name: Duplicate value"),
        ("secrets", &gcm(&[("''", A)]), "keys[0].name: Required value"),
    ] {
        let error = config::parse(&config(resources, providers)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(wanted), "{resources} {providers}: {error}");
        assert!(!error.contains(A) && !error.contains("c2VjcmV0"), "{error}");
    }
    let many: Vec<String> = (0..=KEYS_MAX).map(|i| format!("k{i}")).collect();
    let keys = |count: usize| gcm(&many[..count].iter().map(|name| (name.as_str(), B)).collect::<Vec<_>>());
    assert!(config::parse(&config("secrets", &keys(KEYS_MAX))).is_ok());
    assert!(config::parse(&config("secrets", &keys(KEYS_MAX + 1))).is_err());
}
