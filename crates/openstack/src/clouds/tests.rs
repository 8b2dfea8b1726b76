use super::*;

const TWO: &str = "
clouds:
  one:
    region_name: RegionOne
    auth: {auth_url: 'http://c/identity', username: demo, password: 12345, project_name: demo, user_domain_name: Default, project_domain_id: default}
  two:
    auth_type: v3applicationcredential
    interface: internal
    verify: false
    load_balancer_endpoint_override: http://c/lb
    auth: {auth_url: 'https://c:5000/v3', application_credential_id: abc, application_credential_secret: s3cret}
";

#[test]
fn password_and_application_credentials_are_read() {
    let one = Cloud::from_yaml(TWO.as_bytes(), Some("one"), None).unwrap();
    let Auth::Password { user, password, scope: Scope::Project(project) } = &one.auth else { panic!("{one:?}") };
    assert_eq!((user.name.as_deref(), user.domain_name.as_deref()), (Some("demo"), Some("Default")));
    assert_eq!((password.0.as_str(), project.domain_id.as_deref()), ("12345", Some("default")));
    assert!(one.verify);
    let two = Cloud::from_yaml(TWO.as_bytes(), Some("two"), Some(b"pem")).unwrap();
    assert!(matches!(&two.auth, Auth::ApplicationCredential { id: Some(id), .. } if id == "abc"));
    assert!(!two.verify);
    assert_eq!(two.interface, Interface::Internal);
    assert_eq!(two.overrides.get(&Service::LoadBalancer).map(String::as_str), Some("http://c/lb"));
    assert_eq!(two.ca_pem.as_deref(), Some(&b"pem"[..]));
}

#[test]
fn secrets_are_not_printed() {
    let two = Cloud::from_yaml(TWO.as_bytes(), Some("two"), None).unwrap();
    assert!(!format!("{two:?}").contains("s3cret"));
    let broken = Cloud::from_yaml(b"clouds: {a: {auth: {password: hunter2", None, None).unwrap_err();
    assert!(!format!("{broken} {broken:?}").contains("hunter2"));
}

#[test]
fn what_is_missing_or_unsupported_is_said() {
    let cases = [
        ("clouds: {a: {}}", "auth_url` is missing"),
        ("clouds: {a: {auth: {auth_url: 'ftp://x'}}}", "not an http"),
        ("clouds: {a: {auth: {auth_url: 'http://x'}}}", "username"),
        ("clouds: {a: {auth: {auth_url: 'http://x', username: u}}}", "password` is missing"),
        ("clouds: {a: {auth_type: v3kerberos, auth: {auth_url: 'http://x'}}}", "v3kerberos"),
        ("clouds: {a: {profile: vexxhost, auth: {auth_url: 'http://x'}}}", "profile"),
        ("clouds: {a: {cert: x, auth: {auth_url: 'http://x'}}}", "client certificates"),
        ("nothing: here", "no mapping `clouds`"),
        ("clouds: {a: {}, b: {}}", "several clouds (a, b)"),
    ];
    for (yaml, want) in cases {
        let error = Cloud::from_yaml(yaml.as_bytes(), None, None).unwrap_err().to_string();
        assert!(error.contains(want), "{yaml}: {error}");
    }
    let error = Cloud::from_yaml(TWO.as_bytes(), Some("three"), None).unwrap_err().to_string();
    assert!(error.contains("it has one, two"), "{error}");
}

#[test]
fn a_file_one_byte_over_the_limit_is_refused() {
    let mut yaml = b"clouds: {a: {auth: {auth_url: 'http://x', username: u, password: p}}}\n#".to_vec();
    yaml.resize(FILE_LIMIT_BYTES as usize, b'x');
    assert!(Cloud::from_yaml(&yaml, None, None).is_ok());
    yaml.push(b'x');
    assert!(matches!(Cloud::from_yaml(&yaml, None, None), Err(Error::TooLarge { .. })));
}

#[test]
fn one_cloud_more_than_the_limit_is_refused() {
    let entry = |i: usize| format!("  c{i}: {{auth: {{auth_url: 'http://x', username: u, password: p}}}}\n");
    let file = |n: usize| format!("clouds:\n{}", (0..n).map(entry).collect::<String>());
    assert!(Cloud::from_yaml(file(CLOUDS_LIMIT).as_bytes(), Some("c1"), None).is_ok());
    assert!(matches!(Cloud::from_yaml(file(CLOUDS_LIMIT + 1).as_bytes(), Some("c1"), None), Err(Error::Format { .. })));
}

#[test]
fn the_search_follows_the_sdk_and_merges_secure_yaml() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let here = dir.path().join("here");
    let config = home.join(".config/openstack");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::create_dir_all(&here).unwrap();
    let none = |_: &str| None;
    let search = Search { variable: &none, current_dir: &here, home: Some(&home) };
    assert!(matches!(search.cloud(None), Err(Error::NotFound { .. })));
    std::fs::write(
        config.join("clouds.yaml"),
        "clouds: {h: {cacert: ca.pem, auth: {auth_url: 'http://x', username: u}}}",
    )
    .unwrap();
    std::fs::write(config.join("secure.yaml"), "clouds: {h: {auth: {password: p}}}").unwrap();
    std::fs::write(config.join("ca.pem"), "PEM").unwrap();
    let cloud = search.cloud(Some("h")).unwrap();
    assert_eq!(cloud.ca_pem.as_deref(), Some(&b"PEM"[..]));
    std::fs::write(here.join("clouds.yaml"), "clouds: {c: {auth: {auth_url: 'http://y', username: u, password: p}}}")
        .unwrap();
    assert_eq!(search.cloud(Some("c")).unwrap().auth_url, "http://y");
    let named = config.join("clouds.yaml").display().to_string();
    let variable = |name: &str| (name == "OS_CLIENT_CONFIG_FILE").then(|| named.clone());
    let search = Search { variable: &variable, ..search };
    assert_eq!(search.cloud(None).unwrap().auth_url, "http://x");
    let openrc = |name: &str| match name {
        "OS_AUTH_URL" => Some("http://z/v3".to_owned()),
        "OS_USERNAME" | "OS_PASSWORD" | "OS_PROJECT_NAME" => Some("v".to_owned()),
        _ => None,
    };
    let search = Search { variable: &openrc, ..search };
    assert_eq!(search.cloud(None).unwrap().auth_url, "http://z/v3");
}
