"""The last thing that `make reproduce` does, on the committed records."""

from pathlib import Path

from reproduce.miniature.screen import build_report

RECORDS = Path(__file__).parents[2] / "results" / "miniature"


def test_the_final_screen_shows_both_classes_and_names_every_file(tmp_path, capsys):
    build_report(RECORDS, tmp_path)
    screen = capsys.readouterr().out
    for text in ("LlamaForCausalLM", "Qwen2ForCausalLM", "start, greedy", "LCO-KLD", "beyond sharpening"):
        assert text in screen
    for column in ("no answer", "cut", "seeds"):  # the page has them, a terminal no room
        assert column not in screen
    for name in ("table.md", "learning_curves.png", "index.html"):
        assert str(tmp_path / name) in screen
        assert (tmp_path / name).stat().st_size > 1000
