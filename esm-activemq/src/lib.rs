//! The `ActiveMQ` adapter. Nothing is built here yet: configuration refuses `engine = "activemq"`.
