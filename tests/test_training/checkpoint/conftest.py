"""What tests of checkpoints share."""

import pytest

import qlora


@pytest.fixture(scope="session")
def two_checkpoints(make_base, rows_file, tmp_path_factory):
    """An output directory with checkpoint-1 and checkpoint-2 of a run that was not completed."""
    out = tmp_path_factory.mktemp("two") / "out"
    argv = ["--model_name_or_path", str(make_base()), "--dataset", str(rows_file), "--output_dir", str(out)]
    argv += ["--max_steps", "2", "--save_steps", "1", "--lora_r", "4", "--disable_tqdm", "True"]
    assert qlora.main(argv) == 0
    (out / "completed").unlink()
    return out
