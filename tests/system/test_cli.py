"""ostlerd's command line."""

import os
import subprocess

import pytest
import yaml

from ostler import ANY_PORT, example, program, scripted
from processes import eventually


def ostlerd(*args, **options):
    return subprocess.run([program("ostlerd"), *map(str, args)], capture_output=True, text=True,
                          timeout=20, check=False, **options)


def test_check_says_whether_a_file_is_good_and_starts_nothing(manager):
    one = manager({"web": example()}, start=False)
    done = ostlerd("--check", "--config", one.file)
    assert done.returncode == 0 and "is good" in done.stdout
    assert not os.path.exists(one.socket)


def test_check_says_every_fault_of_every_file(manager):
    one = manager({"web": {**example(), "wrokers": 3}}, include=["more-*.yaml"], start=False)
    (one.directory / "more-1.yaml").write_text("pools:\n  api:\n    command: [/no/such/program]\n")
    (one.directory / "more-2.yaml").write_text("pools:\n  web: {command: [sh]}\n")
    done = ostlerd("--check", "--config", one.file)
    assert done.returncode == 2
    assert f"{one.file}:" in done.stderr and "did you mean 'workers'?" in done.stderr
    assert f"{one.directory}/more-1.yaml:3:" in done.stderr
    assert f"{one.directory}/more-2.yaml:2:" in done.stderr
    assert "3 faults" in done.stderr
    same = subprocess.run([program("ostlerctl"), "config", "check", one.file],
                          capture_output=True, text=True, check=False)
    assert same.returncode == 1
    assert "did you mean 'workers'?" in same.stdout + same.stderr


def test_check_may_run_beside_a_manager_with_the_same_file(manager):
    one = manager({"web": example(workers=1)})
    assert ostlerd("--check", "--config", one.file).returncode == 0
    assert one.fetch()[0] == 200


@pytest.mark.parametrize("keys", [
    {"spawn": "template"}, {"limits": {"memory": "1G"}}, {"affinity": "auto"},
    {"sandbox": {"private_tmp": True}}])
def test_what_comes_later_is_refused_and_not_ignored(manager, keys):
    one = manager({"web": {**example(), **keys}}, start=False)
    done = ostlerd("--check", "--config", one.file)
    assert done.returncode == 2
    assert "not available in this version" in done.stderr


def test_the_effective_configuration_reads_back_the_same(manager):
    pool = example(env={"A": "x: 'y'"}, replace={"surge": "50%", "settle": "1500ms"},
                   listen=[ANY_PORT, {"address": "unix:@x", "name": "admin", "backlog": 9}])
    one = manager({"web": pool}, defaults={"timeouts": {"stop": "2m"}}, start=False)
    first = ostlerd("--print-config", "--config", one.file)
    assert first.returncode == 0
    printed = yaml.safe_load(first.stdout)
    assert printed["pools"]["web"]["env"] == {"A": "x: 'y'"}
    again = one.directory / "again.yaml"
    again.write_text(first.stdout)
    again.chmod(0o644)
    second = ostlerd("--print-config", "--config", again)
    assert second.stdout == first.stdout


# What is refused, where in the line, and a word of what is said.
SHARING_FAULTS = [
    ("listen: [unix:@web]\n    accept: reuseport", 4, 14, "on tcp alone"),
    ("accept: dispatch", 4, 13, "'web' has none"),
    ("listen: [tcp://127.0.0.1:0]\n    dispatch: random", 5, 15, "goes with accept: dispatch"),
    ("listen: [tcp://127.0.0.1:0]\n    accept: dispatch\n    socket_protocol: fastcgi", 5, 13,
     "speak fastcgi"),
    ("listen: [tcp://127.0.0.1:0]\n    accept: dispatch\n    env: {FD: '{fd}'}", 6, 15,
     "no listener"),
    ("workers: {min: 2}", 4, 14, "needs a 'max'"),
    ("workers: {max: 2, min: 3}", 4, 20, "below min, which is 3"),
    ("workers: {max: 2, target: 1.5}", 4, 31, "or use by: backlog"),
    ("workers: {max: 2, min: 0}", 4, 28, "no listener"),
    ("workers: {max: 2, by: backlog}", 4, 27, "the pool has none")]


