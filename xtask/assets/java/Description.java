import java.nio.charset.StandardCharsets;
import java.util.Base64;
import javax.jms.BytesMessage;
import javax.jms.JMSException;
import javax.jms.Message;
import javax.jms.TextMessage;
import org.apache.activemq.command.ActiveMQMessage;

/** A message as Java's getters show it. */
final class Description {
    private Description() {}

    static String of(Message message) throws JMSException {
        ActiveMQMessage inside = (ActiveMQMessage) message;
        Json.Members members = new Json.Members();
        members.text("message_id", message.getJMSMessageID());
        members.text("message_type", inside.getJMSXMimeType());
        members.number("timestamp", message.getJMSTimestamp());
        members.text("correlation_id", message.getJMSCorrelationID());
        members.text("reply_to", message.getJMSReplyTo() == null ? null : message.getJMSReplyTo().toString());
        members.text("destination", message.getJMSDestination().toString());
        members.number("delivery_mode", message.getJMSDeliveryMode());
        members.flag("redelivered", message.getJMSRedelivered());
        members.text("type", message.getJMSType());
        members.number("expiration", message.getJMSExpiration());
        members.number("priority", message.getJMSPriority());
        members.number("broker_in_time", inside.getBrokerInTime());
        members.number("broker_out_time", inside.getBrokerOutTime());
        members.number("redelivery_counter", inside.getRedeliveryCounter());
        members.flag("compressed", inside.isCompressed());
        byte[] body = body(message);
        members.text("body", body == null ? null : Base64.getEncoder().encodeToString(body));
        Json.Members properties = new Json.Members();
        for (String name : Broker.names(message.getPropertyNames())) {
            Object value = message.getObjectProperty(name);
            properties.text(name, value == null ? null : String.valueOf(value));
        }
        return members.json("properties", properties.toString()).toString();
    }

    private static byte[] body(Message message) throws JMSException {
        if (message instanceof TextMessage) {
            String text = ((TextMessage) message).getText();
            return text == null ? null : Json.whole(text).getBytes(StandardCharsets.UTF_8);
        }
        if (message instanceof BytesMessage) {
            BytesMessage bytes = (BytesMessage) message;
            byte[] body = new byte[(int) bytes.getBodyLength()];
            bytes.readBytes(body);
            return body;
        }
        return null;
    }
}
