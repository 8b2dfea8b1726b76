//! Tables of schemas with rules: what is refused, and what objects are told.

use serde_json::{Value, json};

use crate::{field::FieldError, schema::Schema};

fn schema(spec: Value) -> Schema {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    Schema::parse(&schema).unwrap_or_else(|errors| panic!("{schema}: {errors:?}"))
}

/// What is wrong with the rules but for what they may cost: most schemas here set no bounds.
fn rules_only(schema: &Schema) -> Vec<FieldError> {
    let mut errors = schema.check_rules(false, "schema");
    errors.retain(|error| !error.detail.contains("estimated rule cost total"));
    errors
}

fn created(spec: Value, value: Value) -> Vec<String> {
    let schema = schema(spec);
    assert_eq!(rules_only(&schema), [], "the rules are right");
    schema.validate(&json!({"spec": value})).iter().map(ToString::to_string).collect()
}

fn updated(spec: Value, new: Value, old: Value) -> Vec<String> {
    let schema = schema(spec);
    assert_eq!(rules_only(&schema), [], "the rules are right");
    let (new, old) = (json!({"spec": new}), json!({"spec": old}));
    schema.validate_update(&new, &old, &mut Vec::new()).iter().map(ToString::to_string).collect()
}

fn rules(list: &[Value]) -> Value {
    json!({"type": "object", "x-kubernetes-validations": list, "properties": {
        "n": {"type": "integer"}, "max": {"type": "integer"}, "s": {"type": "string"}, "null": {"type": "string", "nullable": true},
        "namespace": {"type": "string"}, "a-b.c/d": {"type": "string"}, "a__b": {"type": "string"},
        "any": {"x-kubernetes-int-or-string": true}, "when": {"type": "string", "format": "date-time"},
        "for": {"type": "string", "format": "duration"}, "bytes": {"type": "string", "format": "byte"},
        "free": {"x-kubernetes-preserve-unknown-fields": true, "type": "object"},
        "raw": {"x-kubernetes-preserve-unknown-fields": true},
        "list": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "byKey": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
    }})
}

fn rule(rule: &str) -> Value {
    rules(&[json!({"rule": rule})])
}

#[test]
fn rules_see_what_the_schema_says() {
    let value = json!({"n": 1, "max": 3, "s": "x", "null": null, "namespace": "ns", "a-b.c/d": "e", "a__b": "u", "any": 5,
        "when": "2026-01-02T03:04:05Z", "for": "90s", "bytes": "YWJj", "free": {"x": 1}, "raw": [1], "list": ["a"], "set": ["a", "b"],
        "map": {"k": 1}, "byKey": [{"k": "a", "v": 1}, {"k": "b"}]});
    for source in [
        "self.n < self.max",
        "self.__namespace__ == 'ns' && self.a__dash__b__dot__c__slash__d == 'e' && self.a__underscores__b == 'u'",
        "type(self.any) == int ? self.any == 5 : self.any == '5'",
        "self.when > timestamp('2026-01-01T00:00:00Z') && self.__for__ == duration('1m30s') && self.bytes == b'abc'",
        "has(self.s) && !has(self.__null__)",
        "self.set == ['b', 'a'] && self.set + ['b', 'c'] == ['a', 'b', 'c'] && self.list != ['b']",
        "self.byKey == self.byKey && self.byKey.size() == 2",
        "self.map.all(k, self.map[k] == 1) && 'k' in self.map && self.byKey.exists_one(i, i.k == 'a' && i.v == 1)",
        "self.byKey.filter(i, has(i.v)).map(i, i.k) == ['a']",
    ] {
        assert_eq!(created(rule(source), value.clone()), [""; 0], "{source}");
    }
}

