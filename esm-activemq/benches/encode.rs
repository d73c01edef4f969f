//! Encoding alone: a 1 KiB message with four properties becomes its record.

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use esm_activemq::{
    EventProfile, RecordEncoder,
    openwire::{Destination, Message, MessageDispatch, MessageId, Primitive, ProducerId, encode_properties},
};

fn typical(message: Message) -> MessageDispatch {
    let properties = [
        ("kind", Primitive::String("order".into())),
        ("tenant", Primitive::String("pizza-42".into())),
        ("attempt", Primitive::Int(1)),
        ("urgent", Primitive::Boolean(false)),
    ];
    let destination = Some(Destination::Queue("pizzaQueue".into()));
    let message = Message {
        message_id: Some(MessageId {
            producer_id: Some(ProducerId::new("ID:broker-1.example.com-37557-1234520418293-4:1", 1, 1)),
            producer_sequence_id: 1_234,
            ..MessageId::default()
        }),
        persistent: true,
        priority: 4,
        timestamp: 1_598_827_811_958,
        broker_in_time: 1_598_827_811_958,
        broker_out_time: 1_598_827_811_959,
        marshalled_properties: Some(encode_properties(properties).expect("fits")),
        destination: destination.clone(),
        ..message
    };
    MessageDispatch { destination, message: Some(message), ..MessageDispatch::default() }
}

fn encode(criterion: &mut Criterion) {
    let bytes = typical(Message::with_bytes(Bytes::from(vec![b'x'; 1024])));
    let text = typical(Message::with_text(&"x".repeat(1024)));
    for (name, profile) in [("documented", EventProfile::Documented), ("wire", EventProfile::Wire)] {
        let mut encoder = RecordEncoder::new(profile);
        for (body, dispatch) in [("bytes", &bytes), ("text", &text)] {
            let name = format!("encode 1 KiB of {body} with four properties, {name}");
            criterion.bench_function(&name, |bench| bench.iter(|| encoder.record(dispatch)));
        }
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
