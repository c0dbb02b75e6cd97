//! Filled in with the simulator.
