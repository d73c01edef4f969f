import java.util.ArrayList;
import java.util.Enumeration;
import java.util.List;
import javax.jms.JMSException;
import javax.jms.MapMessage;
import javax.jms.Message;
import javax.jms.MessageConsumer;
import javax.jms.MessageProducer;
import javax.jms.Queue;
import javax.jms.QueueBrowser;
import javax.jms.Session;

/** What reads: {@code browse}, {@code consume}, {@code statistics}. */
final class Reading {
    /** How long a broker that is well may take to answer. */
    private static final long PATIENCE = 30_000;

    private Reading() {}

    /** Describes what waits in a queue, and leaves it there. A broker shows a few hundred messages at most. */
    static String browse(Request request) throws JMSException {
        try (Broker broker = new Broker(request)) {
            Session session = broker.connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
            QueueBrowser browser = session.createBrowser(session.createQueue(request.text("queue")));
            broker.connection.start();
            List<String> messages = new ArrayList<>();
            Enumeration<?> waiting = browser.getEnumeration();
            while (waiting.hasMoreElements()) {
                messages.add(Description.of((Message) waiting.nextElement()));
            }
            return Json.list(messages);
        }
    }

    /**
     * Takes up to {@code count} messages, each within {@code patience} milliseconds, and acknowledges every
     * {@code every}-th with all before it; with {@code every=0} none, so that all of them go back. The answer describes
     * them if {@code describe} is true, and otherwise is their number.
     */
    static String consume(Request request) throws JMSException {
        long count = request.number("count", Long.MAX_VALUE);
        long patience = request.number("patience", PATIENCE);
        long every = request.number("every", 1);
        boolean describe = request.flag("describe");
        List<String> messages = new ArrayList<>();
        long taken = 0;
        try (Broker broker = new Broker(request)) {
            Session session = broker.connection.createSession(false, Session.CLIENT_ACKNOWLEDGE);
            MessageConsumer consumer = session.createConsumer(session.createQueue(request.text("queue")));
            broker.connection.start();
            Message last = null;
            while (taken < count) {
                Message message = consumer.receive(patience);
                if (message == null) {
                    break;
                }
                last = message;
                taken++;
                if (describe) {
                    messages.add(Description.of(message));
                }
                if (every > 0 && taken % every == 0) {
                    message.acknowledge();
                    last = null;
                }
            }
            if (every > 0 && last != null) {
                last.acknowledge();
            }
        }
        return describe ? Json.list(messages) : Long.toString(taken);
    }

    /** What the broker counts for a queue, by its own names; nothing for a queue that it does not know. */
    static String statistics(Request request) throws JMSException {
        try (Broker broker = new Broker(request)) {
            Session session = broker.connection.createSession(false, Session.AUTO_ACKNOWLEDGE);
            Queue answers = session.createTemporaryQueue();
            MessageConsumer consumer = session.createConsumer(answers);
            broker.connection.start();
            String place = "ActiveMQ.Statistics.Destination." + request.text("queue");
            MessageProducer producer = session.createProducer(session.createQueue(place));
            Message question = session.createMessage();
            question.setJMSReplyTo(answers);
            // Its answers then end with an empty one, which comes alone for an unknown queue.
            question.setBooleanProperty("ActiveMQ.Statistics.Destination.List.End.With.Null", true);
            producer.send(question);
            MapMessage answer = (MapMessage) consumer.receive(PATIENCE);
            if (answer == null) {
                throw new JMSException("the broker has no statistics for " + place);
            }
            Json.Members counts = new Json.Members();
            for (String name : Broker.names(answer.getMapNames())) {
                Object value = answer.getObject(name);
                if (value instanceof Integer || value instanceof Long) {
                    counts.number(name, ((Number) value).longValue());
                }
            }
            return counts.toString();
        }
    }
}
