//! Each limit: what is at it goes through, what is one beyond it is refused.

use std::sync::Arc;

use helm::{
    Error, Rendered,
    chart::{self, Chart, Files},
    data,
    release::{Capabilities, Release},
    render, template,
    values::Table,
    world::World,
};
use jiff::Timestamp;

fn chart(template: &str) -> Files {
    let files = [("Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n"), ("templates/t", template)];
    files.into_iter().map(|(path, text)| (path.to_owned(), Arc::from(text.as_bytes()))).collect()
}

fn rendered(template: &str) -> Result<Rendered, Error> {
    let release = Release { name: "r".to_owned(), namespace: "ns".to_owned(), revision: 1, is_upgrade: false };
    let world = World::without_cluster(Timestamp::UNIX_EPOCH, |bytes| bytes.fill(7), |_| Err("no keys".to_owned()));
    render(&Chart::load(&chart(template))?, &Table::new(), &release, &Capabilities::of("v1.36.0", Vec::new()), world)
}

fn is_limit(template: &str) {
    match rendered(template) {
        Err(Error::Limit(_)) => {}
        other => panic!("{:?} of {:.80}", other.map(|files| files.len()), template),
    }
}

#[test]
fn actions_lie_only_so_deep_in_one_another() {
    let nested = |depth: usize| format!("{}x{}", "{{ if true }}".repeat(depth), "{{ end }}".repeat(depth));
    assert_eq!(rendered(&nested(template::DEEP_MAX)).unwrap()["c/templates/t"], "x");
    is_limit(&nested(template::DEEP_MAX + 1));
    let nested = |depth: usize| format!("{{{{ {}1{} }}}}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(rendered(&nested(template::DEEP_MAX)).unwrap()["c/templates/t"], "1");
    is_limit(&nested(template::DEEP_MAX + 1));
}

#[test]
fn templates_call_one_another_only_so_deep() {
    // The page itself is one, and so is the last call, which does not go on.
    let calls = |depth: usize| {
        let define = r#"{{ define "x" }}{{ if gt . 0 }}{{ template "x" (sub . 1 | int) }}{{ end }}{{ end }}"#;
        format!("{define}{{{{ template \"x\" {} }}}}", depth - 2)
    };
    assert!(rendered(&calls(template::CALLS_MAX)).is_ok());
    is_limit(&calls(template::CALLS_MAX + 1));
}

#[test]
fn a_run_makes_only_so_many_bytes() {
    let half = template::TEXT_BYTES_MAX / 2;
    let written = |behind: &str| {
        format!("{{{{ range {} }}}}{}{{{{ end }}}}{behind}", template::BYTES_MAX / half, "x".repeat(half))
    };
    assert_eq!(rendered(&written("")).unwrap()["c/templates/t"].len(), template::BYTES_MAX);
    is_limit(&written("x"));
    is_limit(&format!("{{{{ $x := repeat {} \"x\" }}}}", template::BYTES_MAX + 1));
    is_limit("{{ $x := \"x\" }}{{ range until 100 }}{{ $x = print $x $x }}{{ end }}");
    is_limit("{{ until 100000000 }}");
    is_limit("{{ indent 1000000000 \"x\" }}");
    is_limit(
        "{{ define \"x\" }}{{ template \"y\" }}{{ template \"y\" }}{{ end }}{{ define \"y\" }}{{ repeat 100000000 \"x\" }}{{ end }}{{ template \"x\" }}{{ template \"x\" }}",
    );
}

#[test]
fn a_run_takes_only_so_many_steps() {
    // The range itself, and each round.
    let rounds = |steps: usize| format!("{{{{ range {} }}}}{{{{ end }}}}", steps - 1);
    assert!(rendered(&rounds(template::STEPS_MAX)).is_ok());
    is_limit(&rounds(template::STEPS_MAX + 1));
}

#[test]
fn a_template_is_only_so_long() {
    let text = |bytes: usize| "x".repeat(bytes);
    assert!(rendered(&text(template::TEXT_BYTES_MAX)).is_ok());
    is_limit(&text(template::TEXT_BYTES_MAX + 1));
}

#[test]
fn values_are_only_so_deep_where_they_are_written() {
    let nested = |depth: usize, show: &str| {
        format!("{{{{ $x := 1 }}}}{{{{ range until {depth} }}}}{{{{ $x = list $x }}}}{{{{ end }}}}{{{{ {show} }}}}")
    };
    for show in ["$x", "toYaml $x", "toJson $x", "deepCopy $x", "deepEqual $x (deepCopy $x)"] {
        assert!(rendered(&nested(900, show)).is_ok(), "{show}");
        is_limit(&nested(template::format::NESTING_MAX + 1, show));
    }
}

#[test]
fn values_that_are_nested_a_million_deep_are_let_go_of() {
    let deep = "{{ $x := 1 }}{{ range until 1000000 }}{{ $x = list $x }}{{ end }}ok";
    assert_eq!(rendered(deep).unwrap()["c/templates/t"], "ok");
    let deep = "{{ $x := dict }}{{ range until 300000 }}{{ $x = dict \"x\" $x }}{{ end }}ok";
    assert_eq!(rendered(deep).unwrap()["c/templates/t"], "ok");
}

#[test]
fn a_map_that_holds_itself_is_a_limit_where_it_is_written() {
    is_limit("{{ $x := dict }}{{ $_ := set $x \"x\" $x }}{{ toYaml $x }}");
    is_limit("{{ $x := dict }}{{ $_ := set $x \"x\" $x }}{{ $x }}");
    is_limit(
        "{{ $x := dict }}{{ $_ := set $x \"x\" $x }}{{ $y := dict }}{{ $_ := set $y \"x\" $y }}{{ deepEqual $x $y }}",
    );
}

#[test]
fn yaml_stands_for_only_so_many_nodes() {
    let bomb = |levels: usize| {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..levels {
            let below = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", ")));
        }
        text
    };
    assert!(data::yaml::read(&bomb(4)).is_ok());
    assert!(data::yaml::read(&bomb(9)).unwrap_err().text().contains(&data::NODES_MAX.to_string()));
}

