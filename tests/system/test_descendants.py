"""What workers start and leave behind, in sessions of their own too, and what becomes of it."""

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from ostler import program, scripted, shell
from processes import alive, all_pids, children, eventually, kill_all, read, stat, state
from test_rollback import free_port
from test_systemd import unshare_works

# A child in a session of its own, one in a group of its own, a plain one, and a daemon, which has
# lost its parent at once, with an environment that says nothing.
FAMILY = ("setsid sleep 1000 & set -m; sleep 1000 & set +m; sleep 1000 & "
          "(setsid env -i sleep 1000 &) ; wait")
SIZE = 4


def family(script=FAMILY, **keys):
    return {"command": ["/bin/bash", "-c", script], "workers": 1, "ready": {"after": "50ms"},
            "timeouts": {"stop": "10s"}, **keys}


def name(pid):
    return read(pid, "comm").decode().strip()


def tag(pid):
    """The limit that descendants inherit."""
    for line in read(pid, "limits").decode().splitlines():
        if line.startswith("Max realtime timeout"):
            return line.split()[-2]
    return None


def descendants(worker):
    """Of a worker that lives, in whatever session or environment."""
    mine = tag(worker)
    return [pid for pid in all_pids() if pid != worker and tag(pid) == mine and alive(pid)]


def grown(one, pool="web", size=SIZE):
    """The worker's descendants, once there are so many sleepers."""
    def ready():
        pid, = one.pids(pool)
        found = [pid for pid in descendants(pid) if name(pid) == "sleep"]
        return len(found) == size and found
    return eventually(ready, what="all descendants")


def gone(pids, within=20):
    eventually(lambda: not any(alive(pid) for pid in pids), within, "an end of all descendants")


def watcher(one):
    found = [pid for pid in one.processes() if name(pid) == "ostler-watcher"]
    return found[0] if found else None


def test_none_is_left_after_three_kills(manager):
    one = manager({"web": family(restart={"burst": 100})})
    for _ in range(3):
        before, (worker,) = grown(one), one.pids()
        assert one.ctl("kill", "web.0").returncode == 0
        gone([worker, *before])
        one.settle()
    grown(one)


def test_none_of_the_old_ones_is_left_after_a_reload_and_the_log_names_them(manager):
    one = manager({"web": family()})
    before = grown(one)
    assert one.reload()["outcome"] == "reloaded"
    gone(before)
    for pid in before:
        assert f"web.0 left process {pid} (sleep) behind" in one.log()
    assert "in a session of its own: asked to stop (SIGTERM)" in one.log()
    assert not set(before) & set(grown(one))


@pytest.mark.parametrize("command", [("stop", "--all"), ("stop", "--now", "--all")])
def test_none_is_left_when_the_manager_has_stopped(manager, command):
    one = manager({"web": family()})
    before = [*one.pids(), *grown(one)]
    one.ctl(*[word for word in command if word != "--all"])
    assert one.wait() == 0
    assert not any(alive(pid) for pid in before)


DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        %s
        open('daemon.pid.new', 'w').write(str(os.getpid()))
        os.rename('daemon.pid.new', 'daemon.pid')
        while True: time.sleep(1000)
    os._exit(0)
