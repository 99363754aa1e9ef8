"""Peaks of memory, kept over a resume."""

import json

from lco.training.peaks import PEAKS, highest, keep_peaks, read_peaks


class Ranks:
    """Two ranks, as far as they exchange something; this one is the first."""

    rank, world = 0, 2

    def gather(self, value):
        return [value, (value[0] * 2, 5)]


def test_the_highest_of_every_part_of_a_run_is_kept(tmp_path):
    keep_peaks(Ranks(), tmp_path)
    first = read_peaks(tmp_path)
    assert first["host"][1] == 2 * first["host"][0] > 2**20
    (tmp_path / PEAKS).write_text(json.dumps({"host": [2**50, 1], "device": [0, 7]}))
    keep_peaks(Ranks(), tmp_path)
    now = read_peaks(tmp_path)
    assert now["host"][0] == 2**50
    assert now["host"][1] >= first["host"][1]
    assert now["device"][1] == 7


def test_another_number_of_ranks_and_a_damaged_file_begin_anew(tmp_path):
    assert highest([1, 2], [5]) == [1, 2]
    (tmp_path / PEAKS).write_text("{")
    assert read_peaks(tmp_path) == {}
