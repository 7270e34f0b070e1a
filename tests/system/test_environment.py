"""What a worker finds when it starts: sockets, variables, identity, and nothing else."""

import grp
import os
import pwd
import shutil
import signal
from pathlib import Path

import pytest

from ostler import ANY_PORT, example, program, scripted, shell
from processes import eventually, read


def test_the_sockets_are_told_in_every_way(manager):
    one = manager(start=False)
    path = f"unix://{one.directory}/admin.sock"
    one.config["pools"]["web"] = scripted(listen=[{"address": ANY_PORT, "name": "public"},
                                                  {"address": path, "name": "admin"}, ANY_PORT])
    view = one.write().start().worker_view()
    env = view["env"]
    assert env["LISTEN_FDS"] == "3" and env["LISTEN_PID"] == str(view["pid"])
    assert env["LISTEN_FDNAMES"] == "public:admin:http"
    assert env["EINHORN_FD_COUNT"] == "3"
    assert [env[f"EINHORN_FD_{n}"] for n in range(3)] == ["3", "4", "5"]
    port = one.address(name="public").rsplit(":", 1)[1]
    starter = dict(item.rsplit("=", 1) for item in env["SERVER_STARTER_PORT"].split(";"))
    assert starter[f"127.0.0.1:{port}"] == "3"
    assert starter[f"{one.directory}/admin.sock"] == "4"
    assert env["NOTIFY_SOCKET"].startswith(one.socket + ".notify/")
    assert env["WATCHDOG_USEC"] == "30000000" and env["WATCHDOG_PID"] == str(view["pid"])
    assert env["OSTLER_POOL"] == "web" and env["OSTLER_SLOT"] == "0"
    assert env["OSTLER_GENERATION"] == "1"


def test_names_of_listeners_default_to_http(manager):
    one = manager({"web": scripted(listen=[ANY_PORT, ANY_PORT, ANY_PORT])})
    assert one.worker_view()["env"]["LISTEN_FDNAMES"] == "http:http1:http2"


def test_nothing_else_is_inherited(manager):
    reading, writing = os.pipe()
    one = manager({"web": scripted()}, pass_fds=(reading, writing))
    os.close(reading)
    os.close(writing)
    view = one.worker_view()
    fds = view["fds"]
    channel, scoreboard = (view["env"][f"OSTLER_{name}_FD"] for name in ("CHANNEL", "SCOREBOARD"))
    assert (channel, scoreboard) == ("4", "5")
    assert fds[channel].startswith("socket:") and "ostler-scoreboard" in fds[scoreboard]
    connection = {number for number, target in fds.items() if int(number) > 5}
    assert len(connection) == 1  # the one that asked
    assert fds["0"] == "/dev/null" and fds["3"].startswith("socket:")
    assert fds["1"] == fds["2"] and fds["1"].startswith("pipe:")


def test_output_inherit_and_null(manager):
    one = manager({"web": scripted(output="inherit"), "quiet": scripted(output="null")})
    fds = one.worker_view("web")["fds"]
    assert fds["1"] == fds["2"] == str(one.log_file)
    assert one.worker_view("quiet")["fds"]["1"] == "/dev/null"


def test_tokens_in_command_and_env(manager):
    one = manager(start=False)
    flags = ["--notify", "STATUS={fd}/{fd:admin}/{slot}/{pool}/{generation}/{x}/{"]
    one.config["pools"]["my-pool_1"] = scripted(
        *flags, listen=[ANY_PORT, {"address": ANY_PORT, "name": "admin"}],
        env={"WHERE": "{pool}.{slot}", "JSON": '{"a": {}}', "SOCKET": "/dev/fd/{fd:admin}"})
    one.write().start()
    assert one.reload()["outcome"] == "reloaded"
    worker = one.workers("my-pool_1")[0]
    assert worker["status"] == "3/4/0/my-pool_1/2/{x}/{"
    env = one.worker_view("my-pool_1")["env"]
    assert env["WHERE"] == "my-pool_1.0" and env["JSON"] == '{"a": {}}'
    assert env["SOCKET"] == "/dev/fd/4"


def test_every_slot_has_its_number(manager):
    one = manager({"web": scripted(workers=3, env={"PORT": "80{slot}"})})
    seen = {read(pid, "environ").split(b"PORT=")[1].split(b"\0")[0] for pid in one.pids()}
    assert seen == {b"800", b"801", b"802"}


GIVEN = {"SECRET": "s", "TZ": "UTC", "PATH": os.environ["PATH"], "HOME": "/nowhere", "LANG": "C"}