@pytest.mark.parametrize("lines, line, column, said", SHARING_FAULTS)
def test_faults_of_sharing_and_scaling_are_told_at_their_place(tmp_path, lines, line, column, said):
    file = tmp_path / "ostler.yaml"
    file.write_text(f"pools:\n  web:\n    command: [sh]\n    {lines}\n")
    file.chmod(0o600)
    done = ostlerd("--check", "--config", file)
    assert done.returncode == 2
    assert f"{file}:{line}:{column}: pools.web." in done.stderr and said in done.stderr
    assert "1 fault in the configuration" in done.stderr


def test_sharing_and_scaling_read_back_the_same(tmp_path):
    file = tmp_path / "ostler.yaml"
    file.write_text("""
defaults: {accept: reuseport, workers: {by: backlog, target: 2.5}, dispatch: random}
pools:
  many: {command: [sh], listen: ["tcp://127.0.0.1:0"], workers: {min: 0, max: 9}}
  even: {command: [sh], listen: ["unix:@x"], accept: dispatch, workers: 3}
""")
    file.chmod(0o600)
    first = ostlerd("--print-config", "--config", file, "--set", "pools.many.workers.up_after=90s")
    assert first.returncode == 0, first.stderr
    pools = yaml.safe_load(first.stdout)["pools"]
    assert pools["many"]["accept"] == "reuseport" and "dispatch" not in pools["many"]
    assert pools["many"]["workers"] == {"min": 0, "max": 9, "by": "backlog", "target": 2.5,
                                        "up_after": "90s", "down_after": "1m"}
    assert (pools["even"]["accept"], pools["even"]["dispatch"]) == ("dispatch", "random")
    file.write_text(first.stdout)
    assert ostlerd("--print-config", "--config", file).stdout == first.stdout


def test_sharing_and_scaling_without_a_file():
    done = ostlerd("--print-config", "--listen", ANY_PORT, "--accept", "dispatch", "--dispatch",
                   "round_robin", "--workers-max", 8, "--workers-target", 0.5, "--", "sh")
    assert done.returncode == 0, done.stderr
    pool = yaml.safe_load(done.stdout)["pools"]["app"]
    assert pool["dispatch"] == "round_robin"
    assert (pool["workers"]["min"], pool["workers"]["max"], pool["workers"]["target"]) == (1, 8, 0.5)
    done = ostlerd("--workers", 3, "--workers-max", 8, "--", "sh")
    assert done.returncode == 2 and "contradicts --workers" in done.stderr


def test_set_overrides_values_of_the_file(manager):
    one = manager({"web": example(workers=1)}, args=[
        "--set", "pools.web.workers=3", "--set", "pools.web.timeouts.stop=5s"])
    assert one.pool()["target"] == 3
    assert one.reload()["outcome"] == "reloaded"
    assert one.pool()["target"] == 3
    done = ostlerd("--check", "--config", one.file, "--set", "pools.web.wrokers=3")
    assert done.returncode == 2 and "pools.web.wrokers" in done.stderr


def test_a_pool_without_a_file(manager):
    one = manager(start=False)
    one.prefix = [program("ostlerd"), "--socket", one.socket, "--listen", ANY_PORT, "--listen",
                  f"unix://{one.directory}/app.sock", "--workers", "3", "--ready", "notify",
                  "--timeouts-stop", "5s", "--", program("ostler-test-worker"), "--print", "hi"]
    one.launch = lambda: launch_as_it_is(one)
    one.start()
    assert one.pool("app")["target"] == 3
    assert one.fetch(pool="app")[0] == 200
    assert one.status()["config"] is None
    assert len(one.pool("app")["listeners"]) == 2
    assert one.reload()["outcome"] == "reloaded"
    shown = yaml.safe_load(one.get("/v1/config").text)
    assert shown["pools"]["app"]["ready"] == "notify"


def launch_as_it_is(one):
    with open(one.log_file, "ab") as log:
        one.process = subprocess.Popen(one.prefix, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, env=one.env, cwd=one.directory)
    return one


