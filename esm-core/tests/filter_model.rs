//! The one pass over a body against two other ways to the same answer: a simple one with trees,
//! which tries every choice of values, and the crate `quamina` where it knows the operators.

use std::collections::BTreeMap;

use esm_core::filter::FilterCriteria;
use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, any, prop_oneof},
    prop_assert_eq, prop_assume, proptest,
    sample::select,
    test_runner::TestCaseError,
};
use quamina::Quamina;
use serde_json::{Map, Value, json};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_pass_says_what_trying_every_choice_says(pattern in pattern(true), body in body(), style in style()) {
        let filter = FilterCriteria::parse(&[json!({ "data": pattern }).to_string()]).expect("a pattern");
        let text = style.write(&body);
        let expected = model::accepts(&pattern, &body);
        prop_assert_eq!(filter.accepts(b"{}", text.as_bytes()), expected, "{} {}", pattern, text);
        prop_assert_eq!(filter.explain(b"{}", text.as_bytes()).accepts(), expected, "{} {}", pattern, text);
        let metadata = FilterCriteria::parse(&[pattern.to_string()]).expect("a pattern");
        prop_assert_eq!(metadata.accepts(text.as_bytes(), b""), expected, "{} {}", pattern, text);
    }

    #[test]
    fn one_pass_says_what_quamina_says(pattern in pattern(false), body in body()) {
        let mut quamina = Quamina::new();
        prop_assume!(quamina.add_pattern((), &pattern.to_string()).is_ok());
        prop_assume!(!repeats_a_name_within_an_array(None, &body));
        let body = body.to_string();
        let expected = quamina.has_matches(body.as_bytes()).expect("an event");
        let filter = FilterCriteria::parse(&[json!({ "data": pattern }).to_string()]).expect("a pattern");
        prop_assert_eq!(filter.accepts(b"{}", body.as_bytes()), expected, "{} {}", pattern, body);
    }

    #[test]
    fn comparisons_of_numbers_say_what_quamina_says(asked in vec(numeric(), 1..3), number in number()) {
        check_value(&json!(asked), &number)?;
    }

    #[test]
    fn exclusions_say_what_quamina_says(others in vec(text(), 1..3), values in vec(text(), 1..4)) {
        check_value(&json!([{ "anything-but": others }]), &json!(values))?;
    }

    #[test]
    fn broken_bodies_are_no_business_of_a_pattern_for_json(body in body(), cut in any::<proptest::sample::Index>()) {
        let text = body.to_string();
        let broken = &text.as_bytes()[..cut.index(text.len())];
        let filter = FilterCriteria::parse(&[r#"{"data":{"none":["such"]}}"#.into()]).expect("a pattern");
        prop_assert_eq!(filter.accepts(b"{}", broken), true, "{}", text);
        prop_assert_eq!(filter.accepts(b"{}", text.as_bytes()), false, "{}", text);
    }

    #[test]
    fn no_pattern_and_no_body_can_do_harm(pattern in ".{0,40}", body in vec(any::<u8>(), 0..60)) {
        if let Ok(filter) = FilterCriteria::parse(&[pattern]) {
            filter.accepts(&body, &body);
        }
        let filter = FilterCriteria::parse(&[r#"{"a":["x"],"data":{"a":{"b":[1]}}}"#.into()]).expect("a pattern");
        filter.accepts(&body, &body);
    }
}

/// Whether an object in an array has a member of the array's own name. To quamina, `{"a":["x"]}` accepts
/// `{"a":[{"a":"x"}]}`, where it does not accept `{"a":{"a":"x"}}`.
fn repeats_a_name_within_an_array(array: Option<&str>, body: &Value) -> bool {
    match body {
        Value::Object(members) => members.iter().any(|(name, value)| {
            array == Some(name.as_str())
                || repeats_a_name_within_an_array(value.is_array().then_some(name.as_str()), value)
        }),
        Value::Array(elements) => elements.iter().any(|element| repeats_a_name_within_an_array(array, element)),
        _ => false,
    }
}

/// Compares with quamina what a list of operators says about the value of a member.
fn check_value(asked: &Value, value: &Value) -> Result<(), TestCaseError> {
    let pattern = json!({ "a": asked });
    let mut quamina = Quamina::new();
    quamina.add_pattern((), &pattern.to_string()).expect("a pattern");
    let body = json!({ "a": value }).to_string();
    let expected = quamina.has_matches(body.as_bytes()).expect("an event");
    let filter = FilterCriteria::parse(&[json!({ "data": pattern }).to_string()]).expect("a pattern");
    prop_assert_eq!(filter.accepts(b"{}", body.as_bytes()), expected, "{} {}", pattern, body);
    Ok(())
}

/// How a body is written.
#[derive(Clone, Copy, Debug)]
enum Style {
    Compact,
    Pretty,
    /// Every letter as an escape.
    Escaped,
}

fn style() -> impl Strategy<Value = Style> {
    select(vec![Style::Compact, Style::Pretty, Style::Escaped])
}

impl Style {
    fn write(self, value: &Value) -> String {
        match self {
            Self::Compact => value.to_string(),
            Self::Pretty => serde_json::to_string_pretty(value).expect("is written"),
            Self::Escaped => match value {
                Value::String(text) => escaped(text),
                Value::Array(elements) => {
                    format!("[{}]", elements.iter().map(|value| self.write(value)).collect::<Vec<_>>().join(" , "))
                }
                Value::Object(members) => {
                    let member = |(name, value): (&String, &Value)| format!("{}: {}", escaped(name), self.write(value));
                    format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
                }
                other => other.to_string(),
            },
        }
    }
}

fn escaped(text: &str) -> String {
    let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{}\"", units.concat())
}

/// Few enough texts, names and numbers that they often meet.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec!["", "a", "b", "ab", "ba", "aab", "A", "Ab", "null", "é", "a\"b", "a\\b", "😀", "10.0.0.1"])
            .prop_map(String::from),
        1 => "[ab]{0,6}",
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(vec![json!(0), json!(1), json!(2), json!(-1), json!(100), json!(1.5), json!(2.0), json!(1e2)]),
        (-3_i32..4).prop_map(|number| json!(number)),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![4 => text().prop_map(Value::from), 3 => number(), 1 => any::<bool>().prop_map(Value::from), 1 => Just(Value::Null)]
}

fn name(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(names).prop_map(String::from)
}

/// The names outside and inside of `$or` differ: a name that is asked for in both is looked for twice, and each
/// time in whatever element has it.
const OUTSIDE: &[&str] = &["a", "b", "c"];
const INSIDE: &[&str] = &["d", "e"];
const ALL: &[&str] = &["a", "b", "c", "d", "e"];

fn object(entries: impl Strategy<Value = Vec<(String, Value)>>) -> impl Strategy<Value = Value> {
    entries.prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

fn body() -> impl Strategy<Value = Value> {
    let value = scalar().prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            2 => object(vec((name(ALL), inner.clone()), 0..4)),
            2 => vec(inner, 0..4).prop_map(Value::Array),
        ]
    });
    object(vec((name(ALL), value), 0..5))
}

