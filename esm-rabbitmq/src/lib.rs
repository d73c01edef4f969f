//! esm-rabbitmq
