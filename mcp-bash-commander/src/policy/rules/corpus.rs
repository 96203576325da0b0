//! Scripts that hide a command, and scripts that have nothing to hide.

use super::{Decision, RuleTable, Rules, Verdict};

#[derive(serde::Deserialize)]
struct Policy {
    rule: Vec<RuleTable>,
}

fn rules(text: &str) -> anyhow::Result<Rules> {
    let policy: Policy = toml::from_str(text)?;
    Ok(Rules::from_tables(policy.rule)?)
}

/// What a cautious person would write.
fn cautious() -> anyhow::Result<Rules> {
    rules(
        r#"
        [[rule]]
        match = ["git", ["push", "send-pack"]]
        decision = "deny"
        reason = "leaves the machine"
        tests = { hit = ["git push origin x", "cd a && git push", "git -C dir push"], miss = ["git status", "git commit -m push"] }

        [[rule]]
        match = ["git", ["-c", "--config-env", "--exec-path"]]
        decision = "ask"
        reason = "settings of git can run programs"
        tests = { hit = ["git -c core.pager=x log"], miss = ["git -C x log"] }

        [[rule]]
        match = ["find", ["-exec", "-execdir", "-ok", "-okdir", "-delete"]]
        decision = "ask"
        tests = { hit = ["find . -name x -exec rm {} ;"], miss = ["find . -name x"] }

        [[rule]]
        match = ["tar", ["--checkpoint-action", "--to-command", "-I", "--use-compress-program"]]
        decision = "ask"
        tests = { hit = ["tar cf x --checkpoint=1 --checkpoint-action=exec=sh y"], miss = ["tar -xzf x"] }

        [[rule]]
        match = ["npx", ["-c", "--call"]]
        decision = "ask"
        tests = { hit = ["npx -c 'x'"], miss = ["npx prettier ."] }

        [[rule]]
        match = [["curl", "wget", "nc"]]
        decision = "deny"
        reason = "no downloads"

        [[rule]]
        match = ["rm", "-r"]
        decision = "ask"
        tests = { hit = ["rm -fr x", "rm x -r"], miss = ["rm x"] }
        "#,
    )
}

