"""Runs clang-tidy over what a build compiles, and remembers what passed.

usage: tidy.py BUILD [FILE]...

A file takes ten seconds or more, so one that passed is not looked at again until it, a header of
the project that it includes, or .clang-tidy changes: BUILD/tidy holds an empty file for each
content that passed. Which headers those are, ninja knows from compiling. With FILEs, only those.
"""

import concurrent.futures
import hashlib
import os
import re
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
TIDY = "clang-tidy-14"
# The commands are those of whatever compiler built it; GCC has warnings that Clang does not know.
NO_GCC = "--extra-arg=-Wno-unknown-warning-option"


def compiled(build):
    """The project's source files that ninja compiled, each with the project's headers it read."""
    result = {}
    files = []
    record = subprocess.run(["ninja", "-C", build, "-t", "deps"], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    for line in record.splitlines():
        if not line.startswith(" "):
            files = []
        elif line.strip():
            path = os.path.realpath(os.path.join(build, line.strip()))
            if path.startswith(ROOT + "/") and not path.startswith(build + "/"):
                files.append(path)
                result[files[0]] = files
    # Not ours but Boost's own sources, compiled once.
    return {source: files for source, files in result.items()
            if not source.startswith(ROOT + "/cmake/")}


def stamp(build, files):
    digest = hashlib.sha256()
    for path in [os.path.join(ROOT, ".clang-tidy"), *files]:
        with open(path, "rb") as file:
            digest.update(path.encode() + b"\0" + hashlib.sha256(file.read()).digest())
    return os.path.join(build, "tidy", digest.hexdigest())


def only_in_libraries(report):
    """True if the analyser alone complains, and of headers that are not ours: Clang 14's does not
    understand coroutines, and takes Boost's for faulty."""
    findings = re.findall(r"^(/[^:\n]+):\d+:\d+: (?:warning|error): .*\[([^,\]]+)", report,
                          re.MULTILINE)
    return bool(findings) and all(check.startswith("clang-analyzer-") and
                                  not file.startswith(ROOT + "/") for file, check in findings)


def check(build, source, files):
    """True if `source` is in order."""
    passed = stamp(build, files)
    if os.path.exists(passed):
        return True
    print(f"{TIDY} {os.path.relpath(source, ROOT)}", flush=True)
    run = subprocess.run([TIDY, "-p", build, "--quiet", NO_GCC, source], text=True, check=False,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if run.returncode == 0 or only_in_libraries(run.stdout):
        open(passed, "w", encoding="ascii").close()
        return True
    print(run.stdout or run.stderr, flush=True)
    return False


def main(arguments):
    if not arguments:
        sys.exit(__doc__)
    build = os.path.realpath(arguments[0])
    sources = compiled(build)
    if arguments[1:]:
        wanted = {os.path.realpath(path) for path in arguments[1:]}
        if wanted - set(sources):
            sys.exit(f"not compiled in {arguments[0]}: " + ", ".join(sorted(wanted - set(sources))))
        sources = {source: files for source, files in sources.items() if source in wanted}
    os.makedirs(os.path.join(build, "tidy"), exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        good = list(pool.map(lambda item: check(build, *item), sorted(sources.items())))
    print(f"{TIDY}: {good.count(True)} files in order, {good.count(False)} not")
    return 0 if good and all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
