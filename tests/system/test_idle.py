"""A manager to which nothing happens does nothing."""

import os
import platform

import pytest

from ostler import example
from processes import eventually, read

EPOLL_WAIT, FUTEX, EPOLL_PWAIT = 232, 202, 281  # on x86-64


def sleeps_for_good(thread):
    """Whether a thread waits without a time-out, as the arguments of its system call say."""
    words = read(thread, "syscall").decode().split()
    if len(words) < 6 or not words[0].isdigit():
        return False
    call, arguments = int(words[0]), [int(word, 16) for word in words[1:7]]
    if call in (EPOLL_WAIT, EPOLL_PWAIT):
        return arguments[3] & 0xFFFFFFFF == 0xFFFFFFFF
    return call == FUTEX and arguments[3] == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the system calls of x86-64")
def test_no_thread_of_an_idle_manager_sleeps_for_a_time(manager):
    one = manager({"web": example(2)})

    def all_sleep():
        threads = os.listdir(f"/proc/{one.pid}/task")
        return all(sleeps_for_good(f"{one.pid}/task/{thread}") for thread in threads)

    eventually(all_sleep, 10, "a sleep without an end")
