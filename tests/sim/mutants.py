"""Mistakes made on purpose in the source of what decides, each of which its simulator must find.

usage: mutants.py BUILD_INFO [NAME...]

BUILD_INFO is a JSON file written by CMake: the list of mistakes, the folder they are made in, how
many events are simulated, the compiler, flags and the libraries to link with. Every mutant is one
replacement in one file, made in a copy; only that file is compiled, and linked before the library
that holds the true one. A mutant that no longer applies, does not compile or survives is a failure:
either the list or the oracle has fallen behind.
"""

import concurrent.futures
import importlib
import json
import os
import subprocess
import sys
import tempfile


SEED = "20231"


def fault(name, what):
    return name, False, what


def compiler(info):
    return [info["compiler"], *info["flags"], "-O1", "-w"]


def precompile(info, folder):
    """What every file of the core includes, read once; most of a compilation is this."""
    header = os.path.join(folder, "core.hpp")
    with open(header, "w", encoding="utf-8") as file:
        file.write('#include <algorithm>\n#include <tuple>\n#include "core/machine.hpp"\n')
    subprocess.run([*compiler(info), "-x", "c++-header", header, "-o", header + ".gch"], check=True)


def run(mutant, info, folder):
    """Name, whether the mutant was found, and how; or why not."""
    name, file, old, new = mutant
    with open(os.path.join(info["sources"], file), encoding="utf-8") as source:
        text = source.read()
    if text.count(old) != 1:
        return fault(name, f"{file} has {text.count(old)} places that fit: {old!r}")
    path = os.path.join(folder, name)
    header = os.path.join(folder, "core.hpp")
    with open(path + ".cpp", "w", encoding="utf-8") as target:
        target.write(text.replace(old, new))
    compiled = subprocess.run(
        [*compiler(info), "-include", header, "-c", path + ".cpp", "-o", path + ".o"],
        capture_output=True, text=True, check=False)
    if compiled.returncode != 0:
        return fault(name, "does not compile: " + compiled.stderr[-600:])
    linked = subprocess.run([info["compiler"], path + ".o", *info["libraries"], "-o", path],
                            capture_output=True, text=True, check=False)
    if linked.returncode != 0:
        return fault(name, "does not link: " + linked.stderr[-600:])
    try:
        played = subprocess.run([path, "--seed", SEED, "--events", info["events"], "--show", "0"],
                                capture_output=True, text=True, check=False, timeout=240)
    except subprocess.TimeoutExpired:
        return name, True, "does not come to an end"
    os.unlink(path)
    if played.returncode == 0:
        return fault(name, f"survived {info['events']} events")
    lines = [line for line in played.stdout.splitlines() if line.startswith("broken")]
    return name, True, lines[-1] if lines else f"crashed, status {played.returncode}"


def main(arguments):
    with open(arguments[0], encoding="utf-8") as file:
        info = json.load(file)
    mutants = importlib.import_module(info["list"]).MUTANTS
    wanted = [mutant for mutant in mutants if not arguments[1:] or mutant[0] in arguments[1:]]
    missed = 0
    healthy = subprocess.run([info["simulator"], "--seed", SEED, "--events", info["events"]], check=False)
    if healthy.returncode != 0:
        print("the true source is found faulty: no mutant can be told from it")
        return 1
    with tempfile.TemporaryDirectory(prefix="ostler-mutants-") as folder:
        precompile(info, folder)
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for name, found, what in pool.map(lambda mutant: run(mutant, info, folder), wanted):
                print(f"{'found ' if found else 'MISSED'} {name:28} {what}", flush=True)
                missed += not found
    print(f"{len(wanted) - missed} of {len(wanted)} mutants were found")
    return 1 if missed or not wanted else 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.exit(main(sys.argv[1:]))
