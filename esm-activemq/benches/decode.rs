//! Decoding alone: a dispatch with a bytes message of 1 KiB, in every encoding that can be agreed on without a
//! cache, and the reading of its body.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, criterion_group, criterion_main};
use esm_activemq::openwire::{
    Command, ConsumerId, Decoder, Destination, Encoder, Message, MessageDispatch, MessageId, Primitive, ProducerId,
    WireFormat, encode_properties,
};

const TIGHT: WireFormat = WireFormat { tight: true, ..WireFormat::LOOSE };

/// What a broker sends for a typical message, with everything set that a producer usually sets.
fn typical_dispatch(format: WireFormat) -> Bytes {
    let producer_id = Some(ProducerId::new("ID:host-43005-1795376260623-1:1", 1, 1));
    let destination = Some(Destination::Queue("orders".into()));
    let properties =
        encode_properties([("tenant", Primitive::String("pizza-42".into())), ("urgent", Primitive::Int(1))]);
    let message = Message {
        producer_id: producer_id.clone(),
        destination: destination.clone(),
        message_id: Some(MessageId { producer_id, producer_sequence_id: 7, ..MessageId::default() }),
        correlation_id: Some("order-4711".into()),
        message_type: Some("order".into()),
        user_id: Some("admin".into()),
        marshalled_properties: properties.ok(),
        persistent: true,
        timestamp: 1_795_376_260_623,
        broker_in_time: 1_795_376_260_625,
        broker_out_time: 1_795_376_260_627,
        ..Message::with_bytes(vec![b'x'; 1024].into())
    };
    let dispatch = MessageDispatch {
        consumer_id: Some(ConsumerId::new("ID:host-38125-1795376261330-1:1", 1, 1)),
        destination,
        message: Some(message),
        ..MessageDispatch::default()
    };
    let mut out = BytesMut::new();
    Encoder::new(format).encode(&dispatch.into(), &mut out).expect("a dispatch that fits");
    out.freeze().slice(size_of::<i32>()..)
}

fn decode(criterion: &mut Criterion) {
    for (name, format) in [("loose", WireFormat::LOOSE), ("tight", TIGHT)] {
        let frame = typical_dispatch(format);
        let mut decoder = Decoder::new(format);
        criterion.bench_function(&format!("decode 1 KiB of bytes, {name}"), |bench| {
            bench.iter(|| decoder.decode(black_box(frame.clone())));
        });
        let Ok(Command::MessageDispatch(dispatch)) = decoder.decode(frame) else { panic!("no dispatch") };
        let mut encoder = Encoder::new(format);
        let mut out = BytesMut::with_capacity(2048);
        let command = Command::MessageDispatch(dispatch);
        criterion.bench_function(&format!("encode 1 KiB of bytes, {name}"), |bench| {
            bench.iter(|| {
                out.clear();
                encoder.encode(black_box(&command), &mut out)
            });
        });
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
