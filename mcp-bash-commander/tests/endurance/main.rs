//! What only shows after long or under load: leaks, lost output, left processes. Small numbers by default, so that every run of the
//! tests has them; the full ones with `ENDURANCE=full`. Each test tells what it saw on stderr (`--nocapture` shows it).

mod client;
mod crowd;
mod killed;
mod lost_output;
mod machine;
mod much_output;
#[path = "../common/processes.rs"]
mod processes;
#[path = "../common/program.rs"]
mod program;
mod scale;
mod soak;