def test_faults_of_the_command_line_are_told_in_its_own_words():
    done = ostlerd("--workers", "many", "--", "/bin/true")
    assert done.returncode == 2 and "--workers" in done.stderr
    done = ostlerd("--stop", "--", "/bin/true")
    assert done.returncode == 2
    done = ostlerd("--")
    assert done.returncode == 2 and "no command after --" in done.stderr


@pytest.mark.parametrize("option", [["--affinity", "auto"], ["--limits-memory=1G"],
                                    ["--limits-memory", "1G"], ["--spawn", "template"]])
def test_options_of_what_comes_later_are_refused_as_that(option):
    done = ostlerd(*option, "--workers", 2, "--", "/bin/true")
    assert done.returncode == 2
    assert option[0].partition("=")[0] + ": " in done.stderr
    assert "is not available in this version" in done.stderr
    assert "1 fault in the configuration" in done.stderr


def test_an_option_that_is_misspelt_is_answered_with_the_one_there_is():
    done = ostlerd("--wrokers", 2, "--", "/bin/true")
    assert done.returncode == 2
    assert "--wrokers: unknown option; did you mean 'workers'?" in done.stderr


@pytest.mark.parametrize("args", [["stray", "--", "/bin/true"], ["-x", "--", "/bin/true"],
                                  ["--workers", "2", "3", "--", "/bin/true"],
                                  ["--wrokers=2", "3", "--", "/bin/true"],
                                  ["--chekc"], ["stray"]])
def test_what_is_no_option_is_wrong_usage(args):
    done = ostlerd(*args)
    assert done.returncode == 2
    assert "Try 'ostlerd --help'" in done.stderr


def test_the_group_of_the_control_socket_may_be_a_number(manager):
    one = manager({"web": scripted()}, start=False)
    one.config["control"]["group"] = str(os.getgid())
    one.write()
    assert ostlerd("--check", "--config", one.file).returncode == 0
    one.start()
    assert os.stat(one.socket).st_gid == os.getgid()


def test_help_and_version():
    helped = ostlerd("--help")
    assert helped.returncode == 0
    for word in ("--config", "--check", "--print-config", "--listen", "--timeouts-stop", "--accept",
                 "--dispatch", "--workers-max", "Exit"):
        assert word in helped.stdout
    for word in ("--affinity", "--limits", "--sandbox-private-tmp", "template"):
        assert word not in helped.stdout
    assert ostlerd("--version").stdout.startswith("ostlerd ")


def test_a_file_that_is_not_there_or_unreadable():
    done = ostlerd("--config", "/no/such/file.yaml")
    assert done.returncode == 2 and "/no/such/file.yaml" in done.stderr
    done = ostlerd("--config", "/")
    assert done.returncode == 2


@pytest.mark.root
@pytest.mark.parametrize("what", ["file", "directory"])
def test_root_refuses_a_file_that_others_may_write(manager, what):
    one = manager({"web": example()}, start=False)
    (one.file if what == "file" else one.directory).chmod(0o666 if what == "file" else 0o777)
    one.launch()
    assert one.wait() == 2
    assert "others" in one.log() and str(one.directory) in one.log()
    one.directory.chmod(0o755)


def test_included_files_add_their_pools(manager):
    one = manager({"web": scripted()}, include=["conf.d/*.yaml"], start=False)
    folder = one.directory / "conf.d"
    folder.mkdir(mode=0o755)
    extra = folder / "api.yaml"
    extra.write_text(yaml.safe_dump({"pools": {"api": scripted(workers=2)}}))
    extra.chmod(0o644)
    one.start()
    assert one.pool("api")["ready"] == 2
    extra.unlink()
    assert one.reload()["outcome"] == "reloaded"
    assert set(one.status()["pools"]) == {"web"}


def test_by_default_the_control_socket_is_in_the_runtime_directory(manager):
    one = manager({"web": scripted()}, start=False)
    runtime = one.directory / "run"
    runtime.mkdir(mode=0o755)
    one.config["control"] = {}
    one.env["RUNTIME_DIRECTORY"] = str(runtime)
    one.socket = str(runtime / "control.sock")
    one.write().start()
    done = subprocess.run([program("ostlerctl"), "status"], capture_output=True, text=True,
                          env=one.env, check=False)
    assert done.returncode == 0 and "web" in done.stdout
    eventually(lambda: one.pool()["ready"] == 1)