@pytest.mark.parametrize("inherit, expected", [
    (True, {"SECRET", "TZ", "PATH", "HOME", "LANG", "TEST_OF_OSTLER"}),
    (False, {"TZ", "PATH", "HOME", "LANG"}), (["SECRET"], {"SECRET"})])
def test_what_is_inherited_of_the_environment(manager, inherit, expected):
    one = manager({"web": scripted(inherit_env=inherit, env={"OWN": "1"})}, env=GIVEN)
    env = one.worker_view()["env"]
    assert env["OWN"] == "1"
    assert {name for name in [*GIVEN, "TEST_OF_OSTLER"] if name in env} == expected


def test_a_file_of_variables(manager):
    one = manager(start=False)
    (one.directory / "app.env").write_text("# a comment\nA=from the file\nB='quoted'\nC=file\n")
    one.config["pools"]["web"] = scripted(env_file="app.env", env={"C": "from the configuration"})
    env = one.write().start().worker_view()["env"]
    assert env["A"] == "from the file" and env["B"] == "quoted"
    assert env["C"] == "from the configuration"
    (one.directory / "app.env").write_text("A=changed\n")
    assert one.reload()["outcome"] == "reloaded"
    assert one.worker_view()["env"]["A"] == "changed"


def test_what_systemd_gave_the_manager_never_reaches_a_worker(manager):
    given = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x", "WATCHDOG_PID": "1",
             "NOTIFY_SOCKET": "@nobody-listens-here", "WATCHDOG_USEC": "3000000000",
             "FDSTORE": "9", "MAINPID": "1"}
    one = manager({"web": scripted(listen=[], timeouts={"heartbeat": "off"}, ready={"after": "1ms"})
                   }, env=given)
    worker = one.pids()[0]
    env = dict(item.split("=", 1) for item in read(worker, "environ").decode().split("\0") if item)
    assert env["NOTIFY_SOCKET"].startswith(one.socket + ".notify/")
    assert not set(given) & set(env) - {"NOTIFY_SOCKET"}


def test_directory_and_umask(manager):
    one = manager(start=False)
    (one.directory / "here").mkdir()
    one.config["pools"]["web"] = scripted(directory=str(one.directory / "here"), umask="027")
    one.config["pools"]["plain"] = scripted()
    one.write().start()
    view = one.worker_view("web")
    assert view["cwd"] == str(one.directory / "here")
    assert view["status"]["Umask"] == "0027"
    plain = one.worker_view("plain")
    assert plain["cwd"] == str(one.directory)
    own = os.umask(0)
    os.umask(own)
    assert int(plain["status"]["Umask"], 8) == own


def test_signals_are_as_new(manager):
    ignoring = ["/bin/sh", "-c", "trap '' HUP INT QUIT PIPE USR1 USR2 ALRM; exec \"$@\"", "sh"]
    one = manager({"web": scripted()}, prefix=ignoring)
    status = one.worker_view()["status"]
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) == 0


def test_signals_that_say_nothing_of_a_fault_do_not_end_the_manager(manager):
    one = manager({"web": scripted()})
    known = {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTERM, signal.SIGINT,
             signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU}
    faults = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
              signal.SIGSYS, signal.SIGTRAP}
    before = one.pids()
    hidden = {32, 33}  # the C library's own
    for number in (signal.valid_signals() | hidden) - known - faults:
        os.kill(one.pid, number)
    one.ctl("recycle", "web.0")
    assert one.pids() != before
    assert int(one.worker_view()["status"]["SigIgn"], 16) == 0


def test_a_limit_of_file_size_does_not_end_the_manager(manager):
    one = manager(start=False, prefix=["/bin/sh", "-c", "ulimit -f 64; exec \"$@\"", "sh"])
    log = one.directory / "manager.log"
    one.config["log"] = {"output": str(log)}
    writes = "import signal\nfor _ in range(200): print('x' * 500, flush=True)\nsignal.pause()"
    one.config["pools"] = {"web": {"command": ["/usr/bin/python3", "-S", "-c", writes]}}
    one.write().launch()
    eventually(lambda: log.exists() and log.stat().st_size == 64 * 512, what="a file that is full")
    one.ctl("recycle", "web.0")
    assert one.pool()["state"] == "running" and one.pool()["restarts"] == 0


def test_a_worker_leads_a_process_group_of_its_own(manager):
    one = manager({"web": scripted()})
    view = one.worker_view()
    assert view["pgid"] == view["pid"] and view["ppid"] == one.pid
    assert view["pdeathsig"] == signal.SIGTERM


