// A function that does what each event asks for: what `examples/bootstrap.rs` does, too.

import { writeFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

class NamedError extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

await sleep(Number(process.env.SLOW_START ?? 0));

if ("FAIL_INIT" in process.env) {
  throw new NamedError("RuntimeError", "no database");
}

process.on("SIGTERM", () => {
  if ("SAY_GOODBYE_IN" in process.env) {
    writeFileSync(process.env.SAY_GOODBYE_IN, "goodbye");
  }
  process.exit(0);
});

export const handle = async (event, context) => commands[event.do](event, context);

const commands = {
  echo: (event) => event.value,
  fail: () => {
    throw new NamedError("ValueError", "no pizza");
  },
  kill: () => {
    process.kill(process.pid, "SIGKILL");
    return new Promise(() => {});
  },
  exit: (event) => process.exit(event.status ?? 0),
  sleep: async (event) => {
    await sleep(event.milliseconds);
    return process.pid;
  },
  measure: (event) => event.value.length,
  grow: (event) => "x".repeat(event.size),
  print: () => {
    writeSync(1, Buffer.from("caf\xe9 in the log\n", "latin1"));
    return null;
  },
  tell: (_, context) => ({
    process: process.pid,
    request_id: context.awsRequestId,
    arn: context.invokedFunctionArn,
    trace_id: process.env._X_AMZN_TRACE_ID,
    remaining: context.getRemainingTimeInMillis(),
    name: context.functionName,
    memory: Number(context.memoryLimitInMB),
    environment: process.env,
  }),
};
