//! The suite on the simulated port: both kinds, with every fault that the contract allows.

use super::{bytes, completions, connections, crowds, directions, handles, waiting};
use crate::port::simulated::{Fault, Faults, Joined, SimulatedPort};

contract_suite!(
    simulated,
    SimulatedPort::<false>::for_test(0, Faults::none()),
    SimulatedPort::<false>::for_test_small(0, Faults::none())
);

contract_suite!(
    simulated_shared,
    SimulatedPort::<true>::for_test(0, Faults::none()),
    SimulatedPort::<true>::for_test_small(0, Faults::none())
);

contract_suite!(
    @handles simulated_handles,
    Joined::for_test(0, Faults::none()),
    SimulatedPort::<true>::join_for_test
);

/// Faults that only change time and order. Most properties need whole sends and receives (those that do not
/// follow below), and nothing here waits for descriptors as the acceptor does.
fn faults(seed: u64) -> Faults {
    [Fault::ReceiveOfOneByte, Fault::ReceiveInPart, Fault::SendOfOneByte, Fault::SendInPart]
        .into_iter()
        .fold(faults_of_bytes_too(seed), Faults::without)
}

/// All of them in even seeds, and half of them in odd ones.
fn faults_of_bytes_too(seed: u64) -> Faults {
    let faults = Faults::unnoticed()
        .without(Fault::AcceptWithoutDescriptors)
        .without(Fault::AcceptWithoutMemory);
    if seed.is_multiple_of(2) { faults } else { faults.swarm(seed) }
}

// Without `a_wait_in_which_nothing_happens_lasts_for_its_time_out`, because a wait may be interrupted.
contract_suite!(
    @with_faults simulated_with_faults,
    SimulatedPort::<false>::for_test(2, faults(2)),
    SimulatedPort::<false>::for_test_small(2, faults(2))
);

contract_suite!(
    @with_faults simulated_with_half_of_the_faults,
    SimulatedPort::<false>::for_test(3, faults(3)),
    SimulatedPort::<false>::for_test_small(3, faults(3))
);

contract_suite!(
    @with_faults simulated_shared_with_faults,
    SimulatedPort::<true>::for_test(4, faults(4)),
    SimulatedPort::<true>::for_test_small(4, faults(4))
);

contract_suite!(
    @with_faults simulated_shared_with_half_of_the_faults,
    SimulatedPort::<true>::for_test(5, faults(5)),
    SimulatedPort::<true>::for_test_small(5, faults(5))
);

// These wait only once for what they need, and post an accept only once.
contract_suite!(
    @handles simulated_handles_with_faults,
    Joined::for_test(6, faults(6).without(Fault::WaitInterrupted).without(Fault::AcceptEnds)),
    SimulatedPort::<true>::join_for_test
);

/// With partial and one-byte sends and receives too.
macro_rules! in_parts {
    ($port:ident, $shared:literal) => {
        mod $port {
            use super::*;

            fn port(seed: u64) -> SimulatedPort<$shared> {
                SimulatedPort::for_test(seed, faults_of_bytes_too(seed))
            }

            contract_suite!(@of_seeds 10..14, port,
                completions::a_shutdown_ends_what_is_outstanding
                completions::a_reset_by_the_peer_ends_what_is_outstanding
                completions::the_end_of_the_port_ends_everything_and_gives_everything_back
                bytes::the_end_of_a_stream_is_told_again_to_who_asks_again
                bytes::an_end_that_came_with_the_connection_is_seen
                bytes::an_empty_batch_is_sent_as_zero_bytes
                bytes::a_send_that_left_in_part_goes_on_where_it_stopped
                bytes::a_stuck_send_goes_on_when_there_is_room
                bytes::what_is_handed_over_with_what_came_goes_before_what_is_sent
                bytes::many_pieces_leave_in_their_order
                bytes::a_ring_takes_no_more_than_it_has_room_for_and_the_rest_waits
                bytes::bytes_that_came_while_no_receive_was_outstanding_are_received
                bytes::a_receive_once_takes_one_arrival_and_then_the_end
                bytes::a_cancel_loses_no_bytes
                bytes::replies_go_back_and_forth_without_an_end
                directions::a_shutdown_of_our_direction_leaves_the_receive_going
                directions::a_peers_end_leaves_our_sends_going_and_then_our_own_end_comes
                directions::what_came_while_a_receive_was_cancelled_comes_in_order_and_so_does_the_end
                directions::a_reset_after_our_own_end_fails_the_receive
                directions::a_shutdown_after_a_send_cuts_nothing_off
                connections::an_accepted_socket_can_be_registered_and_used
                connections::a_connect_succeeds
                crowds::a_registration_used_again_sees_nothing_of_the_one_before
                crowds::a_socket_registered_again_goes_on_where_it_was
            );
        }
    };
}

in_parts!(simulated_in_parts, false);
in_parts!(simulated_shared_in_parts, true);
