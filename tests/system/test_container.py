"""ostlerd in a container: as process one and as nobody in particular, drained and probed as the files
in packaging/container say; and those files, held against each other and against what is built."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from control import Connection
from ostler import ANY_PORT, BIN, ROOT, example, program, scripted, shell
from processes import children, eventually, read, zombies

FOLDER = ROOT / "packaging" / "container"
KUBERNETES = FOLDER / "kubernetes"
NOBODY = 65534


def instructions(path):
    """(name, flags, arguments) of each instruction of a Dockerfile, the stages one after another."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE))
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        flags = re.match(r"(?:--\S+ +)*", rest.strip())[0]
        found.append((name, flags.split(), rest.strip()[len(flags):]))
    return found


IMAGE = instructions(FOLDER / "Dockerfile")
EXAMPLE = instructions(FOLDER / "example" / "Dockerfile")


def stages(image):
    out = []
    for name, flags, arguments in image:
        if name == "FROM":
            out.append([])
        if out:
            out[-1].append((name, flags, arguments))
    return out


def last(name, image=None):
    """The arguments of the last instruction of that name."""
    return [arguments for one, _, arguments in image or IMAGE if one == name][-1]


def packages(stage):
    """What it installs with apt-get."""
    text = " ".join(arguments for name, _, arguments in stage if name == "RUN")
    return {word for one in re.findall(r"apt-get install ([^&]*)", text)
            for word in one.split() if not word.startswith("-")}


def manifest(name):
    return yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())


def container():
    return manifest("deployment")["spec"]["template"]["spec"]["containers"][0]


HEALTHCHECK = json.loads(re.sub(r"^(--\S+ )*CMD ", "", last("HEALTHCHECK")))
STARTUP = container()["startupProbe"]["exec"]["command"]
LIVENESS = container()["livenessProbe"]["exec"]["command"]


# ---- Running

def as_somebody(*command):
    """The command as an ordinary user: nobody, if root runs the tests."""
    if os.geteuid() != 0:
        return list(command)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


CONTAINED = as_somebody("unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc",
                        "--kill-child")