/// Each of them runs `git push` or `curl`, or might.
const EVASIONS: &[&str] = &[
    "git push",
    "/usr/bin/git push",
    "../bin/git push",
    "~/bin/git push",
    "\\git push",
    "!\ngit push",
    "(time; git push)",
    "g''it pu\"sh\"",
    "$'gi\\x74' push",
    "$'\\147it' push",
    "$\"git\" push",
    "gi\\\nt push",
    "git \\\n  push",
    "/usr/bin/g?t push",
    "/usr/bin/g[i]t push",
    "/usr/bin/*t push",
    "{git,push}",
    "git pus{h,}",
    "$x push",
    "g${x}it push",
    "git$IFS'push'",
    "git ${x:-push}",
    "git $(echo push)",
    "git \"$x\"",
    "$(echo git) push",
    "`echo git` push",
    "\"$(git push)\"",
    "echo \"${x:-$(git push)}\"",
    "echo ${x:-`git push`}",
    "echo ${x#`git push`}",
    "echo ${x/$(git push)/y}",
    "echo \"${x:-'}\"; git push; echo \"'}\"",
    "echo \"`echo \\`git push\\``\"",
    "echo $((1 + $(git push)))",
    "echo $(( a['$(git push)'] ))",
    "echo $[ $(git push) ]",
    "(( x = $(git push) ))",
    "((git push) )",
    "echo $((git push); echo)",
    "a[$(git push)]=1",
    "a=(x $(git push))",
    "let 'a[$(git push)]'",
    "echo ${x@P}",
    "cat <<E\n$(git push)\nE",
    "cat <<E\n`git push`\nE",
    "cat <<E\nx\nE\ngit push",
    "cat <<-E\n\tx\n\tE\ngit push",
    "cat <<'E'\nx\nE\ngit push",
    "cat <<E | git push\nx\nE",
    "cat <<E\nx\\\nE\nE\ngit push",
    "cat <<< $(git push)",
    "cat <(git push)",
    "tee >(git push)",
    "echo a > $(git push)",
    "2>&1 git push",
    ">x git push",
    "{fd}>x git push",
    "99999999999>x git push",
    "A=b git push",
    "a\ngit push",
    "a;git push",
    "a & git push",
    "a&&git push",
    "a||git push",
    "a|git push",
    "a|&git push",
    "! git push",
    "!(git push)",
    "time git push",
    "coproc git push",
    "coproc x { git push; }",
    "(git push)",
    "{ git push; }",
    "if git push; then a; fi",
    "if a; then b; elif c; then git push; fi",
    "while git push; do a; done",
    "until a; do git push; done",
    "for x in $(git push); do a; done",
    "for ((x=0; x<$(git push); x++)); do a; done",
    "for x do git push; done",
    "select x in a; do git push; done",
    "case x in $(git push)) a;; esac",
    "case x in a) b;; *) git push;; esac",
    "echo $(case x in x) git push;; esac)",
    "echo $(# a comment )\ngit push)",
    "[[ -n $(git push) ]]",
    "[[ a =~ ^(b|$(git push))$ ]]",
    "f() { git push; }; f",
    "function f { git push; }; f",
    "echo a # it's\ngit push #'",
    "echo a#b; git push",
    "eval git push",
    "eval 'git push'",
    "eval \"$x\"",
    "eval eval eval git push",
    "trap 'git push' EXIT",
    "alias x='git push'",
    "command git push",
    "builtin eval git push",
    "exec git push",
    "exec -a x git push",
    "env git push",
    "env -i A=b git push",
    "env -u X git push",
    "env -S 'git push'",
    "env --unknown x git push",
    "sudo git push",
    "sudo -u someone -- git push",
    "sudo env A=b nohup git push",
    "nohup git push",
    "setsid -w git push",
    "nice -n 10 git push",
    "nice -10 git push",
    "timeout 10 git push",
    "timeout -k 5 -s KILL 10 git push",
    "timeout --kill-after=5 10 git push",
    "stdbuf -oL git push",
    "/usr/bin/time -f %e git push",
    "\\time git push",
    "busybox wget x",
    "busybox sh -c 'git push'",
    "xargs git push",
    "echo push | xargs git",
    "echo push | xargs -I{} git {}",
    "echo push | xargs -n 1 -I x git x",
    "xargs -0 sh -c 'git push'",
    "sh -c 'git push'",
    "bash -ec 'git push'",
    "bash -o errexit -c 'git push'",
    "bash --norc -c 'git push'",
    "bash -lc 'git push'",
    "bash -c -- 'git push'",
    "bash -oc errexit 'git push'",
    "env bash -c 'git push'",
    "busybox ash -c 'git push'",
    "parallel 'git push' ::: a",
    "parallel git {} ::: push",
    "sudo -iu x git push",
    "sudo -uroot git push",
    "env -- git push",
    "exec -c git push",
    "command -p git push",
    "runuser -u x -- git push",
    "xargs --arg-file=x git push",
    "trap -- 'git push' 0",
    "! time git push",
    "bash -c \"$x\"",
    "bash -c 'sh -c \"git push\"'",
    "sh -c '\"$@\"' x git push",
    "sh -c 'git \"$1\"' x push",
    "sh script -c x; git push",
    "echo Z2l0IHB1c2g= | base64 -d | sh",
    "base64 -d x | bash -s",
    "sh <<E\ngit push\nE",
    "bash <(echo git push)",
    "bash /dev/stdin",
    "source /dev/stdin <<< 'git push'",
    ". <(echo git push)",
    "su x -c 'git push'",
    "script -qc 'git push'",
    "npx -c 'git push'",
    "watch git push",
    "watch 'a; git push'",
    "flock x git push",
    "flock x -c 'git push'",
    "git -c core.pager='sh -c x' log",
    "git --no-pager push",
    "git --git-dir=x push",
    "git --unknown x push",
    "find . -exec git push \\;",
    "find . -exec sh -c 'git push' {} +",
    "find . -name x -execdir /bin/rm {} \\;",
    "fd x --exec git push",
    "tar cf x y --checkpoint=1 --checkpoint-action=exec=sh",
    "tar -I 'sh -c x' -xf y",
    "npx --call='git push'",
    // Not scripts at all.
    "git push )",
    "git push '",
    "if git push",
    "git push && ",
    "echo \u{0} x",
];