#[test]
fn yaml_and_json_are_only_so_deep() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(data::yaml::read(&nested(data::DEEP_MAX)).is_ok());
    assert!(data::yaml::read(&nested(data::DEEP_MAX + 1)).is_err());
    assert!(data::json::read(&nested(data::json::DEEP_MAX)).is_ok());
    assert!(data::json::read(&nested(data::json::DEEP_MAX + 1)).is_err());
}

#[test]
fn a_chart_has_only_so_many_files() {
    let mut files = chart("x");
    let data: Arc<[u8]> = Arc::from([]);
    for number in files.len()..chart::FILES_MAX {
        files.insert(format!("f{number}"), data.clone());
    }
    assert!(Chart::load(&files).is_ok());
    files.insert("one-more".to_owned(), data);
    assert!(matches!(Chart::load(&files), Err(Error::Limit(_))));
}

#[test]
fn a_chart_has_only_so_many_bytes() {
    let mut files = chart("x");
    let known: usize = files.values().map(|data| data.len()).sum();
    files.insert("f".to_owned(), vec![b' '; chart::BYTES_MAX - known].into());
    assert!(Chart::load(&files).is_ok());
    files.insert("g".to_owned(), vec![b' '].into());
    assert!(matches!(Chart::load(&files), Err(Error::Limit(_))));
}

