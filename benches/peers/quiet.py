"""Waiting for an idle machine, and telling whether other processes disturbed a measurement (Linux only).

Elsewhere nothing is waited for and no measurement counts as disturbed.
"""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")


def busy_seconds():
    """Processor time that the whole machine has spent since it started, guests and idling left out."""
    if not STAT.exists():
        return 0.0
    with STAT.open() as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.readline().split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """Processor time of this process and of its finished children."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


class Watch:
    """Measures the processor time that other processes take from its creation on."""

    def __init__(self):
        self.busy, self.own, self.start = busy_seconds(), own_seconds(), time.monotonic()

    def wall(self):
        return time.monotonic() - self.start

    def others(self):
        return max(0.0, (busy_seconds() - self.busy) - (own_seconds() - self.own))


def wait_until_idle(limit_s, window_s=0.3, share=0.05):
    """Wait until the others use less than `share` of one core for `window_s`. False if that took over `limit_s`."""
    start = time.monotonic()
    while True:
        watch = Watch()
        time.sleep(window_s)
        if watch.others() <= max(share * watch.wall(), 0.015):
            return True
        if time.monotonic() - start > limit_s:
            return False
        time.sleep(0.5)
