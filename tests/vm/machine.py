"""The virtual machine: boots once, runs the cases inside, and yields what they say as they say it.

The kernel and systemd have the first serial line as their console, which goes to a file. On the
second the tests report: lines of output, each begun with `| `, and after each case `TEST NAME ok`
or `TEST NAME FAIL REASON`; `DONE` in the end.
"""

import subprocess
import threading
from dataclasses import dataclass, field

import root


@dataclass
class Result:
    reason: str = "the machine ended before this test did"
    passed: bool = False
    output: list = field(default_factory=list)


# Seconds until the first case has said something; it takes a tenth of that on an idle machine.
BOOT = 240
ATTEMPTS = 3


class Machine:
    def __init__(self, cases, within):
        self.console = root.CACHE / "console.log"
        self.results = {name: Result() for name in cases}
        self.done = False
        kernel, initramfs, self.installed = root.image()
        # The emulator now and then stands still while the kernel boots, before anything of ours runs.
        for _ in range(ATTEMPTS):
            self.said = False
            self._run(kernel, initramfs, cases, within)
            if self.said:
                break

    def _run(self, kernel, initramfs, cases, within):
        # Emulated: the same wherever it runs. Nothing of the host is to be had from inside.
        command = ["qemu-system-x86_64", "-accel", "tcg,tb-size=512", "-smp", "2", "-m", "3G",
                   "-nodefaults", "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd",
                   initramfs, "-serial", f"file:{self.console}", "-serial", "stdio", "-append",
                   "console=ttyS0 rdinit=/lib/systemd/systemd panic=-1 quiet mitigations=off "
                   "systemd.unit=multi-user.target systemd.mask=getty.target "
                   "systemd.mask=e2scrub_reap.service ostler.cases=" + ",".join(cases)]
        with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace") as process:
            watchdog = threading.Timer(within, process.kill)
            watchdog.start()
            boot = threading.Timer(BOOT, lambda: self.said or process.kill())
            boot.start()
            try:
                self._read(process.stdout)
                process.wait()
            finally:
                watchdog.cancel()
                boot.cancel()
                process.kill()

    def _read(self, lines):
        output = []
        for line in lines:
            self.said = True
            words = line.rstrip().split(" ", 3)
            if words[0] == "TEST" and len(words) >= 3 and words[1] in self.results:
                self.results[words[1]] = Result(" ".join(words[3:]), words[2] == "ok", output)
                output = []
            elif words[0] == "DONE":
                self.done = True
            else:
                output.append(line.rstrip())
        self.left_over = output

    def end_of_console(self, lines=40):
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
