"""The cases: each begins as after the installation, with nothing running.

Each function without an underscore is a test of that name in test_vm.py."""

import grp
import json
import os
import pwd
import re
import signal
import socket
import time
from pathlib import Path

from guest import (CONFIG, HOME, PORT, SCRIPTED, Background, Clients, configure, control,
                   drop_in, eventually, example, fetch, journal, logged, main_pid, ours, pool,
                   processes, run, show, slow_request, start, systemctl, uid, workers)


def right_after_the_installation_it_runs_and_has_nothing_to_do():
    assert systemctl("is-enabled", "ostler.socket", check=False).stdout.strip() == "disabled"
    systemctl("start", "ostler")
    assert show("ActiveState") == "active"
    assert show("StatusText") == "0 of 0 workers ready in 0 pools"
    assert workers() == []
    assert len(processes()) == 2  # ostlerd and its watcher
    assert run("ostlerctl", "status").returncode == 0
    # A pool can be added without a restart.
    pid = main_pid()
    configure(example())
    systemctl("reload", "ostler")
    assert fetch()[0] == 200
    assert main_pid() == pid
    assert show("StatusText") == "2 of 2 workers ready in 1 pool"


def a_package_that_is_removed_and_installed_again_runs():
    package = HOME / "ostler.deb"
    if not package.exists():
        return  # and the test is skipped
    start(example())
    CONFIG.with_name("shop.yaml").write_text("pools: {}\n", encoding="utf-8")
    systemctl("start", "ostler@shop")
    run("dpkg", "-r", "ostler")
    assert ours() == []
    run("dpkg", "-i", str(package))
    assert show("ActiveState") == "active"
    assert fetch()[0] == 200
    systemctl("stop", "ostler")
    run("dpkg", "-i", str(package))  # an upgrade starts nothing
    assert show("ActiveState") == "inactive"


def the_units_have_no_faults():
    units = ["ostler.service", "ostler@shop.service", "ostler.socket"]
    assert run("systemd-analyze", "verify", "--man=no", *units).stderr == ""
    for unit in units[:2]:
        security = run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
        level = float(security.split("Overall exposure level")[1].split(":")[1].split()[0])
        assert level < 4.0, security


def started_means_that_the_workers_are_ready():
    begin = time.monotonic()
    start(example("--start-delay", 3000))
    assert time.monotonic() - begin >= 3
    assert systemctl("is-active", "ostler").stdout.strip() == "active"
    begin = time.monotonic()
    assert fetch()[0] == 200
    assert time.monotonic() - begin < 3
    assert len(workers()) == 2
    assert show("StatusText") == "2 of 2 workers ready in 1 pool"


def while_it_starts_the_status_says_how_far_it_is():
    good = example()["web"] | {"workers": 1}
    bad = pool(SCRIPTED, "--ready", "never", listen=[f"tcp://127.0.0.1:{PORT + 1}"])["web"]
    configure({"web": good, "bad": bad})
    systemctl("start", "--no-block", "ostler")
    eventually(lambda: show("StatusText") == "1 of 3 workers ready in 2 pools")
    assert show("ActiveState") == "activating"
    assert fetch()[0] == 200
    # `systemctl reload` would wait for the start to be over; ostlerctl mends it.
    configure({"web": good})
    run("ostlerctl", "reload")
    eventually(lambda: show("ActiveState") == "active")


def a_reload_replaces_the_workers_and_no_request_fails():
    start(example())
    before, manager = workers(), main_pid()
    clients = Clients()
    systemctl("reload", "ostler")
    assert clients.stop() == []
    eventually(lambda: len(workers()) == 2)
    assert not set(before) & set(workers())
    assert main_pid() == manager
    assert show("ActiveState") == "active"


def a_reload_with_a_faulty_file_fails_and_changes_nothing():
    start(example())
    before = processes()
    CONFIG.write_text("pools: {web: {comand: /bin/true}}\n", encoding="utf-8")
    assert systemctl("reload", "ostler", check=False).returncode != 0
    assert show("ActiveState") == "active"
    status = run("systemctl", "status", "--no-pager", "ostler").stdout
    assert "reload rejected: /etc/ostler/ostler.yaml:1:" in status
    assert "comand: unknown key 'comand'" in status
    assert fetch()[0] == 200
    assert processes() == before
    # Once mended, the status forgets.
    configure(example())
    systemctl("reload", "ostler")
    eventually(lambda: show("StatusText") == "2 of 2 workers ready in 1 pool")


