//! Tries, from wherever it is started, what a jailed command must not be able to do, and tells what happened, one JSON line a case.
fn main() {
    mcp_bash_commander::jail::Launcher::serve_if_asked();
}
