"""Temporary folders of a killed process go when the next one is made; those in use stay."""

import os
import signal
import subprocess
import sys
import time

from lco.scratch import DAY, scratch_folder

OWNER = """
import sys, time
from lco.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    (folder / "weights").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


def owner(place):
    return subprocess.Popen([sys.executable, "-c", OWNER, str(place)], stdout=subprocess.PIPE, text=True)


def test_a_folder_is_gone_at_the_end_also_after_an_error(tmp_path):
    try:
        with scratch_folder(tmp_path) as folder:
            (folder / "inside").mkdir()
            raise KeyError
    except KeyError:
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_is_in_use_stays(tmp_path):
    with owner(tmp_path) as dead, owner(tmp_path) as alive:
        left, used = (p.stdout.readline().strip() for p in (dead, alive))
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        (tmp_path / "lco-scratch-half-made").mkdir()
        (tmp_path / "of-somebody").mkdir()
        with scratch_folder(tmp_path) as mine:
            found = {str(path) for path in tmp_path.iterdir()}
        alive.kill()
    assert left not in found
    assert found == {used, str(mine), str(tmp_path / "lco-scratch-half-made"), str(tmp_path / "of-somebody")}


def test_what_was_killed_before_it_had_an_owner_goes_after_a_day(tmp_path):
    now = time.time()
    for name, age in (("old", DAY + 60), ("young", DAY - 3600)):
        folder = tmp_path / f"lco-scratch-{name}"
        folder.mkdir()
        (folder / ".owner.new").write_text("")  # between its making and its renaming
        os.utime(folder, (now - age, now - age))
    (tmp_path / "lco-scratch-link").symlink_to(tmp_path / "lco-scratch-young")
    with scratch_folder(tmp_path) as mine:
        found = {path.name for path in tmp_path.iterdir()}
    assert found == {mine.name, "lco-scratch-young", "lco-scratch-link"}