def a_reload_whose_workers_cannot_start_fails_and_the_old_ones_serve():
    start(example())
    before = processes()
    configure(pool(SCRIPTED, "--exit-code", "7"))
    clients = Clients()
    assert systemctl("reload", "ostler", check=False).returncode != 0
    assert clients.stop() == []
    status = run("systemctl", "status", "--no-pager", "ostler").stdout
    assert "reload failed: web: a new worker exited with code 7" in status
    assert show("ActiveState") == "active"
    assert processes() == before


def a_manager_that_hangs_is_killed_by_the_watchdog_and_started_again():
    drop_in("[Service]\nWatchdogSec=3\n")
    start(example())
    before, manager = workers(), main_pid()
    os.kill(manager, signal.SIGSTOP)
    eventually(lambda: main_pid() not in (0, manager), within=90, what="another manager")
    eventually(lambda: show("ActiveState") == "active")
    assert fetch()[0] == 200
    assert show("NRestarts") == "1"
    assert logged("Failed with result 'watchdog'")
    assert not set(before) & set(ours())
    assert len(workers()) == 2


def a_manager_that_is_busy_for_long_is_fed_by_its_own_loop():
    drop_in("[Service]\nWatchdogSec=2\n")
    start(example())
    manager = main_pid()
    begin = time.monotonic()
    while time.monotonic() - begin < 6:
        assert control()["pools"]["web"]["ready"] == 2
    assert main_pid() == manager


def a_stop_waits_for_the_request_in_flight():
    start(example())
    request = slow_request(4000)
    stop = Background(lambda: systemctl("stop", "ostler"))
    answer = request.result()
    assert answer.startswith("HTTP/1.1 200") or answer.startswith("HTTP/1.0 200"), answer
    stop.result()
    assert show("ActiveState") == "inactive"
    assert show("Result") == "success"
    assert ours() == []


def a_long_stop_timeout_needs_no_change_of_the_unit():
    drop_in("[Service]\nTimeoutStopSec=2\n")
    start(example(timeouts={"stop": "60s"}))
    request = slow_request(8000)
    stop = Background(lambda: systemctl("stop", "ostler"))
    assert " 200 " in request.result().splitlines()[0]
    stop.result()
    assert show("Result") == "success"


def a_stop_leaves_no_process():
    start(pool(SCRIPTED, "--fork-children", "2", "--double-fork-child", "--ignore-term",
               timeouts={"stop": "2s"}))
    assert len(processes()) >= 9
    systemctl("stop", "ostler")
    assert ours() == []
    assert show("Result") == "success"
    assert not Path("/run/ostler").exists()


def output_is_in_the_journal():
    start(pool(SCRIPTED, "--print", "a line from the worker", workers=1))
    pid, = workers()
    eventually(lambda: logged("a line from the worker"))
    entry, = logged("a line from the worker")
    assert entry["MESSAGE"] == f"web.0[{pid}]: a line from the worker"
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "ostlerd"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: [entry for entry in logged(f"web.0[{pid}] was killed by SIGKILL")
                        if entry["PRIORITY"] == "3"])


def output_is_in_the_journal_with_fields_if_so_configured():
    start(pool(SCRIPTED, "--print", "a line from the worker", workers=1),
          log={"output": "journald"})
    eventually(lambda: logged("a line from the worker"))
    entry, = logged("a line from the worker")
    assert entry["OSTLER_POOL"] == "web"
    assert entry["OSTLER_SLOT"] == "0"
    shown = run("journalctl", "-u", "ostler", "-o", "cat", "OSTLER_POOL=web", "OSTLER_SLOT=0")
    assert "a line from the worker" in shown.stdout
    assert entry["OSTLER_WORKER_PID"] == str(workers()[0])


def systemd_holds_the_socket_and_starts_the_service():
    configure(example(listen=["inherit:http"]))
    systemctl("start", "ostler.socket")
    assert show("ActiveState") == "inactive"
    assert fetch()[0] == 200  # connected before anything ran
    assert show("ActiveState") == "active"
    assert len(workers()) == 2


