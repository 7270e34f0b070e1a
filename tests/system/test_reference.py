"""The reference of the configuration: what schema, pages and manual say is what ostlerd does; and
`ostlerctl config init`."""

import grp
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from ostler import ANY_PORT, BIN, ROOT, program

SPEC = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(SPEC)
sys.modules["generate"] = generate
SPEC.loader.exec_module(generate)
SCHEMA = generate.Schema(generate.SCHEMA.read_text())
NAMING = "# yaml-language-server: $schema=/usr/share/ostler/ostler.schema.json\n"


class Machine:
    """One on which all that the examples name is there, whoever runs the tests."""

    def __init__(self, directory):
        self.directory = directory
        self.bin = directory / "bin"
        self.env = {**os.environ, "PATH": f"{self.bin}:{BIN}:{os.environ['PATH']}"}
        for name in ("bin/uvicorn", "bin/my-server", "bin/my-check", "usr/lib/shop/web",
                     "usr/lib/shop/check"):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/bin/sh\n")
            path.chmod(0o755)
        for name in ("srv/shop", "run/shop", "run/ostler", "var/log/shop", "var/log/ostler"):
            (directory / name).mkdir(parents=True)
        (directory / "etc/shop").mkdir(parents=True)
        (directory / "etc/shop/web.env").write_text("A=1\n")
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.group = grp.getgrgid(os.getegid()).gr_name

    def here(self, text):
        text = re.sub(r"(?<![\w:/])/(?=(?:usr/lib|srv|etc)/shop)", f"{self.directory}/", text)
        text = re.sub(r"/((?:run|var/log)/(?:shop|ostler)/)", rf"{self.directory}/\1", text)
        text = re.sub(r"\buser: www-data", f"user: {self.user}", text)
        return re.sub(r"\bgroup: (?:www-data|ostler)", f"group: {self.group}", text)

    def ostlerd(self, action, text):
        file = self.directory / "ostler.yaml"
        file.write_text(self.here(text))
        file.chmod(0o600)
        return subprocess.run([program("ostlerd"), action, "--config", file], env=self.env,
                              capture_output=True, text=True, timeout=20, check=False)

    def check(self, text):
        return self.ostlerd("--check", text)

    def effective(self, text):
        done = self.ostlerd("--print-config", text)
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(done.stdout)


@pytest.fixture
def machine():
    # Of a short name: a socket's path may have 108 bytes.
    with tempfile.TemporaryDirectory(prefix="ostler-") as folder:
        Path(folder).chmod(0o755)
        yield Machine(Path(folder))


def document(key, text):
    """A whole configuration with TEXT, which is an example of KEY."""
    if key.table == "file":
        return text + ("" if key.name == "pools" else "\npools: {}") + "\n"
    pool = text
    if key.name != "command":
        pool = "command: [sh], " + pool
    if key.name != "listen" and key.table == "pool":
        pool = 'listen: ["tcp://127.0.0.1:8080"], ' + pool
    return f"pools: {{web: {{{pool}}}}}\n"


def identified(keys):
    return [pytest.param(key, id=f"{key.table}.{key.name}") for key in keys]


# ---- in step