#[test]
fn a_rule_that_does_not_hold_says_so_as_kubernetes_does() {
    let value = json!({"n": 5, "max": 3, "s": "x"});
    let cases = [
        (json!({"rule": "self.n < self.max"}), "spec: Invalid value: failed rule: self.n < self.max"),
        (json!({"rule": "self.n < self.max", "message": " too large "}), "spec: Invalid value: too large"),
        (
            json!({"rule": "self.n < self.max", "messageExpression": "string(self.n) + ' is not below ' + string(self.max)"}),
            "spec: Invalid value: 5 is not below 3",
        ),
        (
            json!({"rule": "self.n < self.max", "message": "m", "messageExpression": "'' + ''"}),
            "spec: Invalid value: m",
        ),
        (
            json!({"rule": "self.n < self.max", "message": "m", "messageExpression": "[''][self.n]"}),
            "spec: Invalid value: m",
        ),
        (
            json!({"rule": "self.n < self.max", "message": "m", "fieldPath": ".n", "reason": "FieldValueForbidden"}),
            "spec.n: Forbidden: m",
        ),
        (json!({"rule": "false", "message": "m", "reason": "FieldValueRequired"}), "spec: Required value: m"),
        (json!({"rule": "false", "message": "m", "fieldPath": ".map['a.b']"}), "spec.map[a.b]: Invalid value: m"),
        (
            json!({"rule": "self.list[0] == 'x'"}),
            "spec: Invalid value: \"object\": no such key: list evaluating rule: self.list[0] == 'x'",
        ),
        (
            json!({"rule": "1 / (self.n - 5) > 0"}),
            "spec: Invalid value: \"object\": division by zero evaluating rule: 1 / (self.n - 5) > 0",
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(created(rules(&[rule]), value.clone()), [expected]);
    }
    let scalar = json!({"type": "object", "properties": {"n": {"type": "integer", "x-kubernetes-validations": [
        {"rule": "self < 3", "message": "m"}]}}});
    assert_eq!(created(scalar, json!({"n": 4})), ["spec.n: Invalid value: 4: m"]);
    let any = rule("self.any < 3");
    let text = "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, \
                function or macro signature for rule: self.any < 3";
    assert_eq!(created(any, json!({"any": "x"})), [text]);
}

#[test]
fn the_root_has_its_metadata() {
    let schema = |rule: &str| {
        Schema::parse(&json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
            "spec": {"type": "object", "properties": {"name": {"type": "string"}}}}}))
        .unwrap()
    };
    let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"name": "b"}});
    assert_eq!(schema("self.metadata.name == 'a' && self.kind == 'K'").validate(&object), []);
    let wrong = schema("self.metadata.name == self.spec.name").validate(&object);
    assert_eq!(wrong[0].to_string(), "<nil>: Invalid value: failed rule: self.metadata.name == self.spec.name");
    let hidden = schema("self.metadata.labels.size() > 0").check_rules(true, "schema");
    assert!(hidden[0].to_string().contains("undefined field 'labels'"), "{hidden:?}");
}