def test_the_limit_of_open_files_is_the_one_the_manager_was_given(manager):
    one = manager({"web": scripted()}, prefix=["/bin/sh", "-c", "ulimit -Sn 333; exec \"$@\"",
                                               "sh"])
    assert one.worker_view()["open_files"] == 333


def user_with_groups():
    """Some user other than root, and the groups it is in."""
    for user in pwd.getpwall():
        groups = {group.gr_gid for group in grp.getgrall() if user.pw_name in group.gr_mem}
        if user.pw_uid != 0 and groups - {user.pw_gid}:
            return user, groups | {user.pw_gid}
    user = pwd.getpwnam("nobody")
    return user, {user.pw_gid}


@pytest.mark.root
def test_user_and_group(manager):
    user, groups = user_with_groups()
    one = manager({"web": scripted(user=user.pw_name), "own": scripted(user="nobody", group="tty")})
    status = one.worker_view("web")["status"]
    assert status["Uid"].split() == [str(user.pw_uid)] * 4
    assert status["Gid"].split() == [str(user.pw_gid)] * 4
    assert {int(group) for group in status["Groups"].split()} == groups
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert one.worker_view("own")["status"]["Gid"].split()[0] == str(grp.getgrnam("tty").gr_gid)
    assert one.worker_view("web")["pdeathsig"] == signal.SIGTERM
    assert one.reload()["outcome"] == "reloaded"


