"""What tests of data share."""

from argparse import Namespace

import pytest


@pytest.fixture
def hub(monkeypatch):
    """Stands in for `datasets.load_dataset`; `hub.splits` is what it gives or raises, `hub.asked` what it was asked."""
    import datasets

    hub = Namespace(splits={}, asked=None)

    def load_dataset(**asked):
        hub.asked = asked
        if isinstance(hub.splits, Exception):
            raise hub.splits
        return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in hub.splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return hub