def a_restart_with_a_socket_of_systemd_refuses_nobody():
    start(example())
    configure(example(listen=["inherit:http"]))
    # As docs/systemd.md has it: a socket cannot be started beside a service that runs.
    systemctl("stop", "ostler")
    systemctl("enable", "--now", "ostler.socket", "ostler.service")
    clients = Clients()
    before = main_pid()
    systemctl("restart", "ostler")
    assert main_pid() not in (0, before)
    count = clients.count
    eventually(lambda: clients.count > count + 2, what="answers after the restart")
    assert clients.stop() == []
    systemctl("disable", "ostler.socket")


def two_instances_run_side_by_side():
    for number, name in enumerate(("shop", "blog")):
        configure(example(listen=[f"tcp://127.0.0.1:{PORT + number}"]),
                  CONFIG.with_name(f"{name}.yaml"))
    systemctl("start", "ostler@shop", "ostler@blog")
    for number, name in enumerate(("shop", "blog")):
        assert fetch(port=PORT + number)[0] == 200
        status = control(directory=f"/run/ostler-{name}")
        assert status["config"] == f"/etc/ostler/{name}.yaml"
        assert status["pid"] == main_pid(f"ostler@{name}.service")
    before = workers("ostler@blog.service")
    systemctl("reload", "ostler@shop")
    systemctl("stop", "ostler@shop")
    assert workers("ostler@blog.service") == before
    assert fetch(port=PORT + 1)[0] == 200
    run("ostlerctl", "--socket", "/run/ostler-blog/control.sock", "status")


def a_program_that_knows_nothing_runs_as_another_user():
    start(pool("/usr/bin/python3", str(HOME / "plain.py"), workers=1))
    user = pwd.getpwnam("ostler-worker")
    said = json.loads(fetch()[1])
    assert (said["uid"], said["gid"]) == (user.pw_uid, user.pw_gid)
    assert said["groups"] in ([], [user.pw_gid])
    assert [uid(pid) for pid in workers()] == [user.pw_uid]
    assert uid(main_pid()) == 0
    assert said["sees"] == workers()  # nobody else
    # It cannot steer the manager.
    assert grp.getgrnam("ostler").gr_gid not in said["groups"] + [said["gid"]]


def those_of_the_group_may_steer():
    start(example(), control={"group": "ostler"})

    def steer(group, *words):
        return run("setpriv", "--reuid=nobody", "--clear-groups", f"--regid={group}", "ostlerctl",
                   "--socket", "/run/ostler/control.sock", *words, check=False).returncode
    assert steer("ostler", "status") == 0
    assert steer("ostler", "reload") == 0
    assert steer("ostler-worker", "status") == 5


def a_faulty_configuration_at_start_is_said_once():
    CONFIG.write_text("pools: {web: {comand: /bin/true}}\n", encoding="utf-8")
    assert systemctl("start", "ostler", check=False).returncode != 0
    assert show("ActiveState") == "failed"
    assert show("ExecMainStatus") == "2"
    assert show("NRestarts") == "0"
    assert logged("unknown key 'comand'")
    assert systemctl("is-failed", "ostler").stdout.strip() == "failed"


def workers_that_cannot_start_are_tried_again():
    drop_in("[Service]\nRestartSec=100ms\n")
    configure(pool(SCRIPTED, "--exit-code", "7", restart={"backoff": "10ms"}))
    assert systemctl("start", "ostler", check=False).returncode != 0
    eventually(lambda: int(show("NRestarts")) >= 1)
    assert logged("status=4")
    # What was missing is there now.
    configure(example())
    eventually(lambda: show("ActiveState") == "active")
    assert fetch()[0] == 200


def a_killed_manager_is_started_again_and_leaves_no_orphan():
    start(example())
    before, manager = workers(), main_pid()
    request = slow_request(60_000)
    os.kill(manager, signal.SIGKILL)
    eventually(lambda: main_pid() not in (0, manager), what="another manager")
    eventually(lambda: show("ActiveState") == "active")
    assert fetch()[0] == 200
    assert not set(before) & set(ours())
    assert len(workers()) == 2
    assert show("NRestarts") == "1"
    # The price of a service that is back at once: docs/systemd.md says so.
    assert " 200 " not in request.result()


