"""Completion on the command line: asked in the shells themselves, and held against --help."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ostler import BIN, ROOT, example

FOLDER = ROOT / "packaging" / "completions"
FRAMEWORK = Path("/usr/share/bash-completion/bash_completion")


def helped(*command):
    done = subprocess.run([BIN / command[0], *command[1:], "--help"], capture_output=True, text=True,
                          timeout=20, check=True)
    return done.stdout


def options_of(*command):
    """The long options that --help names, those included that may stand behind any command."""
    text = helped(*command)
    found = set(re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.MULTILINE))
    return found | ({"--socket", "--json"} if command[0] == "ostlerctl" else set())


def commands_of(*command):
    _, found, text = helped(*command).partition("Commands:\n")
    return set(re.findall(r"^  ([a-z]+)", text.split("\n\n")[0], re.MULTILINE)) if found else set()


def arguments_of(*command):
    _, found, text = helped(*command).partition("Arguments:\n")
    return re.findall(r"^  ([A-Z]+)", text.split("\n\n")[0], re.MULTILINE) if found else []


def all_commands():
    """Every command of ostlerctl, as the words that choose it."""
    for name in sorted(commands_of("ostlerctl")):
        yield (name,)
        for below in sorted(commands_of("ostlerctl", name)):
            yield (name, below)


class Shell:
    """Asks a shell what it would offer; none of the tests' own settings."""

    def __init__(self, directory, socket):
        self.directory = directory
        self.env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(directory),
                    "LC_ALL": "C.UTF-8", "TERM": "dumb", "OSTLER_SOCKET": str(socket)}

    def run(self, *command):
        done = subprocess.run(command, cwd=self.directory, env=self.env, capture_output=True,
                              text=True, timeout=20, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr
        return set(done.stdout.split("\n")) - {""}


class Bash(Shell):
    script = """
        source "$1"; source "$2"
        shift 2
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        compopt() { :; }  # there is no completion going on whose options it could change
        $(complete -p "$1" | grep -oE '_ostler\\w+') "$1" "${@: -1}" "${@: -2:1}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    def ask(self, line):
        # bash has "=" for a word of its own.
        words = [word for word in re.split(r"\s|(=)", line) if word is not None]
        return self.run("bash", "--norc", "-c", self.script, "bash", FRAMEWORK,
                        FOLDER / f"{words[0]}.bash", *words)


class Fish(Shell):
    def ask(self, line):
        script = FOLDER / f"{line.split()[0]}.fish"
        offered = self.run("fish", "--no-config", "-c",
                           f"source {script}; complete -C {shlex.quote(line)}")
        return {one.split("\t")[0] for one in offered}


class Zsh(Shell):
    """In a terminal of its own, as zsh completes nowhere else; what it offers is written down."""
    script = r"""
        zmodload zsh/zpty
        zpty asked zsh -f -i
        () {
          zpty -w asked 'PS1=; unsetopt zle_bracketed_paste; bindkey "^I" complete-word'
          zpty -w asked "fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -d $1/dump"
          zpty -w asked 'compadd() {
            if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then builtin compadd "$@"; return; fi
            local -a hits; builtin compadd -A hits "$@"; print -rl -- $hits >>'$2'; }'
          zpty -w asked 'done-now() { print -r -- ok >'$3'; }; zle -N done-now; bindkey "^T" done-now'
          zpty -w -n asked "$4"$'\t\x14'
        } "$@"
        repeat 400; do
          [[ -s $3 ]] && exit
          zpty -rt asked >/dev/null
          zselect -t 5 2>/dev/null || { zmodload zsh/zselect; zselect -t 5 }
        done
        exit 1
    """

    def ask(self, line):
        functions = self.directory / "functions"
        functions.mkdir(exist_ok=True)
        for name in ("ostlerd", "ostlerctl"):
            shutil.copy(FOLDER / f"{name}.zsh", functions / f"_{name}")
        hits, end = self.directory / "hits", self.directory / "end"
        for file in (hits, end):
            file.unlink(missing_ok=True)
        self.run("zsh", "-f", "-c", self.script, "zsh", functions, hits, end, line)
        found = set(hits.read_text().split("\n")) - {""} if hits.exists() else set()
        # Where there is nothing else it offers options, as it does for any program.
        return found if line.split(" ")[-1] else {one for one in found if not one.startswith("-")}


def need(shell):
    if shutil.which(shell.__name__.lower()) is None:
        pytest.skip(f"needs {shell.__name__.lower()}")
    if shell is Bash and not FRAMEWORK.exists():
        pytest.skip("needs bash-completion")
    return shell


SHELLS = [Bash, Zsh, Fish]


def each_shell(test):
    return pytest.mark.parametrize("shell", SHELLS, ids=lambda one: one.__name__.lower())(test)


def long(offered):
    """The long options among it; zsh marks those with a value by "="."""
    return {one.rstrip("=") for one in offered if one.startswith("--") and one != "--"}


@each_shell
def test_commands_and_options_are_those_of_help_and_no_others(shell, tmp_path):
    asked = need(shell)(tmp_path, tmp_path / "nobody.sock")
    assert asked.ask("ostlerctl ") == commands_of("ostlerctl")
    assert asked.ask("ostlerctl config ") == commands_of("ostlerctl", "config")
    assert long(asked.ask("ostlerctl --")) == options_of("ostlerctl")
    for command in all_commands():
        found = long(asked.ask(f"ostlerctl {' '.join(command)} --"))
        assert found == options_of("ostlerctl", *command), command


@each_shell
def test_pools_and_workers_of_a_running_manager_are_offered(shell, manager, tmp_path):
    need(shell)
    one = manager({"web": example(workers=2), "api_2": example(workers=0)})
    asked = shell(tmp_path, one.socket)
    offered = {"POOL": {"web", "api_2"}, "WORKER": {"web.0", "web.1"}}
    tried = set()
    for command in all_commands():
        arguments = arguments_of("ostlerctl", *command)
        if arguments and arguments[0] in offered:
            found = asked.ask(f"ostlerctl {' '.join(command)} ")
            assert found == offered[arguments[0]], command
            tried.add(arguments[0])
        elif not arguments and command != ("config",):
            assert asked.ask(f"ostlerctl {' '.join(command)} ") == set(), command
    assert tried == set(offered)
    assert asked.ask("ostlerctl scale web ") == {"auto", "reset"}
    assert asked.ask("ostlerctl status web ") == set()
    elsewhere = shell(tmp_path, tmp_path / "nobody.sock")
    assert elsewhere.ask(f"ostlerctl --socket {one.socket} status ") == offered["POOL"]
    assert elsewhere.ask(f"ostlerctl --socket={one.socket} kill ") == offered["WORKER"]
    assert elsewhere.ask(f"ostlerctl kill --socket {one.socket} ") == offered["WORKER"]


@each_shell
def test_nothing_is_offered_or_said_when_no_manager_answers(shell, tmp_path):
    asked = need(shell)(tmp_path, tmp_path / "nobody.sock")
    assert asked.ask("ostlerctl status ") == set()
    assert asked.ask("ostlerctl kill ") == set()


@each_shell
def test_files_are_offered_where_files_are_wanted(shell, tmp_path):
    asked = need(shell)(tmp_path, tmp_path / "nobody.sock")
    (tmp_path / "shop.yaml").touch()
    for line in ("ostlerctl config check sh", "ostlerctl config init sh", "ostlerctl --socket sh",
                 "ostlerd --config sh", "ostlerd --env-file sh"):
        assert asked.ask(line) == {"shop.yaml"}, line


@each_shell
def test_the_options_of_the_manager_are_those_of_help(shell, tmp_path):
    asked = need(shell)(tmp_path, tmp_path / "nobody.sock")
    assert long(asked.ask("ostlerd --")) == options_of("ostlerd")
    assert asked.ask("ostlerd --accept ") == {"shared", "reuseport", "dispatch"}
    assert asked.ask("ostlerd --worker-access-log ") == {"off", "common", "json"}
    assert asked.ask("ostlerd --timeouts-stop ") == set()


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.*")), ids=lambda file: file.name)
def test_the_syntax_is_right(file):
    shell = file.suffix[1:]
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    done = subprocess.run([shell, "-n", file], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
