//! Pauses at steps between threads, drawn from a seed.

/// From now on threads pause at one in so many steps of the library's locks and atomics. False: this
/// build has no such steps.
pub(crate) fn begin(seed: u64, one_in: u32) -> bool {
    wharf::simulation::for_wharf_sim::pause_at_steps(seed, one_in)
}
