//! Ways to hide a command from whoever reads it. No rule about commands takes part here: it is the jail that must hold.

use std::process::{Command, Stdio};

use crate::outside::Outside;
use crate::support::Scene;

/// A program that may be missing on this machine, and a script; `@` is the path of a file outside.
const WAYS: &[(&str, &str)] = &[
    ("cat", "cat @"),
    ("cat", "/bin/cat @"),
    ("cat", "c''at @"),
    ("cat", "\\cat @"),
    ("cat", "$(echo cat) @"),
    ("cat", "`echo cat` @"),
    ("cat", "$(echo Y2F0 | base64 -d) @"),
    ("cat", "a=ca b=t; $a$b @"),
    ("cat", "cat @*"),
    ("cat", "true\ncat @"),
    ("cat", "true;cat @"),
    ("cat", "false||cat @"),
    ("cat", "eval 'cat @'"),
    ("cat", "sh -c 'cat @'"),
    ("cat", "env cat @"),
    ("cat", "exec cat @"),
    ("cat", "command cat @"),
    ("cat", "cat < @"),
    ("cat", "(exec 9<@; cat <&9)"),
    ("cat", "cat <<END\n$(cat @)\nEND"),
    ("cat", "echo cat @ | sh"),
    ("cat", "echo 'cat @' > script; . ./script"),
    ("cat", "trap 'cat @' EXIT"),
    ("cat", "cat /proc/self/root@"),
    ("cat", "cat /proc/$$/cwd/../../../../../..@"),
    ("cat", "cd / && cat .@"),
    ("cat", "cat link"),
    ("bash", "bash -c 'cat <(cat @)'"),
    ("bash", "bash -c 'echo $(<@)'"),
    ("xargs", "echo @ | xargs cat"),
    ("timeout", "timeout 5 nice setsid -w cat @"),
    ("cp", "cp @ copy && cat copy"),
    ("ln", "ln -f @ hard && cat hard"),
    ("ln", "ln -sf @ soft && cat soft"),
    ("dd", "dd if=@"),
    ("awk", "awk 1 @"),
    ("awk", "awk 'BEGIN { system(\"cat @\") }'"),
    ("sed", "sed -n p @"),
    ("sed", "echo | sed '1e cat @'"),
    ("find", "find @ -exec cat {} \\;"),
    ("find", "find . -maxdepth 0 -exec cat @ \\;"),
    (
        "tar",
        "tar cf /dev/null --checkpoint=1 --checkpoint-action=exec='cat @' link",
    ),
    ("tar", "tar cPf - @ | tar xPOf -"),
    ("git", "git -c alias.x='!cat @' x"),
    ("git", "git diff --no-index /dev/null @"),
    ("python3", "python3 -c \"print(open('@').read())\""),
    ("perl", "perl -pe '' @"),
    ("perl", "perl -e 'exec \"cat\", \"@\"'"),
];

const SECRET: &str = "the canary";

#[tokio::test]
async fn no_way_of_saying_it_reads_a_file_outside() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let outside = Outside::new(&scene)?;
    let canary = outside.canary();
    let mut shown_outside = 0;
    for (program, script) in WAYS {
        let script = script.replace('@', &canary.to_string_lossy());
        let inside = scene.shell(&script).await?;
        assert!(
            !(inside.stdout + &inside.stderr).contains(SECRET),
            "{script}"
        );
        let control = Command::new("/bin/sh")
            .args(["-c", &script])
            .current_dir(scene.path())
            .stdin(Stdio::null())
            .output()?;
        if String::from_utf8_lossy(&control.stdout).contains(SECRET) {
            shown_outside += 1;
            continue;
        }
        let found = Command::new("/bin/sh")
            .args(["-c", &format!("command -v {program}")])
            .output()?;
        assert!(
            !found.status.success(),
            "outside too it shows nothing: {script}"
        );
    }
    assert!(shown_outside > 30, "only {shown_outside} controls");
    Ok(())
}
