"""Files that are whole or absent."""

import subprocess
import sys

import pytest
from safetensors import SafetensorError

from lco import disk
from lco.errors import UserError


def test_files_are_replaced_whole_and_their_folder_is_made(tmp_path):
    disk.write_text(tmp_path / "new" / "page", "one")
    disk.write_text(tmp_path / "new" / "page", "two")
    assert [file.read_text() for file in (tmp_path / "new").iterdir()] == ["two"]


def test_lines_end_at_newlines_alone(tmp_path):
    for text in ("a\u2028b", "c"):
        disk.append_line(tmp_path / "lines.jsonl", {"text": text})
    assert disk.read_lines(tmp_path / "lines.jsonl") == [{"text": "a\u2028b"}, {"text": "c"}]


@pytest.mark.parametrize(
    "words",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "I/O error: File too large (os error 27)",
    ],
)
def test_a_full_disk_is_named_whatever_class_of_error_says_so(tmp_path, words):
    """safetensors has one of its own."""
    with (
        pytest.raises(
            UserError, match=f"cannot write .*{words.split(' (')[0].split(': ')[-1]}.*free\\); free some space"
        ),
        disk.full_disk_named(tmp_path, "free some space"),
    ):
        raise SafetensorError(words)
    with pytest.raises(SafetensorError, match="another fault"), disk.full_disk_named(tmp_path, "free some space"):
        raise SafetensorError("another fault")


def test_safetensors_says_a_full_disk_so(tmp_path):
    """Under a limit of the size of files, which is the nearest to a full disk that a test can have."""
    code = (
        "import resource, signal, sys, torch; from pathlib import Path; from safetensors.torch import save_file\n"
        "from lco.disk import full_disk_named; from lco.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    with full_disk_named(folder, 'free some space'):\n"
        "        save_file({'x': torch.zeros(10000)}, folder / 'x.safetensors')\n"
        "except UserError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
