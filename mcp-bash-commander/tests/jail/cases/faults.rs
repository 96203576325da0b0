//! Cases of bad input and of faults.

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case {
        number: 61,
        title: "Bad input",
        shown_by: &[
            "server::refusals::every_bad_call_is_answered_with_a_code_and_the_server_goes_on",
            "lib::jail::order::a_nul_byte_or_an_empty_command_is_refused",
            "e2e::bad_input::arguments_that_no_tool_takes_are_refused_and_the_next_call_is_answered",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 62,
        title: "Output without end, without lines, without text",
        shown_by: &[
            "server::commands::a_hundred_megabytes_of_output_stay_a_small_answer",
            "server::commands::binary_output_comes_back_byte_for_byte",
            "lib::session::spool::following_the_cursor_gives_every_kept_byte_once",
            "lib::session::text::reading_in_small_pieces_never_splits_a_character",
            "lib::session::screen::no_output_makes_it_panic",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 63,
        title: "Output lost to a race",
        shown_by: &[
            "server::commands::no_output_is_lost_however_fast_a_command_ends",
            "jail::inputs::all_output_arrives_before_its_end",
            "endurance::lost_output::no_output_is_lost_under_load",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 64,
        title: "Output that looks like a prompt",
        shown_by: &["jail::terminals::that_a_program_waits_for_input_is_a_fact_and_no_guess"],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 65,
        title: "A client that goes away or cancels",
        shown_by: &[
            "server::commands::the_end_of_the_client_ends_everything_at_once",
            "server::commands::a_cancelled_call_kills_its_command",
            "server::commands::a_killed_server_leaves_no_process_behind",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 66,
        title: "More sessions than there may be",
        shown_by: &[
            "server::sessions::a_live_session_is_never_dropped_to_make_room",
            "jail::lifetime::many_jails_at_once_do_not_disturb_each_other",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 67,
        title: "A host that lacks a layer",
        shown_by: &[
            "jail::processes::a_jail_that_cannot_be_made_is_refused_by_the_name_of_its_layer",
            "jail::groups::a_group_that_cannot_be_had_is_named_and_refuses_only_where_it_is_required",
            "lib::jail::layer::what_was_not_applied_is_listed_as_missing",
            "jail::container::where_one_mode_is_not_allowed_the_next_one_is_taken_and_told",
            "server::modes::without_user_namespaces_commands_run_where_the_policy_says_so_and_results_say_what_is_missing",
            "e2e::demo::the_demo_runs_on_a_machine_that_forbids_user_namespaces",
            "server::faults::a_kernel_without_landlock_runs_no_command_and_the_layer_is_named",
            "server::faults::without_proc_no_command_runs_and_the_reason_is_told",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 68,
        title: "Faults of launcher, descriptors, disks and clocks",
        shown_by: &[
            "jail::lifetime::a_killed_launcher_takes_its_jails_along_and_the_next_call_works",
            "jail::lifetime::a_launcher_that_cannot_start_is_an_error",
            "lib::session::spool::a_disk_that_takes_no_more_leaves_the_count_exact",
            "server::faults::a_launcher_that_hangs_is_an_error_in_time_and_all_is_well_when_it_goes_on",
            "server::faults::without_descriptors_calls_fail_with_a_reason_until_some_are_free",
            "server::faults::where_a_jail_gets_no_memory_the_call_fails_and_the_next_one_with_memory_works",
            "server::faults::a_clock_that_is_turned_ends_nothing_early_and_keeps_nothing_alive",
            "server::faults::with_a_full_disk_of_its_own_the_server_runs_nothing_and_goes_on_when_there_is_room",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 69,
        title: "Faults of a container engine",
        shown_by: &[
            "jail::container::an_engine_or_image_that_cannot_be_used_is_named",
            "jail::container::a_killed_server_and_a_dropped_call_leave_no_container",
            "jail::container::containers_of_a_server_that_is_gone_are_removed_and_others_are_not",
            "jail::container::many_small_processes_together_end_at_the_memory_of_a_container",
            "jail::container::what_cannot_be_run_in_a_container_is_refused_for_the_same_reasons",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 70,
        title: "A killed command that looks like a success",
        shown_by: &[
            "server::commands::a_command_over_its_time_is_killed_with_all_it_started",
            "lib::jail::exit::an_exit_is_a_code_or_a_signal_never_both",
        ],
        attempts: &[],
        lacks: "",
    },
];
