//! Cases of networks and other ways to talk.

use super::{ATTEMPTS, Case};

pub(super) const CASES: &[Case] = &[
    Case {
        number: 43,
        title: "Local sockets of the host by path",
        shown_by: &[
            ATTEMPTS,
            "e2e::attacks::planes::from_inside_the_jail_nothing_of_the_registry_can_be_reached",
        ],
        attempts: &["connect a local socket"],
        lacks: "",
    },
    Case {
        number: 44,
        title: "Abstract sockets of the host",
        shown_by: &[ATTEMPTS],
        attempts: &["connect an abstract socket"],
        lacks: "",
    },
    Case {
        number: 45,
        title: "A socket in the workspace, to lure the host",
        shown_by: &[
            ATTEMPTS,
            "lib::workspace::pipes_sockets_devices_and_folders_are_no_files",
        ],
        attempts: &["bind a socket in the workspace"],
        lacks: "",
    },
    Case {
        number: 46,
        title: "Every kind of network socket",
        shown_by: &[
            ATTEMPTS,
            "jail::network::sockets_of_other_kinds_stay_denied_whatever_the_network",
            "jail::published::a_port_that_is_not_published_can_neither_be_bound_nor_reached",
        ],
        attempts: &[
            "TCP",
            "TCP fast open",
            "TCP fast open on connecting",
            "listen on TCP",
            "MPTCP",
            "UDP",
            "UDP-Lite",
            "SCTP",
            "DCCP",
            "SMC",
            "raw socket",
            "packet socket",
            "ICMP socket",
            "netlink",
            "vsock",
            "AF_ALG",
            "AF_KEY",
            "AF_CAN",
            "AF_RXRPC",
            "AF_QIPCRTR",
            "AF_XDP",
            "bluetooth",
            "TIPC pair",
        ],
        lacks: "",
    },
    Case {
        number: 47,
        title: "Names looked up",
        shown_by: &[
            "lib::network::names::whatever_is_sent_as_a_host_is_refused_or_resolved_as_what_was_decided_about",
            "lib::network::names::a_name_that_the_command_chose_is_looked_up_as_complete",
            "jail::network::the_host_is_reached_only_over_its_own_network_and_the_result_says_so",
        ],
        attempts: &[],
        lacks: "no test tunnels through questions about names",
    },
    Case {
        number: 48,
        title: "Destinations that two parsers read differently",
        shown_by: &[
            "lib::network::address::what_two_parsers_could_read_differently_is_refused",
            "lib::network::http::what_could_be_read_in_two_ways_is_refused_with_the_host_it_named",
            "lib::network::http::head::a_head_that_two_programs_could_read_differently_is_refused",
            "lib::network::http::a_smuggled_request_is_refused_before_anything_is_dialled",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 49,
        title: "A name that changes its address, and addresses that are not public",
        shown_by: &[
            "lib::network::names::a_name_that_changes_its_address_reaches_none_that_was_not_checked",
            "lib::network::range::only_public_unicast_addresses_are_public",
            "lib::network::allow::only_a_private_entry_lets_non_public_addresses_through",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 50,
        title: "An empty list of allowed hosts",
        shown_by: &[
            "lib::network::allow::an_empty_list_allows_nothing",
            "server::network::an_empty_list_allows_nothing_and_a_mode_is_a_limit",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 51,
        title: "A way past the proxy",
        shown_by: &[
            "jail::network::the_host_is_reached_only_over_its_own_network_and_the_result_says_so",
            "lib::network::every_way_to_name_a_proxy_is_in_the_environment",
        ],
        attempts: &[],
        lacks: "",
    },
    Case {
        number: 52,
        title: "Shared memory, semaphores, queues and keys",
        shown_by: &[ATTEMPTS],
        attempts: &[
            "attach shared memory",
            "use semaphores",
            "use a queue of messages",
            "open a POSIX queue",
        ],
        lacks: "",
    },
];