def a_worker_killed_for_memory_does_not_end_the_service():
    assert show("OOMPolicy") == "continue"
    drop_in("[Service]\nMemoryMax=300M\nMemorySwapMax=0\n")
    start(pool("/usr/bin/python3", "-c", "import time; kept = [bytearray(8 << 20) for _ in "
               "iter(lambda: time.sleep(.01), 1)]", workers=1, listen=[], ready={"after": "100ms"}))
    manager = main_pid()
    eventually(lambda: logged("killed by SIGKILL"), what="a worker killed")
    eventually(lambda: any("oom" in str(entry.get("MESSAGE")).lower() for entry in journal()))
    assert main_pid() == manager
    assert show("ActiveState") == "active"


def the_sandbox_holds_the_workers():
    attempts = ("touch /etc/ostler/x", "mount -t tmpfs none /mnt", "unshare --user true",
                "python3 -c 'import socket; socket.socket(socket.AF_PACKET)'", "chmod g+s /var/tmp",
                "touch /var/lib/x /run/x && echo written",
                # seccomp(SECCOMP_GET_ACTION_AVAIL, 0, SECCOMP_RET_KILL_PROCESS)
                "python3 -c 'import ctypes; print(\"seccomp\", ctypes.CDLL(None).syscall("
                "317, 2, 0, ctypes.byref(ctypes.c_uint(1 << 31))))'")
    said = _attempted(attempts)
    _compare(said, ("Read-only file system", "permission denied", "not permitted", "not supported",
                    "not permitted", "written", "seccomp 0"))


def the_documented_drop_ins_open_what_they_say():
    text = (HOME / "systemd.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^# /etc/systemd/system/ostler.service.d/(\w+).conf\n(.*?)^```", text,
                            re.MULTILINE | re.DOTALL))
    uploads = Path("/usr/local/shop/uploads")
    uploads.mkdir(parents=True, exist_ok=True)
    user = pwd.getpwnam("ostler-worker")
    for folder in (uploads, uploads.parent):
        os.chown(folder, user.pw_uid, user.pw_gid)
    drop_in("".join(shown[name] for name in ("uploads", "tmp", "sendmail", "browser")))
    Path("/tmp/theirs").touch()
    attempts = ("touch /usr/local/shop/x", "touch /usr/local/shop/uploads/x && echo written",
                "ls /tmp", "grep NoNewPrivs /proc/self/status",
                "unshare --user --map-root-user --mount mount -t tmpfs none /mnt && echo mounted")
    said = _attempted(attempts, user.pw_name, sandbox={"no_new_privileges": False})
    _compare(said, ("Read-only file system", "written", "theirs", "NoNewPrivs:\t0", "mounted"))


def _attempted(attempts, user="root", **keys):
    """What each of these shell commands says in a worker; root may do most."""
    script = "; ".join(f"echo BEGIN; {attempt}" for attempt in attempts)
    start({"job": {"command": ["/bin/sh", "-c", f"exec 2>&1; {script}; echo END; exec sleep 1000"],
                   "workers": 1, "user": user, "ready": {"after": "100ms"}, **keys}})
    eventually(lambda: logged("]: END"))
    return " ".join(str(entry["MESSAGE"]) for entry in logged("]: ")).split("BEGIN")[1:]


def _compare(said, expected):
    assert len(said) == len(expected), said
    assert all(words in got for words, got in zip(expected, said)), said


def unix_sockets_belong_to_whom_the_pool_says():
    Path("/run/shop").mkdir(exist_ok=True)
    os.chown("/run/shop", pwd.getpwnam("nobody").pw_uid, -1)
    start(example(listen=[{"address": "unix:///run/shop/web.sock", "user": "nobody",
                           "group": "nogroup", "mode": "0660"}]))
    status = os.stat("/run/shop/web.sock")
    assert status.st_uid == pwd.getpwnam("nobody").pw_uid
    assert oct(status.st_mode & 0o777) == "0o660"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/run/shop/web.sock")
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 200 " in client.recv(65536)


def a_port_below_1024_and_a_log_file():
    file = Path("/var/log/ostler/web.log")  # the unit's own
    start(pool(SCRIPTED, "--print", "hello", listen=["tcp://127.0.0.1:81"], output=str(file)))
    assert fetch(port=81)[0] == 200
    eventually(lambda: "hello" in file.read_text(encoding="utf-8"))