fn pattern(everything: bool) -> impl Strategy<Value = Value> {
    members(leaf(everything).boxed(), everything).prop_recursive(3, 12, 3, move |inner| {
        let value = prop_oneof![leaf(everything), inner];
        members(value.boxed(), everything)
    })
}

fn members(value: proptest::strategy::BoxedStrategy<Value>, everything: bool) -> impl Strategy<Value = Value> {
    let plain = vec((name(OUTSIDE), value.clone()), 1..4);
    let or = if everything {
        let alternative = object(vec((name(INSIDE), value), 1..3));
        prop_oneof![2 => Just(Vec::new()), 1 => vec(alternative, 2..4)].boxed()
    } else {
        Just(Vec::new()).boxed()
    };
    (plain, or).prop_map(|(plain, or)| {
        let mut members: Map<String, Value> = plain.into_iter().collect();
        if !or.is_empty() {
            members.insert("$or".into(), or.into());
        }
        Value::Object(members)
    })
}

fn leaf(everything: bool) -> impl Strategy<Value = Value> {
    if everything {
        vec(operator(), 1..3).prop_map(Value::Array).boxed()
    } else {
        // To quamina, an array of objects has a value, absence is bound to no element, and some texts are less than
        // a number: so no `exists`, `anything-but` or `numeric`.
        vec(text_operator(), 1..3).prop_map(Value::Array).boxed()
    }
}

