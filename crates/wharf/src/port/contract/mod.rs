//! The suite that judges every port by the contract in `port/mod.rs`.
//!
//! Each property is a function over any port, in the module of its subject. Its name is the sentence that
//! must hold. The list below makes it one test per port. `Trial` checks what is true of all operations, so a
//! test only states what is special to it.
//!
//! No test sleeps blindly or asserts that something is fast. What never happens is noticed after
//! `sockets::BOUND`.

mod bytes;
mod completions;
mod connections;
mod crowds;
mod directions;
#[cfg(any(windows, feature = "simulation"))]
mod handles;
pub(super) mod sockets;
pub(super) mod trial;
mod waiting;

/// Judges one port. `$small` makes one whose queues and buffers are soon full, if the port has any.
macro_rules! contract_suite {
    ($port:ident, $new:expr, $small:expr) => {
        mod $port {
            use super::*;

            contract_suite!(@whatever_else_happens $new, $small);
            contract_suite!(@properties $new,
                waiting::a_wait_in_which_nothing_happens_lasts_for_its_time_out
            );
        }
    };
    // While faults happen, which may also end a wait.
    (@with_faults $port:ident, $new:expr, $small:expr) => {
        mod $port {
            use super::*;

            contract_suite!(@whatever_else_happens $new, $small);
        }
    };
    (@whatever_else_happens $new:expr, $small:expr) => {
        contract_suite!(@properties $new,
            completions::every_operation_that_succeeds_completes
            completions::a_cancelled_operation_has_one_last_completion
            completions::an_operation_cancelled_before_any_wait_has_one_last_completion
            completions::a_cancel_of_what_is_not_outstanding_does_nothing
            completions::a_shutdown_ends_what_is_outstanding
            completions::a_reset_by_the_peer_ends_what_is_outstanding
            completions::the_end_of_the_port_ends_everything_and_gives_everything_back
            bytes::the_end_of_a_stream_is_zero_bytes_after_all_that_came_before_it
            bytes::the_end_of_a_stream_is_told_again_to_who_asks_again
            bytes::an_end_that_came_with_the_connection_is_seen
            bytes::an_empty_batch_is_sent_as_zero_bytes
            bytes::a_send_that_left_in_part_goes_on_where_it_stopped
            bytes::a_stuck_send_goes_on_when_there_is_room
            bytes::what_is_handed_over_with_what_came_goes_before_what_is_sent
            bytes::room_that_came_while_no_send_was_outstanding_is_used
            bytes::many_pieces_leave_in_their_order
            bytes::a_receive_fills_both_free_segments_of_a_wrapped_ring
            bytes::a_ring_takes_no_more_than_it_has_room_for_and_the_rest_waits
            bytes::bytes_that_came_while_no_receive_was_outstanding_are_received
            bytes::what_lies_before_and_behind_an_urgent_byte_is_received
            bytes::a_receive_once_takes_one_arrival_and_then_the_end
            bytes::a_cancel_loses_no_bytes
            bytes::replies_go_back_and_forth_without_an_end
            bytes::a_busy_socket_does_not_starve_a_quiet_one
            directions::a_shutdown_of_our_direction_leaves_the_receive_going
            directions::a_peers_end_leaves_our_sends_going_and_then_our_own_end_comes
            directions::what_came_while_a_receive_was_cancelled_comes_in_order_and_so_does_the_end
            directions::a_reset_after_a_peers_end_fails_the_next_send
            directions::a_reset_after_our_own_end_fails_the_receive
            directions::a_shutdown_after_a_send_cuts_nothing_off
            connections::every_connection_is_accepted
            connections::connections_made_between_two_accepts_are_not_lost
            connections::an_accepted_socket_can_be_registered_and_used
            connections::a_peer_that_gave_up_before_it_was_accepted_does_not_end_the_accept
            connections::a_connect_succeeds
            connections::a_connect_is_refused
            connections::a_connect_to_itself_says_so_by_the_address_that_it_has
            waiting::a_wake_from_another_thread_ends_a_wait_without_time_out
            waiting::a_wake_before_the_wait_is_not_lost
            waiting::a_thousand_wakes_of_one_thread_are_not_lost
            waiting::a_thousand_wakes_of_four_threads_are_not_lost
            waiting::a_waker_may_outlive_its_port
            crowds::ten_thousand_operations_are_outstanding_and_all_complete
            crowds::lent_bytes_are_written_over_and_nobody_else_sees_it
            crowds::a_registration_used_again_sees_nothing_of_the_one_before
            crowds::a_socket_registered_again_goes_on_where_it_was
        );
        contract_suite!(@properties $small,
            crowds::few_lent_bytes_are_written_over_and_nobody_else_sees_it
            crowds::receives_that_find_no_buffer_lose_nothing_when_posted_again
            crowds::hundreds_of_operations_posted_between_two_waits_all_complete
            crowds::hundreds_of_completions_that_come_at_once_all_arrive
            crowds::hundreds_of_operations_cancelled_at_once_all_complete
        );
        contract_suite!(@faults $new,
            completions::a_second_operation_of_a_kind_is_a_fault
            completions::a_second_receive_of_the_other_form_is_a_fault
            completions::a_deregistration_with_an_operation_outstanding_is_a_fault
            completions::a_deregistration_before_the_cancelled_operation_completed_is_a_fault
        );
    };
    // For a shared port: `$join` makes another handle to the port that `$shared` makes.
    (@handles $port:ident, $shared:expr, $join:expr) => {
        mod $port {
            use super::*;

            contract_suite!(@joins $shared, $join,
                handles::a_receive_and_a_send_of_one_socket_complete_on_two_threads_at_once
                handles::completions_are_spread_over_the_handles
                handles::each_wake_ends_the_wait_of_some_handle
                handles::one_handle_does_not_swallow_the_wakes_of_the_others
                handles::a_thread_without_a_handle_posts_and_some_handle_hears_of_it
                handles::what_a_poster_posts_to_a_dead_socket_completes_too
                handles::a_poster_may_outlive_its_port
                handles::what_one_handle_left_behind_comes_to_another
                handles::cancels_and_bytes_race_and_one_last_completion_comes
                handles::an_accept_that_several_handles_take_has_one_last_completion
                handles::replies_go_back_and_forth_whoever_takes_them
                handles::the_last_handle_ends_what_all_of_them_left
            );
        }
    };
    (@joins $shared:expr, $join:expr, $($room:ident::$property:ident)*) => {
        $(
            #[test]
            fn $property() {
                let shared = $shared;
                $room::$property(|| $join(&shared));
            }
        )*
    };
    (@properties $new:expr, $($room:ident::$property:ident)*) => {
        $(
            #[test]
            fn $property() {
                $room::$property($new);
            }
        )*
    };
    (@of_seeds $seeds:expr, $new:expr, $($room:ident::$property:ident)*) => {
        $(
            #[test]
            fn $property() {
                for seed in $seeds {
                    println!("seed {seed}");
                    $room::$property($new(seed));
                }
            }
        )*
    };
    // The panic must name the bug: an operation that is outstanding.
    (@faults $new:expr, $($room:ident::$fault:ident)*) => {
        $(
            #[test]
            #[should_panic(expected = "outstanding")]
            fn $fault() {
                $room::$fault($new);
            }
        )*
    };
}

#[cfg(unix)]
contract_suite!(
    readiness,
    crate::port::readiness::ReadinessPort::new().unwrap(),
    crate::port::readiness::ReadinessPort::new().unwrap()
);

#[cfg(target_os = "linux")]
contract_suite!(
    uring,
    crate::port::uring::UringPort::for_test(),
    crate::port::uring::UringPort::for_test_small()
);

#[cfg(windows)]
contract_suite!(
    iocp,
    crate::port::iocp::IocpPort::for_test(),
    crate::port::iocp::IocpPort::for_test()
);

#[cfg(windows)]
contract_suite!(
    @handles iocp_handles,
    crate::port::iocp::SharedPort::for_test(),
    crate::port::iocp::IocpPort::join_for_test
);

#[cfg(feature = "simulation")]
mod simulated_port;
