//! Filtering alone: three fields of a JSON body, in a large and in a small one.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use esm_core::filter::FilterCriteria;

const PATTERN: &str =
    r#"{"data":{"kind":["order"],"customer":{"tier":["gold","silver"]},"total":[{"numeric":[">",10,"<=",500]}]}}"#;

const SMALL: &str = r#"{"kind":"order","id":"o-4711","customer":{"tier":"gold","name":"Ada"},"total":149,"n":3}"#;

/// 1 KiB of what orders hold.
fn large() -> String {
    let item = |index: usize| {
        format!(r#"{{"sku":"p-{index:04}","name":"Quattro formaggi, {index} cm","count":{index},"price":{index}.50}}"#)
    };
    let items: Vec<_> = (10..21).map(item).collect();
    let mut body = format!(
        r#"{{"id":"o-4711","kind":"order","placed":"2026-01-31T12:00:00Z","paid":true,"note":null,"items":[{}],"customer":{{"id":42,"tier":"gold","name":"Ada"}},"total":149.90,"text":""#,
        items.join(",")
    );
    while body.len() < 1_022 {
        body.push('x');
    }
    body.truncate(1_022);
    body + "\"}"
}

fn filter(criterion: &mut Criterion) {
    let filter = FilterCriteria::parse(&[PATTERN.into()]).expect("a pattern");
    let large = large();
    for (name, body) in [("three fields of 1 KiB", large.as_str()), ("three fields of 88 bytes", SMALL)] {
        assert!(filter.accepts(b"{}", body.as_bytes()), "{body}");
        assert!(!filter.accepts(b"{}", body.replace("gold", "iron").as_bytes()), "{body}");
        criterion.bench_function(name, |bench| bench.iter(|| filter.accepts(b"{}", black_box(body.as_bytes()))));
    }
}

criterion_group!(benches, filter);
criterion_main!(benches);
