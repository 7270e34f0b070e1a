"""The rules of the house that a compiler does not know, checked over the sources themselves.

usage: check_sources.py [ROOT]

Prints `file:line: rule: what is wrong` for every violation; exit status 1 if there is any.
Each rule is one function that takes a `Source` and yields (line, message) pairs; `RULES` says which
files it looks at. `test_lint.py` plants a violation of every rule, and finds a rule without one.
"""

import fnmatch
import os
import re
import sys

FOLDERS = ("manager", "worker-sdk", "config", "tests", "packaging", "docs", "cmake", ".ci")
TEXT = (".cpp", ".hpp", ".h", ".c", ".py", ".js", ".php", ".sh", ".txt", ".cmake", ".md", ".yaml",
        ".json")
MAX_LINES = 700

SPAWNER = "manager/runtime/spawner.cpp"
REAPER = "manager/runtime/child_watch.cpp"
DETACHER = "manager/runtime/background.hpp"
USER_ASKER = "manager/control/socket_path.cpp"
SCHEMA = "config/schema/ostler.schema.json"  # a table, and editors want it whole

# Comments and literals, so that no rule is broken by prose. The order matters: the first that
# matches at a place wins.
CPP_TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)"
    r'|R"(?P<mark>[^(\s]{0,16})\(.*?\)(?P=mark)"'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<!\w)'(?:\\.|[^'\\\n])+'",
    re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(<[^>]*>|"[^"]*")', re.MULTILINE)


def blank(text):
    """Spaces of the same shape, so that line numbers stay right."""
    return re.sub(r"[^\n]", " ", text)


class Source:
    """One file: `text` as it is, `code` without comments and literals, `includes` by line."""

    def __init__(self, path, text):
        self.path = path
        self.text = text
        self.code = CPP_TOKEN.sub(lambda match: blank(match.group()), text)
        bare = CPP_TOKEN.sub(
            lambda match: blank(match.group()) if match.group("comment") else match.group(), text)
        self.includes = [(self.line(bare, match.start(1)), match.group(1))
                         for match in INCLUDE.finditer(bare)]

    @staticmethod
    def line(text, position):
        return text.count("\n", 0, position) + 1

    def find(self, pattern, text=None):
        """Yields (line, matched words) for every place in the code, or in `text`."""
        text = self.code if text is None else text
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield self.line(text, match.start()), match.group().strip()


# --- Who may know whom ----------------------------------------------------------------------------

NOT_PURE = {"atomic", "condition_variable", "filesystem", "fstream", "future", "iostream", "mutex",
            "random", "stop_token", "syncstream", "thread"}


def core_includes(source):
    for line, name in source.includes:
        if name.startswith('"') and not name.startswith('"core/'):
            yield line, f"the core includes {name}; it knows only itself"
        if name.startswith("<") and not re.fullmatch(r"<[a-z_0-9]+>", name):
            yield line, f"the core includes {name}; only the standard C++ library is allowed"
        if name.strip("<>") in NOT_PURE:
            yield line, f"the core includes {name}; it has no clock, I/O, threads or random source"


def core_pure(source):
    for line, words in source.find(r"\b\w+_clock::now\b|\bstd::rand\b|\bgetenv\b"):
        yield line, f"'{words}' in the core: time and chance come in with the event"


def core_default(source):
    for line, _ in source.find(r"\bdefault\s*:(?!:)"):
        yield line, "'default:' hides an unanswered (state, event) pair; name every case"


def refuse_includes(*patterns):
    def rule(source):
        for line, name in source.includes:
            if any(fnmatch.fnmatch(name[1:-1], pattern) for pattern in patterns):
                yield line, f"{name} is not for {source.path.rsplit('/', 1)[0]}"
    return rule


# --- What may be done where -----------------------------------------------------------------------

NOT_A_MEMBER = r"(?<![\w.>~])(?:::|std::)?"


def spawn_calls(source):
    # With an argument: many a class has a clone() of its own.
    calls = (r"v?fork\s*\(|(?:clone3?|posix_spawnp?|exec[lv]p?e?|execvpe|fexecve|execveat)"
             r"\s*\(\s*[^)\s]")
    numbers = r"\b(?:SYS|__NR)_(?:v?fork|clone3?|execve|execveat)\b"
    for line, words in source.find(rf"{NOT_A_MEMBER}\b(?:{calls})|{numbers}"):
        yield line, f"'{words.split('(')[0]}': only {SPAWNER} starts processes"


def reap_calls(source):
    for line, words in source.find(r"\bwaitpid\s*\(\s*-\s*1\b|\bwaitid\s*\(\s*P_ALL\b"):
        yield line, f"'{words}': only {REAPER} waits for children it does not know"


def shell_calls(source):
    for line, words in source.find(NOT_A_MEMBER + r"\b(?:system|popen)\s*\("):
        yield line, f"'{words.rstrip('( ')}' runs a shell"


