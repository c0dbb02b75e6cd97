//! The simulator: two ends of a connection, a wire between them, and a clock that only tests move.
