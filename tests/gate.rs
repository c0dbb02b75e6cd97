//! Which message is legal when: the gate as a function, and real connections driven into each of its states.

#[path = "gate/bodies.rs"]
mod bodies;
#[path = "gate/oracle.rs"]
mod oracle;
#[path = "gate/pure.rs"]
mod pure;
#[path = "gate/reach.rs"]
mod reach;
#[path = "gate/real.rs"]
mod real;
