"""Files of judgements, and the command that rates them."""

import json

from eval.elo.ratings import main

SUFFIX = "gpt-4-reviewer-threeclass"


def writing(tmp_path):
    """Fixture: a function: file name, scores and more fields of every line → path, with a question for each score."""

    def make(name, scores, start=1, **fields):
        path = tmp_path / f"{name}.jsonl"
        lines = [{"question_id": number, "score": score, **fields} for number, score in enumerate(scores, start)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return make


def rating(tmp_path, monkeypatch):
    """Fixture: a function: files and flags → what elo.json holds. The picture, which takes the longest, is left out."""
    monkeypatch.setattr("eval.elo.ratings.draw", lambda result, file: False)

    def run(*argv):
        assert main([*map(str, argv), "--output", str(tmp_path / "out")]) == 0
        return json.loads((tmp_path / "out" / "elo.json").read_text(encoding="utf-8"))

    return run
