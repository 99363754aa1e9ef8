"""Files that are whole or absent."""

from lco import disk


def test_files_are_replaced_whole_and_their_folder_is_made(tmp_path):
    disk.write_text(tmp_path / "new" / "page", "one")
    disk.write_text(tmp_path / "new" / "page", "two")
    assert [file.read_text() for file in (tmp_path / "new").iterdir()] == ["two"]


def test_lines_end_at_newlines_alone(tmp_path):
    for text in ("a\u2028b", "c"):
        disk.append_line(tmp_path / "lines.jsonl", {"text": text})
    assert disk.read_lines(tmp_path / "lines.jsonl") == [{"text": "a\u2028b"}, {"text": "c"}]
