//! Tables of expressions and what they come to.

use serde_json::json;
use std::sync::Arc;

use super::*;

/// What an expression without variables comes to, printed.
fn plain(source: &str) -> String {
    match Program::compile(source, &[]) {
        Err(error) => format!("compile: {error}"),
        Ok(program) => match program.evaluate(&[], Budget::CALL).result {
            Ok(Value::Bool(value)) => value.to_string(),
            Ok(other) => functions::shown(&other),
            Err(fault) => format!("fault: {fault}"),
        },
    }
}

fn holds(table: &[&str]) {
    for source in table {
        assert_eq!(plain(source), "true", "{source}");
    }
}

#[test]
fn operators_and_conversions() {
    holds(&[
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9",
        "-5 / 2 == -2 && -5 % 2 == -1 && 7u / 2u == 3u && 1.5 + 1.5 == 3.0",
        "'a' + 'b' == 'ab' && b'a' + b'\\xff' == b'a\\xff' && [1] + [2] == [1, 2]",
        "1 < 2.5 && 2u > 1 && 1 == 1 && dyn(1) == 1.0 && dyn(1) == 1u && !(dyn(1) == 'a')",
        "true || 1 / 0 > 0",
        "1 / 0 > 0 || true",
        "!(false && 1 / 0 > 0)",
        "(true ? 'a' : 'b') == 'a'",
        "int('12') == 12 && int(3.9) == 3 && uint(3) == 3u && double('1.5') == 1.5 && bool('true')",
        "string(1) == '1' && string(1.0) == '1' && string(1e25) == '1e+25' && string(true) == 'true'",
        "string(b'abc') == 'abc' && bytes('abc') == b'abc' && size(b'abc') == 3",
        "type(1) == int && type('') == string && type([]) == list && type({}) == map && type(null) == null_type",
        "type(type(1)) == type && type(duration('1s')) == google.protobuf.Duration",
        "1 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': 1} && 1.0 in [dyn(1)]",
        "{'a': 1}.a == 1 && {'a': {'b': 2}}['a'].b == 2 && [1, 2][1] == 2",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "0x1F == 31 && 0xffu == 255u && 1e3 == 1000.0 && .5 == 0.5 && -9223372036854775808 < 0",
        r#""a\tb" == 'a	b' && r'\d' == '\\d' && '''a
b''' == 'a\nb' && "\u00e4\U0001F451\x41\101" == 'ä👑AA'"#,
        "// a comment\ntrue",
        "[1, 2, 3].size() == 3 && size('äö') == 2",
        "1 != 2 && 'a' < 'b' && [1] != [2] && {1: 2} == {1: 2}",
    ]);
    let cases = [
        ("1 / 0", "fault: division by zero"),
        ("1 % 0", "fault: modulus by zero"),
        ("9223372036854775807 + 1", "fault: integer overflow"),
        ("0u - 1u", "fault: unsigned integer overflow"),
        ("{'a': 1}.b", "fault: no such key: b"),
        ("[1][5]", "fault: index out of bounds: 5"),
        ("dyn(1) + 'a'", "fault: no such overload"),
        ("{'a': 1, 'a': 2}", "compile: ERROR: <input>:1:1: Failed with repeated key: a\n | {'a': 1, 'a': 2}\n | ^"),
        ("int('x' + 'y')", "fault: type conversion error from 'string' to 'int'"),
    ];
    for (source, expected) in cases {
        assert_eq!(plain(source), expected, "{source}");
    }
}

#[test]
fn macros() {
    holds(&[
        "[1, 2, 3].all(x, x > 0) && ![1, 2].all(x, x > 1) && [].all(x, false)",
        "[1, 2, 3].exists(x, x == 2) && ![1].exists(x, x == 2)",
        "[1, 2, 2].exists_one(x, x == 1) && ![2, 2].existsOne(i, x, x == 2)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6] && [1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3] && {'a': 1, 'b': 2}.filter(k, k == 'a') == ['a']",
        "{'a': 1}.all(k, k == 'a') && {'a': 1}.exists(k, v, v == 1) && [5].all(i, v, i == 0 && v == 5)",
        "[1, 0].exists(x, 1 / x > 0)",
        "[5, 6].transformList(i, v, i + v) == [5, 7] && [5, 6].transformList(i, v, v > 5, v) == [6]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1}.transformMap(k, v, v > 1, v) == {}",
        "{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}",
        "[[1], [2, 3]].map(x, x.map(y, y + 1)) == [[2], [3, 4]]",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1]",
        "optional.of(2).optMap(x, x * 2).value() == 4 && !optional.none().optMap(x, x).hasValue()",
        "optional.of(2).optFlatMap(x, optional.of(x + 1)) == optional.of(3)",
    ]);
    let cases = [
        ("[1].all(x.y, true)", "argument must be a simple name"),
        ("has(a)", "invalid argument to has() macro"),
        ("[0].all(x, 1 / x > 0)", "fault: division by zero"),
        ("[1].all(x, x)", "expected type 'bool' but found 'int'"),
        ("{'a': 1, 'b': 1}.transformMapEntry(k, v, {v: k})", "insert failed: key 1 already exists"),
        (
            "'abc'.all(x, true)",
            "expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
    ];
    for (source, part) in cases {
        assert!(plain(source).contains(part), "{source}: {}", plain(source));
    }
}

#[test]
fn optionals() {
    holds(&[
        "{'a': 1}.?a.value() == 1 && !{'a': 1}.?b.hasValue() && {'a': 1}[?'b'].orValue(4) == 4",
        "[1][?0].value() == 1 && [1][?3] == optional.none()",
        "optional.of(1).or(optional.of(2)).value() == 1 && optional.none().or(optional.of(2)).value() == 2",
        "optional.ofNonZeroValue('') == optional.none() && optional.ofNonZeroValue(1).hasValue()",
        "{'a': {'b': 1}}.?a.b.value() == 1 && !{'a': {'b': 1}}.?a.c.hasValue() && !{'a': {'b': 1}}.?x.c.hasValue()",
        "[?optional.none(), ?optional.of(1)] == [1] && {?'a': optional.none(), 'b': 1} == {'b': 1}",
        "has({'a': {'b': 1}}.?a.b) && !has({'a': {'b': 1}}.?x.b)",
    ]);
    assert_eq!(plain("optional.none().value()"), "fault: optional.none() dereference");
}

#[test]
fn texts() {
    holds(&[
        "'tacocat'.charAt(3) == 'o' && 'tacocat'.charAt(7) == ''",
        "'hello mellow'.indexOf('ello') == 1 && 'hello mellow'.indexOf('ello', 2) == 7 && 'a'.indexOf('') == 0",
        "'hello mellow'.lastIndexOf('ello') == 7 && 'hello mellow'.lastIndexOf('ello', 6) == 1",
        "'TacoÄ'.lowerAscii() == 'tacoÄ' && 'ä'.upperAscii() == 'ä'",
        "'hello hello'.replace('he', 'we') == 'wello wello' && 'hello hello'.replace('he', 'we', 1) == 'wello hello'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'a'.split(',', 0) == []",
        "'abc'.split('') == ['a', 'b', 'c'] && 'abc'.split('', 2) == ['a', 'bc']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "'  x '.trim() == 'x' && ['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b'",
        "'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.contains('b') && 'abc'.matches('^[a-c]+$')",
        "'abc 123'.find('[0-9]+') == '123' && '1 22 3'.findAll('[0-9]+') == ['1', '22', '3']",
        "'1 22 3'.findAll('[0-9]+', 1) == ['1'] && 'x'.find('y') == ''",
        "strings.quote('a\"b\\n') == '\"a\\\\\"b\\\\n\"'",
        "'%s has %d at %f%%'.format(['x', 3, 2.5]) == 'x has 3 at 2.500000%'",
        "'%.2f %e %b %o %x %X %s'.format([1.234, 3.14, 5, 8, 255, 'hi', [1, 'a']]) == '1.23 3.140000×10⁰⁰ 101 10 ff 6869 [1, \"a\"]'",
        "'%s'.format([{'a': 1, 'b': null}]) == '{\"a\":1, \"b\":null}'",
    ]);
    assert_eq!(plain("'abc'.substring(5)"), "fault: index out of range: 5");
    assert_eq!(plain("'abc'.substring(2, 1)"), "fault: invalid substring range. start: 2, end: 1");
    for (source, issue) in [
        (
            "'%d'.format(['x'])",
            "1:14: error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'%q'.format([1])", "1:12: could not parse formatting clause: unrecognized formatting clause \"q\""),
        ("'%s %s'.format([1])", "1:15: index 1 out of range"),
    ] {
        assert!(plain(source).starts_with(&format!("compile: ERROR: <input>:{issue}")), "{source}: {}", plain(source));
    }
    assert!(plain("'x'.matches('(')").starts_with("compile: ERROR: <input>:1:13: invalid matches argument"));
}

#[test]
fn lists_and_sets() {
    holds(&[
        "[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [1, 2].sum() == 3 && [1.5, 2.5].sum() == 4.0",
        "[3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2",
        "[1, 2, 3].slice(1, 3) == [2, 3] && [[1], [2]].flatten() == [1, 2] && [[[1]], [[2]]].flatten(2) == [1, 2]",
        "[3, 1, 2].sort() == [1, 2, 3] && lists.range(3) == [0, 1, 2] && [1, 2].reverse() == [2, 1]",
        "[1, 2, 1].distinct() == [1, 2]",
        "sets.contains([1, 2], [2]) && !sets.contains([1], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])",
        "[duration('1m'), duration('30s')].sum() == duration('90s')",
    ]);
    assert_eq!(plain("[].min() == 0"), "fault: min called on empty list");
}

#[test]
fn kubernetes_libraries() {
    holds(&[
        "isURL('https://example.com:80/a?b=c&b=d') && !isURL('../relative') && !isURL('https://x y')",
        "url('https://user@example.com:80/a b?q=1').getScheme() == 'https' && url('https://example.com:80').getPort() == '80'",
        "url('https://[::1]:80/p').getHostname() == '::1' && url('https://[::1]:80/p').getHost() == '[::1]:80'",
        "url('https://x/a%20b').getEscapedPath() == '/a%20b' && url('/p').getHost() == '' && url('https://x?a=1&a=2&b=').getQuery() == {'a': ['1', '2'], 'b': ['']}",
        "isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.01') && !isIP('::ffff:1.2.3.4') && !isIP('fe80::1%eth0')",
        "ip('127.0.0.1').family() == 4 && ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified()",
        "ip('169.254.1.1').isLinkLocalUnicast() && ip('224.0.0.1').isLinkLocalMulticast() && ip('8.8.8.8').isGlobalUnicast()",
        "ip.isCanonical('::1') && !ip.isCanonical('0:0::1') && string(ip('::1')) == '::1'",
        "isCIDR('10.0.0.0/8') && !isCIDR('10.0.0.0/33') && !isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/08')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.1.0.0/16').containsCIDR(cidr('10.0.0.0/8'))",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.1.2.3/8').prefixLength() == 8 && cidr('10.1.2.3/8').ip() == ip('10.1.2.3')",
        "isQuantity('1.5Gi') && !isQuantity('x') && quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1k') == quantity('1000')",
        "quantity('50M').add(quantity('20')).asInteger() == 50000020 && quantity('50k').sub(20000) == quantity('30k')",
        "sign(quantity('50.5')) == 1 && !quantity('50.5').isInteger() && quantity('1500m').asApproximateFloat() == 1.5",
        "sign(quantity('-1')) == -1 && quantity('1e3').compareTo(quantity('1k')) == 0",
        "isSemver('1.2.3-rc.1+b') && !isSemver('1.2') && isSemver('v1.2', true) && semver('1.2.3').isLessThan(semver('1.10.0'))",
        "semver('1.0.0-rc.1').isLessThan(semver('1.0.0')) && semver('v01.02', true).minor() == 2 && semver('1.2.3').compareTo(semver('1.2.3+x')) == 0",
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My').hasValue()",
        "format.named('dns1123Label').value() == format.dns1123Label() && !format.named('nope').hasValue()",
        "!format.qualifiedName().validate('a.b/c').hasValue() && format.qualifiedName().validate('/c').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.byte().validate('a').hasValue()",
    ]);
    assert_eq!(
        plain("quantity('x') == quantity('y')"),
        "fault: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
}

#[test]
fn times() {
    holds(&[
        "duration('1h1m1.5s') == duration('3661.5s') && string(duration('90m')) == '5400s' && duration('1m').getSeconds() == 60",
        "timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026 && timestamp('2026-01-02T03:04:05Z').getMonth() == 0",
        "timestamp('2026-01-02T03:04:05Z').getDate() == 2 && timestamp('2026-01-02T03:04:05Z').getHours('+02:00') == 5",
        "timestamp('2026-01-02T03:04:05Z') + duration('1s') == timestamp('2026-01-02T03:04:06Z')",
        "timestamp('2026-01-02T00:00:01Z') - timestamp('2026-01-02T00:00:00Z') == duration('1s')",
        "string(timestamp('2026-01-02T03:04:05.50Z')) == '2026-01-02T03:04:05.5Z' && int(timestamp('1970-01-01T00:01:00Z')) == 60",
        "timestamp('2026-01-04T00:00:00Z').getDayOfWeek() == 0",
    ]);
    assert!(plain("duration('x')").contains("invalid duration argument"));
    assert!(plain("timestamp('x')").contains("invalid timestamp argument"));
}

#[test]
fn what_does_not_fit_is_said_before_it_runs() {
    let cases = [
        ("x + 1", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x + 1\n | ^"),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        ("'a'.foo()", "ERROR: <input>:1:8: undeclared reference to 'foo' (in container '')\n | 'a'.foo()\n | .......^"),
        (
            "1.size()",
            "ERROR: <input>:1:7: found no matching overload for 'size' applied to 'int.()'\n | 1.size()\n | ......^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        (
            "1 == 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'\n | 1 == 'a'\n | ..^",
        ),
        ("true && 1", "ERROR: <input>:1:9: expected type 'bool' but found 'int'\n | true && 1\n | ........^"),
        ("1.5.foo", "ERROR: <input>:1:4: type 'double' does not support field selection\n | 1.5.foo\n | ...^"),
    ];
    for (source, expected) in cases {
        assert_eq!(plain(source), format!("compile: {expected}"), "{source}");
    }
    for source in ["", "1 +", "(1", "a.b.", "'abc", "1 ? 2", "[1", "{1: }", "a b", "@x", "package", "1 = 2", "$"] {
        assert!(plain(source).starts_with("compile: ERROR: <input>:1:"), "{source}: {}", plain(source));
    }
}

#[test]
fn nesting_and_length_are_limited() {
    let nested = |n: usize| format!("{}1{} == 1", "(".repeat(n), ")".repeat(n));
    assert_eq!(plain(&nested(usize::from(DEPTH_MAX) - 1)), "true");
    assert!(plain(&nested(usize::from(DEPTH_MAX))).contains("expression recursion limit exceeded: 100"));
    let sum = |n: usize| format!("{} == {n}", vec!["1"; n].join(" + "));
    assert_eq!(plain(&sum(usize::from(DEPTH_MAX) - 1)), "true");
    assert!(plain(&sum(usize::from(DEPTH_MAX) + 1)).contains("expression recursion limit exceeded: 100"));
    let many = vec!["true"; 2000].join(" && ");
    assert_eq!(plain(&many), "true", "a chain is not deep");
    let long = |n: usize| format!("true{}", " ".repeat(n - 4));
    assert_eq!(plain(&long(parser::SOURCE_CHARS_MAX)), "true");
    assert!(plain(&long(parser::SOURCE_CHARS_MAX + 1)).contains("expression code point size exceeds limit"));
    let lists = |n: usize| format!("{}1{}.size() == 1", "[".repeat(n), "]".repeat(n));
    assert_eq!(plain(&lists(usize::from(DEPTH_MAX) - 4)), "true");
}

#[test]
fn what_runs_away_is_stopped() {
    let range = "lists.range(1000)";
    let started = std::time::Instant::now();
    let big = json!({"a": vec![json!({"b": "x".repeat(50)}); 20_000]});
    let decl = Decl::any();
    let self_ = Value::of(&big, &decl).unwrap();
    for source in [
        format!("{range}.all(a, {range}.all(b, {range}.all(c, a + b + c >= 0)))"),
        "lists.range(100000).all(x, {'k': self.a} == {'k': self.a})".to_owned(),
        "lists.range(1000).map(x, self.a + self.a).size() > 0".to_owned(),
        "string(self.a[0].b).replace('', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxx').replace('', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx').replace('', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx').replace('', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy') == ''".to_owned(),
        "lists.range(9000000000).size() > 0".to_owned(),
        "lists.range(10000).all(x, !'a'.matches(string(x) + '(a{50}){50}'))".to_owned(),
        "self.a.map(x, self.a.map(y, y)).size() > 0".to_owned(),
    ] {
        let program = Program::compile(&source, &[("self", Type::Dyn)]).unwrap_or_else(|error| panic!("{source}: {error}"));
        // A tenth of the steps, as this build is ten times slower than the one that users have.
        let budget = Budget { work: CALL_WORK_MAX / 10, ..Budget::CALL };
        let outcome = program.evaluate(std::slice::from_ref(&self_), budget);
        assert!(matches!(outcome.result, Err(Fault::OverBudget)), "{source}: {:?}", outcome.used.cost);
    }
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn costs_are_those_of_kubernetes() {
    let data = json!({"s": "Rook takes 👑", "n": [1, 2, 3, 4, 5, 6, 7, 8], "o": {"p": 1}, "m": {"a": 1, "b": 2}});
    let fields = [
        ("s".into(), std::sync::Arc::new(Decl::string(None))),
        ("n".into(), std::sync::Arc::new(Decl::list(std::sync::Arc::new(Decl::int()), None, Merge::Atomic))),
        ("m".into(), std::sync::Arc::new(Decl::map(std::sync::Arc::new(Decl::int()), None))),
        ("o".into(), std::sync::Arc::new(Decl::object([("p".into(), std::sync::Arc::new(Decl::int()))], 2))),
    ];
    let decl = std::sync::Arc::new(Decl::object(fields, 2));
    let type_ = Type::of(&decl);
    let value = Value::of(&data, &decl).unwrap();
    // Worked out by the rules of cel-go's cost tracker.
    let cases = [
        ("self.s == self.s", 6),
        ("self.s.startsWith('Rook')", 4),
        ("has(self.s)", 1),
        ("has(self.o.p)", 2),
        ("!has(self.s)", 2),
        ("type(self.o.p) == int", 5),
        ("self.n.all(e, e > 0)", 43),
        ("size(self.n.filter(e, e % 2 == 0)) == 4", 81),
        ("self.m.all(k, self.m[k] > 0)", 17),
        ("self.o.p in [1, 2]", 3),
        ("true ? true : false", 0),
    ];
    for (source, expected) in cases {
        let program = Program::compile(source, &[("self", type_.clone())]).unwrap();
        let outcome = program.evaluate(std::slice::from_ref(&value), Budget::CALL);
        assert!(outcome.result.is_ok(), "{source}: {:?}", outcome.result);
        assert_eq!(outcome.used.cost, expected, "{source}");
    }
}

#[test]
fn worst_costs_are_those_of_kubernetes() {
    use std::sync::Arc;
    let list = |items: Decl, max: Option<u64>| Decl::list(Arc::new(items), max, Merge::Atomic);
    let map = |values: Decl, max: Option<u64>| Decl::map(Arc::new(values), max);
    // Without bounds, and with one.
    let cases = [
        (list(Decl::double(), None), "self.all(x, true)", 4_718_591),
        (list(Decl::double(), Some(10)), "self.all(x, true)", 32),
        (list(Decl::string(None), None), "self.all(x, true)", 3_145_727),
        (list(Decl::bool(), None), "self.all(x, true)", 1_887_437),
        (list(list(Decl::double(), None), None), "self.all(x, true)", 3_145_727),
        (map(Decl::double(), None), "self.all(x, true)", 1_348_169),
        (map(Decl::string(None), Some(3)), "self.all(x, true)", 11),
        (Decl::string(None), "self.contains('test')", 314_574),
        (Decl::string(Some(10)), "self.contains('test')", 5),
        (Decl::string(None), "self.startsWith('test')", 2),
        (Decl::string(None), "size(self + 'hello') > size('hello')", 314_578),
        (Decl::string(Some(4)), "size(self + 'hello') > size('hello')", 7),
        (list(Decl::double(), None), "self[1] == 0.0", 2),
        (list(Decl::string(None), None), "self[1] == self[1]", 314_577),
        (list(Decl::double(), Some(10)), "self.all(x, self.all(y, true))", 352),
        (list(Decl::double(), Some(10)), "self.all(x, self.all(y, self.all(z, true)))", 3552),
        (Decl::string(None), "self.matches('x')", 314_574),
        (Decl::string(Some(50)), "self.matches('x')", 22),
        (Decl::string(None), "''.matches('(((((((((())))))))))[0-9]')", 7),
        (Decl::string(None), "self == 'x'", 2),
        (Decl::string(Some(0)), "self == 'x'", 1),
    ];
    for (decl, source, expected) in cases {
        let decl = Arc::new(decl);
        let cost = Program::worst_cost(source, &[("self", Type::of(&decl))], &decl);
        assert_eq!(cost, Ok(expected), "{source}");
    }
    let unbounded = Arc::new(list(Decl::double(), None));
    let cost = Program::worst_cost("self.all(x, self.all(y, true))", &[("self", Type::of(&unbounded))], &unbounded);
    assert!(cost.unwrap() > 1_000_000_000_000);
}

/// Words that expressions are made of, right and wrong.
const WORDS: [&str; 78] = [
    "self",
    "self.a",
    "self.l",
    "self.m",
    "self.s",
    ".a",
    ".?b",
    "[0]",
    "[?0]",
    "['k']",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "&&",
    "||",
    " in ",
    "1",
    "-1",
    "0",
    "2u",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "'x'",
    "'ä👑'",
    "r'\\d'",
    "b'\\xff'",
    "true",
    "false",
    "null",
    "'1h'",
    "x",
    "y",
    "x.a",
    ".all(x, ",
    ".exists(x, ",
    ".map(x, ",
    ".filter(i, x, ",
    ".sortBy(x, ",
    ".optMap(x, ",
    "has(self.a)",
    "has(",
    "size(",
    "string(",
    "int(",
    "duration(",
    "timestamp(",
    "quantity(",
    "url(",
    "cidr(",
    ".matches(",
    ".substring(",
    ".split(",
    ".format([",
    "])",
    ".replace(",
    ".indexOf(",
    ".sum()",
    ".flatten()",
    "lists.range(",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 3_000, ..Default::default() })]

    #[test]
    fn no_expression_brings_it_down(words in proptest::collection::vec(0..WORDS.len(), 1..14)) {
        let source: String = words.iter().filter_map(|at| WORDS.get(*at)).copied().collect();
        let data = json!({"a": {"b": 1, "a": null}, "l": [3, 1.5, "x", [1], {}, -9_223_372_036_854_775_808_i64], "m": {"k": "v"},
            "s": "hällo wörld 👑"});
        let decl = Decl::any();
        let value = Value::of(&data, &decl).unwrap();
        if let Ok(program) = Program::compile(&source, &[("self", Type::Dyn)]) {
            let outcome = program.evaluate(std::slice::from_ref(&value), Budget { cost: 20_000, work: 400_000 });
            proptest::prop_assert!(outcome.used.cost <= 20_000 + 20_000_000);
        }
        let _ = Program::worst_cost(&source, &[("self", Type::Dyn)], &decl);
    }

    #[test]
    fn no_text_brings_it_down(source in "\\PC{0,40}") {
        let _ = Program::compile(&source, &[]);
        for function in ["quantity", "semver", "url", "ip", "cidr", "duration", "timestamp", "int", "double", "isURL", "isQuantity"] {
            let program = Program::compile(&format!("string({function}(self))"), &[("self", Type::Dyn)]);
            let program = program.or_else(|_| Program::compile(&format!("{function}(self)"), &[("self", Type::Dyn)])).unwrap();
            let _ = program.evaluate(&[Value::String(source.clone().into())], Budget::CALL);
        }
    }
}

/// Lets one account read pods.
#[derive(Debug)]
struct Doorman;

impl super::Authorize for Doorman {
    fn check(&self, account: Option<(&str, &str)>, wanted: &crate::rbac::Attributes<'_>) -> crate::rbac::Decision {
        use crate::rbac::{Attributes, Decision};
        match wanted {
            Attributes::Resource { verb: "get", group: "", resource: "pods", namespace: "n", .. }
                if account == Some(("a", "b")) =>
            {
                Decision::Allowed("because".to_owned())
            }
            Attributes::Path { verb: "get", path: "/healthz" } => Decision::Allowed(String::new()),
            _ => Decision::NoOpinion,
        }
    }
}

#[test]
fn the_authorizer_is_asked_what_expressions_build() {
    let by: Arc<dyn super::Authorize> = Arc::new(Doorman);
    let asked = crate::rbac::Attributes::Resource {
        verb: "",
        group: "",
        resource: "pods",
        subresource: "",
        namespace: "n",
        name: "",
    };
    let variables = [("authorizer", Type::AUTHORIZER), ("authorizer.requestResource", Type::RESOURCE_CHECK)];
    let values = [super::authorizer(&by), super::resource_check(&by, &asked)];
    let cases = [
        ("authorizer.serviceAccount('a', 'b').group('').resource('pods').namespace('n').check('get').allowed()", true),
        ("authorizer.group('').resource('pods').namespace('n').check('get').allowed()", false),
        ("authorizer.path('/healthz').check('get').allowed()", true),
        ("authorizer.requestResource.check('get').allowed()", false),
        (
            "authorizer.serviceAccount('a', 'b').group('').resource('pods').namespace('n').check('get').reason() == 'because'",
            true,
        ),
        ("authorizer.path('/x').check('get').errored() || authorizer.path('/x').check('get').error() != ''", false),
    ];
    for (source, expected) in cases {
        let program = Program::compile(source, &variables).unwrap();
        let found = program.evaluate(&values, Budget::CALL).result.unwrap();
        assert!(matches!(found, Value::Bool(found) if found == expected), "{source}");
    }
    let thrice = "authorizer.path('/').check('a').allowed() || authorizer.path('/').check('b').allowed() || authorizer.path('/').check('c').allowed()";
    let program = Program::compile(thrice, &variables).unwrap();
    assert_eq!(program.evaluate(&values, Budget::CALL).result.unwrap_err(), super::Fault::OverBudget);
}

#[test]
fn patches_are_made_only_where_they_are_wanted() {
    let source = "Object{spec: Object.spec{replicas: 1 + 2, list: [Object.spec.list{a: 'b'}], ?gone: optional.none()}}";
    assert!(Program::compile(source, &[]).unwrap_err().to_string().contains("undeclared reference to 'Object'"));
    let program = Program::compile_patch(source, &[]).unwrap();
    assert_eq!(program.output().to_string(), "Object");
    let Ok(Value::Message(made)) = program.evaluate(&[], Budget::CALL).result else { panic!("no message") };
    assert!(made.misnamed().is_empty());
    let made = Value::Message(made).to_json().unwrap();
    assert_eq!(made, serde_json::json!({"spec": {"replicas": 3, "list": [{"a": "b"}]}}));
    let program = Program::compile_patch("Object{spec: Object.wrong{}}", &[]).unwrap();
    let Ok(Value::Message(made)) = program.evaluate(&[], Budget::CALL).result else { panic!("no message") };
    assert_eq!(made.misnamed().len(), 1);
    let source = "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~c'), value: {'x': [1]}}]";
    let program = Program::compile_patch(source, &[]).unwrap();
    assert_eq!(program.output().to_string(), "list(JSONPatch)");
    let made = program.evaluate(&[], Budget::CALL).result.unwrap().to_json().unwrap();
    assert_eq!(made[0]["path"], "/metadata/labels/a~1b~0c");
    let wrong = Program::compile_patch("[JSONPatch{op: 1}]", &[]).unwrap_err().to_string();
    assert!(wrong.contains("expected type of field 'op' is 'string' but provided type is 'int'"), "{wrong}");
}

/// Counts how often it is asked.
struct Lazy(std::cell::Cell<u32>);

impl super::Variables<'static> for Lazy {
    fn value(&self, at: usize) -> Result<Value<'static>, super::Fault> {
        self.0.set(self.0.get() + 1);
        if at == 0 { Ok(Value::Bool(false)) } else { Err(super::Fault::failed("no")) }
    }
}

#[test]
fn variables_are_looked_up_when_they_are_read() {
    let empty = Type::Object(Arc::new(Decl::object([], 2)));
    let variables = [("variables.a", Type::Bool), ("variables.b", Type::Bool), ("variables", empty)];
    let lazy = Lazy(std::cell::Cell::new(0));
    let program = Program::compile("variables.a && variables.b", &variables).unwrap();
    assert!(matches!(program.evaluate_over(&lazy, Budget::CALL).result, Ok(Value::Bool(false))));
    assert_eq!(lazy.0.get(), 1);
    let wrong = Program::compile("variables.c", &variables).unwrap_err().to_string();
    assert!(wrong.contains("undefined field 'c'"), "{wrong}");
}
