"""The flags of the base model: which one, and how it is fetched.

    ModelArguments(model_name_or_path="Qwen/Qwen3-0.6B")

How it is held (--bits) is among the flags of training, as published.
"""

import os
from dataclasses import dataclass

from arguments.declare import check_values, option, require, settle
from common.launcher import processes


@dataclass(frozen=True)
class ModelArguments:
    """Which base model, and how it is fetched."""

    _argument_group_name = "base model"

    model_name_or_path: str = option(
        "EleutherAI/pythia-12b",
        "Base model: a local directory, or a name on the Hugging Face hub.",
        affects="base",
    )
    trust_remote_code: bool = option(False, "Run model code that comes with the checkpoint. Off unless you trust it.")
    use_auth_token: bool = option(
        False,
        "Require a stored Hugging Face token and send it (gated models); unset: it is sent where there is one.",
        aliases=["--use_auth", "--use-auth"],
    )
    device_map: str | None = option(
        None,
        "Where layers go: unset = the whole model on one device; 'auto' = spread over the GPUs, --max_memory_MB each.",
        choices=("auto",),
    )

    def __post_init__(self):
        check_values(self)
        settle(self, model_name_or_path=os.path.expanduser(self.model_name_or_path.strip()))
        require(bool(self.model_name_or_path), "--model_name_or_path is empty: give a directory or a hub name.")
        self.check_path()
        require(
            self.device_map is None or processes() == 1,
            f"--device_map {self.device_map} under a launcher (WORLD_SIZE {processes()}): each process has one GPU "
            "there. Leave --device_map out, or start one process without a launcher.",
        )

    def check_path(self) -> None:
        """Refuse what can only be meant as a local directory (a hub name has one slash at most) but is none."""
        name = self.model_name_or_path
        require(not os.path.isfile(name), f"--model_name_or_path {name}: a file; give the directory that it is in.")
        local = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
        require(
            os.path.isdir(name) or not local,
            f"--model_name_or_path {name}: no such directory. Give one with config.json and *.safetensors, or a hub "
            "name like Qwen/Qwen3-0.6B.",
        )