@pytest.mark.root
def test_no_program_gives_a_worker_with_a_user_more_privileges(manager):
    one = manager(start=False)
    setuid = one.directory / "setuid"
    shutil.copy("/usr/bin/id", setuid)
    setuid.chmod(0o4755)
    keys = {"user": "nobody", "listen": [], "ready": {"after": "1ms"}}
    script = f"{setuid} -u >&2; exec sleep 1000"
    one.config["pools"] = {
        "web": shell(script, **keys),
        "own": shell(script, **keys, sandbox={"no_new_privileges": False}),
        "manager": shell("exec sleep 1000", listen=[], ready={"after": "1ms"})}
    one.write().start()

    def status(pool):
        lines = Path(f"/proc/{one.pids(pool)[0]}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines)

    assert status("web")["NoNewPrivs"] == "1" and int(status("web")["CapBnd"], 16) == 0
    same = ("NoNewPrivs", "CapBnd")
    assert [status("own")[key] for key in same] == [status("manager")[key] for key in same]
    own = str(pwd.getpwnam("nobody").pw_uid)
    eventually(lambda: f"web.0[{one.pids('web')[0]}]: {own}" in one.log(), what="no other user")
    if status("own")["NoNewPrivs"] == "0":
        eventually(lambda: f"own.0[{one.pids('own')[0]}]: 0" in one.log(), what="the other user")


@pytest.mark.root
def test_supplementary_groups_of_root_do_not_stay_with_a_user(manager):
    with_group = ["/usr/bin/setpriv", "--groups", "4,20"]
    one = manager({"web": scripted(user="nobody")}, prefix=with_group)
    nobody = pwd.getpwnam("nobody")
    assert one.worker_view()["status"]["Groups"].split() == [str(nobody.pw_gid)]


@pytest.mark.root
def test_workers_of_another_user_are_reloaded_and_stopped(manager, load):
    one = manager({"web": example(workers=2, user="nobody")})
    clients = load(one.address(), clients=2, keepalive=True, pause=0.001)
    assert one.reload()["outcome"] == "reloaded"
    assert clients.stop()["lost"] == 0


@pytest.mark.root
def test_workers_that_run_as_root_because_nothing_was_said_get_a_warning(manager):
    one = manager({"web": scripted(), "meant": scripted(user="root")})
    assert "pool 'web': its workers run as root" in one.log()
    assert "pool 'meant'" not in one.log()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do all of this")
@pytest.mark.parametrize("keys", [{"user": "root"}, {"group": "root"},
                                  {"listen": ["tcp://127.0.0.1:80"]}])
def test_what_needs_root_is_refused_before_anything_starts(manager, keys):
    one = manager({"web": scripted(**keys)}, start=False).launch()
    assert one.wait() in (2, 3)
    assert "starting" not in one.log() and "ready" not in one.log()
    assert "pools.web" in one.log() or "Permission denied" in one.log()


@pytest.mark.parametrize("keys, stage", [
    ({"directory": "gone"}, "chdir"), ({"command": ["./gone.sh"]}, "exec")])
def test_a_start_that_fails_names_the_stage_and_the_object(manager, keys, stage):
    """The directory, or the program, is gone between the check and the start."""
    one = manager({"ok": scripted()}, start=False)
    place = one.directory / "gone"
    if stage == "chdir":
        place.mkdir()
        keys = {"directory": str(place)}
    else:
        shutil.copy(program("ostler-test-worker"), place)
        keys = {"command": [str(place)]}
    one.config["pools"]["web"] = {**scripted(), **keys, "restart": {"backoff": "50ms"}}
    one.write().start()
    place.rmdir() if stage == "chdir" else place.unlink()
    os.kill(one.pids()[0], signal.SIGKILL)
    said = f"could not be started: {stage} {place}: No such file or directory"
    eventually(lambda: said in one.log())
    assert said in one.pool()["last_error"]["message"]
    assert one.pool()["state"] == "degraded"


@pytest.mark.root
@pytest.mark.parametrize("stage", ["chdir", "exec"])
def test_a_start_that_is_refused_names_the_user(manager, stage):
    one = manager(start=False)
    closed = one.directory / "closed"
    closed.mkdir()
    worker = closed / "worker"
    shutil.copy(program("ostler-test-worker"), worker)
    keys = {"directory": str(closed)} if stage == "chdir" else {"command": [str(worker)]}
    one.config["pools"]["web"] = {**scripted(user="nobody"), **keys, "restart": {"backoff": "50ms"}}
    one.write().start()
    closed.chmod(0o700)
    os.kill(one.pids()[0], signal.SIGKILL)
    what = closed if stage == "chdir" else worker
    said = f"could not be started: {stage} {what} as nobody: Permission denied"
    eventually(lambda: said in one.log())
    assert said in one.pool()["last_error"]["message"]


LOGIN = ("HOME", "USER", "LOGNAME", "SHELL")


@pytest.mark.root
@pytest.mark.parametrize("given", [{"HOME": "/root", "USER": "root", "LOGNAME": "root",
                                    "SHELL": "/bin/bash", "MAIL": "x"}, {"HOME": ""}])
def test_a_user_brings_what_a_login_would_set(manager, given):
    nobody = pwd.getpwnam("nobody")
    one = manager({"by-name": scripted(user="nobody"), "by-number": scripted(user=nobody.pw_uid),
                   "listed": scripted(user="nobody", inherit_env=["HOME", "MAIL"]),
                   "unknown": scripted(user=4_000_000_000, group="nogroup"),
                   "own": scripted(user="nobody", env={"HOME": "/srv", "SHELL": ""}),
                   "none": scripted()}, env=given)
    seen = {name: one.worker_view(name)["env"] for name in one.status()["pools"]}
    login = [nobody.pw_dir, "nobody", "nobody", nobody.pw_shell]
    for name in ("by-name", "by-number", "listed"):
        assert [seen[name].get(key) for key in LOGIN] == login
    assert [seen["own"].get(key) for key in LOGIN] == ["/srv", "nobody", "nobody", ""]
    assert [seen["unknown"].get(key) for key in LOGIN] == ["/", None, None, None]
    assert seen["none"]["HOME"] == given["HOME"]
    assert seen["listed"].get("MAIL") == given.get("MAIL")


@pytest.mark.root
@pytest.mark.parametrize("output", ["forward", "file"])
def test_stdout_and_stderr_can_be_opened_by_path_as_another_user(manager, output):
    script = "echo to stdout >/dev/stdout; echo to stderr >/dev/stderr; exec sleep 1000"
    one = manager(start=False)
    log = one.log_file
    keys = {}
    if output == "file":
        folder = one.directory / "log"
        folder.mkdir()
        log = folder / "web.log"
        keys = {"output": str(log)}
    one.config["pools"]["web"] = shell(script, user="nobody", **keys)
    one.write().start()
    eventually(lambda: "to stdout\n" in log.read_text() and "to stderr\n" in log.read_text())


def test_the_command_is_looked_up_in_path_and_split_without_a_shell(manager):
    one = manager({"web": {**scripted(), "command":
                           "ostler-test-worker --notify 'STATUS=$HOME \"and\" *' --print a\\ b"}},
                  env={"PATH": os.path.dirname(program("ostlerd")) + ":" + os.environ["PATH"]})
    assert one.workers()[0]["status"] == '$HOME "and" *'
    assert one.worker_view()["argv"][-1] == "a b"


def test_a_worker_survives_where_standard_descriptors_were_closed(manager):
    one = manager({"web": scripted()}, prefix=["/bin/sh", "-c", "exec \"$@\" 0<&- 1>&-", "sh"])
    fds = one.worker_view()["fds"]
    assert fds["0"] == "/dev/null" and fds["3"].startswith("socket:")
