/* The least a program can do with librabbitmq: read a queue and acknowledge it. `cargo xtask bench` compares
 * esm with it. When it has its messages it says so, and waits for the end of its input, so that somebody can
 * look at what it has cost. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHANNEL = 1, FRAME_MAX = 131072, HEARTBEAT = 60, ACK_EVERY = 100 };

static void check(int good, const char *what) {
  if (!good) {
    fprintf(stderr, "cannot %s\n", what);
    exit(1);
  }
}

static int succeeded(amqp_connection_state_t connection) {
  return amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL;
}

int main(int argc, char **argv) {
  check(argc == 5, "go on: the arguments are PORT QUEUE COUNT PREFETCH");
  const char *queue = argv[2];
  const unsigned long count = strtoul(argv[3], NULL, 10);

  amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  check(socket != NULL, "create a socket");
  check(amqp_socket_open(socket, "127.0.0.1", atoi(argv[1])) == AMQP_STATUS_OK, "connect");
  amqp_rpc_reply_t login = amqp_login(connection, "/", 0, FRAME_MAX, HEARTBEAT, AMQP_SASL_METHOD_PLAIN, "guest", "guest");
  check(login.reply_type == AMQP_RESPONSE_NORMAL, "log in");
  amqp_channel_open(connection, CHANNEL);
  check(succeeded(connection), "open a channel");
  amqp_basic_qos(connection, CHANNEL, 0, (uint16_t)atoi(argv[4]), 0);
  check(succeeded(connection), "set the prefetch");
  amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  check(succeeded(connection), "consume");

  for (unsigned long number = 1; number <= count; number++) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(connection);
    amqp_rpc_reply_t reply = amqp_consume_message(connection, &envelope, NULL, 0);
    check(reply.reply_type == AMQP_RESPONSE_NORMAL, "take a message");
    if (number % ACK_EVERY == 0 || number == count) {
      check(amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 1) == AMQP_STATUS_OK, "acknowledge");
    }
    amqp_destroy_envelope(&envelope);
  }

  puts("done");
  fflush(stdout);
  while (getchar() != EOF) {
  }
  return 0;
}
