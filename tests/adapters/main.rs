//! Both adapters under every fault of a transport, and every future given up at every point.
//!
//! [`line`] is a transport in memory, and [`Faults`](line::Faults) what is wrong with it: one description for
//! blocking and for asynchronous streams. Tests take turns, so that threads, tasks, descriptors and the heap can
//! be counted; each tells how many positions it tried, and the last one how many that was in all.

mod busy;
mod closing;
mod crowd;
mod damaged;
mod dropped;
mod from_files;
mod given_up;
mod late;
mod line;
mod over_std;
mod over_tokio;
mod served;
mod serving;
mod session;
mod shortage;
mod strangers;
mod sweep;
mod tally;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;