#[test]
fn what_is_wrong_with_a_rule_is_said_when_the_crd_comes() {
    let cases = [
        (json!({"rule": " "}), "[0].rule: Required value: rule is not specified"),
        (json!({"rule": "true", "message": " "}), "[0].message: Invalid value: \" \": must be non-empty if specified"),
        (
            json!({"rule": "true", "message": "a\nb"}),
            "[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
        ),
        (
            json!({"rule": "true &&\ntrue"}),
            "[0].message: Required value: message must be specified if rule contains line breaks",
        ),
        (
            json!({"rule": "true", "messageExpression": " "}),
            "[0].messageExpression: Required value: messageExpression must be non-empty if specified",
        ),
        (
            json!({"rule": "true", "reason": "X"}),
            "[0].reason: Unsupported value: \"X\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (
            json!({"rule": "true", "fieldPath": ".nope"}),
            "[0].fieldPath: Invalid value: \".nope\": must be a valid path",
        ),
        (json!({"rule": "true", "fieldPath": "n"}), "[0].fieldPath: Invalid value: \"n\": must be a valid path"),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            "[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
        (
            json!({"rule": "self.n"}),
            "[0].rule: Invalid value: {\"Rule\":\"self.n\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: cel expression must evaluate to a bool",
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            "[0].messageExpression: Invalid value: {\"Rule\":\"true\",\"Message\":\"\",\"MessageExpression\":\"1\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: messageExpression must evaluate to a string",
        ),
        (
            json!({"rule": "self.nope > 1"}),
            "[0].rule: Invalid value: {\"Rule\":\"self.nope \\u003e 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^",
        ),
        (
            json!({"rule": "self.raw == 1"}),
            "[0].rule: Invalid value: {\"Rule\":\"self.raw == 1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: ERROR: <input>:1:5: undefined field 'raw'\n | self.raw == 1\n | ....^",
        ),
    ];
    for (rule, expected) in cases {
        let whole = json!({"type": "object", "properties": {"spec": rules(&[rule])}});
        let errors = Schema::parse(&whole).map_or_else(|errors| errors, |schema| schema.check_rules(true, "schema"));
        let expected = format!("properties[spec].x-kubernetes-validations{expected}");
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
    let items = json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let whole = json!({"type": "object", "properties": {"spec": items}});
    let errors = rules_only(&Schema::parse(&whole).unwrap());
    assert!(errors[0].detail.starts_with(
        "oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec]"
    ));
}

#[test]
fn transitions_are_looked_at_where_there_is_a_past() {
    let fixed =
        json!({"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]});
    let spec = json!({"type": "object", "properties": {"s": fixed, "list": {"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"], "properties": {
            "k": {"type": "string"}, "v": fixed}}}}});
    assert_eq!(created(spec.clone(), json!({"s": "a"})), [""; 0]);
    assert_eq!(updated(spec.clone(), json!({"s": "a"}), json!({})), [""; 0], "nothing to compare with");
    let wrong = updated(spec.clone(), json!({"s": "b"}), json!({"s": "a"}));
    assert_eq!(wrong, ["spec.s: Invalid value: \"b\": is immutable"]);
    let items =
        |list: &[(&str, &str)]| json!({"list": list.iter().map(|(k, v)| json!({"k": k, "v": v})).collect::<Vec<_>>()});
    let moved = updated(spec.clone(), items(&[("b", "2"), ("a", "1"), ("c", "3")]), items(&[("a", "1"), ("b", "2")]));
    assert_eq!(moved, [""; 0], "items are known by their key");
    let changed = updated(spec, items(&[("b", "3")]), items(&[("a", "1"), ("b", "2")]));
    assert_eq!(changed, ["spec.list[0].v: Invalid value: \"3\": is immutable"]);
    let optional = rules(&[
        json!({"rule": "oldSelf.hasValue() ? self.n >= oldSelf.value().n : self.n == 0", "optionalOldSelf": true}),
    ]);
    assert_eq!(created(optional.clone(), json!({"n": 0})), [""; 0]);
    assert_eq!(created(optional.clone(), json!({"n": 1})).len(), 1);
    assert_eq!(updated(optional.clone(), json!({"n": 2}), json!({"n": 1})), [""; 0]);
    assert_eq!(updated(optional, json!({"n": 0}), json!({"n": 1})).len(), 1);
}

#[test]
fn what_was_wrong_before_may_stay() {
    let spec = json!({"type": "object", "properties": {
        "old": {"type": "object", "x-kubernetes-validations": [{"rule": "self.n < 3"}], "properties": {"n": {"type": "integer"}}},
        "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 3", "message": "m"}]}},
        "other": {"type": "string"}}});
    let old = json!({"old": {"n": 5}, "list": [5, 1], "other": "a"});
    assert_eq!(created(spec.clone(), old.clone()).len(), 2);
    let mut new = old.clone();
    new["other"] = json!("b");
    assert_eq!(updated(spec.clone(), new.clone(), old.clone()), [""; 0]);
    new["old"]["n"] = json!(6);
    assert_eq!(updated(spec.clone(), new.clone(), old.clone()), ["spec.old: Invalid value: failed rule: self.n < 3"]);
    new["list"] = json!([5, 2]);
    assert_eq!(updated(spec, new, old).len(), 2, "an item of a plain list has no past of its own");
}

#[test]
fn rules_wait_for_an_object_that_fits() {
    let spec = rules(&[json!({"rule": "self.n < 3"})]);
    let wrong = created(spec, json!({"n": "x"}));
    assert_eq!(wrong.len(), 2);
    assert_eq!(
        wrong[1],
        "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the \
         existing errors to complete validation"
    );
}

#[test]
fn a_rule_that_runs_away_is_stopped_with_the_published_text() {
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let nested = "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))";
    let spec = json!({"type": "object", "properties": {"l": list}, "x-kubernetes-validations": [{"rule": nested}, {"rule": "false"}]});
    let long: Vec<i64> = (0..1000).collect();
    let wrong = created(spec, json!({"l": long}));
    let text = format!(
        "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be \
         run due to call cost exceeds limit for rule: {nested}"
    );
    assert_eq!(wrong, [text]);
    // Each by itself is within its limit, all together are not.
    let rule = json!({"rule": "self.l.all(a, self.l.all(b, a + b >= 0))"});
    let spec = json!({"type": "object", "properties": {"l": list}, "x-kubernetes-validations": vec![rule; 40]});
    let long: Vec<i64> = (0..330).collect();
    let wrong = created(spec, json!({"l": long}));
    let text = "spec: Invalid value: \"object\": validation failed due to running out of cost budget, no further validation \
                rules will be run";
    assert_eq!(wrong, [text]);
}