fn text_operator() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => scalar(),
        1 => text().prop_map(|text| json!({ "prefix": text })),
        1 => text().prop_map(|text| json!({ "suffix": text })),
        1 => text().prop_map(|text| json!({ "equals-ignore-case": text })),
        1 => wildcard().prop_map(|text| json!({ "wildcard": text })),
        1 => (8..32_u8).prop_map(|bits| json!({ "cidr": format!("10.0.0.0/{bits}") })),
    ]
}

fn numeric() -> impl Strategy<Value = Value> {
    prop_oneof![
        (select(vec!["<", "<=", "=", ">", ">="]), number()).prop_map(|(sign, n)| json!({ "numeric": [sign, n] })),
        (-3..2_i32, 1..4_i32).prop_map(|(low, more)| json!({ "numeric": [">=", low, "<", low + more] })),
    ]
}

fn operator() -> impl Strategy<Value = Value> {
    let nested = || prop_oneof![Just("prefix"), Just("suffix"), Just("equals-ignore-case")];
    prop_oneof![
        6 => text_operator(),
        2 => numeric(),
        1 => any::<bool>().prop_map(|wanted| json!({ "exists": wanted })),
        1 => (select(vec!["prefix", "suffix"]), text())
            .prop_map(|(name, text)| json!({ name: { "equals-ignore-case": text } })),
        1 => vec(prop_oneof![text().prop_map(Value::from), number()], 1..4).prop_map(|others| json!({ "anything-but": others })),
        1 => (nested(), vec(text(), 1..3)).prop_map(|(name, texts)| json!({ "anything-but": { name: texts } })),
        1 => wildcard().prop_map(|text| json!({ "anything-but": { "wildcard": text } })),
    ]
}

fn wildcard() -> impl Strategy<Value = String> {
    "[ab]{0,2}(\\*[ab]{1,2}){0,2}\\*?"
}

/// A body is the list of its values, each with its path and the elements of arrays that lead to it. A pattern
/// accepts if a value can be chosen for each of its lists so that no two need different elements of one array, and
/// there is none where none may be.
mod model {
    use super::{BTreeMap, Map, Value};

    type Path = Vec<String>;
    /// Which element of which array, by the number of the array.
    type Elements = BTreeMap<usize, usize>;

