import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
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
 * {@code produce}: messages that are alike, into one queue.
 *
 * <p>{@code type} is text, bytes, map, object, stream, plain (no body at all) or null (a text message without text).
 * {@code body} is what it holds; {@code {n}} in it, and in {@code group} and {@code correlation}, becomes the
 * message's number, from 0 on. {@code size} fills the body up to that many bytes. {@code groups} repeats the numbers
 * of groups after so many. {@code property.NAME} is {@code TYPE:VALUE}. The answer lists the ids, or is the number of
 * messages if {@code brief} is true.
 */
final class Producing {
    /** A commit writes to the disk once for all of these. */
    private static final int MESSAGES_PER_COMMIT = 1000;

    private Producing() {}

    static String produce(Request request) throws JMSException {
        long count = request.number("count", 1);
        boolean brief = request.flag("brief");
        List<String> ids = new ArrayList<>();
        try (Broker broker = new Broker(request)) {
            Session session = broker.connection.createSession(true, Session.SESSION_TRANSACTED);
            MessageProducer producer = session.createProducer(session.createQueue(request.text("queue")));
            boolean persistent = !request.text("persistent", "true").equals("false");
            producer.setDeliveryMode(persistent ? DeliveryMode.PERSISTENT : DeliveryMode.NON_PERSISTENT);
            producer.setPriority((int) request.number("priority", Message.DEFAULT_PRIORITY));
            producer.setTimeToLive(request.number("ttl", Message.DEFAULT_TIME_TO_LIVE));
            for (long number = 0; number < count; number++) {
                Message message = message(session, request, number);
                producer.send(message);
                if (!brief) {
                    ids.add(Json.quoted(message.getJMSMessageID()));
                }
                if (number % MESSAGES_PER_COMMIT == MESSAGES_PER_COMMIT - 1 || number == count - 1) {
                    session.commit();
                }
            }
        }
        return brief ? Long.toString(count) : Json.list(ids);
    }

    private static Message message(Session session, Request request, long number) throws JMSException {
        Message message = withBody(session, request, number);
        if (request.has("group")) {
            long group = number % request.number("groups", Long.MAX_VALUE);
            message.setStringProperty("JMSXGroupID", numbered(request.text("group"), group));
        }
        if (request.has("correlation")) {
            message.setJMSCorrelationID(numbered(request.text("correlation"), number));
        }
        if (request.has("jms_type")) {
            message.setJMSType(request.text("jms_type"));
        }
        if (request.has("reply_to")) {
            message.setJMSReplyTo(session.createQueue(request.text("reply_to")));
        }
        for (Map.Entry<String, String> property : request.below("property.").entrySet()) {
            String[] parts = property.getValue().split(":", 2);
            message.setObjectProperty(property.getKey(), value(parts[0], parts[1]));
        }
        return message;
    }

    private static Message withBody(Session session, Request request, long number) throws JMSException {
        String body = numbered(request.text("body", ""), number);
        switch (request.text("type")) {
            case "text":
                return session.createTextMessage(new String(filled(request, body), StandardCharsets.UTF_8));
            case "bytes":
                BytesMessage bytes = session.createBytesMessage();
                bytes.writeBytes(filled(request, body));
                return bytes;
            case "map":
                MapMessage map = session.createMapMessage();
                map.setString("body", body);
                return map;
            case "object":
                return session.createObjectMessage(body);
            case "stream":
                StreamMessage stream = session.createStreamMessage();
                stream.writeString(body);
                return stream;
            case "plain":
                return session.createMessage();
            case "null":
                return session.createTextMessage();
            default:
                throw new IllegalArgumentException("there is no such type: " + request.text("type"));
        }
    }

    private static byte[] filled(Request request, String body) {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        int size = (int) request.number("size", bytes.length);
        byte[] filled = Arrays.copyOf(bytes, Math.max(size, bytes.length));
        Arrays.fill(filled, bytes.length, filled.length, (byte) '.');
        return filled;
    }

    private static String numbered(String pattern, long number) {
        return pattern.replace("{n}", Long.toString(number));
    }

    private static Object value(String type, String text) {
        switch (type) {
            case "boolean":
                return Boolean.valueOf(text);
            case "byte":
                return Byte.valueOf(text);
            case "short":
                return Short.valueOf(text);
            case "int":
                return Integer.valueOf(text);
            case "long":
                return Long.valueOf(text);
            case "float":
                return Float.valueOf(text);
            case "double":
                return Double.valueOf(text);
            case "string":
                return text;
            case "null":
                return null;
            default:
                throw new IllegalArgumentException("there is no such type of property: " + type);
        }
    }
}
