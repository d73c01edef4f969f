import java.util.Collections;
import java.util.List;
import java.util.Map;
import javax.jms.BytesMessage;
import javax.jms.DeliveryMode;
import javax.jms.JMSException;
import javax.jms.MapMessage;
import javax.jms.Message;
import javax.jms.MessageProducer;
import javax.jms.Session;
import javax.jms.StreamMessage;

/**
 * {@code catalogue}: one message of each kind that there is, so that somebody else's reading of them can be compared
 * with Java's. The answer describes them as they lie in the queue, in their order.
 */
final class Catalogue {
    private static final String UNICODE = "A\u0000\u00e9\u20ac\ud83d\ude00z";
    private static final String HALF_A_PAIR = "a\ud83db\ude00c";

    private final Session session;
    private final MessageProducer producer;

    private Catalogue(Session session, MessageProducer producer) {
        this.session = session;
        this.producer = producer;
    }

    static String send(Request request) throws JMSException {
        try (Broker broker = new Broker(request)) {
            Session session = broker.connection.createSession(true, Session.SESSION_TRANSACTED);
            MessageProducer producer = session.createProducer(session.createQueue(request.text("queue")));
            Catalogue catalogue = new Catalogue(session, producer);
            catalogue.sendBodies();
            catalogue.sendHeaders();
            catalogue.sendProperties();
            broker.connection.setUseCompression(true);
            catalogue.sendBodies();
            session.commit();
        }
        return Reading.browse(request);
    }

    private void sendBodies() throws JMSException {
        String lines = "{\"line\":\"again and again\"}\n";
        for (String text : List.of("plain", "", UNICODE, HALF_A_PAIR, String.join("", Collections.nCopies(4000, lines)))) {
            producer.send(session.createTextMessage(text));
        }
        producer.send(session.createTextMessage());
        for (int length : new int[] {0, 1, 5, 1024, 100_000}) {
            BytesMessage bytes = session.createBytesMessage();
            for (int place = 0; place < length; place++) {
                bytes.writeByte((byte) place);
            }
            producer.send(bytes);
        }
        MapMessage map = session.createMapMessage();
        map.setInt("number", 7);
        map.setBytes("bytes", new byte[] {0, -1});
        producer.send(map);
        StreamMessage stream = session.createStreamMessage();
        stream.writeString("text");
        stream.writeDouble(2.5);
        producer.send(stream);
        producer.send(session.createObjectMessage("an object"));
        producer.send(session.createMessage());
    }

    private void sendHeaders() throws JMSException {
        Message message = session.createTextMessage("every header");
        message.setJMSCorrelationID("correlation \u00e9");
        message.setJMSReplyTo(session.createQueue("replies.\u00e9"));
        message.setJMSType("order.placed");
        message.setStringProperty("JMSXGroupID", "group \u20ac");
        message.setIntProperty("JMSXGroupSeq", 3);
        producer.send(message);
        Message topic = session.createTextMessage("a reply to a topic");
        topic.setJMSReplyTo(session.createTopic("news"));
        producer.send(topic);
        Message empty = session.createTextMessage("empty headers");
        empty.setJMSCorrelationID("");
        empty.setJMSType("");
        producer.send(empty);
        for (int priority = 0; priority <= 9; priority++) {
            producer.send(session.createTextMessage("priority"), DeliveryMode.PERSISTENT, priority, 0);
        }
        producer.send(session.createTextMessage("not persistent"), DeliveryMode.NON_PERSISTENT, 4, 0);
        producer.send(session.createTextMessage("an hour to live"), DeliveryMode.PERSISTENT, 4, 3_600_000);
        producer.setDisableMessageTimestamp(true);
        producer.send(session.createTextMessage("no time stamp"));
        producer.setDisableMessageTimestamp(false);
    }

    private void sendProperties() throws JMSException {
        Object[] values = {
            true, false, Byte.MIN_VALUE, Byte.MAX_VALUE, Short.MIN_VALUE, Short.MAX_VALUE,
            Integer.MIN_VALUE, Integer.MAX_VALUE, Long.MIN_VALUE, Long.MAX_VALUE, 'c', '\u20ac',
            1.5f, 1.0e10f, 1.0e-5f, -0.0f, Float.MIN_VALUE, Float.MAX_VALUE, Float.NaN, Float.POSITIVE_INFINITY,
            2.5, 1.0e7, 9_999_999.0, 1.0e-3, 9.99e-4, 2.0e-3, 1.0e21, 0.1 + 0.2, -0.0, Double.MIN_VALUE,
            Double.MAX_VALUE, Double.NaN, Double.NEGATIVE_INFINITY,
            "", "text", UNICODE, HALF_A_PAIR, String.join("", Collections.nCopies(9000, "big ")), null,
            List.of("one", 2, List.of(true)), Map.of("key", "value"), Map.of("inner", Map.of("list", List.of(1L, 2L))),
        };
        for (Object value : values) {
            Message message = session.createTextMessage("a property");
            message.setObjectProperty("value", value);
            producer.send(message);
        }
        Message many = session.createTextMessage("many properties");
        for (int place = 0; place < values.length; place++) {
            many.setObjectProperty("value_" + place, values[place]);
        }
        many.setStringProperty("n\u00e4me", "a name with an umlaut");
        producer.send(many);
    }
}
