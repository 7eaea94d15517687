"""The seal of a checkpoint names every file."""

import json

from training.checkpoint.manifest import write_manifest


def test_manifest_names_every_file(two_checkpoints):
    checkpoint = two_checkpoints / "checkpoint-2"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert manifest["files"].keys() == {path.name for path in checkpoint.iterdir()} - {"manifest.json"}
    assert manifest["global_step"] == 2 and manifest["flags"]["lora_r"] == 4
    expected = {"adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert expected | {"trainer_state.json", "tokenizer.json"} <= manifest["files"].keys()


def test_manifest_of_nested_files(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("x")
    write_manifest(tmp_path, 1, {})
    files = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert files == {"inner/file": {"bytes": 1, "sha256": files["inner/file"]["sha256"]}}