#[test]
fn rules_stand_in_maps_lists_branches_and_embedded_objects() {
    let small = json!([{"rule": "self < 3", "message": "m"}]);
    let spec = json!({"type": "object", "properties": {
        "m": {"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-validations": small}},
        "l": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": small}},
        "e": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-validations": [{"rule": "self.kind == 'K' && self.metadata.name == 'n'", "message": "e"}]},
        "nullable": {"type": "integer", "nullable": true, "x-kubernetes-validations": small},
    }});
    let embedded = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}});
    let wrong = created(spec, json!({"m": {"k": 3}, "l": [1, 4], "e": embedded, "nullable": null}));
    assert_eq!(wrong, ["spec.e: Invalid value: e", "spec.l[1]: Invalid value: 4: m", "spec.m[k]: Invalid value: 3: m"]);
}

#[test]
fn rules_that_may_cost_too_much_are_refused() {
    let list = |max: Option<u64>| {
        let mut list = json!({"type": "array", "items": {"type": "integer"}});
        if let Some(max) = max {
            list["maxItems"] = max.into();
        }
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"l": list}, "x-kubernetes-validations": [
            {"rule": "self.l.all(a, self.l.all(b, a != b))"}]}}})
    };
    let wrong = |schema: &Value, costs: bool| -> Vec<String> {
        Schema::parse(schema).unwrap().check_rules(costs, "schema").iter().map(ToString::to_string).collect()
    };
    assert_eq!(wrong(&list(Some(100)), true), [""; 0]);
    let place = "properties[spec].x-kubernetes-validations[0].rule: Forbidden: ";
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert_eq!(
        wrong(&list(Some(2000)), true),
        [format!("{place}estimated rule cost exceeds budget by factor of 2.0x {hint}")]
    );
    assert_eq!(wrong(&list(Some(2000)), false), [""; 0], "what is there already may be");
    assert_eq!(
        wrong(&list(None), true),
        [
            format!("{place}estimated rule cost exceeds budget by factor of more than 100x {hint}"),
            format!("{place}contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"),
            format!(
                "Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by \
                 factor of more than 100x {hint}"
            ),
        ]
    );
}

#[test]
fn a_default_keeps_to_the_rules_and_old_wrongs_are_warned_of() {
    let spec = json!({"type": "object", "properties": {"n": {"type": "integer", "default": 1, "x-kubernetes-validations": [
        {"rule": "self > 3"}]}}});
    let wrong = Schema::parse(&json!({"type": "object", "properties": {"spec": spec}})).unwrap().check_rules(true, "");
    let texts: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["properties[spec].properties[n].default: Invalid value: 1: failed rule: self > 3"]);
    let schema = schema(json!({"type": "object", "properties": {"a": {"type": "integer"}, "n": {"type": "number",
        "x-kubernetes-validations": [{"rule": "self > 3.0"}]}}}));
    let mut warnings = Vec::new();
    let (old, new) = (json!({"spec": {"n": 2.0}}), json!({"spec": {"n": 2.0, "a": 1}}));
    assert_eq!(schema.validate_update(&new, &old, &mut warnings), []);
    assert_eq!(warnings, ["spec.n: Invalid value: 2: failed rule: self > 3.0"]);
}

#[test]
fn many_wrongs_of_a_large_list_are_told_apart_from_its_past_in_one_go() {
    let spec = json!({"type": "object", "properties": {"o": {"type": "string"}, "l": {"type": "array", "items": {
        "type": "integer", "x-kubernetes-validations": [{"rule": "self < 0"}]}}}});
    let list: Vec<i64> = (0..50_000).collect();
    let (old, mut new) = (json!({"l": list}), json!({"l": list, "o": "x"}));
    assert_eq!(updated(spec.clone(), new.clone(), old.clone()), [""; 0], "nothing of it changed");
    new["l"][49_999] = json!(7);
    assert_eq!(updated(spec, new, old).len(), 50_000);
}
