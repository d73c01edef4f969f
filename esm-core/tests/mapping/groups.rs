//! Message groups keep their order with several batches in flight.