@pytest.fixture
def contained(manager):
    """`contained(pools)` starts a manager as process one of its own namespace, as an ordinary user,
    with its runtime directory in a volume: somebody else's, and anybody may write there."""
    for tool in ("unshare", "nsenter", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    tried = subprocess.run([*CONTAINED, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs user and pid namespaces: {tried.stderr.strip()}")

    def make(pools, settled=True):
        one = manager(pools, start=False, prefix=CONTAINED, wrapped=True)
        one.config["control"] = {}
        one.write()
        run = one.directory / "run"
        run.mkdir()
        run.chmod(0o1777)
        one.env = {name: value for name, value in one.env.items() if name != "XDG_RUNTIME_DIR"}
        one.env["RUNTIME_DIRECTORY"] = str(run / "ostler")
        one.env["PATH"] = f"{BIN}:{one.env['PATH']}"
        one.socket = str(run / "ostler" / "control.sock")
        if settled:
            one.start()
        else:
            one.launch()
            eventually(lambda: os.path.exists(one.socket), what="a control socket")
        one.inside, = children(one.pid)
        return one
    return make


def inside(one, command, timeout=20):
    """A command in the container, as an orchestrator runs it: no shell but its own."""
    enter = ["nsenter", f"--target={one.inside}", "--user", "--pid", "--mount",
             "--preserve-credentials"]
    return subprocess.run([*as_somebody(*enter), "--", *command], env=one.env, capture_output=True,
                          text=True, timeout=timeout, check=False)


def sockets(one):
    """How many sockets the workers hold; each connection that is accepted is one more."""
    return sum(os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
               for pid in children(one.inside) for number in os.listdir(f"/proc/{pid}/fd"))


def test_process_one_is_an_ordinary_user_and_reaps_orphans(contained):
    orphans = shell("(sleep 0.1 & sleep 0.2 &); setsid sh -c 'sleep 0.1 & sleep 0.2 &'; "
                    "exec sleep 1000", workers=2, ready={"after": "10ms"})
    one = contained({"web": example(workers=2), "messy": orphans})
    assert one.status()["pid"] == 1
    status = read(one.inside, "status").decode()
    assert {int(uid) for uid in re.search(r"^Uid:(.*)", status, re.MULTILINE)[1].split()} == \
        {os.geteuid() or NOBODY}
    assert int(re.search(r"^CapEff:\s*(\w+)", status, re.MULTILINE)[1], 16) == 0
    assert one.fetch()[0] == 200
    for _ in range(2):
        eventually(lambda: len(children(one.inside)) == 4 and not zombies(one.inside),
                   what="nobody but four workers")
        assert one.reload()["outcome"] == "reloaded"
    assert one.ctl("stop").returncode == 0
    assert one.wait() == 0


def test_the_stop_signal_of_the_image_drains(contained):
    one = contained({"web": example(workers=2)})
    idle, answers = sockets(one), []

    def ask():
        connection = Connection(one_address)
        connection.request("GET", "/slow?ms=700")
        answers.append(connection.getresponse().status)
        connection.close()

    one_address = one.address()
    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    eventually(lambda: sockets(one) == idle + 4, what="requests in the hands of workers")
    os.kill(one.inside, signal.Signals[last("STOPSIGNAL")])
    for client in clients:
        client.join()
    assert answers == [200] * 4
    assert one.wait() == 0


def test_probes_tell_starting_from_running(contained):
    wait = f"while [ ! -e go ]; do sleep 0.05; done; exec {program('ostler-test-worker')}"
    one = contained({"web": {**shell(wait, ready="notify"), "listen": [ANY_PORT]}}, settled=False)
    assert inside(one, STARTUP).returncode == 1
    for probe in (LIVENESS, HEALTHCHECK):
        done = inside(one, probe)
        assert done.returncode == 0, done.stderr
    (one.directory / "go").touch()
    one.settle()
    for probe in (STARTUP, LIVENESS, HEALTHCHECK):
        done = inside(one, probe)
        assert done.returncode == 0, done.stderr


def test_probes_fail_when_no_manager_answers(contained):
    one = contained({"web": example(workers=1)})
    os.kill(one.inside, signal.SIGSTOP)
    try:
        with pytest.raises(subprocess.TimeoutExpired):  # as an orchestrator has it, which ends it
            inside(one, LIVENESS, timeout=1)
    finally:
        os.kill(one.inside, signal.SIGCONT)
    one.settle()
    assert one.ctl("stop").returncode == 0
    assert one.wait() == 0
    for probe in (LIVENESS, HEALTHCHECK, STARTUP):
        done = subprocess.run(probe, env=one.env, capture_output=True, timeout=20, check=False)
        assert done.returncode != 0


# What the filters that container runtimes load by default refuse to a process without capabilities,
# among what a process manager might want (x86-64), and with which error: clone3 with ENOSYS, so that
# the C library falls back; pidfd_getfd, kcmp, setns, unshare, mount, bpf and perf_event_open with EPERM.
REFUSED = {435: 38, 438: 1, 312: 1, 308: 1, 272: 1, 165: 1, 321: 1, 298: 1}
FILTER = f"""
import ctypes, os, struct, sys
code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
for number, error in {REFUSED}.items():
    code += [struct.pack("HBBI", 0x15, 0, 1, number), struct.pack("HBBI", 0x06, 0, 0, 0x50000 | error)]
code = b"".join([*code, struct.pack("HBBI", 0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(code)
program = struct.pack("H6xP", len(code) // 8, ctypes.addressof(buffer))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.create_string_buffer(program), 0, 0):
    raise OSError(ctypes.get_errno(), "seccomp")
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_it_runs_under_the_filter_of_a_container_runtime(manager):
    if os.uname().machine != "x86_64":
        pytest.skip("knows the numbers of system calls on x86-64 alone")
    filtered = [sys.executable, "-c", FILTER]
    tried = subprocess.run([*filtered, sys.executable, "-c", "import os; os.pidfd_open(os.getpid());"
                            "import ctypes; print(ctypes.CDLL(None).syscall(438, 3, 0, 0))"],
                           capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs seccomp: {tried.stderr.strip()}")
    assert tried.stdout == "-1\n"
    hello = {"command": [program("ostler-example-hello")], "listen": [ANY_PORT], "workers": 2}
    one = manager({"seen": scripted("--ready", "mute", workers=2),  # by its system call alone
                   "own": {**hello, "accept": "reuseport", "warmup": ["GET /"]},
                   "given": {**hello, "accept": "dispatch"},
                   "checked": {**hello, "health": {"request": "GET /", "interval": "100ms",
                                                   "timeout": "100ms"}}}, prefix=filtered)
    for name in ("seen", "own", "given", "checked"):
        assert one.fetch(pool=name)[0] == 200
    assert one.reload()["outcome"] == "reloaded"
    dead = one.pids("seen")[0]
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: dead not in one.pids("seen") and one.pool("seen")["ready"] == 2)
    assert one.fetch(pool="seen")[0] == 200


@pytest.mark.root
@pytest.mark.parametrize("share, cpus", [(0.5, 1), (1.5, 2)])
def test_auto_goes_by_the_cpu_limit_of_the_container(manager, share, cpus):
    if os.cpu_count() < cpus:
        pytest.skip(f"needs {cpus} CPUs")
    group = limited_group(share)
    try:
        script = f"echo $$ >{group}/cgroup.procs; exec \"$0\" \"$@\""
        one = manager({"web": example(workers="auto")}, prefix=["/bin/sh", "-c", script])
        assert one.pool()["target"] == 2 * cpus + 1
        assert one.stop() == 0
    finally:
        eventually(lambda: remove(group), what="an empty cgroup")


def limited_group(share):
    """A cgroup of its own that may use such a share of a CPU, as container runtimes make them."""
    name, period = f"ostler-test-{os.getpid()}", 100000
    for hierarchy, limits in (
            ("cpu", {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": int(share * period)}),
            (".", {"cpu.max": f"{int(share * period)} {period}"})):
        group = Path("/sys/fs/cgroup", hierarchy, name)
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for file, value in limits.items():
                if not (group / file).exists():
                    raise FileNotFoundError(file)
                (group / file).write_text(str(value))
            return group
        except OSError:
            group.rmdir()
    return pytest.skip("needs a cgroup with the cpu controller that may be written")


def remove(group):
    try:
        group.rmdir()
        return True
    except OSError:
        return False


# ---- The image

def allowed(name, rules):
    """Whether a path gets into the build context; the last rule that fits decides."""
    kept = True
    for rule in rules:
        keeps, pattern = rule.startswith("!"), rule.lstrip("!")
        if pattern == "*" or name == pattern or name.startswith(pattern + "/"):
            kept = keeps
    return kept


def rules():
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_what_is_copied_is_there():
    for image, context in ((IMAGE, ROOT), (EXAMPLE, FOLDER / "example")):
        copied = [arguments.split()[:-1] for name, flags, arguments in image
                  if name == "COPY" and not any(flag.startswith("--from") for flag in flags)]
        assert copied
        for name in (name for names in copied for name in names):
            assert (context / name).exists(), name
            assert context is not ROOT or name == "." or allowed(name, rules()), name


def test_what_is_built_from_gets_into_the_context_and_nothing_else_does():
    needed = {name for name in re.findall(r"^add_subdirectory\((\w[\w-]*)", (
        ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)} | {"CMakeLists.txt", "cmake"}
    assert needed >= {"config", "worker-sdk"}
    assert all(allowed(name, rules()) for name in needed)
    assert not any(allowed(name, rules()) for name in ("build", ".git", "tests", "docs", "dev"))


def test_commands_are_no_shell_s():
    assert json.loads(last("ENTRYPOINT")) == ["ostlerd"]
    assert json.loads(last("CMD")) == ["--config", "/etc/ostler/ostler.yaml"]
    for command in (HEALTHCHECK, LIVENESS):
        assert command == ["ostlerctl", "status"]
    assert last("STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("image", [IMAGE, EXAMPLE], ids=["ostler", "example"])
def test_nobody_is_root_in_the_end(image):
    uid, gid = re.fullmatch(r"(\d+):(\d+)", last("USER", image)).groups()
    assert int(uid) > 0 and int(gid) > 0
    assert last("USER", image) == last("USER")


def test_stages_that_are_copied_from_are_there():
    named = {arguments.partition(" AS ")[2] for name, _, arguments in IMAGE if name == "FROM"}
    copied = {flag.partition("=")[2] for name, flags, _ in IMAGE if name == "COPY"
              for flag in flags if flag.startswith("--from=")}
    assert copied and copied <= named


def test_the_build_installs_what_the_project_builds_with():
    text = re.search(r"^build_packages=\((.*?)\)", (ROOT / "dev").read_text(),
                     re.MULTILINE | re.DOTALL)[1]
    wanted = {word.strip('"').split(":")[0].split("|")[0] for word in text.split()}
    assert packages(stages(IMAGE)[0]) == wanted - {"doctest-dev"}


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_image_has_the_libraries_that_the_programs_need():
    if shutil.which("dpkg-query") is None or shutil.which("ldd") is None:
        pytest.skip("needs dpkg-query and ldd")
    if "bookworm" not in Path("/etc/os-release").read_text():
        pytest.skip("needs Debian 12, which the image is")
    libraries = {path for name in ("ostlerd", "ostlerctl")
                 for path in re.findall(r"=> (/\S+)", output("ldd", str(BIN / name)))}
    # By folder and name: where /lib is /usr/lib, dpkg knows a file by either.
    found = output("dpkg-query", "-S", *("*/" + "/".join(Path(path).parts[-2:])
                                         for path in libraries))
    needed = {line.split(":")[0] for line in found.splitlines()}
    assert len(needed) >= 5
    depends = dict(line.split("\t") for line in output(
        "dpkg-query", "-W", "-f", "${Package}\t${Depends}\n").splitlines())
    installed = packages(stages(IMAGE)[-1])
    assert installed <= needed, "more than is needed"
    todo, there = list(installed), set()
    while todo:
        package = todo.pop()
        if package not in there:
            there.add(package)
            todo += re.findall(r"(?:^|, )([\w.+-]+)", depends.get(package, ""))
    assert needed <= there


# ---- The manifests

def duration(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def configurations():
    yield "example", (FOLDER / "example" / "ostler.yaml").read_text()
    yield "kubernetes", manifest("configmap")["data"]["ostler.yaml"]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in configurations()])
def test_the_configurations_are_valid(text, tmp_path):
    file = tmp_path / "ostler.yaml"
    file.write_text(text.replace("directory: /srv/shop", f"directory: {FOLDER / 'example'}")
                    .replace("[uvicorn,", "[sh,"))
    file.chmod(0o600)
    done = subprocess.run([BIN / "ostlerd", "--check", "--config", file], capture_output=True,
                          text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_answers(manager):
    if shutil.which("uvicorn") is None:
        pytest.skip("needs uvicorn")
    pool = yaml.safe_load((FOLDER / "example" / "ostler.yaml").read_text())["pools"]["web"]
    one = manager({"web": {**pool, "directory": str(FOLDER / "example"), "listen": [ANY_PORT],
                           "workers": 2, "env": {"PYTHONDONTWRITEBYTECODE": "1"}}})
    assert one.fetch()[:2] == (200, "hello\n")
    assert one.fetch(container()["readinessProbe"]["httpGet"]["path"])[0] == 200
    assert one.fetch("/other")[0] == 404


def pool_of(text):
    pools = yaml.safe_load(text)["pools"]
    return pools["web"]


def test_there_is_time_to_drain():
    config = dict(configurations())
    pod = manifest("deployment")["spec"]["template"]["spec"]
    wait = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    stop = duration(pool_of(config["kubernetes"])["timeouts"]["stop"])
    assert pod["terminationGracePeriodSeconds"] >= wait + stop + 10
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["shop"]
    assert duration(compose["stop_grace_period"]) >= \
        duration(pool_of(config["example"])["timeouts"]["stop"]) + 10


def test_there_is_time_to_start():
    start = duration(pool_of(dict(configurations())["kubernetes"])["timeouts"]["start"])
    probe = container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 2 * start


def test_names_labels_and_ports_fit_together():
    deployment, service = manifest("deployment"), manifest("service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"],
                     manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    assert container()["readinessProbe"]["httpGet"]["port"] in ports
    for _, text in configurations():
        assert pool_of(text)["listen"] == [f"tcp://*:{ports['http']}"]
    assert last("EXPOSE", EXAMPLE) == str(ports["http"])
    volumes = {one["name"]: one for one in deployment["spec"]["template"]["spec"]["volumes"]}
    mounts = {one["name"]: one["mountPath"] for one in container()["volumeMounts"]}
    assert set(volumes) == set(mounts)
    assert volumes["config"]["configMap"]["name"] == manifest("configmap")["metadata"]["name"]
    assert mounts["config"] == str(Path(json.loads(last("CMD"))[1]).parent)
    # A volume is root's; ostlerd makes its own directory in it.
    runtime = re.search(r"RUNTIME_DIRECTORY=(\S+)", last("ENV"))[1]
    assert mounts["run"] == str(Path(runtime).parent)


def test_the_pod_runs_as_the_user_of_the_image_and_may_nothing():
    pod = manifest("deployment")["spec"]["template"]["spec"]["securityContext"]
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == last("USER")
    assert pod["runAsNonRoot"] is True
    own = container()["securityContext"]
    assert own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                   "capabilities": {"drop": ["ALL"]}}
    assert {"cpu", "memory"} == set(container()["resources"]["limits"])