def sleep_calls(source):
    calls = NOT_A_MEMBER + r"\b(?:u|nano|clock_nano)?sleep\s*\("
    for line, words in source.find(r"\bsleep_(?:for|until)\b|" + calls):
        if "NOLINT(sleep): " not in source.text.splitlines()[line - 1]:
            yield line, (f"'{words.rstrip('( ')}': wait for an event with a deadline; between two "
                         "looks at something, or to let time pass, say '// NOLINT(sleep): why'")


def detached(source):
    for line, _ in source.find(r"\bdetached\b"):
        yield line, f"'detached' swallows what a coroutine throws: use the helper in {DETACHER}"


# --- How a file looks -----------------------------------------------------------------------------

def header_guard(source):
    if not re.search(r"^#pragma once$", source.text, re.MULTILINE):
        yield 1, "a header has '#pragma once'"


def header_comment(source):
    if not source.text.startswith(("//", "/*")):
        yield 1, "a header starts with a comment: what it is for, who owns what, what must hold"


def length(source):
    lines = source.text.count("\n")
    if lines > MAX_LINES:
        yield lines, f"{lines} lines; {MAX_LINES} are the most"


def local_paths(source):
    for line, words in source.find(r"(?<![\w.*])/(?:home|root|Users|work)/[\w.-]*", source.text):
        yield line, f"'{words}' is a path of one machine"


def leftovers(source):
    for line, words in source.find(r"\b(?:[T]ODO|[F]IXME|[X]XX|[H]ACK)\b", source.text):
        yield line, f"'{words}': do it, or leave it out"


def silenced(source):
    for line, words in source.find(r"\bNOLINT(?:NEXTLINE|BEGIN|END)?\b(?!\()", source.text):
        yield line, f"'{words}' silences everything; name the check"


CPP = ("*.cpp", "*.hpp", "*.h", "*.c")

# name: (rule, where it applies, where it does not)
RULES = {
    "core-includes": (core_includes, ["manager/core/*"], []),
    "core-pure": (core_pure, ["manager/core/*"], []),
    "core-default": (core_default, ["manager/core/*"], []),
    "config-includes": (refuse_includes("manager/*", "core/*", "control/*", "runtime/*", "daemon/*",
                                        "ctl/*", "ostler/*", "worker-sdk/*", "boost/*"),
                        ["config/*"], []),
    "control-includes": (refuse_includes("runtime/*", "daemon/*", "ctl/*", "manager/*",
                                         "boost/asio*", "boost/beast*", "boost/process*", "sys/*",
                                         "netinet/*", "arpa/*"),
                         ["manager/control/*"], [USER_ASKER]),
    "ctl-includes": (refuse_includes("core/*", "runtime/*", "daemon/*", "manager/*"),
                     ["manager/ctl/*"], []),
    "sdk-includes": (refuse_includes("core/*", "control/*", "runtime/*", "daemon/*", "ctl/*",
                                     "manager/*", "config/*"),
                     ["worker-sdk/*"], []),
    "spawn": (spawn_calls, ["manager/*"], [SPAWNER]),
    "reap": (reap_calls, ["manager/*"], [REAPER]),
    "shell": (shell_calls, ["*"], []),
    # The worker that misbehaves on command is slow on command.
    "sleep": (sleep_calls, ["manager/*", "config/*", "tests/*"], ["tests/system/worker/*"]),
    "detached": (detached, ["*"], [DETACHER]),
    "header-guard": (header_guard, ["*.hpp", "*.h"], []),
    "header-comment": (header_comment, ["*.hpp", "*.h"], []),
    "length": (length, ["*"], [SCHEMA]),
    "local-paths": (local_paths, ["*"], []),
    "leftovers": (leftovers, ["*"], []),
    "silenced": (silenced, ["*"], []),
}
# These look at every text file; the others at C and C++ alone.
ANY_TEXT = {"length", "local-paths", "leftovers"}


def violations(source):
    """Yields (line, rule, message) for one file."""
    def matches(patterns):
        return any(fnmatch.fnmatch(source.path, pattern) for pattern in patterns)
    for name, (rule, where, but) in RULES.items():
        if (name in ANY_TEXT or matches(CPP)) and matches(where) and not matches(but):
            for line, message in rule(source):
                yield line, name, message


def sources(root):
    """The project's text files, by path from the root."""
    paths = [name for name in os.listdir(root) if os.path.isfile(os.path.join(root, name))]
    for folder in FOLDERS:
        for place, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = [name for name in folders if name != "__pycache__"]
            paths += [os.path.relpath(os.path.join(place, name), root) for name in names]
    for path in sorted(paths):
        if path.endswith(TEXT) or path in ("dev", ".ci/run", ".clang-tidy"):
            with open(os.path.join(root, path), encoding="utf-8") as file:
                yield Source(path, file.read())


def main(arguments):
    root = arguments[0] if arguments else os.path.join(os.path.dirname(__file__), "..", "..")
    count = 0
    for source in sources(root):
        for line, name, message in violations(source):
            print(f"{source.path}:{line}: {name}: {message}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