#[test]
fn charts_lie_only_so_deep_in_one_another() {
    let nested = |depth: usize| {
        let chart: Arc<[u8]> = Arc::from("apiVersion: v2\nname: c\nversion: 1.0.0\n".as_bytes());
        (0..=depth).map(|level| (format!("{}Chart.yaml", "charts/c/".repeat(level)), chart.clone())).collect::<Files>()
    };
    assert!(Chart::load(&nested(chart::DEEP_MAX)).is_ok());
    assert!(matches!(Chart::load(&nested(chart::DEEP_MAX + 1)), Err(Error::Limit(_))));
}

#[test]
fn a_run_makes_only_so_many_hashes_for_passwords() {
    // Hashes are slow: that the last ones are refused is told by a counter, which only has to be one too high.
    is_limit("{{ range 65 }}{{ $_ := bcrypt \"x\" }}{{ end }}");
}

#[test]
fn a_run_asks_for_only_so_many_keys() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
    let asked = |count: usize| {
        let template = format!("{{{{ range {count} }}}}{{{{ $_ := genPrivateKey \"ecdsa\" }}}}{{{{ end }}}}");
        let release = Release { name: "r".to_owned(), namespace: "ns".to_owned(), revision: 1, is_upgrade: false };
        let key = key.clone();
        let world = World::without_cluster(Timestamp::UNIX_EPOCH, |bytes| bytes.fill(7), move |_| Ok(key.clone()));
        let chart = Chart::load(&chart(&template)).unwrap();
        render(&chart, &Table::new(), &release, &Capabilities::of("v1.36.0", Vec::new()), world)
    };
    assert!(asked(64).is_ok());
    assert!(matches!(asked(65), Err(Error::Limit(_))));
}

#[test]
fn a_setting_is_only_so_long_so_deep_and_so_far() {
    use helm::setting::{DEEP_MAX, INDEX_MAX, Kind, SETTING_BYTES_MAX, set};
    let set = |text: &str| set(&mut Table::new(), text, &Kind::Typed);
    let long = |bytes: usize| format!("a={}", "x".repeat(bytes - 2));
    assert!(set(&long(SETTING_BYTES_MAX)).is_ok());
    assert!(set(&long(SETTING_BYTES_MAX + 1)).is_err());
    let deep = |dots: usize| format!("{}a=1", "a.".repeat(dots));
    assert!(set(&deep(DEEP_MAX)).is_ok());
    assert!(set(&deep(DEEP_MAX + 1)).is_err());
    assert!(set(&format!("a[{INDEX_MAX}]=1")).is_ok());
    assert!(set(&format!("a[{}]=1", INDEX_MAX + 1)).is_err());
}

#[test]
fn keys_whose_order_goes_in_circles_are_written() {
    // v2 of go-yaml has a2 < a10 < a1b < a2: a sort that finds out may panic.
    let keys: Vec<String> =
        (0..100).flat_map(|n| [format!("a{n}"), format!("a{n}b"), format!("a{}", n * 37 % 1000)]).collect();
    let pairs: String = keys.iter().map(|key| format!("{key:?} 1 ")).collect();
    let text = &rendered(&format!("{{{{ toYaml (dict {pairs}) }}}}")).unwrap()["c/templates/t"];
    assert_eq!(text.lines().count(), keys.iter().collect::<std::collections::BTreeSet<_>>().len());
}

#[test]
fn toml_is_only_so_deep_and_so_long() {
    use helm::data::toml;
    let lists = |depth: usize| format!("a = {}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(toml::read(&lists(80)).is_ok());
    assert!(toml::read(&lists(81)).is_err());
    let keys = |depth: usize| format!("{}a = 1", "a.".repeat(depth - 1));
    assert!(toml::read(&keys(80)).is_ok());
    assert!(toml::read(&keys(81)).is_err());
    assert!(toml::read(&keys(1_000_000)).is_err());
    let long = |bytes: usize| format!("#{}", " ".repeat(bytes - 1));
    assert!(toml::read(&long(toml::TEXT_BYTES_MAX)).is_ok());
    assert!(toml::read(&long(toml::TEXT_BYTES_MAX + 1)).is_err());
}
