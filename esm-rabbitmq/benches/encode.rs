//! Encoding alone: a 1 KiB message with four headers becomes its record.

use criterion::{Criterion, criterion_group, criterion_main};
use esm_rabbitmq::{HeaderBytes, RecordEncoder};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};

fn typical_message() -> Delivery {
    let mut headers = FieldTable::default();
    headers.insert("kind".into(), AMQPValue::LongString("order".into()));
    headers.insert("tenant".into(), AMQPValue::LongString("pizza-42".into()));
    headers.insert("attempt".into(), AMQPValue::LongInt(1));
    headers.insert("urgent".into(), AMQPValue::Boolean(false));
    let mut message = Delivery::mock(1, "".into(), "".into(), false, vec![b'x'; 1024]);
    message.properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    message
}

fn encode(criterion: &mut Criterion) {
    let message = typical_message();
    let mut encoder = RecordEncoder::new(HeaderBytes::Signed, false);
    criterion.bench_function("encode 1 KiB with four headers", |bench| bench.iter(|| encoder.record(&message)));
}

criterion_group!(benches, encode);
criterion_main!(benches);