    struct Field<'v> {
        path: Path,
        value: &'v Value,
        elements: Elements,
    }

    pub(super) fn accepts(pattern: &Value, body: &Value) -> bool {
        let (mut fields, mut arrays) = (Vec::new(), 0);
        flatten(body, &Vec::new(), &Elements::new(), &mut arrays, &mut fields);
        alternatives(pattern.as_object().expect("an object"), &Vec::new())
            .iter()
            .any(|lists| choose(lists, &fields, &Elements::new(), &mut Vec::new()))
    }

    fn flatten<'v>(value: &'v Value, path: &Path, elements: &Elements, arrays: &mut usize, to: &mut Vec<Field<'v>>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let mut path = path.clone();
                    path.push(name.clone());
                    flatten(value, &path, elements, arrays, to);
                }
            }
            Value::Array(values) => {
                *arrays += 1;
                let array = *arrays;
                for (index, value) in values.iter().enumerate() {
                    let mut elements = elements.clone();
                    elements.insert(array, index);
                    flatten(value, path, &elements, arrays, to);
                }
            }
            value => to.push(Field { path: path.clone(), value, elements: elements.clone() }),
        }
    }

    /// The pattern without `$or`: every combination of what its objects can ask for.
    fn alternatives<'p>(pattern: &'p Map<String, Value>, path: &Path) -> Vec<Vec<(Path, &'p [Value])>> {
        let mut all = vec![Vec::new()];
        for (name, value) in pattern {
            let mut path = path.clone();
            let here = if name == "$or" {
                let list = value.as_array().expect("a list");
                list.iter().flat_map(|one| alternatives(one.as_object().expect("an object"), &path)).collect()
            } else {
                path.push(name.clone());
                match value {
                    Value::Object(members) => alternatives(members, &path),
                    list => vec![vec![(path, list.as_array().expect("a list").as_slice())]],
                }
            };
            all = all.iter().flat_map(|before| here.iter().map(|more| [before.as_slice(), more].concat())).collect();
        }
        all
    }

    fn choose(lists: &[(Path, &[Value])], fields: &[Field<'_>], elements: &Elements, absent: &mut Vec<Path>) -> bool {
        let Some(((path, operators), rest)) = lists.split_first() else {
            return !fields
                .iter()
                .any(|field| absent.contains(&field.path) && joined(elements, &field.elements).is_some());
        };
        let here = fields.iter().filter(|field| field.path == *path);
        let found = here.filter(|field| operators.iter().any(|operator| is_met(operator, field.value))).any(|field| {
            joined(elements, &field.elements).is_some_and(|elements| choose(rest, fields, &elements, absent))
        });
        if found {
            return true;
        }
        if !operators.iter().any(|operator| operator.get("exists") == Some(&Value::Bool(false))) {
            return false;
        }
        absent.push(path.clone());
        let found = choose(rest, fields, elements, absent);
        absent.pop();
        found
    }

    fn joined(one: &Elements, other: &Elements) -> Option<Elements> {
        let agree = one.iter().all(|(array, index)| other.get(array).is_none_or(|other| other == index));
        agree.then(|| one.iter().chain(other).map(|(array, index)| (*array, *index)).collect())
    }

    fn is_met(operator: &Value, value: &Value) -> bool {
        let Value::Object(operator) = operator else {
            return match (operator.as_f64(), value.as_f64()) {
                (Some(wanted), Some(number)) => wanted.partial_cmp(&number).is_some_and(std::cmp::Ordering::is_eq),
                _ => operator == value,
            };
        };
        let (name, argument) = operator.iter().next().expect("an operator");
        match (name.as_str(), argument, value) {
            ("exists", argument, _) => argument == true,
            ("anything-but", Value::Object(inner), _) => {
                let (name, texts) = inner.iter().next().expect("an operator");
                let texts = texts.as_array().map_or_else(|| vec![texts.clone()], Clone::clone);
                !texts.into_iter().any(|text| is_met(&[(name.clone(), text)].into_iter().collect(), value))
            }
            ("anything-but", others, _) => !others.as_array().expect("a list").iter().any(|other| is_met(other, value)),
            ("numeric", Value::Array(bounds), Value::Number(number)) => {
                let number = number.as_f64().expect("a number");
                bounds.chunks(2).all(|bound| {
                    let limit = bound[1].as_f64().expect("a number");
                    let order = number.partial_cmp(&limit).expect("two numbers");
                    match bound[0].as_str().expect("a sign") {
                        "<" => order.is_lt(),
                        "<=" => order.is_le(),
                        ">" => order.is_gt(),
                        ">=" => order.is_ge(),
                        _ => order.is_eq(),
                    }
                })
            }
            (name, Value::String(wanted), Value::String(text)) => match name {
                "prefix" => text.starts_with(wanted),
                "suffix" => text.ends_with(wanted),
                "equals-ignore-case" => lower(text) == lower(wanted),
                "wildcard" => is_like(wanted.as_bytes(), text.as_bytes()),
                // Only one text looks like an address, and it is in every network that is asked for.
                _ => text == "10.0.0.1",
            },
            (name, Value::Object(inner), Value::String(text)) => {
                let wanted = lower(inner["equals-ignore-case"].as_str().expect("a text"));
                if name == "prefix" { lower(text).starts_with(&wanted) } else { lower(text).ends_with(&wanted) }
            }
            _ => false,
        }
    }

    fn lower(text: &str) -> String {
        text.to_lowercase()
    }

    fn is_like(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], text) => (0..=text.len()).any(|taken| is_like(rest, &text[taken..])),
            ([wanted, rest @ ..], [byte, text @ ..]) => wanted == byte && is_like(rest, text),
            _ => false,
        }
    }
}
