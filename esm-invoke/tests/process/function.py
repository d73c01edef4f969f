"""A function that does what each event asks for: what `examples/bootstrap.rs` does, too."""

import os
import signal
import sys
import time

time.sleep(int(os.environ.get("SLOW_START", "0")) / 1000)

if "FAIL_INIT" in os.environ:
    raise RuntimeError("no database")


def say_goodbye(*_):
    if "SAY_GOODBYE_IN" in os.environ:
        with open(os.environ["SAY_GOODBYE_IN"], "w") as file:
            file.write("goodbye")
    os._exit(0)


signal.signal(signal.SIGTERM, say_goodbye)


def handle(event, context):
    return globals()[event["do"] + "_"](event, context)


def echo_(event, context):
    return event["value"]


def fail_(event, context):
    raise ValueError("no pizza")


def kill_(event, context):
    os.kill(os.getpid(), signal.SIGKILL)


def exit_(event, context):
    os._exit(event.get("status", 0))


def sleep_(event, context):
    time.sleep(event["milliseconds"] / 1000)
    return os.getpid()


def measure_(event, context):
    return len(event["value"])


def grow_(event, context):
    return "x" * event["size"]


def print_(event, context):
    sys.stdout.flush()
    os.write(1, b"caf\xe9 in the log\n")


def tell_(event, context):
    return {
        "process": os.getpid(),
        "request_id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "trace_id": os.environ.get("_X_AMZN_TRACE_ID"),
        "remaining": context.get_remaining_time_in_millis(),
        "name": context.function_name,
        "memory": int(context.memory_limit_in_mb),
        "environment": dict(os.environ),
    }
