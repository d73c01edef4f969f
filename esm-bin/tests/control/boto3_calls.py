"""Makes calls with boto3: reads lines of [operation, parameters] as JSON, and writes a line for each,
{"answer": …} or {"error": {"class": …, "response": …}}. Arguments: the endpoint, and the two halves
of an access key."""

import json
import sys

import boto3
import botocore.config
import botocore.exceptions

client = boto3.client(
    "lambda",
    endpoint_url=sys.argv[1],
    region_name="us-east-1",
    aws_access_key_id=sys.argv[2],
    aws_secret_access_key=sys.argv[3],
    config=botocore.config.Config(retries={"max_attempts": 0}),
)


def call(operation, parameters):
    try:
        if operation.startswith("paginate:"):
            paginator = client.get_paginator(operation.removeprefix("paginate:"))
            pages = list(paginator.paginate(**parameters))
            return {"answer": {"Pages": pages}}
        return {"answer": getattr(client, operation)(**parameters)}
    except botocore.exceptions.ClientError as error:
        return {"error": {"class": type(error).__name__, "response": error.response}}


for line in sys.stdin:
    operation, parameters = json.loads(line)
    print(json.dumps(call(operation, parameters), default=lambda time: time.timestamp()), flush=True)
