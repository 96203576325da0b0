//! Cases of environment, policy and approval.

use super::Case;

pub(super) const CASES: &[Case] = &[
    Case {
        number: 53,
        title: "A secret of the server in environment, arguments or output",
        shown_by: &[
            "server::commands::nothing_of_the_servers_environment_reaches_a_command",
            "jail::escape::the_environment_is_exactly_the_one_that_was_given",
            "lib::policy::environment::nothing_of_the_servers_own_environment_comes_along",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 54,
        title: "Variables that make programs run other code",
        shown_by: &[
            "lib::policy::environment::a_call_cannot_set_what_makes_programs_run_other_code",
            "server::refusals::every_bad_call_is_answered_with_a_code_and_the_server_goes_on",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 55,
        title: "Commands hidden from rules",
        shown_by: &[
            "jail::commands::no_way_of_saying_it_reads_a_file_outside",
            "lib::policy::rules::corpus::a_hidden_command_is_asked_about_or_denied",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 56,
        title: "Allowed programs as interpreters",
        shown_by: &[
            "jail::commands::no_way_of_saying_it_reads_a_file_outside",
            "lib::policy::rules::corpus::a_hidden_command_is_asked_about_or_denied",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 57,
        title: "Metacharacters in an argument vector",
        shown_by: &[
            "jail::inputs::arguments_reach_the_program_unchanged",
            "server::commands::arguments_without_a_shell_stay_as_they_are",
            "lib::policy::rules::corpus::an_argument_vector_is_not_read_by_a_shell",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 58,
        title: "The policy changed from inside",
        shown_by: &[
            "lib::policy::placement::secrets_may_lie_in_no_grant_and_the_policy_in_no_writable_one",
            "lib::policy::placement::a_link_does_not_hide_where_a_secret_lies",
            "lib::policy::a_policy_that_others_can_write_is_refused",
            "server::refusals::a_dangerous_configuration_is_not_served",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 59,
        title: "An approval that is forged, replayed or edited",
        shown_by: &[
            "e2e::attacks::an_accept_from_the_agents_own_client_is_no_decision",
            "server::approvals::an_answer_is_for_one_call_once",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 60,
        title: "A client that cannot be asked, or answers by itself",
        shown_by: &[
            "e2e::attacks::an_accept_from_the_agents_own_client_is_no_decision",
            "server::approvals::without_anybody_to_ask_what_must_be_asked_about_does_not_run",
            "server::approvals::a_client_is_asked_and_its_answer_recorded_as_the_clients",
        ],
        attempts: &[],
        lacks: "",
    },
];