os.wait()
while True: time.sleep(1000)
"""


def daemon_of(one, what="pass", **keys):
    """A pool whose worker starts a daemon as the books say."""
    (one.directory / "daemon.py").write_text(DAEMON % what)
    return {"command": ["/usr/bin/python3", "daemon.py"], "directory": str(one.directory),
            "workers": 1, "ready": {"after": "50ms"}, **keys}


def daemon_pid(one):
    file = one.directory / "daemon.pid"
    eventually(file.exists, what="a daemon")
    return int(file.read_text())


def with_daemon(manager, what="pass", pools=None, **keys):
    one = manager(start=False)
    one.write({**one.config, "pools": {"web": daemon_of(one, what, **keys), **(pools or {})}})
    return one.start()


def test_a_daemon_stays_as_long_as_its_worker_lives_and_no_longer(manager):
    one = with_daemon(manager, pools={"other": shell("exec sleep 1000", ready={"after": "50ms"})})
    daemon = daemon_pid(one)
    for _ in range(2):  # exits of others, after which orphans are looked for
        old = one.pids("other")
        kill_all(old)
        eventually(lambda old=old: one.settled() and one.pids("other") != old)
    assert alive(daemon)
    kill_all(one.pids("web"))
    gone([daemon])


def test_a_daemon_that_is_deaf_is_killed_when_the_time_is_over(manager):
    one = with_daemon(manager, "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
                      timeouts={"stop": "400ms"})
    daemon = daemon_pid(one)
    kill_all(one.pids())
    eventually(lambda: "asked to stop" in one.log())
    gone([daemon])
    assert f"process {daemon} (python3), left behind by web.0, did not stop: killed" in one.log()


def test_a_daemon_that_stands_still_hears_of_the_stop(manager):
    one = with_daemon(manager, timeouts={"stop": "60s"})
    daemon = daemon_pid(one)
    os.kill(daemon, signal.SIGSTOP)
    eventually(lambda: state(daemon) == "T")
    kill_all(one.pids())
    gone([daemon])


def test_one_that_has_dropped_its_tag_goes_when_no_older_worker_lives(manager):
    lower = "import resource; resource.setrlimit(resource.RLIMIT_RTTIME, (1 << 40, 1 << 40))"
    one = with_daemon(manager, lower)
    daemon = daemon_pid(one)
    born = int(stat(daemon)[19])
    eventually(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") > born + 3,
               what="a successor that is clearly younger")
    assert one.reload()["outcome"] == "reloaded"
    gone([daemon])
    assert f"a worker that is not known left process {daemon} (python3) behind" in one.log()


def test_with_leave_behind_who_left_the_session_stays_and_nobody_else(manager):
    one = manager({"web": family("setsid sleep 1000 & sleep 1000 & (setsid sleep 1000 &); wait",
                                 leave_behind=True)})
    worker, = one.pids()
    before = grown(one, size=3)
    inside = [pid for pid in before if os.getsid(pid) == worker]
    outside = [pid for pid in before if os.getsid(pid) != worker]
    assert len(inside) == 1 and len(outside) == 2
    try:
        assert one.ctl("kill", "web.0").returncode == 0
        gone([worker, *inside])
        one.settle()
        assert one.stop() == 0
        assert all(alive(pid) for pid in outside)
        assert f"process {outside[0]} (sleep) behind: it stays (leave_behind)" in one.log()
    finally:
        kill_all(one.processes())


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_detached_children_of_node_end_with_their_worker(manager):
    script = ("require('child_process').spawn('sleep', ['1000'], {detached: true, "
              "stdio: 'ignore'}).unref(); setInterval(() => {}, 1000)")
    one = manager({"web": {"command": ["node", "-e", script], "workers": 1,
                           "ready": {"after": "50ms"}}})
    before = grown(one, size=1)
    assert one.reload()["outcome"] == "reloaded"
    gone(before)


@pytest.mark.parametrize("end", ["exec sleep 1000", "exit 0"])
def test_what_a_check_program_starts_ends_with_it(manager, end):
    script = (f"echo $$ >>checks; sleep 1000 & echo $! >>pids; setsid sleep 1000 & "
              f"echo $! >>pids; {end}")
    one = manager(start=False)
    health = {"exec": ["/bin/bash", "-c", script], "interval": "1s", "timeout": "300ms",
              "failures": 100}
    one.write({**one.config, "pools": {"web": shell(
        "exec sleep 1000", ready={"after": "50ms"}, health=health, directory=str(one.directory))}})
    one.start()
    pids = one.directory / "pids"
    eventually(lambda: pids.exists() and len(pids.read_text().split()) >= 2, what="a check")
    gone([int(pid) for pid in pids.read_text().split()[:2]])


@pytest.mark.parametrize("leave", ["setsid -f sleep 1000", "sleep 1000 &"])
def test_a_program_that_goes_into_the_background_is_told_to_stay(manager, leave):
    one = manager({"ok": shell("exec sleep 1000", ready={"after": "50ms"}),
                   "web": shell(leave + "\nsleep 0.05; exit 0", ready="notify",
                                restart={"backoff": "50ms", "backoff_max": "200ms"})},
                  start=False).launch()
    eventually(lambda: one.log().count("error web.0[") >= 5, what="five tries")
    message = one.pool()["last_error"]["message"]
    assert "exited with code 0" in message
    assert "(sleep) running in the background: run it in the foreground" in message
    assert "--daemon" in message and "daemon off;" in message
    assert one.ctl("status", "web").stdout.count("in the background") >= 1
    eventually(lambda: len([pid for pid in one.processes() if name(pid) == "sleep"]) <= 3,
               what="an end of all that was left but the last")


# ---- The manager is killed

def holders(port):
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def killed(one):
    one.process.kill()
    one.process.wait()


@pytest.mark.parametrize("wrapper", ["{} & wait", "{}; true", "setsid {} & wait",
                                     "(setsid {} &); exec sleep 1000"])
def test_when_the_manager_is_killed_nobody_serves_on(manager, wrapper):
    port = free_port()
    command = wrapper.format(program("ostler-test-worker"))
    one = manager({"web": {**scripted(listen=[f"tcp://127.0.0.1:{port}"]), "command":
                           ["/bin/bash", "-c", command], "ready": {"after": "50ms"},
                           "timeouts": {"stop": "20s"}}})
    eventually(lambda: one.fetch("/pid")[0] == 200)
    begin = time.monotonic()
    killed(one)
    eventually(lambda: not holders(port), what="a free port")
    eventually(lambda: not one.processes(), what="an end of all")
    assert time.monotonic() - begin < 15  # asked to stop, and not killed at last


def test_when_the_manager_is_killed_the_deaf_are_killed_in_time(manager):
    one = manager({"web": scripted("--ignore-term", "--fork-children", 2, "--double-fork-child",
                                   timeouts={"stop": "400ms"})})
    begin = time.monotonic()
    killed(one)
    eventually(lambda: not one.processes(), what="an end of all")
    assert time.monotonic() - begin >= 0.4


def test_when_the_manager_is_killed_its_worker_is_asked_by_the_kernel_alone(manager):
    # More than once, perhaps: whenever a thread of the manager ends, another is the parent.
    script = ("import os, signal\n"
              "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
              "os.fork()\n"
              "while True: os.write(1, b'%d\\n' % signal.sigwaitinfo([signal.SIGTERM]).si_pid)\n")
    one = manager(start=False)
    (one.directory / "app.py").write_text(script)
    out = one.directory / "out"
    one.write({**one.config, "pools": {"web": {
        "command": ["/bin/sh", "-c", f"exec /usr/bin/python3 app.py >{out}"], "workers": 1,
        "directory": str(one.directory), "ready": {"after": "200ms"},
        "timeouts": {"stop": "1s"}}}}).start()
    killed(one)
    eventually(lambda: not one.processes(), what="an end of all")
    # Its child is the worker's to wind down, and is killed with it.
    assert set(out.read_text().split()) == {str(one.process.pid)}


def test_when_the_manager_is_killed_leave_behind_is_kept(manager):
    one = manager({"web": family("(setsid sleep 1000 &); sleep 1000 & wait", leave_behind=True)})
    worker, = one.pids()
    before = grown(one, size=2)
    outside, = [pid for pid in before if os.getsid(pid) != worker]
    watching = watcher(one)
    try:
        killed(one)
        gone([worker, watching, *(set(before) - {outside})])
        assert alive(outside)
    finally:
        kill_all(one.processes())


def test_two_managers_leave_each_other_s_workers_alone(manager):
    one, two = (manager({"web": family()}) for _ in range(2))
    theirs, ours = [*two.pids(), *grown(two)], [*one.pids(), *grown(one)]
    assert one.reload()["outcome"] == "reloaded"
    gone(ours)
    ours = [*one.pids(), *grown(one)]
    killed(one)
    gone(ours)
    assert all(alive(pid) for pid in theirs) and two.settled()


def pss(pid):
    for line in read(pid, "smaps_rollup").decode().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return None


def switches(pid):
    return sum(int(line.split()[1]) for line in read(pid, "status").decode().splitlines()
               if "ctxt_switches" in line)


def test_the_watcher_is_small_holds_nothing_and_sleeps(manager):
    one = manager({"web": scripted(workers=3)})
    pid = watcher(one)
    assert pid not in children(one.pid)
    assert os.getsid(pid) != os.getsid(one.pid)
    links = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
    assert len(links) == 1 and links.pop().startswith("socket:")
    assert pss(pid) < 1024
    before = switches(pid)
    assert one.reload()["outcome"] == "reloaded"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        os.kill(pid, number)
    assert one.reload()["outcome"] == "reloaded"
    assert alive(pid) and switches(pid) == before
    assert one.stop() == 0
    eventually(lambda: not alive(pid), 5, "an end of the watcher")


def test_the_death_of_the_watcher_is_told(manager):
    one = manager({"web": scripted()})
    os.kill(watcher(one), signal.SIGKILL)
    eventually(lambda: "the watcher has died" in one.log())
    assert one.fetch()[0] == 200


def test_what_was_there_before_the_manager_is_left_alone(manager):
    """A script that starts something and becomes the manager."""
    one = manager({"web": family()}, start=False,
                  prefix=["/bin/sh", "-c", 'sleep 1000 & echo $! >before; exec "$@"', "sh"])
    one.start()
    before = int((one.directory / "before").read_text())
    grown(one)
    assert one.reload()["outcome"] == "reloaded"
    assert one.stop() == 0
    assert alive(before)
    kill_all([before])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() == 0 and not unshare_works(), reason="needs a pid namespace")
def test_as_process_one_everybody_is_asked_to_stop(manager):
    script = ("import signal, sys\n"
              "def stop(*_):\n"
              "    open(sys.argv[1], 'w').close()\n"
              "    sys.exit()\n"
              "signal.signal(signal.SIGTERM, stop)\n"
              "open(sys.argv[1] + '.up', 'w').close()\n"
              "while True: signal.pause()\n")
    one = manager(start=False, wrapped=True,
                  prefix=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    (one.directory / "daemon.py").write_text(script)
    run = f"/usr/bin/python3 {one.directory}/daemon.py {one.directory}"
    one.write({**one.config, "pools": {"web": family(
        f"(setsid {run}/mine &); (setsid -f env -i prlimit --rttime=99999999 {run}/unknown); "
        "exec sleep 1000")}}).start()
    inside, = children(one.pid)
    eventually((one.directory / "mine.up").exists)
    eventually((one.directory / "unknown.up").exists)
    subprocess.run(["nsenter", f"--target={inside}", "--pid", "--mount", "/bin/sh", "-c",
                    f"(setsid {run}/foreign &)"], check=True, timeout=20)
    eventually((one.directory / "foreign.up").exists)
    assert one.reload()["outcome"] == "reloaded"
    eventually((one.directory / "mine").exists, what="an end of the worker's daemon")
    assert not (one.directory / "foreign").exists()
    assert one.ctl("stop").returncode == 0
    assert one.wait() == 0
    assert (one.directory / "foreign").exists() and (one.directory / "unknown").exists()
