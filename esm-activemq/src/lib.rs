//! The `ActiveMQ` adapter: so far the wire format alone. Configuration still refuses `engine = "activemq"`.

pub mod openwire;