const BENIGN: &[&str] = &[
    "",
    "\n# nothing\n",
    "git status --short",
    "git -C \"$dir\" status",
    "git commit -m \"push $(date)\"",
    "command -v git curl",
    "echo 'git push' \"curl\" # git push",
    "cat <<'E'\n$(git push)\n`curl x`\nE",
    "cat <<E\n\\$(git push) ${HOME} $((1+2)) \"it's\"\nE\n",
    "cat <<A <<-B\na\nA\n\tb\n\tB\necho done",
    "echo $'it\\'s' \"a\\\"b\" 'a\\' ; ls",
    "ls *.rs src/**/*.rs [ab]* {a,b}.txt",
    "cargo test --workspace 2>&1 | tee out.txt | tail -n 20",
    "make -j\"$(nproc)\" all &> log || { cat log; exit 1; }",
    "python3 -c 'print(\"git push\")'",
    "rm -f \"./$x\" out.txt",
    "export PATH=\"$HOME/bin:$PATH\" A=1",
    "timeout 10 cargo build",
    "find . -name '*.rs' -print0 | xargs -0 grep -n 'push'",
    "sh ./configure --prefix=/usr && bash run.sh",
    "sh -c 'cd x && make'",
    "test -f x && [ \"$a\" = b ] || [[ $c =~ ^(a|b)[0-9]+$ && ! -d \"$d\" ]]",
    "trap 'rm -f \"./$tmp\"' EXIT INT",
    "exec 3>&1 {log}>x 2>/dev/null",
    "while IFS= read -r line; do printf '%s\\n' \"$line\"; done < <(sort x)",
    "for f in *.txt; do\n  [ -e \"$f\" ] || continue\n  wc -l \"$f\"\ndone | sort",
    "for ((i = 0; i < 10; i++)); do echo $i; done",
    "for x; do echo \"$x\"; done; select y in a b; do break; done",
    "case \"$1\" in\n  -h|--help) usage ;;\n  (start) f & ;;\n  a*[0-9]|'b c') ;&\n  *) echo \"?\" >&2; exit 2\nesac",
    "declare -A m=([a]=1 [b]=\"x y\")\nfor k in \"${!m[@]}\"; do echo \"$k=${m[$k]}\"; done",
    "a=(one \"two three\" # comment\n  four)\na+=(five)\na[1]=x; m['k']=v\necho \"${a[@]:1:2}\" ${#a[@]} ${a[-1]}",
    "f() {\n  local x=${1:-default} y=\"${2##*/}\"\n  (( x > 3 )) && return $((x * 2))\n  echo \"${x//a/b}\" \"${y%.*}\" \"${x^^}\"\n}\nf 1",
    "function g() ( set -euo pipefail; cd /tmp; pwd )\ng",
    "if [ -n \"$x\" ]; then\n  :\nelif ((y)); then\n  echo y\nelse\n  echo z\nfi >out 2>&1",
    "until ping_ok; do sleep 1; done &\nwait $!",
    "echo \"$(cat <<E\nx (y\nE\n)\" `date` \"${x:-\"a b\"}\"",
    "time cargo build; ! false; coproc cat; { echo a; } 2>&1",
    "sed -n 's/a/b/p;/x/d' file | awk '{ print $1 }' > out",
    "diff <(sort a) <(sort b) >/dev/null",
    "printf '%s[%d]\\n' a 1; unset 'a[1]'",
    "ps aux | grep -v grep | awk '{print $2}' | head -n1",
    "echo a \\\n  b \\\n  c",
    "VAR=x ANOTHER='y z' make test",
    "jq -r '.a[] | select(.b == \"c\") | \"\\(.d)\"' x.json",
];

#[test]
fn a_hidden_command_is_asked_about_or_denied() -> anyhow::Result<()> {
    let rules = cautious()?;
    let missed: Vec<&str> = EVASIONS
        .iter()
        .copied()
        .filter(|script| rules.decide_shell(script).decision == Decision::Allow)
        .collect();
    assert_eq!(missed, [""; 0]);
    Ok(())
}

#[test]
fn an_ordinary_script_is_allowed() -> anyhow::Result<()> {
    let rules = cautious()?;
    let wrong: Vec<(&str, Verdict)> = BENIGN
        .iter()
        .map(|script| (*script, rules.decide_shell(script)))
        .filter(|(_, verdict)| verdict.decision != Decision::Allow)
        .collect();
    assert_eq!(wrong, []);
    Ok(())
}

#[test]
fn a_literal_command_is_denied_by_its_rule_wherever_it_stands() -> anyhow::Result<()> {
    let rules = cautious()?;
    for script in [
        "a; b && (c | git -C x push origin)",
        "for x in 1 2; do if a; then $'git' pu\\sh; fi; done",
        "echo \"${x:-`sudo -u a nice git push`}\"",
        "sh -c 'eval \"git push\"'",
        "$x; git push",
        "git push )",
    ] {
        let verdict = rules.decide_shell(script);
        assert_eq!(
            (verdict.decision, verdict.rule, verdict.reason.as_str()),
            (Decision::Deny, Some(1), "leaves the machine"),
            "{script}"
        );
    }
    Ok(())
}

#[test]
fn a_verdict_shows_the_command_it_is_about() -> anyhow::Result<()> {
    let rules = cautious()?;
    let verdict = rules.decide_shell("cd a && \"git\" -C \"$dir\" push 'origin main' &");
    assert_eq!(verdict.command, "git -C … push origin main");
    let verdict = rules.decide_shell(&format!("git push {}", "x".repeat(500)));
    assert_eq!(verdict.command.chars().count(), 160);
    Ok(())
}

#[test]
fn an_argument_vector_is_not_read_by_a_shell() -> anyhow::Result<()> {
    let rules = cautious()?;
    let decide = |argv: &[&str]| {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        rules.decide_argv(&argv).decision
    };
    assert_eq!(
        decide(&["echo", "$(git push)", ";", "git", "push"]),
        Decision::Allow
    );
    assert_eq!(decide(&["/usr/bin/git", "push"]), Decision::Deny);
    assert_eq!(decide(&["sh", "-c", "git push"]), Decision::Deny);
    assert_eq!(decide(&["env", "A=b", "git", "push"]), Decision::Deny);
    assert_eq!(decide(&["bash"]), Decision::Ask);
    Ok(())
}
