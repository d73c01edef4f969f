//! What patterns mean, as tables.

use esm_core::filter::{FilterCriteria, FilterErrors, Verdict};

fn parse(patterns: &[&str]) -> Result<FilterCriteria, FilterErrors> {
    FilterCriteria::parse(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn filter(pattern: &str) -> FilterCriteria {
    parse(&[pattern]).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A pattern for a record of RabbitMQ whose body is empty.
fn check_record(pattern: &str, expected: bool) {
    let record = br#"{"basicProperties":{"contentType":"text/plain","headers":{"kind":{"bytes":[104,105]},"n":[1,2]},"priority":34,"correlationId":null,"appId":"my app"},"redelivered":false,"data":"eyJhIjoxfQ=="}"#;
    assert_eq!(filter(pattern).accepts(record, b""), expected, "{pattern}");
}

fn check(pattern: &str, body: impl AsRef<[u8]>, expected: bool) {
    let body = body.as_ref();
    let text = String::from_utf8_lossy(body);
    let filter = filter(pattern);
    assert_eq!(filter.accepts(b"{}", body), expected, "{pattern} {text}");
    assert_eq!(filter.explain(b"{}", body).accepts(), expected, "explained: {pattern} {text}");
}

/// A list of operators for the member `a` of a body.
fn check_a(list: &str, a: &str, expected: bool) {
    check(&format!(r#"{{"data":{{"a":{list}}}}}"#), format!(r#"{{"before":[{{}}],"a":{a},"b":"x"}}"#), expected);
}

fn check_refused(pattern: &str, expected: &str) {
    let errors = parse(&[pattern]).expect_err(pattern);
    let found: Vec<_> = errors.0.iter().map(|problem| format!("{}: {}", problem.path, problem.reason)).collect();
    assert_eq!(found, [expected], "{pattern}");
}

#[test]
fn without_filters_everything_passes() {
    let none = parse(&[]).unwrap();
    assert!(none.accepts(b"", b"\xff"));
    assert!(none.explain(b"", b"").accepts());
    assert!(!none.needs_body());
}

#[test]
fn one_filter_that_accepts_is_enough() {
    let filter = parse(&[r#"{"data":{"a":[1]}}"#, r#"{"data":{"a":[2]}}"#]).unwrap();
    assert!(filter.accepts(b"{}", br#"{"a":2}"#));
    assert!(!filter.accepts(b"{}", br#"{"a":3}"#));
}

#[test]
fn members_are_joined_by_and_values_by_or() {
    let pattern = r#"{"data":{"location":["New York"],"day":["Monday","Tuesday"]}}"#;
    check(pattern, r#"{"location":"New York","day":"Tuesday"}"#, true);
    check(pattern, r#"{"location":"New York","day":"Friday"}"#, false);
    check(pattern, r#"{"day":"Monday"}"#, false);
}

#[test]
fn the_formats_of_pattern_and_body_have_to_fit_or_the_body_has_no_say() {
    let (plain, json, none) = (r#"{"data":["x"]}"#, r#"{"data":{"a":[1]}}"#, r#"{"redelivered":[false]}"#);
    // (body, plain, json)
    let bodies: [(&[u8], bool, bool); 14] = [
        (b"x", true, true),
        (b"y", false, true),
        (b"", false, true),
        (br#"{"a":1}"#, true, true),
        (br#" {"a":2} "#, true, false),
        (b"[1]", true, false),
        (br#"[{"a":1}]"#, true, false),
        (br#"{"a":1"#, false, true),
        (br#"{"a":1}{"#, false, true),
        (b"123", false, true),
        (br#""x""#, false, true),
        (b"true", false, true),
        (b"x\xff", true, true),
        (b"{\"a\":\"\xff\"}", true, true),
    ];
    for (body, by_plain, by_json) in bodies {
        check(plain, body, by_plain);
        check(json, body, by_json);
        for (pattern, by_body) in [(plain, by_plain), (json, by_json)] {
            let both = filter(&pattern.replacen('{', r#"{"redelivered":[false],"#, 1));
            assert_eq!(both.accepts(br#"{"redelivered":false}"#, body), by_body);
            assert!(!both.accepts(br#"{"redelivered":true}"#, body));
        }
        let metadata = filter(none);
        assert!(!metadata.needs_body());
        assert!(metadata.accepts(br#"{"redelivered":false}"#, body));
        assert!(!metadata.accepts(br#"{"redelivered":true }"#, body));
    }
}

#[test]
fn a_plain_body_is_compared_as_a_text() {
    let prefix = r#"{"data":[{"prefix":"Result: "}]}"#;
    check(prefix, "Result: 5", true);
    check(prefix, "result: 5", false);
    check(r#"{"data":[""]}"#, "", true);
    check(r#"{"data":[123]}"#, "123", false);
    check(r#"{"data":["123"]}"#, "123", true);
    check(r#"{"data":[{"exists":true}]}"#, "x", true);
    check(r#"{"data":[{"exists":false}]}"#, "x", false);
    check(r#"{"data":[{"anything-but":["x"]}]}"#, "x", false);
    check(r#"{"data":[{"cidr":"10.0.0.0/8"}]}"#, "10.1.2.3", true);
}

#[test]
fn the_records_members_can_be_asked_for() {
    check_record(r#"{"basicProperties":{"appId":[{"prefix":"my"}]}}"#, true);
    check_record(r#"{"basicProperties":{"appId":[{"prefix":"your"}]}}"#, false);
    check_record(r#"{"basicProperties":{"headers":{"kind":{"bytes":[104]}}}}"#, true);
    check_record(r#"{"basicProperties":{"headers":{"n":[2]}}}"#, true);
    check_record(r#"{"basicProperties":{"headers":{"n":[3]}}}"#, false);
    check_record(r#"{"basicProperties":{"correlationId":[null]}}"#, true);
    check_record(r#"{"basicProperties":{"messageId":[{"exists":false}]}}"#, true);
    check_record(r#"{"redelivered":[true]}"#, false);
    check_record(r#"{"$or":[{"redelivered":[true]},{"basicProperties":{"priority":[34]}}]}"#, true);
}

#[test]
fn data_means_the_body_never_its_base64() {
    check_record(r#"{"data":["eyJhIjoxfQ=="]}"#, false);
    check_record(r#"{"data":[""]}"#, true);
}

#[test]
fn exact_values() {
    check_a("[null]", "null", true);
    check_a("[null]", r#""null""#, false);
    check_a("[null]", r#""""#, false);
    check_a(r#"[""]"#, r#""""#, true);
    check_a(r#"[""]"#, "null", false);
    check_a("[true]", "true", true);
    check_a("[true]", "false", false);
    check_a("[false]", "false", true);
    check_a(r#"["x"]"#, r#""x""#, true);
    check_a(r#"["x"]"#, r#""X""#, false);
    check_a(r#"["x"]"#, r#""xx""#, false);
    check_a(r#"["x"]"#, r#""\u0078""#, true);
    check_a(r#"["\u0078"]"#, r#""x""#, true);
    check_a(r#"["a\"\\b"]"#, r#""a\u0022\\b""#, true);
    check_a(r#"["x"]"#, r#"{"x":"x"}"#, false);
    check(r#"{"data":{"\u0061":[1]}}"#, r#"{"\u0061":1}"#, true);
}

#[test]
fn numbers_are_compared_as_doubles_however_they_are_written() {
    for number in ["300", "300.0", "3e2", "3.0e2", "3.0E+2", "30000e-2"] {
        check_a("[300]", number, true);
        check_a(&format!("[{number}]"), "300", true);
    }
    check_a("[300]", r#""300""#, false);
    check_a("[300]", "300.0000001", false);
    check_a("[0]", "-0.0", true);
    check_a("[0.1]", "0.1", true);
    check_a("[0.1]", "0.10000000000000000001", true);
    check_a("[9007199254740993]", "9007199254740992", true);
    check_a("[1e308]", "1e400", false);
    check_a(r#"[{"numeric":[">",0]}]"#, "1e400", false);
    check_a(r#"[{"anything-but":[5]}]"#, "1e400", true);
}

#[test]
fn numeric_ranges() {
    let closed = r#"[{"numeric":[">=",0,"<=",5]}]"#;
    check_a(closed, "0", true);
    check_a(closed, "5.0", true);
    check_a(closed, "5.1", false);
    check_a(closed, "-1", false);
    check_a(closed, r#""3""#, false);
    let open = r#"[{"numeric":[">",10,"<",20]}]"#;
    check_a(open, "10", false);
    check_a(open, "10.5", true);
    check_a(open, "20", false);
    check_a(r#"[{"numeric":["=",100]}]"#, "1e2", true);
    check_a(r#"[{"numeric":["<",-2.5]}]"#, "-3", true);
    check_a(r#"[{"numeric":["<",-2.5]}]"#, "-2.5", false);
}

#[test]
fn texts_by_their_parts() {
    check_a(r#"[{"prefix":"us-"}]"#, r#""us-east-1""#, true);
    check_a(r#"[{"prefix":"us-"}]"#, r#""US-east-1""#, false);
    check_a(r#"[{"prefix":""}]"#, r#""x""#, true);
    check_a(r#"[{"prefix":""}]"#, "5", false);
    check_a(r#"[{"prefix":"1"}]"#, "12", false);
    check_a(r#"[{"prefix":{"equals-ignore-case":"EventB"}}]"#, r#""eventbridge""#, true);
    check_a(r#"[{"suffix":".png"}]"#, r#""a.png""#, true);
    check_a(r#"[{"suffix":".png"}]"#, r#""a.PNG""#, false);
    check_a(r#"[{"suffix":{"equals-ignore-case":".png"}}]"#, r#""a.PNG""#, true);
    check_a(r#"[{"equals-ignore-case":"alice"}]"#, r#""Alice""#, true);
    check_a(r#"[{"equals-ignore-case":"alice"}]"#, r#""Alices""#, false);
    check_a(r#"[{"wildcard":"a*c*e"}]"#, r#""abcde""#, true);
    check_a(r#"[{"wildcard":"a*c*e"}]"#, r#""abde""#, false);
    check_a(r#"[{"wildcard":"a\\*e"}]"#, r#""a*e""#, true);
    check_a(r#"[{"wildcard":"*"}]"#, "5", false);
    check_a(r#"[{"cidr":"10.0.0.0/24"}]"#, r#""10.0.0.255""#, true);
    check_a(r#"[{"cidr":"10.0.0.0/24"}]"#, r#""10.0.1.0""#, false);
    check_a(r#"[{"cidr":"2001:db8::/32"}]"#, r#""2001:db8::1""#, true);
}

#[test]
fn anything_but_asks_for_a_value_that_is_none_of_these() {
    check_a(r#"[{"anything-but":"x"}]"#, r#""y""#, true);
    check_a(r#"[{"anything-but":"x"}]"#, r#""x""#, false);
    check_a(r#"[{"anything-but":["x","y"]}]"#, r#""y""#, false);
    check_a(r#"[{"anything-but":["x","y"]}]"#, "null", true);
    check_a(r#"[{"anything-but":["x","y"]}]"#, r#"["x","z"]"#, true);
    check_a(r#"[{"anything-but":["x","y"]}]"#, r#"["x","y"]"#, false);
    check_a(r#"[{"anything-but":["x","y"]}]"#, "{}", false);
    check(r#"{"data":{"a":[{"anything-but":["x"]}]}}"#, "{}", false);
    check_a(r#"[{"anything-but":100}]"#, "1e2", false);
    check_a(r#"[{"anything-but":[100,"x"]}]"#, r#""x""#, false);
    check_a(r#"[{"anything-but":[100,"x"]}]"#, "100.5", true);
    check_a(r#"[{"anything-but":{"prefix":"in"}}]"#, r#""init""#, false);
    check_a(r#"[{"anything-but":{"prefix":["in","out"]}}]"#, r#""output""#, false);
    check_a(r#"[{"anything-but":{"prefix":["in","out"]}}]"#, r#""put""#, true);
    check_a(r#"[{"anything-but":{"prefix":{"equals-ignore-case":"IN"}}}]"#, r#""init""#, false);
    check_a(r#"[{"anything-but":{"suffix":"it"}}]"#, r#""init""#, false);
    check_a(r#"[{"anything-but":{"suffix":"it"}}]"#, "1", true);
    check_a(r#"[{"anything-but":{"equals-ignore-case":["A","B"]}}]"#, r#""b""#, false);
    check_a(r#"[{"anything-but":{"wildcard":"*/lib/*"}}]"#, r#""/usr/lib/x""#, false);
    check_a(r#"[{"anything-but":{"wildcard":"*/lib/*"}}]"#, r#""/usr/bin/x""#, true);
}

#[test]
fn exists_speaks_about_values_not_about_objects() {
    for value in ["null", "0", r#""""#, "false", "[1]", "[[null]]"] {
        check_a(r#"[{"exists":true}]"#, value, true);
        check_a(r#"[{"exists":false}]"#, value, false);
    }
    for nothing in ["{}", r#"{"b":1}"#, "[]", "[[],{}]"] {
        check_a(r#"[{"exists":true}]"#, nothing, false);
        check_a(r#"[{"exists":false}]"#, nothing, true);
    }
    let deep = r#"{"data":{"a":{"b":{"c":[{"exists":false}]}}}}"#;
    for without in ["{}", r#"{"a":1}"#, r#"{"a":{"b":null}}"#, r#"{"a":[]}"#, "[]", r#"[{"a":{"b":{"c":1}}}]"#] {
        check(deep, without, true);
    }
    check(deep, r#"{"a":{"b":{"c":null}}}"#, false);
    check(r#"{"data":{"a":["x",{"exists":false}]}}"#, "{}", true);
    check(r#"{"data":{"a":["x",{"exists":false}]}}"#, r#"{"a":"x"}"#, true);
    check(r#"{"data":{"a":["x",{"exists":false}]}}"#, r#"{"a":"y"}"#, false);
}

#[test]
fn one_element_of_an_array_has_to_meet_all_that_one_object_asks_for() {
    let pattern = r#"{"data":{"employees":{"first":["John"],"last":["Doe"]}}}"#;
    check(pattern, r#"{"employees":[{"first":"Jane","last":"Doe"},{"first":"John","last":"Roe"}]}"#, false);
    check(pattern, r#"{"employees":[{"first":"Jane","last":"Roe"},{"last":"Doe","first":"John"}]}"#, true);
    check(pattern, r#"{"employees":[[[{"first":"John","last":"Doe"}]],1]}"#, true);
    check(pattern, r#"{"employees":[{"first":["Jane","John"],"last":["Roe","Doe"]}]}"#, true);
    let nested = r#"{"data":{"a":{"b":{"c":[1]},"d":[2]}}}"#;
    check(nested, r#"{"a":[{"b":[{"c":0},{"c":1}],"d":2},{"d":0}]}"#, true);
    check(nested, r#"{"a":[{"b":[{"c":1}],"d":0},{"b":{"c":0},"d":2}]}"#, false);
    let apart = r#"{"data":{"a":{"x":[1]},"b":{"x":[2]}}}"#;
    check(apart, r#"{"a":[{"x":0},{"x":1}],"b":[{"x":2},{"x":0}]}"#, true);
}

#[test]
fn what_must_not_be_there_must_not_be_where_the_rest_was_found() {
    let pattern = r#"{"data":{"items":{"kind":["a"],"deleted":[{"exists":false}]}}}"#;
    check(pattern, r#"{"items":[{"kind":"a"},{"kind":"b","deleted":1}]}"#, true);
    check(pattern, r#"{"items":[{"kind":"a","deleted":1},{"kind":"b"}]}"#, false);
    let alone = r#"{"data":{"items":{"deleted":[{"exists":false}]}}}"#;
    check(alone, r#"{"items":[{"kind":"a"},{"deleted":1}]}"#, false);
    check(alone, r#"{"items":[{"kind":"a"},{}]}"#, true);
    check(alone, r#"{"items":[]}"#, true);
}

#[test]
fn or_asks_for_one_of_several_objects() {
    let pattern =
        r#"{"data":{"metric":["cpu"],"$or":[{"value":[{"numeric":[">",90]}]},{"level":["high"],"sure":[true]}]}}"#;
    check(pattern, r#"{"metric":"cpu","value":95}"#, true);
    check(pattern, r#"{"metric":"cpu","level":"high","sure":true}"#, true);
    check(pattern, r#"{"metric":"cpu","level":"high","sure":false}"#, false);
    check(pattern, r#"{"metric":"disk","value":95}"#, false);
    let nested = r#"{"data":{"$or":[{"a":[1]},{"b":{"$or":[{"c":[2]},{"d":[{"exists":false}],"e":[3]}]}}]}}"#;
    check(nested, r#"{"a":1}"#, true);
    check(nested, r#"{"b":{"c":2}}"#, true);
    check(nested, r#"{"b":{"e":3}}"#, true);
    check(nested, r#"{"b":{"e":3,"d":0}}"#, false);
    check(nested, "{}", false);
    let across = filter(r#"{"$or":[{"redelivered":[true]},{"data":{"a":[1]}}]}"#);
    assert!(across.accepts(br#"{"redelivered":true}"#, br#"{"a":0}"#));
    assert!(across.accepts(br#"{"redelivered":false}"#, br#"{"a":1}"#));
    assert!(!across.accepts(br#"{"redelivered":false}"#, br#"{"a":0}"#));
}

#[test]
fn of_a_member_that_is_there_twice_the_last_one_counts() {
    check(r#"{"data":{"a":[1],"a":[2]}}"#, r#"{"a":2}"#, true);
    check(r#"{"data":{"a":[1],"a":[2]}}"#, r#"{"a":1}"#, false);
    check(r#"{"data":{"a":[1]}}"#, r#"{"a":1,"a":2}"#, false);
    check(r#"{"data":{"a":[1]}}"#, r#"{"a":2,"a":1}"#, true);
    check(r#"{"data":{"a":{"b":[1]}}}"#, r#"{"a":{"b":1},"a":{}}"#, false);
}

#[test]
fn a_wrong_pattern_is_refused_with_place_and_reason() {
    check_refused("", ": is not JSON (see byte 1)");
    check_refused("[]", ": must be an object, is a list");
    check_refused("{}", ": is an empty object, which asks for nothing");
    check_refused(r#"{"data":"x"}"#, r#"data: must be a list such as ["x"], or an object, is a text"#);
    check_refused(r#"{"data":{"a":{}}}"#, "data.a: is an empty object, which asks for nothing");
    check_refused(r#"{"data":{"a":[]}}"#, "data.a: is an empty list, which no value meets");
    check_refused(r#"{"data":{"a b":1}}"#, r#"data."a b": must be a list such as [1], or an object, is a number"#);
    check_refused(r#"{"data":[["x"]]}"#, "data[0]: must be a value or an operator, is a list");
    check_refused(r#"{"data":[{}]}"#, "data[0]: must be an object with one operator, has 0 members");
    check_refused(r#"{"data":[1,{"exists":1}]}"#, "data[1].exists: must be true or false, is a number");
    check_refused(r#"{"data":[{"prefix":5}]}"#, "data[0].prefix: must be a text, is a number");
    check_refused(r#"{"data":[{"cidr":"10.0.0.0/40"}]}"#, "data[0].cidr: has more bits than an address");
    check_refused(r#"{"data":[{"wildcard":"a**"}]}"#, "data[0].wildcard: has two asterisks in a row");
    check_refused(
        r#"{"data":[{"suffix":{"prefix":"x"}}]}"#,
        "data[0].suffix.prefix: is no operator here; only equals-ignore-case is",
    );
    check_refused(
        r#"{"data":[{"anything-but":[]}]}"#,
        "data[0].anything-but: is an empty list, which excludes nothing",
    );
    check_refused(
        r#"{"data":[{"anything-but":["x",null]}]}"#,
        "data[0].anything-but[1]: must be a text or a number, is null",
    );
    check_refused(r#"{"$or":[{"a":[1]}]}"#, "$or: must have at least 2 alternatives, has 1");
    check_refused(r#"{"$or":[{"a":[1]},["x"]]}"#, "$or[1]: must be an object, is a list");
    check_refused(
        r#"{"a":[{"begins":"x"}]}"#,
        "a[0].begins: is no operator here; anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix and wildcard are the operators",
    );
}

#[test]
fn a_wrong_comparison_of_numbers_is_refused_with_place_and_reason() {
    let check = |numeric: &str, expected: &str| {
        check_refused(&format!(r#"{{"a":[{{"numeric":{numeric}}}]}}"#), &format!("a[0].numeric{expected}"));
    };
    check("5", ": must be a list, is a number");
    check("[]", r#": must be a comparison or two, such as ["=", 5] or [">", 0, "<=", 5]"#);
    check(r#"[">"]"#, r#": must be a comparison or two, such as ["=", 5] or [">", 0, "<=", 5]"#);
    check("[1,2]", "[0]: must be one of =, <, <=, > and >=, is a number");
    check(r#"["!=",2]"#, r#"[0]: must be one of =, <, <=, > and >=, is "!=""#);
    check(r#"[">",1,"<","2"]"#, "[3]: must be a number, is a text");
    check(r#"[">",1,"=",2]"#, "[2]: = must stand alone");
    check(r#"["<",5,">",1]"#, ": must have > or >= first, then < or <=");
    check(r#"[">=",5,"<=",5]"#, ": must have a lower bound below the upper one");
}

#[test]
fn every_problem_is_reported() {
    let errors =
        parse(&[r#"{"a":[1]}"#, r#"{"a":[{"x":1}],"b":[],"$or":[{"c":1},{"d":[{"prefix":0}]}]}"#, "x"]).unwrap_err();
    let places: Vec<_> = errors.0.iter().map(|problem| (problem.filter, problem.path.as_str())).collect();
    assert_eq!(places, [(1, "a[0].x"), (1, "b"), (1, "$or[0].c"), (1, "$or[1].d[0].prefix"), (2, "")]);
    assert!(errors.to_string().starts_with("invalid filter pattern definition: filter 1: a[0].x is no operator"));
}

#[test]
fn ten_filters_of_4096_characters_are_possible_and_no_more() {
    let long = |length: usize| {
        let frame = r#"{"data":[""]}"#.len();
        format!(r#"{{"data":["{}"]}}"#, "é".repeat(length - frame))
    };
    let pattern = long(4_096);
    let filter = parse(&[pattern.as_str(); 10]).unwrap();
    assert_eq!(filter.patterns().len(), 10);
    let errors = parse(&[pattern.as_str(); 11]).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert_eq!(errors.0[0].to_string(), "filter 10: is one too many: a mapping can have 10 filters");
    check_refused(&long(4_097), ": has 4097 characters, and may have 4096");
}

#[test]
fn patterns_with_many_clauses_work_as_those_with_few() {
    let members: Vec<_> = (0..300).map(|index| format!(r#""k{index}":[1]"#)).collect();
    let body: Vec<_> = (0..300).map(|index| format!(r#""k{index}":1"#)).collect();
    let body = format!("{{{}}}", body.join(","));
    check(&format!(r#"{{"data":{{{}}}}}"#, members.join(",")), &body, true);
    check(&format!(r#"{{"data":{{{}}}}}"#, members.join(",")), body.replace(r#""k250":1"#, r#""k250":2"#), false);
}

#[test]
fn hostile_bodies_are_judged_in_one_pass() {
    let deep_array = format!(r#"{{"a":{}1{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
    check(r#"{"data":{"a":[1]}}"#, &deep_array, true);
    check(r#"{"data":{"a":[2]}}"#, &deep_array, false);
    check(r#"{"data":{"b":[{"exists":false}]}}"#, &deep_array, true);
    // No JSON, so it is no business of a pattern for JSON.
    check(r#"{"data":{"a":[2]}}"#, &deep_array[..deep_array.len() - 2], true);
    // Naively, all pairs of elements would have to be tried, or all triples.
    let elements: Vec<_> = (0..60_000).map(|index| format!(r#"{{"{}":1}}"#, ["x", "y", "z"][index % 3])).collect();
    let pairs = format!(r#"{{"a":[{}]}}"#, elements.join(","));
    check(r#"{"data":{"a":{"x":[1],"y":[1],"z":[1]}}}"#, pairs, false);
}

#[test]
fn a_deep_pattern_is_refused_before_it_costs_anything() {
    let pattern = format!("{}[1]{}", r#"{"a":"#.repeat(600), "}".repeat(600));
    check_refused(&pattern, ": is nested deeper than 100 levels");
    let pattern = format!("{}[1]{}", r#"{"a":"#.repeat(99), "}".repeat(99));
    let body = pattern.replace("[1]", "1");
    assert!(filter(&pattern).accepts(body.as_bytes(), b""));
}

#[test]
fn an_explanation_names_every_clause_and_what_came_of_it() {
    let filter = parse(&[
        r#"{"data":{"kind":["order"],"total":[{"numeric":[">",10]}],"test":[{"exists":false}]},"appId":["x"]}"#,
        r#"{"data":["plain"]}"#,
    ])
    .unwrap();
    let explanation = filter.explain(b"{}", br#"{"kind":"order","total":5}"#);
    let verdicts: Vec<_> = explanation.filters[0].clauses.iter().map(|clause| clause.verdict).collect();
    assert_eq!(verdicts, [Verdict::Met, Verdict::NotMet, Verdict::MetByAbsence, Verdict::Missing]);
    assert_eq!(
        explanation.to_string(),
        r#"accepted: the body is JSON
filter 0 refuses
  data.kind ["order"]: met
  data.total [{"numeric":[">",10]}]: not met by any value there
  data.test [{"exists":false}]: met, there is no value
  appId ["x"]: not met, there is no value
filter 1 accepts
  data ["plain"]: has no say, it speaks about bodies of another format
"#
    );
}

#[test]
fn an_explanation_tells_when_no_single_element_meets_everything() {
    let filter = filter(r#"{"data":{"a":{"x":[1],"y":[1]}}}"#);
    let explanation = filter.explain(b"{}", br#"{"a":[{"x":1},{"y":1}]}"#);
    assert!(!explanation.accepts());
    assert!(explanation.to_string().ends_with("not all in the same element of an array\n"));
}