def test_what_is_made_from_the_schema_is_in_step_with_it():
    done = subprocess.run([sys.executable, "-B", ROOT / "docs/generate.py", "--check"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_out_of_step_is_named_and_made_anew(tmp_path):
    for name in ("docs/generate.py", "docs/configuration.md", "config/schema/ostler.schema.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("packaging/man", "packaging/completions"):
        shutil.copytree(ROOT / name, tmp_path / name)
    schema = tmp_path / "config/schema/ostler.schema.json"
    schema.write_text(schema.read_text().replace('"from the stop signal to SIGKILL"', '"until killed"')
                      .replace("From the stop signal to SIGKILL.", "Until it is killed."))

    def run(*arguments):
        return subprocess.run([sys.executable, "-B", tmp_path / "docs/generate.py", *arguments],
                              capture_output=True, text=True, timeout=60, check=False)

    stale = run("--check")
    assert stale.returncode == 1
    for name in ("docs/configuration.md", "packaging/man/ostler.yaml.5", "packaging/man/ostlerd.8",
                 "packaging/completions/ostlerd.zsh", "packaging/completions/ostlerd.fish"):
        assert f"{name}: out of step" in stale.stdout
    assert run().returncode == 0
    assert run("--check").returncode == 0
    assert "Until it is killed." in (tmp_path / "docs/configuration.md").read_text()
    assert run("--chekc").returncode == 2


def test_every_key_is_in_the_page_and_in_the_manual():
    page = (ROOT / "docs/configuration.md").read_text()
    manual = (ROOT / "packaging/man/ostler.yaml.5").read_text()
    for key in SCHEMA.keys:
        assert f"`{key.name}`" in page, key.name
        full = f"listen.{key.name}" if key.table == "listener" else key.name
        assert f".It Cm {full}\n" in manual, full


def test_every_key_says_what_its_default_is():
    for key in SCHEMA.keys:
        assert key.default is not None or key.is_section, key.name


# ---- examples

EXAMPLES = [pytest.param(key, value, id=f"{key.table}.{key.name}-{number}")
            for key in SCHEMA.keys for number, value in enumerate(key.part.get("examples", []))]


@pytest.mark.parametrize("key, value", EXAMPLES)
def test_every_example_is_valid(machine, key, value):
    text = document(key, generate.example_text(key, value))
    done = machine.check(text)
    assert done.returncode == 0, text + done.stderr


def test_every_key_has_an_example():
    lacking = [key.name for key in SCHEMA.keys if not key.part.get("examples")]
    # They say nothing that their keys do not.
    assert set(lacking) <= {"timeouts", "replace", "restart", "sandbox", "worker"}


# ---- ranges

# What else has to be set so that the end of a range is not refused for another reason.
BESIDE = {"restart.backoff": {"restart.backoff_max": "365d"},
          "restart.backoff_max": {"restart.backoff": "1ms"},
          "workers.min": {"workers.max": 10000},
          "workers.target": {"workers.by": "backlog", "workers.max": 16},
          "health.interval": {"health.timeout": "1ms", "health.request": "GET /"},
          "health.timeout": {"health.interval": "365d", "health.request": "GET /"}}


def seconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(ms|[smhd])?", str(text)).groups()
    return float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit or "s"]


def octets(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]iB)?", str(text)).groups()
    return int(number) * {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]


def bounds(part):
    """The values at both ends and those beyond, or None if there are none."""
    if part.get("type") in ("integer", "number"):
        step = 1 if part["type"] == "integer" else 0.001
        ends = part["minimum"], part["maximum"]
        return ends, (ends[0] - step, ends[1] + step)
    for one in part.get("anyOf", []):
        if bounds(one):
            return bounds(one)
    kind = part.get("$ref", "").rpartition("/")[2]
    if kind not in ("duration", "pause", "size"):
        return None
    both = {**SCHEMA.definitions[kind], **part}
    least, most = both["x-least"], both["x-most"]
    if kind == "size":
        return (least, most), ([str(octets(least) - 1)] if octets(least) else []) + \
            [str(octets(most) + 1)]
    return (least, most), (["0.0s"] if seconds(least) else []) + [f"{seconds(most):.0f}.001s"]


RANGES = [key for key in SCHEMA.keys if bounds(key.part)]


@pytest.mark.parametrize("key", identified(RANGES))
def test_the_range_is_what_the_program_takes(machine, key):
    within, beyond = bounds(key.part)
    key = generate.Key(key.table, key.name,
                       {**key.part, "x-with": {**key.part.get("x-with", {}),
                                               **BESIDE.get(key.name, {})}})
    for value in within:
        text = document(key, generate.example_text(key, value))
        done = machine.check(text)
        assert done.returncode == 0, text + done.stderr
    last = key.name.rpartition(".")[2]
    for value in beyond:
        text = document(key, generate.example_text(key, value))
        done = machine.check(text)
        assert done.returncode == 2, text
        assert re.search(rf"\b{re.escape(last)}: ", done.stderr), done.stderr


def test_there_are_ranges():
    assert len(RANGES) >= 30


# ---- defaults

def leaves(value, prefix=""):
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from leaves(below, f"{prefix}{name}.")
    else:
        yield prefix[:-1], value


def alike(shown, default):
    """Whether they are the same value, as 60s and 1m are."""
    if isinstance(default, str) and re.fullmatch(r"\d+(ms|[smhd])", default):
        return seconds(shown) == seconds(default)
    return shown == (False if default == "off" else default)  # a YAML reader's off


# The least that has to be given so that what is below is in force.
GIVEN = {"workers": {"max": 16}, "recycle": {"requests": 1, "lifetime": "1d"},
         "health": {"request": "GET /"}, "listen": ["unix:@x"]}


def test_every_default_is_what_the_program_does(machine):
    defaults = {key.name: key.part["default"] for key in SCHEMA.table("pool")
                if "default" in key.part}
    plain = dict(leaves(machine.effective("pools: {web: {command: [sh]}}\n")["pools"]["web"]))
    given = machine.effective("pools: {web: {command: [sh], %s}}\n" % generate.flow(GIVEN)[1:-1])
    inside = dict(leaves(given["pools"]["web"]))
    told = {}
    for name, default in defaults.items():
        where = inside if name.rpartition(".")[0] in GIVEN else plain
        assert name in where, name
        assert alike(where[name], default), f"{name}: {where[name]!r}, not {default!r}"
        told[name] = default
    # And there is none that the schema does not tell; one depends on `user`.
    own = {"command", "sandbox.no_new_privileges"}
    assert set(plain) - set(told) == own
    spoken = {f"{name}.{key}" for name, keys in GIVEN.items() if isinstance(keys, dict)
              for key in keys}
    assert set(inside) - set(told) - spoken == {*own, "workers.target"}


def test_the_load_to_keep_to_depends_on_what_the_load_is(machine):
    said, = [key.default for key in SCHEMA.keys if key.name == "workers.target"]
    shown = [machine.effective('pools: {web: {command: [sh], listen: ["unix:@x"], workers: '
                               f'{{max: 2, by: {by}}}}}}}\n')["pools"]["web"]["workers"]["target"]
             for by in ("busy", "backlog")]
    assert said == f"{shown[0]}, with by: backlog {shown[1]}"


def test_every_default_of_the_file_and_of_listeners_is_what_the_program_does(machine):
    shown = machine.effective('pools: {web: {command: [sh], listen: ["unix:///tmp/y.sock"]}}\n')
    log = {key.name: key.part["default"] for key in SCHEMA.table("file")
           if key.name.startswith("log.")}
    assert {f"log.{name}": value for name, value in shown["log"].items()} == log
    assert shown["control"] == {}
    listener, = shown["pools"]["web"]["listen"]
    told = {key.name: key.part["default"] for key in SCHEMA.table("listener")
            if "default" in key.part}
    assert listener == {"address": "unix:///tmp/y.sock", "name": "http", **told}


def test_the_defaults_of_the_sdk_are_those_of_its_headers():
    headers = "".join((ROOT / "worker-sdk/include/ostler" / name).read_text()
                      for name in ("options.hpp", "http.hpp"))
    tried = 0
    for key in SCHEMA.table("pool"):
        said = re.fullmatch(r"the program's, else (\d+)(KiB|MiB|s)?", key.part.get("x-default", ""))
        if not said:
            continue
        last = key.name.rpartition(".")[2]
        code = re.search(rf"\b{last}(?: = |\{{)([^;}}]+)", headers)[1].replace("'", "")
        assert re.fullmatch(r"[\d* ]+", code), code
        unit = {"KiB": 2**10, "MiB": 2**20, "s": 1000, None: 1}[said[2]]
        value = 1
        for factor in code.split("*"):
            value *= int(factor)
        assert value == int(said[1]) * unit, last
        tried += 1
    assert tried == 8


# ---- the schema in editors

@pytest.mark.parametrize("file", [pytest.param(path, id=path.name) for path in (
    ROOT / "config/ostler.yaml", *sorted((ROOT / "config/examples").glob("*.yaml")))])
def test_the_files_name_the_schema(file):
    assert file.read_text().startswith(NAMING)


# ---- ostlerctl config init

def init(*arguments, **options):
    return subprocess.run([program("ostlerctl"), "config", "init", *map(str, arguments)],
                          capture_output=True, text=True, timeout=20, check=False, **options)


def start():
    done = init()
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def uncommented(text):
    """The settings that stand as comments, made into settings."""
    return re.sub(r"^#(?=[^ \n]|  )", "", text, flags=re.MULTILINE)


def test_init_lacks_nothing_but_the_program(machine):
    text = start()
    assert text.startswith(NAMING)
    assert machine.check(text).returncode == 0
    machine.env["PATH"] = os.environ["PATH"]
    done = machine.check(text)
    assert done.returncode == 2 and "1 fault" in done.stderr
    assert "pools.web.command: 'my-server' is in no folder of PATH" in done.stderr


def test_init_uncommented_is_valid_and_shows_defaults(machine):
    text = start()
    whole = uncommented(text)
    assert whole.count("\n#") < text.count("\n#")
    done = machine.check(whole)
    assert done.returncode == 0, whole + done.stderr
    plain, full = machine.effective(text), machine.effective(whole)
    assert full["log"] == plain["log"]
    examples = {"user", "sandbox", "directory", "env", "health", "recycle", "inherit_env"}
    differ = {name for name, value in full["pools"]["web"].items()
              if value != plain["pools"]["web"].get(name)}
    assert differ == examples
    commented = {name for name, _ in leaves(yaml.safe_load(whole))}
    known = {f"pools.web.{key.name}" for key in SCHEMA.table("pool")} | \
            {key.name for key in SCHEMA.table("file")}
    assert not {name for name in commented if name.startswith(("log.", "pools.web.timeouts"))} - known


def test_init_writes_a_new_file_and_never_over_another(tmp_path):
    file = tmp_path / "shop.yaml"
    done = init(file, umask=0o022)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(file) in done.stdout and "--check" in done.stdout
    assert file.read_text() == start()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    file.write_text("mine")
    done = init(file)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file} is there already; nothing was written" in done.stderr
    assert file.read_text() == "mine"
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "elsewhere.yaml")
    assert init(link).returncode == 1
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_init_says_why_it_could_not_write(tmp_path):
    done = init(tmp_path / "no" / "such.yaml")
    assert done.returncode == 1 and "No such file or directory" in done.stderr
    assert init("a", "b").returncode == 2
    full = subprocess.run(["/bin/sh", "-c", 'exec "$0" config init >/dev/full', program("ostlerctl")],
                          capture_output=True, text=True, timeout=20, check=False)
    assert full.returncode == 1 and "cannot write to standard output" in full.stderr


def test_what_init_writes_runs_once_the_program_is_put_in(manager):
    one = manager({}, start=False)
    one.file.write_text(start().replace("[my-server]", f"[{program('ostler-example-http')}]")
                        .replace('"tcp://127.0.0.1:8080"', ANY_PORT)
                        + f"control: {{socket: {one.socket}}}\n")
    one.file.chmod(0o644)
    one.start()
    assert one.pool()["ready"] == 4
    assert one.fetch()[0] == 200
