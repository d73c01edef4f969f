import java.util.ArrayList;
import java.util.Collections;
import java.util.Enumeration;
import java.util.List;
import javax.jms.JMSException;
import org.apache.activemq.ActiveMQConnection;
import org.apache.activemq.ActiveMQConnectionFactory;
import org.apache.activemq.command.ActiveMQQueue;

/** The way to a broker, for one command. */
final class Broker implements AutoCloseable {
    /** Open, and not yet started. */
    final ActiveMQConnection connection;

    Broker(Request request) throws JMSException {
        ActiveMQConnectionFactory factory = new ActiveMQConnectionFactory(
                request.text("username"), request.text("password"), request.text("url"));
        factory.setUseCompression(request.flag("compress"));
        factory.setWatchTopicAdvisories(false);
        factory.getPrefetchPolicy().setAll((int) request.number("prefetch", 1000));
        // Messages that come again are shown as they are, however often they have come.
        factory.getRedeliveryPolicy().setMaximumRedeliveries(-1);
        connection = (ActiveMQConnection) factory.createConnection();
    }

    /** {@code delete}: a queue with all that is in it; a broker refuses that while somebody reads it. */
    static String delete(Request request) throws JMSException {
        try (Broker broker = new Broker(request)) {
            broker.connection.start();
            broker.connection.destroyDestination(new ActiveMQQueue(request.text("queue")));
            return "null";
        }
    }

    @Override
    public void close() throws JMSException {
        connection.close();
    }

    /** JMS 1.1 lists names without saying that they are strings. */
    static List<String> names(Enumeration<?> enumeration) {
        List<String> names = new ArrayList<>();
        Collections.list(enumeration).forEach(name -> names.add((String) name));
        return names;
    }
}
