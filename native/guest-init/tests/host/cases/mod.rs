//! The cases, by what they look at.

mod apps;
mod beside;
mod errand;
mod health;
mod mounts;
mod network;
mod process;
mod protocol;
mod refusals;
mod root;

pub type Case = (&'static str, fn());

macro_rules! cases {
    ($($module:ident: $($name:ident)*;)*) => {
        /// Every case with its name.
        pub fn all() -> Vec<Case> {
            vec![$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn()),)*)*]
        }
    };
}

cases! {
    apps: run_in_their_order_and_end_with_the_last wait_for_what_another_one_is stop_when_one_of_them_fails
        end_with_the_shell_s_code_when_one_cannot_be_started fail_when_what_they_wait_for_cannot_come
        share_network_ipc_and_names_and_nothing_else
        have_processes_beside_them_by_name_and_signals_of_their_own
        end_the_guest_for_frames_of_an_app_that_is_none;
    process: keeps_streams_apart_and_reports_the_code reports_a_signal passes_arguments_and_environment
        passes_tunables_only_under_software_kvm sets_user_groups_and_home sets_capabilities
        raises_ambient_capabilities sets_limits is_process_one_and_sees_no_other
        inherits_no_descriptor reopens_its_own_stdout_as_another_user finds_programs_on_the_path;
    mounts: mounts_memory_of_a_size_with_a_mode mounts_shared_memory_of_another_size
        mounts_in_order_with_what_the_root_lacks keeps_a_place_of_the_image_writable_in_a_read_only_root
        follows_no_link_of_the_image_to_a_mount_point makes_nothing_in_what_is_read_only
        sets_parameters_of_its_own_namespaces gives_files_that_nobody_can_write
        puts_files_in_place_of_files_alone refuses_other_files_than_those_of_its_configuration;
    network: writes_names_where_the_image_has_none leaves_the_images_names_unless_asked
        follows_no_link_of_the_image_to_its_names makes_the_card_what_it_is_told touches_no_card_without_a_network
        reports_a_card_that_is_not_there reports_a_link_that_stays_down;
    root: writes_above_an_image_that_stays_as_it_is refuses_writes_to_a_read_only_root
        sees_the_default_devices_and_no_others cannot_open_a_node_it_makes masks_and_protects
        sees_no_mount_of_the_machine keeps_the_image_s_tmp gives_a_tmp_where_none_is;
    refusals: reports_programs_that_are_not_there_or_not_executable reports_users_that_do_not_exist
        reads_users_inside_the_image_only reports_a_working_directory_it_cannot_enter
        reports_an_image_whose_proc_is_a_link applies_seccomp reports_a_bad_seccomp_program
        reports_a_bad_configuration;
    protocol: carries_input_under_credit takes_input_nobody_reads keeps_output_to_its_credit
        stops_with_term_and_then_kill stops_with_the_signal_of_the_app signals_the_app answers_a_resize_that_it_cannot_make
        ends_with_the_app_though_an_orphan_holds_its_output
        ends_at_garbage_and_kills_the_app ends_when_credit_is_exceeded ends_when_the_host_goes;
    beside: is_under_all_that_the_app_is_under has_its_own_streams_code_and_input
        takes_environment_user_and_directory_of_the_request
        tells_why_it_could_not_run_and_the_app_can_still_end
        enters_what_init_made_and_not_what_the_app_went_to
        has_a_terminal_of_the_app_s_that_does_what_terminals_do
        makes_no_terminal_of_what_the_app_put_there
        is_hung_up_on_and_killed_when_nobody_listens ends_with_the_app
        waits_for_credit_alone_and_keeps_what_it_wrote is_not_ended_by_what_comes_after_its_end
        ends_the_guest_for_a_host_out_of_turn;
    errand: copies_out_what_is_there_and_follows_no_link_below is_under_all_that_a_program_would_be_under
        copies_nothing_out_of_proc_that_says_more_than_what_it_is_under
        has_no_descriptor_but_its_streams_also_under_a_program_that_has_no_close_range
        writes_what_an_archive_has_and_nothing_through_a_link names_one_thing_as_it_was_asked_to
        keeps_the_owners_of_an_archive_for_root_alone lists_the_processes_of_the_pod;
    health: is_asked_under_all_that_the_app_is_under asks_a_port asks_a_server
        tells_why_a_program_could_not_be_asked kills_what_takes_too_long_and_what_it_left
        keeps_the_end_of_what_a_flood_wrote says_nothing_twice_and_everything_new
        does_not_take_the_end_of_the_app_for_an_answer;
}
