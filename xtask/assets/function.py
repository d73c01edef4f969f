"""A Lambda handler that prints the messages it is given, as Powertools for AWS Lambda reads them.

Nothing in it knows that it does not run on AWS.
"""

from aws_lambda_powertools.utilities.data_classes.active_mq_event import ActiveMQEvent
from aws_lambda_powertools.utilities.data_classes.rabbit_mq_event import RabbitMQEvent

invocations = 0


def handle(event, context):
    global invocations
    invocations += 1
    if invocations == 1:
        raise RuntimeError("this function fails its first invocation on purpose")
    for queue, messages in batches(event):
        print(f"invocation {invocations}: {len(messages)} from {queue}")
        for message_id, message, about in messages:
            again = " (again)" if message.redelivered else ""
            print(f"  {message_id}{again}: {message.decoded_data[:100]}")
            print(f"    {about}")


def batches(event):
    if event["eventSource"] == "aws:rmq":
        for queue, messages in RabbitMQEvent(event).rmq_messages_by_queue.items():
            yield queue, [from_rabbitmq(message) for message in messages]
    else:
        messages = list(ActiveMQEvent(event).messages)
        yield messages[0].destination_physicalname, [from_activemq(message) for message in messages]


def from_rabbitmq(message):
    properties = message.basic_properties
    about = f"type {properties.get_type}, priority {properties.priority}, headers {properties.headers}"
    return properties.message_id, message, about


def from_activemq(message):
    about = f"{message.message_type}, priority {message.priority}, properties {message.properties}"
    return message.message_id, message, about
